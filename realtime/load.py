"""How busy the serving process is, and how many streams it would carry. Pure: time is an argument.

Several parts can be the narrow one (the serving loop, the feature threads); each is a counter of seconds in
which it was busy. Shares and the number of streams are averaged with the same weights, so that their
ratio, the share that one stream costs, holds while streams come and go.

A process that gets less of the machine than it wants (a quota, other processes) is never busy for long, but
its timers are late: then there is no more room, whatever the shares say.

Knows no thread and no stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

__all__ = ["AVERAGE_S", "MAX_LATE_S", "MAX_SHARE", "MIN_STREAMS", "Load"]

AVERAGE_S = 10.0
"""Over this long: a garbage collection is no load, a minute of stutter is."""
MAX_SHARE = 0.85
"""Beyond it queues build up: at 85 % of what can be served, six wait on average where one is served."""
MAX_LATE_S = 0.1
"""Timers later than this on average: text is as late, and audio waits in sockets."""
MAX_COUNTED_S = 0.3
"""What a single timer counts at most: the process stood still, for whatever reason, and goes on."""
MIN_STREAMS = 4
"""Fewer are never refused for what was measured: the first streams pay for caches and one bad second."""


class Load:
    """Shares of time in which the parts of the serving process were busy."""

    def __init__(self, parts: Mapping[str, Callable[[], float]], now_s: float) -> None:
        """`parts`: name -> seconds busy so far, which are counted from now on."""
        self._parts = dict(parts)
        self._last_s = now_s
        self._busy_s = {name: busy_s() for name, busy_s in self._parts.items()}
        self._shares = dict.fromkeys(self._parts, 0.0)
        self._n_streams = 0.0
        self._late_s = 0.0
        self._late_at_s = now_s

    def sample(self, now_s: float, n_streams: int) -> None:
        """Take in the time since the last sample, in which there were `n_streams`."""
        elapsed_s = now_s - self._last_s
        if elapsed_s <= 0:
            return
        self._last_s = now_s
        weight = 1.0 - math.exp(-elapsed_s / AVERAGE_S)
        self._n_streams += weight * (n_streams - self._n_streams)
        for name, counter in self._parts.items():
            busy_s = counter()
            share = (busy_s - self._busy_s[name]) / elapsed_s
            self._busy_s[name] = busy_s
            self._shares[name] += weight * (share - self._shares[name])

    def timer_fired(self, now_s: float, late_s: float) -> None:
        """A timer of the serving loop was late by so much; call about once a second."""
        weight = 1.0 - math.exp(-max(0.0, now_s - self._late_at_s) / AVERAGE_S)
        self._late_at_s = now_s
        # One long stop is a hiccup; it is timers that are late again and again that count.
        self._late_s += weight * (min(late_s, MAX_COUNTED_S) - self._late_s)

    @property
    def late_s(self) -> float:
        """How late timers were in the last seconds."""
        return self._late_s

    @property
    def shares(self) -> dict[str, float]:
        """Part -> share of the last seconds in which it was busy, from 0 to about 1."""
        return dict(self._shares)

    @property
    def max_streams(self) -> int | None:
        """How many streams keep every part below MAX_SHARE and timers in time; None if nothing costs anything."""
        found = []
        share = max(self._shares.values(), default=0.0)
        if share > 0:
            # What a server costs without streams must not be taken for what the first one costs.
            found.append(int(MAX_SHARE * max(self._n_streams, MIN_STREAMS) / share))
        if self._late_s > MAX_LATE_S:
            found.append(int(self._n_streams))
        return min(found, default=None)
