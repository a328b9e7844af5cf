"""Streams whose feature thread is busy, fails or hangs; over a socket that is a script."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from starlette.websockets import WebSocket

from engine.clock import MonotonicClock
from engine.metrics import Metrics
from engine.types import FloatArray
from realtime import stream
from realtime.admission import Admission
from realtime.protocol import Handshake, HandshakeRules
from realtime.session import Session, SessionLimits
from realtime.stream import FEED_BYTES, Services, Stream
from tests.fakes.engine import EnergyDetector, ScriptedEngine
from tests.fakes.threads import pool_of, until
from tests.fakes.tones import speak, word_number


class FakeSocket:
    """A WebSocket with a script: messages are there at once, what is sent is kept."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.n_received = 0
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.more = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        while not self.messages:
            self.more.clear()
            await self.more.wait()
        self.n_received += 1
        return self.messages.pop(0)

    def say(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.more.set()

    async def send_text(self, text: str) -> None:
        self.sent.append(json.loads(text))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    @property
    def warnings(self) -> list[str]:
        return [message["message"] for message in self.sent if message.get("status") == "WARNING"]


class GatedDetector(EnergyDetector):
    """Lets a thread go on only while the gate is open."""

    gate = threading.Event()
    entered = threading.Event()

    def push(self, samples: FloatArray) -> list[float]:
        self.entered.set()
        assert self.gate.wait(10), "nobody opened the gate"
        return super().push(samples)


class WatchedSession(Session):
    """Notes its inputs and the cadence it was given; fails if two threads are in it at once."""

    calls: list[tuple[str, float]]
    _inside = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in INPUTS:
            return found

        def watched(*args: Any) -> Any:
            assert self._inside == 0, f"{name} while another thread is inside"
            self._inside += 1
            try:
                CALLS.append((name, self.partial_interval_s))
                return found(*args)
            finally:
                self._inside -= 1

        return watched


INPUTS = (
    "receive_audio", "receive_text", "end_of_audio", "drain", "refuse", "result", "tick", "abort", "disconnected",
    "take_events", "next_deadline_s",
)  # fmt: skip
CALLS: list[tuple[str, float]] = []


def calls(*leave_out: str) -> list[str]:
    """Names of the inputs so far."""
    return [name for name, _ in CALLS if name not in ("take_events", "next_deadline_s", *leave_out)]


def audio(seconds: float = 0.25) -> dict[str, Any]:
    samples, _ = speak([7])
    return {"type": "websocket.receive", "bytes": samples[: int(seconds * 16_000)].tobytes()}


GONE = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
END = {"type": "websocket.receive", "bytes": b"END_OF_AUDIO"}


def streaming(scenario: Callable[[FakeSocket, Stream, Services], Awaitable[None]], n_threads: int = 2) -> None:
    """A stream over a fake socket; the scenario runs beside it, and the stream must end."""
    GatedDetector.gate.set()
    GatedDetector.entered.clear()
    CALLS.clear()

    async def run() -> None:
        engine = ScriptedEngine()
        with pool_of(n_threads) as pool:
            services = Services(
                engine=engine,
                admission=Admission(4, None),
                metrics=Metrics(),
                clock=MonotonicClock(),
                limits=SessionLimits(),
                result_key=False,
                rules=lambda: HandshakeRules("scripted", engine.info.languages, lambda: "u"),
                features=pool,
                make_detector=GatedDetector,
            )
            socket = FakeSocket()
            handshake = Handshake("u", language="en", wants_language=False, use_vad=True)
            its = Stream(cast("WebSocket", socket), services, handshake, "1")
            running = asyncio.create_task(its.run())
            try:
                await scenario(socket, its, services)
                await asyncio.wait_for(running, 10)
            finally:
                GatedDetector.gate.set()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "Session", WatchedSession)


async def busy(socket: FakeSocket) -> None:
    """Shut the gate and let a thread run into it."""
    GatedDetector.gate.clear()
    GatedDetector.entered.clear()
    socket.say(audio())
    await until(GatedDetector.entered.is_set)


def test_inputs_wait_for_the_thread_in_their_order() -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        await busy(socket)
        its.drain()
        its.drain()
        await asyncio.sleep(0.02)
        assert calls() == ["receive_audio"]
        GatedDetector.gate.set()
        await until(lambda: socket.closed is not None)
        assert calls("result") == ["receive_audio", "drain", "drain", "disconnected"]
        assert socket.closed == (1001, "the server is shutting down; reconnect later or elsewhere")

    streaming(scenario)


@pytest.mark.parametrize("n_threads", [0, 1, 2])
def test_all_inputs_of_a_whole_stream_in_either_mode(n_threads: int) -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        samples, _ = speak([7, 123])
        for first in range(0, len(samples), 2_000):
            socket.say({"type": "websocket.receive", "bytes": samples[first : first + 2_000].tobytes()})
        socket.say({"type": "websocket.receive", "text": "hello?"})
        socket.say(END)
        await until(lambda: socket.closed is not None)
        n_pieces = -(-len(samples) // 2_000)
        assert calls("result", "tick") == ["receive_audio"] * n_pieces + [
            "receive_text", "end_of_audio", "disconnected",
        ]  # fmt: skip
        assert socket.closed == (1000, "")
        texts = [part["text"] for sent in socket.sent for part in sent.get("segments", []) if part["completed"]]
        assert {word_number(word) for text in texts for word in text.split()} == {7, 123}

    streaming(scenario, n_threads)


@pytest.mark.parametrize("n_threads", [0, 2])
def test_the_session_gets_the_engines_cadence_before_every_input(n_threads: int) -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        engine = cast("ScriptedEngine", services.engine)
        engine.partial_interval_s = 0.31
        socket.say(audio())
        await until(lambda: len(calls()) == 1)
        await asyncio.sleep(0.01)
        engine.partial_interval_s = 2.5
        socket.say(audio())
        socket.say(GONE)
        await until(lambda: "disconnected" in calls())
        heard = [cadence for name, cadence in CALLS if name == "receive_audio"]
        assert heard == [0.31, 2.5]

    streaming(scenario, n_threads)


def test_no_message_is_read_while_one_is_analysed() -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        await busy(socket)
        for _ in range(20):
            socket.say(audio())
        await asyncio.sleep(0.05)
        assert socket.n_received == 1
        GatedDetector.gate.set()
        socket.say(END)
        await until(lambda: socket.closed is not None)
        assert calls("result", "tick")[:21] == ["receive_audio"] * 21
        counts = services.metrics.sample_counts()
        assert counts["received"] == counts["decoded"] + counts["silent"] == 21 * 4_000

    streaming(scenario)


def test_a_long_message_is_analysed_piece_by_piece() -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        samples, _ = speak([7, 8, 9])
        socket.say({"type": "websocket.receive", "bytes": samples.tobytes()})
        socket.say(END)
        await until(lambda: socket.closed is not None)
        assert calls("result", "tick").count("receive_audio") == -(-samples.nbytes // FEED_BYTES)
        assert services.metrics.sample_counts()["received"] == len(samples)

    streaming(scenario)


def test_abort_waits_a_moment_for_the_thread_and_says_what_was_not_decoded() -> None:
    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        await busy(socket)
        its.abort()
        await asyncio.sleep(0.02)
        assert socket.closed is None
        GatedDetector.gate.set()
        await until(lambda: socket.closed is not None)
        assert socket.closed is not None and socket.closed[0] == 1001
        assert calls() == ["receive_audio", "abort", "disconnected"]
        assert len(socket.warnings) == 1 and "0.250 s of audio were refused" in socket.warnings[0]
        counts = services.metrics.sample_counts()
        assert (counts["received"], counts["refused"], counts["buffered"]) == (4_000, 4_000, 0)

    streaming(scenario)


def test_abort_does_not_wait_for_a_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ABORT_PATIENCE_S", 0.02)
    monkeypatch.setattr(stream, "ANALYSIS_LIMIT_S", 0.05)

    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        await busy(socket)
        its.abort()
        await until(lambda: socket.closed is not None)
        assert socket.closed == (1001, "the server is shutting down; audio was not decoded")
        await asyncio.sleep(0.1)
        assert calls() == ["receive_audio"], "the session is the thread's"

    streaming(scenario)


def test_a_peer_that_is_lost_while_a_thread_is_busy() -> None:
    """The write fails first: what the thread has is finished, counted, and nothing waits for ever."""

    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        lost = asyncio.Event()

        async def send_text(text: str) -> None:
            await lost.wait()
            raise OSError("gone")

        socket.send_text = send_text  # type: ignore[method-assign]
        await busy(socket)
        lost.set()
        await asyncio.sleep(0.02)
        assert calls() == ["receive_audio"]
        GatedDetector.gate.set()
        await until(lambda: calls() == ["receive_audio", "disconnected"])
        counts = services.metrics.sample_counts()
        assert counts["received"] == counts["refused"] == 4_000

    streaming(scenario)


def test_what_a_thread_raises_costs_this_stream_alone() -> None:
    def push(self: GatedDetector, samples: FloatArray) -> list[float]:
        raise ValueError("a defect in the detector")

    async def scenario(socket: FakeSocket, its: Stream, services: Services) -> None:
        socket.say(audio())
        await until(lambda: socket.closed is not None)
        assert socket.closed == (1011, "the server failed; reconnect")
        counts = services.metrics.sample_counts()
        assert counts["buffered"] == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GatedDetector, "push", push)
        streaming(scenario)
    streaming(hears)


async def hears(socket: FakeSocket, its: Stream, services: Services) -> None:
    """A stream as it should be."""
    socket.say(audio())
    socket.say(END)
    await until(lambda: socket.closed is not None)
    assert socket.closed == (1000, "")
