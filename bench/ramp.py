"""`python -m bench.ramp [URL]`: how many streams can a server bear?

The largest N at which a criterion holds, found by doubling and then halving the gap. Two criteria, each judged
on a whole run of N streams:

* shown: 95 % of the words are shown within 2 s after their end, and 99 % are covered on the screen;
* final: 95 % of the words are final within 2 s, 99 % are covered by the final text, no completed text changed,
  and the loss ledger (where there is one) has no loss.

In both, every stream must come to its end, and the word error rate may exceed that of the same model offline
(where that is known) by 1 point. What covered means stands in `bench.measure`. Each step has a fresh server
(of a given URL: the one that runs), so that a step which overloads it leaves nothing behind. Invariants: a
run in which the driver was late is made once more; late again, its size counts as one at which nothing holds,
and the ramp is marked as bound by the driver; both criteria are judged on the same runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.arguments import (
    add_load_arguments,
    add_server_arguments,
    check_ranges,
    command_line,
    conditions,
    load_options,
    offline_words,
    server_of,
)
from bench.corpus import Corpus, choose, load_corpus
from bench.expect import OfflineWords
from bench.load import LoadOptions, LoadResult, run_load
from bench.measure import Summary
from bench.report import document, load_section, write_document
from bench.search import Search
from bench.servers import ADMITTED_CLIENTS, ServerUnderTest
from bench.tables import number, percent, plain_table
from engine.errors import SttError
from realtime.client.errors import exit_code
from realtime.client.signals import cancelled_by_signals

__all__ = [
    "CRITERIA",
    "LIMIT_S",
    "Ramp",
    "Step",
    "holds_final",
    "holds_shown",
    "main",
    "print_ramp",
    "ramp",
    "step_line",
]

LIMIT_S = 2.0
"""Later captions than that cannot be followed together with the picture."""
MIN_COVERAGE = 0.99
MAX_WER_GAP = 0.01
"""Speed that is bought with more errors than this does not count."""
START = 4
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Step:
    """One size. `result` is None if the driver was late twice."""

    clients: int
    result: LoadResult | None
    holds: Mapping[str, bool]


@dataclass(frozen=True)
class Ramp:
    """A server's ramp: by criterion the largest size at which it held (0: at none), and why it ended early."""

    server: str
    best: Mapping[str, int]
    steps: tuple[Step, ...]
    note: str | None

    def as_results(self) -> dict[str, Any]:
        """As part of a document."""
        steps = [
            {
                "clients": step.clients,
                "holds": dict(step.holds),
                "run": step.result and load_section(step.result, with_streams=False),
            }
            for step in self.steps
        ]
        return {"server": self.server, "best": dict(self.best), "note": self.note, "steps": steps}


def holds_shown(result: LoadResult) -> bool:
    """The criterion "shown"."""
    summary = result.summary
    return _is_good(summary, summary.shown.p95_s, summary.coverage_shown)


def holds_final(result: LoadResult) -> bool:
    """The criterion "final"."""
    summary = result.summary
    is_kept = summary.mutated == 0 and (result.ledger is None or result.ledger.is_lossless)
    return _is_good(summary, summary.final.p95_s, summary.coverage_final) and is_kept


CRITERIA: Mapping[str, Callable[[LoadResult], bool]] = {"shown": holds_shown, "final": holds_final}


async def ramp(
    name: str,
    run: Callable[[int], Awaitable[LoadResult]],
    *,
    limit: int,
    start: int = START,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Ramp:
    """Find the best size for each criterion; `run` makes one run of so many streams."""
    steps: dict[int, Step] = {}
    best: dict[str, int] = {}
    for criterion in CRITERIA:
        search = Search(limit, start)
        while (clients := search.next()) is not None:
            if clients not in steps:
                steps[clients] = await _step(clients, run)
                on_step(steps[clients])
            search.take(clients, steps[clients].holds.get(criterion, False))
        best[criterion] = search.best
    late = sorted(clients for clients, step in steps.items() if step.result is None)
    note = f"Driver-bound: the driver was late at {', '.join(map(str, late))} streams." if late else None
    return Ramp(name, best, tuple(steps[clients] for clients in sorted(steps)), note)


def fresh_runs(
    server: ServerUnderTest,
    corpus: Corpus,
    offline: Mapping[str, OfflineWords],
    options_for: Callable[[int], LoadOptions],
) -> Callable[[int], Awaitable[LoadResult]]:
    """Runs of which each starts the server anew."""

    async def run(clients: int) -> LoadResult:
        try:
            await server.start()
            return await run_load(server, corpus, offline, options_for(clients))
        finally:
            await server.stop()

    return run


def step_line(server: str, step: Step) -> str:
    """A step as it is told while the ramp goes on."""
    held = [criterion for criterion, holds in step.holds.items() if holds]
    told = "the driver was late" if step.result is None else f"holds: {', '.join(held) or 'nothing'}"
    return f"{server}: {step.clients} streams, {told}"


def print_ramp(made: Ramp, console: Console) -> None:
    """A row per size, narrow enough for 80 columns."""
    table = plain_table(("N", "shown 50%", "95%", "cov", "final 50%", "95%", "cov", "WER", "CPU", "cores", "late"))
    for step in made.steps:
        table.add_row(str(step.clients), *_cells(step.result))
    console.print(f"{made.server}: N streams, seconds; covered and WER in %; CPU s per audio s; driver late, ms")
    console.print(table)
    found = ", ".join(f"{criterion} {clients}" for criterion, clients in made.best.items())
    console.print(
        f"{made.server}: most streams at 95 % within {LIMIT_S:g} s: {found}." + (f" {made.note}." if made.note else "")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a ramp; exit code 0 if it found its answer."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    try:
        check_ranges(args, ("--limit", args.limit, 1, ADMITTED_CLIENTS), ("--start", args.start, 1, ADMITTED_CLIENTS))
        choose(args.labels, args.language, args.audio)
        made = asyncio.run(_run(args))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    how = {"limit": args.limit, "start": args.start, **conditions(args)}
    written = document("ramp", how, {"ramps": [made.as_results()]}, command=command_line("bench.ramp", argv))
    if args.output is not None:
        write_document(args.output, written)
    if args.json:
        sys.stdout.write(json.dumps(written, indent=2) + "\n")
    else:
        print_ramp(made, Console())
    return 0 if made.note is None else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.ramp", description=(__doc__ or "").partition("\n")[0])
    add_server_arguments(parser)
    parser.add_argument("--limit", type=int, default=256, help="most streams to try (default %(default)s)")
    parser.add_argument("--start", type=int, default=START, help="first size to try (default %(default)s)")
    add_load_arguments(parser, seconds=45.0)
    parser.add_argument("--json", action="store_true", help="print a JSON document instead of a table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON document to FILE, too")
    return parser


async def _run(args: argparse.Namespace) -> Ramp:
    server = server_of(args)
    corpus = await load_corpus(args.labels, args.language, args.audio)
    run = fresh_runs(server, corpus, offline_words(args, corpus), lambda clients: load_options(args, clients))
    with cancelled_by_signals():
        return await ramp(
            server.name,
            run,
            limit=args.limit,
            start=args.start,
            on_step=lambda step: print(step_line(server.name, step), file=sys.stderr),
        )


async def _step(clients: int, run: Callable[[int], Awaitable[LoadResult]]) -> Step:
    """A run; once more if the driver was late."""
    for _ in range(2):
        result = await run(clients)
        if not result.summary.is_driver_late:
            return Step(clients, result, {name: holds(result) for name, holds in CRITERIA.items()})
    return Step(clients, None, {})


def _is_good(summary: Summary, p95_s: float | None, coverage: float) -> bool:
    is_fast = p95_s is not None and p95_s <= LIMIT_S
    is_right = summary.wer_gap is None or summary.wer_gap <= MAX_WER_GAP
    return is_fast and is_right and coverage >= MIN_COVERAGE and summary.broken == 0


def _cells(result: LoadResult | None) -> list[str]:
    if result is None:
        return ["void", *["-"] * 9]
    summary = result.summary
    return [
        *map(number, (summary.shown.p50_s, summary.shown.p95_s)),
        percent(summary.coverage_shown),
        *map(number, (summary.final.p50_s, summary.final.p95_s)),
        percent(summary.coverage_final),
        percent(summary.wer),
        number(result.cpu_per_audio_s, 3),
        number(result.resources.cores if result.resources else None),
        number(1_000 * summary.own_lateness_s, 0),
    ]


if __name__ == "__main__":
    sys.exit(main())
