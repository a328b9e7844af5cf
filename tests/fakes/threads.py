"""A pool of feature threads for a test, and waiting for what threads do without sleeping for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from engine.clock import MonotonicClock
from realtime.features import FeaturePool

__all__ = ["pool_of", "until"]


@contextmanager
def pool_of(n_threads: int) -> Iterator[FeaturePool]:
    """A pool that is closed afterwards, whatever its threads do."""
    pool = FeaturePool(n_threads, MonotonicClock())
    try:
        yield pool
    finally:
        pool.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something is so; fails after 5 s."""
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to this")
