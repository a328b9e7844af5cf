"""Whole recordings, fast: every word once, in order, in its place, whatever the file looks like.

Tone words through a scripted engine and a detector of loudness: losses are exact. Files come from a fake decoder,
but where the real one is said to be used.
"""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decode import MediaDecoder
from engine.errors import AtCapacityError, BadAudioError, BadInputError, EngineFailedError
from engine.recording import NO_SPEECH, transcribe_recording
from engine.recording_decode import CAPACITY_TRIES, MAX_SPLITS, patiently
from engine.recording_types import Recording, RecordingOptions, Task, VadOptions
from engine.types import SAMPLE_RATE_HZ, FileSegment, FloatArray, ModelInfo, WindowJob, WindowResult
from tests.fakes.clock import ManualClock
from tests.fakes.decoding import is_running, wait_gone
from tests.fakes.engine import DEMO_INFO, EnergyDetector, Habits, ScriptedEngine
from tests.fakes.media import encoded
from tests.fakes.recordings import FakeDecoder, numbers_in, transcribe, words_of
from tests.fakes.tones import Spoken, silence, speak

SMALL: ModelInfo = replace(DEMO_INFO, file_window_s=6.0)
PAUSES_S = (0.08, 0.2, 0.08, 0.6, 0.12, 1.4, 0.08, 3.5)
TIME_ERROR_S = 0.06


def check_order(recording: Recording) -> None:
    """What holds for every recording."""
    for segments in recording.segments.values():
        at_s = 0.0
        for segment in segments:
            assert at_s <= segment.start_s <= segment.end_s <= recording.duration_s
            at_s = segment.start_s
            for word in segment.words:
                assert at_s <= word.start_s <= word.end_s <= segment.end_s
                at_s = word.end_s
            assert segment.text == "".join(word.text for word in segment.words)
            at_s = segment.end_s


def check_words(segments: tuple[FileSegment, ...], spoken: list[Spoken]) -> None:
    heard = words_of(segments)
    assert [word.number for word in heard] == [word.number for word in spoken]
    for found, said in zip(heard, spoken, strict=True):
        assert abs(found.start_s - said.start_s) < TIME_ERROR_S
        assert abs(found.end_s - said.end_s) < TIME_ERROR_S


@pytest.mark.parametrize("block_samples", [333, 4_096, 65_536, 10**9])
def test_every_word_once_and_in_its_place(block_samples: int) -> None:
    audio, spoken = speak(random.Random(1).choices(range(1_000), k=80), PAUSES_S)
    engine = ScriptedEngine(info=SMALL)
    recording = transcribe(engine, FakeDecoder(audio, block_samples))
    check_order(recording)
    check_words(recording.segments["transcribe"], spoken)
    assert len(engine.hearing.jobs) > 6
    assert max(job.mel.shape[1] for job in engine.hearing.jobs) <= 600
    assert recording.duration_s == pytest.approx(len(audio) / SAMPLE_RATE_HZ)
    assert recording.warnings == ()


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_words=st.integers(1, 60),
    pauses=st.lists(st.sampled_from([0.08, 0.1, 0.3, 0.7, 1.5, 2.5, 6.0]), min_size=1, max_size=6),
    block=st.integers(100, 70_000),
    window_s=st.sampled_from([2.5, 5.0, 12.0, 30.0]),
    late=st.booleans(),
)
def test_no_word_is_lost_or_doubled(
    seed: int, n_words: int, pauses: list[float], block: int, window_s: float, late: bool
) -> None:
    """Windows that are answered out of order, too."""
    audio, spoken = speak(random.Random(seed).choices(range(1_000), k=n_words), pauses)
    habits = Habits(delays_s={0: 0.002} if late else {})
    engine = ScriptedEngine(habits, info=replace(DEMO_INFO, file_window_s=window_s))
    recording = transcribe(engine, FakeDecoder(audio, block), batch_size=1 + seed % 5)
    check_order(recording)
    check_words(recording.segments["transcribe"], spoken)


def test_quiet_speech_is_heard_by_the_real_detector_and_long_silence_is_not_decoded() -> None:
    audio, spoken = speak(range(10, 30), (0.1, 0.1, 0.5))
    long = np.concatenate([audio, silence(60.0), audio])
    engine = ScriptedEngine(info=SMALL)
    recording = transcribe(engine, FakeDecoder(long))
    assert numbers_in(recording.segments["transcribe"]) == [word.number for word in spoken] * 2
    assert recording.speech_s < 2 * len(audio) / SAMPLE_RATE_HZ + 4
    assert sum(job.mel.shape[1] for job in engine.hearing.jobs) / 100 < recording.speech_s + 1


def test_silence_has_no_text() -> None:
    engine = ScriptedEngine()
    recording = transcribe(engine, FakeDecoder(silence(30.0)), language=None)
    assert (recording.segments, recording.speech_s, recording.warnings) == ({"transcribe": ()}, 0.0, (NO_SPEECH,))
    assert engine.hearing.jobs == []
    assert recording.language_probability == 0.0


def test_what_is_loud_is_decoded_even_if_the_detector_hears_no_speech() -> None:
    class Deaf:
        def push(self, samples: FloatArray) -> list[float]:
            return [0.0] * (len(samples) // 512)

    audio, spoken = speak(range(20))
    assert len(audio) > 512
    recording = transcribe(ScriptedEngine(), FakeDecoder(audio, 5_120), make_detector=Deaf)
    assert numbers_in(recording.segments["transcribe"]) == [word.number for word in spoken]


def test_three_hours_take_no_more_memory_than_a_quarter() -> None:
    """A fake decoder makes the audio; a stretch of talk every five minutes."""
    talk, spoken = speak(range(100, 120))
    minute = silence(60.0)

    def hours(n: float) -> FakeDecoder:
        def blocks() -> Iterator[FloatArray]:
            for _ in range(int(n * 12)):
                yield talk
                for _ in range(5):
                    yield minute

        return FakeDecoder(blocks)

    peaks = []
    for n_hours in (0.75, 3.0):
        engine = ScriptedEngine(info=SMALL)
        tracemalloc.start()
        recording = transcribe(engine, hours(n_hours), make_detector=_CheapDetector)
        peaks.append(tracemalloc.get_traced_memory()[1] - sum(job.mel.nbytes for job in engine.hearing.jobs))
        tracemalloc.stop()
        assert len(words_of(recording.segments["transcribe"])) == n_hours * 12 * len(spoken)
        assert recording.duration_s > n_hours * 3_600
    assert peaks[1] < peaks[0] + 2_000_000


class _CheapDetector(EnergyDetector):
    """Loudness, without a look at the frames of a silent block."""

    def push(self, samples: FloatArray) -> list[float]:
        if not samples.any() and len(samples) % 512 == 0:
            return [0.0] * (len(samples) // 512)
        return super().push(samples)


def test_a_file_through_the_real_decoder() -> None:
    audio, spoken = speak(random.Random(3).choices(range(1_000), k=40), PAUSES_S)
    data = encoded(audio, SAMPLE_RATE_HZ, "FLAC")

    async def run(source: bytes) -> Recording:
        with MediaDecoder() as decoder:
            return await transcribe_recording(
                ScriptedEngine(info=SMALL), decoder, source, RecordingOptions(language="en"), max_audio_s=120.0,
                make_detector=EnergyDetector,
            )  # fmt: skip

    recording = asyncio.run(run(data))
    check_words(recording.segments["transcribe"], spoken)
    assert (recording.container, recording.codec) == ("flac", "pcm_16")
    damaged = asyncio.run(run(data[: len(data) // 2]))
    assert damaged.warnings
    assert 0 < len(words_of(damaged.segments["transcribe"])) < len(spoken)


def test_clips_are_all_that_is_decoded() -> None:
    audio, spoken = speak(range(60), (0.1, 0.1, 0.4))
    clips = ((2.0, 5.5), (8.0, 9.0), (9.0, 12.0), (300.0, 301.0))
    engine = ScriptedEngine(info=SMALL)
    recording = transcribe(engine, FakeDecoder(audio, 3_000), clips=clips)
    inside = [s.number for s in spoken if any(a <= s.start_s and s.end_s <= b for a, b in clips)]
    heard = words_of(recording.segments["transcribe"])
    assert set(inside) <= {word.number for word in heard}
    assert all(any(a - 0.05 <= w.start_s and w.end_s <= b + 0.05 for a, b in clips) for w in heard)
    assert recording.speech_s <= 7.5
    assert recording.duration_s == pytest.approx(len(audio) / SAMPLE_RATE_HZ)


def test_with_vad_only_speech_is_decoded_and_times_stay() -> None:
    audio, spoken = speak(range(40), (0.1, 1.2, 0.1, 0.1))
    vad = VadOptions(min_silence_duration_ms=300, speech_pad_ms=60)
    recording = transcribe(ScriptedEngine(info=SMALL), FakeDecoder(audio), vad=vad)
    check_order(recording)
    check_words(recording.segments["transcribe"], spoken)
    assert recording.speech_s < 0.8 * recording.duration_s


def test_both_tasks_in_one_pass() -> None:
    audio, spoken = speak(range(40), PAUSES_S)
    engine, decoder = ScriptedEngine(info=SMALL), FakeDecoder(audio)
    told: list[tuple[Task, FileSegment]] = []
    recording = transcribe(
        engine, decoder, tasks=("transcribe", "translate"), on_segment=lambda task, each: told.append((task, each))
    )
    assert len(decoder.readings) == 1
    for task in ("transcribe", "translate"):
        check_words(recording.segments[task], spoken)
        assert tuple(each for kind, each in told if kind == task) == recording.segments[task]
    assert [job.task for job in engine.hearing.jobs].count("translate") == len(engine.hearing.jobs) / 2


def test_search_and_hints_go_along() -> None:
    audio, _ = speak(range(5))
    engine = ScriptedEngine()
    options = RecordingOptions(prompt="names", hotwords="words")
    transcribe(engine, FakeDecoder(audio), prompt="names", hotwords="words")
    job = engine.hearing.jobs[0]
    assert (job.prompt, job.hotwords, job.search, job.language) == ("names", "words", options.search, "en")


class Scarce(ScriptedEngine):
    """Hears as many words per window as its budget has; what is beyond is cut off."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self._budget = budget

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        result = await super().transcribe_window(job)
        return replace(result, words=result.words[: self._budget], is_cut=len(result.words) > self._budget)


def test_a_window_over_its_budget_is_halved_and_no_word_is_lost() -> None:
    audio, spoken = speak(range(70), (0.08, 0.08, 0.15))
    engine = Scarce(20)
    recording = transcribe(engine, FakeDecoder(audio))
    check_order(recording)
    check_words(recording.segments["transcribe"], spoken)
    assert recording.warnings == ()


def test_halving_has_an_end() -> None:
    audio, _ = speak(range(70), (0.08, 0.08, 0.15))
    engine = Scarce(0)
    transcribe(engine, FakeDecoder(audio))
    assert len(engine.hearing.jobs) <= 2 ** (MAX_SPLITS + 1) - 1


def test_a_loop_that_stays_is_told() -> None:
    class Looping(ScriptedEngine):
        async def transcribe_window(self, job: WindowJob) -> WindowResult:
            return replace(await super().transcribe_window(job), compression_ratio=3.0)

    audio, _ = speak(range(5))
    recording = transcribe(Looping(), FakeDecoder(audio))
    assert [text for text in recording.warnings if "repeats itself" in text]


def test_speech_without_text_is_told() -> None:
    audio, spoken = speak(range(40), (0.1,))

    class Forgetful(ScriptedEngine):
        async def transcribe_window(self, job: WindowJob) -> WindowResult:
            result = await super().transcribe_window(job)
            return replace(result, words=tuple(word for word in result.words if not 5.0 < word.start_s < 9.0))

    recording = transcribe(Forgetful(), FakeDecoder(audio), vad=VadOptions())
    (warning,) = recording.warnings
    assert warning.startswith("speech without text from 5.")
    assert transcribe(ScriptedEngine(), FakeDecoder(audio)).warnings == ()
    assert spoken


def test_progress_and_timings() -> None:
    audio, _ = speak(range(60), PAUSES_S)
    done: list[float] = []
    recording = transcribe(
        ScriptedEngine(Habits(cost_s=0.002), info=SMALL), FakeDecoder(audio), on_progress=done.append
    )
    assert done == sorted(done)
    assert len(done) > 5
    assert done[-1] == recording.duration_s
    assert set(recording.timings_s) == {"decode", "vad", "model", "total"}
    assert 0 < recording.timings_s["model"] <= recording.timings_s["total"]


def test_times_come_from_the_clock_that_is_given() -> None:
    clock = ManualClock()
    audio, _ = speak(range(5))

    async def sleep(_: float) -> None:
        clock.advance(3.0)

    async def run() -> Recording:
        return await transcribe_recording(
            ScriptedEngine(sleep=sleep), FakeDecoder(audio), b"", RecordingOptions(language="en"), max_audio_s=60.0,
            clock=clock, make_detector=EnergyDetector,
        )  # fmt: skip

    assert asyncio.run(run()).timings_s == {"decode": 0.0, "vad": 0.0, "model": 3.0, "total": 3.0}


def test_one_window_that_fails_ends_it_cleanly() -> None:
    audio, _ = speak(range(200), (0.1, 0.7))
    engine = ScriptedEngine(Habits(faults={3: EngineFailedError("no such luck")}), info=SMALL)
    decoder = FakeDecoder(audio)
    with pytest.raises(EngineFailedError, match="no such luck"):
        transcribe(engine, decoder, batch_size=2)
    assert decoder.readings[0].is_closed
    assert len(engine.hearing.jobs) < 8


def test_a_file_that_breaks_off_with_an_error_ends_it() -> None:
    audio, _ = speak(range(60), (0.1, 0.7))
    with pytest.raises(BadAudioError, match="damaged"):
        transcribe(ScriptedEngine(info=SMALL), FakeDecoder(audio, error=BadAudioError("damaged")))


def test_decoder_warnings_come_first() -> None:
    audio, _ = speak(range(5))
    recording = transcribe(ScriptedEngine(), FakeDecoder(audio, warnings=["cut short"]))
    assert recording.warnings == ("cut short",)


def test_cancelling_ends_it_at_once_and_lets_the_decoder_go() -> None:
    audio, _ = speak(range(100), (0.1, 0.7))

    async def run() -> None:
        has_begun = asyncio.Event()

        async def sleep(_: float) -> None:
            has_begun.set()
            await asyncio.Event().wait()

        never = ScriptedEngine(info=SMALL, sleep=sleep)
        with MediaDecoder() as decoder:
            readings = []
            real = decoder.iter_blocks

            def spied(*args: object, **more: object) -> object:
                readings.append(real(*args, **more))  # type: ignore[arg-type]
                return readings[-1]

            decoder.iter_blocks = spied  # type: ignore[method-assign, assignment]
            work = asyncio.create_task(
                transcribe_recording(
                    never, decoder, encoded(np.tile(audio, 20), SAMPLE_RATE_HZ), RecordingOptions(language="en"),
                    max_audio_s=3_600.0, make_detector=EnergyDetector,
                )
            )  # fmt: skip
            await has_begun.wait()
            pid = readings[0].child_pid
            assert pid is not None
            assert is_running(pid)
            began_s = asyncio.get_running_loop().time()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert asyncio.get_running_loop().time() - began_s < 0.2
            assert await asyncio.to_thread(wait_gone, pid)
            assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(run())


@pytest.mark.parametrize("batch_size", [1, 3])
def test_no_more_windows_than_asked_for_are_in_the_engine(batch_size: int) -> None:
    audio, _ = speak(range(80), (0.1, 0.7))
    most, now = 0, 0

    class Counting(ScriptedEngine):
        async def transcribe_window(self, job: WindowJob) -> WindowResult:
            nonlocal most, now
            now += 1
            most = max(most, now)
            try:
                return await super().transcribe_window(job)
            finally:
                now -= 1

    transcribe(Counting(Habits(cost_s=0.02), info=SMALL), FakeDecoder(audio), batch_size=batch_size)
    assert most == batch_size


def test_a_full_engine_is_asked_again() -> None:
    audio, spoken = speak(range(5))
    faults = dict.fromkeys(range(2), AtCapacityError("full"))
    recording = transcribe(ScriptedEngine(Habits(faults=faults)), FakeDecoder(audio))
    check_words(recording.segments["transcribe"], spoken)


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.recording_decode.CAPACITY_WAIT_S", 0.0)
    calls = 0

    async def full() -> None:
        nonlocal calls
        calls += 1
        raise AtCapacityError("full")

    with pytest.raises(AtCapacityError):
        asyncio.run(patiently(full))
    assert calls == CAPACITY_TRIES


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"mode": "best"}, "mode"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": ("transcribe", "transcribe")}, "tasks"),
        ({"tasks": ("sing",)}, "tasks"),
        ({"batch_size": 0}, "batch_size"),
        ({"language": "xx"}, "language"),
        ({"language": None, "languages": ("xx",)}, "languages"),
        ({"clips": ((2.0, 2.0),)}, "clips"),
        ({"clips": ((-1.0, 2.0),)}, "clips"),
        ({"clips": ((0.0, 2.0), (1.9, 3.0))}, "clips"),
        ({"clips": ((0.0, float("nan")),)}, "clips"),
    ],
)
def test_what_cannot_be_asked_for(options: dict[str, Any], field: str) -> None:
    decoder = FakeDecoder(silence(1.0))
    with pytest.raises(BadInputError) as refused:
        transcribe(ScriptedEngine(), decoder, **options)
    assert refused.value.field == field
    assert decoder.readings == []
