"""Runs the server of whisper-live, whose wheel has no script; started by `bench.whisperlive`.

Runs in the peer's own environment: knows nothing of this project and imports nothing of it. Invariants:
every setting that is not given keeps the package's own default; it listens on loopback only; it ends
when its standard input ends, so that it never outlives whoever started it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

PACKAGES = ("whisper-live", "faster-whisper", "ctranslate2", "torch", "onnxruntime", "websockets")
ABOUT = "PEER "
"""Begins the one line on standard output, a JSON object: the versions in use."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until killed or until standard input ends."""
    args = _parser().parse_args(argv)
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    # Only now: it reads OMP_NUM_THREADS as it is imported, and wrong arguments should not cost seconds.
    from whisper_live.server import TranscriptionServer

    versions = {name: version(name) for name in PACKAGES}
    print(ABOUT + json.dumps({"versions": versions, "python": platform.python_version()}), flush=True)
    TranscriptionServer().run("127.0.0.1", **_run_options(args))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--port", type=int, required=True)
    add("--model", required=True, metavar="DIR", help="CTranslate2 model directory")
    add("--max-clients", type=int, required=True)
    add("--max-connection-s", type=int, required=True)
    add("--batch", action="store_true", help="batch the windows of all clients instead of taking turns")
    add("--batch-queue-wait-s", type=float, help="refuse new clients above this queue wait (default: the package's)")
    add("--batch-admissions-per-s", type=float, help="most new clients per second (default: the package's)")
    return parser


def _run_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of TranscriptionServer.run; what is not given is left to the package."""
    options = {
        "port": args.port,
        "backend": "faster_whisper",
        "faster_whisper_custom_model_path": args.model,
        "single_model": True,
        "max_clients": args.max_clients,
        "max_connection_time": args.max_connection_s,
        "batch_enabled": args.batch,
    }
    optional = {
        "batch_max_queue_wait_s": args.batch_queue_wait_s,
        "batch_max_admissions_per_s": args.batch_admissions_per_s,
    }
    return options | {name: value for name, value in optional.items() if value is not None}


def _end_with_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4_096):
        pass
    # Not sys.exit: the server's client threads are not daemons and would keep the process.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
