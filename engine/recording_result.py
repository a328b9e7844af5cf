"""What has come out of a recording so far: its segments, and what its reader should be warned of.

Told about stretches in order. Knows no engine and no file. Invariant: the segments of a task ascend and do not
overlap, and each is told to `on_segment` once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.recording_cut import Stretch
from engine.recording_decode import Heard
from engine.recording_segments import GapFinder, in_order, segments_of
from engine.recording_types import OnProgress, OnSegment, RecordingOptions, Task
from engine.types import FileSegment
from engine.window_search import is_loop

__all__ = ["MAX_LISTED", "Collector", "placed_segment"]

MAX_LISTED = 20
"""Warnings of a kind that are spelt out; of the rest the number is told."""


class Collector:
    """The segments of one recording."""

    def __init__(self, options: RecordingOptions, on_segment: OnSegment | None, on_progress: OnProgress | None) -> None:
        self.segments: dict[Task, list[FileSegment]] = {task: [] for task in options.tasks}
        self._options = options
        self._on_segment = on_segment
        self._on_progress = on_progress
        self._gaps = GapFinder()
        self._loops: list[tuple[float, float]] = []

    @property
    def is_told(self) -> bool:
        """True if somebody waits for each segment."""
        return self._on_segment is not None

    def progress(self, done_s: float) -> None:
        """So much of the recording is done."""
        if self._on_progress is not None:
            self._on_progress(done_s)

    def add_heard(self, heard: Heard, language: str) -> None:
        """Take the windows of the next stretch, in the language of the recording."""
        for task, parts in heard.parts.items():
            for stretch, result in parts:
                if is_loop(result, self._options.search):
                    self._looped(task, stretch.start_s, stretch.end_s)
                for segment in segments_of(stretch, result, language, self._end_s(task)):
                    self._append(task, segment)
        self.look(heard.stretch)

    def add_segment(self, task: Task, segment: FileSegment) -> None:
        """Take the next segment, made elsewhere, in seconds of the recording."""
        if is_loop(segment, self._options.search):
            self._looped(task, segment.start_s, segment.end_s)
        start_s = max(segment.start_s, self._end_s(task))
        end_s = max(segment.end_s, start_s)
        self._append(
            task, replace(segment, start_s=start_s, end_s=end_s, words=tuple(in_order(segment.words, start_s)))
        )

    def look(self, stretch: Stretch) -> None:
        """All segments of the next stretch have come: is there speech without text in it?"""
        spoken: list[tuple[float, float]] = []
        for segment in reversed(self.segments[self._options.tasks[0]]):
            if segment.end_s < stretch.start_s:
                break
            said = [(word.start_s, word.end_s) for word in segment.words]
            spoken += reversed(said or [(segment.start_s, segment.end_s)])
        self._gaps.look(stretch, reversed(spoken))

    def warnings(self) -> tuple[str, ...]:
        """What went missing, and what is not to be trusted."""
        gaps = [f"speech without text from {a:.1f} s to {b:.1f} s" for a, b in self._gaps.found()]
        loops = [f"the text from {a:.1f} s to {b:.1f} s repeats itself" for a, b in self._loops]
        return (
            *_listed(gaps, "more stretches of speech without text"),
            *_listed(loops, "more stretches whose text repeats itself"),
        )

    def _append(self, task: Task, segment: FileSegment) -> None:
        self.segments[task].append(segment)
        if self._on_segment is not None:
            self._on_segment(task, segment)

    def _end_s(self, task: Task) -> float:
        segments = self.segments[task]
        return segments[-1].end_s if segments else 0.0

    def _looped(self, task: Task, start_s: float, end_s: float) -> None:
        if task == self._options.tasks[0]:
            self._loops.append((start_s, end_s))


def placed_segment(segment: FileSegment, stretch: Stretch, language: str) -> FileSegment:
    """A segment of a stretch's joined audio at its time in the recording."""
    start_s, _ = stretch.place(segment.start_s, segment.start_s)
    last_s = max(segment.start_s, segment.end_s - 0.001)  # the end of one piece is the beginning of the next
    _, end_s = stretch.place(last_s, last_s)
    words = tuple(map(stretch.placed, segment.words))
    return replace(segment, start_s=start_s, end_s=max(start_s, end_s), language=language, words=words)


def _listed(lines: Sequence[str], rest: str) -> list[str]:
    if len(lines) <= MAX_LISTED:
        return list(lines)
    return [*lines[:MAX_LISTED], f"{len(lines) - MAX_LISTED} {rest}"]
