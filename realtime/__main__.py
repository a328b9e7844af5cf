"""`python -m realtime`: the live server."""

from __future__ import annotations

import os
import signal

from engine.start_times import StartTimes

if __name__ == "__main__":
    # At the very beginning, as the imports take a second: nobody is served yet, so the end is a clean one. A
    # container's first process would not even hear the signal without a handler. The server puts its own in the
    # place of this one.
    signal.signal(signal.SIGTERM, lambda _signum, _frame: os._exit(0))
    # The image's entry point holds it back until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

# One thread for BLAS: the serving process multiplies small matrices only, and spinning threads
# would take the cores from the engine. Must stand before numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from engine.errors import ConfigError
from engine.logs import configure_logging
from engine.settings import Settings, add_options, load_settings, unknown_variables
from realtime.self_stop import stop_if_overdue
from realtime.server import RealtimeServer

STARTED = StartTimes(os.environ)
STARTED.mark("imports")
EXIT_CONFIG = 2
EXAMPLES = """\
examples:
  python -m realtime                                  the demo model on ws://127.0.0.1:9090
  python -m realtime --model small.en                 a real model, downloaded once
  WHISPER_AUTH_TOKEN=... python -m realtime --host 0.0.0.0
  python -m realtime --max_clients 8 --max_connection_time 600 --backend faster_whisper

Every option can be set by the variable in brackets, in the environment or in .env; options win.
"""


def parser() -> argparse.ArgumentParser:
    """The command line, made from the settings table."""
    result = argparse.ArgumentParser(
        prog="python -m realtime",
        description="Live speech-to-text over WebSocket, compatible with WhisperLive's clients.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(result)
    result.add_argument(
        "--backend", choices=["faster_whisper"], help="accepted for WhisperLive's command lines; there is no other"
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server; returns the exit code (0 drained, 1 no model, 2 settings, 70 engine down)."""
    code = _serve(argv)
    if code:
        asyncio.run(stop_if_overdue(os.environ))
    return code


def _serve(argv: Sequence[str] | None) -> int:
    options = vars(parser().parse_args(argv))
    try:
        settings = load_settings(options)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CONFIG
    configure_logging(settings.log_format, settings.log_level, _secrets(settings))
    logger = logging.getLogger("realtime")
    for warning in unknown_variables(os.environ):
        logger.warning("%s", warning)
    try:
        return asyncio.run(_run(settings))
    except ConfigError as error:
        logger.error("%s", error)
        return EXIT_CONFIG


async def _run(settings: Settings) -> int:
    return await RealtimeServer(settings, started=STARTED).run()


def _secrets(settings: Settings) -> list[str]:
    token = [settings.auth_token.get_secret_value()] if settings.auth_token else []
    # The pod's own key, which the platform puts there.
    return [*token, *filter(None, [os.environ.get("RUNPOD_API_KEY")])]


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit: a thread stuck in native code would keep the interpreter from ending.
    os._exit(code)
