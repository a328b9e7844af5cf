"""engine/service.py and engine/batch_run.py when the engine fails: nobody pays for a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch_limits import PROBE_AFTER
from engine.errors import AtCapacityError, EngineFailedError, EngineKilledError, EngineMemoryError
from engine.restarts import MAX_RESTARTS
from engine.service import BatchReport, EngineService
from engine.types import JobClass, WindowJob, WindowResult
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.service import drive, job, submit

PARTIAL = JobClass.PARTIAL
N_JOBS = 16


def batch(count: int = N_JOBS) -> list[WindowJob]:
    """Windows that share a batch, each of another speaker and some shorter than others."""
    return [job(150 + number % 50, PARTIAL, stream=str(number), speaker=number) for number in range(count)]


def is_of(*streams: int) -> Callable[[WindowJob], bool]:
    names = {str(number) for number in streams}
    return lambda each: each.stream in names


async def outcomes(service: EngineService, jobs: Sequence[WindowJob]) -> list[WindowResult | BaseException]:
    """All submitted before the engine looks."""
    return await asyncio.gather(*(submit(service, each) for each in jobs), return_exceptions=True)


def check(
    backend: FakeBackend, jobs: Sequence[WindowJob], found: Sequence[WindowResult | BaseException], *guilty: int
) -> None:
    """The guilty have an error, every other job has what it gets alone."""
    assert len(found) == len(jobs)
    for number, (each, outcome) in enumerate(zip(jobs, found, strict=True)):
        if number in guilty:
            assert isinstance(outcome, EngineFailedError)
        else:
            assert outcome == backend.alone(each)


def test_a_batch_that_fails_once_costs_nobody_anything() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.fail_at(1)
        jobs = batch()
        check(backend, jobs, await outcomes(service, jobs))
        assert [len(each) for each in backend.batches] == [16, 8, 8]

    drive(body)


@pytest.mark.parametrize("guilty", [(0,), (7,), (15,), (3, 4), (0, 8, 15), tuple(range(N_JOBS))])
def test_poisoned_jobs_fail_alone(guilty: tuple[int, ...]) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.poison(is_of(*guilty))
        jobs = batch()
        check(backend, jobs, await outcomes(service, jobs), *guilty)
        partial = service.stats().classes[PARTIAL]
        assert (partial.done, partial.failed) == (N_JOBS - len(guilty), len(guilty))

    drive(body)


def test_halves_go_before_anything_else() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.poison(is_of(0))
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in batch(4)]
            await backend.entered("transcribe")
            tasks.append(submit(service, job(stream="final")))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert backend.batch_streams() == [["0", "1", "2", "3"], ["0", "1"], ["0"], ["1"], ["2", "3"], ["final"]]

    drive(body)


# Memory


@pytest.mark.parametrize("fitting", [1, 3, 8, 15])
def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_that_is_remembered(fitting: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.out_of_memory_above(fitting)
        jobs = batch()
        check(backend, jobs, await outcomes(service, jobs))
        n_tried = len(backend.batches)
        check(backend, jobs, await outcomes(service, jobs))
        assert all(len(each) <= fitting for each in backend.batches[n_tried:])

    drive(body)


def test_a_limit_from_lack_of_memory_is_tried_again_after_many_good_batches() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.out_of_memory_above(15, times=1)
        await outcomes(service, batch())
        n_tried = len(backend.batches)
        for _ in range(PROBE_AFTER):
            await outcomes(service, batch(8))
        await outcomes(service, batch(9))
        assert [len(each) for each in backend.batches[n_tried:]][-2:] == [8, 9]

    drive(body)


def test_a_job_that_does_not_fit_alone_is_tried_twice_and_then_fails() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.out_of_memory_above(0)
        [outcome] = await outcomes(service, batch(1))
        assert isinstance(outcome, EngineMemoryError)
        assert len(backend.batches) == 2

    drive(body)


def test_a_job_that_fits_at_the_second_try_has_its_result() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.out_of_memory_above(0, times=1)
        jobs = batch(1)
        check(backend, jobs, await outcomes(service, jobs))
        assert len(backend.batches) == 2

    drive(body)


# Deaths


def test_killed_or_hung_under_a_batch_all_its_jobs_run_again_alone() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(1)
        jobs = batch()
        check(backend, jobs, await outcomes(service, jobs))
        assert [len(each) for each in backend.batches] == [16] + [1] * 16
        assert service.stats().restarts == 1
        check(backend, jobs, await outcomes(service, jobs))
        assert len(backend.batches[-1]) == 16

    drive(body)


@pytest.mark.parametrize("guilty", [0, 9, 15])
def test_a_job_that_kills_the_engine_costs_two_processes_and_nobody_else(guilty: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.kills(is_of(guilty))
        jobs = batch()
        found = await outcomes(service, jobs)
        check(backend, jobs, found, guilty)
        assert "died 2 times" in str(found[guilty])
        assert backend.restarts == 2 <= MAX_RESTARTS

    drive(body)


def test_a_job_that_kills_the_engine_alone_gets_one_more_try() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(1)
        assert await service.transcribe_window(job()) == backend.alone(job())
        backend.kills(is_of(7))
        with pytest.raises(EngineFailedError, match="died 2 times"):
            await service.transcribe_window(job(stream="7"))
        assert (len(backend.batches), backend.restarts) == (4, 3)

    drive(body)


def test_a_suspect_that_nobody_waits_for_any_more_does_not_run() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.kills(is_of(1))
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in batch(3)]
            await backend.entered("transcribe")
            tasks[1].cancel()
        await asyncio.wait(tasks)
        assert backend.batch_streams() == [["0", "1", "2"], ["0"], ["2"]]
        assert backend.restarts == 1
        assert service.stats().classes[PARTIAL].superseded == 1

    drive(body)


def test_the_deaths_of_a_partial_count_for_the_final_behind_it() -> None:
    """They hold the same audio: a partial that is cancelled by its final must not cost two processes more."""

    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.kills(is_of(1))
        with backend.hold("transcribe"):
            partial = submit(service, job(200, PARTIAL, stream="1"))
            await backend.entered("transcribe")
            final = submit(service, job(210, JobClass.FINAL, stream="1"))
            await asyncio.sleep(0)
            partial.cancel()
        with pytest.raises(EngineKilledError):
            await final
        assert backend.restarts == 2
        with pytest.raises(EngineKilledError):
            await service.transcribe_window(job(220, stream="1"))
        assert backend.restarts == 2, "nothing of this stream is tried again"
        neighbour = job(200, stream="2")
        assert await service.transcribe_window(neighbour) == backend.alone(neighbour)

    drive(body)


def test_a_window_that_goes_well_clears_its_stream() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        for _ in range(3):
            backend.crash_at(len(backend.calls) + 1)
            each = job(200, stream="1")
            assert await service.transcribe_window(each) == backend.alone(each)
        assert backend.restarts == 3

    drive(body)


def test_the_load_of_a_new_process_is_not_taken_for_the_cost_of_a_batch() -> None:
    clock, reports = ManualClock(), list[BatchReport]()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.is_ready = False
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in batch(8)]
            await backend.entered("transcribe")
            clock.advance(100.0)
            backend.is_ready = True
        await asyncio.gather(*tasks)
        assert reports[0].took_s == 100.0
        assert service.stats().busy_share == 0.0
        clock.advance(1.0)
        assert service.partial_interval_s == 0.3

    drive(body, clock=clock, on_batch=reports.append)


def test_a_process_that_hangs_is_not_taken_for_a_busy_engine_and_a_job_waits_in_the_queue_once() -> None:
    clock, reports = ManualClock(), list[BatchReport]()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(1)
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in batch(2)]
            await backend.entered("transcribe")
            clock.advance(10.0)
        await asyncio.gather(*tasks)
        assert [(each.n_items, each.queue_ages_s, each.is_success) for each in reports] == [
            (2, (0.0, 0.0), False),
            (1, (), True),
            (1, (), True),
        ]
        assert service.stats().busy_share == 0.0

    drive(body, clock=clock, on_batch=reports.append)


# Anything else


@pytest.mark.parametrize(("error", "is_shown"), [(AtCapacityError("256 calls wait"), False), (KeyError("oops"), True)])
def test_an_error_that_is_not_about_decoding_goes_to_the_whole_batch_and_the_engine_goes_on(
    error: Exception, is_shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        real = backend.transcribe

        async def broken(jobs: Sequence[WindowJob]) -> object:
            raise error

        backend.transcribe = broken  # type: ignore[method-assign, assignment]
        assert await outcomes(service, batch(3)) == [error] * 3
        backend.transcribe = real  # type: ignore[method-assign]
        check(backend, batch(3), await outcomes(service, batch(3)))
        assert service.stats().classes[PARTIAL].failed == 3

    drive(body)
    assert str(error) in caplog.text
    assert ("Traceback" in caplog.text) is is_shown


def test_an_engine_that_answers_for_too_few_windows_fails_them_and_gives_nobody_anothers_text() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        real = backend.transcribe

        async def forgetful(jobs: Sequence[WindowJob]) -> object:
            return await real(jobs[1:] if len(jobs) > 1 else jobs)

        backend.transcribe = forgetful  # type: ignore[method-assign, assignment]
        jobs = batch(4)
        check(backend, jobs, await outcomes(service, jobs))

    drive(body)


# Any mixture


@given(
    st.integers(1, 20),
    st.sets(st.integers(0, 19), max_size=3),
    st.sets(st.integers(0, 19), max_size=1),
    st.integers(1, 20),
)
def test_no_mixture_of_faults_costs_a_neighbour_its_result(
    count: int, poison: set[int], killer: set[int], fitting: int
) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.poison(is_of(*poison))
        backend.kills(is_of(*killer))
        backend.out_of_memory_above(fitting)
        jobs = batch(count)
        guilty = [number for number in range(count) if number in poison | killer]
        check(backend, jobs, await outcomes(service, jobs), *guilty)
        assert backend.restarts <= 2 * len(killer)
        assert service.stats().classes[PARTIAL].waiting == 0

    drive(body)
