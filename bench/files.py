"""`python -m bench.files`: one long file by faster-whisper's pipelines and by ours, side by side.

Ten minutes of labelled speech, the same model directory, device, precision and number of threads for all. Each
way runs in a process of its own; rounds are interleaved, and each begins with another way, so that whatever else
the machine does hits all alike. Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import command_line
from bench.corpus import LABELS, load_corpus
from bench.files_corpus import MAX_FILE_S, LongFile, write_long_file
from bench.files_report import (
    ACCURATE,
    ACCURATE_ALONE,
    ALONE,
    BATCHED,
    FAST,
    SEQUENTIAL,
    Round,
    Verdict,
    WayFigures,
    print_files,
    ratio,
    sequential_yardstick,
    verdicts,
)
from bench.files_way import Measured, WayOptions, WayProcess, way_process
from bench.files_wire import FileTask
from bench.report import document, machine_facts, write_document
from engine.cores import usable_cores
from engine.errors import BadInputError, SttError
from engine.models import DEMO_NAME
from engine.wer import word_errors
from realtime.client.errors import exit_code

__all__ = ["COMMANDS", "add_way_arguments", "interleaved", "main", "way_options"]

COMMANDS: Mapping[str, tuple[str, ...]] = {
    SEQUENTIAL: ("bench.files_peers", "--way", SEQUENTIAL),
    ALONE: ("bench.files_peers", "--way", ALONE),
    BATCHED: ("bench.files_peers", "--way", BATCHED),
    FAST: ("bench.files_own", "--mode", FAST),
    ACCURATE: ("bench.files_own", "--mode", ACCURATE),
    ACCURATE_ALONE: ("bench.files_own", "--mode", ACCURATE, "--no-previous-text"),
}
PRECISIONS = {"cpu": "int8", "cuda": "float16"}
"""What our `auto` and worker-faster_whisper both take."""
MIN_SECONDS, MAX_SECONDS = 10.0, 3_600.0
"""An hour is what word errors can be counted in (`engine.wer.MAX_CELLS`)."""
MAX_ROUNDS = 50


@dataclass(frozen=True)
class _Found:
    file: LongFile
    ways: Mapping[str, WayFigures]
    about: Mapping[str, Mapping[str, Any]]


def add_way_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, where it runs, and what it hears."""
    add = parser.add_argument
    add("--model", default=DEMO_NAME, help="as the server's WHISPER_MODEL (default %(default)s)")
    add("--device", choices=sorted(PRECISIONS), default="cpu", help="default %(default)s")
    add("--cpu-threads", type=int, default=0, help="of the model; 0: all cores, 1 for the demo model (default)")
    add("--labels", type=Path, default=LABELS, metavar="FILE", help="recordings with word times (default: shipped)")
    add("--language", default="en", help="of the recordings (default %(default)s)")
    add("--seed", type=int, default=1, help="order of the recordings (default %(default)s)")


def way_options(args: argparse.Namespace) -> WayOptions:
    """What all ways have in common. Raises BadInputError."""
    if not 0 <= args.cpu_threads <= 256:
        raise BadInputError("--cpu-threads", args.cpu_threads, "0 to 256")
    threads = args.cpu_threads or (1 if args.model == DEMO_NAME else usable_cores())
    return WayOptions(args.model, args.device, PRECISIONS[args.device], threads)


def interleaved(names: Sequence[str], rounds: int) -> list[tuple[str, ...]]:
    """The order of each round: all ways, each round beginning one further."""
    return [tuple(names[(shift + place) % len(names)] for place in range(len(names))) for shift in range(rounds)]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; returns the exit code."""
    args = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        _check(args)
        options = way_options(args)
        found = asyncio.run(_run(args, options))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    on_gpu = args.device == "cuda"
    judged = verdicts(found.ways, on_gpu=on_gpu) if args.verdict else []
    _print_conditions(found, options, console)
    print_files(found.ways, found.file.audio_s, console, on_gpu=on_gpu, judged=judged)
    if args.json is not None:
        words = command_line("bench.files", argv if argv is not None else sys.argv[1:])
        write_document(
            args.json,
            document("files", _conditions(args, options), _results(found, judged, on_gpu=on_gpu), command=words),
        )
    return 1 if any(verdict.is_met is False for verdict in judged) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.files", description=(__doc__ or "").partition("\n")[0])
    add_way_arguments(parser)
    add = parser.add_argument
    add("--seconds", type=float, default=600.0, help="least audio in the file (default %(default)s)")
    add("--rounds", type=int, default=3, help="times that each way does the file (default %(default)s)")
    add("--ways", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="only these")
    add("--json", type=Path, metavar="FILE", help="write the result here")
    add("--no-verdict", dest="verdict", action="store_false", help="figures only; exit code 0")
    return parser


def _check(args: argparse.Namespace) -> None:
    for name, value, low, high in (
        ("--seconds", args.seconds, MIN_SECONDS, min(MAX_SECONDS, MAX_FILE_S)),
        ("--rounds", args.rounds, 1, MAX_ROUNDS),
    ):
        if not low <= value <= high:
            raise BadInputError(name, value, f"{low:g} to {high:g}")


async def _run(args: argparse.Namespace, options: WayOptions) -> _Found:
    corpus = await load_corpus(args.labels, args.language)
    with tempfile.TemporaryDirectory() as folder:
        file = write_long_file(corpus, args.language, args.seconds, args.seed, Path(folder) / "long.wav")
        task = FileTask(str(file.path), file.language)
        measured: dict[str, list[tuple[WayProcess, Measured]]] = {name: [] for name in args.ways}
        async with contextlib.AsyncExitStack() as stack:
            ways = {
                name: await stack.enter_async_context(way_process(name, COMMANDS[name], options)) for name in args.ways
            }
            for number, order in enumerate(interleaved(args.ways, args.rounds), 1):
                for name in order:
                    done = await ways[name].transcribe(task)
                    measured[name].append((ways[name], done))
                    print(f"round {number}: {name} {done.wall_s:.2f} s, CPU {done.cpu_s:.2f} s", file=sys.stderr)
    about = {name: way.about for name, way in ways.items()}
    return _Found(file, {name: _figures(file, rounds) for name, rounds in measured.items()}, about)


def _figures(file: LongFile, rounds: Sequence[tuple[WayProcess, Measured]]) -> WayFigures:
    answer = rounds[-1][1].answer
    return WayFigures(
        rounds=tuple(Round(done.wall_s, done.cpu_s, done.peak_rss_bytes - way.idle_rss_bytes) for way, done in rounds),
        errors=word_errors(file.reference, answer.text),
        segments=answer.segments,
        timings_s=answer.timings_s,
    )


def _print_conditions(found: _Found, options: WayOptions, console: Console) -> None:
    machine = machine_facts()
    console.print(
        f"{found.file.audio_s:.0f} s of speech ({found.file.language}, {found.file.words} words); model "
        f"{options.model} on {options.device}, {options.compute_type}, {options.cpu_threads} thread(s) for each; "
        f"language given; MB above the idle process."
    )
    console.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}.")


def _conditions(args: argparse.Namespace, options: WayOptions) -> dict[str, Any]:
    return {
        **{name: getattr(args, name) for name in ("seconds", "rounds", "language", "seed", "ways")},
        **asdict(options),
        "model": Path(options.model).name,
        "labels": "shipped" if args.labels == LABELS else "given",
        "counts": "wall time" if args.device == "cuda" else "CPU time",
    }


def _results(found: _Found, judged: Sequence[Verdict], *, on_gpu: bool) -> dict[str, Any]:
    def over(name: str | None, figures: WayFigures) -> float | None:
        return ratio(found.ways[name], figures, on_gpu=on_gpu) if name and name in found.ways else None

    yardstick = sequential_yardstick(found.ways)
    return {
        "audio_s": found.file.audio_s,
        "words": found.file.words,
        "sequential_yardstick": yardstick,
        "ways": {
            name: {
                **asdict(figures),
                "wer": figures.errors.rate,
                "wall_s": figures.wall_s,
                "cpu_s": figures.cpu_s,
                "real_time_factor": figures.wall_s / found.file.audio_s,
                "peak_bytes": figures.peak_bytes,
                "over_sequential": over(yardstick, figures),
                "over_batched": over(BATCHED, figures),
                "about": found.about[name],
            }
            for name, figures in found.ways.items()
        },
        "verdicts": [asdict(verdict) for verdict in judged],
    }


if __name__ == "__main__":
    sys.exit(main())
