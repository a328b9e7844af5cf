"""A real HTTP server on loopback that answers by a script, and writes down what it was asked."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from builder.api.http import Http
from builder.redact import Redactor
from tests.fakes.runpod.clock import PlaneClock

__all__ = ["KEY", "Asked", "Script", "Step", "Wire", "free_port", "scripted"]

KEY = "rpa_SCRIPTEDKEY0123456789abcdef"


@dataclass(frozen=True)
class Step:
    """One answer. `cut`: read the request, then close without an answer, or reset, or stop within the body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: Literal["", "close", "reset", "short"] = ""
    chunks: Iterable[bytes] | None = None
    before: Callable[[], None] = lambda: None

    def payload(self) -> bytes:
        if self.body is None:
            return b""
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Script:
    """The steps left; after the last one every request fails the test with status 599."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self.asked: list[Asked] = []
        self.url = ""
        self._lock = threading.Lock()

    def next(self, asked: Asked) -> Step:
        with self._lock:
            self.asked.append(asked)
            return self.steps.pop(0) if self.steps else Step(599, "the script is over")

    @property
    def calls(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]


@dataclass
class Wire:
    """A client of a scripted server in virtual time; `notes` is what it said about waits."""

    script: Script
    clock: PlaneClock = field(default_factory=PlaneClock)
    redactor: Redactor = field(default_factory=Redactor)
    notes: list[str] = field(default_factory=list)

    def http(self, base: str | None = None, *, draw: Callable[[], float] = lambda: 0.5) -> Http:
        address = self.script.url if base is None else base
        return Http(address, key=KEY, clock=self.clock, redactor=self.redactor, note=self.notes.append, draw=draw)


@contextmanager
def scripted(*steps: Step) -> Iterator[Wire]:
    """Serve `steps`, one a request."""
    script = Script(steps)

    class Handler(_Handler):
        plan = script

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield Wire(script)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class _Handler(BaseHTTPRequestHandler):
    plan: Script
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        step = self.plan.next(Asked(self.command, self.path, headers, body))
        step.before()
        if step.cut in ("close", "reset"):
            if step.cut == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        if step.chunks is not None:
            self._stream(step, step.chunks)
            return
        payload = step.payload()
        self.send_response(step.status)
        for name, value in step.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload) + (100 if step.cut == "short" else 0)))
        self.end_headers()
        self.wfile.write(payload)
        self.close_connection = step.cut == "short"

    def _stream(self, step: Step, chunks: Iterable[bytes]) -> None:
        self.send_response(step.status)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.flush()
        if step.cut == "short":
            self.close_connection = True
            return
        self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        pass
