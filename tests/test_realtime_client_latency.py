"""realtime.client.latency: which word was shown when."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInputError
from engine.wer import WordErrors, normalise
from realtime.client.latency import GoldWord, load_labels, percentile, word_times
from realtime.client.messages import Segment, Update

ROOT = Path(__file__).parent.parent / "engine" / "demo_model"


def gold(text: str) -> list[GoldWord]:
    """One word a second: word n from n to n + 0.5."""
    return [GoldWord(word, n, n + 0.5) for n, word in enumerate(text.split())]


def update(at_s: float, completed: str = "", provisional: str = "") -> Update:
    return Update(
        (Segment(0, 1, completed, True),) if completed else (),
        Segment(0, 1, provisional, False) if provisional else None,
        at_s,
    )


def times(text: str, *updates: Update) -> list[tuple[float | None, float | None]]:
    """(shown, committed) for each word; the audio starts at clock 100."""
    words = word_times(gold(text), updates, lambda second: 100 + second).words
    return [(word.shown_s, word.committed_s) for word in words]


def test_a_word_is_shown_before_it_is_final() -> None:
    assert times(
        "good morning peter",
        update(100.7, provisional=" Good"),
        update(101.7, provisional=" Good morning,"),
        update(102.9, " Good morning, Peter."),
    ) == [(100.7, 102.9), (101.7, 102.9), (102.9, 102.9)]


def test_a_wrong_guess_shows_nothing() -> None:
    assert times("good morning", update(101, provisional=" Could"), update(102, " Good morning")) == [
        (102, 102),
        (102, 102),
    ]


def test_a_word_that_only_flickered_was_shown_but_is_not_final() -> None:
    assert times("good morning", update(101, provisional="good"), update(102, "morning")) == [(101, None), (102, 102)]


def test_equal_words_are_told_apart_by_order_and_time() -> None:
    assert times(
        "yes no yes",
        update(100.6, provisional="yes"),
        update(101.8, "yes", "no"),
        update(102.9, "", "no yes"),
        update(104.0, "no yes"),
    ) == [(100.6, 101.8), (101.8, 104), (102.9, 104)]


def test_a_word_cannot_be_shown_before_it_begins() -> None:
    assert times("a b a", update(101.5, provisional="a b a"), update(103, "a b a"))[2] == (103, 103)


def test_provisional_text_is_read_after_the_completed_text() -> None:
    assert times("the plan the end", update(101.6, "the plan"), update(103.9, provisional="the end")) == [
        (101.6, 101.6),
        (101.6, 101.6),
        (103.9, None),
        (103.9, None),
    ]


def test_a_word_is_settled_by_whatever_stands_in_its_place() -> None:
    heard = [update(101.7, "good evening"), update(103, "and")]
    words = word_times(gold("good morning then peter"), heard, lambda second: 100 + second).words
    assert [word.committed_s for word in words] == [101.7, None, None, None]
    assert [word.settled_s for word in words] == [101.7, 101.7, 103, None]


def test_errors_are_those_of_the_completed_text() -> None:
    stream = word_times(gold("a b c"), [update(101, "a x", "c")], lambda second: 100 + second)
    assert stream.errors == WordErrors(1, 1, 0, 3)
    assert [word.committed_s for word in stream.words] == [101, None, None]
    assert stream.shown_after_s == stream.final_after_s == pytest.approx((0.5,))
    assert word_times((), (), lambda second: second).words == ()


words = st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)


@given(words, st.lists(st.tuples(st.floats(100, 110), words, words), max_size=5))
def test_any_stream_is_measured(said: str, heard: list[tuple[float, str, str]]) -> None:
    updates = [update(*item) for item in sorted(heard)]
    stream = word_times(gold(said), updates, lambda second: 100 + second)
    assert len(stream.words) == len(said.split())
    for word in stream.words:
        if word.committed_s is not None:
            assert word.shown_s is not None
            assert word.shown_s <= word.committed_s


@pytest.mark.parametrize(("share", "value"), [(0, 1.0), (0.5, 2.0), (0.5001, 3.0), (0.75, 3.0), (0.95, 4.0), (1, 4.0)])
def test_percentile_is_a_value_that_occurred(share: float, value: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], share) == value


def test_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("name", ["samples/samples.json", "speech/speech.json"])
def test_shipped_labels(name: str) -> None:
    recordings = load_labels(ROOT / name)
    assert recordings
    for recording in recordings:
        assert recording.path.is_file()
        assert tuple(word.text for word in recording.words) == normalise(recording.text)
        starts = [word.start_s for word in recording.words]
        assert starts == sorted(starts)
        assert recording.words[-1].end_s <= recording.duration_s


@pytest.mark.parametrize("text", ["", "{", "[1]", "[{}]", '{"a": 1}'])
def test_bad_labels_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match="labels"):
        load_labels(path)
    with pytest.raises(BadInputError, match="a readable label file"):
        load_labels(tmp_path / "nowhere.json")
