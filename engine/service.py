"""The engine as sessions and file jobs see it: submit a window or a recording, await its words.

One task takes batches from the scheduler and runs them over the backend one after the other, so at
most one call is inside the model and a final waits for no more than that, unless a batch failed: its jobs, or
those whose engine process died, run again before anything else, in smaller batches. Knows no process, no
pipe and no socket.

Invariants: every submitted job ends, by its result, its own error, SupersededError or
DrainingError; one job's failure is nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.batch_limits import BatchLimits
from engine.batch_report import BatchReport
from engine.batch_run import BatchRunner, WatchedBackend, Work, fail
from engine.batching import BatchKey, batch_key
from engine.cadence import Cadence
from engine.clock import Clock
from engine.cost_model import CostModel
from engine.errors import AtCapacityError, BadInputError, DrainingError, EngineKilledError
from engine.file_job import FileJob
from engine.retries import DEADLY
from engine.scheduler import Scheduler, SupersededError, Ticket
from engine.types import (
    SAMPLE_RATE_HZ,
    FileOptions,
    FileSegment,
    FloatArray,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
)
from engine.window_decode import check_job
from engine.window_search import check_search

__all__ = [
    "FINAL_DEADLINE_S",
    "MAX_FILE_S",
    "MAX_OPEN_FILES",
    "BatchReport",
    "ClassStats",
    "EngineService",
    "EngineStats",
    "SupersededError",
    "SupervisedBackend",
]

FINAL_DEADLINE_S = 0.3
"""From submission to result: with the wait for the endpoint before it, text stands about a second after the
last word. A partial has until the stream's next one is due, the present interval; a recording has none."""
MAX_OPEN_FILES = 4
"""Recordings in the pipeline at once: each costs the child up to 50 MB per minute of audio."""
STOP_LIMIT_S = 0.5
"""What the running batch gets to leave the backend when the service stops."""
MAX_FILE_S = 7_200.0
"""Longest recording: the whole-file spectrogram of 2 hours peaks at 6 GB."""


class SupervisedBackend(WatchedBackend, Protocol):
    """A backend together with what its owner knows about it."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        ...

    @property
    def restarts(self) -> int:
        """How often the process has been replaced."""
        ...


@dataclass(frozen=True)
class ClassStats:
    """Counters of one job class; a step of a recording counts as one job of class FILE."""

    waiting: int
    done: int
    failed: int
    superseded: int
    decode_s: float


@dataclass(frozen=True)
class EngineStats:
    """A snapshot for metrics and readiness; `last_success_s` is a time of the injected clock.

    `busy_share` is of the last 10 s; `coalesced` counts partials replaced by a newer one while they waited;
    `max_streams` is None until enough was measured.
    """

    is_ready: bool
    restarts: int
    open_files: int
    last_success_s: float | None
    classes: dict[JobClass, ClassStats]
    busy_share: float
    partial_interval_s: float
    max_streams: int | None
    batches: int
    coalesced: int


class EngineService:
    """`engine.types.Engine` over a supervised backend."""

    def __init__(
        self, backend: SupervisedBackend, clock: Clock, on_batch: Callable[[BatchReport], None] | None = None
    ) -> None:
        """`on_batch` is told about every call of the engine, in the order in which they end."""
        self._backend = backend
        self._clock = clock
        self._scheduler = Scheduler()
        costs = CostModel()
        self._limits = BatchLimits(costs)
        self._cadence = Cadence(costs, self._limit)
        self._batches = BatchRunner(backend, clock, (costs, self._limits, self._cadence), on_batch)
        self._work: dict[int, Work] = {}
        self._last_number = 0
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._open_files = 0
        self._coalesced = 0

    @property
    def info(self) -> ModelInfo:
        """The loaded model; raises ModelUnavailableError before it was ready once."""
        return self._backend.info

    @property
    def partial_interval_s(self) -> float:
        """How much new audio is worth a partial decode now: 0.3 s when idle, up to 3 s under load."""
        return self._cadence.interval_s(self._clock.now_s())

    @property
    def max_streams(self) -> int | None:
        """How many streams may talk at once within the latency goal; None until enough was measured."""
        return self._cadence.max_streams(self._clock.now_s())

    def _limit(self, key: BatchKey) -> int:
        return self._limits.limit(key, self.info.device, is_live=self._cadence.is_live(self._clock.now_s()))

    def stats(self) -> EngineStats:
        """A snapshot of the counters."""
        classes = {
            job_class: ClassStats(
                waiting=self._scheduler.waiting(job_class),
                done=counters.done,
                failed=counters.failed,
                superseded=counters.superseded,
                decode_s=counters.decode_s,
            )
            for job_class, counters in self._batches.counters.items()
        }
        return EngineStats(
            is_ready=self._backend.is_ready,
            restarts=self._backend.restarts,
            open_files=self._open_files,
            last_success_s=self._batches.last_success_s,
            classes=classes,
            busy_share=self._cadence.busy_share(self._clock.now_s()),
            partial_interval_s=self.partial_interval_s,
            max_streams=self.max_streams,
            batches=self._batches.n_batches,
            coalesced=self._coalesced,
        )

    def start(self) -> None:
        """Begin to take jobs from the queue."""
        self._runner = asyncio.get_running_loop().create_task(self._serve(), name="engine-service")

    async def stop(self) -> None:
        """End now: running and waiting jobs get DrainingError; idempotent."""
        self._is_stopped = True
        if self._runner is not None:
            self._runner.cancel()
        self._scheduler.drain()
        for work in self._work.values():
            fail(work.future, DrainingError("the engine is stopping"))
        if self._runner is not None:
            # A child that hangs answers nothing, and whoever owns it kills it after this.
            await asyncio.wait({self._runner}, timeout=STOP_LIMIT_S)

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        """Decode one window; survives restarts of the engine child.

        Windows of one recording come each under a stream name of its own: only then do they share batches, and
        one of which the engine dies is no other's fault.

        Raises SupersededError if a newer job of the stream made this PARTIAL pointless, BadInputError
        for what the model cannot take, EngineFailedError if the window cannot be decoded (EngineKilledError: nor
        anything else of this stream, of which the engine dies),
        AtCapacityError or DrainingError if it is not let in.
        """
        check_job(job, self.info)
        if self._batches.is_deadly(job.stream):
            raise EngineKilledError(DEADLY)
        key, now_s = batch_key(job, self.info), self._clock.now_s()
        if job.job_class is not JobClass.FILE:
            self._cadence.seen(job.stream, key, now_s)
        ticket = Ticket(self._new_number(), job.job_class, job.stream, key, now_s + self._allowed_s(job.job_class))
        result: WindowResult = await self._submit(ticket, job)
        return result

    def _allowed_s(self, job_class: JobClass) -> float:
        if job_class is JobClass.FILE:
            return 0.0  # recordings take turns
        return FINAL_DEADLINE_S if job_class is JobClass.FINAL else self.partial_interval_s

    async def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        """Decode a recording, float32 mono 16 kHz, between the live jobs; close the iterator when done.

        Raises BadInputError, AtCapacityError beyond MAX_OPEN_FILES, EngineFailedError, DrainingError.
        """
        self._check_file(samples, options)
        file_job = FileJob(self._backend, samples, options)
        self._open_files += 1
        stream, continues = f"file {self._last_number + 1}", False
        try:
            while True:
                # Recordings take turns: the deadline of a step is the moment it is asked for.
                now_s = self._clock.now_s()
                ticket = Ticket(self._new_number(), JobClass.FILE, stream, None, now_s, continues)
                segments: list[FileSegment] | None = await self._submit(ticket, file_job)
                if segments is None:
                    return
                for segment in segments:
                    yield segment
                continues = True
        finally:
            self._open_files -= 1
            await file_job.close()

    def _check_file(self, samples: FloatArray, options: FileOptions) -> None:
        if samples.ndim != 1 or len(samples) > MAX_FILE_S * SAMPLE_RATE_HZ:
            raise BadInputError("samples", samples.shape, f"one dimension, up to {MAX_FILE_S:g} s at 16 kHz")
        if options.language is not None and options.language not in self.info.languages:
            raise BadInputError("language", options.language, ", ".join(self.info.languages))
        check_search(options.search)
        if self._open_files >= MAX_OPEN_FILES:
            raise AtCapacityError(f"{MAX_OPEN_FILES} recordings are being decoded; try again later")

    def _new_number(self) -> int:
        self._last_number += 1
        return self._last_number

    async def _submit(self, ticket: Ticket, payload: WindowJob | FileJob) -> Any:
        """Queue a job and await its result."""
        if self._is_stopped:
            raise DrainingError("the engine is stopping")
        superseded = self._scheduler.submit(ticket)
        if superseded is not None:
            self._batches.counters[superseded.job_class].superseded += 1
            self._coalesced += ticket.job_class is JobClass.PARTIAL
            fail(self._work[superseded.number].future, SupersededError("a newer job replaced this one"))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work[ticket.number] = Work(ticket, payload, future, self._clock.now_s())
        self._wake.set()
        try:
            return await future
        finally:
            # Whoever asked may be cancelled; a job that still waits then is nobody's.
            self._scheduler.cancel(ticket)
            del self._work[ticket.number]

    async def _serve(self) -> None:
        while True:
            is_final_waiting = self._scheduler.waiting(JobClass.FINAL) > 0
            batch = self._batches.next_again(is_final_waiting=is_final_waiting) or self._next_batch()
            if batch:
                await self._batches.run(batch)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_batch(self) -> list[Work]:
        batch = []
        for ticket in self._scheduler.next_batch(self._limit):
            work = self._work[ticket.number]
            # A replaced partial's deadline has come over to it.
            work.ticket = ticket
            batch.append(work)
        return batch
