"""The fakes themselves: tone words are read back without error, or the tests built on them prove nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineFailedError
from engine.mel import LogMelStream
from engine.types import FileOptions, FloatArray, JobClass, WindowJob
from tests.fakes.engine import EnergyDetector, Habits, ScriptedEngine
from tests.fakes.tones import N_WORDS, WORD_S, read_words, silence, speak, word_number, word_text


def mel(samples: FloatArray, n_mels: int = 80) -> FloatArray:
    stream = LogMelStream(n_mels)
    return np.concatenate([stream.push(samples), stream.tail()], axis=1)


def job(samples: FloatArray, language: str | None = "en", job_class: JobClass = JobClass.FINAL) -> WindowJob:
    return WindowJob("s", job_class, mel(samples), language)


def texts(log_mel: FloatArray, **options: str) -> list[str]:
    return [word.text for word in read_words(log_mel, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_all_words_are_read_where_they_are(n_mels: int) -> None:
    for first in range(0, N_WORDS, 250):
        audio, spoken = speak(range(first, first + 250), [0.05, 0.08, 0.3])
        words = read_words(mel(audio, n_mels))
        assert [word_number(word.text) for word in words] == list(range(first, first + 250))
        for word, truth in zip(words, spoken, strict=True):
            assert word.start_s == pytest.approx(truth.start_s, abs=0.02)
            assert word.end_s == pytest.approx(truth.end_s, abs=0.02)


@given(st.integers(0, N_WORDS - 1))
def test_names(number: int) -> None:
    assert word_number(word_text(number)) == number
    assert word_number(word_text(number).upper() + "?") == number
    assert word_text(number)[0] == " "


@pytest.mark.parametrize("text", ["", " bace", " bacedix", " hello"])
def test_other_texts_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        word_number(text)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.lists(st.floats(0.05, 0.4), min_size=1, max_size=3))
def test_equal_neighbours_are_not_one_word(numbers: list[int], pauses_s: list[float]) -> None:
    audio, _ = speak(numbers, pauses_s, lead_s=0.0, tail_s=0.0)
    assert texts(mel(audio)) == [word_text(number) for number in numbers]


@pytest.mark.parametrize("share, read, garbled", [(0.2, False, False), (0.42, False, True), (0.6, True, True)])
def test_cut_words(share: float, read: bool, garbled: bool) -> None:
    audio, _ = speak([123], lead_s=0.5, tail_s=0.5)
    head = audio[: int((0.5 + share * WORD_S) * 16_000)]
    tail = audio[int((0.8 - share * WORD_S) * 16_000) :]
    for part in (head, tail):
        assert texts(mel(part)) == ([" cedifo"] if read else [])
        said = texts(mel(part), cut="garble")
        assert len(said) == garbled
        assert read or " cedifo" not in said


def test_damage_shows() -> None:
    audio, _ = speak([123, 456], lead_s=0.5, tail_s=0.5)
    without = np.delete(audio, slice(int(0.58 * 16_000), int(0.66 * 16_000)))
    assert texts(mel(without)) == [" cedifo~", " gukale"]
    doubled = np.concatenate([audio[:9_600], audio[8_480:]])
    assert texts(mel(doubled)) != [" cedifo", " gukale"]
    hole = audio.copy()
    hole[10_000:11_000] = 0
    assert texts(mel(hole)) != [" cedifo", " gukale"]


def test_silence_has_no_words() -> None:
    assert read_words(mel(silence(1.0))) == ()
    assert read_words(np.zeros((80, 0), dtype=np.float32)) == ()


def test_pauses_too_short_to_be_heard_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.05 or more"):
        speak([1], [0.04])


def test_the_detector_hears_words_only() -> None:
    audio, _ = speak([7], lead_s=0.512, tail_s=0.512)
    detector, late = EnergyDetector(), EnergyDetector(lag_frames=2)
    whole = detector.push(audio)
    assert len(whole) == len(audio) // 512
    assert whole[:16] == [0.0] * 16
    assert whole[16:25] == [1.0] * 9
    assert whole[26:] == [0.0] * len(whole[26:])
    assert [p for at in range(0, len(audio), 100) for p in late.push(audio[at : at + 100])][16:20] == [0, 0, 1, 1]


def test_the_engine_takes_its_time_and_fails_on_demand() -> None:
    audio, _ = speak([1, 2])
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def scenario() -> None:
        habits = Habits(cost_s=0.1, cost_per_s=0.2, delays_s={1: 7.0}, faults={2: EngineFailedError("broken")})
        engine = ScriptedEngine(habits, sleep=sleep)
        first = await engine.transcribe_window(job(audio))
        assert [word.text for word in first.words] == [" babace", " babadi"]
        second = await engine.transcribe_window(job(audio, language=None))
        assert (second.language, second.language_probs) == ("en", (("en", 0.97), ("es", 0.03)))
        with pytest.raises(EngineFailedError, match="broken"):
            await engine.transcribe_window(job(audio))
        segments = [segment async for segment in engine.transcribe_file(audio, FileOptions())]
        assert [(segment.text, segment.language) for segment in segments] == [(" babace babadi", "en")]

    asyncio.run(scenario())
    window_s = job(audio).mel.shape[1] / 100
    assert slept[:2] == pytest.approx([0.1 + 0.2 * window_s, 7.1 + 0.2 * window_s])


def test_the_engine_misbehaves_on_demand() -> None:
    audio, _ = speak([1, 2])

    def hear(habits: Habits, samples: FloatArray = audio, job_class: JobClass = JobClass.PARTIAL) -> list[str]:
        engine = ScriptedEngine(habits)
        result = asyncio.run(engine.transcribe_window(job(samples, job_class=job_class)))
        return [word.text for word in result.words]

    assert hear(Habits(garbage=1.0)) != [" babace", " babadi"]
    assert hear(Habits(garbage=1.0), job_class=JobClass.FINAL) == [" babace", " babadi"]
    assert len(hear(Habits(loops=lambda call, job: True))) == 42
    assert hear(Habits(silence_says=" Thanks."), silence(1.0)) == [" Thanks."]
    assert hear(Habits(text_of={1: " Hello", 2: " world."})) == [" Hello", " world."]
    flickered = {tuple(hear(Habits(flicker=True, seed=seed))) for seed in range(10)}
    assert len(flickered) > 3
    assert {tuple(word_number(text) for text in said) for said in flickered} == {(1, 2)}
