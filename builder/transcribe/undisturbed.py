"""Signals wait while something that is paid for is between the network and the ledger."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait for the end of this; a second one does not. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if held and number == signal.SIGINT:
            raise KeyboardInterrupt
        held.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.getsignal(number) for number in numbers}
    changed = [number for number in numbers if callable(before[number])]
    for number in changed:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, before[number])
    if held:
        raise KeyboardInterrupt
