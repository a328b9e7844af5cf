"""Thousands of sessions opened and closed over real sockets in one process: does anything stay behind?

The server's own connections, streams and sessions, behind its own listener, with a modelled engine that takes no
time. Sessions end in all the ways in which they end in life: after their last words, in mid-audio with a
broken connection, politely without a word, refused for their handshake, gone before it.

What may stay behind is counted once the first sessions have warmed everything up, and again at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bench.costs import Cost, Work
from bench.memory import live_bytes
from bench.roofline import SHAPES
from bench.virtual.backend import ModelledBackend
from bench.virtual.hearing import Hearing
from bench.virtual.simulation import model_info
from bench.virtual.talk import Talk, TalkDetector, make_talk
from engine.clock import MonotonicClock
from engine.metrics import Metrics
from engine.service import EngineService
from engine.types import SAMPLE_RATE_HZ
from realtime.admission import Admission
from realtime.connection import Connection, new_uid
from realtime.features import FeaturePool
from realtime.protocol import HandshakeRules
from realtime.session import SessionLimits
from realtime.stream import Services
from realtime.transport import serve

__all__ = ["DoorsResult", "open_and_close"]

MODEL = "tiny"
AT_ONCE = 16
WARM_UP_SESSIONS = 60
"""Of each kind a dozen: modules are imported, pools and caches are full."""
SPOKEN_S = 1.0
SETTLE_LIMIT_S = 10.0
"""How long tasks and sockets get to end after the last session."""
SETTLE_STEP_S = 0.02
MAX_GROWTH_BYTES = 200_000
"""Twice of what comes and goes by itself (buffers of the loop, allocators of libraries), whatever the number of
sessions. A session that is kept holds 20 kB and more."""

Visit = Callable[[str, Talk], Awaitable[str | None]]
"""One session as its peer sees it; returns what was wrong."""


@dataclass(frozen=True)
class Remains:
    """What exists at one moment: tasks of the loop, file descriptors, sessions let in, bytes of
    all Python objects."""

    tasks: int
    descriptors: int
    sessions: int
    memory_bytes: int


@dataclass(frozen=True)
class DoorsResult:
    """What there was before and after `sessions` sessions; `complaints` are those of the peers."""

    sessions: int
    before: Remains
    after: Remains
    complaints: tuple[str, ...]

    @property
    def growth_bytes(self) -> int:
        """Memory that stayed behind."""
        return self.after.memory_bytes - self.before.memory_bytes

    @property
    def faults(self) -> list[str]:
        """What is wrong; empty if nothing stayed behind."""
        faults = list(self.complaints)
        for name in ("tasks", "descriptors", "sessions"):
            before, after = getattr(self.before, name), getattr(self.after, name)
            if after > before:
                faults.append(f"{after - before} {name} stayed behind")
        if self.growth_bytes > MAX_GROWTH_BYTES:
            faults.append(f"{self.growth_bytes} bytes stayed behind (limit {MAX_GROWTH_BYTES})")
        return faults


class _Free:
    """A cost model for an engine that takes no time."""

    def cost(self, work: Work) -> Cost:
        return Cost(0.0, 0.0, 0.0, 0.0)


async def open_and_close(n_sessions: int) -> DoorsResult:
    """Open and close so many sessions, after a few that do not count."""
    talk = make_talk(SPOKEN_S, 0.6, seed=1)
    async with _server(talk) as (url, admission):
        complaints = await _visit_all(url, talk, WARM_UP_SESSIONS)
        before = await _remains(admission, None)
        complaints += await _visit_all(url, talk, n_sessions)
        after = await _remains(admission, before)
    return DoorsResult(n_sessions, before, after, tuple(sorted(set(complaints))))


@asynccontextmanager
async def _server(talk: Talk) -> AsyncIterator[tuple[str, Admission]]:
    clock = MonotonicClock()
    shape = SHAPES[MODEL]
    backend = ModelledBackend(model_info(MODEL, shape, 1.0), _Free(), Hearing([talk], shape.mels))
    engine = EngineService(backend, clock)
    admission = Admission(10 * AT_ONCE, None)
    features = FeaturePool(1, clock)
    services = Services(
        engine=engine,
        admission=admission,
        metrics=Metrics(),
        clock=clock,
        limits=SessionLimits(),
        result_key=False,
        rules=lambda: HandshakeRules(model=MODEL, languages=engine.info.languages, new_uid=new_uid),
        features=features,
        make_detector=lambda: TalkDetector(talk),
    )

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        await Connection(websocket, services).run()

    engine.start()
    listener = await serve(Starlette(routes=[WebSocketRoute("/", accept)]), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.port}", admission
    finally:
        await listener.aclose(0.5)
        await engine.stop()
        features.close()


async def _visit_all(url: str, talk: Talk, n_sessions: int) -> list[str]:
    numbers = iter(range(n_sessions))
    complaints: list[str] = []

    async def worker() -> None:
        for number in numbers:
            complaint = await VISITS[number % len(VISITS)](url, talk)
            if complaint is not None:
                complaints.append(complaint)

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return complaints


async def _remains(admission: Admission, before: Remains | None) -> Remains:
    """What exists once everything has ended that will; with `before`, not later than all is as it was."""
    deadline_s = asyncio.get_running_loop().time() + SETTLE_LIMIT_S
    while True:
        await asyncio.sleep(SETTLE_STEP_S)
        now = Remains(
            len(asyncio.all_tasks()),
            _n_descriptors(),
            admission.n_active,
            live_bytes(),
        )
        is_back = before is None or (now.tasks <= before.tasks and now.descriptors <= before.descriptors)
        if (now.sessions == 0 and is_back) or asyncio.get_running_loop().time() > deadline_s:
            return now


def _n_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@asynccontextmanager
async def _peer(url: str) -> AsyncIterator[ClientConnection]:
    async with connect(url, compression=None, ping_interval=None, open_timeout=SETTLE_LIMIT_S) as socket:
        yield socket


async def _greet(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"uid": "door", "language": "en", "task": "transcribe", "use_vad": True}))
    await socket.recv()


async def _say(socket: ClientConnection, talk: Talk) -> None:
    await socket.send(talk.audio(0, round(SPOKEN_S * SAMPLE_RATE_HZ)).tobytes())


async def _to_the_end(url: str, talk: Talk) -> str | None:
    texts: list[str] = []
    async with _peer(url) as socket:
        await _greet(socket)
        await _say(socket, talk)
        await socket.send(b"END_OF_AUDIO")
        with contextlib.suppress(ConnectionClosed):
            while True:
                segments = json.loads(await socket.recv()).get("segments", [])
                texts = [segment["text"] for segment in segments if segment["completed"]] or texts
    first = talk.words[0].text.strip()
    return None if "".join(texts).split()[:1] == [first] else f"a session to the end heard {texts}"


async def _broken_off(url: str, talk: Talk) -> str | None:
    async with _peer(url) as socket:
        await _greet(socket)
        await _say(socket, talk)
        socket.transport.abort()
    return None


async def _silent(url: str, talk: Talk) -> str | None:
    async with _peer(url) as socket:
        await _greet(socket)
    return None


async def _refused(url: str, talk: Talk) -> str | None:
    async with _peer(url) as socket:
        await socket.send("no handshake")
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return None if socket.close_code not in (None, 1000, 1006) else f"refused with {socket.close_code}"


async def _gone(url: str, talk: Talk) -> str | None:
    async with _peer(url) as socket:
        socket.transport.abort()
    return None


VISITS: tuple[Visit, ...] = (_to_the_end, _broken_off, _silent, _refused, _gone)
