"""engine/service.py, engine/window_decode.py and engine/file_job.py over a backend without a model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.errors import AtCapacityError, BadInputError, DrainingError, EngineFailedError
from engine.service import MAX_FILE_S, MAX_OPEN_FILES, EngineService, SupersededError
from engine.types import (
    MAX_FRAMES,
    SAMPLE_RATE_HZ,
    DecodeRequest,
    FileOptions,
    FileSegment,
    FloatArray,
    JobClass,
    WindowJob,
    WindowResult,
)
from engine.window_decode import MAX_TOKEN_BUDGET, MIN_TOKEN_BUDGET, restrict, token_budget
from tests.fakes.backend import FAKE_INFO, FakeBackend, decoded
from tests.fakes.clock import ManualClock

LIMIT_S = 10.0
"""Nothing here waits for real time; a test that does is broken."""


def drive(test: Callable[[EngineService, FakeBackend], Coroutine[Any, Any, None]], **fake: Any) -> None:
    async def body() -> None:
        backend = FakeBackend(**fake)
        service = EngineService(backend, ManualClock())
        service.start()
        try:
            await asyncio.wait_for(test(service, backend), LIMIT_S)
        finally:
            await service.stop()

    asyncio.run(body())


def job(n_frames: int = 200, job_class: JobClass = JobClass.FINAL, stream: str = "a", **more: Any) -> WindowJob:
    mel = np.zeros((80, n_frames), dtype=np.float32)
    return WindowJob(stream=stream, job_class=job_class, mel=mel, **{"language": "en", **more})


def audio(seconds: float) -> FloatArray:
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), dtype=np.float32)


def text(result: WindowResult) -> str:
    return "".join(word.text for word in result.words)


def decodes(backend: FakeBackend) -> list[DecodeRequest]:
    requests = []
    for batch in backend.requests("decode"):
        assert isinstance(batch, list)
        requests += batch
    return requests


async def collect(service: EngineService, seconds: float, **options: Any) -> list[FileSegment]:
    return [segment async for segment in service.transcribe_file(audio(seconds), FileOptions(**options))]


# One window


def test_a_window_is_encoded_decoded_aligned_and_released() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        result = await service.transcribe_window(job(200))
        assert text(result) == " w0 w1 w2 w3"
        assert (result.language, result.language_probs) == ("en", ())
        assert backend.methods() == ["encode", "decode", "align"]
        assert backend.held == 0

    drive(body)


def test_the_language_is_detected_among_the_streams_own() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        result = await service.transcribe_window(job(language=None, languages=("de", "es", "xx")))
        assert result.language == "de"
        assert dict(result.language_probs) == pytest.approx({"de": 0.75, "es": 0.25})
        assert decodes(backend)[0].language == "de"

    drive(body)


def test_a_model_of_one_language_needs_no_detection() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        result = await service.transcribe_window(job(language=None))
        assert (result.language, result.language_probs) == ("en", (("en", 1.0),))
        assert "detect" not in backend.methods()

    drive(body, info=replace(FAKE_INFO, languages=("en",)))


def test_restrict_shares_out_evenly_what_has_no_probability() -> None:
    assert restrict((("en", 1.0), ("de", 0.0), ("es", 0.0)), ("de", "es")) == (("de", 0.5), ("es", 0.5))


@pytest.mark.parametrize(
    ("n_frames", "pad", "tail", "expected"),
    [(200, 0, 0, 200), (200, 0, 100, 300), (200, MAX_FRAMES, 0, MAX_FRAMES), (2950, 0, 100, MAX_FRAMES), (2, 0, 0, 2)],
)
def test_windows_are_padded_as_the_model_wants(n_frames: int, pad: int, tail: int, expected: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await service.transcribe_window(job(n_frames))
        assert backend.requests("encode") == [[(80, expected)]]
        [aligned] = backend.requests("align")
        assert isinstance(aligned, list)
        assert aligned[0].n_frames == n_frames

    drive(body, info=replace(FAKE_INFO, pad_frames=pad, tail_frames=tail))


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_window_too_short_for_a_word_has_none_and_costs_nothing(n_frames: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        result = await service.transcribe_window(job(n_frames, language=None, languages=("es",)))
        assert (result.words, result.language) == ((), "es")
        assert backend.calls == []

    drive(body)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (job(MAX_FRAMES + 1), "mel"),
        (replace(job(), mel=np.zeros((128, 10), dtype=np.float32)), "mel"),
        (replace(job(), mel=np.zeros(80, dtype=np.float32)), "mel"),
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


def test_the_longest_window_is_taken() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        assert len((await service.transcribe_window(job(MAX_FRAMES))).words) == MAX_FRAMES // 50

    drive(body)


def test_partials_are_greedy_and_finals_use_a_beam() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        await service.transcribe_window(job(job_class=JobClass.PARTIAL))
        await service.transcribe_window(job(job_class=JobClass.FINAL))
        assert [request.beam_size for request in decodes(backend)] == [1, 5]

    drive(body)


def test_the_token_budget_follows_the_duration_within_its_bounds() -> None:
    assert [token_budget(n) for n in (0, 88, 93, 500, 995, 996, MAX_FRAMES)] == [
        MIN_TOKEN_BUDGET,
        MIN_TOKEN_BUDGET,
        20,
        112,
        223,
        MAX_TOKEN_BUDGET,
        MAX_TOKEN_BUDGET,
    ]
    assert token_budget(94) == 21


# Quality fallback

GOOD = decoded(2)
LOOP = decoded(3, compression_ratio=2.5)
UNSURE = decoded(4, avg_logprob=-1.5)
SILENT = decoded(1, avg_logprob=-1.5, no_speech_prob=0.9)


def test_a_loop_is_tried_again_without_context_then_sampled_from_the_same_encoding() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.script.extend([LOOP, LOOP, GOOD])
        result = await service.transcribe_window(job(context=(1, 2), prompt="p", hotwords="h"))
        assert text(result) == GOOD.text
        first, second, third = decodes(backend)
        assert (first.context, first.prompt, first.hotwords, first.temperature) == ((1, 2), "p", "h", 0.0)
        assert (second.context, second.prompt, second.hotwords, second.temperature) == ((), "", "", 0.0)
        assert (third.context, third.temperature, third.beam_size) == ((), 0.4, 5)
        assert first.handle == second.handle == third.handle
        assert backend.methods().count("encode") == 1

    drive(body)


def test_without_context_the_second_try_is_the_sampled_one() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.script.extend([UNSURE, GOOD])
        assert text(await service.transcribe_window(job())) == GOOD.text
        assert [request.temperature for request in decodes(backend)] == [0.0, 0.4]

    drive(body)


@pytest.mark.parametrize(
    ("tries", "best"),
    [
        ([LOOP, UNSURE], UNSURE),
        ([UNSURE, LOOP], UNSURE),
        ([UNSURE, replace(GOOD, avg_logprob=-1.2)], GOOD),
        ([LOOP, replace(GOOD, compression_ratio=9.0, avg_logprob=-0.05)], GOOD),
    ],
)
def test_if_all_tries_are_doubtful_the_best_is_kept(tries: list[Any], best: Any) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.script.extend(tries)
        assert text(await service.transcribe_window(job())) == best.text

    drive(body)


@pytest.mark.parametrize(
    ("result", "n_tries"),
    [
        (replace(GOOD, compression_ratio=2.4), 1),
        (replace(GOOD, compression_ratio=2.41), 2),
        (replace(GOOD, avg_logprob=-1.0), 1),
        (replace(GOOD, avg_logprob=-1.01), 2),
        (SILENT, 1),
    ],
)
def test_thresholds_of_doubt(result: Any, n_tries: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.script.extend([result, GOOD])
        await service.transcribe_window(job())
        assert len(decodes(backend)) == n_tries

    drive(body)


def test_a_doubtful_partial_is_not_worth_a_second_try() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.script.append(LOOP)
        assert text(await service.transcribe_window(job(job_class=JobClass.PARTIAL))) == LOOP.text
        assert len(decodes(backend)) == 1

    drive(body)


# Queue


def test_a_final_overtakes_waiting_partials() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        done: list[str] = []

        async def submit(name: str, job_class: JobClass) -> None:
            await service.transcribe_window(job(stream=name, job_class=job_class))
            done.append(name)

        with backend.hold("encode"):
            first = asyncio.create_task(submit("running", JobClass.PARTIAL))
            await backend.entered("encode")
            rest = [asyncio.create_task(submit("partial", JobClass.PARTIAL))]
            rest.append(asyncio.create_task(submit("final", JobClass.FINAL)))
            await asyncio.sleep(0)
            assert service.stats().classes[JobClass.PARTIAL].waiting == 1
        await asyncio.gather(first, *rest)
        assert done == ["running", "final", "partial"]

    drive(body)


def test_a_replaced_partial_is_told_so() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        def partial(n_frames: int) -> asyncio.Task[WindowResult]:
            return asyncio.create_task(service.transcribe_window(job(n_frames, JobClass.PARTIAL)))

        with backend.hold("encode"):
            running = partial(100)
            await backend.entered("encode")
            waiting, newest = partial(200), partial(300)
            with pytest.raises(SupersededError):
                await waiting
        assert [len((await task).words) for task in (running, newest)] == [2, 6]
        assert service.stats().classes[JobClass.PARTIAL].superseded == 1

    drive(body)


def test_a_cancelled_job_is_not_decoded() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("encode"):
            running = asyncio.create_task(service.transcribe_window(job()))
            await backend.entered("encode")
            given_up = asyncio.create_task(service.transcribe_window(job(stream="b")))
            await asyncio.sleep(0)
            given_up.cancel()
            await asyncio.wait([given_up])
            assert service.stats().classes[JobClass.FINAL].waiting == 0
        await running
        assert backend.methods().count("encode") == 1

    drive(body)


def test_a_job_cancelled_while_it_runs_leaves_nothing_behind() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("decode"):
            given_up = asyncio.create_task(service.transcribe_window(job()))
            await backend.entered("decode")
            given_up.cancel()
            await asyncio.wait([given_up])
        assert len((await service.transcribe_window(job(100))).words) == 2
        assert backend.held == 0
        assert backend.methods() == ["encode", "decode", "encode", "decode", "align"]
        final = service.stats().classes[JobClass.FINAL]
        assert (final.done, final.failed, final.superseded) == (1, 0, 1)

    drive(body)


def test_a_failing_job_fails_alone() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.fail_at(2)  # the decode of the first job
        results = await asyncio.gather(
            *(service.transcribe_window(job(stream=name)) for name in "abc"), return_exceptions=True
        )
        assert isinstance(results[0], EngineFailedError)
        assert [text(result) for result in results[1:] if isinstance(result, WindowResult)] == [" w0 w1 w2 w3"] * 2
        assert backend.held == 0
        assert service.stats().classes[JobClass.FINAL].failed == 1

    drive(body)


def test_stop_ends_running_and_waiting_jobs_and_refuses_new_ones() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("decode"):
            tasks = [asyncio.create_task(service.transcribe_window(job(stream=name))) for name in "ab"]
            await backend.entered("decode")
            await service.stop()
            for task in tasks:
                with pytest.raises(DrainingError):
                    await task
        with pytest.raises(DrainingError):
            await service.transcribe_window(job())
        await service.stop()

    drive(body)


# Restarts


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_window_is_decoded_again_by_the_next_child(call: int) -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(call)
        assert text(await service.transcribe_window(job(200))) == " w0 w1 w2 w3"
        assert backend.methods().count("encode") == 2
        assert (backend.held, service.stats().restarts) == (0, 1)

    drive(body)


def test_a_job_that_saw_two_deaths_is_poison_for_itself_alone() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        backend.crash_at(2, 4)
        poison = asyncio.create_task(service.transcribe_window(job()))
        other = asyncio.create_task(service.transcribe_window(job(stream="b")))
        with pytest.raises(EngineFailedError, match="died 2 times"):
            await poison
        assert text(await other) == " w0 w1 w2 w3"

    drive(body)


def test_a_child_that_dies_before_the_release_costs_no_second_decode() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        with backend.hold("align"):
            task = asyncio.create_task(service.transcribe_window(job()))
            await backend.entered("align")
            backend.release = crashing_release  # type: ignore[method-assign]
        assert text(await task) == " w0 w1 w2 w3"
        assert backend.methods() == ["encode", "decode", "align"]

    async def crashing_release(handles: Any) -> None:
        raise EngineFailedError("release failed")

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
                asyncio.create_task(service.transcribe_window(job(stream=str(number), job_class=job_class)))
                for number, job_class in enumerate([JobClass.PARTIAL, JobClass.FINAL])
            ]
            await asyncio.sleep(0)
        await asyncio.gather(*live)
        assert len(await recording) == 5
        window = ["encode", "decode", "align"]
        assert backend.methods()[:9] == ["open_file", "next_segments", *window, *window, "next_segments"]

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


def test_a_reader_that_leaves_early_frees_the_recording() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        iterator = service.transcribe_file(audio(10.0), FileOptions())
        async for segment in iterator:
            assert segment.text == " s0"
            break
        await iterator.aclose()  # type: ignore[attr-defined]
        assert (backend.held, service.stats().open_files) == (0, 0)

    drive(body)


# Counters


def test_counters_tell_waiting_time_and_last_success() -> None:
    async def body() -> None:
        backend, clock = FakeBackend(), ManualClock()
        service = EngineService(backend, clock)
        service.start()
        assert service.stats().last_success_s is None
        with backend.hold("decode"):
            task = asyncio.create_task(service.transcribe_window(job()))
            await backend.entered("decode")
            clock.advance(2.5)
        await task
        stats = service.stats()
        assert stats.is_ready
        assert stats.last_success_s == clock.now_s()
        final = stats.classes[JobClass.FINAL]
        assert (final.waiting, final.done, final.failed, final.decode_s) == (0, 1, 0, 2.5)
        backend.is_ready = False
        assert not service.stats().is_ready
        await service.stop()

    asyncio.run(body())


def test_the_counters_are_a_snapshot() -> None:
    async def body(service: EngineService, backend: FakeBackend) -> None:
        before = service.stats()
        await service.transcribe_window(job())
        assert before.classes[JobClass.FINAL].done == 0
        assert service.stats().classes[JobClass.FINAL].done == 1

    drive(body)
