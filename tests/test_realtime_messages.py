"""Server messages: to the byte what WhisperLive's clients read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.errors
from engine.errors import SttError
from realtime import messages
from realtime.messages import CLOSE_CODES, Segment, SegmentWord

HELLO = Segment(120, 1180, " Hello world.", True)
HOW = Segment(1400, 2100, " How are", False)
WORDY = Segment(0, 420, " Hello", True, (SegmentWord(" Hello", 0, 420, 0.98714),))


def test_server_ready_is_what_official_clients_wait_for() -> None:
    assert messages.encode(messages.server_ready("u1")) == (
        '{"uid":"u1","message":"SERVER_READY","backend":"faster_whisper"}'
    )


@pytest.mark.parametrize(
    "message, text",
    [
        (messages.wait("u1", 2.3149), '{"uid":"u1","status":"WAIT","message":2.31}'),
        (messages.wait("u1", 0), '{"uid":"u1","status":"WAIT","message":0.0}'),
        (messages.disconnect("u1"), '{"uid":"u1","message":"DISCONNECT"}'),
        (messages.error("u1", "no", "bad_json"), '{"uid":"u1","status":"ERROR","message":"no","code":"bad_json"}'),
        (messages.warning("u1", "hm"), '{"uid":"u1","status":"WARNING","message":"hm"}'),
        (messages.language("u1", "en", 0.97), '{"uid":"u1","language":"en","language_prob":0.97}'),
    ],
)
def test_the_other_messages(message: messages.Message, text: str) -> None:
    assert messages.encode(message) == text


@pytest.mark.parametrize("minutes", [-0.01, float("nan"), float("inf")])
def test_wait_refuses_what_no_client_could_show(minutes: float) -> None:
    with pytest.raises(ValueError, match="minutes"):
        messages.wait("u1", minutes)


def test_segments_have_string_times_and_no_key_that_means_something_else() -> None:
    assert messages.segments("u1", [HELLO], HOW) == {
        "uid": "u1",
        "segments": [
            {"start": "0.120", "end": "1.180", "text": " Hello world.", "completed": True},
            {"start": "1.400", "end": "2.100", "text": " How are", "completed": False},
        ],
    }


def test_result_repeats_the_segments_with_times_as_numbers() -> None:
    message = messages.segments("u1", [WORDY], HOW, result_key=True)
    assert set(message) == {"uid", "segments", "result"}
    assert message["result"] == [
        {
            "start": 0.0,
            "end": 0.42,
            "text": " Hello",
            "completed": True,
            "words": [{"word": " Hello", "start": 0.0, "end": 0.42, "probability": 0.9871}],
        },
        {"start": 1.4, "end": 2.1, "text": " How are", "completed": False},
    ]
    word = message["segments"][0]["words"][0]
    assert word == {"word": " Hello", "start": "0.000", "end": "0.420", "probability": 0.9871}


def test_seed_protocol_alone_adds_language() -> None:
    message = messages.segments("u1", [], HOW, result_key=True, seed_language="en")
    assert set(message) == {"uid", "segments", "result", "language"}
    assert message["language"] == "en"


def test_an_empty_list_is_never_sent() -> None:
    with pytest.raises(ValueError, match="at least one"):
        messages.segments("u1", [])


def test_segments_in_the_wrong_place_are_refused() -> None:
    with pytest.raises(ValueError, match="among the completed"):
        messages.segments("u1", [HOW])
    with pytest.raises(ValueError, match="is completed"):
        messages.segments("u1", [], HELLO)


@pytest.mark.parametrize("start_ms, end_ms", [(-1, 0), (2, 1)])
def test_times_that_cannot_be_are_refused(start_ms: int, end_ms: int) -> None:
    with pytest.raises(ValueError, match="start_ms"):
        Segment(start_ms, end_ms, "", True)
    with pytest.raises(ValueError, match="start_ms"):
        SegmentWord("", start_ms, end_ms, 1.0)


@given(st.integers(0, 10**9))
def test_times_are_exact_to_the_millisecond(time_ms: int) -> None:
    message = messages.segments("u", [Segment(time_ms, time_ms, "", True)], result_key=True)
    shown = message["segments"][0]["start"]
    assert int(shown.replace(".", "")) == time_ms
    assert shown == f"{time_ms / 1000:.3f}"
    assert float(shown) == message["result"][0]["start"]


@pytest.mark.parametrize("value, shown", [(float("nan"), 0.0), (-0.1, 0.0), (1.5, 1.0), (0.12345, 0.1235)])
def test_probabilities_stay_between_0_and_1(value: float, shown: float) -> None:
    assert messages.language("u", "en", value)["language_prob"] == shown


@given(st.text(), st.text())
def test_encode_never_raises_and_always_gives_utf8(uid: str, text: str) -> None:
    encoded = messages.encode(messages.segments(uid + "\ud800", [Segment(0, 1, text + "\udfff", True)]))
    assert json.loads(encoded.encode("utf-8"))["segments"][0]["text"].endswith("?")


def test_encode_keeps_other_scripts_readable() -> None:
    assert messages.encode({"text": "héllo 語"}) == '{"text":"héllo 語"}'


def test_close_codes_are_complete_and_agree_with_the_errors() -> None:
    assert list(CLOSE_CODES) == [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1013, 4000, 4002, 4003]
    errors = [getattr(engine.errors, name) for name in engine.errors.__all__]
    assert {error.close_code for error in errors} <= set(CLOSE_CODES)
    for error in errors:
        assert issubclass(error, SttError)
        # 1011 stands for many faults, and a few of them no retry mends.
        if error.close_code != 1011:
            assert CLOSE_CODES[error.close_code].retryable == error.retryable, error
    own_names = {code.name for code in CLOSE_CODES.values()}
    assert {"full", "draining", "idle", "session_limit", "slow_reader", "too_big", "bad_json"} <= own_names
