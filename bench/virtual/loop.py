"""An asyncio event loop whose clock jumps: hours of timers in the seconds that their callbacks take.

Where a loop would sleep until its next timer, this one moves its clock there. Callbacks, tasks, timeouts and
their order are asyncio's own, so code runs in it as in earnest. No work takes any time on this clock unless
it sleeps; sockets, threads and executors have no place here, since nobody waits for them.

Invariants: time never runs backwards; the same program runs the same way every time; a program that
would wait for ever fails with StuckError instead.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopClock", "StuckError", "VirtualLoop", "run_virtual"]

_T = TypeVar("_T")


class StuckError(RuntimeError):
    """Everybody waits and no timer is set: nothing would ever happen."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: the time that it was told to wait for has passed when it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError("every task waits and no timer is set")
        self.now_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; its time begins at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jumping.now_s


class LoopClock:
    """`engine.clock.Clock` on a loop's time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now_s(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()


def run_virtual(main: Coroutine[Any, Any, _T]) -> _T:
    """`asyncio.run` in virtual time. Raises StuckError if `main` can never end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        _cancel_rest(loop)
        loop.close()


def _cancel_rest(loop: VirtualLoop) -> None:
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
