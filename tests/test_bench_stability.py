"""bench.stability: flicker that can be counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stability import Churn, Stability, stability
from realtime.client.messages import Segment, Update


def update(completed: str = "", provisional: str = "") -> Update:
    return Update(
        (Segment(0, 1, completed, True),) if completed else (),
        Segment(0, 1, provisional, False) if provisional else None,
        0.0,
    )


def churn(*texts: tuple[str, str]) -> Churn:
    return stability([update(*pair) for pair in texts]).raw


def test_text_that_only_grows_is_stable() -> None:
    seen = churn(("", "a"), ("", "a b"), ("a", "b c"), ("b c d", ""))
    assert seen == Churn(0, 0, 4)
    assert (seen.upwr, seen.erasure) == (0.0, 0.0)


def test_a_changed_word_and_what_stands_behind_it() -> None:
    # "b" is replaced; "c" stays but was erased on the way.
    assert churn(("", "a b c"), ("", "a x c d")) == Churn(1, 2, 4)


def test_a_word_put_before_others_moves_them_only() -> None:
    assert churn(("", "b c"), ("", "a b c")) == Churn(0, 2, 3)


def test_words_taken_back() -> None:
    assert churn(("", "a b c"), ("", "a")) == Churn(2, 2, 1)
    assert churn(("", "a b"), ("", "")) == Churn(2, 2, 0)
    assert churn(("", "a b"), ("", "")).upwr == 2.0


def test_a_word_that_flickers_counts_each_time() -> None:
    assert churn(("", "a"), ("", "x"), ("", "a"), ("a", "")) == Churn(2, 2, 1)


def test_completing_provisional_text_changes_nothing() -> None:
    assert churn(("", "a b c"), ("a b", "c"), ("c", "")) == Churn(0, 0, 3)


def test_completed_words_that_differ_from_what_was_shown() -> None:
    assert churn(("", "a b c"), ("a x", "c")) == Churn(1, 2, 3)


def test_text_left_provisional_is_part_of_the_last_text() -> None:
    assert churn(("a", "b"), ("", "b c")).words == 3


def test_case_and_punctuation_count_on_the_screen_only() -> None:
    seen = stability([update("", "Good morning"), update("", "Good morning, Peter"), update("Good morning. Peter.")])
    assert seen.raw == Churn(3, 3, 3)
    assert seen.normalised == Churn(0, 0, 3)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ([("", "a b c d"), ("", "a")], 3),
        ([("", "a b c d"), ("a b c", "d")], 0),
        ([("", "a b c d"), ("a b c d", "")], 0),
        ([("", "a"), ("", "a b"), ("", ""), ("", "c")], 2),
        ([], 0),
    ],
)
def test_largest_shrink_counts_only_without_a_completion(texts: list[tuple[str, str]], words: int) -> None:
    assert stability([update(*pair) for pair in texts]).largest_shrink_words == words


def test_streams_add_up() -> None:
    one = stability([update("", "a b"), update("", "a x")])
    other = stability([update("", "a b c"), update("", "")])
    assert one + other == Stability(Churn(4, 4, 2), Churn(4, 4, 2), 3)
    assert sum((one, other), Stability()) == one + other


words = st.lists(st.sampled_from("abc"), max_size=4).map(" ".join)


@given(st.lists(st.tuples(words, words), max_size=8))
def test_erasure_is_never_below_instability(texts: list[tuple[str, str]]) -> None:
    seen = churn(*texts)
    assert 0 <= seen.unstable <= seen.erased
    assert seen.words == sum(len(done.split()) for done, _ in texts) + (len(texts[-1][1].split()) if texts else 0)
