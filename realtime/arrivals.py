"""When the samples of a stream arrived, to measure how long text takes. Pure; bounded."""

from __future__ import annotations

from collections import deque

__all__ = ["Arrivals"]

MAX_MARKS = 4_096
"""Messages remembered: 80 s of 20 ms frames, longer than any text takes; older ones are forgotten."""


class Arrivals:
    """Marks of (samples received so far, time)."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque(maxlen=MAX_MARKS)

    def note(self, received_samples: int, now_s: float) -> None:
        """All samples before `received_samples` have arrived by now."""
        if not self._marks or received_samples > self._marks[-1][0]:
            self._marks.append((received_samples, now_s))

    def age_s(self, sample: int, now_s: float) -> float | None:
        """How long ago `sample` arrived; None if that is not known. Earlier samples are forgotten."""
        while self._marks and self._marks[0][0] < sample:
            self._marks.popleft()
        return now_s - self._marks[0][1] if self._marks else None
