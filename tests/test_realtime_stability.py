"""Local agreement: what is final, what was said before, what is a loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sentences import ends_sentence
from realtime.stability import (
    SURE_MARGIN_S,
    SURE_PROBABILITY,
    TimedWord,
    agreed_prefix,
    before_loop,
    normalised,
    skip_completed,
    stable_prefix,
)

RATE_HZ = 16_000


def words(
    text: str, start_s: float = 0.0, word_s: float = 0.3, gap_s: float = 0.1, probability: float = 0.8
) -> list[TimedWord]:
    """Words of equal length, one after the other."""
    made = []
    for index, word in enumerate(text.split()):
        begin_s = start_s + index * (word_s + gap_s)
        made.append(TimedWord(" " + word, int(begin_s * RATE_HZ), int((begin_s + word_s) * RATE_HZ), probability))
    return made


def moved(word: TimedWord, by_s: float) -> TimedWord:
    by = int(by_s * RATE_HZ)
    return TimedWord(word.text, word.start + by, word.end + by, word.probability)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" Hello,", "hello"),
        ("STRASSE", "strasse"),
        (" Straße.", "strasse"),
        (" 3,000", "3000"),
        (" ﬁne", "fine"),
        ("don't", "dont"),
        (" ...", ""),
        (" 你好。", "你好"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    assert normalised(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == normalised(normalised(once))


@pytest.mark.parametrize(
    ("text", "ends"),
    [(" end.", True), (' end."', True), (" what?)", True), (" no", False), (" 1,", False), ("终。", True), ("", False)],
)
def test_sentence_ends(text: str, ends: bool) -> None:
    assert ends_sentence(text) is ends


def test_agreement_counts_words_and_not_punctuation() -> None:
    previous, current = words("so we go home"), words("So, we go. home now")
    assert agreed_prefix(previous, current, 10**9, RATE_HZ) == 4


def test_the_last_word_never_counts() -> None:
    assert agreed_prefix(words("so we go"), words("so we go"), 10**9, RATE_HZ) == 2
    assert agreed_prefix(words("so"), words("so"), 10**9, RATE_HZ) == 0


def test_disagreement_ends_the_prefix() -> None:
    assert agreed_prefix(words("so we went home"), words("so we go home now"), 10**9, RATE_HZ) == 2
    assert agreed_prefix([], words("so we go"), 10**9, RATE_HZ) == 0
    assert agreed_prefix(words("so we go"), [], 10**9, RATE_HZ) == 0


def test_words_at_the_edge_do_not_count() -> None:
    current = words("so we go home now")
    assert agreed_prefix(words("so we go home"), current, current[1].end, RATE_HZ) == 2
    assert agreed_prefix(words("so we go home"), current, current[1].end - 1, RATE_HZ) == 1


def test_words_of_which_the_model_is_sure_need_no_second_hypothesis() -> None:
    sure = words("so we go home now", probability=SURE_PROBABILITY)
    clear_of = sure[2].end + int(SURE_MARGIN_S * RATE_HZ)
    assert stable_prefix([], sure, clear_of, clear_of, RATE_HZ) == 3
    assert stable_prefix([], sure, clear_of - 1, clear_of - 1, RATE_HZ) == 2
    far = sure[-1].end + 10 * RATE_HZ
    assert stable_prefix([], sure, far, far, RATE_HZ) == 4, "the last word never counts"
    doubtful = [*sure[:1], *words("we go home now", 0.4, probability=SURE_PROBABILITY - 0.01)]
    assert stable_prefix([], doubtful, far, far, RATE_HZ) == 1
    assert stable_prefix(words("so we"), doubtful, far, far, RATE_HZ) == 2, "agreed words come before sure ones"
    other = words("so they go home now")
    assert stable_prefix(other, sure, far, far, RATE_HZ) == 1, "the hypothesis before it says something else"
    timeless = words("so we go", word_s=0.01, gap_s=0.5, probability=1.0)
    assert stable_prefix([], timeless, far, far, RATE_HZ) == 0


def test_a_running_start_is_found_again() -> None:
    completed = words("we went home")
    again = [*words("we went home"), *words("and slept", 1.2)]
    assert skip_completed(completed, again, RATE_HZ) == 3
    assert skip_completed(completed, completed, RATE_HZ) == 3
    assert skip_completed([], again, RATE_HZ) == 0
    assert skip_completed(completed, [], RATE_HZ) == 0


def test_a_running_start_heard_differently_is_neither_said_twice_nor_lost() -> None:
    completed = words("we went home")
    for text, expected in [
        ("we want home and slept", 3),
        ("he went hole and slept", 3),
        ("We went home, and slept", 3),
    ]:
        assert skip_completed(completed, words(text), RATE_HZ) == expected


def test_a_running_start_heard_in_part() -> None:
    completed = words("we went home")
    following = words("and slept", 1.2)
    assert skip_completed(completed, [*words("went home", 0.4), *following], RATE_HZ) == 2
    assert skip_completed(completed, [*words("home", 0.8), *following], RATE_HZ) == 1
    assert skip_completed(completed, following, RATE_HZ) == 0
    # One word heard as two.
    split = [*words("we", 0.0), *words("wen t", 0.4, word_s=0.15, gap_s=0.0), *words("home", 0.8), *following]
    assert skip_completed(completed, split, RATE_HZ) == 4


def test_repeated_words_are_told_apart_by_time() -> None:
    completed = words("no no")
    assert skip_completed(completed, words("no no no"), RATE_HZ) == 2
    assert skip_completed(completed, words("no no no", 0.05), RATE_HZ) == 2
    assert skip_completed(completed, words("no no no", 0.4), RATE_HZ) == 1
    assert skip_completed(completed, words("no no", 1.6), RATE_HZ) == 0


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=12),
    st.integers(1, 12),
    st.lists(st.floats(-0.06, 0.06), min_size=12, max_size=12),
)
def test_exact_words_at_inexact_times(said: list[str], n_completed: int, errors_s: list[float]) -> None:
    every = words(" ".join(said))
    n_completed = min(n_completed, len(every))
    again = [moved(word, error_s) for word, error_s in zip(every, errors_s, strict=False)]
    assert skip_completed(every[:n_completed], again, RATE_HZ) == n_completed


def test_a_loop_is_cut_off() -> None:
    said = words("we went home")
    loop = words("home " * 30, 1.2, word_s=0.005, gap_s=0.0)
    assert before_loop([*said, *loop], RATE_HZ) == said
    assert before_loop(loop, RATE_HZ) == []
    assert before_loop(said, RATE_HZ) == said
    assert before_loop([], RATE_HZ) == []


def test_fast_speech_is_no_loop() -> None:
    fast = words("a b c d e f g h", word_s=0.08, gap_s=0.0)
    assert before_loop(fast, RATE_HZ) == fast
    # Five words at one place may be an alignment that failed; six are a loop.
    assert len(before_loop(words("a b c d e", word_s=0.0, gap_s=0.0), RATE_HZ)) == 5
    assert len(before_loop(words("a b c d e f", word_s=0.0, gap_s=0.0), RATE_HZ)) == 0


def test_words_on_top_of_each_other_are_a_loop_with_one_real_word() -> None:
    heap = [TimedWord(" go", 100 * n, 100 * n + 4_000, 0.5) for n in range(6)]
    assert before_loop(heap, RATE_HZ) == heap[:1]


def test_words_whose_times_collapsed_are_still_recognised() -> None:
    """Where the audio breaks off in mid-speech the model may put all words at one place."""
    said = words("the meeting starts at half past nine")
    collapsed = [TimedWord(word.text, said[0].start, said[0].start, word.probability) for word in said[:4]]
    assert skip_completed(collapsed, said, RATE_HZ) == 4
    late = [TimedWord(word.text, said[3].end, said[3].end, word.probability) for word in said[:4]]
    assert skip_completed(late, said, RATE_HZ) == 4
    assert skip_completed(said[:4], [*late, *said[4:]], RATE_HZ) == 4
