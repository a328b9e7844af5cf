"""The handshake: official clients verbatim, every key at its limits."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from engine.errors import BadInputError
from realtime.audioformat import FORMATS
from realtime.protocol import (
    Handshake,
    HandshakeRules,
    VadParameters,
    is_end_of_audio,
    parse_handshake,
    peek_uid,
)

RULES = HandshakeRules(model="base", languages=("en", "es", "fr"), new_uid=lambda: "made-up")
ENGLISH_ONLY = HandshakeRules(
    model="small.en", languages=("en",), new_uid=lambda: "made-up", default_language="fr", tasks=("transcribe",)
)


def parse(rules: HandshakeRules = RULES, /, **keys: Any) -> Handshake:
    """The handshake that these keys make."""
    return parse_handshake(json.dumps({"uid": "u1", **keys}), rules)


PYTHON_CLIENT = (
    '{"uid": "u1", "language": null, "task": "transcribe", "model": "small", "use_vad": true, '
    '"send_last_n_segments": 10, "no_speech_thresh": 0.45, "clip_audio": false, "same_output_threshold": 10, '
    '"enable_translation": false, "target_language": "fr", "hotwords": null, "enable_diarization": false, '
    '"max_speakers": 10, "word_timestamps": false, "initial_prompt": null, "vad_parameters": null}'
)
CHROME = '{"uid":"c-1","language":"en","task":"transcribe","model":"base","use_vad":true}'
FIREFOX = '{"uid":"f-1","language":null,"task":"translate","model":"base","use_vad":false}'
IOS = (
    '{"max_clients":4,"task":"transcribe","uid":"ABC-1","language":"es","max_connection_time":600,'
    '"model":"base","use_vad":true}'
)
OLD_PYTHON = (
    '{"uid": "o1", "language": "en", "task": "transcribe", "model": "base", "use_vad": true, '
    '"vad_parameters": {"onset": 0.6, "offset": 0.3}, "max_clients": 4, "max_connection_time": 600, '
    '"hf_token": "hf_x"}'
)


@pytest.mark.parametrize(
    "frame, expected",
    [
        (
            PYTHON_CLIENT,
            Handshake("u1", model="small", use_vad=True, warnings=("model: 'small' is not offered; base is used",)),
        ),
        (CHROME, Handshake("c-1", language="en", wants_language=False, model="base", use_vad=True)),
        (FIREFOX, Handshake("f-1", task="translate", model="base")),
        (IOS, Handshake("ABC-1", language="es", wants_language=False, model="base", use_vad=True)),
        (
            OLD_PYTHON,
            Handshake(
                "o1",
                language="en",
                wants_language=False,
                model="base",
                use_vad=True,
                vad=VadParameters(threshold=0.6, neg_threshold=0.3),
            ),
        ),
    ],
)
def test_official_clients_verbatim(frame: str, expected: Handshake) -> None:
    assert parse_handshake(frame, RULES) == expected
    assert parse_handshake(frame.encode(), RULES) == expected


def test_everything_has_a_default_and_null_means_it() -> None:
    assert parse_handshake("{}", RULES) == Handshake("made-up")
    keys = [key for key, *_ in LEGAL] + ["vad_parameters", "enable_translation", "max_clients", "hf_token"]
    assert parse_handshake(json.dumps(dict.fromkeys(keys)), RULES) == Handshake("made-up")
    nulls = {field.name: None for field in fields(VadParameters)}
    assert parse(vad_parameters=nulls).vad == VadParameters()


LEGAL: list[tuple[str, Any, str, Any]] = [
    ("uid", "u", "uid", "u"),
    ("uid", "x" * 256, "uid", "x" * 256),
    ("language", "EN", "language", "en"),
    ("language", "es-MX", "language", "es"),
    ("language", "fr_CA", "language", "fr"),
    ("language", "auto", "language", None),
    ("language", " ", "language", None),
    ("languages", ["en", "ES", "en"], "languages", ("en", "es")),
    ("languages", ["en"] * 128, "languages", ("en",)),
    ("languages", [], "languages", ()),
    ("task", "translate", "task", "translate"),
    ("model", "m" * 512, "model", "m" * 512),
    ("use_vad", True, "use_vad", True),
    ("initial_prompt", "é" * 1000, "initial_prompt", "é" * 1000),
    ("hotwords", "h" * 1000, "hotwords", "h" * 1000),
    ("hotwords", ["Kyiv", "Nato"], "hotwords", "Kyiv, Nato"),
    ("hotwords", ["h" * 499, "h" * 499], "hotwords", "h" * 499 + ", " + "h" * 499),
    ("send_last_n_segments", 1, "send_last_n_segments", 1),
    ("send_last_n_segments", 100, "send_last_n_segments", 100),
    ("send_last_n_segments", 7.0, "send_last_n_segments", 7),
    ("no_speech_thresh", 0, "no_speech_thresh", 0.0),
    ("no_speech_thresh", 1, "no_speech_thresh", 1.0),
    ("word_timestamps", True, "word_timestamps", True),
    ("audio_format", "int16", "audio_format", "int16"),
    ("audio_format", " PCM_S16LE ", "audio_format", "int16"),
    ("audio_format", "f32le", "audio_format", "float32"),
    ("audio_format", "u8", "audio_format", "uint8"),
    ("audio_format", "PCMU", "audio_format", "mulaw"),
    ("audio_format", "pcma", "audio_format", "alaw"),
    ("sample_rate_hz", 8_000, "sample_rate_hz", 8_000),
    ("sample_rate_hz", 48_000, "sample_rate_hz", 48_000),
    ("sample_rate", 44_100, "sample_rate_hz", 44_100),
    ("protocol", "seed", "seed_protocol", True),
    ("protocol", "whisperlive", "seed_protocol", False),
    ("enable_diarization", False, "warnings", ()),
]

ILLEGAL: list[tuple[str, Any]] = [
    ("uid", ""), ("uid", "x" * 257), ("uid", 7), ("uid", ["u"]),
    ("language", 1), ("language", "x" * 33), ("languages", "en"), ("languages", ["en"] * 129), ("languages", [1]),
    ("languages", [""]), ("languages", ["x" * 33]),
    ("task", "Translate"), ("task", 1), ("task", ""), ("model", "m" * 513), ("model", {}),
    ("use_vad", 1), ("use_vad", "true"), ("word_timestamps", 0), ("enable_diarization", "yes"),
    ("enable_translation", 1),
    ("initial_prompt", "é" * 1001), ("initial_prompt", ["a"]),
    ("hotwords", "h" * 1001), ("hotwords", ["h" * 500, "h" * 499]), ("hotwords", ["a", 1]), ("hotwords", {"a": 1}),
    ("vad_parameters", []), ("vad_parameters", "0.5"),
    ("send_last_n_segments", 0), ("send_last_n_segments", 101), ("send_last_n_segments", 1.5),
    ("send_last_n_segments", True), ("send_last_n_segments", "10"), ("send_last_n_segments", 10**19),
    ("no_speech_thresh", -0.001), ("no_speech_thresh", 1.001), ("no_speech_thresh", "0.5"),
    ("no_speech_thresh", False),
    ("audio_format", "mp3"), ("audio_format", 16), ("audio_format", ""),
    ("sample_rate_hz", 7_999), ("sample_rate_hz", 48_001), ("sample_rate_hz", 16_000.5), ("sample_rate", 7_999),
    ("protocol", "openai"), ("protocol", True),
]  # fmt: skip

VAD_LIMITS: list[tuple[str, float, float, float]] = [
    ("threshold", 0, 1, 0.001),
    ("neg_threshold", 0, 1, 0.001),
    ("min_speech_duration_ms", 0, 60_000, 1),
    ("max_speech_duration_s", 0.1, 86_400, 0.01),
    ("min_silence_duration_ms", 0, 60_000, 1),
    ("speech_pad_ms", 0, 60_000, 1),
]


@pytest.mark.parametrize("key, value, field, expected", LEGAL)
def test_legal_values_up_to_the_limit(key: str, value: Any, field: str, expected: Any) -> None:
    found = getattr(parse(**{key: value}), field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("key, value", ILLEGAL)
def test_illegal_values_from_one_past_the_limit(key: str, value: Any) -> None:
    with pytest.raises(BadInputError, match=rf"^{key}: .* is not allowed; legal: ..") as caught:
        parse(**{key: value})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key, low, high, step", VAD_LIMITS)
def test_vad_parameters_at_their_limits_and_past_them(key: str, low: float, high: float, step: float) -> None:
    for value in (low, high):
        assert getattr(parse(vad_parameters={key: value}).vad, key) == value
    for wrong in (low - step, high + step, "1", True, [1]):
        with pytest.raises(BadInputError, match=rf"^vad_parameters\.{key}: "):
            parse(vad_parameters={key: wrong})


def test_todays_vad_names_win_over_yesterdays() -> None:
    both = {"threshold": 0.0, "onset": 0.9, "offset": 0.2}
    assert parse(vad_parameters=both).vad == VadParameters(threshold=0.0, neg_threshold=0.2)


def test_telephony_formats_mean_8_khz_unless_told_otherwise() -> None:
    assert {name: parse(audio_format=name).sample_rate_hz for name in FORMATS} == {
        "float32": 16_000, "int16": 16_000, "uint8": 16_000, "mulaw": 8_000, "alaw": 8_000,
    }  # fmt: skip
    assert parse(audio_format="mulaw", sample_rate_hz=16_000).sample_rate_hz == 16_000
    assert parse(sample_rate=8_000, sample_rate_hz=48_000).sample_rate_hz == 48_000


def test_what_cannot_be_done_is_a_warning() -> None:
    handshake = parse(model="large-v3\n", enable_diarization=True, enable_translation=True, languages=["de", "en"])
    assert handshake.warnings == (
        "languages: model base does not know 'de'",
        "model: 'large-v3\\n' is not offered; base is used",
        "enable_diarization: not supported yet",
        "enable_translation: not supported yet",
    )
    assert handshake.languages == ("en",)
    assert parse(model="base").warnings == ()


def test_a_language_the_model_does_not_know_is_detected() -> None:
    handshake = parse(language="de")
    assert (handshake.language, handshake.wants_language) == (None, False)
    assert handshake.warnings == ("language: model base does not know 'de'; it is detected instead",)


def test_a_model_of_one_language_has_nothing_to_detect() -> None:
    handshake = parse(ENGLISH_ONLY, language="de", task="translate")
    assert (handshake.language, handshake.wants_language, handshake.task) == ("en", False, "transcribe")
    assert handshake.warnings == (
        "language: model small.en does not know 'de'; 'en' is used",
        "task: model small.en does not translate; it does transcribe",
    )
    assert parse(ENGLISH_ONLY) == Handshake("u1", language="en", wants_language=True)


@pytest.mark.parametrize("default, expected", [("es", "es"), ("de", None), (None, None)])
def test_the_default_language_is_for_clients_that_name_none(default: str | None, expected: str | None) -> None:
    rules = HandshakeRules("base", ("en", "es"), lambda: "made-up", default_language=default)
    assert parse(rules).language == parse(rules, language=None).language == expected
    assert parse(rules).wants_language
    assert parse(rules, language="en").language == "en"


@pytest.mark.parametrize(
    "key, hint",
    [
        ("useVad", "use_vad"), ("hot_words", "hotwords"), ("initialPrompt", "initial_prompt"), ("lang", None),
        ("audio_fromat", "audio_format"), ("max_client", "max_clients"), ("zzz", None), ("x" * 65, None),
    ],
)  # fmt: skip
def test_misspelt_keys_are_named_and_others_ignored(key: str, hint: str | None) -> None:
    expected = (f"{key}: unknown and ignored; did you mean {hint}?",) if hint else ()
    assert parse(**{key: {"any": ["thing"]}}).warnings == expected


def test_misspelt_vad_parameters_are_named() -> None:
    assert parse(vad_parameters={"treshold": 1, "other": 2}).warnings == (
        "vad_parameters.treshold: unknown and ignored; did you mean vad_parameters.threshold?",
    )


def test_hints_are_bounded_in_number() -> None:
    assert len(parse(**{f"use_vad{number}": 1 for number in range(900)}).warnings) == 8


def test_ignored_keys_may_be_of_any_type() -> None:
    assert parse(max_clients="all", max_connection_time=[], clip_audio=7, hf_token={"a": 1}) == Handshake("u1")


def test_the_uid_of_a_refused_handshake_can_be_told() -> None:
    assert peek_uid('{"uid":"u7","task":"dance"}') == "u7"
    for frame in ('{"uid":7}', '{"uid":"' + "x" * 257 + '"}', "{}", "nothing", b"\x00\x01", '{"uid":"u","uid":"v"}'):
        assert peek_uid(frame) == ""


@pytest.mark.parametrize("frame", [b"END_OF_AUDIO", "END_OF_AUDIO", " END_OF_AUDIO\r\n"])
def test_end_of_audio(frame: str | bytes) -> None:
    assert is_end_of_audio(frame)


@pytest.mark.parametrize(
    "frame", [b"END_OF_AUDIO\n", b" END_OF_AUDIO", b"", "", "end_of_audio", '"END_OF_AUDIO"', b"END_OF_AUDIO" * 2]
)
def test_anything_else_is_no_end_of_audio(frame: str | bytes) -> None:
    assert not is_end_of_audio(frame)
