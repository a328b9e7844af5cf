"""realtime.client.messages: parsing never raises, options become WhisperLive's handshake."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.types import Word
from realtime.client.messages import (
    ClientOptions,
    Disconnect,
    ErrorReply,
    Language,
    Listing,
    Parsed,
    Ready,
    Segment,
    ServerWarning,
    Wait,
    handshake,
    parse_message,
)


@pytest.mark.parametrize(
    ("document", "parsed"),
    [
        ({"uid": "u", "message": "SERVER_READY", "backend": "faster_whisper"}, Ready("faster_whisper")),
        ({"message": "SERVER_READY", "backend": 1}, Ready("1")),
        ({"message": "SERVER_READY"}, Ready("")),
        ({"uid": "u", "message": "DISCONNECT"}, Disconnect()),
        ({"uid": "u", "status": "WAIT", "message": 2.31}, Wait(2.31)),
        ({"uid": "u", "status": "WAIT", "message": "soon"}, Wait(0.0)),
        ({"uid": "u", "status": "ERROR", "message": "no"}, ErrorReply("no")),
        ({"uid": "u", "status": "ERROR", "message": "no", "code": "bad_input"}, ErrorReply("no", "bad_input")),
        ({"uid": "u", "status": "WARNING", "message": "hm"}, ServerWarning("hm")),
        ({"uid": "u", "language": "en", "language_prob": 0.97}, Language("en", 0.97)),
        ({"uid": "u", "language": "en"}, Language("en", 0.0)),
        ({"uid": "u", "status": "DANCING"}, None),
        ({"uid": "u", "segments": []}, None),
        ({"uid": "u", "segments": "none"}, None),
        ({"uid": "u", "message": "SOMETHING_NEW"}, None),
        ({"type": "ack", "samples": 3}, None),
        ([], None),
        (3, None),
    ],
)
def test_messages(document: object, parsed: Parsed | None) -> None:
    assert parse_message(json.dumps(document)) == parsed


@pytest.mark.parametrize("frame", ["", "{", "\ud800", "[" * 100_000, b"\xff\xfe", "9" * 5_000])
def test_what_is_no_json_becomes_a_warning_or_nothing(frame: str | bytes) -> None:
    assert isinstance(parse_message(frame), ServerWarning | None)


def test_segments_take_times_as_strings_or_numbers() -> None:
    word = {"word": " Hello", "start": "0.000", "end": "0.420", "probability": 0.9871}
    document = {
        "segments": [
            {"start": "0.000", "end": "1.500", "text": " Hello", "completed": True, "words": [word]},
            {"start": 1.5, "end": 2, "text": " you", "completed": False},
        ]
    }
    assert parse_message(json.dumps(document)) == Listing(
        (
            Segment(0.0, 1.5, " Hello", True, (Word(" Hello", 0.0, 0.42, 0.9871),)),
            Segment(1.5, 2.0, " you", False),
        )
    )


@pytest.mark.parametrize(
    "item",
    [
        7,
        {},
        {"start": "x", "end": "1", "text": "a"},
        {"start": "nan", "end": "1", "text": "a"},
        {"start": -1, "end": 1, "text": "a"},
        {"start": True, "end": 1, "text": "a"},
        {"start": 0, "end": 1, "text": 5},
    ],
)
def test_an_impossible_segment_is_left_out(item: object) -> None:
    good = {"start": "1", "end": "2", "text": "b", "completed": True}
    assert parse_message(json.dumps({"segments": [item, good]})) == Listing((Segment(1.0, 2.0, "b", True),))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(["status", "message", "segments", "language", "language_prob", "start", "end", "text", "words"])


@given(
    st.dictionaries(keys, json_values | st.lists(st.dictionaries(keys, json_values, max_size=4), max_size=3))
    | json_values
)
def test_any_json_is_taken(document: object) -> None:
    parse_message(json.dumps(document))


def test_handshake_has_whisperlive_keys_and_no_token() -> None:
    options = ClientOptions(
        language="es", task="translate", prompt="Anna", hotwords="x", word_timestamps=True, token="CANARY-secret"
    )
    text = handshake(options, "u1")
    assert json.loads(text) == {
        "uid": "u1",
        "language": "es",
        "task": "translate",
        "model": None,
        "use_vad": True,
        "send_last_n_segments": 10,
        "initial_prompt": "Anna",
        "hotwords": "x",
        "word_timestamps": True,
    }
    assert "CANARY" not in text + repr(options)
