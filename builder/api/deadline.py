"""A time limit on blocking work, by the wall clock.

Limits of sockets count from one piece to the next, so a peer that sends a byte now and then holds its reader for as
long as it likes. Work that overstays is left to its thread, which ends when the peer does, or with the process.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["within"]

_T = TypeVar("_T")


def within(limit_s: float, work: Callable[[], _T]) -> _T:
    """What `work` returns or raises; TimeoutError if it has not ended after `limit_s` real seconds."""
    outcome: queue.SimpleQueue[tuple[bool, _T | BaseException]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((True, work()))
        except BaseException as error:
            # Whatever it is belongs to whoever waits.
            outcome.put((False, error))

    threading.Thread(target=run, name="http", daemon=True).start()
    try:
        is_well, result = outcome.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"not done after {limit_s:g} s") from None
    if is_well:
        return result  # type: ignore[return-value]
    assert isinstance(result, BaseException)
    raise result
