"""Pods of the fake that really run: a server of ours behind the proxy, from RUNNING until the pod stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.fakes.runpod.account import StoredSecret
from tests.fakes.runpod.boots import Timing
from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.local_pods import LocalPods
from tests.fakes.runpod.pod import Pod
from tests.fakes.runpod.pod_process import pod_environ

ROOT = Path(__file__).parent.parent
TOKEN = "canary-5d1c0f7a92"
LIMIT_S = 30.0


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(RealPlaneClock()) as plane:
        plane.pods.timing = Timing(0.1, 0.1, 0.1)
        yield plane


def rent(plane: ControlPlane, **env: str) -> Pod:
    gpu = {"id": "NVIDIA L4", "count": 1}
    ports = ["7001/http", "9999/http"]
    return plane.pods.create(
        {"name": "p", "image": "me/whisper:1", "gpu": gpu, "cloud": "SECURE", "ports": ports, "env": env}
    )


def health(plane: ControlPlane, pod: Pod, path: str = "/ready") -> int:
    url = plane.environ()["RUNPOD_PROXY_TEMPLATE"].format(pod=pod.id, port=9999)
    return requests.get(url + path, timeout=5).status_code


def until(condition: Callable[[], object], what: str) -> None:
    ends_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_s, f"not {what} within {LIMIT_S} s"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_running_pod_is_a_server_that_may_stop_itself(plane: ControlPlane) -> None:
    plane.pods.account.secrets["token"] = StoredSecret("s1", "token", TOKEN)
    with LocalPods(plane) as local:
        pod = rent(
            plane, WHISPER_MODEL="turbo", WHISPERLIVE_PORT="7001", WHISPER_AUTH_TOKEN="{{ RUNPOD_SECRET_token }}"
        )
        assert health(plane, pod) == 502
        until(lambda: health(plane, pod) == 200, "ready")
        lines = [line.line for line in pod.lines if line.source == "container"]
        assert any("with a secret" in line and "loading model demo" in line for line in lines)
        assert TOKEN not in "".join(lines)
        pid = local.pids()[pod.id]
        os.killpg(pid, signal.SIGKILL)
        until(lambda: local.pids().get(pod.id, pid) != pid and health(plane, pod, "/health") == 200, "started again")
        assert "container exited with code -9" in [line.line for line in pod.lines]

        url, key = f"{plane.url}/v2/pods", {"Authorization": f"Bearer {plane.pod_key(pod.id)}"}
        assert requests.post(f"{url}/other/action", json={"action": "stop"}, headers=key, timeout=5).status_code == 403
        pid = local.pids()[pod.id]
        done = requests.post(f"{url}/{pod.id}/action", json={"action": "stop"}, headers=key, timeout=5)
        assert (done.status_code, done.json()["status"]) == (200, "EXITED")
        until(lambda: not is_alive(pid), "gone")
        assert health(plane, pod) == 502 and local.pids() == {}
        plane.pods.act(pod.id, "start")
        until(lambda: local.pids(), "started again")
        pid = local.pids()[pod.id]
    assert not is_alive(pid)


def test_nothing_of_this_machine_gets_into_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WHISPER_LANGUAGE", "RUNPOD_API_KEY", "HTTPS_PROXY", "http_proxy", "SSL_CERTFILE", "POD_DEADLINE"):
        monkeypatch.setenv(name, "ours")
    environ = pod_environ({"WHISPERLIVE_HOST": "0.0.0.0", "MAX_CLIENTS": "2"}, {"RUNPOD_POD_ID": "p"})
    assert "ours" not in environ.values()
    assert (environ["WHISPERLIVE_HOST"], environ["MAX_CLIENTS"], environ["RUNPOD_POD_ID"]) == ("127.0.0.1", "2", "p")


def test_the_plane_as_a_command_runs_another_with_its_environment() -> None:
    code = "import os, sys; sys.exit(7 if os.environ['RUNPOD_API_BASE'].endswith('/v2') else 1)"
    command = [sys.executable, "-m", "tests.fakes.runpod", "--", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 7, done.stderr
    names = [line.split("=")[0] for line in done.stdout.splitlines()]
    assert "export RUNPOD_API_KEY" in names and "export RUNPOD_PROXY_TEMPLATE" in names
