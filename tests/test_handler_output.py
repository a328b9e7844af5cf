"""handler.output: worker-faster_whisper's keys and types, and what is new beside them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from engine.recording_types import Recording, RecordingOptions
from engine.types import FileSegment, Word
from handler.fields import FORMATS
from handler.output import OutputFacts, build_output, segment_of
from handler.schema_types import JobRequest
from handler.sources import Source

W_KEYS = {"segments", "detected_language", "transcription", "translation", "device", "model"}
W_SEGMENT_KEYS = {
    *("id", "seek", "start", "end", "text", "tokens"),
    *("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"),
}
NEW_KEYS = {
    *("language_probability", "duration", "duration_after_vad", "rtf", "timings", "mode"),
    *("compute_type", "model_revision", "warnings"),
}
SOURCES = (Source("url", "https://example.com/a", "audio"),)
FACTS = OutputFacts("base", "cpu", "int8", "abc123", download_s=0.5)
WORDS = (Word(" Hello", 0.1, 0.4, 0.9, (1,)), Word(" there.", 0.5, 1.2, 0.8, (2,)))
SEGMENTS = (
    FileSegment(0.1, 1.2, " Hello there.", "en", WORDS, (1, 2), 0.0, -0.25, 1.1, 0.01),
    FileSegment(3_725.0, 3_727.5, " How --> are you?", "en", (), (3,), 0.2, math.nan, math.inf, 0.5),
)
RECORDING = Recording(
    {"transcribe": SEGMENTS, "translate": (FileSegment(0.1, 1.2, " Hi.", "en"), FileSegment(2.0, 3.0, " You?", "en"))},
    language="de",
    language_probability=0.98,
    language_probs=(("de", 0.98),),
    duration_s=4_000.0,
    speech_s=3.6,
    container="wav",
    codec="pcm",
    warnings=("10.0 s: damaged",),
    timings_s={"decode": 1.0, "model": 2.0, "total": 3.5},
)


def answer(facts: OutputFacts = FACTS, recording: Recording = RECORDING, **request: Any) -> dict[str, Any]:
    return build_output(JobRequest(SOURCES, **request), recording, facts)


def test_keys_and_types_are_worker_faster_whispers() -> None:
    output = answer()
    assert set(output) == W_KEYS | NEW_KEYS
    assert set(answer(OutputFacts("base", "cpu", strict=True))) == W_KEYS
    strict = answer(OutputFacts("base", "cpu", strict=True), word_timestamps=True, output_formats=("srt",))
    assert set(strict) == W_KEYS | {"word_timestamps"}
    assert all(set(segment) == W_SEGMENT_KEYS for segment in strict["segments"])
    assert output["segments"][0] == {
        "id": 1,
        "seek": 10,
        "start": 0.1,
        "end": 1.2,
        "text": " Hello there.",
        "tokens": [1, 2],
        "temperature": 0.0,
        "avg_logprob": -0.25,
        "compression_ratio": 1.1,
        "no_speech_prob": 0.01,
    }
    assert (output["detected_language"], output["translation"]) == ("de", None)
    assert (output["device"], output["model"]) == ("cpu", "base")


def test_new_facts() -> None:
    output = answer(warnings=("foo: unknown",))
    assert output["language_probability"] == 0.98
    assert (output["duration"], output["duration_after_vad"]) == (4_000.0, 3.6)
    assert output["timings"] == {"decode_s": 1.0, "download_s": 0.5, "model_s": 2.0, "total_s": 4.0}
    assert output["rtf"] == 0.001
    assert output["warnings"] == ["foo: unknown", "10.0 s: damaged"]
    assert (output["mode"], output["compute_type"], output["model_revision"]) == ("fast", "int8", "abc123")
    assert answer(recording=Recording({}, "en", 0.0, (), 0.0, 0.0, "wav", "pcm"))["rtf"] is None
    accurate = JobRequest(SOURCES, recording=RecordingOptions(mode="accurate"))
    assert build_output(accurate, RECORDING, FACTS)["mode"] == "accurate"


def test_numbers_that_are_not_finite_are_null() -> None:
    second = answer()["segments"][1]
    assert (second["avg_logprob"], second["compression_ratio"]) == (None, None)
    json.dumps(answer(word_timestamps=True, output_formats=FORMATS), allow_nan=False)
    odd = FileSegment(math.nan, math.inf, "x", "en")
    assert (segment_of(0, odd)["start"], segment_of(0, odd)["end"], segment_of(0, odd)["seek"]) == (None, None, 0)


def test_word_times_only_when_asked() -> None:
    output = answer(word_timestamps=True)
    assert output["word_timestamps"] == [
        {"word": " Hello", "start": 0.1, "end": 0.4},
        {"word": " there.", "start": 0.5, "end": 1.2},
    ]
    assert output["segments"][0]["words"][0] == {"word": " Hello", "start": 0.1, "end": 0.4, "probability": 0.9}
    assert output["segments"][1]["words"] == []
    assert "words" not in answer()["segments"][0]


SRT = "1\n00:00:00,100 --> 00:00:01,200\nHello there.\n\n2\n01:02:05,000 --> 01:02:07,500\nHow -> are you?\n\n"
"""Each block ends with a blank line, as worker-faster_whisper writes it."""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain_text", "Hello there. How --> are you?"),
        ("formatted_text", "Hello there.\nHow --> are you?"),
        ("srt", SRT),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.100 --> 00:00:01.200\nHello there.\n\n"
            "01:02:05.000 --> 01:02:07.500\nHow --&gt; are you?\n",
        ),
        ("tsv", "start\tend\ttext\n100\t1200\tHello there.\n3725000\t3727500\tHow --> are you?\n"),
        ("lrc", "[00:00.10]Hello there.\n[62:05.00]How --> are you?\n"),
        ("txt", "Hello there.\nHow --> are you?\n"),
    ],
)
def test_the_transcription_in_each_format(name: str, text: str) -> None:
    output = answer(transcription=name, output_formats=("plain_text", name))
    assert output["transcription"] == text
    assert output["outputs"] == {"plain_text": "Hello there. How --> are you?", name: text}


@pytest.mark.parametrize("name", ["json", "verbose_json"])
def test_json_is_text_too(name: str) -> None:
    text = answer(transcription=name)["transcription"]
    assert isinstance(text, str)
    document = json.loads(text)
    assert (document["task"], document["language"], document["duration"]) == ("transcribe", "de", 4_000.0)
    assert document["text"] == "Hello there. How --> are you?"
    assert "words" not in document
    with_words = json.loads(answer(transcription=name, word_timestamps=True)["transcription"])
    assert [word["word"] for word in with_words["words"]] == ["Hello", "there."]


def test_the_translation_has_a_format_of_its_own() -> None:
    assert answer(translation="plain_text")["translation"] == "Hi. You?"
    output = answer(translation="srt", transcription="formatted_text")
    assert output["translation"].startswith("1\n00:00:00,100 --> ")
    assert output["transcription"] == "Hello there.\nHow --> are you?"
    assert json.loads(answer(translation="json")["translation"])["language"] == "en"


def test_every_format_of_nothing_is_text() -> None:
    silent = Recording({}, "en", 0.5, (), 3.0, 0.0, "wav", "pcm")
    for name in FORMATS:
        output = answer(recording=silent, transcription=name, translation=name)
        assert isinstance(output["transcription"], str) and isinstance(output["translation"], str)
        assert output["segments"] == []
    assert answer(recording=silent, transcription="srt")["transcription"] == ""


def test_lines_of_subtitles() -> None:
    output = answer(transcription="srt", max_line_width=10, max_line_count=1)
    assert output["transcription"].startswith("1\n00:00:00,100 --> 00:00:00,400\nHello\n\n2\n00:00:00,500 --> ")
