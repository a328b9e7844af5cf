"""The language of a recording is what most of its speech is in, wherever it stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import BadInputError
from engine.recording_accurate import MAX_LANGUAGE_WINDOWS
from engine.recording_fast import MAX_HELD_WINDOWS
from engine.recording_language import LanguageVote, allowed_languages
from engine.recording_types import Task
from engine.types import DetectResult, FileSegment, FloatArray, WindowJob, WindowResult
from tests.fakes.engine import DEMO_INFO, EnergyDetector, ScriptedEngine
from tests.fakes.recordings import FakeDecoder, numbers_in, transcribe
from tests.fakes.tones import read_words, speak, word_number

INFO = replace(DEMO_INFO, file_window_s=5.0)
PAUSES_S = (0.1, 0.1, 0.1, 0.6)


class Bilingual(ScriptedEngine):
    """Words from 500 on are Spanish; where there are none it believes to hear Spanish music."""

    def __init__(self) -> None:
        super().__init__(info=INFO)

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        result = await super().transcribe_window(job)
        if job.language is not None:
            return result
        numbers = [word_number(word.text) for word in read_words(job.mel)]
        share = np.mean([number >= 500 for number in numbers]) if numbers else 1.0
        ranked = sorted({"es": float(share), "en": 1.0 - float(share)}.items(), key=lambda pair: -pair[1])
        probabilities: DetectResult = tuple(pair for pair in ranked if not job.languages or pair[0] in job.languages)
        return replace(result, language=probabilities[0][0], language_probs=probabilities)


def talk(spanish: int, english: int) -> tuple[FloatArray, list[int]]:
    """Spanish words, then English ones."""
    numbers = [*range(500, 500 + spanish), *range(english)]
    return speak(numbers, PAUSES_S)[0], numbers


def jobs_by_language(engine: ScriptedEngine) -> dict[str | None, int]:
    asked = [job.language for job in engine.hearing.jobs]
    return {language: asked.count(language) for language in asked}


@pytest.mark.parametrize("mode", ["fast", "accurate"])
def test_a_head_in_another_language_does_not_decide(mode: str) -> None:
    audio, numbers = talk(spanish=60, english=150)
    engine = Bilingual()
    recording = transcribe(engine, FakeDecoder(audio), language=None, mode=mode)
    assert recording.language == "en"
    assert 0.6 < recording.language_probability < 0.85
    assert dict(recording.language_probs).keys() == {"en", "es"}
    assert sum(dict(recording.language_probs).values()) == pytest.approx(1.0)
    segments = recording.segments["transcribe"]
    assert numbers_in(segments) == numbers
    assert {segment.language for segment in segments} == {"en"}


def test_only_what_was_taken_for_another_language_is_decoded_again() -> None:
    audio, _ = talk(spanish=60, english=150)
    engine = Bilingual()
    transcribe(engine, FakeDecoder(audio), language=None)
    asked = jobs_by_language(engine)
    again = asked["en"]
    first = asked[None]
    assert asked.keys() == {None, "en"}
    assert 0.2 * first < again < 0.4 * first


def test_music_has_no_vote() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * 16_000).astype(np.float32)
    audio, numbers = talk(spanish=0, english=30)
    recording = transcribe(Bilingual(), FakeDecoder(np.concatenate([noise, audio])), language=None)
    assert recording.language == "en"
    assert recording.language_probability > 0.95
    assert numbers_in(recording.segments["transcribe"]) == numbers


@pytest.mark.parametrize("held", [1, 3, MAX_HELD_WINDOWS])
@pytest.mark.parametrize(("spanish", "english"), [(60, 150), (150, 60)])
def test_what_is_not_held_is_read_again(held: int, spanish: int, english: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.recording_fast.MAX_HELD_WINDOWS", held)
    audio, numbers = talk(spanish, english)
    engine, decoder = Bilingual(), FakeDecoder(audio, 9_999)
    recording = transcribe(engine, decoder, language=None, tasks=("transcribe", "translate"))
    assert len(decoder.readings) == (1 if held == MAX_HELD_WINDOWS else 2)
    assert all(reading.is_closed for reading in decoder.readings)
    for segments in recording.segments.values():
        assert numbers_in(segments) == numbers
        assert {segment.language for segment in segments} == {"es" if spanish > english else "en"}


@pytest.mark.parametrize(("spanish", "english", "language"), [(10, 300, "en"), (300, 60, "es")])
def test_who_is_told_segments_does_not_wait_for_the_end(spanish: int, english: int, language: str) -> None:
    """SETTLE_S of speech decide, and every word is told once and in order."""
    audio, numbers = talk(spanish, english)
    engine = Bilingual()
    told: list[FileSegment] = []
    jobs_before: list[int] = []

    def tell(_task: Task, segment: FileSegment) -> None:
        told.append(segment)
        jobs_before.append(len(engine.hearing.jobs))

    recording = transcribe(engine, FakeDecoder(audio), language=None, on_segment=tell, batch_size=1)
    assert tuple(told) == recording.segments["transcribe"]
    assert numbers_in(told) == numbers
    assert (recording.language, {segment.language for segment in told}) == (language, {language})
    assert jobs_before[0] < len(engine.hearing.jobs) / 2


def test_a_song_before_the_speech_does_not_delay_segments_for_ever() -> None:
    """Words in what is hardly speech settle nothing; then the number of windows does, and the file is read once."""

    class Deaf(EnergyDetector):
        def push(self, samples: FloatArray) -> list[float]:
            return [min(probability, 0.3) for probability in super().push(samples)]

    audio, numbers = talk(0, 400)
    told: list[FileSegment] = []
    decoder = FakeDecoder(audio)
    recording = transcribe(
        Bilingual(), decoder, language=None, on_segment=lambda _, segment: told.append(segment), make_detector=Deaf
    )
    assert numbers_in(told) == numbers and recording.language == "en"
    assert len(decoder.readings) == 1


def test_a_single_choice_is_no_choice() -> None:
    audio, numbers = talk(spanish=0, english=20)
    engine = Bilingual()
    recording = transcribe(engine, FakeDecoder(audio), language=None, languages=("es",))
    assert (recording.language, recording.language_probability, recording.language_probs) == ("es", 1.0, (("es", 1.0),))
    assert jobs_by_language(engine).keys() == {"es"}
    assert numbers_in(recording.segments["transcribe"]) == numbers


def test_accurate_listens_to_few_windows_from_all_over() -> None:
    audio, _ = talk(spanish=150, english=300)
    engine = Bilingual()
    recording = transcribe(engine, FakeDecoder(audio), language=None, mode="accurate")
    assert recording.language == "en"
    assert 4 <= len(engine.hearing.jobs) <= MAX_LANGUAGE_WINDOWS
    assert not any(job.wants_words for job in engine.hearing.jobs)


def test_the_vote_is_weighted_by_speech() -> None:
    vote = LanguageVote(("en", "es"))
    vote.add((("es", 0.9), ("en", 0.1)), 10.0)
    vote.add((("en", 0.8), ("es", 0.2)), 30.0)
    assert vote.leader == "en"
    assert [code for code, _ in vote.probabilities] == ["en", "es"]
    assert [votes for _, votes in vote.probabilities] == pytest.approx([0.625, 0.375])


def test_a_vote_without_speech_counts_if_there_is_no_other() -> None:
    vote = LanguageVote(("en", "es"))
    vote.add((("es", 0.9), ("en", 0.1)), 0.0)
    assert vote.leader == "es"
    vote.add((("en", 0.9), ("es", 0.1)), 1.0)
    assert vote.leader == "en"


def test_allowed_languages() -> None:
    assert allowed_languages(INFO, None, ()) == ("en", "es")
    assert allowed_languages(INFO, None, ("es", "xx")) == ("es",)
    assert allowed_languages(INFO, "es", ("en",)) == ("es",)
    with pytest.raises(BadInputError):
        allowed_languages(INFO, None, ("xx",))
