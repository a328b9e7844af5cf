"""`python -m bench.soak_files`: does a recording of hours need more memory than one of minutes?

Joins labelled recordings to a file of ten minutes and one of three hours, and transcribes both with our engine as
a job does. Memory is that of the process with its children (engine, media decoder) above what they held when the
model was loaded and nothing was decoded. Exit code 1 if more than MAX_ABOVE_IDLE_BYTES were needed, or if text is
missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.corpus import load_corpus
from bench.files import COMMANDS, add_way_arguments, way_options
from bench.files_corpus import MAX_FILE_S, LongFile, write_long_file
from bench.files_report import ACCURATE, FAST
from bench.files_way import Measured, Sample, WayOptions, WayProcess, way_process
from bench.files_wire import FileTask
from bench.report import machine_facts
from bench.tables import number, plain_table
from engine.errors import BadInputError, SttError
from engine.wer import normalise
from realtime.client.errors import exit_code

__all__ = ["MAX_ABOVE_IDLE_BYTES", "FileUse", "Stretch", "faults", "main", "stretches"]

MAX_ABOVE_IDLE_BYTES = 300_000_000
"""What the queue of windows, their spectrograms, one batch in the model and the media decoder may take together."""
MIN_HEARD, MAX_HEARD = 0.9, 1.1
"""Words heard for each word said: whether stretches are lost or repeated, not how right the words are."""
SHORT_S = 600.0
MIN_HOURS, MAX_HOURS = 0.02, MAX_FILE_S / 3_600
ROWS = 12


@dataclass(frozen=True)
class Stretch:
    """A part of a run: until when (wall), how much audio was done by then, and its highest memory above idle."""

    until_s: float
    done_s: float
    peak_bytes: int


@dataclass(frozen=True)
class FileUse:
    """One file: its length, what was heard of it, and memory above the idle worker."""

    audio_s: float
    wall_s: float
    cpu_s: float
    words_said: int
    words_heard: int
    stretches: tuple[Stretch, ...]

    @property
    def peak_bytes(self) -> int:
        """The most at any moment."""
        return max(each.peak_bytes for each in self.stretches)


def stretches(samples: Sequence[Sample], idle_bytes: int, rows: int = ROWS) -> tuple[Stretch, ...]:
    """The samples of a task in up to `rows` parts of equally many samples."""
    size = -(-len(samples) // rows)
    parts = [samples[at : at + size] for at in range(0, len(samples), size)]
    return tuple(
        Stretch(part[-1].at_s, part[-1].done_s, max(each.rss_bytes for each in part) - idle_bytes) for part in parts
    )


def faults(uses: Sequence[FileUse]) -> list[str]:
    """What is wrong; empty if nothing is."""
    found = []
    for use in uses:
        name = f"the file of {use.audio_s / 60:.0f} minutes"
        if use.peak_bytes > MAX_ABOVE_IDLE_BYTES:
            found.append(
                f"{name} took {use.peak_bytes / 1e6:.0f} MB above the idle worker "
                f"(limit {MAX_ABOVE_IDLE_BYTES / 1e6:.0f} MB)"
            )
        heard = use.words_heard / max(1, use.words_said)
        if not MIN_HEARD <= heard <= MAX_HEARD:
            found.append(
                f"{name} has {use.words_said} words, {use.words_heard} were heard "
                f"(legal: {MIN_HEARD:g} to {MAX_HEARD:g} times as many)"
            )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribe both files; returns the exit code."""
    args = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        if not MIN_HOURS <= args.hours <= MAX_HOURS:
            raise BadInputError("--hours", args.hours, f"{MIN_HOURS:g} to {MAX_HOURS:g}")
        options = way_options(args)
        uses = asyncio.run(_run(args, options, console))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    found = faults(uses)
    console.print("\n".join(f"[red]fault:[/] {fault}" for fault in found) or "Memory does not follow the length.")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.soak_files", description=(__doc__ or "").partition("\n")[0])
    add_way_arguments(parser)
    parser.add_argument("--hours", type=float, default=3.0, help="of the long file (default %(default)s)")
    parser.add_argument("--mode", choices=(FAST, ACCURATE), default=FAST, help="default %(default)s")
    return parser


async def _run(args: argparse.Namespace, options: WayOptions, console: Console) -> list[FileUse]:
    corpus = await load_corpus(args.labels, args.language)
    machine = machine_facts()
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores; model {options.model} on {options.device}, {args.mode}."
    )
    uses = []
    with tempfile.TemporaryDirectory() as folder:
        async with way_process(args.mode, COMMANDS[args.mode], options) as way:
            console.print(f"Idle worker: {way.idle_rss_bytes / 1e6:.0f} MB.")
            # The short one first: what a process once had it may keep, and the long one must not profit from that.
            for seconds in sorted({min(SHORT_S, 3_600 * args.hours), 3_600 * args.hours}):
                path = Path(folder) / "long.wav"
                file = write_long_file(corpus, args.language, seconds, args.seed, path)
                uses.append(await _measure(way, file))
                _print_use(uses[-1], console)
    return uses


async def _measure(way: WayProcess, file: LongFile) -> FileUse:
    done: Measured = await way.transcribe(FileTask(str(file.path), file.language))
    return FileUse(
        audio_s=file.audio_s,
        wall_s=done.wall_s,
        cpu_s=done.cpu_s,
        words_said=file.words,
        words_heard=len(normalise(done.answer.text)),
        stretches=stretches(done.samples, way.idle_rss_bytes),
    )


def _print_use(use: FileUse, console: Console) -> None:
    table = plain_table(("wall s", "audio done, min", "highest memory above idle, MB"))
    for each in use.stretches:
        table.add_row(number(each.until_s, 0), number(each.done_s / 60, 0), number(each.peak_bytes / 1e6, 0))
    console.print(
        f"{use.audio_s / 60:.0f} minutes of audio: {use.wall_s:.0f} s, CPU {use.cpu_s:.0f} s, {use.words_heard} words "
        f"heard of {use.words_said} said; at most {use.peak_bytes / 1e6:.0f} MB above the idle worker."
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
