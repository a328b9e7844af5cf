"""Timed text as a document: txt, srt, vtt, tsv, json, lrc.

Knows nothing of models, streams or files: cues in, one string out. Invariants: times are rounded
once, to whole milliseconds, so a carry (59.9996 s) moves on to the next minute and hour; text
is one line without control characters, so it can neither end a cue early nor steer a terminal;
cues without text are left out; no cues make a valid empty document.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import BadInputError
from engine.line_breaks import break_cue
from engine.types import Word

__all__ = [
    "FORMATS",
    "Cue",
    "one_line",
    "render",
    "timestamp",
    "to_json",
    "to_lrc",
    "to_srt",
    "to_tsv",
    "to_txt",
    "to_vtt",
]

MAX_TIME_S = 10_000 * 3_600.0
"""Longest time a stamp is made for; no recording lasts a year, so more is a defect of the sender."""
MS_PER_S = 1_000

_ARROW = re.compile(r"-{2,}>")


@dataclass(frozen=True)
class Cue:
    """Text from `start_s` to `end_s`, in seconds from the start of the recording.

    Raises BadInputError if a time is not finite, negative or beyond MAX_TIME_S. An end before the
    start is allowed (recognisers do it) and read as the start.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("start_s", self.start_s), ("end_s", self.end_s)):
            if not (math.isfinite(value) and 0 <= value <= MAX_TIME_S):
                raise BadInputError(name, value, f"0 to {MAX_TIME_S:g} seconds")

    @property
    def start_ms(self) -> int:
        """The start, rounded to milliseconds."""
        return round(self.start_s * MS_PER_S)

    @property
    def end_ms(self) -> int:
        """The end, rounded to milliseconds, never before the start."""
        return max(self.start_ms, round(self.end_s * MS_PER_S))


def one_line(text: str) -> str:
    """`text` on one line: white space collapsed, control and format-breaking characters dropped.

    Zero-width joiners and direction marks (Unicode category Cf) stay: scripts need them.
    """
    kept = (char for char in text if char.isspace() or unicodedata.category(char) not in ("Cc", "Cs"))
    return " ".join("".join(kept).split())


def timestamp(time_ms: int, separator: str) -> str:
    """`HH:MM:SS<separator>mmm`; hours have as many digits as they need, at least two."""
    seconds, milliseconds = divmod(time_ms, MS_PER_S)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{separator}{milliseconds:03d}"


def to_txt(cues: Sequence[Cue]) -> str:
    """One line of text per cue."""
    return "".join(f"{text}\n" for _, text in _spoken(cues))


def to_srt(cues: Sequence[Cue], max_line_width: int | None = None, max_line_count: int | None = None) -> str:
    """SubRip: numbered blocks, comma before the milliseconds; lines as `engine.line_breaks` makes them.

    SubRip has no escapes, so an arrow in the text is shortened to `->`: players take `-->` for a
    time line.
    """
    blocks = []
    for number, (cue, lines) in enumerate(_broken(cues, max_line_width, max_line_count), start=1):
        text = "\n".join(_ARROW.sub("->", line) for line in lines)
        blocks.append(f"{number}\n{_time_line(cue, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(cues: Sequence[Cue], max_line_width: int | None = None, max_line_count: int | None = None) -> str:
    """WebVTT (W3C): header line, full stop before the milliseconds, `&`, `<` and `>` escaped; lines as in SubRip."""
    blocks = ["WEBVTT\n"]
    for cue, lines in _broken(cues, max_line_width, max_line_count):
        text = "\n".join(html.escape(line, quote=False) for line in lines)
        blocks.append(f"{_time_line(cue, '.')}\n{text}\n")
    return "\n".join(blocks)


def to_lrc(cues: Sequence[Cue]) -> str:
    """LRC, as players of music show it: `[minutes:seconds.hundredths]text`; the format has no ends."""
    lines = []
    for cue, text in _spoken(cues):
        minutes, hundredths = divmod(round(cue.start_ms / 10), 6_000)
        # A bracket right behind the time would be read as one more tag.
        shown = f" {text}" if text.startswith("[") else text
        lines.append(f"[{minutes:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}]{shown}\n")
    return "".join(lines)


def to_tsv(cues: Sequence[Cue]) -> str:
    """A header and one line per cue: start and end in milliseconds, text (OpenAI Whisper's columns)."""
    lines = [f"{cue.start_ms}\t{cue.end_ms}\t{text}\n" for cue, text in _spoken(cues)]
    return "".join(["start\tend\ttext\n", *lines])


def to_json(
    cues: Sequence[Cue], *, language: str | None = None, duration_s: float | None = None, task: str = "transcribe"
) -> str:
    """The shape of OpenAI's `verbose_json`, without the fields only the decoder could fill.

    `words` stands at the top level, as OpenAI's SDK reads it, and only if some cue has words.
    `duration` falls back to the end of the last cue.
    """
    spoken = _spoken(cues)
    last_ms = max((cue.end_ms for cue, _ in spoken), default=0)
    document: dict[str, Any] = {
        "task": task,
        "language": language,
        "duration": _seconds(last_ms if duration_s is None else round(duration_s * MS_PER_S)),
        "text": " ".join(text for _, text in spoken),
        "segments": [
            {"id": number, "start": _seconds(cue.start_ms), "end": _seconds(cue.end_ms), "text": text}
            for number, (cue, text) in enumerate(spoken)
        ],
    }
    words = [word for cue, _ in spoken for word in cue.words]
    if words:
        document["words"] = [_word(word) for word in words]
    return json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Sequence[Cue]], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
    "lrc": to_lrc,
}
"""Name of a format, which is also its file name extension, to the function that writes it."""


def render(
    cues: Sequence[Cue],
    format_name: str,
    *,
    language: str | None = None,
    duration_s: float | None = None,
    task: str = "transcribe",
    max_line_width: int | None = None,
    max_line_count: int | None = None,
) -> str:
    """The document in one of FORMATS; the other arguments reach the formats that have a place for them.

    `max_line_width` (characters) and `max_line_count` shape the cues of srt and vtt. Raises BadInputError for an
    unknown format, or a limit below 1.
    """
    if format_name not in FORMATS:
        raise BadInputError("format", format_name, ", ".join(FORMATS))
    if format_name == "json":
        return to_json(cues, language=language, duration_s=duration_s, task=task)
    if format_name == "srt":
        return to_srt(cues, max_line_width, max_line_count)
    if format_name == "vtt":
        return to_vtt(cues, max_line_width, max_line_count)
    return FORMATS[format_name](cues)


def _spoken(cues: Sequence[Cue]) -> list[tuple[Cue, str]]:
    lines = ((cue, one_line(cue.text)) for cue in cues)
    return [(cue, text) for cue, text in lines if text]


def _broken(cues: Sequence[Cue], width: int | None, count: int | None) -> list[tuple[Cue, list[str]]]:
    """Cues with their lines; a cue with more lines than allowed becomes several."""
    return [
        (Cue(start_s, end_s, cue.text), lines)
        for cue, text in _spoken(cues)
        for start_s, end_s, lines in break_cue(cue.start_s, cue.end_s, text, cue.words, width, count)
    ]


def _time_line(cue: Cue, separator: str) -> str:
    # WebVTT wants the end to lie after the start; players show a cue of no length never.
    end_ms = max(cue.end_ms, cue.start_ms + 1)
    return f"{timestamp(cue.start_ms, separator)} --> {timestamp(end_ms, separator)}"


def _seconds(time_ms: int) -> float:
    return time_ms / MS_PER_S


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": one_line(word.text),
        "start": round(word.start_s, 3),
        "end": round(word.end_s, 3),
        "probability": round(word.probability, 4),
    }
