"""One peer before its stream: the handshake, and the answer to those who cannot be served.

Knows nothing of audio or text; `realtime.stream` takes over once the peer is admitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.errors import AtCapacityError, BadHandshakeError, DrainingError, ModelUnavailableError, SttError
from realtime import messages
from realtime.protocol import parse_handshake, peek_uid
from realtime.stream import SLOW_READER_S, PeerGoneError, Services, Stream

__all__ = ["Connection", "new_uid"]

LOADING_WAIT_MINUTES = 0.5
"""What a peer is told that comes while the model loads, or while the server is on its way out."""


class Connection:
    """One peer, from the accepted upgrade to the close."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services
        self._handshaking: asyncio.Future[Any] | None = None
        self._stream: Stream | None = None

    async def run(self) -> None:
        """Serve the peer until its stream is closed. Raises nothing."""
        admission, clock = self._services.admission, self._services.clock
        uid = ""
        try:
            frame = await self._first_frame()
            uid = peek_uid(frame)
            handshake = parse_handshake(frame, self._services.rules())
            uid = handshake.uid
            slot = admission.enter(clock.now_s())
        except SttError as error:
            await self._refuse(uid, error)
            return
        except PeerGoneError:
            return
        try:
            self._stream = Stream(self._websocket, self._services, handshake, str(slot.number))
            await self._stream.run()
        finally:
            admission.leave(slot, clock.now_s())

    def drain(self) -> None:
        """The server shuts down: finals first, then close. Before the handshake: close at once."""
        if self._stream is not None:
            self._stream.drain()
        elif self._handshaking is not None:
            self._handshaking.cancel()

    def abort(self) -> None:
        """Time is up: say what was not decoded and close."""
        if self._stream is not None:
            self._stream.abort()

    async def _first_frame(self) -> str | bytes:
        self._handshaking = asyncio.ensure_future(self._websocket.receive())
        timeout_s = self._services.handshake_timeout_s
        done, _ = await asyncio.wait({self._handshaking}, timeout=timeout_s)
        if not done:
            self._handshaking.cancel()
            raise BadHandshakeError(f"no handshake within {timeout_s:g} s")
        if self._handshaking.cancelled():
            raise DrainingError("the server is shutting down; reconnect later or elsewhere")
        message = self._handshaking.result()
        if message["type"] == "websocket.disconnect":
            raise PeerGoneError
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
        with contextlib.suppress(OSError, WebSocketDisconnect, asyncio.TimeoutError):
            await asyncio.wait_for(self._websocket.send_text(messages.encode(message)), SLOW_READER_S)
            await self._websocket.close(close_code, str(error))


def new_uid() -> str:
    """A uid for a peer that sent none."""
    return uuid.uuid4().hex
