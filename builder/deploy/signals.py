"""SIGTERM and a closed terminal behave as Ctrl-C, in every verb; none of them interrupts a deploy's cleaning up by
accident."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "interrupts"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """The handler: raises KeyboardInterrupt, but while `is_cleaning` only at the second signal that somebody sent.

    A terminal that is closed sends SIGHUP more than once (the kernel and the shell do): that is nobody's second wish.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.is_cleaning = False
        self._note = note
        self._asked = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """What `signal` calls."""
        if self.is_cleaning:
            if number == getattr(signal, "SIGHUP", None):
                return
            self._asked += 1
            if self._asked == 1:
                self._note("cleaning up; interrupt once more to leave things as they are")
                return
        raise KeyboardInterrupt


@contextmanager
def interrupts(note: Callable[[str], None]) -> Iterator[Interrupts]:
    """Handle SIGINT, SIGTERM and SIGHUP inside; what was there before is restored.

    What is ignored stays so (nohup). Outside the main thread there is only the switch `is_cleaning`.
    """
    handler = Interrupts(note)
    if threading.current_thread() is not threading.main_thread():
        yield handler
        return
    numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield handler
    finally:
        for number, previous in before.items():
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
