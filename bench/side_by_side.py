"""`python -m bench.side_by_side`: this server and its best peer, same audio, same model, same machine, one run.

Each server gets a ramp (`bench.ramp`); WhisperLive in both of its modes and with several values of the handshake
key on which its commits depend (in batch mode without its own limits on new clients, so that the load alone
decides). Printed and written: how many streams each bears by both criteria, CPU at 4
streams, and our ratio over the peer's best, whichever mode and value that is. Invariants: all servers
hear the same clients; a peer that bears nothing gives no ratio; a ratio that rests on a run bound by the driver
says so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.arguments import MAX_DRIVERS, MAX_SECONDS, command_line
from bench.corpus import Corpus, load_corpus
from bench.expect import OfflineWords
from bench.load import LoadOptions
from bench.offline import CACHE, judge_all, read_cache, transcribe
from bench.plot import draw
from bench.ramp import CRITERIA, Ramp, fresh_runs, print_ramp, ramp, step_line
from bench.report import RESULTS, document, result_path, write_document
from bench.servers import ADMITTED_CLIENTS, OwnServer, ServerUnderTest
from bench.tables import number, plain_table
from bench.whisperlive import SAME_OUTPUT_THRESHOLDS, WhisperLiveServer
from engine.errors import BadInputError, SttError
from realtime.client.errors import exit_code
from realtime.client.signals import cancelled_by_signals

__all__ = ["CPU_CLIENTS", "Ratio", "compare", "contenders", "main"]

CPU_CLIENTS = 4
"""CPU is compared at this many streams: what every server here bears."""
PEER_LIMIT = 64
"""More streams than any peer bore; keeps a broken measure from running for ever."""
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Ratio:
    """Ours against the best of the peers' (`peer`); `ratio` is None where the peer has nothing to divide by."""

    measure: str
    ours: float | None
    peers: float | None
    peer: str | None
    ratio: float | None


def compare(own: Ramp, others: Sequence[Ramp]) -> tuple[Ratio, ...]:
    """Streams by each criterion (more is better), CPU per audio second (less is better; ratio: theirs by ours)."""
    ratios = []
    for criterion in CRITERIA:
        best = max(others, key=lambda each: each.best[criterion], default=None)
        theirs = best.best[criterion] if best else None
        ours = own.best[criterion]
        ratios.append(
            Ratio(
                f"streams, {criterion}", ours, theirs, best.server if best else None, ours / theirs if theirs else None
            )
        )
    costs = [(cost, each.server) for each in others if (cost := _cpu(each)) is not None]
    cost, server = min(costs, default=(None, None))
    ours_cost = _cpu(own)
    ratio = cost / ours_cost if cost is not None and ours_cost else None
    ratios.append(Ratio(f"CPU s per audio s at {CPU_CLIENTS}", ours_cost, cost, server, ratio))
    return tuple(ratios)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all ramps; exit code 0 if nothing was bound by the driver."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    console = Console()
    try:
        _check(args)
        ramps, servers = asyncio.run(_run(args, console))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    ratios = compare(ramps[0], ramps[1:])
    _print_ratios(ratios, console)
    how = {name: getattr(args, name) for name in ("seconds", "limit", "seed", "drivers", "thresholds")}
    results: dict[str, Any] = {
        "servers": servers,
        "ramps": [made.as_results() for made in ramps],
        "ratios": [vars(ratio) for ratio in ratios],
    }
    made = document("side-by-side", how, results, command=command_line("bench.side_by_side", argv))
    path = result_path("side-by-side", ".json", args.folder)
    write_document(path, made)
    draw(made, path.with_suffix(".png"))
    return 0 if all(made.note is None for made in ramps) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.side_by_side", description=(__doc__ or "").partition("\n")[0]
    )
    add = parser.add_argument
    add("--seconds", type=float, default=45.0, help="least audio per client (default %(default)s)")
    add("--limit", type=int, default=256, help="most streams to try on this server (default %(default)s)")
    add("--seed", type=int, default=1, help="what is said, and start times (default %(default)s)")
    add("--drivers", type=int, default=1, help="processes that play the clients (default %(default)s)")
    thresholds = SAME_OUTPUT_THRESHOLDS
    add("--thresholds", type=int, nargs="+", default=thresholds, help="same_output_threshold (default: %(default)s)")
    add("--folder", type=Path, default=RESULTS, metavar="DIR", help="where JSON and PNG go (default: %(default)s)")
    return parser


def _check(args: argparse.Namespace) -> None:
    for name, value, low, high in (
        ("--seconds", args.seconds, 1, MAX_SECONDS),
        ("--limit", args.limit, CPU_CLIENTS, ADMITTED_CLIENTS),
        ("--drivers", args.drivers, 1, MAX_DRIVERS),
    ):
        if not low <= value <= high:
            raise BadInputError(name, value, f"{low:g} to {high:g}")


async def _run(args: argparse.Namespace, console: Console) -> tuple[list[Ramp], dict[str, Any]]:
    """Our ramp, then the peer's, and what the servers are."""
    corpus = await load_corpus()
    offline = await _offline(corpus)
    made: list[Ramp] = []
    servers: dict[str, Any] = {}
    with cancelled_by_signals():
        for server in contenders(args.thresholds):
            limit = PEER_LIMIT if made else args.limit
            made.append(await _ramp(server, corpus, offline, args, limit))
            servers[server.name] = {"about": server.about, "options": server.options, "linger_s": server.linger_s}
            print_ramp(made[-1], console)
    return made, servers


def contenders(thresholds: Sequence[int]) -> list[ServerUnderTest]:
    """Our server, then the peer's variants; no two have the same name."""
    made: list[ServerUnderTest] = [OwnServer()]
    for batch in (False, True):
        for threshold in thresholds:
            made.append(WhisperLiveServer(batch=batch, same_output_threshold=threshold, admit_all=True))
    return made


async def _ramp(
    server: ServerUnderTest,
    corpus: Corpus,
    offline: Mapping[str, OfflineWords],
    args: argparse.Namespace,
    limit: int,
) -> Ramp:
    def options_for(clients: int) -> LoadOptions:
        return LoadOptions(clients, args.seconds, seed=args.seed, drivers=args.drivers)

    run = fresh_runs(server, corpus, offline, options_for)
    return await ramp(
        server.name,
        run,
        limit=limit,
        start=CPU_CLIENTS,
        on_step=lambda step: print(step_line(server.name, step), file=sys.stderr),
    )


async def _offline(corpus: Corpus) -> dict[str, OfflineWords]:
    """From the file that ships, or made now if it does not fit."""
    texts = read_cache(CACHE, corpus.audio) if CACHE.is_file() else {}
    if set(texts) != set(corpus.audio):
        texts = await transcribe(corpus.audio)
    return judge_all(texts)


def _cpu(made: Ramp) -> float | None:
    """CPU seconds per audio second at CPU_CLIENTS."""
    runs = [step.result for step in made.steps if step.clients == CPU_CLIENTS]
    return runs[0].cpu_per_audio_s if runs and runs[0] is not None else None


def _print_ratios(ratios: Sequence[Ratio], console: Console) -> None:
    table = plain_table(("", "ours", "peer", "ratio", "the peer's best"))
    for ratio in ratios:
        digits = 3 if "CPU" in ratio.measure else 0
        cells = (number(ratio.ours, digits), number(ratio.peers, digits), number(ratio.ratio, 1))
        table.add_row(ratio.measure, *cells, Text(ratio.peer or "-"))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
