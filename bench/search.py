"""The largest number at which something holds: doubling, then halving the gap.

Pure. Takes for granted that what holds at a number holds at smaller ones; with noise the answer is a number at
which it held, such that it did not at some number soon after. Invariant: `best` never is a number that was
not tried.
"""

from __future__ import annotations

__all__ = ["Search"]

RESOLUTION = 0.05
"""The gap that is left alone, as a share of the number: finer than two runs of the same load agree."""


class Search:
    """Ask `next`, try it, tell with `take`; `best` is 0 until something held."""

    def __init__(self, limit: int, start: int) -> None:
        self.best = 0
        self._limit = limit
        self._candidate = min(start, limit)
        self._failed: int | None = None

    def next(self) -> int | None:
        """What to try next; None: nothing."""
        if self._failed is None:
            return None if self.best >= self._limit else self._candidate
        gap = self._failed - self.best
        return None if gap <= max(1, RESOLUTION * self.best) else self.best + gap // 2

    def take(self, number: int, holds: bool) -> None:
        """Say whether it held at `number`."""
        if holds:
            self.best = max(self.best, number)
            self._candidate = min(2 * number, self._limit)
        else:
            self._failed = number if self._failed is None else min(number, self._failed)
