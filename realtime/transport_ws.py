"""One WebSocket connection: ASGI on one side, websockets' sans-I/O protocol (RFC 6455) on the other.

It replaces uvicorn's class instead of deriving from it: closing, keepalive, queueing, logging and
deadlines all have to differ, and `websockets.server.ServerProtocol` is a documented interface,
while the attributes of uvicorn's class are not.

Invariants: the application alone decides when a healthy connection ends; no message that has
arrived is dropped before the application has seen it, unless the application has closed; nothing
here logs a request target, a header or a payload; queue, output and waits are bounded by `Limits`.

Knows nothing of what messages mean.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from starlette.types import Message, Scope
from starlette.websockets import WebSocketDisconnect
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from realtime.transport_base import ClientDisconnectedError, Hub, render_response
from realtime.transport_parts import Assembler, Deadline, FrameMeter, Inbox, Keepalive
from realtime.transport_wire import ABNORMAL, Wire

__all__ = ["READ_BUFFER_BYTES", "WebSocketProtocol"]

logger = logging.getLogger("realtime.transport")
# The library writes headers and payloads at DEBUG: its logger stays above that for good.
_library_logger = logging.getLogger("realtime.transport.frames")
_library_logger.setLevel(logging.WARNING)

READ_BUFFER_BYTES = 16 * 1024
"""Read at most this much per turn of the event loop: 2 700 empty frames, about 20 ms, then others' turn."""
_read_buffer = memoryview(bytearray(READ_BUFFER_BYTES))
"""Shared by all: what the loop reads is copied out before it reads again."""


class WebSocketProtocol(asyncio.BufferedProtocol):
    """Bridges one upgraded connection to the ASGI application."""

    def __init__(self, hub: Hub, transport: asyncio.Transport, scope: Scope) -> None:
        loop, limits = asyncio.get_running_loop(), hub.limits
        self._hub = hub
        self._transport = transport
        self._scope = scope
        # No extensions: compression would let 4 KiB of input cost 4 MiB of work.
        self._conn = ServerProtocol(extensions=None, max_size=limits.max_message_bytes, logger=_library_logger)
        self._wire = Wire(transport, self._conn, limits.close_timeout_s)
        self._meter = FrameMeter(limits.max_message_bytes)
        self._assembler = Assembler()
        self._inbox = Inbox(limits.queue_messages, limits.queue_bytes)
        self._keepalive = Keepalive(loop, limits.ping_interval_s, limits.ping_timeout_s, self._wire.ping, self._dead)
        self._message_deadline = Deadline(loop, self._message_overdue)
        self._response: Response | None = None
        self._rejection: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._rejection_body = bytearray()
        self._early = bytearray()
        self._opened = False
        self._answered = False
        self._reading = True
        self._refused: tuple[int, str] | None = None

    # The handshake

    def start(self, request_head: bytes, early: bytes) -> None:
        """Begin with a complete request head; `early` is what the peer sent behind it.

        `early` and whatever follows wait until the application has accepted.
        """
        self._hub.attached(self)
        self._transport.set_write_buffer_limits(high=self._hub.limits.write_high_bytes)
        self._set_reading(False)
        self._early += early
        self._conn.receive_data(request_head)
        requests = self._conn.events_received()
        if not requests:
            # The library's own parser is stricter than llhttp (line length, number of headers).
            self._refuse(b"".join(self._conn.data_to_send()) or render_response(400, body=b"Bad Request"))
            return
        assert isinstance(requests[0], Request)
        self._response = self._conn.accept(requests[0])
        if self._response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._conn.send_response(self._response)
            self._refuse(b"".join(self._conn.data_to_send()))
            return
        self._inbox.put({"type": "websocket.connect"}, 0)
        self._hub.run(self.run_app())

    def _refuse(self, response: bytes) -> None:
        self._answered = True
        self._leave(ABNORMAL, "")
        self._wire.write(response)
        self._wire.end()
        self._set_reading(True)

    def _accept(self, message: Message) -> None:
        assert self._response is not None
        for name, value in message.get("headers") or ():
            self._response.headers[name.decode("latin-1")] = value.decode("latin-1")
        if message.get("subprotocol"):
            self._response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        self._conn.send_response(self._response)
        self._answered = self._opened = True
        self._wire.flush()
        self._keepalive.start()
        early, self._early = bytes(self._early), bytearray()
        self._update_reading()
        if early:
            self._consume(early)

    # Callbacks of the transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """The shared read buffer."""
        return _read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        data = bytes(_read_buffer[:nbytes])
        if self._opened:
            self._consume(data)
        elif not self._answered:
            # TLS may deliver what it had decrypted before reading was paused: one buffer at most.
            self._early += data

    def eof_received(self) -> bool:
        """The peer sends no more; without a close frame that is an abnormal end."""
        self._leave(ABNORMAL, "")
        self._wire.linger()
        return False

    def pause_writing(self) -> None:
        """The peer reads more slowly than we write."""
        self._wire.writable.clear()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._wire.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._leave(ABNORMAL, "")
        self._keepalive.close()
        self._message_deadline.close()
        self._wire.forget()
        self._hub.detached(self)

    def abort(self) -> None:
        """Drop the connection at once, unsent output included."""
        self._wire.abort()

    # Input

    def _consume(self, data: bytes) -> None:
        self._keepalive.heard()
        if self._refused is not None:
            return
        self._conn.receive_data(data[: self._meter.feed(data)])
        completed = False
        for event in self._conn.events_received():
            assert isinstance(event, Frame)
            completed |= self._on_frame(event)
        if self._conn.parser_exc is not None and self._conn.close_sent is not None:
            self._leave(self._conn.close_sent.code, self._conn.close_sent.reason)
        self._wire.flush_replies()
        if self._meter.is_over:
            self._refuse_input(1009, f"message over {self._hub.limits.max_message_bytes} bytes")
        self._watch_message(completed)
        self._update_reading()

    def _on_frame(self, frame: Frame) -> bool:
        if frame.opcode is Opcode.CLOSE:
            received = self._conn.close_rcvd
            assert received is not None
            self._leave(received.code, received.reason)
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return False
        try:
            message = self._assembler.feed(frame)
        except UnicodeDecodeError:
            self._refuse_input(1007, "text is not UTF-8")
            return True
        if message is not None:
            self._inbox.put(message, len(message.get("bytes") or message.get("text") or ""))
        return message is not None

    def _watch_message(self, completed: bool) -> None:
        if self._refused is not None or not (self._meter.mid_frame or self._assembler.fragmented):
            self._message_deadline.stop()
        elif completed or not self._message_deadline.running:
            self._message_deadline.start(self._hub.limits.message_timeout_s)

    def _message_overdue(self) -> None:
        self._refuse_input(1008, "message took too long")

    def _dead(self) -> None:
        self._fail(1011, "keepalive ping timeout")

    def _update_reading(self) -> None:
        # After the end everything is read and dropped: the peer's close frame is behind it.
        self._set_reading(self._inbox.ended or (self._answered and not self._inbox.full))

    def _set_reading(self, reading: bool) -> None:
        if reading == self._reading or self._wire.lost:
            return
        self._reading = reading
        if reading:
            self._keepalive.deadline.go_on()
            self._message_deadline.go_on()
            self._transport.resume_reading()
        else:
            self._keepalive.deadline.hold()
            self._message_deadline.hold()
            self._transport.pause_reading()

    def _leave(self, code: int, reason: str) -> None:
        self._inbox.end({"type": "websocket.disconnect", "code": int(code), "reason": reason})

    def _refuse_input(self, code: int, reason: str) -> None:
        """Take nothing more from this peer. The application learns the code as that of a disconnect.

        It may still send what it owes for the input before, and closes when it is done.
        """
        if self._wire.is_open and self._refused is None:
            self._refused = code, reason
            self._message_deadline.stop()
            self._leave(code, reason)
            self._update_reading()

    def _fail(self, code: int, reason: str) -> None:
        if self._wire.is_open:
            self._leave(code, reason)
            self._wire.fail(code, reason)
            self._set_reading(True)

    # The application's side

    async def run_app(self) -> None:
        """Run the application to its end, whatever that is; logs what it raises."""
        code, reason = 1011, ""
        try:
            await self._hub.app(self._scope, self._receive, self._send)
            code, reason = self._refused or (1000, "")
        except (ClientDisconnectedError, WebSocketDisconnect):
            pass
        except Exception:
            # The edge of the application: the log gets the traceback, the peer 500 or 1011.
            logger.exception("the application failed on a WebSocket")
        finally:
            if not self._answered and not self._wire.lost:
                self._refuse(render_response(500, body=b"Internal Server Error"))
            self._close(code, reason)

    async def _receive(self) -> Message:
        message = await self._inbox.get()
        self._update_reading()
        return message

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send" and self._opened:
            await self._wire.writable.wait()
            self._send_data(message)
        elif kind == "websocket.close" and self._answered:
            # Never waits: it is how an application gets rid of a peer that does not read.
            self._close(message.get("code", 1000), message.get("reason") or "")
        elif self._wire.lost:
            raise ClientDisconnectedError("the peer has gone")
        elif kind == "websocket.http.response.body" and self._rejection is not None and not self._answered:
            self._reject(message)
        elif self._answered or self._rejection is not None:
            raise RuntimeError(f"ASGI message {kind!r} is out of order: the handshake is over")
        else:
            self._answer(message)

    def _answer(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(render_response(403, body=b"Forbidden"))
        elif kind == "websocket.http.response.start":
            self._rejection = (message["status"], list(message.get("headers") or ()))
        else:
            raise RuntimeError(f"ASGI message {kind!r} is out of order: the handshake is not over")

    def _reject(self, message: Message) -> None:
        assert self._rejection is not None
        self._rejection_body += message.get("body", b"")
        if not message.get("more_body", False):
            status, headers = self._rejection
            self._refuse(render_response(status, headers, bytes(self._rejection_body)))

    def _send_data(self, message: Message) -> None:
        if not self._wire.is_open:
            raise ClientDisconnectedError("the connection is closed")
        data: Any = message.get("bytes")
        if data is not None:
            self._conn.send_binary(data)
        else:
            self._conn.send_text(message["text"].encode())
        self._wire.flush()

    def _close(self, code: int, reason: str) -> None:
        if self._wire.is_open:
            if self._refused is None:
                self._wire.close(code, reason)
            else:
                # The peer's close frame would stand behind input that is not looked at any more.
                self._wire.fail(code, reason)
            self._leave(code, reason)
            self._inbox.clear()
            self._update_reading()
