"""What the checks share: free ports, HTTP on loopback, recordings with their words, the server in a container."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tools.image_checks.commands import ROOT, CheckFailedError, check, ran, until
from tools.image_checks.containers import Container, Engine

__all__ = [
    "SAMPLE",
    "Served",
    "Target",
    "free_ports",
    "get",
    "inline_audio",
    "inline_opus",
    "served",
    "streaming",
    "transcript",
    "words_of",
]

SAMPLES = ROOT / "engine" / "demo_model" / "samples"
SAMPLE = "hello_en.wav"
READY_LIMIT_S = 180.0
HTTP_LIMIT_S = 10.0
STREAM_LIMIT_S = 180.0


@dataclass(frozen=True)
class Target:
    """The image under test."""

    engine: Engine
    image: str


@dataclass(frozen=True)
class Served:
    """A live server in a container and its ports."""

    container: Container
    port: int
    health_port: int

    @property
    def url(self) -> str:
        """Where it takes streams."""
        return f"ws://127.0.0.1:{self.port}"

    def status(self, path: str) -> int | None:
        """Of the health port; None while nobody answers."""
        answer = get(self.health_port, path)
        return answer[0] if answer else None

    def wait_ready(self, path: str = "/ready") -> float:
        """Seconds until `path` answers 200. Raises CheckFailedError, also if the container ends."""
        return until(lambda: self._answers(path), f"{path} of the container", READY_LIMIT_S)

    def _answers(self, path: str) -> bool:
        if self.status(path) == http.client.OK:
            return True
        self.container.up(path, ended=False)
        return False


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def get(port: int, path: str) -> tuple[int, str] | None:
    """Status and body; None if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HTTP_LIMIT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@contextlib.contextmanager
def served(
    target: Target,
    *,
    flags: tuple[str, ...] | None = None,
    is_balanced: bool = False,
    env: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """The live server in a confined container on two free ports; `is_balanced`: as a load balancer's worker."""
    port, health_port = free_ports(2)
    ports = ("PORT", "PORT_HEALTH") if is_balanced else ("WHISPERLIVE_PORT", "HEALTH_CHECK_PORT")
    settings = {ports[0]: str(port), ports[1]: str(health_port), "WHISPERLIVE_HOST": "127.0.0.1", **(env or {})}
    more = {} if flags is None else {"flags": flags}
    with target.engine.running(target.image, env=settings, **more) as container:
        yield Served(container, port, health_port)


def words_of(name: str) -> str:
    """What is said in a recording of the demo model."""
    labels: list[dict[str, Any]] = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    return next(str(each["text"]) for each in labels if each["file"] == name)


def inline_audio(name: str) -> str:
    """A recording as a job holds it."""
    return base64.b64encode((SAMPLES / name).read_bytes()).decode()


def inline_opus(name: str, times: int = 1) -> str:
    """The same, said several times and an eighth as long."""
    samples, rate_hz = soundfile.read(SAMPLES / name)
    packed = io.BytesIO()
    soundfile.write(packed, np.tile(samples, times), rate_hz, format="OGG", subtype="OPUS")
    return base64.b64encode(packed.getvalue()).decode()


def _client(url: str, name: str, *options: str) -> list[str | Path]:
    return [sys.executable, "-m", "realtime.client", url, SAMPLES / name, "--language", "en", *options]


def _client_environ() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHISPER")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def transcript(url: str, name: str = SAMPLE) -> str:
    """Stream a recording from this machine as fast as it goes; raises CheckFailedError unless the words are right."""
    command = _client(url, name, "--fast", "--quiet", "--output", "-")
    ended = ran(command, limit_s=STREAM_LIMIT_S, env=_client_environ())
    check(ended.code == 0, f"realtime.client ended with {ended.code}: {ended.tail}")
    heard = " ".join(ended.out.split())
    check(heard == words_of(name), f"heard {heard!r} instead of {words_of(name)!r}")
    return heard


@contextlib.contextmanager
def streaming(url: str, count: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`count` clients that speak in real time; yields once each has seen words. They are ended afterwards."""
    logs = [folder / f"client-{os.getpid()}-{number}.log" for number in range(count)]
    clients = []
    try:
        for log in logs:
            with log.open("wb") as file:
                command = _client(url, "meeting_en.wav", "--json")
                clients.append(subprocess.Popen(command, stdout=file, stderr=file, env=_client_environ()))
        until(lambda: all(b'"text"' in log.read_bytes() for log in logs), "first words of the streams", STREAM_LIMIT_S)
        if any(client.poll() is not None for client in clients):
            raise CheckFailedError(f"a stream ended too early: {logs[0].read_text(errors='replace')[-500:]}")
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait()
        for log in logs:
            log.unlink(missing_ok=True)
