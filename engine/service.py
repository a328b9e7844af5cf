"""The engine as sessions and file jobs see it: submit a window or a recording, await its words.

One task takes jobs from the scheduler and runs them over the backend one after the other, so at
most one call is inside the model and a final waits for no more than that. Jobs whose engine process died
are decoded again by its successor. Knows no process, no pipe and no socket.

Invariants: every submitted job ends, by its result, its own error, SupersededError or
DrainingError; one job's failure is nobody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.clock import Clock
from engine.errors import AtCapacityError, BadInputError, DrainingError, EngineFailedError, EngineRestartError
from engine.file_job import MAX_DEATHS, FileJob
from engine.scheduler import Scheduler, SupersededError, Ticket
from engine.types import (
    SAMPLE_RATE_HZ,
    Backend,
    FileOptions,
    FileSegment,
    FloatArray,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
)
from engine.window_decode import check_job, decode_window

__all__ = [
    "MAX_FILE_S",
    "MAX_OPEN_FILES",
    "ClassStats",
    "EngineService",
    "EngineStats",
    "SupersededError",
    "SupervisedBackend",
]

MAX_OPEN_FILES = 4
"""Recordings in the pipeline at once: each costs the child up to 50 MB per minute of audio."""
STOP_LIMIT_S = 0.5
"""What the running job gets to leave the backend when the service stops."""
MAX_FILE_S = 7_200.0
"""Longest recording: the whole-file spectrogram of 2 hours peaks at 6 GB."""

_log = logging.getLogger(__name__)


class SupervisedBackend(Backend, Protocol):
    """A backend together with what its owner knows about it."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        ...

    @property
    def is_ready(self) -> bool:
        """True if the current process has loaded the model and decoded with it."""
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
    """A snapshot for metrics and readiness; `last_success_s` is a time of the injected clock."""

    is_ready: bool
    restarts: int
    open_files: int
    last_success_s: float | None
    classes: dict[JobClass, ClassStats]


@dataclass
class _Counters:
    done: int = 0
    failed: int = 0
    superseded: int = 0
    decode_s: float = 0.0


@dataclass(frozen=True)
class _Work:
    ticket: Ticket
    run: Callable[[Callable[[], bool]], Awaitable[Any]]
    future: asyncio.Future[Any]


class EngineService:
    """`engine.types.Engine` over a supervised backend."""

    def __init__(self, backend: SupervisedBackend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self._scheduler = Scheduler()
        self._work: dict[int, _Work] = {}
        self._last_number = 0
        self._wake = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._open_files = 0
        self._last_success_s: float | None = None
        self._counters = {job_class: _Counters() for job_class in JobClass}

    @property
    def info(self) -> ModelInfo:
        """The loaded model; raises ModelUnavailableError before it was ready once."""
        return self._backend.info

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
            for job_class, counters in self._counters.items()
        }
        return EngineStats(
            is_ready=self._backend.is_ready,
            restarts=self._backend.restarts,
            open_files=self._open_files,
            last_success_s=self._last_success_s,
            classes=classes,
        )

    def start(self) -> None:
        """Begin to take jobs from the queue."""
        self._runner = asyncio.get_running_loop().create_task(self._serve(), name="engine-service")

    async def stop(self) -> None:
        """End now: running and waiting jobs get DrainingError; idempotent."""
        self._is_stopped = True
        if self._runner is not None:
            self._runner.cancel()
            # On its way out it tells the child to forget encoder outputs; a child that hangs answers
            # nothing, and whoever owns it kills it after this.
            await asyncio.wait({self._runner}, timeout=STOP_LIMIT_S)
        for ticket in self._scheduler.drain():
            _fail(self._work.pop(ticket.number).future, DrainingError("the engine is stopping"))

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        """Decode one window; survives restarts of the engine child.

        Raises SupersededError if a newer job of the stream made this PARTIAL pointless, BadInputError
        for what the model cannot take, EngineFailedError if the window cannot be decoded,
        AtCapacityError or DrainingError if it is not let in.
        """
        check_job(job, self.info)
        result: WindowResult = await self._submit(
            job.job_class, job.stream, lambda is_wanted: self._decode(job, is_wanted)
        )
        return result

    async def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        """Decode a recording, float32 mono 16 kHz, between the live jobs; close the iterator when done.

        Raises BadInputError, AtCapacityError beyond MAX_OPEN_FILES, EngineFailedError, DrainingError.
        """
        self._check_file(samples, options)
        file_job = FileJob(self._backend, samples, options)
        self._open_files += 1
        stream = f"file {self._last_number + 1}"
        try:
            segments: list[FileSegment] | None = await self._submit(JobClass.FILE, stream, lambda _: file_job.step())
            while segments is not None:
                for segment in segments:
                    yield segment
                segments = await self._submit(JobClass.FILE, stream, lambda _: file_job.step(), continues=True)
        finally:
            self._open_files -= 1
            await file_job.close()

    def _check_file(self, samples: FloatArray, options: FileOptions) -> None:
        if samples.ndim != 1 or len(samples) > MAX_FILE_S * SAMPLE_RATE_HZ:
            raise BadInputError("samples", samples.shape, f"one dimension, up to {MAX_FILE_S:g} s at 16 kHz")
        if options.language is not None and options.language not in self.info.languages:
            raise BadInputError("language", options.language, ", ".join(self.info.languages))
        if self._open_files >= MAX_OPEN_FILES:
            raise AtCapacityError(f"{MAX_OPEN_FILES} recordings are being decoded; try again later")

    async def _decode(self, job: WindowJob, is_wanted: Callable[[], bool]) -> WindowResult:
        for _ in range(MAX_DEATHS):
            try:
                return await decode_window(self._backend, self.info, job, is_wanted)
            except EngineRestartError as error:
                _log.warning("a window is decoded again: %s", error)
        raise EngineFailedError(f"the engine died {MAX_DEATHS} times over this window")

    async def _submit(
        self,
        job_class: JobClass,
        stream: str,
        run: Callable[[Callable[[], bool]], Awaitable[Any]],
        *,
        continues: bool = False,
    ) -> Any:
        """Queue and await `run`, which is told by a call whether its result is still wanted."""
        if self._is_stopped:
            raise DrainingError("the engine is stopping")
        self._last_number += 1
        ticket = Ticket(self._last_number, job_class, stream, continues)
        superseded = self._scheduler.submit(ticket)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._work[ticket.number] = _Work(ticket, run, future)
        if superseded is not None:
            self._counters[superseded.job_class].superseded += 1
            _fail(self._work.pop(superseded.number).future, SupersededError("a newer job replaced this one"))
        self._wake.set()
        try:
            return await future
        finally:
            # Whoever asked may be cancelled; a job that still waits then is nobody's.
            if self._scheduler.cancel(ticket):
                del self._work[ticket.number]

    async def _serve(self) -> None:
        while True:
            ticket = self._scheduler.next()
            if ticket is None:
                self._wake.clear()
                await self._wake.wait()
            else:
                await self._run(self._work.pop(ticket.number))

    async def _run(self, work: _Work) -> None:
        counters = self._counters[work.ticket.job_class]
        began_s = self._clock.now_s()
        try:
            result = await work.run(lambda: not work.future.done())
        except asyncio.CancelledError:
            _fail(work.future, DrainingError("the engine is stopping"))
            raise
        except SupersededError:
            counters.superseded += 1  # and its submitter has gone
        except Exception as error:
            # An edge: it goes to whoever submitted the job, and the next job is not concerned.
            counters.failed += 1
            _fail(work.future, error)
        else:
            counters.done += 1
            if result:  # a step of a recording that brought nothing proves nothing
                self._last_success_s = self._clock.now_s()
            if not work.future.done():
                work.future.set_result(result)
        finally:
            counters.decode_s += self._clock.now_s() - began_s


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
