"""How often a stream is worth a partial decode now, and how many streams the engine could serve.

The interval is the shortest at which a round of partials, every talking stream once and each key in its
best batches, keeps the engine TARGET_BUSY at most, beside what finals take. It follows from the
costs of batches and never from waiting or from how busy the engine looks: a loop over those settles
where batches are small because intervals are long, and intervals are long because small batches are dear. As
nothing waits for company, batches are smaller than the best while the engine keeps up: it may look busy all
the time with a quarter of its capacity to spare.

Pure: the caller says what time it is. Invariants: the interval stays within its bounds; streams that
do not talk are forgotten, so memory is bounded by those that do.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from engine.batching import BatchKey
from engine.cost_model import CostModel
from engine.types import JobClass

__all__ = [
    "ACTIVE_S",
    "CAPACITY_BUSY",
    "CAPACITY_INTERVAL_S",
    "FILE_SHARE",
    "LIVE_S",
    "MAX_INTERVAL_S",
    "MAX_TRACKED",
    "MIN_BATCHES",
    "MIN_FINALS",
    "MIN_INTERVAL_S",
    "MIN_PARTIAL_SHARE",
    "REFRESH_S",
    "SHARE_S",
    "TARGET_BUSY",
    "Cadence",
]

MIN_INTERVAL_S = 0.3
"""About one syllable or two: more often brings no new word."""
MAX_INTERVAL_S = 3.0
"""Text that is later than this is no live text; an engine that needs longer has too many streams."""
TARGET_BUSY = 0.75
"""Load to aim at: the rest is for bursts, for recordings and for what the model of costs does not know."""
MIN_PARTIAL_SHARE = 0.15
"""What partials get in any case, or finals that come in a bunch would stop all live text."""
FILE_SHARE = 0.1
"""What recordings may cost the partials. They take whatever gap they find, so counting all of it would slow
partials down for the sake of work that can wait."""
ACTIVE_S = 1.0
ACTIVE_INTERVALS = 1.5
"""A stream talks if it had a live job within ACTIVE_S or within so many intervals, whichever is longer. Whoever
has just stopped must not count, or conversations slow each other down: with 2 s and 2 intervals, 58 of 96
simulated streams talking got partials every 1.5 s where 1.25 s was possible."""
LIVE_S = 10.0
"""For so long after the last live job recordings keep their batches short: whoever spoke is likely to go on."""
MAX_TRACKED = 4_096
"""Talking streams that are kept track of; more than any server admits."""
REFRESH_S = 0.25
"""How long an answer stands: every stream asks with every message."""
SMOOTH_S = 1.0
"""Time constant of the interval: within a second or two of a change, without following every batch."""
SHARE_S = 10.0
"""Time constant of the engine's shares: several utterances of every stream."""
CAPACITY_INTERVAL_S = 1.5
"""A stream counts as served while its partials come this often."""
CAPACITY_BUSY = 0.85
"""Load up to which streams are promised service, where finals take more than is aimed at."""
CAPACITY_SMOOTH_S = 10.0
"""Time constant of the number of streams: who is let in must not depend on the last batch."""
CAPACITY_STEP = 0.1
"""How exactly the number of streams is searched for."""
TALK_S = 60.0
"""Time constant of what a stream's finals cost, of the time in which somebody talks."""
MIN_BATCHES = 20
"""Batches of live windows before a number of streams is told."""
MIN_FINALS = 3
"""And finals among them: what a stream costs is not known without."""


class _Group(NamedTuple):
    """Streams whose partials share a key, and how many of them share a batch."""

    key: BatchKey
    n_streams: int
    limit: int


class Cadence:
    """Talking streams, shares of the engine, and what follows from them."""

    def __init__(self, costs: CostModel, limit: Callable[[BatchKey], int]) -> None:
        """`limit` tells how many windows of a key may share a batch."""
        self._costs = costs
        self._limit = limit
        self._streams: OrderedDict[str, tuple[float, BatchKey]] = OrderedDict()
        self._seen_s = -math.inf
        self._mix: list[_Group] = []
        self._shares = dict.fromkeys(JobClass, 0.0)
        self._shares_at_s: float | None = None
        self._refreshed_s = -math.inf
        self._interval_s = MIN_INTERVAL_S
        self._capacity_at_s = -math.inf
        self._capacity: float | None = None
        self._talked_s = 0.0
        self._finals_s = 0.0
        self._n_finals = 0

    def seen(self, stream: str, key: BatchKey, now_s: float) -> None:
        """A live job of a stream has come or gone."""
        self._seen_s = max(self._seen_s, now_s)
        self._streams[stream] = (now_s, key._replace(job_class=JobClass.PARTIAL))
        self._streams.move_to_end(stream)
        if len(self._streams) > MAX_TRACKED:
            self._streams.popitem(last=False)

    def ran(self, job_class: JobClass, n_items: int, took_s: float, now_s: float) -> None:
        """The engine was busy with a batch for `took_s` until now."""
        self._decay_shares(now_s)
        self._shares[job_class] += 1 - math.exp(-took_s / SHARE_S)
        if job_class is JobClass.FINAL:
            self._finals_s += took_s
            self._n_finals += n_items

    def _decay_shares(self, now_s: float) -> None:
        if self._shares_at_s is not None:
            factor = math.exp(-max(0.0, now_s - self._shares_at_s) / SHARE_S)
            self._shares = {job_class: share * factor for job_class, share in self._shares.items()}
        self._shares_at_s = now_s

    def is_live(self, now_s: float) -> bool:
        """True if a stream had a live job within the last LIVE_S: the next one may come at any moment."""
        return now_s - self._seen_s <= LIVE_S

    def busy_share(self, now_s: float) -> float:
        """The share of the last seconds in which the engine was busy, 0 to 1."""
        self._decay_shares(now_s)
        return min(1.0, sum(self._shares.values()))

    def interval_s(self, now_s: float) -> float:
        """How much new audio is worth a partial decode."""
        self._refresh(now_s)
        return self._interval_s

    def max_streams(self, now_s: float) -> int | None:
        """How many streams could talk at once, each as those of now; None until enough was observed."""
        self._refresh(now_s)
        passed_s = now_s - self._capacity_at_s
        if passed_s >= REFRESH_S:
            self._capacity_at_s = now_s
            found = self._find_capacity()
            if self._capacity is None or found is None:
                self._capacity = found
            else:
                self._capacity += (found - self._capacity) * _progress(passed_s, CAPACITY_SMOOTH_S)
        return None if self._capacity is None else int(self._capacity)

    def _refresh(self, now_s: float) -> None:
        passed_s = now_s - self._refreshed_s
        if passed_s < REFRESH_S:
            return
        self._refreshed_s = now_s
        self._decay_shares(now_s)
        self._forget(now_s - max(ACTIVE_S, ACTIVE_INTERVALS * self._interval_s))
        if self._streams:
            keys = Counter(key for _, key in self._streams.values())
            self._mix = [_Group(key, count, self._limit(key)) for key, count in keys.items()]
            self._note_talk(len(self._streams), min(passed_s, ACTIVE_S))
        self._interval_s += (self._wanted_interval_s() - self._interval_s) * _progress(passed_s, SMOOTH_S)

    def _forget(self, before_s: float) -> None:
        while self._streams:
            stream, (seen_s, _) = next(iter(self._streams.items()))
            if seen_s >= before_s:
                return
            del self._streams[stream]

    def _note_talk(self, n_streams: int, passed_s: float) -> None:
        # Time in which nobody talks tells nothing about what a stream costs.
        factor = math.exp(-passed_s / TALK_S)
        self._finals_s *= factor
        self._talked_s = self._talked_s * factor + n_streams * passed_s

    def _wanted_interval_s(self) -> float:
        if not self._streams:
            return MIN_INTERVAL_S
        round_s = self._round_s(1.0)
        if round_s is None:
            return MIN_INTERVAL_S
        others = self._shares[JobClass.FINAL] + min(FILE_SHARE, self._shares[JobClass.FILE])
        interval_s = round_s / _partial_share(others)
        return min(MAX_INTERVAL_S, max(MIN_INTERVAL_S, interval_s))

    def _round_s(self, scale: float) -> float | None:
        """Seconds of engine for one partial of every stream, `scale` times as many streams as now."""
        total_s = 0.0
        for group in self._mix:
            n_streams = group.n_streams * scale
            n_items = max(1.0, min(n_streams, group.limit))
            batch_s = self._partial_batch_s(n_items, group.key.n_frames)
            if batch_s is None:
                return None
            total_s += batch_s * n_streams / n_items
        return total_s

    def _partial_batch_s(self, n_items: float, n_frames: int) -> float | None:
        # An engine that finals alone keep busy never ran a partial; a final costs more, which is the safe side.
        batch_s = self._costs.predict_s(JobClass.PARTIAL, n_items, n_frames)
        return self._costs.predict_s(JobClass.FINAL, n_items, n_frames) if batch_s is None else batch_s

    def _find_capacity(self) -> float | None:
        """The largest number of streams that are served."""
        n_batches = self._costs.n_observed(JobClass.PARTIAL) + self._costs.n_observed(JobClass.FINAL)
        if n_batches < MIN_BATCHES or self._n_finals < MIN_FINALS or not self._mix or not self._talked_s:
            return None
        finals_share = self._finals_s / self._talked_s
        n_now = sum(group.n_streams for group in self._mix)
        low, high = 0.0, float(MAX_TRACKED)
        while high - low > CAPACITY_STEP:
            middle = (low + high) / 2
            if self._is_served(middle * finals_share, self._round_s(middle / n_now) or 0.0):
                low = middle
            else:
                high = middle
        return low

    def _is_served(self, finals_share: float, round_s: float) -> bool:
        interval_s = round_s / _partial_share(finals_share)
        return interval_s <= CAPACITY_INTERVAL_S and finals_share + round_s / CAPACITY_INTERVAL_S <= CAPACITY_BUSY


def _partial_share(others: float) -> float:
    """What is left of the engine for partials beside a share of others."""
    return max(MIN_PARTIAL_SHARE, TARGET_BUSY - others)


def _progress(passed_s: float, constant_s: float) -> float:
    """How far a first-order filter gets in a time."""
    return 1 - math.exp(-passed_s / constant_s)
