"""handler.schema: what is accepted, what it becomes, and how faults are told."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runpod.serverless.utils.rp_validator import validate

from engine.errors import BadInputError, SttError
from engine.languages import LANGUAGES
from engine.recording_types import RecordingOptions, VadOptions
from engine.types import SearchOptions
from handler.addresses import MAX_URL_CHARS
from handler.audio_fields import BOTH_GIVEN, MIN_BASE64_CHARS, NONE_GIVEN
from handler.fields import FORMATS, MAX_CLIPS, MAX_SOURCES, MAX_SUPPRESSED, W_TYPES, JobInput, VadInput
from handler.keys import AUDIO_KEYS, MAX_WARNINGS
from handler.schema import MAX_CHECKED_BYTES, InputErrors, JobRequest, json_schema, parse_input, table
from handler.sources import Source

URL = "https://example.com/talk.mp3"
BASE64 = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAgD4AAAB9AAACABAAZGF0YQAAAAA="
W_DEFAULTS: dict[str, Any] = {
    "model": "base",
    "transcription": "plain_text",
    "translate": False,
    "translation": "plain_text",
    "language": None,
    "temperature": 0,
    "best_of": 5,
    "beam_size": 5,
    "patience": 1.0,
    "length_penalty": 0,
    "suppress_tokens": "-1",
    "initial_prompt": None,
    "condition_on_previous_text": True,
    "temperature_increment_on_fallback": 0.2,
    "compression_ratio_threshold": 2.4,
    "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6,
    "enable_vad": False,
    "word_timestamps": False,
}


def parse(**options: Any) -> JobRequest:
    return parse_input({"audio": URL, **options}, strict=False)


def refused(raw: object, *, strict: bool = False) -> str:
    with pytest.raises((BadInputError, InputErrors)) as caught:
        parse_input(raw, strict=strict)
    assert caught.value.code == "bad_input"
    return str(caught.value)


def test_defaults_are_worker_faster_whispers() -> None:
    assert parse(model="base") == parse(**W_DEFAULTS)
    search = SearchOptions(length_penalty=0.0, temperatures=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert parse() == JobRequest(
        (Source("url", URL, "audio"),),
        recording=RecordingOptions(search=search, condition_on_previous_text=True),
    )
    assert set(W_TYPES) == {"audio", "audio_base64", *W_DEFAULTS}


def test_null_and_empty_text_are_the_default() -> None:
    nothing = dict.fromkeys(name for name in JobInput.model_fields if name != "audio")
    del nothing["temperature_increment_on_fallback"]
    assert parse(**nothing) == parse() == parse(**dict.fromkeys(nothing, " "))


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"beam_size": 3.0}, "beam_size", 3),
        ({"patience": 2}, "patience", 2.0),
        ({"compression_ratio_threshold": False}, "compression_ratio_threshold", None),
        ({"logprob_threshold": "off"}, "logprob_threshold", None),
        ({"log_prob_threshold": -2}, "logprob_threshold", -2.0),
        ({"suppress_tokens": "-1,50364"}, "suppress_tokens", (-1, 50_364)),
        ({"suppress_tokens": [5, "7", 5]}, "suppress_tokens", (5, 7)),
        ({"suppress_tokens": 220}, "suppress_tokens", (220,)),
    ],
)
def test_search_options(options: dict[str, Any], name: str, value: object) -> None:
    request = parse(**options)
    assert getattr(request.recording.search, name) == value
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"language": "English"}, "language", "en"),
        ({"lang": "es"}, "language", "es"),
        ({"language": "auto"}, "language", None),
        ({"languages": "en, spanish,en"}, "languages", ("en", "es")),
        ({"languages": ["de", "auto"]}, "languages", ("de",)),
        ({"hotwords": ["Ada", "Turing"]}, "hotwords", "Ada, Turing"),
        ({"initial_prompt": "Glossary: \ud800"}, "prompt", "Glossary: ?"),
        ({"prompt": "a"}, "prompt", "a"),
        ({"mode": " Accurate "}, "mode", "accurate"),
        ({"translate": 1}, "tasks", ("transcribe", "translate")),
        ({"task": "Translate"}, "tasks", ("transcribe", "translate")),
        ({"task": "transcribe"}, "tasks", ("transcribe",)),
        ({"align_output": True}, "word_timestamps", True),
        ({"timestamp_granularities": ["segment", "word"]}, "word_timestamps", True),
        ({"condition_on_previous_text": 0}, "condition_on_previous_text", False),
        ({"enable_vad": True}, "vad", VadOptions()),
        ({"vad_filter": True}, "vad", VadOptions()),
        ({"vad": True, "vad_parameters": {"onset": 0.4, "speech_pad_ms": None}}, "vad", VadOptions(threshold=0.4)),
        ({"enable_vad": True, "vad_options": {"max_speech_duration_s": "inf"}}, "vad", VadOptions()),
        ({"clip_timestamps": "0,10,20"}, "clips", ((0.0, 10.0), (20.0, math.inf))),
        ({"clip_timestamps": [1, 2.5, 3, 4]}, "clips", ((1.0, 2.5), (3.0, 4.0))),
        ({"clip_timestamps": [[0, 1], {"start": 2, "end": None}]}, "clips", ((0.0, 1.0), (2.0, math.inf))),
        ({"clip_timestamps": "0"}, "clips", ()),
        ({"batch_size": 16}, "batch_size", 16),
    ],
)
def test_recording_options(options: dict[str, Any], name: str, value: object) -> None:
    request = parse(**options)
    assert getattr(request.recording, name) == value
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"transcription": "plain text"}, "transcription", "plain_text"),
        ({"transcription": " Formatted-Text "}, "transcription", "formatted_text"),
        ({"response_format": "verbose_json"}, "transcription", "verbose_json"),
        ({"format": "text"}, "transcription", "plain_text"),
        ({"translate": True, "translation": "SRT"}, "translation", "srt"),
        ({"translation": "srt"}, "translation", None),
        ({"output_formats": "srt, WebVTT,srt"}, "output_formats", ("srt", "vtt")),
        ({"output_formats": list(FORMATS)}, "output_formats", FORMATS),
        ({"wordTimestamps": "yes"}, "word_timestamps", True),
        ({"max_line_width": 42, "max_line_count": 2}, "max_line_count", 2),
        ({"deadline_s": 30}, "deadline_s", 30.0),
        ({"upload": True}, "upload", True),
        ({"upload": False}, "upload", False),
        ({"upload_url": "https://store.example/k?sig=1"}, "upload_url", "https://store.example/k?sig=1"),
        ({"model_name": "large-v3"}, "model", "large-v3"),
    ],
)
def test_request_options(options: dict[str, Any], name: str, value: object) -> None:
    assert getattr(parse(**options), name) == value


BOUNDS: dict[str, tuple[Any, Any, Any, Any]] = {
    # smallest, largest, just below, just above
    "best_of": (1, 20, 0, 21),
    "beam_size": (1, 20, 0, 21),
    "patience": (0.5, 4, 0.49, 4.01),
    "length_penalty": (-2, 2, -2.01, 2.01),
    "temperature": (0, 1, -0.01, 1.01),
    "temperature_increment_on_fallback": (0.05, 1, 0.049, 1.01),
    "compression_ratio_threshold": (0, 100, -0.1, 100.1),
    "logprob_threshold": (-100, 0, -100.1, 0.1),
    "no_speech_threshold": (0, 1, -0.01, 1.01),
    "batch_size": (1, 256, 0, 257),
    "max_line_width": (10, 500, 9, 501),
    "max_line_count": (1, 20, 0, 21),
    "deadline_s": (1, 604_800, 0.99, 604_801),
    "suppress_tokens": ([-1], [60_000] * MAX_SUPPRESSED, [-2], [1] * (MAX_SUPPRESSED + 1)),
    "initial_prompt": ("a", "a" * 10_000, None, "a" * 10_001),
    "hotwords": ("a", "a" * 2_000, None, "a" * 2_001),
    "model": ("a", "a" * 512, None, "a" * 513),
    "clip_timestamps": ("0,1", list(range(2 * MAX_CLIPS)), "-1,1", list(range(2 * MAX_CLIPS + 1))),
    "languages": (["en"], list(LANGUAGES), ["zz"], [*LANGUAGES, "en"]),
    "output_formats": (["srt"], list(FORMATS), ["docx"], [*FORMATS, "srt"]),
    "upload_url": ("https://a", "https://" + "a" * (MAX_URL_CHARS - 8), "ftp://a", "https://" + "a" * MAX_URL_CHARS),
}
VAD_BOUNDS: dict[str, tuple[float, float, float, float]] = {
    "threshold": (0, 1, -0.01, 1.01),
    "min_speech_duration_ms": (0, 60_000, -1, 60_001),
    "max_speech_duration_s": (1, math.inf, 0.9, math.nan),
    "min_silence_duration_ms": (0, 60_000, -1, 60_001),
    "speech_pad_ms": (0, 10_000, -1, 10_001),
}


@pytest.mark.parametrize("name", sorted(BOUNDS))
def test_each_bound_holds(name: str) -> None:
    low, high, below, above = BOUNDS[name]
    parse(**{name: low})
    parse(**{name: high})
    for value in (below, above):
        if value is not None:
            message = refused({"audio": URL, name: value})
            assert message.startswith(f"{name}: ")
            assert "legal: " in message


@pytest.mark.parametrize("name", sorted(VAD_BOUNDS))
def test_each_bound_of_the_detector_holds(name: str) -> None:
    low, high, below, above = VAD_BOUNDS[name]
    for value in (low, high):
        parse(enable_vad=True, vad_parameters={name: value})
    for value in (below, above):
        assert refused({"audio": URL, "vad_parameters": {name: value}}).startswith(f"vad_parameters.{name}: ")


def test_every_option_with_a_bound_is_tested_here() -> None:
    free = {
        *("audio", "audio_base64", "s3_config", "vad_parameters"),  # tests of their own
        *("transcription", "translation", "translate", "language", "mode", "upload"),
        *("condition_on_previous_text", "enable_vad", "word_timestamps"),
    }
    assert set(JobInput.model_fields) == set(BOUNDS) | free
    assert set(VadInput.model_fields) == set(VAD_BOUNDS) | {"neg_threshold"}


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e308, math.nan, math.inf, "1e999", "nan", "0x5", [], {}, "٣"])
@pytest.mark.parametrize("name", ["beam_size", "patience", "temperature", "deadline_s"])
def test_numbers_that_are_none_are_refused(name: str, value: object) -> None:
    if value == []:  # an empty list is as absent as an empty text
        assert parse(**{name: value}) == parse()
    else:
        assert refused({"audio": URL, name: value}).startswith(f"{name}: ")


def test_a_silence_threshold_above_the_speech_threshold_is_refused() -> None:
    assert "vad_parameters.neg_threshold: 0.6" in refused({"audio": URL, "vad_parameters": {"neg_threshold": 0.6}})
    assert parse(enable_vad=True, vad_parameters={"neg_threshold": 0.5}).recording.vad == VadOptions(neg_threshold=0.5)


@pytest.mark.parametrize(
    "clips", ["5,1", "0,0", [[0, 10], [5, 20]], [[0, 1, 2]], "0,200000", [200_000], [[0, 1], None], [0, [1]], "a"]
)
def test_clips_must_follow_each_other(clips: object) -> None:
    assert refused({"audio": URL, "clip_timestamps": clips}).startswith("clip_timestamps: ")


@pytest.mark.parametrize(
    ("options", "ladder"),
    [
        ({}, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ({"temperature": 0.5}, (0.5, 0.7, 0.9)),
        ({"temperature": 1}, (1.0,)),
        ({"temperature_increment_on_fallback": 0}, (0.0,)),
        ({"temperature_increment_on_fallback": None}, (0.0,)),
        ({"temperature_increment_on_fallback": False, "temperature": 0.3}, (0.3,)),
        ({"temperature_increment_on_fallback": 0.05}, tuple(round(0.05 * step, 2) for step in range(21))),
        ({"temperature_increment_on_fallback": 1}, (0.0, 1.0)),
        ({"temperature": [0, 0.4]}, (0.0, 0.4)),
        ({"temperature": "0.1,0.2"}, (0.1, 0.2)),
    ],
)
def test_the_ladder_of_temperatures(options: dict[str, Any], ladder: tuple[float, ...]) -> None:
    assert parse(**options).recording.search.temperatures == ladder


@pytest.mark.parametrize("key", AUDIO_KEYS)
@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (URL, "url", URL),
        (f"  {URL}\n", "url", URL),
        ("HTTP://example.com/a", "url", "HTTP://example.com/a"),
        ("s3://bucket/dir/a b.mp3", "s3", "s3://bucket/dir/a b.mp3"),
        (
            "https://example.com/my file \u00fc\u00a0\u65e5.mp3",
            "url",
            "https://example.com/my file \u00fc\u00a0\u65e5.mp3",
        ),
        (BASE64, "base64", BASE64),
        (f"data:audio/wav;base64,{BASE64}", "base64", BASE64),
        (f"data:audio/ogg;codecs=opus;base64,{BASE64 * 9}", "base64", BASE64 * 9),
        ("s3://bucket/key", "s3", "s3://bucket/key"),
    ],
)
def test_audio_comes_in_many_ways(key: str, value: str, kind: str, found: str) -> None:
    request = parse_input({key: value}, strict=False)
    assert [(source.kind, source.value, source.field) for source in request.sources] == [(kind, found, key)]
    assert not request.is_list


def test_a_list_makes_several_sources() -> None:
    given = [URL, {"audio_base64": "UklGRg=="}, {"url": URL, "name": "x", "file": ""}, {"file": "s3://abc/k"}]
    request = parse_input({"audio": given}, strict=False)
    assert request.is_list
    assert [(source.kind, source.field) for source in request.sources] == [
        ("url", "audio[0]"),
        ("base64", "audio[1].audio_base64"),
        ("url", "audio[2].url"),
        ("s3", "audio[3].file"),
    ]
    assert parse_input({"urls": [URL]}, strict=False).is_list


def test_the_number_of_sources_is_limited() -> None:
    assert len(parse_input({"audio": [URL] * MAX_SOURCES}, strict=False).sources) == MAX_SOURCES
    assert f"at most {MAX_SOURCES}" in refused({"audio": [URL] * (MAX_SOURCES + 1)})


@pytest.mark.parametrize(
    "value",
    [
        "talk.mp3",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://x/y",
        "https://",
        "https:/x",
        "https://a/b\nc",
        "https://a/b\x00c",
        "https://a/b\x7fc",
        "s3://bucket/a\tb",
        f"https://{'a' * MAX_URL_CHARS}",
        "data:audio/wav,RIFF",
        "s3://bucket",
        "s3:///key",
        "a" * (MIN_BASE64_CHARS - 1),
        "This is no audio, but a sentence of more than sixty characters, indeed.",
        "\ud800" * 100,
        5,
        True,
        {},
        {"url": URL, "file": URL},
        [URL, ""],
        [[URL]],
    ],
)
def test_what_is_no_audio_is_refused_without_repeating_it(value: object) -> None:
    message = refused({"audio": value})
    assert message.startswith("audio")
    assert not any(part in message for part in ("passwd", "talk", "sentence", "aaaa", "example"))


def test_a_missing_or_doubled_audio_is_told_in_the_words_of_worker_faster_whisper() -> None:
    nothings: tuple[dict[str, Any], ...] = ({}, {"audio": ""}, {"audio": None, "audio_base64": None}, {"audio": []})
    for nothing in nothings:
        assert refused(nothing) == NONE_GIVEN == "Must provide either audio or audio_base64"
    both = {"audio": URL, "audio_base64": BASE64}
    assert refused(both) == BOTH_GIVEN == "Must provide either audio or audio_base64, not both"
    assert refused({"audio": URL, "url": URL}).startswith(BOTH_GIVEN)
    with pytest.raises(InputErrors) as caught:
        parse_input(both, strict=True)
    assert not caught.value.is_list


@pytest.mark.parametrize("raw", [None, [], "x", 5, True, 1e999, [[]]])
def test_an_input_that_is_no_object_is_refused(raw: object) -> None:
    assert refused(raw).startswith("input: ")


def test_a_job_within_a_job_is_unwrapped() -> None:
    assert parse_input({"input": {"audio": URL}}, strict=False) == parse()


def test_all_faults_are_told_at_once() -> None:
    message = refused(
        {"audio": 5, "beam_size": 0, "patience": "x", "vad_parameters": {"threshold": 7}, "language": "zz"}
    )
    for part in ("beam_size: 0", "patience: 'x'", "vad_parameters.threshold: 7", "language: 'zz'", "audio: "):
        assert part in message
    assert ", en, " in message
    with pytest.raises(InputErrors) as caught:
        parse_input({"beam_size": 0}, strict=False)
    assert len(caught.value.messages) == 2
    assert caught.value.is_list


@pytest.mark.parametrize("strict", [False, True])
def test_one_fault_is_a_list_too(strict: bool) -> None:
    with pytest.raises(InputErrors) as caught:
        parse_input({"audio": URL, "beam_size": 0}, strict=strict)
    assert caught.value.messages == ("beam_size: 0 is not allowed; legal: 1 to 20",)
    assert caught.value.is_list


def test_the_name_that_was_given_is_the_name_in_the_message() -> None:
    assert refused({"audio": URL, "log_prob_threshold": 5}).startswith("log_prob_threshold: 5")


def test_unknown_keys_are_warnings() -> None:
    request = parse(foo=1, beamsize=3, comprssion_ratio_threshold=2, x={"y": 1})
    assert request.recording.search.beam_size == 3
    assert request.warnings == (
        "'foo': unknown and ignored",
        "'comprssion_ratio_threshold': unknown and ignored; did you mean compression_ratio_threshold?",
        "'x': unknown and ignored",
    )


def test_the_number_of_warnings_is_bounded() -> None:
    warnings = parse(**{f"k{number}" * 30: number for number in range(500)}).warnings
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == f"{500 - MAX_WARNINGS} more unknown keys are ignored"
    assert all(len(warning) < 200 for warning in warnings)


def test_strict_refuses_unknown_keys_as_worker_faster_whisper_does() -> None:
    raw = {"audio": URL, "foo": 1, "mode": "fast"}
    with pytest.raises(InputErrors) as caught:
        parse_input(raw, strict=True)
    assert caught.value.messages == (
        "Unexpected input. foo is not a valid input option.",
        "Unexpected input. mode is not a valid input option.",
    )
    assert parse_input({"audio": URL, **W_DEFAULTS}, strict=True).model == "base"
    assert parse_input({"audio": URL}, strict=True).strict and not parse().strict


def worker_faster_whispers(raw: dict[str, Any]) -> list[str]:
    """What RunPod's own validator says with worker-faster_whisper's schema."""
    schema = {
        name: {"type": kind, "required": False, "default": W_DEFAULTS.get(name)} for name, kind in W_TYPES.items()
    }
    return list(validate(raw, schema).get("errors", []))


@pytest.mark.parametrize("name", sorted(W_DEFAULTS | {"audio": None}))
@pytest.mark.parametrize("value", [None, "5", 5, 5.0, [], {}, URL, [URL]])
def test_strict_takes_the_types_that_worker_faster_whisper_takes(name: str, value: object) -> None:
    raw = {"audio": URL, name: value}
    theirs = worker_faster_whispers(raw)
    try:
        parse_input(raw, strict=True)
    except InputErrors as error:
        ours = [message for message in error.messages if " should be " in message]
    else:
        ours = []
    assert ours == theirs


def test_strict_tells_unknown_keys_and_bad_fields_together() -> None:
    with pytest.raises(InputErrors) as caught:
        parse_input({"foo": 1, "audio": [URL], "beam_size": "5", "best_of": 0}, strict=True)
    assert caught.value.messages == (
        "Unexpected input. foo is not a valid input option.",
        "audio should be <class 'str'> type, not <class 'list'>.",
        "beam_size should be <class 'int'> type, not <class 'str'>.",
        "best_of: 0 is not allowed; legal: 1 to 20",
    )
    assert caught.value.is_list
    assert refused({}, strict=True) == NONE_GIVEN


def test_a_check_that_is_off_is_of_another_type_in_strict() -> None:
    name = "logprob_threshold"
    assert parse(**{name: False}).recording.search.logprob_threshold is None
    assert f"{name} should be" in refused({"audio": URL, name: False}, strict=True)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"diarization": True}, "diarization: speakers are not told apart here; ignored"),
        ({"min_speakers": 2}, "min_speakers: speakers are not told apart here; ignored"),
        ({"speaker_count": 2}, "speaker_count: speakers are not told apart here; ignored"),
        ({"beam_size": "5"}, "beam_size: the text '5' was read as 5"),
        ({"translate": "true"}, "translate: the text 'true' was read as true"),
        ({"transcription": "docx"}, "transcription: 'docx' is no format; plain_text is used"),
        ({"task": "sing"}, "task: neither transcribe nor translate; ignored"),
        ({"enable_vad": True, "vad_filter": False}, "vad_filter: ignored, because enable_vad is given"),
        ({"vad_parameters": {"threshold": 0.4}}, "vad_parameters: no effect without enable_vad"),
        ({"max_line_count": 2}, "max_line_count: no effect without max_line_width"),
        ({"language": "en", "languages": ["en"]}, "languages: no effect, because language is given"),
        ({"return_segments": False}, "return_segments: segments are always in the result"),
        ({"enable_vad": True, "vad_parameters": {"x": 1}}, "vad_parameters.'x': unknown and ignored"),
    ],
)
def test_what_has_no_effect_is_told(options: dict[str, Any], warning: str) -> None:
    assert parse(**options).warnings == (warning,)


@pytest.mark.parametrize("options", [{"diarization": False}, {"return_segments": True}, {"min_speakers": None}])
def test_what_is_not_asked_for_is_not_told(options: dict[str, Any]) -> None:
    assert parse(**options).warnings == ()


CANARY = "CANARY-7f3a"
STORE = {"accessId": CANARY, "accessSecret": CANARY, "bucketName": "abc", "endpointUrl": "https://s3.example.com"}


@pytest.mark.parametrize(
    "options",
    [
        {"huggingface_access_token": CANARY},
        {"hf_token": CANARY},
        {"some_key": CANARY},
        {"s3Config": STORE},
        {"upload_url": f"https://x.example/?sig={CANARY}"},
        {"initial_prompt": CANARY, "hotwords": CANARY},
        {"s3_config": {**STORE, "endpointUrl": f"ftp://{CANARY}"}},
        {"s3_config": {**STORE, "accessId": [CANARY]}},
        {"s3_config": CANARY},
        {"upload_url": CANARY},
        {"upload_url": f"http://x.example/?sig={CANARY}"},
        {"initial_prompt": [CANARY]},
        {"hotwords": CANARY * 1_000},
        {"file": f"https://x.example/?sig={CANARY}"},
        {"audio": f"ftp://x.example/?sig={CANARY}"},
    ],
)
def test_secrets_are_neither_in_messages_nor_in_repr(options: dict[str, Any]) -> None:
    try:
        request = parse_input({"audio": URL, **options}, strict=False)
    except (BadInputError, InputErrors) as error:
        assert CANARY not in str(error)
    else:
        assert CANARY not in repr(request)
        assert CANARY not in " ".join(request.warnings)


def test_the_store_of_a_job() -> None:
    request = parse(s3Config=STORE)
    assert request.s3 is not None
    assert (request.s3.bucket, request.s3.is_trusted) == ("abc", False)
    assert request.s3_for({"s3Config": {**STORE, "bucketName": "other"}}) is request.s3
    beside = parse().s3_for({"s3Config": STORE})
    assert beside is not None and beside.bucket == "abc"
    assert parse().s3_for({"id": "1"}) is None


EMPTY_STORES: list[dict[str, Any]] = [{}, dict.fromkeys(STORE), dict.fromkeys(STORE, ""), {"accessId": " "}]


@pytest.mark.parametrize("store", EMPTY_STORES)
def test_a_store_of_empty_members_is_none(store: dict[str, Any]) -> None:
    for options in ({}, {"upload": True}):
        request = parse(s3Config=store, **options)
        assert (request.s3, request.warnings) == (None, ())
        assert request.s3_for({"s3Config": store}) is None


USELESS_STORES: list[Any] = [{**STORE, "accessId": ""}, {**STORE, "endpointUrl": f"ftp://{CANARY}"}, CANARY, 5]


@pytest.mark.parametrize("store", USELESS_STORES)
def test_a_store_of_no_use_fails_only_what_needs_it(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    request = parse(s3Config=store)
    [warning] = request.warnings
    assert warning.startswith("s3Config") and "ignored" in warning and CANARY not in warning
    assert request.s3_for({"s3Config": store}) is None
    assert "s3Config beside the input is ignored" in caplog.text and CANARY not in caplog.text
    for needing in ({"audio": "s3://abc/k"}, {"upload": True}):
        assert "s3Config" in refused({"audio": URL, "s3Config": store, **needing})
        with pytest.raises(BadInputError, match="s3Config"):
            parse(**needing).s3_for({"s3Config": store})


def test_private_addresses_need_the_operators_leave() -> None:
    raw = {
        "audio": URL,
        "upload": True,
        "upload_url": "http://10.0.0.1/x",
        "s3Config": {**STORE, "endpointUrl": "http://minio:9000"},
    }
    assert "upload_url: (hidden)" in refused(raw) and "s3Config.endpointUrl" in refused(raw)
    request = parse_input(raw, strict=False, allow_private=True)
    assert request.s3 is not None and request.s3.is_trusted
    assert request.allow_private


def check_bounds(request: JobRequest) -> None:
    """Everything that the engine is given lies within what is documented."""
    search, recording = request.recording.search, request.recording
    assert 1 <= len(request.sources) <= MAX_SOURCES
    assert 1 <= search.beam_size <= 20 and 1 <= search.best_of <= 20
    assert 0.5 <= search.patience <= 4 and -2 <= search.length_penalty <= 2
    assert 1 <= len(search.temperatures) <= 21 and all(0 <= each <= 1 for each in search.temperatures)
    assert search.no_speech_threshold is None or 0 <= search.no_speech_threshold <= 1
    assert all(type(token) is int and -1 <= token <= 60_000 for token in search.suppress_tokens)
    assert recording.language is None or recording.language in LANGUAGES
    assert set(recording.languages) <= set(LANGUAGES)
    assert len(recording.prompt) <= 10_000 and len(recording.hotwords) <= 2_000
    assert recording.mode in ("fast", "accurate")
    assert recording.batch_size is None or 1 <= recording.batch_size <= 256
    edges = [edge for clip in recording.clips for edge in clip]
    assert edges == sorted(edges) and len(recording.clips) <= MAX_CLIPS
    assert {request.transcription, *request.output_formats} <= set(FORMATS)
    assert request.deadline_s is None or 1 <= request.deadline_s <= 604_800
    assert len(request.warnings) < 100
    for text in (recording.prompt, recording.hotwords, *request.warnings):
        text.encode("utf-8")


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-30, 30),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            URL,
            BASE64,
            "s3://abc/k",
            "data:a;base64,UklG",
            "srt",
            "plain text",
            "en",
            "Spanish",
            "off",
            "5",
            "0.4",
            "inf",
        ]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)
NAMES = sorted(
    {*JobInput.model_fields, *AUDIO_KEYS, "task", "format", "s3Config", "speaker", "timestamp_granularities"}
)
inputs = st.dictionaries(st.sampled_from(NAMES), st.one_of(scalars, anything), max_size=8)


@settings(max_examples=300)
@given(st.one_of(anything, inputs, inputs.map(lambda raw: {"audio": URL} | raw)), st.booleans())
def test_any_json_is_refused_properly_or_within_bounds(raw: object, strict: bool) -> None:
    try:
        request = parse_input(raw, strict=strict)
    except SttError as error:
        str(error).encode("utf-8")
    else:
        check_bounds(request)


vad_inputs = st.dictionaries(st.sampled_from([*VadInput.model_fields, "onset", "x"]), scalars, max_size=4)


@settings(max_examples=100)
@given(vad_inputs, st.lists(st.one_of(st.floats(-1, 1e6), st.integers(-1, 50)), max_size=6))
def test_any_detector_options_and_clips(vad: dict[str, Any], clips: list[float]) -> None:
    try:
        check_bounds(parse(enable_vad=True, vad_parameters=vad, clip_timestamps=clips))
    except SttError as error:
        assert "legal" in str(error)


def test_deep_and_large_inputs_are_refused_quickly() -> None:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    try:
        assert refused({"audio": URL, "beam_size": deep}) == "beam_size: a list of 1 is not allowed; legal: 1 to 20"
        refused({"audio": deep})
        refused({"audio": URL, "clip_timestamps": deep, "suppress_tokens": deep, "vad_parameters": deep})
    finally:
        while deep:  # taken apart by hand: the interpreter would recurse
            deep = deep.pop()
    assert len(refused({"audio": URL, "beam_size": "9" * 1_000_000})) < 200


def test_the_table_and_the_schema_name_every_field() -> None:
    markdown, schema = table(), json_schema()
    for name in JobInput.model_fields:
        assert f"| `{name}` |" in markdown
        assert name in schema["properties"]
    for name in VadInput.model_fields:
        assert f"| `vad_parameters.{name}` |" in markdown
    assert all(line.count(" | ") == 3 for line in markdown.splitlines()[2:])
    assert "| `length_penalty` | `0` | -2 to 2 |" in markdown
    assert schema["properties"]["beam_size"] == {
        "default": 5,
        "description": "beams at temperature 0",
        "maximum": 20,
        "minimum": 1,
        "type": "integer",
    }
    assert schema["properties"]["transcription"]["enum"] == list(FORMATS)


def test_the_module_prints_its_schema_and_loads_no_model_library() -> None:
    heavy = "{'ctranslate2', 'faster_whisper', 'av', 'runpod', 'boto3', 'pydantic_settings'}"
    code = f"import sys, handler.schema; handler.schema.main(); print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    document, _, loaded = result.stdout.rstrip().rpartition("\n")
    assert json.loads(document) == json_schema()
    assert loaded == "[]"


def check_inputs(stdin: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "handler.schema", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60)


def test_the_module_checks_a_list_of_inputs() -> None:
    inputs = [{"audio": URL}, {"audio": URL, "modle": "x"}, {"audio": URL, "beam_size": 99, "best_of": 0}, {}, 7]
    result = check_inputs(json.dumps(inputs).encode(), "--check")
    assert (result.returncode, result.stderr) == (0, b"")
    good, odd, bad, empty, number = json.loads(result.stdout)
    assert good == {"problems": [], "warnings": []}
    assert odd["problems"] == [] and "modle" in odd["warnings"][0]
    assert sorted(each.split(":")[0] for each in bad["problems"]) == ["beam_size", "best_of"]
    assert empty["problems"] and number["problems"]
    assert max(map(len, result.stdout.splitlines())) < 600


@pytest.mark.parametrize("stdin", [b"", b"{}", b"[", b"\xff", b"[" * 100_000, b" " * (MAX_CHECKED_BYTES + 1)])
def test_what_is_no_list_of_inputs_is_refused(stdin: bytes) -> None:
    result = check_inputs(stdin, "--check")
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.startswith(b"standard input: ") and len(result.stderr.splitlines()) == 1


def test_a_list_as_large_as_is_read_is_checked_and_other_arguments_are_refused() -> None:
    result = check_inputs(b"[]" + b" " * (MAX_CHECKED_BYTES - 2), "--check")
    assert (result.returncode, result.stdout) == (0, b"[]\n")
    assert check_inputs(b"", "--chekc").returncode == 2
