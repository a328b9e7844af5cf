"""What the comparison of file pipelines found: figures per way, ratios within rounds, verdicts, a table.

Pure but for printing. Invariants: a ratio is taken within one round, where the machine was equally busy, and the
median of the rounds counts; a way that missed too much of the speech is no yardstick for speed, since words that
are not decoded cost nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.tables import number, percent, plain_table
from engine.wer import WordErrors

__all__ = [
    "ACCURATE",
    "ACCURATE_ALONE",
    "ALONE",
    "BATCHED",
    "FAST",
    "MAX_YARDSTICK_WER",
    "MIN_OVER_BATCHED",
    "MIN_OVER_SEQUENTIAL",
    "SEQUENTIAL",
    "Round",
    "Verdict",
    "WayFigures",
    "print_files",
    "ratio",
    "sequential_yardstick",
    "verdicts",
]

SEQUENTIAL, ALONE, BATCHED = "sequential", "alone", "batched"
FAST, ACCURATE, ACCURATE_ALONE = "fast", "accurate", "accurate-alone"
TITLES = {
    SEQUENTIAL: "worker-faster_whisper",
    ALONE: "same, no previous text",
    BATCHED: "faster-whisper, batched",
    FAST: "ours, fast",
    ACCURATE: "ours, accurate",
    ACCURATE_ALONE: "same, no previous text",
}
YARDSTICKS = (SEQUENTIAL, ALONE)
"""Whose text mode fast is measured by: the better of both. Mode accurate is shown beside it."""
MIN_OVER_SEQUENTIAL = 1.5
MIN_OVER_BATCHED = 1.0
MAX_WER_GAP = 0.005
"""Half a point: what chance does to a recording of 1,300 words."""
MAX_YARDSTICK_WER = 0.15
"""A way with more word errors did not do the work that the others did."""


@dataclass(frozen=True)
class Round:
    """One file by one way: seconds, and memory above that of the idle process."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class WayFigures:
    """All rounds of a way, and the text of the last."""

    rounds: tuple[Round, ...]
    errors: WordErrors
    segments: int
    timings_s: Mapping[str, float]

    @property
    def wall_s(self) -> float:
        """Median over the rounds."""
        return statistics.median(each.wall_s for each in self.rounds)

    @property
    def cpu_s(self) -> float:
        """Median over the rounds."""
        return statistics.median(each.cpu_s for each in self.rounds)

    @property
    def peak_bytes(self) -> int:
        """The most in any round."""
        return max(each.peak_bytes for each in self.rounds)


@dataclass(frozen=True)
class Verdict:
    """One goal; `is_met` None: it cannot be judged in this run, and `text` says why."""

    goal: str
    text: str
    is_met: bool | None


def ratio(slow: WayFigures, quick: WayFigures, *, on_gpu: bool) -> float:
    """How many times the second is as fast as the first.

    On a CPU processor time counts: it hardly feels what else runs, and two processes side by side do not look
    like less work. On a GPU it is wall time, since the work is not the processor's.
    """
    pairs = zip(slow.rounds, quick.rounds, strict=True)
    return statistics.median(a.wall_s / b.wall_s if on_gpu else a.cpu_s / b.cpu_s for a, b in pairs)


def sequential_yardstick(ways: Mapping[str, WayFigures]) -> str | None:
    """The sequential way to compare with: worker-faster_whisper's own, unless it does not do the work."""
    return next((name for name in (SEQUENTIAL, ALONE) if name in ways and _does_the_work(ways[name])), None)


def verdicts(ways: Mapping[str, WayFigures], *, on_gpu: bool) -> list[Verdict]:
    """The goals, as far as the ways were run."""
    found = []
    if FAST in ways:
        sequential = sequential_yardstick(ways)
        found.append(_speed(ways, "sequential", sequential, MIN_OVER_SEQUENTIAL, on_gpu=on_gpu))
        batched = BATCHED if BATCHED in ways and _does_the_work(ways[BATCHED]) else None
        found.append(_speed(ways, "batched", batched, MIN_OVER_BATCHED, on_gpu=on_gpu))
        found.append(_words(ways))
    return found


def print_files(
    ways: Mapping[str, WayFigures], audio_s: float, console: Console, *, on_gpu: bool, judged: Sequence[Verdict]
) -> None:
    """Table, where our time goes, verdicts."""
    console.print(_table(ways, audio_s, on_gpu=on_gpu))
    sequential = sequential_yardstick(ways)
    yardstick = TITLES[sequential] if sequential else f"none with a WER below {percent(MAX_YARDSTICK_WER)} %"
    console.print(
        f"Ratios: {'wall' if on_gpu else 'CPU'} time within a round, median of the rounds; over 1 is faster. "
        f"Sequential yardstick: {yardstick}."
    )
    for name, figures in ways.items():
        if figures.timings_s:
            parts = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in figures.timings_s.items())
            console.print(f"{TITLES[name]}, last round, wall: {parts}.")
    for verdict in judged:
        mark = {True: "[green]met[/]", False: "[red]MISSED[/]", None: "not judged"}[verdict.is_met]
        console.print(f"{mark}: {verdict.goal}: {verdict.text}")


def _table(ways: Mapping[str, WayFigures], audio_s: float, *, on_gpu: bool) -> Table:
    table = plain_table(("", "WER %", "wall s", "CPU s", "x real", "/ seq.", "/ batched", "MB", "segm."))
    sequential = sequential_yardstick(ways)
    for name, figures in ways.items():
        over = [
            number(ratio(ways[other], figures, on_gpu=on_gpu)) if other in ways else "-"
            for other in (sequential or "", BATCHED)
        ]
        table.add_row(
            TITLES[name],
            percent(figures.errors.rate),
            number(figures.wall_s),
            number(figures.cpu_s),
            number(audio_s / figures.wall_s, 0),
            *over,
            number(figures.peak_bytes / 1e6, 0),
            str(figures.segments),
        )
    return table


def _does_the_work(figures: WayFigures) -> bool:
    return figures.errors.rate < MAX_YARDSTICK_WER


def _speed(ways: Mapping[str, WayFigures], goal: str, other: str | None, least: float, *, on_gpu: bool) -> Verdict:
    title = f"fast: at least {least:g} times as fast as {goal}"
    if other is None:
        return Verdict(title, f"not run, or its WER is not below {percent(MAX_YARDSTICK_WER)} %", None)
    found = ratio(ways[other], ways[FAST], on_gpu=on_gpu)
    return Verdict(title, f"{found:.2f} times ({TITLES[other]})", found >= least)


def _words(ways: Mapping[str, WayFigures]) -> Verdict:
    goal = f"{FAST}: at most {percent(MAX_WER_GAP)} points more word errors than sequential"
    usable = [ways[other] for other in YARDSTICKS if other in ways and _does_the_work(ways[other])]
    if not usable:
        return Verdict(goal, f"no yardstick was run, or its WER is not below {percent(MAX_YARDSTICK_WER)} %", None)
    own, best = ways[FAST].errors.rate, min(each.errors.rate for each in usable)
    return Verdict(goal, f"{percent(own)} % against {percent(best)} %", own <= best + MAX_WER_GAP)
