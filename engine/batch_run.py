"""Runs one batch over the backend and gives every job of it its end, or another try.

Knows the backend's calls, the jobs' futures and what is learned from a batch; nothing of queues. Invariants:
a job leaves with its result or its own error, never with a neighbour's; nobody's result is
given to another; what nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from engine.batch_limits import BatchLimits
from engine.batch_report import BatchReport
from engine.cadence import Cadence
from engine.clock import Clock
from engine.cost_model import CostModel
from engine.errors import EngineFailedError, EngineKilledError, EngineMemoryError, EngineRestartError, ServerError
from engine.file_job import FileJob
from engine.retries import DEADLY, Trials, judge
from engine.scheduler import Ticket
from engine.types import Backend, BatchResult, JobClass, WindowJob

__all__ = ["BatchRunner", "Counters", "WatchedBackend", "Work", "fail"]

MAX_REMEMBERED = 1_024
"""Streams whose windows met a dying engine and none that went well since; a death concerns one batch of them."""

_log = logging.getLogger(__name__)


class WatchedBackend(Backend, Protocol):
    """A backend that tells whether a process with a model is behind it at this moment."""

    @property
    def is_ready(self) -> bool:
        """True if the current process has loaded the model and decoded with it."""
        ...


@dataclass
class Work:
    """One submitted job, a live window or a step of a recording, and whoever awaits it."""

    ticket: Ticket
    payload: WindowJob | FileJob
    future: asyncio.Future[Any]
    submitted_s: float
    trials: Trials = field(default_factory=Trials)
    has_run: bool = False


@dataclass
class Counters:
    """What became of the jobs of a class."""

    done: int = 0
    failed: int = 0
    superseded: int = 0
    decode_s: float = 0.0


class BatchRunner:
    """One batch at a time, failed ones again."""

    def __init__(
        self,
        backend: WatchedBackend,
        clock: Clock,
        learners: tuple[CostModel, BatchLimits, Cadence],
        on_batch: Callable[[BatchReport], None] | None,
    ) -> None:
        """`learners` are told what batches cost; `on_batch` gets every report, in order."""
        self._backend = backend
        self._clock = clock
        self._costs, self._limits, self._cadence = learners
        self._on_batch = on_batch
        self._again: deque[list[Work]] = deque()
        self._trials: OrderedDict[str, Trials] = OrderedDict()
        self.counters = {job_class: Counters() for job_class in JobClass}
        self.n_batches = 0
        self.last_success_s: float | None = None

    def next_again(self, *, is_final_waiting: bool) -> list[Work]:
        """The next batch that has to run again; empty if there is none, or if a recording's has to let finals go."""
        if not self._again or (is_final_waiting and self._again[0][0].ticket.job_class is JobClass.FILE):
            return []
        return self._again.popleft()

    def is_deadly(self, stream: str) -> bool:
        """True if the engine died of this stream's windows and would again."""
        return stream in self._trials and self._trials[stream].is_deadly

    async def run(self, batch: list[Work]) -> None:
        """Run a batch: windows of one key, or one step of a recording. Raises nothing but cancellation."""
        wanted = [work for work in batch if not work.future.done()]
        job_class = batch[0].ticket.job_class
        self.counters[job_class].superseded += len(batch) - len(wanted)
        wanted = self._without_deadly(wanted)
        if not wanted:
            return
        began_s = self._clock.now_s()
        # A call that waits for a new process to load tells nothing about the cost of a batch.
        is_measured = self._backend.is_ready
        ages_s = tuple(began_s - work.submitted_s for work in wanted if not work.has_run)
        report = BatchReport(job_class, len(wanted), ages_s, took_s=0.0)
        try:
            report = await self._call(wanted, report)
        except Exception as error:
            # An edge: it goes to whoever submitted the jobs, and other jobs are not concerned.
            self._settle(wanted, error)
            is_measured = is_measured and not isinstance(error, EngineRestartError)
        self._account(replace(report, took_s=self._clock.now_s() - began_s), wanted, is_measured)

    def _without_deadly(self, batch: Sequence[Work]) -> list[Work]:
        """Refuse jobs that were submitted before the engine died of their stream."""
        for work in batch:
            work.trials = self._trials.get(work.ticket.stream, work.trials)
            if work.trials.is_deadly:
                self.counters[work.ticket.job_class].failed += 1
                fail(work.future, EngineKilledError(DEADLY))
        return [work for work in batch if not work.trials.is_deadly]

    async def _call(self, batch: Sequence[Work], report: BatchReport) -> BatchReport:
        for work in batch:
            work.has_run = True
        payload = batch[0].payload
        if isinstance(payload, FileJob):
            segments = await payload.step()
            # A step of a recording that brought nothing proves nothing.
            self._deliver(batch, [segments], is_success=bool(segments))
            return report
        result = await self._backend.transcribe([work.payload for work in batch if isinstance(work.payload, WindowJob)])
        if len(result.results) != len(batch):
            raise EngineFailedError(f"the engine gave {len(result.results)} results for {len(batch)} windows")
        n_missed = self._deliver(batch, result.results, is_success=True)
        return _with_result(report, result, n_missed)

    def _deliver(self, batch: Sequence[Work], results: Sequence[object], *, is_success: bool) -> int:
        """Returns how many results came after their deadline."""
        now_s, n_missed = self._clock.now_s(), 0
        if is_success:
            self.last_success_s = now_s
        for work, result in zip(batch, results, strict=True):
            self._trials.pop(work.ticket.stream, None)
            counters = self.counters[work.ticket.job_class]
            if work.future.done():
                counters.superseded += 1
                continue
            counters.done += 1
            work.future.set_result(result)
            n_missed += work.ticket.job_class is not JobClass.FILE and now_s > work.ticket.deadline_s
        return n_missed

    def _settle(self, batch: Sequence[Work], error: Exception) -> None:
        key = batch[0].ticket.key
        # A live batch dies of what is in it; one of recordings may have overstayed for its size, unless it was alone.
        is_of_files = batch[0].ticket.job_class is JobClass.FILE and len(batch) > 1
        is_too_much = isinstance(error, EngineMemoryError) or (isinstance(error, EngineRestartError) and is_of_files)
        if is_too_much and key is not None:
            self._limits.was_too_much(key, len(batch))
        if isinstance(batch[0].payload, FileJob):
            given_up: list[tuple[Work, Exception]] = [(batch[0], error)]
        else:
            verdict = judge(batch, error)
            given_up = verdict.given_up
            if isinstance(error, EngineRestartError):
                self._remember(batch)
            self._again.extendleft(reversed(verdict.again))
        level = logging.WARNING if isinstance(error, ServerError) else logging.ERROR
        _log.log(
            level,
            "a batch of %d (%s) failed, %d of it for good: %s",
            len(batch),
            batch[0].ticket.job_class.name.lower(),
            len(given_up),
            error,
            exc_info=None if isinstance(error, ServerError) else error,
        )
        for work, its_error in given_up:
            counters = self.counters[work.ticket.job_class]
            if work.future.done():
                counters.superseded += 1
            else:
                counters.failed += 1
                fail(work.future, its_error)

    def _remember(self, batch: Sequence[Work]) -> None:
        for work in batch:
            self._trials[work.ticket.stream] = work.trials
            self._trials.move_to_end(work.ticket.stream)
        while len(self._trials) > MAX_REMEMBERED:
            self._trials.popitem(last=False)

    def _account(self, report: BatchReport, batch: Sequence[Work], is_measured: bool) -> None:
        self.n_batches += 1
        self.counters[report.job_class].decode_s += report.took_s
        try:
            self._learn(report, batch, is_measured)
            if self._on_batch is not None:
                self._on_batch(report)
        except Exception:
            # An edge: what counts and estimates must not stop the engine.
            _log.exception("a batch could not be counted")

    def _learn(self, report: BatchReport, batch: Sequence[Work], is_measured: bool) -> None:
        now_s, key = self._clock.now_s(), batch[0].ticket.key
        if is_measured:
            self._cadence.ran(report.job_class, report.n_items, report.took_s, now_s)
            # To detect a language alone is not what a window of its class costs.
            if key is not None and key.wants_words and report.is_success:
                self._costs.observe(report.job_class, report.n_items, key.n_frames, report.took_s)
                self._limits.went_well(key, report.n_items)
        if key is not None and report.job_class is not JobClass.FILE:
            for work in batch:
                self._cadence.seen(work.ticket.stream, key, now_s)


def _with_result(report: BatchReport, result: BatchResult, n_missed: int) -> BatchReport:
    return replace(
        report,
        is_success=True,
        missed_deadlines=n_missed,
        frames=result.frames,
        padding_frames=result.padding_frames,
        tokens=result.tokens,
        encode_s=result.encode_s,
        decode_s=result.decode_s,
        align_s=result.align_s,
    )


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Give a job its error, unless it has ended."""
    if not future.done():
        future.set_exception(error)
