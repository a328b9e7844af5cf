"""The answer to a job: worker-faster_whisper's keys with its types, and everything new under new keys.

Pure: a request, a recording and a few facts in, a dict of JSON values out. Invariants: `transcription` and
`translation` are text in every format; with `strict` the keys are worker-faster_whisper's and no others; numbers
that are not finite are null.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.formats import Cue, render
from engine.recording_types import Recording, Task
from engine.types import FRAMES_PER_SECOND, FileSegment, Word
from handler.schema_types import JobRequest

__all__ = ["OutputFacts", "build_output", "segment_of", "text_of"]

TIME_DIGITS = 3
"""Times are given in milliseconds."""
SCORE_DIGITS = 6
_ENGINE_FORMATS = {"verbose_json": "json"}
"""Formats that the engine knows by another name."""


@dataclass(frozen=True)
class OutputFacts:
    """What an answer tells that is neither in the request nor in the recording."""

    model: str
    device: str
    compute_type: str = ""
    model_revision: str | None = None
    download_s: float = 0.0
    strict: bool = False


def build_output(request: JobRequest, recording: Recording, facts: OutputFacts) -> dict[str, Any]:
    """The answer for one recording.

    worker-faster_whisper's keys: segments, detected_language, transcription, translation (None if not asked for),
    device, model, and word_timestamps if asked for. Unless `facts.strict` also: language_probability, duration,
    duration_after_vad, rtf, timings, mode, compute_type, model_revision, warnings, outputs (if formats were asked
    for), and words within segments.
    """
    segments = recording.segments.get("transcribe", ())
    with_words = request.word_timestamps
    output: dict[str, Any] = {
        "segments": [
            segment_of(number, segment, with_words=with_words and not facts.strict)
            for number, segment in enumerate(segments)
        ],
        "detected_language": recording.language,
        "transcription": text_of(request.transcription, "transcribe", request, recording),
        "translation": None,
        "device": facts.device,
        "model": facts.model,
    }
    if request.translation is not None:
        output["translation"] = text_of(request.translation, "translate", request, recording)
    if with_words:
        spoken = (word for segment in segments for word in segment.words)
        output["word_timestamps"] = [
            {"word": word.text, "start": _time(word.start_s), "end": _time(word.end_s)} for word in spoken
        ]
    return output if facts.strict else output | _new_facts(request, recording, facts)


def segment_of(number: int, segment: FileSegment, *, with_words: bool = False) -> dict[str, Any]:
    """A segment as worker-faster_whisper gives it; `number` counts from 0, its `id` from 1 as faster-whisper's.

    `seek`, where the decoder's window began in 10 ms frames, is the segment's own start here. `words` is new.
    """
    shown: dict[str, Any] = {
        "id": number + 1,
        "seek": int(segment.start_s * FRAMES_PER_SECOND) if math.isfinite(segment.start_s) else 0,
        "start": _time(segment.start_s),
        "end": _time(segment.end_s),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": _score(segment.temperature),
        "avg_logprob": _score(segment.avg_logprob),
        "compression_ratio": _score(segment.compression_ratio),
        "no_speech_prob": _score(segment.no_speech_prob),
    }
    if with_words:
        shown["words"] = [_word(word) for word in segment.words]
    return shown


def text_of(format_name: str, task: Task, request: JobRequest, recording: Recording) -> str:
    """The text of one task in one of `handler.fields.FORMATS`."""
    segments = recording.segments.get(task, ())
    if format_name in ("plain_text", "formatted_text"):
        between = " " if format_name == "plain_text" else "\n"
        return between.join(text for text in (segment.text.strip() for segment in segments) if text)
    document = render(
        _cues(segments, with_words=request.word_timestamps or request.max_line_width is not None),
        _ENGINE_FORMATS.get(format_name, format_name),
        language="en" if task == "translate" else recording.language,
        duration_s=recording.duration_s,
        task=task,
        max_line_width=request.max_line_width,
        max_line_count=request.max_line_count,
    )
    # worker-faster_whisper ends each block of SubRip with a blank line, the last one too.
    return f"{document}\n" if format_name == "srt" and document else document


def _new_facts(request: JobRequest, recording: Recording, facts: OutputFacts) -> dict[str, Any]:
    timings_s = {**recording.timings_s, "download": facts.download_s}
    timings_s["total"] = recording.timings_s.get("total", sum(recording.timings_s.values())) + facts.download_s
    took_s, lasts_s = timings_s["total"], recording.duration_s
    new: dict[str, Any] = {
        "language_probability": _score(recording.language_probability),
        "duration": _time(recording.duration_s),
        "duration_after_vad": _time(recording.speech_s),
        "timings": {f"{name}_s": _time(seconds) for name, seconds in sorted(timings_s.items())},
        "rtf": _score(took_s / lasts_s) if lasts_s > 0 else None,
        "mode": request.recording.mode,
        "compute_type": facts.compute_type,
        "model_revision": facts.model_revision,
        "warnings": [*request.warnings, *recording.warnings],
    }
    if request.output_formats:
        new["outputs"] = {
            name: text_of(name, "transcribe", request, recording) for name in dict.fromkeys(request.output_formats)
        }
    return new


def _cues(segments: Sequence[FileSegment], *, with_words: bool) -> list[Cue]:
    return [
        Cue(segment.start_s, segment.end_s, segment.text, segment.words if with_words else ()) for segment in segments
    ]


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": _time(word.start_s),
        "end": _time(word.end_s),
        "probability": _score(word.probability),
    }


def _time(seconds: float) -> float | None:
    return round(float(seconds), TIME_DIGITS) if math.isfinite(seconds) else None


def _score(value: float) -> float | None:
    return round(float(value), SCORE_DIGITS) if math.isfinite(value) else None
