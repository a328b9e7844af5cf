"""The platform's queue as far as one job needs it: a loopback server that hands out a job and takes its result.

Speaks what the RunPod SDK's worker asks for (take one, take a batch, stop, ping, done), nothing more; for the
benchmark of starts. Invariants: listens on loopback only; a request that has nothing to wait for is held for
HOLD_S, as the platform does, so that the SDK does not ask in a hot loop; a job is handed out once.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from engine.clock import MonotonicClock

__all__ = ["HOLD_S", "QueuePlane"]

HOLD_S = 0.5
"""Shorter than the platform's 20 s: a worker that is told to stop waits for its open request."""
MAX_RESULT_BYTES = 1 << 20
"""The result of a recording of seconds; a larger one is a mistake."""


class QueuePlane:
    """One queue with at most one job; a context manager. Times are those of a monotonic clock."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.first_take_s: float | None = None
        self._clock = MonotonicClock()
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._jobs.put(job)
        self._results: queue.SimpleQueue[tuple[float, dict[str, Any]]] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> QueuePlane:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the SDK finds this queue; the names after `$` are the SDK's to fill in."""
        base = f"http://127.0.0.1:{self._server.server_address[1]}/v2/bench"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=none",
            "RUNPOD_ENDPOINT_ID": "bench",
            "RUNPOD_POD_ID": "bench-worker",
            "RUNPOD_AI_API_KEY": "bench-key",
        }

    def result(self, limit_s: float) -> tuple[float, dict[str, Any]]:
        """When the result came, and its body. Raises queue.Empty after `limit_s`."""
        return self._results.get(timeout=limit_s)

    def answer(self, path: str) -> object | None:
        """What a GET brings; None: nothing (204)."""
        if "/ping/" in path:
            return {}
        is_batch = "/job-take-batch/" in path
        if is_batch or "/job-take/" in path:
            if self.first_take_s is None:
                self.first_take_s = self._clock.now_s()
            try:
                job = self._jobs.get(timeout=HOLD_S)
            except queue.Empty:
                return None
            return [job] if is_batch else job
        threading.Event().wait(HOLD_S)
        return None

    def take_result(self, path: str, body: bytes) -> None:
        """Keep what a POST brings, if it is a result and not progress."""
        if "/job-done/" in path:
            found = json.loads(body)
            if found.get("status") != "IN_PROGRESS":
                self._results.put((self._clock.now_s(), found))


def _handler(plane: QueuePlane) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            found = plane.answer(self.path)
            self._reply(204 if found is None else 200, b"" if found is None else json.dumps(found).encode())

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", "0"))
            if size > MAX_RESULT_BYTES:
                self.close_connection = True
                self._reply(413, b"")
                return
            plane.take_result(self.path, self.rfile.read(size))
            self._reply(200, b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the log is the worker's."""

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            # A worker that is told to stop may leave its open request.
            with contextlib.suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

    return Handler
