"""A scripted server that speaks the WhisperLive protocol over a real socket on loopback.

It hears nothing: a script says what to send once so many samples have come, what to do at the end of the
audio and how to close. Unrealistic use to avoid: a script that goes back in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

SAMPLE_BYTES = 4
END = (b"END_OF_AUDIO", "END_OF_AUDIO")


@dataclass(frozen=True)
class Step:
    """Once `at_samples` have come: send `messages` (dicts; str is sent as it is), then maybe close."""

    at_samples: int
    messages: tuple[dict[str, Any] | str, ...] = ()
    close: tuple[int, str] | None = None
    abort: bool = False


@dataclass
class Script:
    """How the server behaves, and what it saw."""

    steps: Sequence[Step] = ()
    greeting: tuple[dict[str, Any] | str, ...] = ({"message": "SERVER_READY", "backend": "faster_whisper"},)
    greeting_close: tuple[int, str] | None = None
    finals: tuple[dict[str, Any] | str, ...] = ()
    final_close: tuple[int, str] = (1000, "")
    never_closes: bool = False
    stops_reading: bool = False
    http_status: list[HTTPStatus] = field(default_factory=list)
    """Refusals of the upgrade, used up one per attempt."""

    handshakes: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    audio: list[bytes] = field(default_factory=list)
    ends: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it to let a server that stopped reading go on."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at every frame."""

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until the server has seen what `is_so` looks for."""
        while not is_so():
            self.news.clear()
            await self.news.wait()

    @property
    def samples(self) -> int:
        """Samples received so far over all connections."""
        return sum(map(len, self.audio)) // SAMPLE_BYTES


def segments(*items: tuple[float, float, str, bool]) -> dict[str, Any]:
    """A segments message in wire form."""
    return {
        "segments": [
            {"start": f"{start:.3f}", "end": f"{end:.3f}", "text": text, "completed": completed}
            for start, end, text, completed in items
        ]
    }


@contextlib.asynccontextmanager
async def fake_server(script: Script, port: int = 0) -> AsyncIterator[str]:
    """Serve `script`; gives the URL."""

    async def answer(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await _Play(script, connection).run()

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        script.headers.append({name.lower(): value for name, value in request.headers.raw_items()})
        script.paths.append(request.path)
        if script.http_status:
            return connection.respond(script.http_status.pop(0), "no\n")
        return None

    async with serve(answer, "127.0.0.1", port, process_request=refuse, max_size=2**20, close_timeout=1) as server:
        number = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{number}"
        script.released.set()


class _Play:
    """One connection."""

    def __init__(self, script: Script, connection: ServerConnection) -> None:
        self._script = script
        self._connection = connection
        self._uid = ""
        self._samples = 0
        self._steps = list(script.steps)

    async def run(self) -> None:
        document = json.loads(await self._connection.recv())
        self._script.handshakes.append(document)
        self._script.news.set()
        self._uid = document["uid"]
        await self._send(self._script.greeting)
        if self._script.greeting_close is not None:
            await self._connection.close(*self._script.greeting_close)
            return
        if self._script.stops_reading:
            await self._script.released.wait()
        async for frame in self._connection:
            self._script.news.set()
            if frame in END:
                self._script.ends += 1
                await self._end()
                return
            assert isinstance(frame, bytes)
            self._script.audio.append(frame)
            self._samples += len(frame) // SAMPLE_BYTES
            await self._play_due()

    async def _play_due(self) -> None:
        while self._steps and self._steps[0].at_samples <= self._samples:
            step = self._steps.pop(0)
            await self._send(step.messages)
            if step.abort:
                self._connection.transport.abort()
            if step.close is not None:
                await self._connection.close(*step.close)

    async def _end(self) -> None:
        await self._send(self._script.finals)
        if self._script.never_closes:
            await self._connection.wait_closed()
        await self._connection.close(*self._script.final_close)

    async def _send(self, messages: Sequence[dict[str, Any] | str]) -> None:
        for message in messages:
            await self._connection.send(
                message if isinstance(message, str) else json.dumps({"uid": self._uid, **message})
            )
