"""`python -m realtime.demo`: start a server, stream a recording in real time, check every word.

Knows the order of the show; server, client and measuring are elsewhere. Invariant: exit code 0 means that
the transcript was right word for word, and that the server stopped cleanly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.decode import MediaDecoder
from engine.errors import BadInputError, SttError
from engine.formats import one_line
from engine.types import SAMPLE_RATE_HZ
from realtime.client.display import make_display
from realtime.client.latency import Recording, StreamWords, load_labels, percentile, word_times
from realtime.client.local_server import STOP_TIMEOUT_S, LocalServer, Stopped, local_server
from realtime.client.measured import Streamed, stream_measured
from realtime.client.messages import ClientOptions
from realtime.client.signals import cancelled_by_signals
from realtime.client.sources import file_chunks

__all__ = ["main"]

SAMPLES = Path(__file__).parent.parent / "engine" / "demo_model" / "samples" / "samples.json"
DEFAULT_SAMPLE = "meeting_en.wav"
CHUNK_SAMPLES = SAMPLE_RATE_HZ // 10
MIN_SPEED, MAX_SPEED = 0.25, 20.0
"""Slower is tedious; faster measures the network stack rather than live speech."""
EXIT_WRONG, EXIT_INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m realtime.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", default=DEFAULT_SAMPLE, metavar="NAME", help="default: %(default)s")
    parser.add_argument("--speed", type=float, default=1.0, help="1 is real time (default)")
    args = parser.parse_args(argv)
    console = Console()
    try:
        recording = _choose(args.sample)
        if not MIN_SPEED <= args.speed <= MAX_SPEED:
            raise BadInputError("--speed", args.speed, f"{MIN_SPEED:g} to {MAX_SPEED:g}")
        return asyncio.run(_demo(recording, args.speed, console))
    except SttError as error:
        console.print(Text(f"error: {error}", style="red"))
        return EXIT_WRONG
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


def _choose(name: str) -> Recording:
    recordings = {recording.path.name: recording for recording in load_labels(SAMPLES)}
    for candidate in (name, f"{name}.wav"):
        if candidate in recordings:
            return recordings[candidate]
    raise BadInputError("--sample", name, ", ".join(recordings))


async def _demo(recording: Recording, speed: float, console: Console) -> int:
    with cancelled_by_signals():
        return await _show(recording, speed, console)


async def _show(recording: Recording, speed: float, console: Console) -> int:
    async with local_server() as server:
        await _start(server, console)
        try:
            streamed = await _stream(server, recording, speed, console)
        except SttError as error:
            console.print(Text(f"error: {error}", style="red"))
            console.print(Text(f"the server's last words:\n{server.log}", style="dim"))
            return EXIT_WRONG
        stopped = await server.stop()
        words = word_times(recording.words, streamed.updates, streamed.due_s)
        _report(recording, streamed, words, stopped, console)
        problems = _problems(streamed, words, stopped)
        for problem in problems:
            console.print(Text(f"error: {problem}", style="red"))
        if problems:
            console.print(Text(f"the server's last words:\n{server.log}", style="dim"))
        return EXIT_WRONG if problems else 0


async def _start(server: LocalServer, console: Console) -> None:
    with console.status("starting the server") as status:
        seconds = await server.wait_ready(on_status=lambda reason: status.update(f"the server is {one_line(reason)}"))
    console.print(f"The server is ready after {seconds:.1f} s: {server.url}, demo model, no network.")


async def _stream(server: LocalServer, recording: Recording, speed: float, console: Console) -> Streamed:
    console.print(f"Streaming {recording.path.name} at {speed:g} x real time.")
    with MediaDecoder() as decoder, make_display("auto", console) as display:
        display.begin(recording.path.name)
        chunks = file_chunks(decoder, recording.path, CHUNK_SAMPLES, lambda text: None)
        return await stream_measured(
            server.url,
            ClientOptions(),
            chunks,
            speed=speed,
            on_event=display.event,
            on_sent=lambda second: display.position(second, recording.duration_s),
        )


def _report(recording: Recording, streamed: Streamed, words: StreamWords, stopped: Stopped, console: Console) -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    errors = words.errors
    table.add_row("said", recording.text)
    table.add_row("heard", Text(one_line(streamed.text)))
    table.add_row(
        "word error rate",
        f"{100 * errors.rate:.1f} % of {errors.reference_words} words ({errors.substitutions} substituted, "
        f"{errors.deletions} deleted, {errors.insertions} inserted)",
    )
    table.add_row(
        "first word", f"shown {words.shown_after_s[0]:.2f} s after its end" if words.shown_after_s else "never"
    )
    table.add_row("a word is shown", _spread(words.shown_after_s))
    table.add_row("a word is final", _spread(words.final_after_s))
    table.add_row("end of audio", f"all text final and connection closed after {streamed.finish_s:.2f} s")
    table.add_row("server", f"stopped after {stopped.seconds:.1f} s with exit code {stopped.code}")
    console.print(table)


def _spread(latencies_s: Sequence[float]) -> str:
    median = percentile(latencies_s, 0.5)
    if median is None:
        return "never"
    return f"{median:.2f} s after its end (median), {max(latencies_s):.2f} s at most"


def _problems(streamed: Streamed, words: StreamWords, stopped: Stopped) -> list[str]:
    problems = []
    if streamed.error is not None:
        problems.append(streamed.error)
    if words.errors.errors:
        problems.append(f"{words.errors.errors} words are wrong")
    if streamed.violations:
        problems.append(f"completed text was changed {streamed.violations} times")
    if not stopped.is_clean:
        problems.append(
            f"the server did not stop with exit code 0 within {STOP_TIMEOUT_S:g} s "
            f"(exit code {stopped.code} after {stopped.seconds:.1f} s)"
        )
    return problems


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        # The reader of standard output has left, or its disk is full; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"error: cannot write: {error.strerror or error}")
