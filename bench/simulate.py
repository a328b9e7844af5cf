"""`python -m bench.simulate`: how many live streams a GPU would serve, simulated on a model of its costs.

No GPU and no weights are needed, and no figure of it is a measurement. What is real and what is modelled stands
in `bench.virtual.simulation`; the assumptions are printed with the results. With `--costs FILE` batches cost what
`python -m bench.gpu` has measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import costs
from bench.arguments import command_line
from bench.costs import CostModel, RooflineCosts, load_measured
from bench.report import document, write_document
from bench.roofline import GPUS, LAUNCH_S, SHAPES, max_streams
from bench.search import Search
from bench.virtual.simulation import MIN_SECONDS, TAIL_FRAMES, Card, Figures, Scenario, model_info, simulate
from bench.virtual.stream import CHUNK_S, JITTER_S
from engine.errors import BadInputError, SttError
from engine.types import FRAMES_PER_SECOND, MAX_FRAMES

__all__ = ["GOAL_COMPLETED_S", "GOAL_FINAL_S", "is_served", "main", "streams_at_p95"]

GOAL_COMPLETED_S = 2.0
"""p95 from the end of a word to its completion, up to which a number of streams counts as served."""
GOAL_FINAL_S, GOAL_FINAL_STREAMS = 0.5, 64
"""p95 from the end of speech to the final text that a turbo model on a GPU is to reach with so many streams."""
LIMIT_STEPS = 15
"""Decoder steps per second of a stream's audio in the physical limit: a partial's text."""
MAX_STREAMS, MAX_SECONDS = 2_000, 600.0
MAX_PAD_S = MAX_FRAMES / FRAMES_PER_SECOND
TABLE_COLUMNS = 132
LEGEND = """\
Seconds from the end of a word's sound until it is shown, and done (completed). Final: of a turn's last word, the wait
for the endpoint included; job: of a final from submission to result. Limit: time that the data sheet asks for the
same batches. Every: seconds between two partials. Could: streams talking at once that the service says it can serve.
Cpu: measured here, of the serving process per stream and second, without sockets and voice activity."""


@dataclass(frozen=True)
class Study:
    """A card and the runs on it, by number of streams."""

    card: Card
    runs: Sequence[Figures]


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate; exit code 0 unless the arguments are wrong."""
    args = _parser().parse_args(argv)
    console = Console(width=TABLE_COLUMNS, highlight=False)
    try:
        _check(args)
        cards = [_card(args, gpu, window_pad_s) for gpu in args.gpu for window_pad_s in args.window_pad]
        if not args.json:
            _print_assumptions(args, console)
        studies = []
        for card in cards:
            studies.append(Study(card, _runs(args, card)))
            if not args.json:
                _print_study(studies[-1], console)
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    command = command_line("bench.simulate", sys.argv[1:] if argv is None else argv)
    conditions = {**_conditions(args), "assumptions": _assumptions(args)}
    found = document("simulated", conditions, {"cards": [_section(study) for study in studies]}, command=command)
    if args.output is not None:
        write_document(args.output, found)
    if args.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def is_served(figures: Figures) -> bool:
    """True if every word was completed, and nearly all of them in time."""
    if figures.lost or figures.errors or figures.completed_p95_s is None:
        return False
    return figures.completed_p95_s <= GOAL_COMPLETED_S


def streams_at_p95(runs: Sequence[Figures]) -> int:
    """The largest number of streams tried that was served, with no smaller one that was not; 0: none."""
    served = 0
    for each in sorted(runs, key=lambda each: each.streams):
        if not is_served(each):
            break
        served = each.streams
    return served


def _runs(args: argparse.Namespace, card: Card) -> list[Figures]:
    """The numbers of streams asked for; if none are, a search for the largest that is served."""

    def run(n_streams: int) -> Figures:
        return simulate(card, Scenario(n_streams, args.seconds, args.speech, args.seed))

    if args.streams:
        return [run(n_streams) for n_streams in args.streams]
    runs = {GOAL_FINAL_STREAMS: run(GOAL_FINAL_STREAMS)}
    search = Search(limit=MAX_STREAMS, start=GOAL_FINAL_STREAMS)
    while (n_streams := search.next()) is not None:
        runs[n_streams] = runs.get(n_streams) or run(n_streams)
        search.take(n_streams, is_served(runs[n_streams]))
    return [runs[n_streams] for n_streams in sorted(runs)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--gpu", type=_names, default="L40S", help=f"cards: {', '.join(GPUS)} (default %(default)s)")
    add("--model", choices=SHAPES, default="large-v3-turbo", help="shape of the model (default %(default)s)")
    add("--streams", type=_numbers, help="numbers of streams (default: search for the largest that is served)")
    add("--window-pad", type=_seconds, default="30", help="least windows in seconds (default %(default)s)")
    add("--speech", type=float, default=0.6, help="share of time in which a stream speaks (default %(default)s)")
    add("--seconds", type=float, default=60.0, help="of each stream (default %(default)s)")
    add("--efficiency", type=float, default=costs.DEFAULT_EFFICIENCY, help="of the data sheet (default %(default)s)")
    add("--costs", type=Path, metavar="FILE", help="measured costs, from bench.gpu, instead of the data sheet's")
    add("--seed", type=int, default=1, help="of talks and chances (default %(default)s)")
    add("--json", action="store_true", help="print a JSON document instead of a table")
    add("--output", type=Path, metavar="FILE", help="write the JSON document to a file, too")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _seconds(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _check(args: argparse.Namespace) -> None:
    for name, values, low, high in (
        ("--streams", args.streams or [], 1, MAX_STREAMS),
        ("--window-pad", args.window_pad, 1, MAX_PAD_S),
        ("--speech", [args.speech], 0.1, 1),
        ("--seconds", [args.seconds], MIN_SECONDS, MAX_SECONDS),
        ("--efficiency", [args.efficiency], 0.01, 1),
    ):
        for value in values:
            if not low <= value <= high:
                raise BadInputError(name, value, f"{low:g} to {high:g}")
    for gpu in args.gpu:
        if gpu not in GPUS:
            raise BadInputError("--gpu", gpu, ", ".join(GPUS))


def _card(args: argparse.Namespace, gpu: str, window_pad_s: float) -> Card:
    shape = SHAPES[args.model]
    costs_of: CostModel = RooflineCosts(shape, GPUS[gpu], args.efficiency)
    if args.costs is not None:
        costs_of = load_measured(args.costs, args.model)
    return Card(gpu, shape, GPUS[gpu], costs_of, model_info(args.model, shape, window_pad_s))


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": args.model,
        "speech_share": args.speech,
        "seconds": args.seconds,
        "seed": args.seed,
        "efficiency": None if args.costs else args.efficiency,
        "costs": "given" if args.costs else "data sheet",
    }


def _section(study: Study) -> dict[str, Any]:
    card = study.card
    return {
        "gpu": card.name,
        "window_pad_s": card.info.pad_frames / FRAMES_PER_SECOND,
        "streams_at_p95": streams_at_p95(study.runs),
        "limit_streams": {"every_s": 1.0, "steps": LIMIT_STEPS, "ideal": _limit(card), "unfused": _limit(card, True)},
        "runs": [asdict(each) for each in study.runs],
    }


def _limit(card: Card, is_unfused: bool = False) -> int:
    window_s, launch_s = card.info.pad_frames / FRAMES_PER_SECOND, LAUNCH_S if is_unfused else 0.0
    return round(max_streams(card.shape, card.gpu, window_s, LIMIT_STEPS, launch_s=launch_s, fused=not is_unfused))


def _assumptions(args: argparse.Namespace) -> list[str]:
    if args.costs:
        gpu = "batches cost what was measured"
    else:
        gpu = (
            f"a card reaches {args.efficiency:.0%} of its data sheet, attention is not fused; the host takes "
            f"{1e6 * LAUNCH_S:.0f} us per decoder layer and step, {1e6 * costs.HOST_ROW_S:.0f} us per row and step, "
            f"{1e3 * costs.HOST_BATCH_S:.0f} ms per batch and {1e3 * costs.HOST_WINDOW_S:.0f} ms per window; "
            f"alignment takes {costs.ALIGN_SHARE:.0%} of decoding"
        )
    return [
        f"{gpu}; partials are greedy, finals beam 5; a batch lasts until its longest text ends",
        f"windows of less than 30 s are padded by {TAIL_FRAMES / FRAMES_PER_SECOND:g} s; float16",
        f"streams speak {args.speech:.0%} of the time, 3.6 tokens per second; chunks of {1e3 * CHUNK_S:.0f} ms, up to "
        f"{1e3 * JITTER_S:.0f} ms late; the language is given",
        "words are heard right except at the edges of a window and in 1 % of partials; a real model revises more",
        "the serving process, its sockets and its voice activity detector take no time",
    ]


def _print_assumptions(args: argparse.Namespace, console: Console) -> None:
    console.print(f"[bold]Simulated, not measured:[/] {args.model}. Assumptions:")
    for line in _assumptions(args):
        console.print(f"  - {line}")
    console.print(LEGEND)


def _print_study(study: Study, console: Console) -> None:
    card = study.card
    title = f"{card.name}, windows of {card.info.pad_frames / FRAMES_PER_SECOND:g} s or more"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in (
        *("streams", "shown p50", "p95", "done p50", "p95", "final p50", "p95", "job p95", "busy %", "limit %"),
        *("batch", "p95", "pad %", "every", "could", "lost", "wrong", "cpu ms/s"),
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in study.runs:
        table.add_row(*_cells(each))
    console.print(table)
    console.print(
        f"Streams at p95 <= {GOAL_COMPLETED_S:g} s until done: {streams_at_p95(study.runs)} of those tried; physical "
        f"limit at one decode per second of speech: {_limit(card)} ideal, {_limit(card, True)} with unfused attention."
    )
    for each in study.runs:
        if each.streams == GOAL_FINAL_STREAMS and each.final_p95_s is not None:
            verdict = "reached" if each.final_p95_s <= GOAL_FINAL_S else "missed"
            console.print(
                f"End of speech to final at {each.streams} streams: p95 {each.final_p95_s:.2f} s, goal for turbo "
                f"{GOAL_FINAL_S:g} s: {verdict}."
            )


def _cells(each: Figures) -> list[str]:
    return [
        str(each.streams),
        *map(
            _two_digits,
            (
                *(each.shown_p50_s, each.shown_p95_s, each.completed_p50_s, each.completed_p95_s),
                *(each.final_p50_s, each.final_p95_s, each.final_job_p95_s),
            ),
        ),
        f"{100 * each.busy:.0f}",
        f"{100 * each.limit_share:.0f}",
        f"{each.batch_mean:.1f}",
        f"{each.batch_p95 or 0:.0f}",
        f"{100 * each.padding_share:.0f}",
        f"{each.partial_interval_s:.2f}",
        "-" if each.max_streams is None else str(each.max_streams),
        str(each.lost),
        str(each.wrong),
        f"{each.cpu_ms_per_s:.1f}",
    ]


def _two_digits(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.2f}"


if __name__ == "__main__":
    sys.exit(main())
