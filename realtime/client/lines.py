"""Completed segments joined to lines that people can read.

A server completes text in pieces of a few words; a caption or a subtitle is a sentence, or as much of one as
fits into a line. Pure. Invariant: the texts of the lines, joined, are the texts of the segments, joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.sentences import ends_sentence
from realtime.client.messages import Segment

__all__ = ["LineJoiner", "joined"]

MAX_LINE_CHARS = 84
"""Two lines of 42 characters, the usual limit of subtitles."""
MAX_LINE_S = 7.0
"""The longest that a subtitle usually stands."""
MAX_GAP_S = 1.0


class LineJoiner:
    """Segments in, lines out; `rest` is the line that may still grow, None if there is none."""

    def __init__(self) -> None:
        self.rest: Segment | None = None

    def add(self, segments: Iterable[Segment]) -> list[Segment]:
        """Take completed segments in order; returns the lines that they finish."""
        lines = []
        for segment in segments:
            if self.rest is not None and not _fits(self.rest, segment):
                lines.append(self.rest)
                self.rest = None
            self.rest = segment if self.rest is None else _join(self.rest, segment)
            if ends_sentence(self.rest.text):
                lines.append(self.rest)
                self.rest = None
        return lines

    def finish(self) -> list[Segment]:
        """The line that was still open, if any: nothing follows."""
        rest, self.rest = self.rest, None
        return [] if rest is None else [rest]


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """All lines of a finished transcript."""
    joiner = LineJoiner()
    return [*joiner.add(segments), *joiner.finish()]


def _fits(line: Segment, segment: Segment) -> bool:
    return (
        segment.start_s - line.end_s < MAX_GAP_S
        and segment.end_s - line.start_s <= MAX_LINE_S
        and len(line.text.strip()) + len(segment.text) <= MAX_LINE_CHARS
    )


def _join(line: Segment, segment: Segment) -> Segment:
    return replace(line, end_s=segment.end_s, text=line.text + segment.text, words=line.words + segment.words)
