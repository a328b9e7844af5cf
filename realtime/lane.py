"""The inputs of one stream, one at a time and in the order in which they came.

Most are applied at once. A heavy one (audio to be analysed) runs in a feature thread; what comes meanwhile
(results, ticks, drain, abort, the peer's leaving) waits and is applied behind it. So whatever the inputs
touch needs no lock: at any moment one thread has it.

Knows no session and no audio. What waits is bounded by the stream: it reads no further message while the
lane is busy, and has one timer and two decodes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from realtime.features import FeaturePool

__all__ = ["AnalysisError", "Lane"]


class AnalysisError(Exception):
    """A feature thread failed over a piece of audio; `__cause__` tells why."""


class Lane:
    """The order of one stream's inputs; lives on the event loop."""

    def __init__(self, pool: FeaturePool, apply: Callable[[Callable[[], None]], None]) -> None:
        """`apply` is given every input, on the event loop, to call it; it must not raise.

        Of a heavy input that ran in a thread it gets a call that raises AnalysisError if the thread failed.
        """
        self._pool = pool
        self._apply = apply
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_busy = False
        self._is_abandoned = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_busy(self) -> bool:
        """True while a thread has the stream: keep away from what inputs touch."""
        return self._is_busy

    def put(self, feed: Callable[[], None]) -> None:
        """Apply an input, behind the heavy one under way."""
        if not self._is_busy:
            self._apply(feed)
        elif not self._is_abandoned:
            self._waiting.append(feed)

    def put_heavy(self, feed: Callable[[], None]) -> None:
        """Run an input in a feature thread, if there are any; only while the lane is not busy."""
        assert not self._is_busy, "two heavy inputs at once"
        if self._pool.n_threads == 0:
            self._apply(feed)
            return
        self._is_busy = True
        self._idle.clear()
        self._pool.submit(feed, self._worked)

    async def settle(self, timeout_s: float) -> bool:
        """Until the thread is done and what waited is applied; put nothing heavy from now on.

        False if the thread has not come back in time: it may still touch what inputs touch, and no further
        input will be applied.
        """
        if self._is_busy:
            try:
                await asyncio.wait_for(self._idle.wait(), timeout_s)
            except asyncio.TimeoutError:
                self._is_abandoned = True
                self._waiting.clear()
        return not self._is_abandoned

    def _worked(self, failure: BaseException | None) -> None:
        if self._is_abandoned:
            return
        self._is_busy = False
        self._apply(partial(_outcome, failure))
        while self._waiting:
            self._apply(self._waiting.popleft())
        self._idle.set()


def _outcome(failure: BaseException | None) -> None:
    if failure is not None:
        raise AnalysisError("audio could not be analysed") from failure
