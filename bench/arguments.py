"""What the commands of the benchmark have in common: options, their limits, and what they stand for.

Invariants: a value out of its range is refused by name before anything starts; secrets come from the
environment and are in no document.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.corpus import BOTH, LABELS, Corpus
from bench.expect import OfflineWords
from bench.load import LoadOptions
from bench.offline import CACHE, judge_all, read_cache
from bench.servers import ADMITTED_CLIENTS, GivenServer, OwnServer, ServerUnderTest
from engine.errors import BadInputError
from realtime.client.options import read_token

__all__ = [
    "MAX_DRIVERS",
    "MAX_SECONDS",
    "add_load_arguments",
    "add_server_arguments",
    "check_ranges",
    "chunk_ms",
    "command_line",
    "conditions",
    "load_options",
    "offline_words",
    "server_of",
]

MAX_SECONDS = 86_400.0
MIN_CHUNK_MS, MAX_CHUNK_MS = 10, 1_000
MAX_DRIVERS = 64
MIXED = "mixed"
SECRET = re.compile(r"([\w-]*(?:token|secret|key)[\w-]*)=.*", re.IGNORECASE | re.DOTALL)
"""Keys of the handshake whose values are nobody's business."""


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """The server, and how to speak to it."""
    add = parser.add_argument_group("server").add_argument
    add("url", nargs="?", metavar="URL", help="ws:// or wss:// (default: start one with the demo model)")
    add("--health-url", metavar="URL", help="http:// address of its /metrics, for queue figures and the loss ledger")
    add("--pid", type=int, action="append", default=[], help="its process on this machine, for CPU and memory")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="further key of the handshake (JSON value)")
    add("--linger-s", type=float, default=0.0, help="wait between the audio and END_OF_AUDIO (default %(default)s)")
    add("--offline", type=Path, metavar="FILE", help="what its model makes of the recordings offline (bench.offline)")


def add_load_arguments(parser: argparse.ArgumentParser, seconds: float) -> None:
    """The clients; `seconds` is the default length of each."""
    add = parser.add_argument_group("clients").add_argument
    add("--seconds", type=float, default=seconds, help="least audio per client (default %(default)s)")
    add("--labels", type=Path, default=LABELS, metavar="FILE", help="recordings with word times (default: shipped)")
    add("--audio", nargs="+", default=[], metavar="NAME", help="only these recordings of the labels")
    add("--language", default=BOTH, help="of recordings and streams; both: in turn (default %(default)s)")
    add("--chunk-ms", default=MIXED, metavar="MS", help="audio per message; mixed: 20, 64, 100, 256 (default)")
    add("--spread-s", type=float, default=2.0, help="clients start within this time (default %(default)s)")
    add("--seed", type=int, default=1, help="what is said, and start times (default %(default)s)")
    add("--drivers", type=int, default=1, help="processes that play the clients (default %(default)s)")


def check_ranges(args: argparse.Namespace, *more: tuple[str, float, float, float]) -> None:
    """Refuse what is out of range; `more` are further (name, value, least, most). Raises BadInputError."""
    chunk = chunk_ms(args)
    limits = [
        *more,
        ("--seconds", args.seconds, 0, MAX_SECONDS),
        ("--chunk-ms", MIN_CHUNK_MS if chunk is None else chunk, MIN_CHUNK_MS, MAX_CHUNK_MS),
        ("--spread-s", args.spread_s, 0, MAX_SECONDS),
        ("--drivers", args.drivers, 1, MAX_DRIVERS),
        ("--linger-s", args.linger_s, 0, MAX_SECONDS),
    ]
    for name, value, low, high in limits:
        if not low <= value <= high:
            raise BadInputError(name, value, f"{low:g} to {high:g}")


def chunk_ms(args: argparse.Namespace) -> int | None:
    """The size of the chunks; None: mixed. Raises BadInputError."""
    if args.chunk_ms == MIXED:
        return None
    try:
        return int(args.chunk_ms)
    except ValueError:
        raise BadInputError("--chunk-ms", args.chunk_ms, f"{MIXED}, or {MIN_CHUNK_MS} to {MAX_CHUNK_MS}") from None


def server_of(args: argparse.Namespace) -> ServerUnderTest:
    """The server that the arguments name. Raises BadInputError."""
    options = _handshake_options(args.option)
    if args.url is None:
        own = OwnServer()
        own.options, own.linger_s = options, args.linger_s
        return own
    return GivenServer(args.url, health_url=args.health_url, pids=args.pid, options=options, linger_s=args.linger_s)


def load_options(args: argparse.Namespace, clients: int) -> LoadOptions:
    """The load that the arguments describe."""
    return LoadOptions(
        clients=clients,
        seconds=args.seconds,
        chunk_ms=chunk_ms(args),
        spread_s=args.spread_s,
        seed=args.seed,
        drivers=args.drivers,
        token=read_token(None, os.environ) if args.url else None,
    )


def offline_words(args: argparse.Namespace, corpus: Corpus) -> dict[str, OfflineWords]:
    """What is known of the model offline: FILE if given; for our own server what ships; else nothing.

    Raises BadInputError if FILE cannot be read.
    """
    path = args.offline or (CACHE if args.url is None and CACHE.is_file() else None)
    return judge_all(read_cache(path, corpus.audio)) if path else {}


def conditions(args: argparse.Namespace) -> dict[str, Any]:
    """How a run was made, for its document."""
    names = ("seconds", "language", "chunk_ms", "spread_s", "seed", "drivers", "linger_s")
    return {
        **{name: getattr(args, name) for name in names},
        "option": [_without_secret(pair) for pair in args.option],
        "audio": args.audio or "all",
        "labels": "shipped" if args.labels == LABELS else "given",
        "server": "given" if args.url else "own, demo model, two processes, on this machine",
        "offline": "given" if args.offline else "own" if args.url is None else None,
        "admitted_clients": None if args.url else ADMITTED_CLIENTS,
    }


def command_line(module: str, argv: Sequence[str]) -> str:
    """The command as a reader would type it, without addresses, paths and secrets."""
    words = ("URL" if "://" in word else "FILE" if os.sep in word else _without_secret(word) for word in argv)
    return shlex.join(["python", "-m", module, *words])


def _without_secret(text: str) -> str:
    return SECRET.sub(r"\1=...", text)


def _handshake_options(pairs: Sequence[str]) -> Mapping[str, object]:
    options: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise BadInputError("--option", pair, "KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
