"""A recording with all that belongs to it, and how far all of them are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.instants import duration_text
from builder.transcribe.report import Row, cost_of

if TYPE_CHECKING:
    from pathlib import Path

    from builder.transcribe.inputs import Source
    from builder.transcribe.ledger import Ledger, Part, WorkerTime
    from builder.transcribe.parts import Item

__all__ = ["Job", "progress_text"]

BAR = 16
"""Fits into 80 columns with all else."""


@dataclass
class Job:
    """A recording with all that belongs to it."""

    source: Source
    base: Path
    item: Item
    outputs: tuple[str, ...] = ()
    remembered: bool = False
    """All of it was transcribed before this run."""

    @property
    def ledger(self) -> Ledger:
        """Its memory."""
        return self.item.ledger

    @property
    def is_to_be_sent(self) -> bool:
        """True if jobs are to be submitted for it."""
        parts = self.ledger.parts
        return self.item.error is None and not (parts and all(each.state in ("done", "submitted") for each in parts))

    @property
    def times(self) -> list[WorkerTime]:
        """What its jobs took, those of earlier runs first."""
        return [each for part in self.ledger.parts for each in part.times]

    @property
    def done_s(self) -> float:
        """Seconds of sound that have a result."""
        return self._seconds_of([part for part in self.ledger.parts if part.state == "done"])

    def _seconds_of(self, parts: Sequence[Part]) -> float:
        ends_s = [self.ledger.duration_s if part.end_s is None else part.end_s for part in parts]
        return sum(end_s - part.start_s for part, end_s in zip(parts, ends_s, strict=True) if end_s is not None)

    def plan(self, formats: Sequence[str]) -> dict[str, Any]:
        """What would become of it, for --dry-run."""
        return {
            "input": self.source.shown,
            "way": self.ledger.way,
            "audio_s": self.ledger.duration_s,
            "remembered": self.remembered,
            "outputs": [str(self.base.with_name(f"{self.base.name}.{name}")) for name in formats],
            "error": self.item.error,
        }

    def row(self, new_times: list[WorkerTime], prices_per_h: Mapping[str, float]) -> Row:
        """What became of it; `new_times` are those of this run."""
        item = self.item
        new = {id(each) for each in new_times}
        asked = [part for part in self.ledger.parts if part.state == "done" and new & {id(each) for each in part.times}]
        took_s = None if item.began_s is None or item.ended_s is None else item.ended_s - item.began_s
        status = "failed" if item.error is not None else "done" if item.ended_s is not None else "unfinished"
        cost = cost_of(new_times, prices_per_h)
        return Row(
            self.source.shown,
            status,
            self.ledger.way,
            self.outputs,
            self.ledger.duration_s,
            took_s,
            cost,
            item.error,
            self.remembered,
            self._seconds_of(asked),
        )


def progress_text(jobs: Sequence[Job]) -> str:
    """How far all are, on one line: a bar, recordings, minutes."""
    n_over = sum(job.item.ended_s is not None or job.item.error is not None for job in jobs)
    # Nothing is to be expected of those that failed.
    lengths_s = [job.ledger.duration_s for job in jobs if job.item.error is None]
    all_s = None if None in lengths_s else sum(length_s or 0.0 for length_s in lengths_s)
    done_s = sum(job.done_s for job in jobs if job.item.error is None)
    n_filled = int(BAR * (min(1.0, done_s / all_s) if all_s else n_over / len(jobs)))
    sound = duration_text(done_s) if all_s is None else f"{duration_text(done_s)} of {duration_text(all_s)}"
    bar = f"[{'#' * n_filled}{'-' * (BAR - n_filled)}]"
    return f"{bar} {n_over} of {len(jobs)} recordings, {sound} of sound"
