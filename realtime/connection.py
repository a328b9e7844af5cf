"""The I/O skin around one session: a WebSocket on one side, the engine on the other.

Reads messages into the session, runs its decodes as tasks, writes its messages through the outbox
and keeps its timer. All of a connection runs in one event loop; the session needs no lock.

Knows nothing of how text becomes final, nor of other connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket

from engine.clock import Clock
from engine.errors import (
    AtCapacityError,
    BadHandshakeError,
    DrainingError,
    EngineFailedError,
    ModelUnavailableError,
    SlowReaderError,
    SttError,
)
from engine.metrics import Metrics
from engine.scheduler import SupersededError
from engine.types import SAMPLE_RATE_HZ, Engine, WindowJob, WindowResult
from engine.vad import SileroDetector, SpeechDetector
from realtime import messages
from realtime.admission import Admission
from realtime.arrivals import Arrivals
from realtime.events import Cancel, Close, Decode, Event, SendSegments
from realtime.outbox import Outbox
from realtime.protocol import Handshake, HandshakeRules, is_end_of_audio, parse_handshake, peek_uid
from realtime.session import Session, SessionLimits

__all__ = ["Connection", "Services"]

logger = logging.getLogger("realtime.connection")

HANDSHAKE_TIMEOUT_S = 10.0
"""From the upgrade to the first message; browsers send it at once."""
FEED_BYTES = 16_384
"""The usual frame of WhisperLive's Python client; 2 s of telephone audio, taken in within 10 ms."""
SLOW_READER_S = 5.0
"""How long the peer's side may be blocked before it is cut; its text would be stale anyway."""
LOADING_WAIT_MINUTES = 0.5
"""What a peer is told that comes while the model loads."""


@dataclass(frozen=True)
class Services:
    """What connections share."""

    engine: Engine
    admission: Admission
    metrics: Metrics
    clock: Clock
    limits: SessionLimits
    result_key: bool
    rules: Callable[[], HandshakeRules]
    """What the loaded model offers; raises ModelUnavailableError while it loads."""
    make_detector: Callable[[], SpeechDetector] = SileroDetector


class Connection:
    """One peer, from the accepted upgrade to the close."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services
        self._handshaking: asyncio.Future[Any] | None = None
        self._session: Session | None = None
        self._outbox: Outbox | None = None
        self._decodes: dict[int, asyncio.Task[None]] = {}
        self._close: Close | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_done = False
        self._wake_reader = asyncio.Event()
        self._wake_writer = asyncio.Event()
        self._counted = (0, 0, 0, 0)
        self._arrivals = Arrivals()
        self._has_text = False

    async def run(self) -> None:
        """Serve the peer until its stream is closed. Raises nothing."""
        uid = ""
        try:
            frame = await self._first_frame()
            uid = peek_uid(frame)
            handshake = parse_handshake(frame, self._services.rules())
            uid = handshake.uid
            slot = self._services.admission.enter(self._services.clock.now_s())
        except SttError as error:
            await self._refuse(uid, error)
            return
        except _PeerGone:
            return
        try:
            await self._stream(handshake, str(slot.number))
        finally:
            self._services.admission.leave(slot, self._services.clock.now_s())

    def drain(self) -> None:
        """The server shuts down: finals first, then close. Before the handshake: close at once."""
        if self._session is not None:
            self._session.drain()
            self._apply()
        elif self._handshaking is not None:
            self._handshaking.cancel()

    def abort(self) -> None:
        """Time is up: say what was not decoded and close."""
        if self._session is not None:
            self._session.abort()
            self._apply()

    # Before the stream

    async def _first_frame(self) -> str | bytes:
        self._handshaking = asyncio.ensure_future(self._websocket.receive())
        done, _ = await asyncio.wait({self._handshaking}, timeout=HANDSHAKE_TIMEOUT_S)
        if not done:
            self._handshaking.cancel()
            raise BadHandshakeError(f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s")
        if self._handshaking.cancelled():
            raise DrainingError("the server is shutting down; reconnect later or elsewhere")
        message = self._handshaking.result()
        if message["type"] == "websocket.disconnect":
            raise _PeerGone
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def _refuse(self, uid: str, error: SttError) -> None:
        services = self._services
        services.metrics.session_refused(error.code)
        close_code = error.close_code
        if isinstance(error, AtCapacityError):
            message = messages.wait(uid, services.admission.wait_minutes(services.clock.now_s()))
        elif isinstance(error, (DrainingError, ModelUnavailableError)):
            message = messages.wait(uid, LOADING_WAIT_MINUTES)
            close_code = AtCapacityError.close_code
        else:
            message = messages.error(uid, str(error), error.code)
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await self._send(messages.encode(message))
            await self._websocket.close(close_code, str(error))

    # The stream

    async def _stream(self, handshake: Handshake, stream_id: str) -> None:
        services = self._services
        session = Session(
            handshake,
            services.limits,
            services.make_detector(),
            services.engine.info.n_mels,
            services.clock.now_s(),
            stream_id,
        )
        self._session = session
        self._outbox = Outbox(handshake, result_key=services.result_key)
        services.metrics.session_opened()
        reader = asyncio.create_task(self._read(session))
        try:
            await self._write(session, messages.server_ready(handshake.uid))
        except _PeerGone:
            session.disconnected()
        except SlowReaderError as error:
            logger.warning("closing a stream: %s", error)
            self._close = Close(error.close_code, str(error))
            session.disconnected()
            with contextlib.suppress(OSError):
                await self._websocket.close(error.close_code, str(error))
        finally:
            self._is_done = True
            await self._clean_up(session, reader)

    async def _clean_up(self, session: Session, reader: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        session.disconnected()
        self._count(session)
        tasks = [reader, *self._decodes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        code = self._close.code if self._close is not None else 1006
        self._services.metrics.session_closed(code)

    async def _read(self, session: Session) -> None:
        """Messages into the session. Once it takes no more, read on: to see the peer close."""
        while True:
            await self._wait_for_room(session)
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                session.disconnected()
                self._wake_writer.set()
                return
            text = message.get("text")
            frame: str | bytes = text if text is not None else message.get("bytes") or b""
            if is_end_of_audio(frame):
                session.end_of_audio()
            elif isinstance(frame, str):
                session.receive_text(self._services.clock.now_s())
            else:
                await self._feed(session, frame)
            self._apply()

    async def _feed(self, session: Session, frame: bytes) -> None:
        """One binary message into the session, in pieces between which other streams get their turn."""
        for first in range(0, len(frame), FEED_BYTES):
            if first:
                self._apply()
                await asyncio.sleep(0)
                await self._wait_for_room(session)
            now_s = self._services.clock.now_s()
            session.receive_audio(frame[first : first + FEED_BYTES], now_s)
            self._arrivals.note(session.ledger.received, now_s)

    async def _wait_for_room(self, session: Session) -> None:
        """Until the session takes audio, or none any more."""
        while not (session.wants_audio or session.is_ending):
            self._wake_reader.clear()
            await self._wake_reader.wait()

    async def _write(self, session: Session, first: messages.Message) -> None:
        """Everything out, in order, until the close. Raises _PeerGone or SlowReaderError."""
        assert self._outbox is not None
        try:
            await self._send(messages.encode(first))
            self._apply()
            while True:
                self._wake_writer.clear()
                while (text := self._outbox.pop()) is not None:
                    await self._send(text)
                if self._close is not None:
                    await self._websocket.close(self._close.code, self._close.reason)
                    return
                if session.is_closed:
                    raise _PeerGone
                await self._wake_writer.wait()
        except asyncio.TimeoutError:
            raise SlowReaderError(f"the peer has not read for {SLOW_READER_S:g} s") from None
        except OSError:
            raise _PeerGone from None

    async def _send(self, text: str) -> None:
        await asyncio.wait_for(self._websocket.send_text(text), SLOW_READER_S)
        self._services.metrics.message_sent()

    # The session's events

    def _apply(self) -> None:
        """Carry out what the session asks for, and set its timer."""
        session = self._session
        if session is None or self._is_done:
            return
        for event in session.take_events():
            self._carry_out(event)
        self._count(session)
        self._wake_reader.set()
        self._wake_writer.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = session.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._services.clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        if self._session is not None:
            self._session.tick(self._services.clock.now_s())
            self._apply()

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Decode):
            self._decodes[event.job_id] = asyncio.create_task(self._decode(event.job_id, event.job))
        elif isinstance(event, Cancel):
            task = self._decodes.pop(event.job_id, None)
            if task is not None:
                task.cancel()
        elif isinstance(event, Close):
            self._close = event
        elif self._outbox is not None:
            self._outbox.put(event)
            if isinstance(event, SendSegments):
                self._time(event)

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
        if self._session is not None:
            self._session.result(job_id, outcome, self._services.clock.now_s())
            self._apply()

    def _time(self, event: SendSegments) -> None:
        """Measure how long after its audio this text came."""
        metrics, now_s = self._services.metrics, self._services.clock.now_s()
        last = event.provisional if not event.completed else event.completed[-1]
        assert last is not None, "an update without text is never published"
        age_s = self._arrivals.age_s(last.end_ms * SAMPLE_RATE_HZ // 1000, now_s)
        if age_s is not None and event.completed:
            metrics.committed(age_s)
        if age_s is not None and not self._has_text:
            metrics.first_text(age_s)
        self._has_text = True

    def _count(self, session: Session) -> None:
        """Feed the ledger's growth into the metrics."""
        ledger = session.ledger
        now = (ledger.received, ledger.decoded, ledger.silent, ledger.refused)
        if now != self._counted:
            self._services.metrics.samples(*(new - old for new, old in zip(now, self._counted, strict=True)))
            self._counted = now


class _PeerGone(Exception):
    """The socket is closed from the other side."""


def new_uid() -> str:
    """A uid for a peer that sent none."""
    return uuid.uuid4().hex
