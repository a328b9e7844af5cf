"""The I/O skin of a stream in-process, over a real socket, with the scripted engine and injected faults.

All of it without feature threads and with two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from engine.clock import MonotonicClock
from engine.metrics import Metrics
from engine.types import FloatArray
from realtime.admission import Admission
from realtime.connection import Connection, new_uid
from realtime.features import FeaturePool
from realtime.load import MIN_STREAMS
from realtime.protocol import HandshakeRules
from realtime.session import SessionLimits
from realtime.stream import Services, Stream
from realtime.transport import serve
from tests.fakes.engine import EnergyDetector, ScriptedEngine
from tests.fakes.tones import speak, word_number

WORDS = [7, 123, 42]
BOTH = pytest.mark.parametrize("n_threads", [0, 2], ids=["on the loop", "in threads"])


class BreakingDetector(EnergyDetector):
    """Stands for a defect anywhere in a session: raises at its second message of every second stream."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        BreakingDetector.made += 1
        self._breaks = BreakingDetector.made % 2 == 0
        self._pushes = 0

    def push(self, samples: FloatArray) -> list[float]:
        self._pushes += 1
        if self._breaks and self._pushes > 1:
            raise RuntimeError("a defect")
        return super().push(samples)


@asynccontextmanager
async def serving(
    n_threads: int, make_detector: Any = EnergyDetector, **options: Any
) -> AsyncIterator[tuple[str, asyncio.Queue[Connection], Services]]:
    engine = ScriptedEngine()
    features = FeaturePool(n_threads, MonotonicClock())
    services = Services(
        engine=engine,
        admission=Admission(32, None, lambda: engine.max_streams),
        metrics=Metrics(),
        clock=MonotonicClock(),
        limits=SessionLimits(),
        result_key=False,
        rules=lambda: HandshakeRules(model="scripted", languages=engine.info.languages, new_uid=new_uid),
        features=features,
        make_detector=make_detector,
        **options,
    )
    connections: asyncio.Queue[Connection] = asyncio.Queue()

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()
        connection = Connection(websocket, services)
        connections.put_nowait(connection)
        await connection.run()

    listener = await serve(Starlette(routes=[WebSocketRoute("/", accept)]), "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.port}", connections, services
    finally:
        await listener.aclose(0.5)
        features.close()
        assert feature_threads() == []


def feature_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("features")]


async def stream(url: str, *, end: bool = True) -> tuple[str, int | None, list[dict[str, Any]]]:
    samples, _ = speak(WORDS)
    received: list[dict[str, Any]] = []
    texts: dict[str, str] = {}
    async with websockets.connect(url) as socket:
        await socket.send(json.dumps({"uid": "u", "language": "en", "use_vad": True}))
        for first in range(0, len(samples), 3_200):
            await socket.send(samples[first : first + 3_200].tobytes())
        if end:
            await socket.send(b"END_OF_AUDIO")
        try:
            while True:
                received.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
                for segment in received[-1].get("segments", []):
                    if segment["completed"]:
                        texts[segment["start"]] = segment["text"]
        except websockets.ConnectionClosed:
            pass
        return "".join(texts.values()), socket.close_code, received


@BOTH
def test_a_stream_hears_every_word(n_threads: int) -> None:
    async def run() -> None:
        async with serving(n_threads) as (url, _, services):
            text, code, received = await stream(url)
            assert [word_number(word) for word in text.split()] == WORDS, text
            assert code == 1000
            assert received[0] == {"uid": "u", "message": "SERVER_READY", "backend": "faster_whisper"}
            counts = services.metrics.sample_counts()
            assert counts["received"] == counts["decoded"] + counts["silent"] > 0
            assert services.admission.n_active == 0

    asyncio.run(run())


@BOTH
def test_a_defect_costs_one_stream_and_is_answered(n_threads: int) -> None:
    """Not a socket that never closes, and not a place that stays taken."""

    async def run() -> None:
        BreakingDetector.made = 0
        async with serving(n_threads, BreakingDetector) as (url, _, services):
            (_, code, _), (_, broken_code, _) = await asyncio.gather(stream(url), stream(url))
            assert {code, broken_code} == {1000, 1011}
            again = await stream(url)
            assert again[1] == 1000
            assert services.admission.n_active == 0

    asyncio.run(run())


@BOTH
def test_a_drain_lets_the_finals_of_all_streams_out(n_threads: int) -> None:
    async def run() -> None:
        async with serving(n_threads) as (url, connections, _):
            streams = [asyncio.create_task(stream(url, end=False)) for _ in range(3)]
            found = [await connections.get() for _ in streams]
            await asyncio.sleep(0.5)
            for connection in found:
                connection.drain()
            for text, code, _ in await asyncio.gather(*streams):
                assert code == 1001
                assert [word_number(word) for word in text.split()] == WORDS, text

    asyncio.run(run())


def test_drain_before_the_handshake_refuses_the_peer() -> None:
    async def run() -> None:
        async with serving(0) as (url, connections, _), websockets.connect(url) as socket:
            connection = await connections.get()
            await asyncio.sleep(0.05)
            connection.drain()
            assert json.loads(await asyncio.wait_for(socket.recv(), 5))["status"] == "WAIT"
            await socket.wait_closed()
            assert socket.close_code == 1013

    asyncio.run(run())


def test_an_upgraded_socket_that_stays_silent_is_cut_at_its_deadline() -> None:
    async def run() -> None:
        async with serving(0, handshake_timeout_s=0.3) as (url, _, _services):
            async with websockets.connect(url) as silent:
                refusal = json.loads(await asyncio.wait_for(silent.recv(), 5))
                assert (refusal["status"], refusal["code"]) == ("ERROR", "bad_handshake")
                await silent.wait_closed()
                assert silent.close_code == 1003
            async with websockets.connect(url) as late:
                await asyncio.sleep(0.1)
                await late.send('{"uid": "u"}')
                assert json.loads(await asyncio.wait_for(late.recv(), 5))["message"] == "SERVER_READY"

    asyncio.run(run())


def test_who_finds_the_engine_busy_is_told_to_wait_and_why() -> None:
    async def run() -> None:
        async with serving(0) as (url, _, services):
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(MIN_STREAMS):
                    socket = await stack.enter_async_context(websockets.connect(url))
                    await socket.send('{"uid": "u"}')
                    assert json.loads(await socket.recv())["message"] == "SERVER_READY"
                cast("ScriptedEngine", services.engine).max_streams = MIN_STREAMS
                async with websockets.connect(url) as late:
                    await late.send('{"uid": "late"}')
                    told = json.loads(await asyncio.wait_for(late.recv(), 5))
                    assert told == {"uid": "late", "status": "WAIT", "message": 0.1}
                    await late.wait_closed()
                    assert late.close_code == 1013
                    assert late.close_reason == f"the engine keeps up with {MIN_STREAMS} streams at present"
            cast("ScriptedEngine", services.engine).max_streams = None

    asyncio.run(run())


@BOTH
def test_hundreds_of_streams_leave_nothing_behind(n_threads: int) -> None:
    """No task, no thread beyond the pool's, no place, and no stream."""

    async def visit(url: str, says_goodbye: bool) -> None:
        samples, _ = speak(WORDS[:1])
        async with websockets.connect(url) as socket:
            await socket.send('{"uid": "u", "language": "en", "use_vad": true}')
            await socket.recv()
            await socket.send(samples.tobytes())
            if says_goodbye:
                await socket.send(b"END_OF_AUDIO")
                async for _ in socket:
                    pass

    async def run() -> None:
        async with serving(n_threads) as (url, connections, services):
            await visit(url, True)
            tasks = asyncio.all_tasks()
            for _ in range(10):
                await asyncio.gather(*(visit(url, index % 3 > 0) for index in range(20)))
            for _ in range(200):
                if services.admission.n_active == 0 and asyncio.all_tasks() <= tasks:
                    break
                await asyncio.sleep(0.01)
            assert services.admission.n_active == 0
            assert asyncio.all_tasks() <= tasks
            assert len(feature_threads()) == n_threads
            counts = services.metrics.sample_counts()
            assert counts["buffered"] == 0 and counts["received"] > 0
            while not connections.empty():
                connections.get_nowait()
            gc.collect()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, Stream)]

    asyncio.run(run())
