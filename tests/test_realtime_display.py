"""What is shown of a hypothesis that may still change."""

from __future__ import annotations

import pytest

from realtime.display import FRESH_EDGE_SAMPLES, MAX_SHRINK_WORDS, shown_words, shrinks_too_much
from realtime.stability import TimedWord
from tests.test_realtime_stability import words


def text(shown: tuple[TimedWord, ...]) -> str:
    return "".join(word.text for word in shown)


def test_a_new_word_at_the_edge_waits_until_it_is_heard_twice() -> None:
    fresh = words("so we went")
    clear_of = fresh[-1].end + FRESH_EDGE_SAMPLES
    assert text(shown_words(fresh, [], 0, clear_of)) == " so we went"
    assert text(shown_words(fresh, [], 0, clear_of - 1)) == " so we"
    assert text(shown_words(fresh, words("so we Went,"), 0, clear_of - 1)) == " so we went"
    assert text(shown_words(fresh, words("so we want"), 0, clear_of - 1)) == " so we"


def test_what_stands_on_the_screen_is_replaced_in_its_place() -> None:
    fresh = words("so we want")
    assert text(shown_words(fresh, words("so we went"), 3, fresh[-1].end)) == " so we want"


@pytest.mark.parametrize(("previous", "expected"), [("it is", " it is"), ("it is.", " it is."), ("it is,", " it is")])
def test_the_mark_behind_the_last_word_is_shown_once_it_was_heard_twice(previous: str, expected: str) -> None:
    fresh = words("it is.")
    assert text(shown_words(fresh, words(previous), 0, 10 * fresh[-1].end)) == expected


def test_marks_inside_are_shown() -> None:
    assert text(shown_words(words("Yes, no"), [], 0, 100_000)) == " Yes, no"
    assert shown_words([], words("so"), 1, 100_000) == ()


@pytest.mark.parametrize("n_left", range(6))
def test_shrinking(n_left: int) -> None:
    shown = words("one two three four five")
    assert shrinks_too_much(shown, shown[:n_left]) is (n_left < 5 - MAX_SHRINK_WORDS)
