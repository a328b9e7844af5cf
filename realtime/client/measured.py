"""Streams audio at a given speed and keeps what is needed to measure: every update with its time.

Knows sockets only through LiveClient, and nothing of words: `realtime.client.latency` does the matching.
Invariant: what is kept grows with the number of updates, not with the audio.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from engine.clock import Clock, MonotonicClock
from engine.errors import SttError
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.api import LiveClient
from realtime.client.messages import ClientOptions, Event, Update
from realtime.client.pacing import Pacer, paced

__all__ = ["Streamed", "stream_measured"]


@dataclass(frozen=True)
class Streamed:
    """One stream as its client saw it; times are the client's monotonic clock.

    `start_s` is when sample 0 was recorded, `blocked_s` how long sending waited for the server,
    `own_lateness_s` how late this process itself was at worst, `finish_s` how long the server took
    from the end of the audio to its close. `error` tells why the stream is not complete.
    """

    updates: tuple[Update, ...]
    text: str
    start_s: float
    speed: float
    sent_samples: int
    blocked_s: float
    own_lateness_s: float
    finish_s: float
    violations: int
    error: str | None

    def due_s(self, second: float) -> float:
        """The clock's time at which `second` of the audio had been recorded."""
        return self.start_s + second / self.speed


async def stream_measured(
    url: str,
    options: ClientOptions,
    chunks: AsyncGenerator[FloatArray, None],
    *,
    speed: float = 1.0,
    on_event: Callable[[Event], None] = lambda event: None,
    on_sent: Callable[[float], None] = lambda second: None,
    clock: Clock | None = None,
) -> Streamed:
    """Stream `chunks` over one connection and wait for the end of the text.

    `on_event` and `on_sent` (seconds of audio sent so far) are for a display. Raises the errors of
    LiveClient.connect; what happens later is told by `Streamed.error`.
    """
    clock = clock or MonotonicClock()
    pacer = Pacer(speed, clock)
    updates: list[Update] = []

    async def view(live: LiveClient) -> None:
        async for event in live:
            if isinstance(event, Update):
                updates.append(event)
            on_event(event)

    async with contextlib.aclosing(paced(chunks, pacer)) as source, await LiveClient.connect(url, options) as live:
        viewer = asyncio.create_task(view(live))
        sending = _Sending(live, clock, on_sent)
        await sending.run(source)
        await live.close()
        await viewer
        return Streamed(
            updates=tuple(updates),
            text=live.transcript.text,
            start_s=sending.end_s if pacer.start_s is None else pacer.start_s,
            speed=speed,
            sent_samples=live.sent_samples,
            blocked_s=sending.blocked_s,
            own_lateness_s=pacer.own_lateness_s,
            finish_s=sending.finish_s,
            violations=live.transcript.violations,
            error=sending.error,
        )


class _Sending:
    """Sends, waits for the end, and keeps the books about both."""

    def __init__(self, live: LiveClient, clock: Clock, on_sent: Callable[[float], None]) -> None:
        self.blocked_s = 0.0
        self.end_s = clock.now_s()
        self.finish_s = 0.0
        self.error: str | None = None
        self._live = live
        self._clock = clock
        self._on_sent = on_sent

    async def run(self, chunks: AsyncGenerator[FloatArray, None]) -> None:
        try:
            async for chunk in chunks:
                asked_s = self._clock.now_s()
                await self._live.send_audio(chunk)
                self.end_s = self._clock.now_s()
                self.blocked_s += self.end_s - asked_s
                self._on_sent(self._live.sent_samples / SAMPLE_RATE_HZ)
            await self._live.finish()
            self._live.check_complete()
        except SttError as problem:
            self.error = str(problem)
        self.finish_s = self._clock.now_s() - self.end_s
