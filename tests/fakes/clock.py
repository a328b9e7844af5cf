"""A clock that only moves when a test says so."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """`engine.clock.Clock` under a test's control."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        """Seconds, as set."""
        return self._now_s

    def advance(self, by_s: float) -> None:
        """Let time pass."""
        if by_s < 0:
            raise ValueError("time does not run backwards")
        self._now_s += by_s
