"""The guarded JSON reader: an object, or one of two documented errors, whatever arrives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadHandshakeError, BadJsonError
from realtime.jsonguard import MAX_DEPTH, MAX_DIGITS, MAX_JSON_BYTES, load_object

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def nested(depth: int, opening: str, closing: str) -> str:
    """An object of exactly `depth` levels."""
    return '{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}"


def padded(n_bytes: int, filler: str = "x") -> str:
    """An object of exactly `n_bytes` bytes as UTF-8."""
    room = n_bytes - len('{"a":""}')
    width = len(filler.encode())
    return '{"a":"' + "y" * (room % width) + filler * (room // width) + '"}'


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '{"uid":"u1"}',
        ' \r\n\t{"uid":"u1"}\n',
        '\ufeff{"uid":"u1"}',
        '{"uid":"\\ud83d\\ude00"}',
        '{"a":"[[[[[[[[[[[[[[[[[[[[{{{{\\"[[["}',
        '{"a":18446744073709551615,"b":-1e308,"c":1e-999}',
        "{}",
    ],
)
def test_objects_are_read_from_text_and_binary_frames(text: str, as_bytes: bool) -> None:
    assert load_object(text.encode() if as_bytes else text) == json.loads(text.removeprefix("\ufeff"))


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}', '{"a":1e999}', '{"a":-1e999}',
        '{"a":1,"a":2}', '{"b":{"a":1,"a":1}}', '{"a":"\\ud800"}', '{"\\udfff":1}', '{"b":[["\\ud800x"]]}',
        "{", '{"a"', '{"a":1}}', '{"a":1}{"b":2}', "{'a':1}", '{"a":1,}', '{"a":01}', '{"a":"\n"}', '{"a":"\\',
        '{"a":' + "[" * 20_000, '{"a":' * 3_000, '{"a":' + "9" * 5_000 + "}",
    ],
)  # fmt: skip
def test_json_that_no_honest_peer_sends_is_refused(text: str, as_bytes: bool) -> None:
    with pytest.raises(BadJsonError):
        load_object(text.encode() if as_bytes else text)


@pytest.mark.parametrize(
    "frame",
    [
        *("[]", '"text"', "1", "null", "true"),
        *(b"", b"   ", b"END_OF_AUDIO", b"[1]", b"\x00" * 16_384, b"\x7f" * 100_000, b" " * 65 + b"{}"),
    ],
)
def test_what_is_no_object_is_told_apart_from_bad_json(frame: str | bytes) -> None:
    with pytest.raises(BadHandshakeError, match="must be a JSON object"):
        load_object(frame)


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_depth_at_the_limit_and_one_past_it(opening: str, closing: str) -> None:
    assert load_object(nested(MAX_DEPTH, opening, closing))
    with pytest.raises(BadJsonError, match="deeper than 16"):
        load_object(nested(MAX_DEPTH + 1, opening, closing))


@pytest.mark.parametrize("filler", ["x", "é", "語", "😀"])
def test_size_counts_bytes_at_the_limit_and_one_past_it(filler: str) -> None:
    at_limit, past = padded(MAX_JSON_BYTES, filler), padded(MAX_JSON_BYTES + 1, filler)
    assert len(at_limit.encode()) == MAX_JSON_BYTES
    assert load_object(at_limit) == load_object(at_limit.encode())
    for frame in (past, past.encode()):
        with pytest.raises(BadJsonError, match="longer than 16384"):
            load_object(frame)


def test_digits_at_the_limit_and_one_past_it() -> None:
    assert load_object('{"a":-' + "9" * MAX_DIGITS + "}")["a"] == -(10**MAX_DIGITS - 1)
    with pytest.raises(BadJsonError, match="20 digits"):
        load_object('{"a":1' + "0" * MAX_DIGITS + "}")


def test_bytes_that_are_not_utf8_are_refused_with_their_place() -> None:
    with pytest.raises(BadJsonError, match="byte 6"):
        load_object(b'{"a":"\xff"}')


def test_text_with_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(BadJsonError):
        load_object('{"a":"\ud800"}')


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=10), JSON_VALUES, max_size=5))
def test_every_modest_object_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert load_object(json.dumps(value)) == value
    assert load_object(json.dumps(value, ensure_ascii=False).encode()) == value


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200) | st.text('{}[]",:\\u0eE+-.1naN \ud800\ufeff', max_size=60))
def test_any_frame_is_an_object_or_a_documented_error(frame: str | bytes) -> None:
    try:
        json.dumps(load_object(frame), allow_nan=False, ensure_ascii=False).encode()
    except (BadJsonError, BadHandshakeError) as error:
        assert str(error)
