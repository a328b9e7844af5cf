"""engine/words.py: punctuation, times, and that no text is lost on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.words import Piece, build_words, pieces_of

ENOUGH = 3_000


def piece(text: str, start_s: float = 0.0, end_s: float = 0.0, probability: float = 0.5) -> Piece:
    return Piece(text, tuple(range(len(text))), start_s, end_s, probability)


def texts(*pieces: str, is_spaced: bool = True) -> list[str]:
    return [word.text for word in build_words([piece(text) for text in pieces], ENOUGH, is_spaced=is_spaced)]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ([], []),
        ([" one", " two"], [" one", " two"]),
        ([" Hello", ",", " Anna", "."], [" Hello,", " Anna."]),
        ([" Wait", ".", ".", ".", " what", "?", "!"], [" Wait...", " what?!"]),
        ([' "', "No", '"', " she", " said"], [' "No"', " she", " said"]),
        ([" ¿", "Cómo", " está", "?"], [" ¿Cómo", " está?"]),
        ([" (", " aside", ")"], [" ( aside)"]),
        ([" 3", ".", "5", " percent"], [" 3.5", " percent"]),
        ([" well", "-", "known"], [" well-known"]),
        ([" yes", " -", " no"], [" yes", " - no"]),
        ([" ", " lone"], ["  lone"]),
        ([" end", " ("], [" end", " ("]),
        (["."], ["."]),
    ],
)
def test_punctuation_joins_its_neighbour(pieces: list[str], words: list[str]) -> None:
    assert texts(*pieces) == words


def test_without_blanks_between_words_pieces_stay_apart() -> None:
    assert texts("今", "日", "は", "。", "「", "雨", is_spaced=False) == ["今", "日", "は。", "「", "雨"]


def test_punctuation_gives_no_time() -> None:
    pieces = [piece(" ¿", 0.0, 0.2), piece("Sí", 0.2, 0.5), piece("?", 0.5, 4.0), piece(" No", 4.0, 4.3)]
    first, second = build_words(pieces, ENOUGH, is_spaced=True)
    assert (first.text, first.start_s, first.end_s) == (" ¿Sí?", 0.2, 0.5)
    assert (second.start_s, second.end_s) == (4.0, 4.3)


def test_punctuation_gives_no_probability_and_long_pieces_weigh_more() -> None:
    pieces = [piece(" a", probability=0.2), piece("bcde", probability=0.8), piece(".", probability=0.0)]
    [word] = build_words(pieces, ENOUGH, is_spaced=True)
    assert word.probability == pytest.approx((2 * 0.2 + 4 * 0.8) / 6)


@pytest.mark.parametrize("before", ["", " end."])
def test_the_first_word_behind_a_pause_does_not_begin_in_it(before: str) -> None:
    begin = [piece(before, 0.0, 0.3)] if before else []
    spoken = [piece(" I", 1.0, 3.0), piece(" am", 3.0, 3.3), piece(" here", 3.3, 3.6)]
    word = build_words([*begin, *spoken], ENOUGH, is_spaced=True)[len(begin)]
    assert (word.text, word.end_s) == (" I", 3.0)
    assert word.start_s == pytest.approx(2.4)


def test_a_long_word_within_a_sentence_keeps_its_time() -> None:
    spoken = [piece(" a", 0.0, 0.3), piece(" looooong", 0.3, 2.3), piece(" b", 2.3, 2.6)]
    assert build_words(spoken, ENOUGH, is_spaced=True)[1].start_s == 0.3


def test_times_behind_the_content_are_cut() -> None:
    [first, second] = build_words([piece(" a", 0.5, 1.2), piece(" b", 1.2, 3.0)], 100, is_spaced=True)
    assert (first.end_s, second.start_s, second.end_s) == (1.0, 1.0, 1.0)


def test_pieces_get_the_times_at_which_the_alignment_enters_their_tokens() -> None:
    alignment = [(0, -1), (0, 0), (1, 5), (1, 6), (2, 10), (3, 20)]
    found = list(pieces_of([" ab", " c"], [[7, 8], [9]], alignment, [0.2, 0.4, 0.9]))
    assert found == [
        Piece(" ab", (7, 8), 0.0, pytest.approx(0.2), pytest.approx(0.3)),  # type: ignore[arg-type]
        Piece(" c", (9,), pytest.approx(0.2), pytest.approx(0.4), 0.9),  # type: ignore[arg-type]
    ]


def test_tokens_that_the_alignment_skips_take_no_time() -> None:
    first, second = pieces_of([" a", " b"], [[1], [2]], [(0, 3)], [0.5])
    assert (first.start_s, first.end_s) == (second.start_s, second.end_s) == (0.06, 0.06)
    assert second.probability == 0.0


PIECES = st.lists(
    st.builds(
        piece,
        st.sampled_from([" a", "b", " word", ".", ",", " (", ")", '"', " -", " ", "日", "¿"]),
        st.floats(-1, 40),
        st.floats(-1, 40),
        st.floats(0, 1),
    ),
    max_size=30,
)


@given(PIECES, st.integers(0, ENOUGH), st.booleans())
def test_no_text_is_lost_and_times_never_run_backwards(pieces: list[Piece], n_frames: int, is_spaced: bool) -> None:
    words = build_words(pieces, n_frames, is_spaced=is_spaced)
    assert "".join(word.text for word in words) == "".join(each.text for each in pieces)
    assert [token for word in words for token in word.tokens] == [t for each in pieces for t in each.tokens]
    times = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert all(0 <= time_s <= n_frames / 100 for time_s in times)
    assert all(0 <= word.probability <= 1 for word in words)
