"""One admitted stream: a session between a WebSocket and the engine.

Reads messages into the session, runs its decodes as tasks, writes its messages through the outbox
and keeps its timer. All inputs of the session go through a `Lane`: audio is analysed in a feature thread
where there are any, everything else happens in the event loop, and the session needs no lock.

Invariants: whatever fails in here costs this stream, with an answer, and no other; the session and what
goes with it are touched by inputs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.clock import Clock
from engine.errors import (
    BadJsonError,
    BadStateError,
    ClientError,
    DrainingError,
    EngineFailedError,
    ServerError,
    SlowReaderError,
    SttError,
    TooBigError,
)
from engine.metrics import Metrics
from engine.scheduler import SupersededError
from engine.types import Engine, WindowJob, WindowResult
from engine.vad import SileroDetector, SpeechDetector
from realtime import messages
from realtime.admission import Admission
from realtime.events import Cancel, Close, Decode, Event, SendSegments
from realtime.features import FeaturePool
from realtime.lane import Lane
from realtime.meter import StreamMeter
from realtime.outbox import Outbox
from realtime.protocol import Handshake, HandshakeRules, is_end_of_audio
from realtime.session import Session, SessionLimits

__all__ = ["SLOW_READER_S", "PeerGoneError", "Services", "Stream"]

logger = logging.getLogger("realtime.stream")

FEED_BYTES = 16_384
"""The usual frame of WhisperLive's Python client; 2 s of telephone audio, taken in within 10 ms."""
HANDSHAKE_TIMEOUT_S = 10.0
"""From the upgrade to the first message; browsers send it at once."""
SLOW_READER_S = 5.0
"""How long the peer's side may be blocked before it is cut; its text would be stale anyway."""
ANALYSIS_LIMIT_S = 2.0
"""How long the end of a stream waits for a feature thread: a piece takes 10 ms, but hundreds may wait."""
ABORT_PATIENCE_S = 0.25
"""The same when the server's time is up: half of what the last messages get."""

REFUSALS: dict[int, type[ClientError]] = {1007: BadJsonError, 1008: BadStateError, 1009: TooBigError}
"""Close codes of the transport for what ends a stream without ending the connection at once."""


@dataclass(frozen=True)
class Services:
    """What streams share."""

    engine: Engine
    admission: Admission
    metrics: Metrics
    clock: Clock
    limits: SessionLimits
    result_key: bool
    rules: Callable[[], HandshakeRules]
    """What the loaded model offers; raises ModelUnavailableError while it loads."""
    features: FeaturePool
    make_detector: Callable[[], SpeechDetector] = SileroDetector
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S


class PeerGoneError(Exception):
    """The socket is closed from the other side."""


class Stream:
    """From SERVER_READY to the close."""

    def __init__(self, websocket: WebSocket, services: Services, handshake: Handshake, stream_id: str) -> None:
        self._websocket = websocket
        self._services = services
        self._uid = handshake.uid
        self._stream_id = stream_id
        self._session = Session(
            handshake,
            services.limits,
            services.make_detector(),
            services.engine.info.n_mels,
            services.clock.now_s(),
            stream_id,
            services.engine.info.context_lengths,
        )
        self._lane = Lane(services.features, self._step)
        self._meter = StreamMeter(services.metrics)
        self._outbox = Outbox(handshake, result_key=services.result_key)
        self._decodes: dict[int, asyncio.Task[None]] = {}
        self._close: Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_done = False
        # What the session said last: it cannot be asked while a thread has it.
        self._takes_more = True
        self._is_over = False
        self._wake_reader = asyncio.Event()
        self._wake_writer = asyncio.Event()

    async def run(self) -> None:
        """Serve until the stream is closed. Raises nothing."""
        self._services.metrics.session_opened()
        logger.info("stream %s begins", self._stream_id)
        reader = asyncio.create_task(self._read())
        try:
            await self._write()
        except PeerGoneError:
            pass
        except SlowReaderError as error:
            logger.warning("closing a stream: %s", error)
            self._close = Close(error.close_code, str(error))
            with contextlib.suppress(OSError, WebSocketDisconnect):
                await self._websocket.close(error.close_code, str(error))
        finally:
            await self._clean_up(reader)

    def drain(self) -> None:
        """The server shuts down: finals first, then close."""
        self._lane.put(self._session.drain)

    def abort(self) -> None:
        """Time is up: say what was not decoded and close."""
        self._lane.put(self._session.abort)
        if self._lane.is_busy:
            asyncio.get_running_loop().call_later(ABORT_PATIENCE_S, self._give_up)

    def _give_up(self) -> None:
        """Close without the session if a thread still has it."""
        if self._lane.is_busy and self._close is None:
            self._close = Close(DrainingError.close_code, "the server is shutting down; audio was not decoded")
            self._wake_writer.set()

    async def _clean_up(self, reader: asyncio.Task[None]) -> None:
        reader.cancel()
        self._lane.put(self._session.disconnected)
        if not await self._lane.settle(ANALYSIS_LIMIT_S):
            logger.error("the audio of stream %s has been analysed for %g s", self._stream_id, ANALYSIS_LIMIT_S)
        self._is_done = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [reader, *self._decodes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        code = self._close.code if self._close is not None else 1006
        self._services.metrics.session_closed(code)
        received_s = self._meter.received_s
        logger.info("stream %s ends with %d after %.1f s of audio", self._stream_id, code, received_s)

    # In

    async def _read(self) -> None:
        """Messages into the session. Once it takes no more, read on: to see the peer close."""
        while True:
            await self._wait_for_room()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                self._lane.put(partial(self._leave, message.get("code", 1006), message.get("reason") or ""))
                return
            text = message.get("text")
            frame: str | bytes = text if text is not None else message.get("bytes") or b""
            if is_end_of_audio(frame):
                self._lane.put(self._session.end_of_audio)
            elif isinstance(frame, str):
                self._lane.put(lambda: self._session.receive_text(self._services.clock.now_s()))
            else:
                await self._feed(frame)

    def _leave(self, code: int, reason: str) -> None:
        """No more input: the peer is gone, or it sent what the transport refuses (and can still listen)."""
        refusal = REFUSALS.get(code)
        if refusal is None:
            self._session.disconnected()
        else:
            self._session.refuse(refusal(reason))

    async def _feed(self, frame: bytes) -> None:
        """One binary message into the session, in pieces between which other streams get their turn."""
        for first in range(0, len(frame), FEED_BYTES):
            if first:
                await asyncio.sleep(0)
                await self._wait_for_room()
            self._set_cadence()
            piece, now_s = frame[first : first + FEED_BYTES], self._services.clock.now_s()
            self._lane.put_heavy(partial(self._receive_audio, piece, now_s))

    def _receive_audio(self, piece: bytes, now_s: float) -> None:
        """May run in a feature thread."""
        self._session.receive_audio(piece, now_s)
        self._meter.arrived(self._session.ledger.received, now_s)

    async def _wait_for_room(self) -> None:
        """Until the session takes audio, or none any more; never while a thread has it."""
        while self._lane.is_busy or not self._takes_more:
            self._wake_reader.clear()
            await self._wake_reader.wait()

    # Out

    async def _write(self) -> None:
        """Everything out, in order, until the close. Raises PeerGoneError or SlowReaderError."""
        try:
            await self._send(messages.encode(messages.server_ready(self._uid)))
            self._lane.put(lambda: None)
            while True:
                self._wake_writer.clear()
                while (text := self._outbox.pop()) is not None:
                    await self._send(text)
                if self._close is not None:
                    await self._websocket.close(self._close.code, self._close.reason)
                    return
                if self._is_over:
                    raise PeerGoneError
                await self._wake_writer.wait()
        except asyncio.TimeoutError:
            raise SlowReaderError(f"the peer has not read for {SLOW_READER_S:g} s") from None
        except (OSError, WebSocketDisconnect):
            raise PeerGoneError from None

    async def _send(self, text: str) -> None:
        await asyncio.wait_for(self._websocket.send_text(text), SLOW_READER_S)
        self._services.metrics.message_sent()

    # The session

    def _step(self, feed: Callable[[], None]) -> None:
        """Give the session one input, carry out what it asks for, and set its timer. Only the lane calls it."""
        if self._is_done:
            return
        try:
            self._set_cadence()
            feed()
            for event in self._session.take_events():
                self._carry_out(event)
            self._meter.count(self._session.ledger)
            self._set_timer()
        except Exception:
            # An edge: a defect in here must not leave a socket that never closes, nor stop a drain of others.
            logger.exception("a stream failed and is closed")
            self._close = Close(ServerError.close_code, "the server failed; reconnect")
            self._session.disconnected()
        self._takes_more = self._session.wants_audio or self._session.is_ending
        self._is_over = self._session.is_closed
        self._wake_reader.set()
        self._wake_writer.set()

    def _set_cadence(self) -> None:
        self._session.partial_interval_s = self._services.engine.partial_interval_s

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._session.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._services.clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._lane.put(lambda: self._session.tick(self._services.clock.now_s()))

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Decode):
            self._decodes[event.job_id] = asyncio.create_task(self._decode(event.job_id, event.job))
        elif isinstance(event, Cancel):
            task = self._decodes.pop(event.job_id, None)
            if task is not None:
                task.cancel()
        elif isinstance(event, Close):
            self._close = event
        else:
            self._outbox.put(event)
            if isinstance(event, SendSegments):
                self._meter.shown(event, self._services.clock.now_s())

    async def _decode(self, job_id: int, job: WindowJob) -> None:
        outcome: WindowResult | SttError
        services = self._services
        begun_s = services.clock.now_s()
        try:
            outcome = await services.engine.transcribe_window(job)
            services.metrics.decoded(job.job_class.name.lower(), services.clock.now_s() - begun_s)
        except SupersededError:
            outcome = EngineFailedError("superseded by a newer decode")
        except SttError as error:
            logger.warning("a decode of stream %s failed: %s", job.stream, error.code)
            services.metrics.decode_failed()
            outcome = error
        except Exception:
            # An edge: the session must learn that no result will come, or its stream would hang.
            logger.exception("a decode failed unexpectedly")
            outcome = EngineFailedError("unexpected failure")
        self._decodes.pop(job_id, None)
        self._lane.put(lambda: self._session.result(job_id, outcome, services.clock.now_s()))
