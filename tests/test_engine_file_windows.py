"""Windows of recordings in the queue and the service: which share batches, how many may wait, what faults cost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from engine.batch_limits import MAX_CPU_FILE_ITEMS, MAX_GPU_ITEMS, MAX_GPU_ROWS, SHORT_BATCH_S, BatchLimits
from engine.batching import BatchKey
from engine.cadence import LIVE_S, Cadence
from engine.cost_model import CostModel
from engine.errors import AtCapacityError, BadInputError, EngineKilledError
from engine.scheduler import MAX_WAITING_FILE_WINDOWS, MAX_WAITING_FILES, Scheduler, Ticket
from engine.service import EngineService
from engine.types import FileOptions, JobClass, SearchOptions, WindowJob, WindowResult
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.service import audio, drive, job, submit

FINAL, PARTIAL, FILE = JobClass.FINAL, JobClass.PARTIAL, JobClass.FILE
USUAL = SearchOptions()
KEY = BatchKey(FILE, 1_000, 112, 0, "", "", USUAL)


def windows(count: int, recording: int = 1, n_frames: int = 200) -> list[WindowJob]:
    """Windows of one recording, each of another speaker so that a result given to the wrong one shows."""
    return [
        job(n_frames, FILE, stream=f"file {recording} window {number}", speaker=number, search=USUAL)
        for number in range(count)
    ]


async def outcomes(service: EngineService, jobs: list[WindowJob]) -> list[WindowResult | BaseException]:
    return await asyncio.gather(*(submit(service, each) for each in jobs), return_exceptions=True)


async def learn(service: EngineService, backend: FakeBackend) -> None:
    """Let the service see what a window of a recording costs: nothing here, so any number may share a batch."""
    await outcomes(service, windows(1, recording=99))
    backend.batches.clear()


# The queue


def ticket(number: int) -> Ticket:
    return Ticket(number, FILE, f"file 1 window {number}", KEY)


def test_windows_are_refused_beyond_their_limit_and_recordings_are_not() -> None:
    scheduler = Scheduler()
    for number in range(MAX_WAITING_FILE_WINDOWS):
        scheduler.submit(ticket(number))
    with pytest.raises(AtCapacityError, match=str(MAX_WAITING_FILE_WINDOWS)):
        scheduler.submit(ticket(5_000))
    scheduler.submit(Ticket(5_001, FILE, "file 2"))
    assert scheduler.waiting(FILE) == MAX_WAITING_FILE_WINDOWS + 1
    assert [each.number for each in scheduler.next_batch(lambda _: 3)] == [0, 1, 2]
    assert scheduler.cancel(ticket(3))
    for number in (0, 1, 2, 3):
        scheduler.submit(ticket(number))
    with pytest.raises(AtCapacityError, match=str(MAX_WAITING_FILE_WINDOWS)):
        scheduler.submit(ticket(5_000))
    scheduler.drain()
    scheduler.submit(ticket(0))


def test_waiting_windows_leave_recordings_their_places() -> None:
    scheduler = Scheduler()
    for number in range(MAX_WAITING_FILES):
        scheduler.submit(ticket(number))
        scheduler.submit(Ticket(1_000 + number, FILE, f"file {number}"))
    with pytest.raises(AtCapacityError, match=f"{MAX_WAITING_FILES} recordings"):
        scheduler.submit(Ticket(5_000, FILE, "one more"))
    scheduler.submit(ticket(MAX_WAITING_FILES))


# How many share a batch


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (USUAL, MAX_GPU_ROWS // 5),
        (None, MAX_GPU_ROWS // 5),
        (replace(USUAL, beam_size=1), MAX_GPU_ITEMS),
        (replace(USUAL, beam_size=64), 1),
    ],
)
@pytest.mark.parametrize("is_live", [True, False])
def test_on_a_gpu_the_rows_of_the_search_are_the_limit(
    search: SearchOptions | None, expected: int, is_live: bool
) -> None:
    costs = CostModel()
    costs.observe(FILE, 1, KEY.n_frames, SHORT_BATCH_S / (2 * MAX_GPU_ITEMS))
    assert BatchLimits(costs).limit(KEY._replace(search=search), "cuda", is_live=is_live) == expected


def test_on_a_cpu_recordings_make_room_for_live_streams_alone() -> None:
    costs = CostModel()
    limits = BatchLimits(costs)
    assert [limits.limit(KEY, "cpu", is_live=is_live) for is_live in (True, False)] == [1, 1]
    for _ in range(3):
        for n_items in (1, 2, 4):
            costs.observe(FILE, n_items, KEY.n_frames, n_items * SHORT_BATCH_S / 2.1)
    assert [limits.limit(KEY, "cpu", is_live=is_live) for is_live in (True, False)] == [2, MAX_CPU_FILE_ITEMS]
    live = KEY._replace(job_class=FINAL, search=None)
    assert limits.limit(live, "cpu", is_live=False) == 1
    limits.was_too_much(KEY, 4)
    assert limits.limit(KEY, "cpu", is_live=False) == 2


@pytest.mark.parametrize(("passed_s", "is_live"), [(0.0, True), (LIVE_S, True), (LIVE_S + 0.01, False)])
def test_a_stream_counts_as_live_for_some_time_after_its_last_job(passed_s: float, is_live: bool) -> None:
    cadence = Cadence(CostModel(), lambda _: 1)
    assert not cadence.is_live(100.0)
    cadence.seen("a", KEY._replace(job_class=PARTIAL), 100.0)
    assert cadence.interval_s(100.0 + passed_s) > 0
    assert cadence.is_live(100.0 + passed_s) is is_live


@pytest.mark.parametrize(("was_live", "sizes"), [(False, [1, 4, 4]), (True, [1, 1])])
def test_windows_of_a_recording_share_batches_on_a_cpu_while_nobody_talks(was_live: bool, sizes: list[int]) -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        await service.transcribe_window(job(stream="live"))
        clock.advance(LIVE_S - 1.0 if was_live else LIVE_S + 1.0)
        jobs = windows(9)
        with backend.hold("transcribe"):
            found = asyncio.create_task(outcomes(service, jobs))
            await backend.entered("transcribe")
            clock.advance(SHORT_BATCH_S)  # what one window takes: two would be too long
        assert await found == [backend.alone(each) for each in jobs]
        # Behind these the calls take no time, and batches grow.
        assert [len(batch) for batch in backend.batches[1:]][: len(sizes)] == sizes

    drive(body, clock=clock, device="cpu")


def test_windows_of_several_recordings_share_batches_in_the_order_of_their_submission() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await learn(service, backend)
        jobs = [*windows(8, recording=1), *windows(8, recording=2)]
        assert await outcomes(service, jobs) == [backend.alone(each) for each in jobs]
        assert backend.batch_streams() == [
            [each.stream for each in jobs[:12]],
            [each.stream for each in jobs[12:]],
        ]
        stats = service.stats().classes[FILE]
        assert (stats.done, stats.failed, stats.waiting) == (17, 0, 0)

    drive(body)


def test_more_windows_wait_than_recordings_may() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        jobs = windows(2 * MAX_WAITING_FILES)
        assert await outcomes(service, jobs) == [backend.alone(each) for each in jobs]

    drive(body)


def test_a_live_window_goes_before_waiting_windows_of_a_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await learn(service, backend)
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in windows(30)]
            await backend.entered("transcribe")
            tasks += [submit(service, job(stream="b", job_class=PARTIAL)), submit(service, job(stream="a"))]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert [batch[0] for batch in backend.batch_streams()[:4]] == [
            "file 1 window 0",
            "a",
            "b",
            "file 1 window 12",
        ]

    drive(body)


def test_the_language_alone_teaches_nothing_about_the_costs_of_windows() -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        await service.transcribe_window(job(stream="live"))
        wordless = [replace(each, language=None, wants_words=False) for each in windows(4)]
        results = await outcomes(service, wordless)
        assert [result.words for result in results if isinstance(result, WindowResult)] == [()] * 4
        await outcomes(service, windows(4))
        # Such a call takes no time here: with what it costs in mind, all four would have been one batch.
        assert [len(batch) for batch in backend.batches[1:6]] == [1] * 5

    drive(body, clock=clock, device="cpu")


# Faults


def test_a_window_of_which_the_engine_dies_is_given_up_and_no_other_of_its_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await learn(service, backend)
        jobs = windows(12)
        backend.kills(lambda each: each.stream == "file 1 window 5")
        found = await outcomes(service, jobs)
        assert isinstance(found.pop(5), EngineKilledError)
        assert found == [backend.alone(each) for each in jobs if each.stream != "file 1 window 5"]
        assert backend.restarts == 2
        with pytest.raises(EngineKilledError):
            await service.transcribe_window(jobs[5])
        assert await outcomes(service, windows(2, recording=2)) == [backend.alone(each) for each in windows(2)]

    drive(body)


def test_finals_do_not_wait_for_windows_that_run_again() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await learn(service, backend)
        backend.crash_at(len(backend.calls) + 1)
        with backend.hold("transcribe"):
            tasks = [submit(service, each) for each in windows(12)]
            await backend.entered("transcribe")
            tasks += [submit(service, job(stream=name)) for name in "ab"]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert backend.batch_streams()[1:] == [["a", "b"], *([each.stream] for each in windows(12))]

    drive(body)


def test_a_batch_of_a_recording_that_overstays_is_not_tried_again_at_its_size() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await learn(service, backend)
        backend.crash_at(len(backend.calls) + 1)
        for recording in (1, 2):
            jobs = windows(12, recording)
            assert await outcomes(service, jobs) == [backend.alone(each) for each in jobs]
        assert [len(batch) for batch in backend.batches] == [12, *[1] * 12, 6, 6]

    drive(body)


def test_a_search_that_no_model_can_take_is_refused_at_the_door() -> None:
    illegal = replace(USUAL, beam_size=0)

    async def body(service: EngineService, backend: FakeBackend) -> None:
        with pytest.raises(BadInputError, match=r"^beam_size: "):
            await service.transcribe_window(job(job_class=FILE, search=illegal))
        with pytest.raises(BadInputError, match=r"^beam_size: "):
            await anext(service.transcribe_file(audio(1.0), FileOptions(search=illegal)))
        assert backend.calls == []

    drive(body)
