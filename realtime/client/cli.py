"""`python -m realtime.client`: transcribe files or a microphone on a live server.

Knows what a run consists of and in which order; the parts do the work. Invariants: every error is one line
on standard error and an exit code; text that has arrived is written even if the stream breaks; Ctrl-C ends
the audio, waits for the last words and exits with 130, a second one exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from engine.decode import MediaDecoder
from engine.errors import SttError, UnauthorizedError
from engine.formats import Cue, one_line, render
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.api import LiveClient
from realtime.client.connect import CONNECT_BUDGET_S, is_loopback
from realtime.client.display import Display, make_display
from realtime.client.errors import EXIT_BROKEN, ConnectError, ServerFullError, SourceError, exit_code
from realtime.client.lines import joined
from realtime.client.messages import Event, Language, ServerWarning
from realtime.client.options import TOKEN_VARIABLE, Plan, make_parser, make_plan
from realtime.client.pacing import Pacer, paced
from realtime.client.signals import on_signals
from realtime.client.sources import FILE_LIMITS, count_samples, file_chunks, microphone_chunks, primed

__all__ = ["main"]

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""


class Run:
    """One invocation: the plan, the display, the wish to stop."""

    def __init__(self, plan: Plan, display: Display, decoder: MediaDecoder) -> None:
        self.plan = plan
        self.display = display
        self.decoder = decoder
        self.stop = asyncio.Event()
        self.is_streaming = False
        self._has_retried = False
        self.total_s: float | None = None
        self.language: str | None = None

    async def all(self) -> int:
        """Transcribe every source in turn; the exit code of the first that failed, or 0."""
        code = 0
        sources = self.plan.files or (None,)
        for place, path in enumerate(sources):
            document = self.plan.documents[place] if self.plan.documents else None
            try:
                await self.one(path, document)
            except SttError as error:
                # Every file has its own verdict: the others are still transcribed, unless the server is out of reach.
                complain(f"error: {path}: {error}" if len(sources) > 1 else f"error: {error}")
                code = code or exit_code(error)
                if isinstance(error, ConnectError | UnauthorizedError | ServerFullError):
                    break
            if self.stop.is_set():
                return EXIT_INTERRUPTED
        return code

    async def one(self, path: Path | None, document: Path | None) -> None:
        """One source over one connection; writes its document whatever happens."""
        self.display.begin(one_line(path.name) if path else "microphone")
        self.total_s, self.language, self._has_retried = None, self.plan.options.language, False
        # What is no audio should not cost the server a place.
        async with contextlib.aclosing(await primed(self._source(path))) as chunks:
            live = await LiveClient.connect(self.plan.url, self.plan.options, on_retry=self._retrying)
            self.is_streaming = True
            async with live:
                try:
                    await self._stream(live, path, chunks)
                    live.check_complete()
                finally:
                    self.is_streaming = False
                    if live.transcript.violations:
                        self._warn(f"the server changed completed text {live.transcript.violations} times")
                    if document is not None:
                        self._write(live, document)

    def _source(self, path: Path | None) -> AsyncGenerator[FloatArray, None]:
        chunk_samples = self.plan.chunk_ms * SAMPLE_RATE_HZ // 1_000
        if path is None:
            return microphone_chunks(chunk_samples, self.stop, self._warn)
        return file_chunks(self.decoder, path, chunk_samples, self._warn)

    async def _stream(self, live: LiveClient, path: Path | None, chunks: AsyncGenerator[FloatArray, None]) -> None:
        viewer = asyncio.create_task(self._view(live))
        # A microphone keeps time by itself.
        pacer = Pacer(0.0 if self.plan.is_fast or path is None else self.plan.speed)
        sender = asyncio.create_task(self._send(live, paced(chunks, pacer), is_endless=path is None))
        counter = asyncio.create_task(self._count(path))
        try:
            await asyncio.wait({viewer, sender}, return_when=asyncio.FIRST_COMPLETED)
            if viewer.done():
                viewer.result()  # standard output may be gone
            if sender.done():
                # A file that breaks off in the middle was still audio up to there.
                await live.finish()
                await viewer
                sender.result()
        finally:
            for task in (sender, counter, viewer):
                task.cancel()
            await asyncio.gather(sender, counter, viewer, return_exceptions=True)

    async def _send(self, live: LiveClient, source: AsyncGenerator[FloatArray, None], *, is_endless: bool) -> None:
        async with contextlib.aclosing(source) as chunks:
            async for chunk in chunks:
                await live.send_audio(chunk)
                self.display.position(live.sent_samples / SAMPLE_RATE_HZ, self.total_s)
                # A microphone ends by itself, after what it has heard already.
                if self.stop.is_set() and not is_endless:
                    return

    async def _view(self, live: LiveClient) -> None:
        async for event in live:
            self.display.event(event)
            self._note(event)

    async def _count(self, path: Path | None) -> None:
        if path is not None and self.plan.display == "auto":
            self.total_s = await count_samples(self.decoder, path) / SAMPLE_RATE_HZ

    def _note(self, event: Event) -> None:
        if isinstance(event, Language):
            self.language = event.code
        if self.plan.display == "auto" and isinstance(event, ServerWarning):
            self._warn(event.message)

    def _retrying(self, reason: str) -> None:
        if not self._has_retried:
            self._warn(f"{reason} Trying again for {CONNECT_BUDGET_S:g} s")
        self._has_retried = True

    def _warn(self, text: str) -> None:
        if self.plan.display != "quiet":
            complain(f"warning: {text}")

    def _write(self, live: LiveClient, document: Path) -> None:
        cues = [Cue(line.start_s, line.end_s, line.text, line.words) for line in joined(live.transcript.completed)]
        text = render(
            cues,
            self.plan.format_name,
            language=self.language,
            duration_s=live.sent_samples / SAMPLE_RATE_HZ,
            task=self.plan.options.task,
        )
        if document == Path("-"):
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            document.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SourceError(f"{document}: {error.strerror or error}") from None


def complain(text: str) -> None:
    """One line on standard error, whatever the text holds."""
    sys.stderr.write(f"{one_line(text)}\n")
    sys.stderr.flush()


async def _run(plan: Plan) -> int:
    # Where the document takes standard output, captions move to standard error, and plain lines are not wanted.
    console = Console(stderr=plan.writes_stdout)
    # One child decodes the file that is sent, one counts its length for the progress bar.
    with (
        MediaDecoder(FILE_LIMITS, max_children=2) as decoder,
        make_display(plan.display, console, is_for_people=plan.writes_stdout) as display,
    ):
        run = Run(plan, display, decoder)
        task = asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            if run.stop.is_set() or not run.is_streaming:
                task.cancel()
            run.stop.set()

        with on_signals(interrupt):
            return await run.all()


def _surroundings() -> dict[str, str]:
    """The environment, and the secret of `.env` where the environment has none: the server reads it there too."""
    from dotenv import dotenv_values

    with contextlib.suppress(OSError, UnicodeDecodeError):
        token = dotenv_values(".env", interpolate=False).get(TOKEN_VARIABLE)
        return {TOKEN_VARIABLE: token or "", **os.environ}
    return dict(os.environ)


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the command line; returns the exit code (`--help` and wrong options exit by themselves)."""
    args = make_parser().parse_intermixed_args(argv)
    try:
        plan = make_plan(args, _surroundings() if environ is None else environ)
    except SttError as error:
        complain(f"error: {error}")
        return exit_code(error)
    if plan.options.token and plan.url.startswith("ws://") and not is_loopback(plan.url):
        complain("warning: the token travels unencrypted; use wss:// where the server can be reached by others")
    try:
        return asyncio.run(_run(plan))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    except OSError as error:
        # The reader of standard output has left, or its disk is full; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            complain(f"error: cannot write: {error.strerror or error}")
        return EXIT_BROKEN
