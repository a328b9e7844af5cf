"""Ctrl-C and SIGTERM as a call in the event loop, so that what was begun is also ended.

Knows nothing of streams. Invariant: the handlers are gone when the context is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["cancelled_by_signals", "on_signals"]


@contextlib.contextmanager
def on_signals(callback: Callable[[], object]) -> Iterator[None]:
    """Call `callback` at each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    # Where the loop cannot handle signals (Windows), Python's own KeyboardInterrupt stays.
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, callback)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Cancel the current task at SIGINT and SIGTERM; its `finally` blocks still run."""
    task = asyncio.current_task()
    assert task is not None
    with on_signals(task.cancel):
        yield
