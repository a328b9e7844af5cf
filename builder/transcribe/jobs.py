"""A recording with all that belongs to it, and how far all of them are. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.transcribe.report import Row, cost_of

if TYPE_CHECKING:
    from pathlib import Path

    from builder.transcribe.inputs import Source
    from builder.transcribe.ledger import Ledger, WorkerTime
    from builder.transcribe.parts import Item

__all__ = ["Job", "progress_text"]

BAR = 20


@dataclass
class Job:
    """A recording with all that belongs to it."""

    source: Source
    base: Path
    item: Item
    outputs: tuple[str, ...] = ()

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
        total = 0.0
        for part in self.ledger.parts:
            end_s = self.ledger.duration_s if part.end_s is None else part.end_s
            if part.state == "done" and end_s is not None:
                total += end_s - part.start_s
        return total

    def plan(self, formats: Sequence[str]) -> dict[str, Any]:
        """What would become of it, for --dry-run."""
        return {
            "input": self.source.shown,
            "way": self.ledger.way,
            "audio_s": self.ledger.duration_s,
            "remembered": self.ledger.is_complete,
            "outputs": [str(self.base.with_name(f"{self.base.name}.{name}")) for name in formats],
            "error": self.item.error,
        }

    def row(self, new_times: list[WorkerTime], prices_per_h: Mapping[str, float]) -> Row:
        """What became of it; `new_times` are those of this run."""
        item = self.item
        took_s = None if item.began_s is None or item.ended_s is None else item.ended_s - item.began_s
        status = "failed" if item.error is not None else "done" if item.ended_s is not None else "unfinished"
        cost = cost_of(new_times, prices_per_h)
        shown, ledger = self.source.shown, self.ledger
        return Row(shown, status, ledger.way, self.outputs, ledger.duration_s, took_s, cost, item.error)


def progress_text(jobs: Sequence[Job]) -> str:
    """How far all are, on one line: a bar, recordings, minutes."""
    n_over = sum(job.item.ended_s is not None or job.item.error is not None for job in jobs)
    all_s, done_s = sum(job.ledger.duration_s or 0.0 for job in jobs), sum(job.done_s for job in jobs)
    n_filled = round(BAR * (done_s / all_s if all_s else n_over / len(jobs)))
    minutes = f"{done_s / 60:.1f} of {all_s / 60:.1f} minutes of sound"
    return f"[{'#' * n_filled}{'-' * (BAR - n_filled)}] {n_over} of {len(jobs)} recordings, {minutes}"
