"""The only place of the command line that reads a clock or sleeps; tests bring a virtual one."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Time for everything that waits."""

    def unix_s(self) -> float:
        """Seconds since 1970, as other machines count them."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never jump, for durations."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; may be interrupted by a signal's exception."""
        ...


class SystemClock:
    """The real one."""

    def unix_s(self) -> float:
        """See `Clock`."""
        return time.time()

    def monotonic_s(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        time.sleep(seconds)
