"""A client of the live server, for Python programs: audio in, typed events out.

    async with await LiveClient.connect("ws://127.0.0.1:9090", ClientOptions(language="en")) as client:
        await client.send_audio(samples)      # float32, mono, 16 kHz; waits while the server is busy
        await client.finish()                 # waits for the last word
        print(client.transcript.text)

Knows nothing of files, microphones and screens. Invariants: one reader task takes messages as they come,
so a slow consumer never blocks the server; every completed segment is kept exactly once; all
waits are bounded; a dropped connection is not reopened (the text up to it stays available).
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from types import TracebackType

import numpy as np
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from engine.clock import Clock, MonotonicClock
from engine.errors import BadInputError, SttError, UnauthorizedError
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.connect import CONNECT_BUDGET_S, open_socket
from realtime.client.errors import ConnectError, RefusedError, ServerFullError, StreamBrokenError
from realtime.client.messages import (
    END_OF_AUDIO,
    ClientOptions,
    Closed,
    ErrorReply,
    Event,
    Listing,
    Ready,
    Update,
    Wait,
    handshake,
    parse_message,
)
from realtime.client.transcript import Mailbox, Transcript

__all__ = ["LiveClient"]

BYTES_PER_SAMPLE = 4
MAX_FRAME_BYTES = 64 * 1024
"""Longest audio frame, 1 s: far below every server's limit, and no back-pressure in bigger steps."""
READY_TIMEOUT_S = 120.0
"""SERVER_READY after the handshake; a server may load its model first."""
FINISH_IDLE_S = 60.0
"""Longest silence of the server after the end of the audio: it may still decode what was queued."""
FINISH_TOTAL_S = 900.0
"""Longest wait for the last text in all."""


class LiveClient:
    """One stream. Send from one task, iterate from one task; both may be the same in turn."""

    def __init__(self, socket: ClientConnection, options: ClientOptions, clock: Clock) -> None:
        self.transcript = Transcript()
        self.options = options
        self.sent_samples = 0
        self.ready: Ready | None = None
        self.closed: Closed | None = None
        self.end_sent = False
        self._refusal: Wait | ErrorReply | None = None
        self._socket = socket
        self._clock = clock
        self._mailbox = Mailbox()
        self._news = asyncio.Event()
        self._decided = asyncio.Event()
        self._messages_seen = 0
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls,
        url: str,
        options: ClientOptions | None = None,
        *,
        clock: Clock | None = None,
        connect_budget_s: float = CONNECT_BUDGET_S,
        ready_timeout_s: float = READY_TIMEOUT_S,
        on_retry: Callable[[str], None] | None = None,
    ) -> LiveClient:
        """Connect and wait until the server takes audio.

        Raises ConnectError, UnauthorizedError, ServerFullError, RefusedError or StreamBrokenError.
        """
        options = options or ClientOptions()
        clock = clock or MonotonicClock()
        socket = await open_socket(url, options.token, budget_s=connect_budget_s, on_retry=on_retry, clock=clock)
        client = cls(socket, options, clock)
        try:
            await client._begin(ready_timeout_s)
        except BaseException:
            await client.close()
            raise
        return client

    async def send_audio(self, audio: FloatArray | bytes) -> None:
        """Send samples: float32 [n], mono, 16 kHz, or the same as little-endian bytes.

        Waits while the connection's buffers are full. Raises BadInputError for another kind of array,
        StreamBrokenError if the connection is gone.
        """
        if self.end_sent:
            raise BadInputError("audio", "after finish()", "audio before the end of the audio")
        data = memoryview(audio if isinstance(audio, bytes) else _to_bytes(audio))
        for begin in range(0, len(data), MAX_FRAME_BYTES):
            frame = bytes(data[begin : begin + MAX_FRAME_BYTES])
            try:
                await self._socket.send(frame)
            except ConnectionClosed:
                await self._reader
                raise self.broken() from None
            self.sent_samples += len(frame) // BYTES_PER_SAMPLE

    async def finish(self, idle_timeout_s: float = FINISH_IDLE_S, total_timeout_s: float = FINISH_TOTAL_S) -> Closed:
        """Tell the server that the audio is over and wait until it has sent all text and closed.

        May be called again. Raises StreamBrokenError if the server stays silent for
        `idle_timeout_s`, or if the whole wait exceeds `total_timeout_s`.
        """
        if not self.end_sent:
            self.end_sent = True
            with contextlib.suppress(ConnectionClosed):  # the reader task knows code and reason
                await self._socket.send(END_OF_AUDIO)
        deadline_s = self._clock.now_s() + total_timeout_s
        while not self._reader.done():
            seen = self._messages_seen
            left_s = deadline_s - self._clock.now_s()
            await asyncio.wait({self._reader}, timeout=max(0.0, min(idle_timeout_s, left_s)))
            if not self._reader.done() and (seen == self._messages_seen or left_s <= idle_timeout_s):
                await self.close()
                raise StreamBrokenError("the server did not finish the text after the end of the audio")
        assert self.closed is not None
        return self.closed

    async def close(self) -> None:
        """End the connection now, without waiting for text. May be called again."""
        await self._socket.close()
        await self._reader

    def broken(self) -> StreamBrokenError:
        """The error that tells how the connection ended and how far the text reaches."""
        closed = self.closed or Closed(1006, "")
        reason = f", {closed.reason}" if closed.reason else ""
        return StreamBrokenError(
            f"the connection ended early (code {closed.code}{reason}): text received up to "
            f"{self.transcript.end_s:.1f} s of {self.sent_samples / SAMPLE_RATE_HZ:.1f} s sent"
        )

    def check_complete(self) -> None:
        """Raise StreamBrokenError (or what the server reported) unless the stream ended in good order."""
        if self._refusal is not None:
            raise self._refused(self._refusal)
        if self.closed is None or self.closed.code != 1000 or not self.end_sent:
            raise self.broken()

    def __aiter__(self) -> LiveClient:
        return self

    async def __anext__(self) -> Event:
        while True:
            event = self._mailbox.pop()
            if event is not None:
                return event
            if self._reader.done():
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()

    async def __aenter__(self) -> LiveClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _begin(self, ready_timeout_s: float) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader task knows code and reason
            await self._socket.send(handshake(self.options, str(uuid.uuid4())))
        try:
            await asyncio.wait_for(self._decided.wait(), ready_timeout_s)
        except asyncio.TimeoutError:
            raise ConnectError(f"the server was not ready within {ready_timeout_s:g} s") from None
        if self.ready is None:
            raise self._refused(self._refusal)

    def _refused(self, reply: Wait | ErrorReply | None) -> SttError:
        code = self.closed.code if self.closed else 0
        if isinstance(reply, Wait):
            return ServerFullError(reply.minutes)
        if code == ServerFullError.close_code:
            return ServerFullError(None)
        if isinstance(reply, ErrorReply):
            return _reply_error(reply, code)
        reason = f" ({self.closed.reason})" if self.closed and self.closed.reason else ""
        return StreamBrokenError(f"the server closed the connection before it was ready, code {code}{reason}")

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._socket.recv())
        except ConnectionClosed as error:
            self.closed = _closed(error)
        self._decided.set()
        self._post(self.closed)

    def _take(self, frame: str | bytes) -> None:
        self._messages_seen += 1
        event = parse_message(frame)
        if isinstance(event, Listing):
            new = self.transcript.add(event.segments)
            self._post(Update(new, self.transcript.provisional, self._clock.now_s()))
        elif event is not None:
            self._post(event)
        if isinstance(event, Ready):
            self.ready = event
            self._decided.set()
        elif isinstance(event, Wait | ErrorReply):
            # The close that follows tells more (code, reason), so `_decided` waits for it.
            self._refusal = event

    def _post(self, event: Event) -> None:
        self._mailbox.put(event)
        self._news.set()


def _to_bytes(audio: FloatArray) -> bytes:
    if audio.ndim != 1 or audio.dtype != np.float32:
        raise BadInputError("audio", f"{audio.dtype} array of shape {audio.shape}", "float32 array of one dimension")
    return audio.astype("<f4", copy=False).tobytes()


def _closed(error: ConnectionClosed) -> Closed:
    if error.rcvd is not None:
        return Closed(error.rcvd.code, error.rcvd.reason)
    # Nothing came from the server; what this side gave up for (a missing pong) explains most.
    return Closed(1006, error.sent.reason if error.sent is not None else "no close frame")


def _reply_error(reply: ErrorReply, close_code: int) -> SttError:
    message = f"the server refused: {reply.message}"
    if reply.code == UnauthorizedError.code:
        return UnauthorizedError(message)
    # 1003, 1007, 1008, 1009: the fault lies with this side (RFC 6455 section 7.4.1).
    return RefusedError(message) if close_code in (1003, 1007, 1008, 1009) else StreamBrokenError(message)
