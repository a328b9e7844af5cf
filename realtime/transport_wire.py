"""The outgoing half of a WebSocket connection: back-pressure, the late pong, the orderly end.

Owns what is written to the transport, and nothing that is read. The application waits in
`writable` while more than the high-water mark is unsent; everything else is written at once and is
small: one pong, one ping, one close frame.
"""

from __future__ import annotations

import asyncio
import logging
import os

from websockets.frames import EXTERNAL_CLOSE_CODES
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

__all__ = ["MAX_REASON_BYTES", "Wire"]

logger = logging.getLogger("realtime.transport")

MAX_REASON_BYTES = 123
"""A control frame holds 125 bytes, of which the close code takes two (RFC 6455 section 5.5)."""
NO_STATUS = 1005
ABNORMAL = 1006


class Wire:
    """Writes what `conn` has to send to `transport`, and ends the connection in bounded time."""

    def __init__(self, transport: asyncio.Transport, conn: ServerProtocol, close_timeout_s: float) -> None:
        self._transport = transport
        self._conn = conn
        self._close_timeout_s = close_timeout_s
        self._ended = False
        self._late_pong: bytes | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self.lost = False
        """True once the transport has reported its end."""
        self.writable = asyncio.Event()
        """Set while less than the high-water mark is unsent, and for good once the connection is lost."""
        self.writable.set()

    @property
    def is_open(self) -> bool:
        """True between the handshake and the first close frame of either side."""
        return not self.lost and self._conn.state is State.OPEN

    def write(self, data: bytes) -> None:
        """Send bytes as they are; dropped if the output has ended."""
        if not self._ended and not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send all that the protocol object has to say."""
        for chunk in self._conn.data_to_send():
            if chunk == SEND_EOF:
                self.end()
            else:
                self.write(chunk)

    def flush_replies(self) -> None:
        """Send the protocol object's answers to what has just been read.

        A peer that pings but does not read gets the latest pong only (RFC 6455 section 5.5.3), so
        that it cannot make the output grow.
        """
        if self.writable.is_set() or self._conn.state is not State.OPEN:
            self.flush()
            return
        for chunk in self._conn.data_to_send():
            self._late_pong = chunk

    def ping(self) -> None:
        """Send a ping, unless it would only wait behind output that the peer does not read."""
        if self.is_open and self.writable.is_set():
            self._conn.send_ping(os.urandom(4))
            self.flush()

    def close(self, code: int, reason: str) -> None:
        """Send a close frame and wait a bounded time for the peer's; 1006 drops the connection."""
        if code == ABNORMAL:
            self.abort()
            return
        if code == NO_STATUS:
            self._conn.send_close()
        else:
            self._conn.send_close(_sendable(code), _short(reason))
        self.linger()
        self.flush()

    def fail(self, code: int, reason: str) -> None:
        """Send a close frame and end the output without waiting for the peer's."""
        self._conn.fail(code, reason)
        self.flush()

    def end(self) -> None:
        """End the output, and read on for a bounded time.

        Closing with unread input would reset the connection, and the reset can overtake the
        close frame.
        """
        self._ended = True
        self.linger()
        if self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def linger(self) -> None:
        """Drop the connection if it has not ended within the close time-out."""
        if self._linger_timer is None and not self.lost:
            loop = asyncio.get_running_loop()
            self._linger_timer = loop.call_later(self._close_timeout_s, self.abort)

    def abort(self) -> None:
        """Drop the connection at once, unsent output included."""
        self._transport.abort()

    def resumed(self) -> None:
        """The peer has caught up."""
        self.writable.set()
        if self._late_pong is not None and self.is_open:
            self.write(self._late_pong)
        self._late_pong = None

    def forget(self) -> None:
        """The connection is lost: nobody waits any longer."""
        self.lost = True
        self.writable.set()
        # Says nothing new, except to Python 3.10's TLS transports, which warn when they were not closed.
        self._transport.close()
        if self._linger_timer is not None:
            self._linger_timer.cancel()


def _sendable(code: int) -> int:
    if code in EXTERNAL_CLOSE_CODES or 3000 <= code < 5000:
        return code
    logger.error("close code %d may not be sent (RFC 6455 section 7.4); the peer gets 1011", code)
    return 1011


def _short(reason: str) -> str:
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
