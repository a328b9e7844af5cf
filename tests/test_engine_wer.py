"""engine.wer: normalisation, error counts, alignment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import wer
from engine.errors import BadInputError
from engine.wer import Pair, WordErrors, align, count_errors, normalise, word_errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" ... ", ()),
        (" Good morning, Peter. ", ("good", "morning", "peter")),
        ("¿Dónde está?", ("dónde", "está")),
        ("Donde\u0301", ("dondé",)),
        ("don't DON’T", ("dont", "dont")),
        ("half-past nine", ("half", "past", "nine")),
        ("at 9:30, room 12", ("at", "9", "30", "room", "12")),
        ("Straße", ("straße",)),
        ("a\nb\tc", ("a", "b", "c")),
        ("हिन्दी", ("हिन्दी",)),
    ],
)
def test_normalise(text: str, words: tuple[str, ...]) -> None:
    assert normalise(text) == words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("a b c", "A, b; c!", WordErrors(0, 0, 0, 3)),
        ("a b c", "a x c", WordErrors(1, 0, 0, 3)),
        ("a b c", "a c", WordErrors(0, 1, 0, 3)),
        ("a b c", "a b b c", WordErrors(0, 0, 1, 3)),
        ("a b c", "", WordErrors(0, 3, 0, 3)),
        ("", "a b", WordErrors(0, 0, 2, 0)),
        ("", "", WordErrors(0, 0, 0, 0)),
        ("a b c d", "b x d e", WordErrors(1, 1, 1, 4)),
    ],
)
def test_word_errors(reference: str, hypothesis: str, errors: WordErrors) -> None:
    assert word_errors(reference, hypothesis) == errors


def test_rate_divides_by_the_reference() -> None:
    assert WordErrors(1, 2, 3, 12).rate == 0.5
    assert WordErrors(0, 0, 2, 0).rate == 2.0
    assert WordErrors().rate == 0.0


def test_counts_add_up() -> None:
    assert WordErrors(1, 2, 3, 4) + WordErrors(1, 1, 1, 10) == WordErrors(2, 3, 4, 14)


def test_a_growing_text_is_matched_from_the_left() -> None:
    pairs = align(("the", "end", "of", "the", "end"), ("the", "end"))
    assert [pair for pair in pairs if pair.is_match] == [Pair(0, 0, True), Pair(1, 1, True)]


def test_alignment_tells_where_the_words_went() -> None:
    assert align(("a", "b", "c"), ("a", "x", "c", "d")) == (
        Pair(0, 0, True),
        Pair(1, 1, False),
        Pair(2, 2, True),
        Pair(None, 3, False),
    )


def test_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wer, "MAX_CELLS", 6)
    assert count_errors(align(("a", "b"), ("a", "b", "c"))).insertions == 1
    with pytest.raises(BadInputError, match="at most 6"):
        align(("a",), ("a",) * 7)


words = st.lists(st.sampled_from("abc"), max_size=8)


@given(words, words)
def test_alignment_is_a_cheapest_one(reference: list[str], hypothesis: list[str]) -> None:
    pairs = align(reference, hypothesis)
    assert [pair.reference for pair in pairs if pair.reference is not None] == list(range(len(reference)))
    assert [pair.hypothesis for pair in pairs if pair.hypothesis is not None] == list(range(len(hypothesis)))
    assert count_errors(pairs).errors == _plain_distance(reference, hypothesis)
    assert count_errors(pairs).reference_words == len(reference)


def _plain_distance(reference: list[str], hypothesis: list[str]) -> int:
    """The textbook recurrence, cell by cell."""
    above = list(range(len(hypothesis) + 1))
    for row, word in enumerate(reference, start=1):
        here = [row]
        for column, other in enumerate(hypothesis, start=1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (word != other)))
        above = here
    return above[-1]
