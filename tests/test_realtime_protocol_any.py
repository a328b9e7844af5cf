"""The handshake, whatever arrives: a value in range or a documented error, nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadHandshakeError, BadInputError, BadJsonError
from realtime.audioformat import FORMATS
from realtime.protocol import Handshake, parse_handshake, peek_uid
from tests.test_realtime_protocol import ILLEGAL, LEGAL, PYTHON_CLIENT, RULES, VAD_LIMITS


def check_in_range(handshake: Handshake) -> None:
    """What every other module may rely on."""
    assert 1 <= len(handshake.uid) <= 256
    assert handshake.language in (None, *RULES.languages)
    assert set(handshake.languages) <= set(RULES.languages)
    assert handshake.task in ("transcribe", "translate")
    assert len(handshake.initial_prompt) <= 1000 and len(handshake.hotwords) <= 1000
    assert 1 <= handshake.send_last_n_segments <= 100
    assert 0 <= handshake.no_speech_thresh <= 1
    assert handshake.audio_format in FORMATS
    assert 8_000 <= handshake.sample_rate_hz <= 48_000
    assert len(handshake.warnings) <= 24 and all(len(warning) < 400 for warning in handshake.warnings)


KEYS = st.sampled_from([key for key, *_ in LEGAL] + ["vad_parameters", "max_clients"]) | st.text(max_size=12)
VALUES = (
    st.sampled_from([value for _, value, *_ in LEGAL] + [value for _, value in ILLEGAL])
    | st.none()
    | st.text(max_size=12)
    | st.integers()
    | st.floats()
    | st.dictionaries(st.sampled_from([key for key, *_ in VAD_LIMITS] + ["onset"]), st.floats() | st.text(max_size=3))
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_object_is_a_handshake_in_range_or_a_documented_error(raw: dict[str, Any]) -> None:
    try:
        check_in_range(parse_handshake(json.dumps(raw), RULES))
    except (BadInputError, BadJsonError) as error:
        assert str(error).isprintable()


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=100) | st.text('{}[]",:\\uidtrse0123.-\ud800', max_size=50))
def test_any_frame_is_a_handshake_in_range_or_a_documented_error(frame: str | bytes) -> None:
    try:
        check_in_range(parse_handshake(frame, RULES))
    except (BadInputError, BadJsonError, BadHandshakeError) as error:
        assert error.close_code in (1003, 1007, 1008)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_an_honest_handshake_is_survived(data: st.DataObject) -> None:
    frame = bytearray(PYTHON_CLIENT.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        check_in_range(parse_handshake(bytes(frame), RULES))
    except BadInputError:
        assert len(peek_uid(bytes(frame))) <= 256
    except (BadJsonError, BadHandshakeError):
        assert peek_uid(bytes(frame)) == ""
