"""Changing a pod's window setting to measure it: every setting in turn, and the old one back whatever happens."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder.checks.pad_rule import Measured
from builder.checks.quality import NEW_SETTING_LIMIT_S, PadTrial
from builder.checks.targets import Target, choose_target
from builder.errors import CheckFailedError, ConflictError, InterruptError, NotFoundError
from builder.runtime import Runtime, World
from tests.fakes.runpod.clock import PlaneClock

KEY = "rpa_canary7canary7canary7"
SETTING = "WHISPER_WINDOW_PAD_S"


class ScriptedPod:
    """One pod: its API, and behind the proxy its health port. A setting is in force after a restart."""

    def __init__(self) -> None:
        self.environ = {"WHISPER_MODEL": "turbo", "WHISPER_AUTH_TOKEN": "secret-of-16-chars-"}
        self.pad_s = 30.0
        self.restarts = 0
        self.is_deaf = False
        """True: restarts change nothing."""
        self.refuses_restart = False
        self.base = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and JSON."""
        if path.endswith("/action"):
            if self.refuses_restart:
                return 409, {"title": "Conflict", "status": 409, "detail": "not now"}
            self.restart()
        elif method == "PATCH":
            self.environ = body["env"]
            if self.refuses_restart:
                self.restart()
        elif "/proxy/" in path:
            what = {"health": "healthy", "ready": "ready", "status": "healthy"}[path.rsplit("/", 1)[1]]
            return 200, {"status": what, "engine": {"window_pad_s": self.pad_s}}
        return 200, self.document()

    def restart(self) -> None:
        """Start anew with the present environment."""
        self.restarts += 1
        if not self.is_deaf:
            self.pad_s = float(self.environ.get(SETTING, 30))

    def document(self) -> dict[str, Any]:
        """As REST v2 shows it."""
        return {
            "id": "pod1",
            "name": "whisper-1",
            "status": "RUNNING",
            "actions": ["stop", "restart", "terminate"],
            "image": "me/whisper:1",
            "env": self.environ,
            "ports": ["9090/http", "9999/http"],
            "args": "",
            "disk": 20,
            "mounts": None,
            "cloud": "SECURE",
            "cost": 0.5,
            "locked": False,
            "runtime": {"uptime": 1, "gpus": [], "ports": []},
            "createdAt": "2026-01-31T12:00:00Z",
            "startedAt": "2026-01-31T12:00:00Z",
        }


@pytest.fixture
def pod() -> Iterator[ScriptedPod]:
    scripted = ScriptedPod()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if re.search(r"/logs", self.path):
                self.reply(200, "text/event-stream", b"")
                return
            status, document = scripted.answer(self.command, self.path.split("?")[0], body)
            self.reply(status, "application/json", json.dumps(document).encode())

        def reply(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = respond

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scripted.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def run(pod: ScriptedPod, tmp_path: Path) -> Runtime:
    environ = {
        "RUNPOD_API_KEY": KEY,
        "RUNPOD_API_BASE": f"{pod.base}/v2",
        "RUNPOD_PROXY_TEMPLATE": pod.base + "/proxy/{pod}/{port}",
    }
    return Runtime(World(environ, tmp_path, clock=PlaneClock()), quiet=True)


def measured_by(pod: ScriptedPod) -> Measured:
    return Measured(pod.pad_s, 500, 0.01)


def test_every_setting_is_measured_and_the_rest_of_the_environment_stays(run: Runtime, pod: ScriptedPod) -> None:
    before = dict(pod.environ)
    trial = PadTrial(run, choose_target(run, "pod1"))
    measured = trial.each([30.0, 10.0, 5.0], lambda: measured_by(pod))
    assert [each.pad_s for each in measured] == [30.0, 10.0, 5.0]
    assert pod.restarts == 2, "30 s were in force already"
    trial.finish(10.0)
    assert pod.environ == {**before, SETTING: "10"} and pod.pad_s == 10.0
    trial.finish(None)
    assert pod.environ == before and pod.pad_s == 30.0


def test_a_change_that_restarts_the_pod_by_itself(run: Runtime, pod: ScriptedPod) -> None:
    pod.refuses_restart = True
    measured = PadTrial(run, choose_target(run, "pod1")).each([10.0, 5.0], lambda: measured_by(pod))
    assert [each.pad_s for each in measured] == [10.0, 5.0]


@pytest.mark.parametrize("old", [None, "20"])
def test_ctrl_c_puts_the_old_setting_back(run: Runtime, pod: ScriptedPod, old: str | None) -> None:
    if old is not None:
        pod.environ[SETTING] = old
    before = dict(pod.environ)

    def measure() -> Measured:
        raise KeyboardInterrupt

    with pytest.raises(InterruptError, match="the pod has its old window setting"):
        PadTrial(run, choose_target(run, "pod1")).each([10.0, 5.0], measure)
    assert pod.environ == before and pod.pad_s == float(old or 30)


def test_a_setting_that_does_not_come_into_force(run: Runtime, pod: ScriptedPod) -> None:
    pod.is_deaf = True
    before, began_s = dict(pod.environ), run.clock.monotonic_s()
    with pytest.raises(CheckFailedError, match="still does not pad windows to 10 s"):
        PadTrial(run, choose_target(run, "pod1")).each([10.0, 5.0], lambda: measured_by(pod))
    assert pod.environ == before
    assert NEW_SETTING_LIMIT_S <= run.clock.monotonic_s() - began_s < NEW_SETTING_LIMIT_S + 60


def test_an_error_of_the_measurement_is_what_the_user_reads(run: Runtime, pod: ScriptedPod) -> None:
    def measure() -> Measured:
        raise ConflictError("the measurement failed")

    with pytest.raises(ConflictError, match="the measurement failed"):
        PadTrial(run, choose_target(run, "pod1")).each([10.0, 5.0], measure)
    assert SETTING not in pod.environ


def test_without_a_pod(run: Runtime) -> None:
    with pytest.raises(NotFoundError):
        PadTrial(run, Target("ws://127.0.0.1:9", "http://127.0.0.1:9", None))
