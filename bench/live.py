"""`python -m bench.live [URL] --clients N`: a load of real-time clients, and how late their words come.

Works against any server of the protocol. Knows options and output; driving is in `bench.load`, and what the
figures mean in `bench.measure`. Invariants: clients start at different times, say different things and send
chunks of different sizes; a run in which the driver itself was late is void.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
from bench.corpus import choose, load_corpus
from bench.load import LoadResult, run_load
from bench.report import document, load_section, write_document
from bench.servers import ADMITTED_CLIENTS
from bench.tables import print_load
from engine.errors import SttError
from realtime.client.errors import exit_code
from realtime.client.signals import cancelled_by_signals

__all__ = ["main"]

EXIT_VOID, EXIT_INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a load test; exit code 0 if the run counts."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    try:
        check_ranges(args, ("--clients", args.clients, 1, ADMITTED_CLIENTS))
        choose(args.labels, args.language, args.audio)
        result = asyncio.run(_run(args))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    how = {"clients": args.clients, **conditions(args)}
    made = document("live", how, load_section(result), command=command_line("bench.live", argv))
    if args.output is not None:
        write_document(args.output, made)
    if args.json:
        sys.stdout.write(json.dumps(made, indent=2) + "\n")
    else:
        print_load(result, Console())
    return 0 if result.summary.is_valid else EXIT_VOID


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=(__doc__ or "").partition("\n")[0])
    add_server_arguments(parser)
    parser.add_argument("-n", "--clients", type=int, default=4, help="streams at once (default %(default)s)")
    add_load_arguments(parser, seconds=30.0)
    parser.add_argument("--json", action="store_true", help="print a JSON document instead of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the JSON document to FILE, too")
    return parser


async def _run(args: argparse.Namespace) -> LoadResult:
    server = server_of(args)
    corpus = await load_corpus(args.labels, args.language, args.audio)
    offline = offline_words(args, corpus)
    with cancelled_by_signals():
        try:
            await server.start()
            return await run_load(server, corpus, offline, load_options(args, args.clients))
        finally:
            await server.stop()


if __name__ == "__main__":
    sys.exit(main())
