"""A real server process on loopback, and a plain WebSocket peer, for tests over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import websockets
from websockets.asyncio.client import ClientConnection

from engine.types import SAMPLE_RATE_HZ, FloatArray

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "engine" / "demo_model"
START_LIMIT_S = 60.0
LISTENING = re.compile(r"listening on wss?://[^:]+:(\d+) .*health on port (\d+)")


def clean_environ(**extra: str) -> dict[str, str]:
    """The environment without anything that configures the server."""
    prefixes = ("WHISPER", "RUNPOD", "MAX_", "LOG_", "HEALTH_", "SSL_", "HF_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


@dataclass
class Server:
    """A running `python -m realtime`."""

    process: subprocess.Popen[bytes]
    log_file: IO[bytes]
    port: int = 0
    health_port: int = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def log(self) -> str:
        return Path(self.log_file.name).read_text(encoding="utf-8", errors="replace")

    def get(self, path: str, *, main_port: bool = False, token: str | None = None) -> tuple[int, str]:
        port = self.port if main_port else self.health_port
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def wait_ready(self) -> None:
        self.wait_until(lambda: self.get("/ready")[0] == 200, "ready")

    def wait_until(self, condition: Any, what: str, limit_s: float = START_LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert self.process.poll() is None, f"server ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"not {what} within {limit_s} s:\n{self.log()}"
            time.sleep(0.05)

    def engine_pid(self) -> int:
        """The engine child: the process among our children that runs engine.child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            with contextlib.suppress(OSError):
                if b"engine.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        raise AssertionError("no engine child")

    def terminate(self, limit_s: float = 15.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s)


@contextlib.contextmanager
def running_server(*args: str, ready: bool = True, **environ: str) -> Iterator[Server]:
    """Start a server with the demo model on free loopback ports; end it afterwards."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log_file:
        command = [sys.executable, "-m", "realtime", "--port", "0", "--health-port", "0", *args]
        # Not in the repository's folder: a `.env` that somebody made there is none of the tests' business.
        surroundings = {"PYTHONPATH": str(ROOT), **clean_environ(**environ)}
        process = subprocess.Popen(command, cwd=folder, env=surroundings, stderr=log_file, stdout=log_file)
        server = Server(process, log_file)
        try:
            server.wait_until(lambda: LISTENING.search(server.log()), "listening")
            found = LISTENING.search(server.log())
            assert found
            server.port, server.health_port = int(found[1]), int(found[2])
            if ready:
                server.wait_ready()
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@dataclass
class Peer:
    """One WebSocket peer that records everything; checks the promises of completed segments."""

    socket: ClientConnection
    uid: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    completed: list[dict[str, Any]] = field(default_factory=list)
    provisional: dict[str, Any] | None = None
    violations: list[str] = field(default_factory=list)

    async def receive(self, timeout_s: float = 20.0) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), timeout_s))
        self.messages.append(message)
        self.arrivals_s.append(time.monotonic())
        if "segments" in message:
            self._take(message["segments"])
        return message

    async def receive_all(self, timeout_s: float = 60.0) -> None:
        """Until the server closes."""
        deadline = time.monotonic() + timeout_s
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await self.receive(max(0.1, deadline - time.monotonic()))

    async def until(self, wanted: Any, timeout_s: float = 20.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            message = await self.receive(max(0.1, deadline - time.monotonic()))
            if wanted(message):
                return message

    def _take(self, segments: list[dict[str, Any]]) -> None:
        done = [segment for segment in segments if segment["completed"]]
        known = {(segment["start"], segment["end"], segment["text"]) for segment in self.completed}
        for segment in done:
            if (segment["start"], segment["end"], segment["text"]) in known:
                continue
            if self.completed and float(segment["start"]) < float(self.completed[-1]["end"]):
                self.violations.append(f"{segment} begins before the end of {self.completed[-1]}")
            if self.provisional and segment is done[-1] and segment is segments[-1]:
                shown = (self.provisional["start"], self.provisional["text"])
                if shown != (segment["start"], segment["text"]):
                    self.violations.append(f"{segment} was not shown as provisional before")
            self.completed.append(segment)
        last = segments[-1]
        self.provisional = None if last["completed"] else last

    @property
    def text(self) -> str:
        return "".join(segment["text"] for segment in self.completed)

    async def send_audio(self, samples: FloatArray, chunk_s: float = 0.256, speed: float = 30.0) -> None:
        """Paced at `speed` times real time; float32 frames."""
        step = max(1, int(chunk_s * SAMPLE_RATE_HZ))
        started = time.monotonic()
        for first in range(0, len(samples), step):
            await self.socket.send(samples[first : first + step].astype("<f4").tobytes())
            due = started + (first + step) / SAMPLE_RATE_HZ / speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))


@contextlib.asynccontextmanager
async def connected(server: Server, path: str = "/", **options: Any) -> AsyncIterator[Peer]:
    """A peer before its handshake."""
    async with websockets.connect(server.url + path, max_size=None, **options) as socket:
        yield Peer(socket, "test")


@contextlib.asynccontextmanager
async def streaming(server: Server, path: str = "/", **keys: Any) -> AsyncIterator[Peer]:
    """A peer after SERVER_READY."""
    async with connected(server, path) as peer:
        uid = keys.pop("uid", "test-uid")
        peer.uid = uid
        handshake = {"uid": uid, "language": "en", "task": "transcribe", "model": None, "use_vad": True, **keys}
        await peer.socket.send(json.dumps(handshake))
        ready = await peer.receive()
        assert ready["message"] == "SERVER_READY", ready
        yield peer


def recording(name: str) -> FloatArray:
    """A shipped recording, float32 at 16 kHz."""
    folder = DEMO / ("speech" if name.endswith(".flac") else "samples")
    samples, rate = soundfile.read(folder / name, dtype="float32")
    assert rate == SAMPLE_RATE_HZ
    return np.asarray(samples, dtype=np.float32)


def labels() -> list[dict[str, Any]]:
    """What is said in the shipped recordings."""
    samples: list[dict[str, Any]] = json.loads((DEMO / "samples" / "samples.json").read_text(encoding="utf-8"))
    speech: list[dict[str, Any]] = json.loads((DEMO / "speech" / "speech.json").read_text(encoding="utf-8"))
    return samples + speech


def label(name: str) -> dict[str, Any]:
    return next(entry for entry in labels() if entry["file"] == name)
