"""bench.utterances: latencies from the start and from the end of speech."""

from __future__ import annotations

import pytest

from bench.utterances import END_PAUSE_S, FIRST_PARTIAL_PAUSE_S, utterance_times, utterances
from realtime.client.latency import GoldWord, WordTimes


def gold(*times: tuple[float, float]) -> list[GoldWord]:
    return [GoldWord(f"w{place}", start, end) for place, (start, end) in enumerate(times)]


@pytest.mark.parametrize(("gap_s", "expected"), [(0.499, 1), (0.5, 2), (0.501, 2)])
def test_a_pause_divides_at_its_length_and_not_below(gap_s: float, expected: int) -> None:
    # 1.1 + 0.5 - 1.1 is less than 0.5 in binary.
    assert len(utterances(gold((0, 1.1), (1.1 + gap_s, 2.5)), FIRST_PARTIAL_PAUSE_S)) == expected


def test_utterances_cover_all_words_once() -> None:
    words = gold((0, 0.5), (0.6, 1), (2, 2.5), (2.6, 3), (4, 5))
    assert utterances(words, 0.8) == (range(2), range(2, 4), range(4, 5))
    assert utterances([], 0.8) == ()


def times(*marks: tuple[float | None, float | None, float | None]) -> list[WordTimes]:
    """Two words without a pause, 0.6 s of pause, one word, 1 s of pause, one word."""
    words = gold((0, 0.5), (0.5, 1), (1.6, 2), (3, 3.5))
    return [WordTimes(word, *mark) for word, mark in zip(words, marks, strict=True)]


def test_first_partial_counts_from_the_start_of_the_first_word() -> None:
    seen = utterance_times(times((10.4, 12, 12), (11, 12, 12), (12.5, 13, 13), (13.25, 14, 14)), lambda s: 10 + s)
    assert seen.first_partial_s == pytest.approx((0.4, 0.9, 0.25))


def test_the_end_of_speech_is_that_of_the_last_word_before_a_long_pause() -> None:
    # The pause of 0.6 s is within END_PAUSE_S.
    seen = utterance_times(times((11, 12, 12), (11, 12, 12), (12.5, 12.75, 12.75), (13.5, 14, 14)), lambda s: 10 + s)
    assert END_PAUSE_S > 0.6
    assert seen.end_to_final_s == pytest.approx((0.75, 0.5))
    assert seen.ttfs_s == pytest.approx((0.75, 0.5))


def test_a_wrong_last_word_has_a_final_segment_all_the_same() -> None:
    seen = utterance_times(times((11, 12, 12), (11, 12, 12), (None, None, 12.9), (None, None, None)), lambda s: 10 + s)
    assert seen.first_partial_s[1:] == (None, None)
    assert seen.end_to_final_s == (None, None)
    assert seen.ttfs_s[:1] == pytest.approx((0.9,))
    assert seen.ttfs_s[1:] == (None,)


def test_ttfs_is_that_of_the_last_segment_whichever_word_it_holds() -> None:
    seen = utterance_times(times((11, 12.6, 12.6), (11, 12, 12), (None, None, None), (14, 14, 14)), lambda s: 10 + s)
    assert seen.ttfs_s[0] == pytest.approx(0.6)


def test_a_final_before_the_labelled_end_is_negative() -> None:
    seen = utterance_times(times((11, 11, 11), (11, 11, 11), (11.9, 11.9, 11.9), (14, 14, 14)), lambda s: 10 + s)
    assert seen.end_to_final_s[0] == pytest.approx(-0.1)
