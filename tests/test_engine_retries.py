"""engine/retries.py: nobody fails for a neighbour, and the guilty one is found in few calls."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    AtCapacityError,
    DrainingError,
    EngineFailedError,
    EngineMemoryError,
    EngineRestartError,
)
from engine.file_job import MAX_DEATHS
from engine.restarts import MAX_RESTARTS
from engine.retries import MAX_MEMORY_ERRORS, Trials, judge


@dataclass(eq=False)
class Job:
    name: int
    trials: Trials = field(default_factory=Trials)


def jobs(count: int) -> list[Job]:
    return [Job(name) for name in range(count)]


def names(batches: list[list[Job]]) -> list[list[int]]:
    return [[job.name for job in batch] for batch in batches]


@pytest.mark.parametrize("error", [EngineFailedError("bad"), EngineMemoryError("full")])
def test_a_failed_batch_is_halved(error: Exception) -> None:
    verdict = judge(jobs(5), error)
    assert names(verdict.again) == [[0, 1], [2, 3, 4]]
    assert verdict.given_up == []


def test_a_job_that_fails_alone_has_its_error() -> None:
    [job] = jobs(1)
    error = EngineFailedError("bad")
    verdict = judge([job], error)
    assert (verdict.again, verdict.given_up) == ([], [(job, error)])


def test_a_job_that_does_not_fit_alone_gets_a_second_chance() -> None:
    [job] = jobs(1)
    for _ in range(MAX_MEMORY_ERRORS - 1):
        assert judge([job], EngineMemoryError("full")).again == [[job]]
    [(given_up, error)] = judge([job], EngineMemoryError("full")).given_up
    assert given_up is job
    assert isinstance(error, EngineMemoryError)


def test_after_a_death_each_job_runs_alone_and_a_second_death_is_its_own() -> None:
    batch = jobs(3)
    assert names(judge(batch, EngineRestartError("gone")).again) == [[0], [1], [2]]
    verdict = judge(batch[:1], EngineRestartError("gone"))
    [(given_up, error)] = verdict.given_up
    assert given_up is batch[0]
    assert isinstance(error, EngineFailedError)
    assert f"died {MAX_DEATHS} times" in str(error)


@pytest.mark.parametrize("error", [DrainingError("bye"), AtCapacityError("full"), ValueError("a defect")])
def test_what_is_not_about_decoding_goes_to_all(error: Exception) -> None:
    batch = jobs(3)
    verdict = judge(batch, error)
    assert verdict.again == []
    assert verdict.given_up == [(job, error) for job in batch]


def run(
    batch: list[Job], poison: set[int], killers: set[int], max_jobs: int
) -> tuple[set[int], dict[int, Exception], int, int]:
    """Run until nothing is left: who got a result, who an error, the number of calls and of deaths."""
    queue, done, failed, calls, deaths = deque([batch]), set[int](), dict[int, Exception](), 0, 0
    while queue:
        batch = queue.popleft()
        calls += 1
        error: Exception | None = None
        if killers & {job.name for job in batch}:
            error, deaths = EngineRestartError("gone"), deaths + 1
        elif len(batch) > max_jobs:
            error = EngineMemoryError("full")
        elif poison & {job.name for job in batch}:
            error = EngineFailedError("bad")
        if error is None:
            done |= {job.name for job in batch}
            continue
        verdict = judge(batch, error)
        queue.extendleft(reversed(verdict.again))
        failed.update({job.name: its_error for job, its_error in verdict.given_up})
    return done, failed, calls, deaths


@given(
    st.integers(1, 32),
    st.sets(st.integers(0, 31), max_size=4),
    st.sets(st.integers(0, 31), max_size=2),
    st.integers(1, 32),
)
def test_exactly_the_guilty_fail(count: int, poison: set[int], killers: set[int], max_jobs: int) -> None:
    guilty = (poison | killers) & set(range(count))
    done, failed, _, deaths = run(jobs(count), poison, killers, max_jobs)
    assert set(failed) == guilty
    assert done == set(range(count)) - guilty
    assert deaths <= MAX_DEATHS * len(killers & guilty)


@pytest.mark.parametrize("culprit", range(32))
def test_one_poisoned_job_of_32_is_found_in_eleven_calls(culprit: int) -> None:
    _, failed, calls, _ = run(jobs(32), {culprit}, set(), 32)
    assert set(failed) == {culprit}
    assert calls == 1 + 2 * math.log2(32)


def test_a_deadly_job_leaves_the_server_running() -> None:
    _, failed, _, deaths = run(jobs(32), set(), {17}, 32)
    assert set(failed) == {17}
    assert deaths == MAX_DEATHS <= MAX_RESTARTS
