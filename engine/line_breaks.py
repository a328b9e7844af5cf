"""Breaks the text of a cue into lines, and a cue with too many lines into several.

Knows no format. Invariants: no character but blanks is lost or added; the pieces of a cue lie within it, in order,
without overlap; a line is never longer than asked.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from engine.errors import BadInputError
from engine.types import Word

__all__ = ["MIN_LINE_WIDTH", "Piece", "break_cue"]

MIN_LINE_WIDTH = 1
"""A line holds a character, or nothing ever gets shown."""
MIN_LINE_COUNT = 1

Piece = tuple[float, float, list[str]]
"""Start and end in seconds, and the lines that are shown meanwhile."""


def break_cue(
    start_s: float, end_s: float, text: str, words: Sequence[Word], width: int | None, count: int | None
) -> list[Piece]:
    """Pieces of at most `count` lines of at most `width` characters; None: no limit.

    Lines are broken between words; only what is longer than a line, such as text in a script without blanks, is
    broken anywhere. A piece takes the times of its words if `words` spell `text`; otherwise time is shared out by
    characters. `count` has no effect without `width`. Raises BadInputError for a limit below 1.
    """
    if width is not None and width < MIN_LINE_WIDTH:
        raise BadInputError("max_line_width", width, f"{MIN_LINE_WIDTH} or more")
    if count is not None and count < MIN_LINE_COUNT:
        raise BadInputError("max_line_count", count, f"{MIN_LINE_COUNT} or more")
    end_s = max(start_s, end_s)
    if width is None or not _weight(text):
        return [(start_s, end_s, [text])]
    lines = textwrap.wrap(text, width, break_on_hyphens=False) or [text]
    step = len(lines) if count is None else count
    groups = [lines[at : at + step] for at in range(0, len(lines), step)]
    ends = list(accumulate(sum(_weight(line) for line in group) for group in groups))
    spoken = [word for word in words if _weight(word.text)]
    reached = list(accumulate(_weight(word.text) for word in spoken))
    pieces: list[Piece] = []
    at_s = start_s
    for number, group in enumerate(groups):
        first, last = (ends[number - 1] if number else 0), ends[number]
        if reached and reached[-1] == ends[-1]:
            from_s = spoken[bisect_right(reached, first)].start_s
            to_s = spoken[bisect_right(reached, last - 1)].end_s
        else:
            from_s, to_s = (start_s + (end_s - start_s) * part / ends[-1] for part in (first, last))
        # The outer edges are the cue's own; recognisers' word times may leave it, or go back.
        from_s = start_s if number == 0 else min(max(from_s, at_s), end_s)
        at_s = end_s if number == len(groups) - 1 else min(max(to_s, from_s), end_s)
        pieces.append((from_s, at_s, group))
    return pieces


def _weight(text: str) -> int:
    """Characters that are no blanks."""
    return sum(not char.isspace() for char in text)
