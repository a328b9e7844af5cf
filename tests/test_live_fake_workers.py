"""Workers of the fake's endpoints that really run: they take jobs and requests, may be killed, and leave nothing."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect

from tests.fakes.runpod.account import StoredSecret
from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.local_workers import LocalWorkers
from tests.serving import DEMO

LIMIT_S = 60.0
HELLO = "Hello, my name is Anna."
TOKEN = "canary-77aa31c09e"
SPEC: dict[str, Any] = {
    "image": "me/whisper:1",
    "gpu": {"pools": ["AMPERE_24"], "count": 1},
    "workers": {"min": 0, "max": 1, "idleTimeout": 60},
}
QUEUE = {"name": "q", "type": "QUEUE", "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1}, **SPEC}
BALANCER = {
    "name": "lb",
    "type": "LOAD_BALANCER",
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 4},
    "ports": ["9090/http"],
    "env": {"PORT": "9090", "PORT_HEALTH": "9090"},
    **SPEC,
}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(RealPlaneClock()) as plane:
        plane.endpoints.boot_s = 0.1
        yield plane


def until(condition: Callable[[], object], what: str) -> None:
    ends_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < ends_s, f"not {what} within {LIMIT_S} s"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def inline(name: str) -> str:
    return base64.b64encode((DEMO / "samples" / name).read_bytes()).decode()


class Client:
    """The job API of one endpoint, as whoever has the account's key."""

    def __init__(self, plane: ControlPlane, endpoint_id: str) -> None:
        self._url = f"{plane.environ()['RUNPOD_JOB_BASE']}/{endpoint_id}"
        self._headers = {"Authorization": f"Bearer {plane.api_key}"}

    def run(self, **job_input: Any) -> str:
        answer = requests.post(f"{self._url}/run", json={"input": job_input}, headers=self._headers, timeout=10)
        return str(answer.json()["id"])

    def status(self, job_id: str) -> dict[str, Any]:
        answer = requests.get(f"{self._url}/status/{job_id}", headers=self._headers, timeout=10)
        assert answer.status_code == 200
        return dict(answer.json())

    def state(self, job_id: str) -> str:
        return str(self.status(job_id)["status"])

    def result(self, job_id: str) -> dict[str, Any]:
        until(lambda: self.state(job_id) in ("COMPLETED", "FAILED"), f"{job_id} over")
        job = self.status(job_id)
        assert job["status"] == "COMPLETED", job
        return job


def test_a_killed_workers_job_is_done_by_the_next(plane: ControlPlane) -> None:
    plane.pods.account.secrets["token"] = StoredSecret("s1", "token", TOKEN)
    env = {"WHISPER_MODEL": "turbo", "WHISPER_AUTH_TOKEN": "{{ RUNPOD_SECRET_token }}"}
    with LocalWorkers(plane, heartbeat_limit_s=4.0) as local:
        endpoint = plane.endpoints.create({**QUEUE, "env": env})
        client = Client(plane, endpoint.id)
        assert local.pids() == {}
        first = client.result(client.run(audio_base64=inline("hello_en.wav"), language="en"))
        assert first["output"]["transcription"] == HELLO
        (worker_id,) = local.pids()
        assert first["workerId"] == worker_id
        worker = plane.endpoints.worker(endpoint.id, worker_id)
        assert worker.status == "IDLE"
        lines = [line.line for line in worker.lines if line.source == "container"]
        assert len(lines) > 1 and TOKEN not in "".join(lines)

        pid = local.pids()[worker_id]
        job_id = client.run(audio=[inline("meeting_en.wav")] * 4, language="en", beam_size=10)
        until(lambda: client.state(job_id) == "IN_PROGRESS", "taken")
        local.kill(worker_id)
        until(lambda: not is_alive(pid), "killed")
        second = client.result(job_id)
        assert second["retries"] == 1 and second["workerId"] != worker_id
        assert plane.endpoints.queues[endpoint.id].store.jobs[job_id].runs == 2
        assert "worker exited with code -9" in [line.line for line in worker.lines]

        pids = list(local.pids().values())
        plane.endpoints.update(endpoint.id, {"workers": {"min": 0, "max": 0}})
        until(lambda: local.pids() == {}, "scaled to zero")
        until(lambda: not any(map(is_alive, pids)), "gone")
        plane.endpoints.delete(endpoint.id)
    plane.assert_no_leaks()


def test_a_balancers_worker_is_a_server_behind_the_key(plane: ControlPlane) -> None:
    recording = Path(DEMO / "samples" / "hello_en.wav").read_bytes()
    with LocalWorkers(plane) as local:
        endpoint = plane.endpoints.create(BALANCER)
        url = plane.environ()["RUNPOD_LB_TEMPLATE"].format(endpoint=endpoint.id)
        headers = {"Authorization": f"Bearer {plane.api_key}"}
        # The first request brings the worker up, and waits for it.
        answer = requests.post(
            f"{url}/v1/audio/transcriptions",
            files={"file": ("hello.wav", recording, "audio/wav")},
            data={"model": "whisper-1"},
            headers=headers,
            timeout=LIMIT_S,
        )
        assert (answer.status_code, answer.json()["text"].strip()) == (200, HELLO)
        ((worker_id, pid),) = local.pids().items()
        assert answer.headers["X-Runpod-Worker-Id"] == worker_id
        assert requests.get(f"{url}/ping", headers=headers, timeout=10).status_code == 200
        assert requests.get(f"{url}/ping", timeout=10).status_code == 401
        with connect(url.replace("http", "ws", 1), additional_headers=headers, proxy=None) as socket:
            socket.send(json.dumps({"uid": "u1", "language": "en", "task": "transcribe", "model": "demo"}))
            assert json.loads(socket.recv(LIMIT_S))["message"] == "SERVER_READY"
            until(lambda: plane.endpoints.worker(endpoint.id, worker_id).status == "RUNNING", "busy")
        plane.endpoints.delete(endpoint.id)
        until(lambda: not is_alive(pid), "gone")
        assert requests.get(f"{url}/ping", headers=headers, timeout=10).status_code == 404


def test_ports_that_do_not_agree_are_a_bad_gateway(plane: ControlPlane) -> None:
    with LocalWorkers(plane) as local:
        endpoint = plane.endpoints.create({**BALANCER, "env": {"PORT": "8000", "PORT_HEALTH": "8000"}})
        url = plane.environ()["RUNPOD_LB_TEMPLATE"].format(endpoint=endpoint.id)
        answer = requests.get(f"{url}/ping", headers={"Authorization": f"Bearer {plane.api_key}"}, timeout=LIMIT_S)
        assert answer.status_code == 502
        pids = list(local.pids().values())
    assert pids
    until(lambda: not any(map(is_alive, pids)), "gone")
