"""Runs a program in the foreground: its lines are passed on as they come, its time and output are limited.

A child that is not done when its time is up, or when we are interrupted, is ended with all it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["KEPT_LINES", "MAX_LINE_CHARS", "Finished", "run_child"]

KEPT_LINES = 200
MAX_LINE_CHARS = 2000
"""Longer lines are cut, and the rest of them is dropped."""
READ_CHARS = 65_536
"""What is looked at of a line before it is cut."""
CUT = " ... (cut)"
END_LIMIT_S = 5.0
"""From the request to end until it is enforced."""


@dataclass(frozen=True)
class Finished:
    """A program's end: exit code, the last KEPT_LINES lines, and whether its time was up."""

    code: int
    lines: tuple[str, ...]
    timed_out: bool = False

    @property
    def text(self) -> str:
        """The kept lines as one text."""
        return "\n".join(self.lines)


def run_child(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    limit_s: float,
    say: Callable[[str], None] = lambda line: None,
    stdin: str | None = None,
    folder: Path | None = None,
    clean: Callable[[str], str] = str,
) -> Finished:
    """Run to the end; `say` gets each line it prints, cut after `clean` took secrets out; `stdin` is what it reads.

    Raises OSError if it cannot start."""
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=dict(environ),
        cwd=folder,
        start_new_session=True,
    )
    late = threading.Event()

    def end_late() -> None:
        late.set()
        _signal(process, signal.SIGKILL)

    timer = threading.Timer(limit_s, end_late)
    try:
        timer.daemon = True
        timer.start()
        lines = _talk(process, stdin, say, clean)
        return Finished(process.wait(), lines, timed_out=late.is_set())
    finally:
        timer.cancel()
        _end(process)


def _talk(
    process: subprocess.Popen[str], stdin: str | None, say: Callable[[str], None], clean: Callable[[str], str]
) -> tuple[str, ...]:
    if process.stdin is not None:
        # A child that reads nothing says why in its output.
        with contextlib.suppress(OSError), process.stdin as pipe:
            pipe.write(stdin or "")
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    if process.stdout is not None:
        while piece := process.stdout.readline(READ_CHARS):
            rest = piece
            while rest and not rest.endswith("\n"):
                rest = process.stdout.readline(READ_CHARS)
            line = clean(piece.rstrip())
            if len(line) > MAX_LINE_CHARS:
                line = line[: MAX_LINE_CHARS - len(CUT)] + CUT
            if line:
                kept.append(line)
                say(line)
    return tuple(kept)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also if we are interrupted once more.
            if process.poll() is None:
                _signal(process, signal.SIGKILL)
                process.wait(END_LIMIT_S)
    if process.stdout is not None:
        process.stdout.close()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
