"""What becomes of the jobs of a batch that failed: which run again together, and which are given up.

Pure: no clock, no event loop. Invariant: a job is given up only for an error that it met alone, so
no job ever fails for its neighbour in a batch.

- The call failed: its halves run again, down to the one job that alone has the error. One bad job of 32
  costs ten more calls, all but the last of them smaller.
- Out of memory: the same, and a job that does not fit alone gets a second chance, since memory may have
  been short for a moment.
- The engine process died: each job runs again alone. One that sees a second death, alone, is its cause; the
  neighbours have lost time only. What a job has been through goes over to the next job of its stream, which has
  the same audio in it: otherwise a partial and the final behind it would cost MAX_DEATHS processes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from engine.errors import EngineFailedError, EngineKilledError, EngineMemoryError, EngineRestartError
from engine.file_job import MAX_DEATHS

__all__ = ["DEADLY", "MAX_MEMORY_ERRORS", "Trials", "Verdict", "judge"]

DEADLY = f"the engine died {MAX_DEATHS} times over this stream"
MAX_MEMORY_ERRORS = 2
"""A job that ran out of memory this often, alone, does not fit."""


@dataclass
class Trials:
    """What a job has been through, and the jobs of its stream before it since the last that went well."""

    deaths: int = 0
    is_deadly: bool = False
    """Given up because the engine died of it."""
    memory_errors: int = 0
    """Counted when it was alone."""


class _Tried(Protocol):
    @property
    def trials(self) -> Trials: ...


_Job = TypeVar("_Job", bound=_Tried)


@dataclass
class Verdict(Generic[_Job]):
    """Batches to run again, in this order, and jobs that have their error."""

    again: list[list[_Job]] = field(default_factory=list)
    given_up: list[tuple[_Job, Exception]] = field(default_factory=list)


def judge(batch: Sequence[_Job], error: Exception) -> Verdict[_Job]:
    """Decide over a batch whose call raised `error`; counts the error in the jobs' trials.

    Errors that are not about decoding (the engine has ended, a defect) go to all jobs at once.
    """
    if isinstance(error, EngineRestartError):
        return _after_death(batch)
    if not isinstance(error, EngineFailedError):
        return Verdict(given_up=[(job, error) for job in batch])
    if len(batch) > 1:
        half = len(batch) // 2
        return Verdict(again=[list(batch[:half]), list(batch[half:])])
    [job] = batch
    if isinstance(error, EngineMemoryError):
        job.trials.memory_errors += 1
        if job.trials.memory_errors < MAX_MEMORY_ERRORS:
            return Verdict(again=[[job]])
    return Verdict(given_up=[(job, error)])


def _after_death(batch: Sequence[_Job]) -> Verdict[_Job]:
    verdict: Verdict[_Job] = Verdict()
    for job in batch:
        job.trials.deaths += 1
        if len(batch) > 1 or job.trials.deaths < MAX_DEATHS:
            verdict.again.append([job])
        else:
            job.trials.is_deadly = True
            verdict.given_up.append((job, EngineKilledError(DEADLY)))
    return verdict
