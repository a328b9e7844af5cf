"""The moving parts of a WebSocket connection that need no socket: clocks, frame boundaries, a queue.

All of them are bounded, none of them waits on the network; `Deadline` and `Keepalive` use the event
loop's clock and timers only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from starlette.types import Message
from websockets.frames import Frame, Opcode

__all__ = ["Assembler", "Deadline", "FrameMeter", "Inbox", "Keepalive"]

FIRST_CONTROL_OPCODE = 0x8
"""Close, ping and pong may stand between the frames of a message (RFC 6455 section 5.4)."""


class Deadline:
    """Calls `expired` once unless stopped in time; the clock stands still between `hold` and `go_on`.

    A loop timer is left to fire and checks what is left to wait, because starting and stopping
    happens with every message and loop timers are costly to cancel.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._held = False
        self._due_s: float | None = None
        self._left_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def running(self) -> bool:
        """True between `start` and `stop` or expiry, held or not."""
        return self._due_s is not None or self._left_s is not None

    def start(self, seconds: float) -> None:
        """Expire `seconds` from now; a deadline that is already running is replaced."""
        if self._held:
            self._left_s = seconds
        else:
            self._due_s = self._loop.time() + seconds
            self._arm()

    def stop(self) -> None:
        """Do not expire."""
        self._due_s = self._left_s = None

    def hold(self) -> None:
        """Stop the clock; idempotent."""
        self._held = True
        if self._due_s is not None:
            self._left_s = max(self._due_s - self._loop.time(), 0.0)
            self._due_s = None

    def go_on(self) -> None:
        """Let the clock run again; idempotent."""
        self._held = False
        if self._left_s is not None:
            self._due_s = self._loop.time() + self._left_s
            self._left_s = None
            self._arm()

    def close(self) -> None:
        """Stop for good and let go of the loop's timer."""
        self.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        assert self._due_s is not None
        if self._timer is not None:
            if self._timer.when() <= self._due_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._due_s is None:
            return
        if self._loop.time() < self._due_s:
            self._arm()
            return
        self._due_s = None
        self._expired()


class FrameMeter:
    """Follows the lengths of WebSocket frames (RFC 6455 section 5.2) through the bytes of a connection.

    Tells whether the bytes so far end inside a frame, and where a message begins to be too big. The
    websockets library knows both, but does not say the one, and answers the other with a close frame
    at once, behind which nothing can be sent any more.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._head = bytearray()
        self._payload_left = 0
        self._message_bytes = 0
        self.is_over = False
        """True once a message was too big; nothing is followed any more."""

    @property
    def mid_frame(self) -> bool:
        """True if a frame has begun and has not ended."""
        return bool(self._head) or self._payload_left > 0

    def feed(self, data: bytes) -> int:
        """Account for the next bytes; return how many of them stand before a frame that is too much."""
        position, frame_start, end = 0, 0, len(data)
        head = self._head
        while position < end and not self.is_over:
            if self._payload_left:
                step = min(self._payload_left, end - position)
                self._payload_left -= step
                position += step
                continue
            if not head:
                frame_start = position
            step = min(_head_size(head) - len(head), end - position)
            head += data[position : position + step]
            position += step
            if len(head) >= 2 and len(head) == _head_size(head):
                self._begin_frame(head)
                head.clear()
        return frame_start if self.is_over else end

    def _begin_frame(self, head: bytearray) -> None:
        self._payload_left = _payload_size(head)
        opcode, is_last = head[0] & 0x0F, bool(head[0] & 0x80)
        if opcode >= FIRST_CONTROL_OPCODE:
            return
        if opcode != Opcode.CONT:
            self._message_bytes = 0
        self._message_bytes += self._payload_left
        self.is_over = self._message_bytes > self._max_message_bytes
        if is_last:
            self._message_bytes = 0


def _head_size(head: bytearray) -> int:
    if len(head) < 2:
        return 2
    extended = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    return 2 + extended + (4 if head[1] & 0x80 else 0)


def _payload_size(head: bytearray) -> int:
    short = head[1] & 0x7F
    if short == 126:
        return int.from_bytes(head[2:4], "big")
    if short == 127:
        return int.from_bytes(head[2:10], "big")
    return short


class Keepalive:
    """Pings a peer and reports it dead if nothing at all arrives while we read.

    Any byte counts as a sign of life, not the pong alone: on a slow uplink a pong can be queued
    behind more audio than the time-out lasts. `ping` returns at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval_s: float,
        timeout_s: float,
        ping: Callable[[], None],
        dead: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._ping = ping
        self._timer: asyncio.TimerHandle | None = None
        self.deadline = Deadline(loop, dead)

    def start(self) -> None:
        """Ping one interval from now, and so on until `close`."""
        self._timer = self._loop.call_later(self._interval_s, self._tick)

    def heard(self) -> None:
        """Something has arrived."""
        self.deadline.stop()

    def close(self) -> None:
        """No more pings."""
        self.deadline.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self.start()
        if not self.deadline.running:
            self.deadline.start(self._timeout_s)
            self._ping()


class Assembler:
    """Joins the frames of messages; at most one message is in assembly.

    Its size is bounded by the protocol object that parsed the frames.
    """

    def __init__(self) -> None:
        self._parts = bytearray()
        self._is_text = False
        self.fragmented = False
        """True while a message has begun and its last frame has not come."""

    def feed(self, frame: Frame) -> Message | None:
        """Take one data frame; return the ASGI message that it completes, if any.

        Raises UnicodeDecodeError for a text message that is not UTF-8.
        """
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        if frame.fin and not self.fragmented:
            return self._message(bytes(frame.data))
        self._parts += frame.data
        self.fragmented = not frame.fin
        if self.fragmented:
            return None
        data = bytes(self._parts)
        self._parts = bytearray()
        return self._message(data)

    def _message(self, data: bytes) -> Message:
        if self._is_text:
            return {"type": "websocket.receive", "text": data.decode()}
        return {"type": "websocket.receive", "bytes": data}


class Inbox:
    """ASGI messages that wait for the application, with two bounds and a last word.

    `full` asks the owner to stop reading; what it had already read may still be put.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0
        self._last: Message | None = None
        self._arrived = asyncio.Event()
        self.full = False
        """True from the moment a bound is reached until more than half of both is free again."""

    @property
    def ended(self) -> bool:
        """True after `end`: nothing more is put."""
        return self._last is not None

    def put(self, message: Message, size_bytes: int) -> None:
        """Add a message, unless the inbox has ended."""
        if self._last is None:
            self._messages.append((message, size_bytes))
            self._bytes += size_bytes
            self.full = self.full or self._reaches(self._max_messages, self._max_bytes)
            self._arrived.set()

    def end(self, last: Message) -> None:
        """After what waits already, `get` returns `last` for ever; only the first call counts."""
        if self._last is None:
            self._last = last
            self._arrived.set()

    def clear(self) -> None:
        """Forget what waits: the application wants no more of it."""
        self._messages.clear()
        self._bytes = 0
        self.full = False

    async def get(self) -> Message:
        """Return the next message, waiting for it if need be."""
        while not self._messages and self._last is None:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._messages:
            assert self._last is not None
            return self._last
        message, size_bytes = self._messages.popleft()
        self._bytes -= size_bytes
        # Half of the bounds to go on again, so that reading does not flutter with every message.
        self.full = self.full and self._reaches(self._max_messages / 2, self._max_bytes / 2)
        return message

    def _reaches(self, messages: float, size_bytes: float) -> bool:
        return len(self._messages) >= messages or self._bytes >= size_bytes
