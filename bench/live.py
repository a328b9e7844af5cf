"""`python -m bench.live [URL] --clients N`: a load of real-time clients, and how late their words come.

Knows sockets through the client library; what the figures mean is in `bench.measure`. Invariants: clients
start at different times and speak different things; every chunk leaves at its own deadline; a run in
which the driver itself was late is void.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.measure import LATE_S, StreamFigures, Summary, as_json, failed_stream, measure_stream, summarise
from bench.playlist import Playlist, make_playlists, play, start_times_s
from engine.decode import MediaDecoder
from engine.errors import BadInputError, SttError
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.errors import exit_code
from realtime.client.latency import Recording, load_labels
from realtime.client.local_server import local_server
from realtime.client.measured import stream_measured
from realtime.client.messages import ClientOptions
from realtime.client.options import read_token
from realtime.client.signals import cancelled_by_signals

__all__ = ["main"]

LABELS = Path(__file__).parent.parent / "engine" / "demo_model" / "speech" / "speech.json"
MAX_CLIENTS = 1_000
"""One event loop on one core drives about that many streams of small messages."""
MAX_SECONDS = 86_400.0
MIN_CHUNK_MS, MAX_CHUNK_MS = 10, 1_000
EXIT_VOID, EXIT_INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a load test; exit code 0 if the run counts."""
    args = _parser().parse_args(argv)
    console = Console()
    try:
        recordings = _choose(args)
        return asyncio.run(_run(args, recordings, console))
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return exit_code(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("url", nargs="?", metavar="URL", help="server (default: start one with the demo model)")
    add("-n", "--clients", type=int, default=4, help="streams at once (default %(default)s)")
    add("--seconds", type=float, default=30.0, help="least audio per client (default %(default)s)")
    add("--labels", type=Path, default=LABELS, metavar="FILE", help="recordings with word times (default: shipped)")
    add("--audio", nargs="+", metavar="NAME", help="only these recordings of the labels")
    add("--language", default="en", help="language of recordings and streams (default %(default)s)")
    add("--chunk-ms", type=int, default=100, help="audio per message (default %(default)s)")
    add("--spread-s", type=float, default=2.0, help="clients start within this time (default %(default)s)")
    add("--seed", type=int, default=1, help="order of recordings and start times (default %(default)s)")
    add("--json", action="store_true", help="print a JSON document instead of tables")
    return parser


def _choose(args: argparse.Namespace) -> tuple[Recording, ...]:
    for name, value, low, high in (
        ("--clients", args.clients, 1, MAX_CLIENTS),
        ("--seconds", args.seconds, 0, MAX_SECONDS),
        ("--chunk-ms", args.chunk_ms, MIN_CHUNK_MS, MAX_CHUNK_MS),
        ("--spread-s", args.spread_s, 0, MAX_SECONDS),
    ):
        if not low <= value <= high:
            raise BadInputError(name, value, f"{low:g} to {high:g}")
    labelled = [recording for recording in load_labels(args.labels) if recording.language == args.language]
    names = {recording.path.stem for recording in labelled} | {recording.path.name for recording in labelled}
    for name in args.audio or ():
        if name not in names:
            raise BadInputError("--audio", name, ", ".join(recording.path.stem for recording in labelled))
    chosen = tuple(
        recording
        for recording in labelled
        if not args.audio or recording.path.stem in args.audio or recording.path.name in args.audio
    )
    if not chosen:
        raise BadInputError("--language", args.language, "a language that the labels have")
    return chosen


async def _run(args: argparse.Namespace, recordings: Sequence[Recording], console: Console) -> int:
    audio = await _load(recordings)
    playlists = make_playlists(recordings, args.clients, args.seconds, args.seed)
    with cancelled_by_signals():
        if args.url is not None:
            figures = await _load_test(args, args.url, playlists, audio)
        else:
            async with local_server({"MAX_CLIENTS": str(args.clients)}) as server:
                await server.wait_ready()
                figures = await _load_test(args, server.url, playlists, audio)
    summary = summarise(figures)
    if args.json:
        sys.stdout.write(json.dumps(as_json(summary, figures, _conditions(args)), indent=2) + "\n")
    else:
        _print(summary, figures, console)
    return 0 if summary.is_valid else EXIT_VOID


async def _load(recordings: Sequence[Recording]) -> dict[Recording, FloatArray]:
    """All audio, once, before the clock runs."""
    with MediaDecoder() as decoder:
        return {recording: (await decoder.decode_async(recording.path)).samples for recording in recordings}


async def _load_test(
    args: argparse.Namespace, url: str, playlists: Sequence[Playlist], audio: Mapping[Recording, FloatArray]
) -> list[StreamFigures]:
    options = ClientOptions(language=args.language, token=read_token(None, os.environ) if args.url else None)
    chunk_samples = args.chunk_ms * SAMPLE_RATE_HZ // 1_000

    async def client(playlist: Playlist, delay_s: float) -> StreamFigures:
        await asyncio.sleep(delay_s)
        try:
            streamed = await stream_measured(url, options, play(playlist, audio, chunk_samples))
        except SttError as error:
            return failed_stream(playlist.name, playlist.words, playlist.audio_s, str(error))
        return measure_stream(playlist.name, playlist.words, streamed, playlist.audio_s)

    delays_s = start_times_s(len(playlists), args.spread_s, args.seed)
    return list(await asyncio.gather(*map(client, playlists, delays_s)))


def _conditions(args: argparse.Namespace) -> dict[str, Any]:
    names = ("clients", "seconds", "audio", "language", "chunk_ms", "spread_s", "seed")
    return {
        **{name: getattr(args, name) for name in names},
        "server": "given" if args.url else "own, demo model",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def _print(summary: Summary, figures: Sequence[StreamFigures], console: Console) -> None:
    table = Table(box=None, padding=(0, 1, 0, 0))
    headings = ("", "audio", "words", "right %", "WER %", "tail", "shown p50", "p95", "final p50", "p95", "end")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for stream in figures:
        part = summarise([stream])
        table.add_row(stream.name, *_cells(part))
    table.add_row("all", *_cells(summary), style="bold")
    console.print(table)
    console.print(
        "Shown and final: seconds after the end of a word's sound; tail: words missing at the end; end: seconds from "
        f"the end of the audio to the close. Driver at worst {1_000 * summary.own_lateness_s:.0f} ms late; completed "
        f"text changed {summary.violations} times."
    )
    console.print(
        f"Latest word: shown after {_seconds(summary.shown.max_s)} s, final after {_seconds(summary.final.max_s)} s. "
        f"Later than {LATE_S:g} s: {summary.shown_late} words shown, {summary.final_late} final."
    )
    for reason in summary.void_because:
        console.print(Text(f"void: {reason}", style="red"))


def _cells(part: Summary) -> list[str]:
    return [
        f"{part.audio_s:.0f}",
        str(part.words),
        f"{100 * part.coverage:.1f}",
        f"{100 * part.wer:.1f}",
        str(part.missing_tail),
        *map(_seconds, (part.shown.p50_s, part.shown.p95_s, part.final.p50_s, part.final.p95_s)),
        f"{part.finish_max_s:.2f}",
    ]


def _seconds(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.2f}"


if __name__ == "__main__":
    sys.exit(main())
