"""A transcribed recording in the shapes that OpenAI's clients read: documents and stream events.

Pure: values in, values out. Invariants: every number is finite; the text of an answer is the segments' texts
joined, without blanks at its ends, and so are the deltas of a stream.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from engine.formats import Cue, render
from engine.languages import LANGUAGES
from engine.recording_types import Recording
from engine.types import FRAMES_PER_SECOND, FileSegment, Word
from realtime.audio_fields import AudioRequest

__all__ = ["JSON_TYPE", "TEXT_TYPE", "DeltaMaker", "answer", "done_event"]

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
"""OpenAI's for everything that is not JSON."""
DOCUMENTS = {"srt": "srt", "vtt": "vtt", "tsv": "tsv", "lrc": "lrc"}
"""Response formats that `engine.formats` writes, by its names."""


def answer(request: AudioRequest, recording: Recording) -> tuple[str, str]:
    """Body and content type."""
    if request.response_format in DOCUMENTS:
        return _document(request, recording), TEXT_TYPE
    text = _text(_segments(request, recording))
    if request.response_format == "text":
        return text + "\n", TEXT_TYPE
    body: dict[str, Any] = {"text": text}
    if request.response_format == "verbose_json":
        body = _verbose(request, recording)
    body["usage"] = {"type": "duration", "seconds": math.ceil(recording.duration_s)}
    return json.dumps(_with_warnings(body, recording), ensure_ascii=False, allow_nan=False), JSON_TYPE


def done_event(request: AudioRequest, recording: Recording) -> dict[str, Any]:
    """The last event of a stream; formats other than json and text add what they have."""
    event: dict[str, Any] = {"type": "transcript.text.done", "text": _text(_segments(request, recording))}
    if request.response_format in DOCUMENTS:
        event["document"] = _document(request, recording)
    elif request.response_format == "verbose_json":
        event |= _verbose(request, recording)
    return _with_warnings(event, recording)


class DeltaMaker:
    """Makes the delta events of one stream, segment by segment."""

    def __init__(self, request: AudioRequest) -> None:
        self._wants_words = request.wants_words
        self._has_begun = False
        self._unsaid = ""  # blanks that belong to the text only if more of it follows

    def event(self, segment: FileSegment) -> dict[str, Any] | None:
        """The event of the next segment; None if it has no text."""
        text = self._unsaid + segment.text
        delta = (text if self._has_begun else text.lstrip()).rstrip()
        self._unsaid = text[len(text.rstrip()) :]
        if not delta:
            return None
        self._has_begun = True
        event: dict[str, Any] = {
            "type": "transcript.text.delta",
            "delta": delta,
            "start": _number(segment.start_s, 3),
            "end": _number(segment.end_s, 3),
        }
        if self._wants_words:
            event["words"] = [_word(word) for word in segment.words]
        return event


def _segments(request: AudioRequest, recording: Recording) -> tuple[FileSegment, ...]:
    return recording.segments.get(request.task, ())


def _text(segments: Sequence[FileSegment]) -> str:
    return "".join(segment.text for segment in segments).strip()


def _document(request: AudioRequest, recording: Recording) -> str:
    cues = [Cue(each.start_s, each.end_s, each.text, each.words) for each in _segments(request, recording)]
    return render(
        cues,
        DOCUMENTS[request.response_format],
        language=recording.language,
        duration_s=recording.duration_s,
        task=request.task,
    )


def _verbose(request: AudioRequest, recording: Recording) -> dict[str, Any]:
    segments = _segments(request, recording)
    code = "en" if request.task == "translate" else recording.language
    body: dict[str, Any] = {
        "task": request.task,
        "language": LANGUAGES.get(code, code).lower(),
        "duration": _number(recording.duration_s, 3),
        "text": _text(segments),
    }
    if request.wants_segments:
        body["segments"] = [_segment(number, segment) for number, segment in enumerate(segments)]
    if request.wants_words:
        body["words"] = [_word(word) for segment in segments for word in segment.words]
    return body


def _segment(number: int, segment: FileSegment) -> dict[str, Any]:
    return {
        "id": number,
        "seek": round(segment.start_s * FRAMES_PER_SECOND),
        "start": _number(segment.start_s, 3),
        "end": _number(segment.end_s, 3),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": _number(segment.temperature, 2),
        "avg_logprob": _number(segment.avg_logprob, 6),
        "compression_ratio": _number(segment.compression_ratio, 6),
        "no_speech_prob": _number(segment.no_speech_prob, 6),
    }


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.text.strip(), "start": _number(word.start_s, 3), "end": _number(word.end_s, 3)}


def _with_warnings(body: dict[str, Any], recording: Recording) -> dict[str, Any]:
    return {**body, "warnings": list(recording.warnings)} if recording.warnings else body


def _number(value: float, digits: int) -> float:
    # A model that computes NaN must not cost the words beside it.
    return round(float(value), digits) if math.isfinite(value) else 0.0
