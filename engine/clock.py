"""Time as an argument: the only module that reads the monotonic clock."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Something that tells seconds which never run backwards."""

    def now_s(self) -> float:
        """Seconds since an arbitrary origin."""
        ...


class MonotonicClock:
    """The operating system's monotonic clock: unmoved by wall clock changes."""

    def now_s(self) -> float:
        """Seconds since an arbitrary origin."""
        return time.monotonic()
