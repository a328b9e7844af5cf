"""realtime.client.pacing under a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import numpy as np
import pytest

from engine.types import FloatArray
from realtime.client.pacing import Pacer, paced


class Time:
    """A clock that only sleeping and working move; each sleep overshoots by `oversleep_s`."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.value_s = 100.0
        self.oversleep_s = oversleep_s

    def now_s(self) -> float:
        return self.value_s

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.value_s += seconds + (self.oversleep_s if seconds else 0.0)


async def chunks(count: int, size: int = 1_600) -> AsyncGenerator[FloatArray, None]:
    for _ in range(count):
        yield np.zeros(size, dtype=np.float32)


def arrivals(time: Time, pacer: Pacer, count: int, work: Callable[[int], float] = lambda n: 0.0) -> list[float]:
    """When each chunk is handed over, if handling chunk n takes work(n) seconds."""

    async def main() -> list[float]:
        seen = []
        async for _ in paced(chunks(count), pacer):
            seen.append(time.value_s)
            time.value_s += work(len(seen))
        return seen

    return asyncio.run(main())


@pytest.mark.parametrize("speed", [1.0, 2.0, 0.5])
def test_a_chunk_leaves_when_its_end_is_recorded(speed: float) -> None:
    time = Time()
    pacer = Pacer(speed, time, time.sleep)
    assert arrivals(time, pacer, 3) == pytest.approx([100 + n * 0.1 / speed for n in (1, 2, 3)])
    assert pacer.own_lateness_s == pytest.approx(0)
    assert pacer.due_s(16_000) == pytest.approx(100 + 1 / speed)


def test_oversleeping_does_not_accumulate() -> None:
    time = Time(oversleep_s=0.03)
    pacer = Pacer(1.0, time, time.sleep)
    seen = arrivals(time, pacer, 10_000)
    assert seen[-1] == pytest.approx(100 + 1_000 + 0.03)
    assert pacer.own_lateness_s == pytest.approx(0.03)


def test_a_busy_caller_catches_up_and_is_not_counted_as_own_lateness() -> None:
    time = Time()
    pacer = Pacer(1.0, time, time.sleep)
    seen = arrivals(time, pacer, 6, lambda n: 0.25 if n == 1 else 0.0)
    assert seen == pytest.approx([100.1, 100.35, 100.35, 100.4, 100.5, 100.6])
    assert pacer.own_lateness_s == pytest.approx(0)


def test_speed_zero_never_waits() -> None:
    time = Time()
    pacer = Pacer(0, time, time.sleep)
    assert arrivals(time, pacer, 3) == [100, 100, 100]
    assert pacer.due_s(16_000) == 100
