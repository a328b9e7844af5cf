"""bench.collect: frames of any server to updates."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.collect import Collected, collect
from realtime.client.messages import Segment


def listing(*items: tuple[float, float, str, bool], **keys: Any) -> str:
    segments = [
        {"start": f"{start:.3f}", "end": f"{end:.3f}", "text": text, "completed": done}
        for start, end, text, done in items
    ]
    return json.dumps({"uid": "u", "segments": segments, **keys})


def seen(*frames: str | bytes) -> Collected:
    return collect([(float(place), frame) for place, frame in enumerate(frames)])


def new(collected: Collected) -> list[list[str]]:
    return [[segment.text for segment in update.completed] for update in collected.updates]


A, B, C = (0.0, 1.0, " A", True), (1.0, 2.0, " B", True), (2.0, 3.0, " C", True)


def test_completed_segments_count_once_though_they_are_repeated() -> None:
    made = seen(
        '{"uid": "u", "message": "SERVER_READY", "backend": "faster_whisper"}',
        listing((0.0, 1.0, " a", False)),
        listing(A, (1.0, 2.0, " b", False)),
        listing(A, B),
        listing(B, C),
    )
    assert new(made) == [[], [" A"], [" B"], [" C"]]
    assert [update.at_s for update in made.updates] == [1.0, 2.0, 3.0, 4.0]
    assert [update.provisional for update in made.updates[1:]] == [Segment(1.0, 2.0, " b", False), None, None]
    assert made.text == "A B C"
    assert (made.is_ready, made.mutated, made.overlapping, made.refusal) == (True, 0, 0, None)


def test_what_other_servers_send_is_met() -> None:
    made = seen(
        '{"uid": "u", "language": "en", "language_prob": 0.9}',
        b'{"uid": "u", "status": "WARNING", "message": "no"}',
        "not json",
        "[]",
        '{"segments": []}',
        '{"segments": [{"text": "no times", "completed": true}]}',
        '{"message": "DISCONNECT"}',
    )
    assert made.updates == ()
    assert made.is_disconnected
    assert not made.is_ready
    assert made.warnings == 2


def test_refusals_are_kept_in_words() -> None:
    full = '{"uid": "u", "status": "WAIT", "message": 2.31}'
    assert seen(full).refusal == "the server is full (try again in 2.3 min)"
    assert seen('{"status": "ERROR", "message": "no model"}').refusal == "the server refused: no model"


def test_overlapping_segments_are_taken_and_counted() -> None:
    made = seen(listing(A), listing(A, (0.9, 2.0, " B", True)))
    assert made.text == "A B"
    assert (made.overlapping, made.mutated) == (1, 0)


def test_a_completed_segment_that_changes_is_mutated_once_and_not_believed() -> None:
    changed = (0.0, 1.0, " X", True)
    made = seen(listing(A, B), listing(changed, B), listing(changed, B, C))
    assert made.text == "A B C"
    assert made.mutated == 1


def test_a_segment_put_between_known_ones_is_mutated() -> None:
    assert seen(listing(A, C), listing(A, B, C)).mutated == 1


def test_a_list_of_strangers_continues_or_replaces() -> None:
    continued = seen(listing(A), listing(B, C))
    assert (continued.text, continued.mutated) == ("A B C", 0)
    replaced = seen(listing(A, B), listing((0.0, 1.5, " X", True), (1.5, 2.0, " Y", True)))
    assert (replaced.text, replaced.mutated) == ("A B Y", 1)


def test_texts_without_blanks_stay_apart() -> None:
    assert seen(listing((0, 1, "a", True)), listing((0, 1, "a", True), (1, 2, "b", True))).text == "a b"


items = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from("ab"), st.booleans())


@given(st.lists(st.lists(items, max_size=4), max_size=6))
def test_any_lists_give_every_completed_segment_at_most_once(lists: list[list[tuple[int, int, str, bool]]]) -> None:
    made = seen(*(listing(*each) for each in lists))
    keys = {(start, end, text) for each in lists for start, end, text, done in each if done}
    assert len(new(made)) <= len(lists)
    taken = [segment.key for update in made.updates for segment in update.completed]
    assert set(taken) <= keys
    assert made.mutated <= len(keys)
