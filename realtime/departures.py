"""How often places become free, from what was seen in the last half hour. Pure: time is an argument.

Streams are treated as if they had no memory: each of those running ends with the same chance in the next
minute, which is the number of departures per second of place taken. That is exact for exponential lengths;
if all streams are equally long, the wait is overestimated by 1/n for n places taken.

One more departure is assumed than was seen. Before the first this gives an answer; later it makes the mean
of what is told right: with few departures d, 1/d is too large on average, and 1/(d + 1) is not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["WINDOW_S", "Departures"]

BUCKET_S = 60.0
N_BUCKETS = 30
WINDOW_S = N_BUCKETS * BUCKET_S
"""Long enough for a few departures of hour-long streams, short enough to follow a day's course."""


@dataclass
class _Bucket:
    """One minute: seconds in which places were taken, summed over the places, and how many became free."""

    index: int
    taken_s: float = 0.0
    departures: int = 0


class Departures:
    """Sums over the last WINDOW_S, in buckets of a minute; at most N_BUCKETS + 1 of them."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._until_s: float | None = None

    def advance(self, now_s: float, n_taken: int) -> None:
        """Since the last call, `n_taken` places have been taken; call before every change."""
        begin_s = now_s if self._until_s is None else max(self._until_s, now_s - WINDOW_S)
        while begin_s < now_s:
            bucket = self._bucket(begin_s)
            end_s = min(now_s, (bucket.index + 1) * BUCKET_S)
            bucket.taken_s += n_taken * (end_s - begin_s)
            begin_s = end_s
        self._until_s = now_s
        oldest = int(now_s // BUCKET_S) - N_BUCKETS
        while self._buckets and self._buckets[0].index < oldest:
            self._buckets.popleft()

    def note(self, now_s: float) -> None:
        """A place has become free."""
        self._bucket(now_s).departures += 1

    def wait_s(self, n_taken: int, n_wanted: int = 1) -> float:
        """How long until `n_wanted` of `n_taken` places have become free."""
        taken_s = sum(bucket.taken_s for bucket in self._buckets)
        departures = sum(bucket.departures for bucket in self._buckets)
        return taken_s / (departures + 1) / max(1, n_taken) * n_wanted

    def _bucket(self, at_s: float) -> _Bucket:
        index = int(at_s // BUCKET_S)
        if not self._buckets or self._buckets[-1].index < index:
            self._buckets.append(_Bucket(index))
        return self._buckets[-1]
