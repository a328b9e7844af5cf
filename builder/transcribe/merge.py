"""Answers of jobs -> one transcript. Pure.

A recording goes as one job, or in pieces that were cut in pauses; times of a piece count from its start. Invariants:
segments and words ascend by piece; nothing is dropped and nothing stands twice, since pieces do not overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.errors import JobFailedError

__all__ = ["Answer", "Segment", "Transcript", "Word", "merge"]

MAX_WARNINGS = 20


@dataclass(frozen=True)
class Word:
    """A word and its time in the recording, in seconds."""

    text: str
    start_s: float
    end_s: float
    probability: float = 0.0


@dataclass(frozen=True)
class Segment:
    """A sentence or so, and its time in the recording."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a job gave for the recording from `start_s` to `end_s` (None: to its end)."""

    start_s: float
    end_s: float | None
    output: Mapping[str, Any]


@dataclass(frozen=True)
class Transcript:
    """A whole recording."""

    segments: tuple[Segment, ...]
    language: str | None
    duration_s: float | None
    task: str
    model: str | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def text(self) -> str:
        """All of it as one line."""
        return " ".join(text for text in (each.text.strip() for each in self.segments) if text)


def merge(answers: Sequence[Answer], task: str = "transcribe") -> Transcript:
    """One transcript of the answers, in the order of their times.

    Raises JobFailedError for an answer without what is needed.
    """
    ordered = sorted(answers, key=lambda each: each.start_s)
    segments: list[Segment] = []
    spoken_s: dict[str, float] = {}
    warnings: list[str] = []
    ends_s: float | None = 0.0
    for each in ordered:
        found = _segments(each, task)
        segments += found
        language = each.output.get("detected_language")
        if isinstance(language, str):
            weight = sum(segment.end_s - segment.start_s for segment in found)
            spoken_s[language] = spoken_s.get(language, 0.0) + max(weight, 0.001)
        said = each.output.get("warnings")
        warnings += [str(text) for text in said] if isinstance(said, list) else []
        ends_s = _end_s(each)
    language = max(spoken_s, key=lambda name: spoken_s[name], default=None)
    model = next((str(each.output["model"]) for each in ordered if each.output.get("model")), None)
    kept = tuple(dict.fromkeys(warnings))[:MAX_WARNINGS]
    return Transcript(tuple(segments), "en" if task == "translate" else language, ends_s, task, model, kept)


def _end_s(answer: Answer) -> float | None:
    if answer.end_s is not None:
        return answer.end_s
    duration_s = _number(answer.output.get("duration"))
    return None if duration_s is None else answer.start_s + duration_s


def _segments(answer: Answer, task: str) -> list[Segment]:
    listed = _translated(answer.output) if task == "translate" else answer.output.get("segments")
    if not isinstance(listed, list):
        why = "the whole result was put into a store" if answer.output.get("uploaded") else "they were left out"
        raise JobFailedError(
            f"the answer came without segments: {why}",
            hint="raise MAX_RESULT_BYTES of the endpoint, or unset BUCKET_ENDPOINT_URL there",
        )
    return [_segment(each, answer) for each in listed if isinstance(each, Mapping)]


def _translated(output: Mapping[str, Any]) -> Any:
    """Segments of the translation, which the job was asked for as a JSON text."""
    text = output.get("translation")
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return document.get("segments") if isinstance(document, dict) else None


def _segment(given: Mapping[str, Any], answer: Answer) -> Segment:
    start_s, end_s = _span(given, answer)
    listed = given.get("words")
    words = []
    for word in listed if isinstance(listed, list) else []:
        if isinstance(word, Mapping):
            word_start_s, word_end_s = _span(word, answer)
            probability = _number(word.get("probability")) or 0.0
            words.append(Word(str(word.get("word", "")), word_start_s, word_end_s, probability))
    return Segment(start_s, end_s, str(given.get("text", "")), tuple(words))


def _span(given: Mapping[str, Any], answer: Answer) -> tuple[float, float]:
    """A time in the recording, within the piece; recognisers run over the end of what they were given."""
    last_s = math.inf if answer.end_s is None else answer.end_s - answer.start_s
    start_s = min(max(0.0, _number(given.get("start")) or 0.0), last_s)
    end = _number(given.get("end"))
    end_s = min(max(start_s, start_s if end is None else end), last_s)
    return round(answer.start_s + start_s, 3), round(answer.start_s + end_s, 3)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
