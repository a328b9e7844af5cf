"""What one peer gets to read: in order, nothing completed ever lost, nothing said twice in vain."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.events import Message, SendDisconnect, SendLanguage, SendSegments, SendWarning
from realtime.messages import Segment
from realtime.outbox import Outbox
from realtime.protocol import Handshake


def segment(number: int, text: str | None = None, *, completed: bool = True) -> Segment:
    return Segment(1_000 * number, 1_000 * number + 900, f" {number}" if text is None else text, completed)


def open_segment(number: int, text: str | None = None) -> Segment:
    return segment(number, text, completed=False)


def outbox(send_last_n: int = 10, **keys: Any) -> Outbox:
    return Outbox(Handshake("u1", send_last_n_segments=send_last_n, **keys), result_key=False)


def put(box: Outbox, completed: list[Segment], provisional: Segment | None = None) -> None:
    box.put(SendSegments(tuple(completed), provisional))


def pop_all(box: Outbox) -> list[dict[str, Any]]:
    sent = []
    while (text := box.pop()) is not None:
        sent.append(json.loads(text))
    return sent


def shown(message: dict[str, Any]) -> list[str]:
    """Texts of a segments message; a provisional one ends with `...`."""
    return [entry["text"] + ("" if entry["completed"] else "...") for entry in message["segments"]]


def test_nothing_waits_at_first() -> None:
    assert outbox().pop() is None


def test_a_provisional_then_its_completion() -> None:
    box = outbox()
    put(box, [], open_segment(1))
    put_later = [segment(1)]
    assert [shown(message) for message in pop_all(box)] == [[" 1..."]]
    put(box, put_later)
    assert [shown(message) for message in pop_all(box)] == [[" 1"]]


def test_a_completion_that_was_not_shown_is_shown_first() -> None:
    box = outbox()
    put(box, [], open_segment(1, " on"))
    pop_all(box)
    put(box, [segment(1, " one")])
    sent = pop_all(box)
    assert [shown(message) for message in sent] == [[" one..."], [" one"]]
    provisional, final = sent[0]["segments"][0], sent[1]["segments"][0]
    assert {**provisional, "completed": True} == final


def test_of_several_completions_the_last_is_shown_first() -> None:
    box = outbox()
    put(box, [segment(1), segment(2), segment(3)])
    assert [shown(message) for message in pop_all(box)] == [[" 1", " 2", " 3..."], [" 1", " 2", " 3"]]


def test_a_completion_with_new_provisional_text_needs_no_showing() -> None:
    box = outbox()
    put(box, [segment(1)], open_segment(2))
    put_twice = [shown(message) for message in pop_all(box)]
    assert put_twice == [[" 1", " 2..."]]


def test_the_same_text_elsewhere_was_not_shown() -> None:
    box = outbox()
    put(box, [], open_segment(1, " No."))
    put(box, [segment(1, " No.")])
    put(box, [segment(2, " No.")])
    assert [shown(message) for message in pop_all(box)] == [[" No.", " No...."], [" No.", " No."]]


def test_unchanged_provisional_text_is_not_sent_again() -> None:
    box = outbox()
    put(box, [], open_segment(1))
    assert len(pop_all(box)) == 1
    put(box, [], replace(open_segment(1), end_ms=5_000))
    assert pop_all(box) == []
    put(box, [], open_segment(1, " 1 and"))
    assert len(pop_all(box)) == 1
    put(box, [], open_segment(1))
    assert len(pop_all(box)) == 1


@pytest.mark.parametrize("send_last_n", [1, 2, 10])
def test_the_last_completed_segments_are_repeated(send_last_n: int) -> None:
    box = outbox(send_last_n)
    for number in range(1, 13):
        put(box, [segment(number)], open_segment(number + 1))
        [message] = pop_all(box)
        first = max(1, number - send_last_n + 1)
        assert shown(message) == [f" {n}" for n in range(first, number + 1)] + [f" {number + 1}..."]


def test_new_segments_are_all_sent_even_if_they_are_more() -> None:
    box = outbox(1)
    put(box, [segment(number) for number in range(5)], open_segment(5))
    assert [shown(message) for message in pop_all(box)] == [[" 0", " 1", " 2", " 3", " 4", " 5..."]]
    put(box, [], open_segment(5, " five"))
    assert [shown(message) for message in pop_all(box)] == [[" 4", " five..."]]


def test_a_blocked_peer_gets_all_completions_and_the_newest_provisional() -> None:
    box = outbox(2)
    put(box, [], open_segment(1, " o"))
    put(box, [], open_segment(1, " on"))
    put(box, [segment(1), segment(2)], open_segment(3, " th"))
    put(box, [segment(3)])
    put(box, [segment(4)], open_segment(5))
    assert [shown(message) for message in pop_all(box)] == [[" 1", " 2", " 3", " 4", " 5..."]]


def test_a_completion_whose_showing_is_under_way_is_not_overtaken() -> None:
    box = outbox()
    put(box, [segment(1)])
    first = box.pop()
    assert first is not None
    assert shown(json.loads(first)) == [" 1..."]
    put(box, [segment(2)], open_segment(3))
    assert [shown(message) for message in pop_all(box)] == [[" 1", " 2", " 3..."]]


def test_other_messages_keep_their_place() -> None:
    box = outbox()
    box.put(SendLanguage("en", 0.97))
    put(box, [], open_segment(1))
    box.put(SendWarning("careful"))
    put(box, [segment(1)])
    box.put(SendDisconnect())
    sent = pop_all(box)
    assert sent[0] == {"uid": "u1", "language": "en", "language_prob": 0.97}
    assert shown(sent[1]) == [" 1..."]
    assert sent[2] == {"uid": "u1", "status": "WARNING", "message": "careful"}
    assert shown(sent[3]) == [" 1"]
    assert sent[4] == {"uid": "u1", "message": "DISCONNECT"}


def test_an_empty_update_is_no_message() -> None:
    box = outbox()
    put(box, [])
    assert box.pop() is None
    box.put(SendWarning("after"))
    put(box, [])
    assert [message["message"] for message in pop_all(box)] == ["after"]


def test_keys_of_segments_messages() -> None:
    put(box := outbox(), [segment(1)], open_segment(2))
    assert set(pop_all(box)[0]) == {"uid", "segments"}
    box = Outbox(Handshake("u1"), result_key=True)
    put(box, [segment(1)], open_segment(2))
    [message] = pop_all(box)
    assert set(message) == {"uid", "segments", "result"}
    assert message["result"][0] == {"start": 1.0, "end": 1.9, "text": " 1", "completed": True}


def test_the_seed_protocol_carries_the_language() -> None:
    box = outbox(seed_protocol=True)
    box.put(SendLanguage("es", 0.9))
    put(box, [], open_segment(1))
    assert [message.get("language") for message in pop_all(box)] == ["es", "es"]
    named = outbox(seed_protocol=True, language="en", wants_language=False)
    put(named, [], open_segment(1))
    assert pop_all(named)[0]["language"] == "en"
    plain = outbox(language="en", wants_language=False)
    put(plain, [], open_segment(1))
    assert "language" not in pop_all(plain)[0]


@settings(max_examples=100)
@given(st.data(), st.sampled_from([1, 2, 10]))
def test_however_the_peer_reads_it_gets_the_whole_transcript(data: st.DataObject, send_last_n: int) -> None:
    """A model of WhisperLive's Python client: it records completed segments by time, and remembers the last
    provisional one, which its SRT writer appends if it differs from the last completed one."""
    box = outbox(send_last_n)
    truth: list[str] = []
    recorded: list[str] = []
    last_provisional: str | None = None
    last_end, number, texts = 0.0, 0, st.sampled_from(["", " a", " b", " a b"])
    previous: str | None = None

    def read() -> None:
        nonlocal last_provisional, last_end, previous
        text = box.pop()
        if text is None:
            return
        entries = json.loads(text)["segments"]
        assert entries
        assert text != previous
        previous = text
        assert all(entry["completed"] for entry in entries[:-1])
        for entry in entries:
            if not entry["completed"]:
                last_provisional = entry["text"]
            elif float(entry["start"]) >= last_end and entry["text"] not in recorded:
                recorded.append(entry["text"])
                last_end = float(entry["end"])

    for _ in range(data.draw(st.integers(1, 15))):
        completed = []
        for _ in range(data.draw(st.integers(0, 3))):
            completed.append(segment(number, f" {number}{data.draw(texts)}"))
            number += 1
        truth.extend(entry.text for entry in completed)
        is_open = data.draw(st.booleans())
        provisional = open_segment(number, f" {number}{data.draw(texts)}") if is_open else None
        message: Message = SendSegments(tuple(completed), provisional)
        if completed or provisional:
            box.put(message)
        for _ in range(data.draw(st.integers(0, 3))):
            read()
    put(box, [segment(number)])
    truth.append(f" {number}")
    for _ in range(40):
        read()
    assert recorded == truth
    assert last_provisional == truth[-1]
    assert box.pop() is None
