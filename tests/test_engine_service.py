"""engine/service.py and engine/file_job.py over a backend without a model: queue, batches, recordings, counters."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import numpy as np
import pytest

from engine.batch_limits import MAX_GPU_ITEMS
from engine.cadence import MIN_INTERVAL_S
from engine.errors import AtCapacityError, BadInputError, DrainingError, EngineFailedError
from engine.service import FINAL_DEADLINE_S, MAX_FILE_S, MAX_OPEN_FILES, BatchReport, EngineService, SupersededError
from engine.types import SAMPLE_RATE_HZ, FileOptions, JobClass, WindowJob
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.service import audio, collect, drive, job, submit, text

FINAL, PARTIAL, FILE = JobClass.FINAL, JobClass.PARTIAL, JobClass.FILE


# One window


def test_a_window_goes_through() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        result = await service.transcribe_window(job(200))
        assert text(result) == " w0 w1 w2 w3"
        assert (result.language, result.language_probs) == ("en", ())
        assert backend.methods() == ["transcribe"]
        assert service.info is backend.info

    drive(body)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (replace(job(), mel=np.zeros((128, 10), dtype=np.float32)), "mel"),
        (job(language="fr"), "language"),
        (job(language=None, languages=("fr", "it")), "languages"),
    ],
)
def test_what_the_model_cannot_take_is_refused_at_the_door(bad: WindowJob, message: str) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with pytest.raises(BadInputError, match=f"^{message}: "):
            await service.transcribe_window(bad)
        assert backend.calls == []

    drive(body)


# Queue and batches


def test_what_waits_when_the_engine_gets_free_is_the_next_batch() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            first = submit(service, job(stream="a", speaker=1))
            await backend.entered("transcribe")
            rest = [submit(service, job(stream=name, speaker=index)) for index, name in enumerate("bcd", 2)]
            await asyncio.sleep(0)
        results = await asyncio.gather(first, *rest)
        assert backend.batch_streams() == [["a"], ["b", "c", "d"]]
        assert [text(result)[:5] for result in results] == [" w100", " w200", " w300", " w400"]

    drive(body)


def test_only_windows_of_one_key_share_a_batch() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            first = submit(service, job(stream="a"))
            await backend.entered("transcribe")
            rest = [
                submit(service, job(150, stream="short")),
                submit(service, job(900, stream="long")),
                submit(service, job(180, stream="short too", language="de")),
                submit(service, job(150, stream="prompted", prompt="p")),
                submit(service, job(150, stream="with context", context=(1,) * 32)),
            ]
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
        assert backend.batch_streams()[1:] == [["short", "short too"], ["long"], ["prompted"], ["with context"]]

    drive(body)


@pytest.mark.parametrize(("count", "sizes"), [(MAX_GPU_ITEMS, [32]), (MAX_GPU_ITEMS + 1, [32, 1])])
def test_a_batch_has_at_most_what_the_device_takes(count: int, sizes: list[int]) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            first = submit(service, job(stream="first"))
            await backend.entered("transcribe")
            rest = [submit(service, job(job_class=PARTIAL, stream=str(number))) for number in range(count)]
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
        assert [len(batch) for batch in backend.batches[1:]] == sizes

    drive(body)


def test_a_final_overtakes_waiting_partials() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            tasks = [submit(service, job(job_class=PARTIAL, stream="running"))]
            await backend.entered("transcribe")
            tasks.append(submit(service, job(job_class=PARTIAL, stream="partial")))
            tasks.append(submit(service, job(stream="final")))
            await asyncio.sleep(0)
            assert service.stats().classes[PARTIAL].waiting == 1
        await asyncio.gather(*tasks)
        assert backend.batch_streams() == [["running"], ["final"], ["partial"]]

    drive(body)


def test_a_replaced_partial_is_told_so() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            running = submit(service, job(100, PARTIAL))
            await backend.entered("transcribe")
            waiting, newest = submit(service, job(200, PARTIAL)), submit(service, job(300, PARTIAL))
            with pytest.raises(SupersededError):
                await waiting
        assert [len((await task).words) for task in (running, newest)] == [2, 6]
        stats = service.stats()
        assert (stats.classes[PARTIAL].superseded, stats.coalesced) == (1, 1)

    drive(body)


def test_a_partial_made_stale_by_a_final_is_superseded_and_not_coalesced() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            running = submit(service, job(stream="b"))
            await backend.entered("transcribe")
            partial, final = submit(service, job(200, PARTIAL)), submit(service, job(200, FINAL))
            with pytest.raises(SupersededError):
                await partial
        await asyncio.gather(running, final)
        stats = service.stats()
        assert (stats.classes[PARTIAL].superseded, stats.coalesced) == (1, 0)

    drive(body)


def test_a_cancelled_job_is_not_decoded() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            running = submit(service, job())
            await backend.entered("transcribe")
            given_up = submit(service, job(stream="b"))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            assert service.stats().classes[FINAL].waiting == 0
        await running
        assert backend.batch_streams() == [["a"]]

    drive(body)


def test_the_result_of_a_job_cancelled_in_a_running_batch_is_dropped_alone() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            tasks = [submit(service, job(stream=name, speaker=index)) for index, name in enumerate("abc")]
            await backend.entered("transcribe")
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
        assert [text(await tasks[index]) for index in (0, 2)] == [" w0 w1 w2 w3", " w200 w201 w202 w203"]
        assert backend.batch_streams() == [["a", "b", "c"]]
        final = service.stats().classes[FINAL]
        assert (final.done, final.failed, final.superseded) == (2, 0, 1)

    drive(body)


def test_stop_ends_running_and_waiting_jobs_and_refuses_new_ones() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            windows = [submit(service, job(stream=name, prompt=name)) for name in "ab"]
            recording = asyncio.create_task(collect(service, 2.0))
            await backend.entered("transcribe")
            await service.stop()
            for task in (*windows, recording):
                with pytest.raises(DrainingError):
                    await task
        with pytest.raises(DrainingError):
            await service.transcribe_window(job())
        await service.stop()

    drive(body)


# Recordings


def test_a_recording_comes_segment_by_segment() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        segments = await collect(service, 5.0, word_timestamps=True)
        assert [(s.text, s.start_s, s.end_s) for s in segments] == [(" s0", 0, 2), (" s1", 2, 4), (" s2", 4, 5)]
        assert segments[1].words[0].start_s == 2
        assert (backend.held, service.stats().open_files) == (0, 0)

    drive(body)


def test_live_windows_are_decoded_between_the_steps_of_a_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("next_segments"):
            recording = asyncio.create_task(collect(service, 10.0))
            await backend.entered("next_segments")
            live = [
                submit(service, job(stream=str(number), job_class=job_class))
                for number, job_class in enumerate([PARTIAL, FINAL])
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*live)
        assert len(await recording) == 5
        expected = ["open_file", "next_segments", "transcribe", "transcribe", "next_segments"]
        assert backend.methods()[:5] == expected
        assert backend.batch_streams() == [["1"], ["0"]]

    drive(body)


def test_recordings_take_turns() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await asyncio.gather(*(collect(service, 4.0) for _ in range(2)))
        handles = backend.requests("next_segments")
        assert handles[0::2] == [handles[0]] * 3
        assert handles[1::2] == [handles[1]] * 3
        assert handles[0] != handles[1]

    drive(body)


def test_recordings_beyond_the_limit_are_told_to_come_back() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("open_file"):
            tasks = [asyncio.create_task(collect(service, 1.0)) for _ in range(MAX_OPEN_FILES)]
            await backend.entered("open_file")
            with pytest.raises(AtCapacityError, match=str(MAX_OPEN_FILES)):
                await collect(service, 1.0)
            assert service.stats().open_files == MAX_OPEN_FILES
        assert [len(segments) for segments in await asyncio.gather(*tasks)] == [1] * MAX_OPEN_FILES
        assert len(await collect(service, 1.0)) == 1

    drive(body)


@pytest.mark.parametrize(("seconds", "is_legal"), [(MAX_FILE_S, True), (MAX_FILE_S + 1, False)])
def test_the_length_of_a_recording_is_bounded(seconds: float, is_legal: bool) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        # A view of one sample: nothing of this length is really made.
        samples = np.broadcast_to(np.zeros(1, np.float32), int(seconds * SAMPLE_RATE_HZ))
        iterator = service.transcribe_file(samples, FileOptions())
        with contextlib.nullcontext() if is_legal else pytest.raises(BadInputError, match="samples"):
            assert (await iterator.__anext__()).text == " s0"
        await iterator.aclose()  # type: ignore[attr-defined]
        assert backend.held == 0

    drive(body)


def test_a_recording_in_a_language_the_model_lacks_is_refused() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with pytest.raises(BadInputError, match="language"):
            await collect(service, 1.0, language="fr")

    drive(body)


def test_after_a_restart_a_recording_goes_on_behind_its_last_segment() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(4)  # open, s0, s1, crash
        segments = await collect(service, 7.0)
        assert [(s.start_s, s.end_s) for s in segments] == [(0, 2), (2, 4), (4, 6), (6, 7)]
        first, second = backend.requests("open_file")
        assert isinstance(first, FileOptions)
        assert isinstance(second, FileOptions)
        assert (first.language, second.language) == (None, "en")

    drive(body)


def test_a_recording_that_saw_two_deaths_without_progress_fails() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(3, 5)  # open, s0, crash, open, crash
        segments = []
        with pytest.raises(EngineFailedError, match=r"at 2\.0 s"):
            async for segment in service.transcribe_file(audio(7.0), FileOptions()):
                segments.append(segment)
        assert len(segments) == 1
        assert service.stats().open_files == 0

    drive(body)


def test_deaths_with_progress_between_them_do_not_end_a_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(3, 6, 9)  # each: open, a segment, crash
        assert len(await collect(service, 8.0)) == 4

    drive(body)


def test_a_recording_that_died_at_its_very_end_is_complete() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(3)
        assert len(await collect(service, 2.0)) == 1
        assert backend.methods().count("open_file") == 1

    drive(body)


def test_a_step_that_fails_ends_its_recording_alone() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.fail_at(3)  # open, open, s0 of the first
        outcomes = await asyncio.gather(*(collect(service, 4.0) for _ in range(2)), return_exceptions=True)
        assert isinstance(outcomes[0], EngineFailedError)
        assert isinstance(outcomes[1], list)
        assert len(outcomes[1]) == 2
        assert backend.held == 0

    drive(body)


def test_a_reader_that_leaves_while_the_recording_is_opened_frees_it() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("open_file"):
            task = asyncio.create_task(collect(service, 4.0))
            await backend.entered("open_file")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await service.transcribe_window(job())
        assert backend.held == 0

    drive(body)


def test_a_reader_that_leaves_early_frees_the_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        iterator = service.transcribe_file(audio(10.0), FileOptions())
        async for segment in iterator:
            assert segment.text == " s0"
            break
        await iterator.aclose()  # type: ignore[attr-defined]
        assert (backend.held, service.stats().open_files) == (0, 0)

    drive(body)


# Pace


def test_a_job_without_load_is_worth_the_shortest_interval_and_nothing_is_promised() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await service.transcribe_window(job())
        stats = service.stats()
        assert service.partial_interval_s == stats.partial_interval_s == MIN_INTERVAL_S
        assert service.max_streams is None
        assert stats.max_streams is None

    drive(body)


def test_the_pace_and_the_number_of_streams_follow_what_batches_took() -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        for second in range(40):
            for job_class in (PARTIAL, FINAL):
                with backend.hold("transcribe"):
                    tasks = [submit(service, job(200, job_class, stream=name)) for name in "abcdefgh"]
                    await backend.entered("transcribe")
                    # 8 windows take 0.4 s as partials and 0.08 s as finals.
                    clock.advance(0.4 if job_class is PARTIAL else 0.08)
                await asyncio.gather(*tasks)
            clock.advance(0.52)
            if second == 0:
                assert service.max_streams is None
        # Finals have 8 % of the engine.
        assert service.partial_interval_s == pytest.approx(0.4 / (0.75 - 0.08), rel=0.1)
        # A stream takes 0.01 s for its final and 0.05 s per 1.5 s for its partials, at least half a fixed part.
        assert service.max_streams is not None
        assert 16 <= service.max_streams <= 40
        assert service.stats().busy_share == pytest.approx(0.48, abs=0.05)

    drive(body, clock=clock)


def test_a_stream_counts_from_its_submission_until_some_time_after_its_result() -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        async def together(names: str) -> list[float]:
            """The interval while the streams wait for 1.5 s of engine, and 1.5 s after their results."""
            with backend.hold("transcribe"):
                tasks = [submit(service, job(200, PARTIAL, stream=name)) for name in names]
                await backend.entered("transcribe")
                for _ in range(6):
                    clock.advance(0.25)
                    waiting_s = service.partial_interval_s
            await asyncio.gather(*tasks)
            clock.advance(1.5)
            return [waiting_s, service.partial_interval_s]

        for _ in range(20):
            await together("a")
        # One stream takes 1.5 s, so two or more are beyond the longest interval.
        one_s = service.partial_interval_s
        waiting_s, after_s = await together("abcdefgh")
        assert one_s == pytest.approx(1.5 / 0.75, rel=0.1)
        assert waiting_s > 1.2 * one_s
        assert after_s > waiting_s
        clock.advance(60.0)
        assert service.partial_interval_s == pytest.approx(MIN_INTERVAL_S)

    drive(body, clock=clock)


def test_on_a_cpu_batches_grow_only_once_they_are_known_to_be_short() -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            tasks = [submit(service, job(job_class=PARTIAL, stream=name)) for name in "abcd"]
            await backend.entered("transcribe")
            clock.advance(0.06)
        await asyncio.gather(*tasks)
        assert [len(batch) for batch in backend.batches] == [1, 2, 1]

    drive(body, clock=clock, device="cpu")


# Counters


def test_counters_tell_waiting_time_and_last_success() -> None:
    clock = ManualClock()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        assert service.stats().last_success_s is None
        with backend.hold("transcribe"):
            task = submit(service, job())
            await backend.entered("transcribe")
            clock.advance(2.5)
        await task
        stats = service.stats()
        assert stats.is_ready
        assert stats.last_success_s == clock.now_s()
        final = stats.classes[FINAL]
        assert (final.waiting, final.done, final.failed, final.decode_s) == (0, 1, 0, 2.5)
        assert stats.batches == 1
        backend.is_ready = False
        assert not service.stats().is_ready

    drive(body, clock=clock)


def test_the_counters_are_a_snapshot() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        before = service.stats()
        await service.transcribe_window(job())
        assert before.classes[FINAL].done == 0
        assert service.stats().classes[FINAL].done == 1

    drive(body)


def test_every_call_is_reported_with_what_it_cost() -> None:
    clock, reports = ManualClock(), list[BatchReport]()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            first = submit(service, job(stream="first"))
            await backend.entered("transcribe")
            rest = [submit(service, job(150, stream="b"))]
            await asyncio.sleep(0)
            clock.advance(0.25)
            rest.append(submit(service, job(100, stream="c")))
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)
        await collect(service, 1.0)
        both = reports[1]
        assert (both.job_class, both.n_items, both.queue_ages_s) == (FINAL, 2, (0.25, 0.0))
        assert (both.frames, both.padding_frames, both.tokens) == (400, 150, 5)
        assert both.encode_s == both.decode_s == both.align_s > 0
        assert reports[0].took_s == 0.25
        assert [(each.job_class, each.n_items, each.frames) for each in reports[2:]] == [(FILE, 1, 0)] * 3

    drive(body, clock=clock, on_batch=reports.append)


@pytest.mark.parametrize(
    ("job_class", "took_s", "n_missed"),
    [
        (FINAL, FINAL_DEADLINE_S, 0),
        (FINAL, FINAL_DEADLINE_S + 0.01, 1),
        (PARTIAL, MIN_INTERVAL_S, 0),
        (PARTIAL, MIN_INTERVAL_S + 0.01, 1),
        (FILE, 60.0, 0),
    ],
)
def test_a_result_after_its_deadline_is_counted(job_class: JobClass, took_s: float, n_missed: int) -> None:
    clock, reports = ManualClock(now_s=0.0), list[BatchReport]()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            task = submit(service, job(job_class=job_class))
            await backend.entered("transcribe")
            clock.advance(took_s)
        await task
        assert [each.missed_deadlines for each in reports] == [n_missed]

    drive(body, clock=clock, on_batch=reports.append)


def test_a_newer_partial_is_late_when_the_replaced_one_would_have_been() -> None:
    clock, reports = ManualClock(now_s=0.0), list[BatchReport]()

    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("transcribe"):
            running = submit(service, job(stream="b"))
            await backend.entered("transcribe")
            replaced = submit(service, job(job_class=PARTIAL))
            await asyncio.sleep(0)
            clock.advance(MIN_INTERVAL_S)
            newer = submit(service, job(job_class=PARTIAL))
            await asyncio.sleep(0)
            clock.advance(0.01)
        await asyncio.gather(running, newer)
        assert isinstance(replaced.exception(), SupersededError)
        assert reports[1].queue_ages_s == pytest.approx([0.01])
        assert reports[1].missed_deadlines == 1

    drive(body, clock=clock, on_batch=reports.append)


def test_whoever_counts_badly_does_not_stop_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    def on_batch(report: BatchReport) -> None:
        raise ValueError("cannot count")

    async def body(service: EngineService, backend: FakeBackend) -> None:
        for _ in range(2):
            assert text(await service.transcribe_window(job(100))) == " w0 w1"

    drive(body, on_batch=on_batch)
    assert "could not be counted" in caplog.text
