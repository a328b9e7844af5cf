"""A time limit that never loses a cancellation.

`asyncio.wait_for` before Python 3.12 does: when the work is done in the moment of the cancellation, it returns the
result, and whoever cancelled waits for a job that goes on. Knows nothing of what is awaited. Invariant: when
`within` ends, in whatever way, the work has ended too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["within"]

_T = TypeVar("_T")


async def within(work: Coroutine[Any, Any, _T], timeout_s: float, *, discard: Callable[[_T], None] | None = None) -> _T:
    """Await `work` for `timeout_s` seconds at most; raises asyncio.TimeoutError after that.

    `discard` is given a result that came too late or that nobody waits for any more, to close what it holds.
    """
    task = asyncio.ensure_future(work)
    is_wanted = False
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        is_wanted = task.done()
    finally:
        if not is_wanted:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is None and discard is not None:
                discard(task.result())
    if not is_wanted:
        raise asyncio.TimeoutError
    return task.result()
