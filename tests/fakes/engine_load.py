"""An engine under load in virtual time: talking streams, the real scheduler, limits and cadence, a model of costs.

Streams talk without a pause in utterances of 4 to 12 s. They ask for a partial whenever the cadence says that
enough is new, one at a time, and for a final at the end of each utterance, as sessions do. What a batch takes
comes from given costs, with noise. Nothing waits: a minute of 64 streams takes a fraction of a second.
"""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from dataclasses import dataclass, field

from engine.batch_limits import BatchLimits
from engine.batching import BatchKey, token_budget
from engine.cadence import Cadence
from engine.cost_model import CostModel
from engine.scheduler import Scheduler, Ticket
from engine.types import FRAMES_PER_SECOND, JobClass

__all__ = ["Costs", "LoadedEngine", "Measured"]

CHUNK_S = 0.1
"""How often a stream looks whether it wants a decode."""
BUCKET_FRAMES = 200
FINAL_LIMIT_S = 0.3
FILE_STEP_S = 0.2


@dataclass(frozen=True)
class Costs:
    """Seconds of a batch of partials; finals take `final_factor` times as long."""

    fixed_s: float
    per_item_s: float
    per_kiloframe_s: float
    final_factor: float = 2.0

    def of(self, key: BatchKey, n_items: int) -> float:
        took_s = self.fixed_s + n_items * (self.per_item_s + self.per_kiloframe_s * key.n_frames / 1_000)
        return took_s if key.job_class is JobClass.PARTIAL else took_s * self.final_factor


@dataclass
class Measured:
    """What was seen while `LoadedEngine.run` measured."""

    busy_s: float = 0.0
    ages_s: defaultdict[JobClass, list[float]] = field(default_factory=lambda: defaultdict(list))
    sizes: defaultdict[JobClass, list[int]] = field(default_factory=lambda: defaultdict(list))
    intervals_s: list[float] = field(default_factory=list)

    def age_p95_s(self, job_class: JobClass) -> float:
        ages_s = sorted(self.ages_s[job_class])
        return ages_s[int(len(ages_s) * 0.95)]

    def mean_size(self, job_class: JobClass) -> float:
        return sum(self.sizes[job_class]) / len(self.sizes[job_class])

    def mean_interval_s(self) -> float:
        return sum(self.intervals_s) / len(self.intervals_s)


@dataclass
class _Stream:
    window_start_s: float
    utterance_s: float
    decoded_to_s: float = 0.0
    partial: int | None = None


class LoadedEngine:
    """One engine and `n_streams` streams."""

    def __init__(self, costs: Costs, n_streams: int, device: str = "cuda", *, has_file: bool = False) -> None:
        self.now_s = 0.0
        self.measured = Measured()
        self._costs = costs
        self._device = device
        self._random = random.Random(n_streams)
        self._learned = CostModel()
        self._limits = BatchLimits(self._learned)
        self.cadence = Cadence(self._learned, self._limit)
        self._scheduler = Scheduler()
        self._number = 0
        self._submitted: dict[int, tuple[str, float]] = {}
        self._running: tuple[list[Ticket], float] | None = None
        self._events: list[tuple[float, int, str]] = []
        self._streams: dict[str, _Stream] = {}
        self.set_streams(n_streams)
        if has_file:
            self._submit_file()

    def _limit(self, key: BatchKey) -> int:
        return self._limits.limit(key, self._device)

    def set_streams(self, count: int) -> None:
        """Let streams come, or the newest fall silent."""
        for name in [name for name in self._streams if int(name) >= count]:
            del self._streams[name]
        for index in range(len(self._streams), count):
            name = str(index)
            self._streams[name] = _Stream(self.now_s - self._random.uniform(0, 4), self._utterance_s(), self.now_s)
            self._push(self.now_s + self._random.uniform(0, CHUNK_S), name)

    def _utterance_s(self) -> float:
        return self._random.uniform(4, 12)

    def _push(self, at_s: float, what: str) -> None:
        self._number += 1
        heapq.heappush(self._events, (at_s, self._number, what))

    def run(self, seconds: float) -> Measured:
        """Let time pass; returns what was seen in it."""
        measured = self.measured = Measured()
        end_s = self.now_s + seconds
        while self._events and self._events[0][0] < end_s:
            self.now_s, _, what = heapq.heappop(self._events)
            if what == "engine":
                self._finish_batch()
            elif what in self._streams:
                self._push(self.now_s + CHUNK_S, what)
                self._look(what, self._streams[what])
            if self._running is None:
                self._start_batch()
        self.now_s = end_s
        return measured

    def _look(self, name: str, stream: _Stream) -> None:
        interval_s = self.cadence.interval_s(self.now_s)
        self.measured.intervals_s.append(interval_s)
        window_s = self.now_s - stream.window_start_s
        if window_s >= stream.utterance_s:
            stream.window_start_s, stream.utterance_s = self.now_s, self._utterance_s()
            stream.decoded_to_s = self.now_s
            self._submit(JobClass.FINAL, name, window_s, FINAL_LIMIT_S)
        elif stream.partial is None and self.now_s - stream.decoded_to_s >= interval_s:
            stream.decoded_to_s = self.now_s
            stream.partial = self._submit(JobClass.PARTIAL, name, window_s, interval_s)

    def _submit(self, job_class: JobClass, name: str, window_s: float, limit_s: float) -> int:
        n_frames = -(-int(window_s * FRAMES_PER_SECOND) // BUCKET_FRAMES) * BUCKET_FRAMES
        key = BatchKey(job_class, n_frames, token_budget(n_frames), 0, "", "")
        self._number += 1
        replaced = self._scheduler.submit(Ticket(self._number, job_class, name, key, self.now_s + limit_s))
        if replaced is not None:
            self._leave(replaced)
        self._submitted[self._number] = (name, self.now_s)
        self.cadence.seen(name, key, self.now_s)
        return self._number

    def _submit_file(self) -> None:
        self._number += 1
        self._scheduler.submit(Ticket(self._number, JobClass.FILE, "file", None, self.now_s))

    def _start_batch(self) -> None:
        batch = self._scheduler.next_batch(self._limit)
        if not batch:
            return
        key, job_class = batch[0].key, batch[0].job_class
        took_s = FILE_STEP_S if key is None else self._costs.of(key, len(batch)) * self._random.uniform(0.9, 1.1)
        self._running = (batch, took_s)
        self._push(self.now_s + took_s, "engine")
        self.measured.busy_s += took_s
        self.measured.sizes[job_class].append(len(batch))
        for ticket in batch:
            if key is not None:
                self.measured.ages_s[job_class].append(self.now_s - self._submitted[ticket.number][1])

    def _finish_batch(self) -> None:
        assert self._running is not None
        (batch, took_s), self._running = self._running, None
        key, job_class = batch[0].key, batch[0].job_class
        self.cadence.ran(job_class, len(batch), took_s, self.now_s)
        if key is None:
            self._submit_file()
            return
        self._learned.observe(job_class, len(batch), key.n_frames, took_s)
        for ticket in batch:
            assert ticket.key is not None
            self.cadence.seen(ticket.stream, ticket.key, self.now_s)
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        name, _ = self._submitted.pop(ticket.number)
        stream = self._streams.get(name)
        if stream is not None and stream.partial == ticket.number:
            stream.partial = None
