"""A pod's whole life as its owner sees it: real commands, real HTTP, a real server behind the proxy, real speech."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.runpod.boots import Timing
from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.local_pods import LocalPods

TOKEN = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).parent.parent


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(RealPlaneClock()) as plane:
        plane.pods.timing = Timing(provisioning_s=0.2, starting_s=0.3, start_s=0.2)
        with LocalPods(plane):
            yield plane


class Shell:
    """Commands as processes of their own, in one folder."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._folder = folder
        self._environ = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            **plane.environ(WHISPER_AUTH_TOKEN=TOKEN),
        }
        self.shown = ""

    def __call__(self, *argv: str, code: int = 0) -> str:
        """Standard output of one command, which must end with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "builder", *argv],
            cwd=self._folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.shown += done.stdout + done.stderr
        assert done.returncode == code, f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_a_pod_lives_serves_and_ends(plane: ControlPlane, tmp_path: Path) -> None:
    shell = Shell(plane, tmp_path)
    shell("deploy", "--image", "you/whisper:abc1234", "--gpu", "RTX 4090", "--max-minutes", "30", "--yes")
    pod_id = json.loads((tmp_path / "artifacts" / "pod.json").read_text())["pod_id"]
    waited = json.loads(shell("wait", "--until", "speaks", "--json"))
    assert waited["pod_id"] == pod_id
    # A transcript over the proxied WebSocket, with the token; without it, or with another, none.
    heard = json.loads(shell("test", "e2e", "--max-wer", "0.1", "--json"))
    assert heard["ok"] is True
    assert json.loads(shell("test", "ws", "--json"))["ok"] is True
    status = json.loads(shell("status", "--json"))
    assert status["status"] == "RUNNING"
    assert pod_id in status["ws_url"]
    assert "ready" in shell("logs", "--tail", "500").lower()
    shell("stop")
    assert plane.pods.get(pod_id).status == "EXITED"
    shell("terminate", "--yes")
    shell("status", pod_id, code=3)
    plane.assert_no_leaks()
    plane.assert_contract()
    plane.assert_no_secret(TOKEN)
    artifacts = "".join(path.read_text() for path in (tmp_path / "artifacts").iterdir())
    for secret in (TOKEN, plane.api_key):
        assert secret not in shell.shown + artifacts
