"""Runs `python -m realtime` as a child on free loopback ports, for demo, benchmark and tests.

Knows the server only as a command with settings. Invariants: the child sees no setting of the caller's
environment or `.env`, so it always runs the same; the last lines of its log are kept, never more; it is
gone, with all its children, when the context is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.clock import MonotonicClock
from engine.errors import ServerError
from engine.settings import rows

__all__ = ["READY_TIMEOUT_S", "STOP_TIMEOUT_S", "LocalServer", "ServerFailedError", "Stopped", "local_server"]

READY_TIMEOUT_S = 120.0
"""A cold start of the demo model takes seconds; on a loaded machine perhaps a minute."""
STOP_TIMEOUT_S = 8.0
"""The server's promise: docker sends SIGKILL 10 s after SIGTERM."""
POLL_S = 0.1
KEPT_LINES = 40
MAX_LINE_CHARS = 400
CLEANED_PREFIXES = ("WHISPER", "RUNPOD_", "PYTEST")
ROOT = Path(__file__).parent.parent.parent


class ServerFailedError(ServerError):
    """The server did not start; the message ends with the last lines of its log."""

    code = "server_failed"


@dataclass(frozen=True)
class Stopped:
    """How the server ended: exit code (negative: signal), and the seconds from SIGTERM to it."""

    code: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """True for exit code 0 within STOP_TIMEOUT_S."""
        return self.code == 0 and self.seconds <= STOP_TIMEOUT_S


class LocalServer:
    """A server process; made by `local_server`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, health_port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.health_port = health_port
        self.stopped: Stopped | None = None
        self._process = process
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._log = asyncio.create_task(self._keep_log())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines of the server's output."""
        return "\n".join(self._lines)

    async def wait_ready(
        self, timeout_s: float = READY_TIMEOUT_S, on_status: Callable[[str], None] = lambda text: None
    ) -> float:
        """Wait until `/ready` says 200; the seconds it took. `on_status` hears the reasons until then.

        Raises ServerFailedError if the process ends or `timeout_s` is over.
        """
        clock = MonotonicClock()
        begin_s = clock.now_s()
        while clock.now_s() - begin_s < timeout_s:
            if self._process.returncode is not None:
                await self._log
                raise ServerFailedError(f"the server ended with exit code {self._process.returncode}\n{self.log}")
            is_ready, reason = await asyncio.to_thread(_ask_ready, self.health_port)
            if is_ready:
                return clock.now_s() - begin_s
            on_status(reason)
            await asyncio.sleep(POLL_S)
        raise ServerFailedError(f"the server was not ready within {timeout_s:g} s\n{self.log}")

    async def stop(self) -> Stopped:
        """SIGTERM, then SIGKILL to all of its processes after STOP_TIMEOUT_S. May be called again."""
        if self.stopped is None:
            clock = MonotonicClock()
            begin_s = clock.now_s()
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            seconds = clock.now_s() - begin_s
            # The process group outlives its leader if the engine child does.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.stopped = Stopped(await self._process.wait(), seconds)
            await self._log
        return self.stopped

    async def _keep_log(self) -> None:
        """Keep the last lines; a line may be of any length, so the stream's own line limit is not used."""
        assert self._process.stdout is not None
        rest = ""
        while data := await self._process.stdout.read(65_536):
            *lines, rest = (rest + data.decode("utf-8", "replace")).split("\n")
            self._lines.extend(line[:MAX_LINE_CHARS] for line in lines)
            rest = rest[:MAX_LINE_CHARS]
        if rest:
            self._lines.append(rest)


@contextlib.asynccontextmanager
async def local_server(settings: Mapping[str, str] | None = None) -> AsyncIterator[LocalServer]:
    """Start a server with the demo model and `settings` (environment variables); it ends with the context."""
    port, health_port = _free_ports()
    environ = _clean_environ() | {
        "WHISPER_MODEL": "demo",
        "WHISPERLIVE_HOST": "127.0.0.1",
        "WHISPERLIVE_PORT": str(port),
        "HEALTH_CHECK_PORT": str(health_port),
        **(settings or {}),
    }
    # An empty working directory has no `.env`.
    with tempfile.TemporaryDirectory(prefix="realtime-") as directory:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime"),
            cwd=directory,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C on the terminal is for the caller, who then stops the server in good order.
            start_new_session=True,
        )
        server = LocalServer(process, port, health_port)
        try:
            yield server
        finally:
            await server.stop()


def _clean_environ() -> dict[str, str]:
    known = {name for row in rows() for name in row.env}
    kept = {
        name: value for name, value in os.environ.items() if name not in known and not name.startswith(CLEANED_PREFIXES)
    }
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return kept


def _free_ports() -> tuple[int, int]:
    """Two ports that are free now; both are held until both are known."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _ask_ready(port: int) -> tuple[bool, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        body = answer.read(4_096)
        if answer.status == 200:
            return True, "ready"
        return False, str(json.loads(body).get("reason", answer.status))
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return False, "starting"
    finally:
        connection.close()
