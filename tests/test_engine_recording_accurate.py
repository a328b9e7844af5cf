"""Whole recordings through the sequential pipeline, block after block (scripted engine, fake decoder)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.errors import AtCapacityError, EngineFailedError
from engine.recording import transcribe_recording
from engine.recording_accurate import MAX_PROMPT_CHARS, MAX_PROMPT_TEMPERATURE
from engine.recording_types import RecordingOptions, VadOptions
from engine.types import SAMPLE_RATE_HZ, FileOptions, FileSegment, FloatArray
from tests.fakes.engine import EnergyDetector, ScriptedEngine
from tests.fakes.recordings import FakeDecoder, numbers_in, transcribe, words_of
from tests.fakes.tones import speak

PAUSES_S = (0.1, 0.1, 0.1, 0.7)


class Noting(ScriptedEngine):
    """Notes what it is given; its first calls fail as told, and its texts came out at `temperature`."""

    def __init__(self, *faults: Exception, temperature: float = 0.0) -> None:
        super().__init__()
        self.calls: list[tuple[float, FileOptions]] = []
        self.n_open = 0
        self._faults = list(faults)
        self._temperature = temperature

    async def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        if self._faults:
            raise self._faults.pop(0)
        self.calls.append((len(samples) / SAMPLE_RATE_HZ, options))
        self.n_open += 1
        try:
            async for segment in super().transcribe_file(samples, options):
                yield replace(segment, temperature=self._temperature)
        finally:
            self.n_open -= 1


@pytest.fixture(autouse=True)
def _short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a block held 20 s: many blocks of little audio."""
    monkeypatch.setattr("engine.recording_accurate.BLOCK_S", 20.0)


@pytest.mark.parametrize("block_samples", [1_000, 65_536])
@pytest.mark.parametrize("vad", [None, VadOptions(min_silence_duration_ms=400, speech_pad_ms=60)])
def test_every_word_once_and_in_its_place(block_samples: int, vad: VadOptions | None) -> None:
    audio, spoken = speak(range(300), PAUSES_S)
    engine = Noting()
    recording = transcribe(engine, FakeDecoder(audio, block_samples), mode="accurate", word_timestamps=True, vad=vad)
    heard = words_of(recording.segments["transcribe"])
    assert [word.number for word in heard] == [word.number for word in spoken]
    for found, said in zip(heard, spoken, strict=True):
        assert abs(found.start_s - said.start_s) < 0.06
    assert len(engine.calls) > 5
    assert all(10 < length_s <= 20 for length_s, _ in engine.calls[:-1])
    ends = [(segment.start_s, segment.end_s) for segment in recording.segments["transcribe"]]
    assert all(a[1] <= b[0] for a, b in pairwise(ends))
    assert recording.warnings == ()


def test_without_word_times_segments_have_theirs() -> None:
    audio, spoken = speak(range(100), PAUSES_S)
    segments = transcribe(Noting(), FakeDecoder(audio), mode="accurate").segments["transcribe"]
    assert numbers_in(segments) == [word.number for word in spoken]
    assert not any(segment.words for segment in segments)
    assert all(abs(segment.start_s - spoken[4 * n].start_s) < 0.06 for n, segment in enumerate(segments))


def test_the_text_before_is_the_prompt() -> None:
    audio, _ = speak(range(200), PAUSES_S)
    engine = Noting()
    text = "".join(
        segment.text
        for segment in transcribe(engine, FakeDecoder(audio), mode="accurate", prompt="Names.").segments["transcribe"]
    )
    prompts = [options.prompt for _, options in engine.calls]
    assert prompts[0] == "Names."
    assert all(len(prompt) == MAX_PROMPT_CHARS and prompt in text for prompt in prompts[1:])
    assert all(options.condition_on_previous_text for _, options in engine.calls)


def test_not_if_nobody_wants_it() -> None:
    audio, _ = speak(range(100), PAUSES_S)
    engine = Noting()
    transcribe(engine, FakeDecoder(audio), mode="accurate", prompt="Names.", condition_on_previous_text=False)
    assert {options.prompt for _, options in engine.calls} == {"Names."}
    assert not any(options.condition_on_previous_text for _, options in engine.calls)


@pytest.mark.parametrize(("temperature", "is_used"), [(MAX_PROMPT_TEMPERATURE, True), (0.51, False)])
def test_doubtful_text_is_no_prompt(temperature: float, is_used: bool) -> None:
    audio, _ = speak(range(100), PAUSES_S)
    engine = Noting(temperature=temperature)
    transcribe(engine, FakeDecoder(audio), mode="accurate")
    assert bool(engine.calls[1][1].prompt) is is_used


def test_both_tasks_and_all_options() -> None:
    audio, spoken = speak(range(100), PAUSES_S)
    engine = Noting()
    told: list[str] = []
    done: list[float] = []
    recording = transcribe(
        engine,
        FakeDecoder(audio),
        mode="accurate",
        tasks=("transcribe", "translate"),
        hotwords="words",
        on_segment=lambda task, _: told.append(task),
        on_progress=done.append,
    )
    for segments in recording.segments.values():
        assert numbers_in(segments) == [word.number for word in spoken]
    assert [options.task for _, options in engine.calls[:4]] == ["transcribe", "translate"] * 2
    assert {options.hotwords for _, options in engine.calls} == {"words"}
    assert not any(options.vad_filter for _, options in engine.calls)
    assert told.count("translate") == len(recording.segments["translate"])
    assert done == sorted(done)
    assert done[-1] == recording.duration_s


def test_clips() -> None:
    audio, spoken = speak(range(100), PAUSES_S)
    clips = ((3.0, 8.0), (20.0, 25.0))
    recording = transcribe(Noting(), FakeDecoder(audio), mode="accurate", clips=clips, word_timestamps=True)
    inside = [s.number for s in spoken if any(a <= s.start_s and s.end_s <= b for a, b in clips)]
    assert set(inside) <= set(numbers_in(recording.segments["transcribe"]))
    assert len(words_of(recording.segments["transcribe"])) <= len(inside) + 4


def test_a_full_engine_is_asked_again() -> None:
    audio, spoken = speak(range(30), PAUSES_S)
    engine = Noting(AtCapacityError("full"), AtCapacityError("full"))
    recording = transcribe(engine, FakeDecoder(audio), mode="accurate")
    assert numbers_in(recording.segments["transcribe"]) == [word.number for word in spoken]


def test_a_block_that_fails_ends_it() -> None:
    audio, _ = speak(range(100), PAUSES_S)
    decoder = FakeDecoder(audio)
    with pytest.raises(EngineFailedError):
        transcribe(Noting(EngineFailedError("no such luck")), decoder, mode="accurate")
    assert decoder.readings[0].is_closed


def test_whoever_listens_may_fail_and_nothing_stays_open() -> None:
    audio, _ = speak(range(100), PAUSES_S)
    engine = Noting()

    def fail(*_: object) -> None:
        raise RuntimeError("the reader is gone")

    with pytest.raises(RuntimeError, match="the reader is gone"):
        transcribe(engine, FakeDecoder(audio), mode="accurate", on_segment=fail)
    assert engine.n_open == 0


def test_cancelling_closes_the_recording_in_the_engine() -> None:
    audio, _ = speak(range(100), PAUSES_S)

    async def run() -> None:
        has_begun = asyncio.Event()

        class Stuck(Noting):
            async def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
                self.n_open += 1
                has_begun.set()
                try:
                    await asyncio.Event().wait()
                    yield FileSegment(0.0, 0.0, "", "en")
                finally:
                    self.n_open -= 1

        engine, decoder = Stuck(), FakeDecoder(audio)
        options = RecordingOptions(mode="accurate", language="en")
        work = asyncio.create_task(
            transcribe_recording(engine, decoder, b"", options, max_audio_s=99.0, make_detector=EnergyDetector)
        )
        await has_begun.wait()
        assert engine.n_open == 1
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert engine.n_open == 0
        assert decoder.readings[0].is_closed

    asyncio.run(run())
