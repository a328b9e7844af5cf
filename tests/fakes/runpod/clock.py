"""Clocks of the fake control plane: a virtual one that moves when somebody sleeps, and the real one.

Both fit `builder.clock.Clock` without importing it.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

__all__ = ["PlaneClock", "RealPlaneClock", "iso_time", "parse_time"]

START_UNIX_S = 1_767_225_600.0
"""2026-01-01T00:00:00Z: a boundary of every billing bucket."""


class PlaneClock:
    """Virtual time, the same for server and client; any thread may move it, forwards only."""

    def __init__(self, start: float = START_UNIX_S) -> None:
        self._start_s = start
        self._now_s = start
        self._lock = threading.Lock()

    def unix_s(self) -> float:
        """Seconds since 1970."""
        with self._lock:
            return self._now_s

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        with self._lock:
            return self._now_s - self._start_s

    def sleep(self, seconds: float) -> None:
        """Returns at once: time has passed."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        with self._lock:
            self._now_s += seconds

    def restart(self) -> None:
        """Back to the start, for a fresh plane."""
        with self._lock:
            self._now_s = self._start_s


class RealPlaneClock(PlaneClock):
    """The machine's time, for pods that are real processes; `advance` adds to it."""

    def __init__(self) -> None:
        super().__init__(0.0)

    def unix_s(self) -> float:
        return time.time() + super().unix_s()

    def monotonic_s(self) -> float:
        return time.monotonic() + super().unix_s()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


def iso_time(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(unix_s, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time. Raises ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        raise ValueError(f"no time zone: {text}")
    return moment.timestamp()
