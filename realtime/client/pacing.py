"""Audio at the speed of speech: chunks leave when a microphone would have finished recording them.

Knows nothing of files and sockets; clock and sleep are given. Invariant: every deadline is counted from
the one start, so being late once moves no later chunk, and lateness never accumulates.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from engine.clock import Clock, MonotonicClock
from engine.types import SAMPLE_RATE_HZ, FloatArray

__all__ = ["Pacer", "paced"]


class Pacer:
    """Deadlines on a sample clock.

    `speed` is audio seconds per second; 0 means "as fast as possible". `start_s` is the moment sample
    0 was recorded, None before the first wait. `own_lateness_s` is how much later than it should a
    wait returned at worst, less the time the caller itself was busy: what the scheduling of this
    process is to blame for, not the other side's back-pressure.
    """

    def __init__(
        self,
        speed: float = 1.0,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.start_s: float | None = None
        self.own_lateness_s = 0.0
        self._speed = speed
        self._clock = clock or MonotonicClock()
        self._sleep = sleep

    def due_s(self, sample: int) -> float:
        """The clock's time at which `sample` has been recorded; call it after the first wait."""
        assert self.start_s is not None
        return self.start_s + (sample / (SAMPLE_RATE_HZ * self._speed) if self._speed else 0.0)

    async def wait(self, sample: int) -> None:
        """Return once `sample` has been recorded; at once if that is past."""
        asked_s = self._clock.now_s()
        if self.start_s is None:
            self.start_s = asked_s
        due_s = self.due_s(sample)
        # Always give way once: a sender that is behind must not starve the task that reads.
        await self._sleep(max(0.0, due_s - asked_s))
        if self._speed:
            self.own_lateness_s = max(self.own_lateness_s, self._clock.now_s() - max(due_s, asked_s))


async def paced(chunks: AsyncGenerator[FloatArray, None], pacer: Pacer) -> AsyncGenerator[FloatArray, None]:
    """The same chunks, each when its last sample is due; closes `chunks` with itself."""
    samples = 0
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            samples += chunk.size
            await pacer.wait(samples)
            yield chunk
