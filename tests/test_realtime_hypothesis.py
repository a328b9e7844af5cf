"""What a decode becomes on the sample clock, and what is dropped."""

from __future__ import annotations

import pytest

from engine.types import SAMPLE_RATE_HZ as S
from engine.types import WindowResult, Word
from realtime.hypothesis import HALLUCINATION_LOGPROB, LOW_PROBABILITY, MIN_PHRASE_SAMPLES, timed_words


def result(
    *texts: str, avg_logprob: float = -0.1, no_speech_prob: float = 0.0, probability: float = 0.9
) -> WindowResult:
    words = tuple(Word(text, n, n + 0.5, probability) for n, text in enumerate(texts))
    return WindowResult(words, "en", (), avg_logprob, no_speech_prob, 1.0)


def test_words_get_their_place_on_the_sample_clock_and_stay_in_the_window() -> None:
    words = timed_words(result(" so", " it", " goes"), 10 * S, 12 * S, 0.45, S)
    assert [(word.text, word.start, word.end) for word in words] == [
        (" so", 10 * S, int(10.5 * S)),
        (" it", 11 * S, int(11.5 * S)),
        (" goes", 12 * S, 12 * S),
    ]


@pytest.mark.parametrize(
    ("avg_logprob", "no_speech_prob", "is_kept"),
    [(HALLUCINATION_LOGPROB, 0.9, True), (HALLUCINATION_LOGPROB - 0.01, 0.9, False), (-3.0, 0.45, True)],
)
def test_only_what_is_both_unlikely_and_silent_is_dropped(
    avg_logprob: float, no_speech_prob: float, is_kept: bool
) -> None:
    found = result(" thanks", avg_logprob=avg_logprob, no_speech_prob=no_speech_prob)
    assert bool(timed_words(found, 0, S, 0.45, S)) is is_kept


def test_punctuation_alone_is_noise_and_beside_words_it_stays() -> None:
    assert timed_words(result(".", " ..."), 0, 3 * S, 0.45, S) == []
    assert [word.text for word in timed_words(result(" yes", " ...", " "), 0, 4 * S, 0.45, S)] == [" yes", " ..."]


@pytest.mark.parametrize(
    "text", [" Thanks for watching!", " Untertitel im Auftrag des ZDF.", "ご視聴ありがとうございました。"]
)
def test_what_whisper_says_of_silence_counts_only_if_somebody_spoke(text: str) -> None:
    sure = result(text)
    assert timed_words(sure, 0, 9 * S, 0.45, MIN_PHRASE_SAMPLES)
    assert not timed_words(sure, 0, 9 * S, 0.45, MIN_PHRASE_SAMPLES - 1)
    assert timed_words(result(text, probability=LOW_PROBABILITY), 0, S, 0.45, S)
    assert not timed_words(result(text, probability=LOW_PROBABILITY - 0.01), 0, S, 0.45, S)
    assert timed_words(result(" So,", text, probability=0.1), 0, S, 0.45, S), "only the whole text is a phrase"
