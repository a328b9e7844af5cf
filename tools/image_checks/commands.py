"""Run a command to its end, with a limit, and tell plainly what went wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "CheckFailedError", "Ended", "check", "ran", "say", "until"]

ROOT = Path(__file__).resolve().parents[2]
TAIL_CHARS = 1_500
LOOK_S = 0.02
END_GRACE_S = 10.0
"""For a command that is told to end, to remove what it has made."""


class CheckFailedError(Exception):
    """A check, or something it needs, did not hold; the text says what."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended; `text` is both its streams, one after the other."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        """All it said."""
        return self.out + self.err

    @property
    def tail(self) -> str:
        """Its last words, for an error."""
        return self.text.strip()[-TAIL_CHARS:]


def say(line: str = "") -> None:
    """A line of the report."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def ran(
    words: Sequence[str | Path],
    *,
    limit_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    given: str | None = None,
) -> Ended:
    """Run `words`; `given` goes to its standard input.

    Raises CheckFailedError if it is not there or takes longer than `limit_s`. It has a process group of its own, so
    that what it has started ends with it then, and at Ctrl-C.
    """
    began_s = time.monotonic()
    try:
        process = subprocess.Popen(
            [str(word) for word in words],
            env=env,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise CheckFailedError(f"{words[0]}: no such command") from None
    try:
        out, err = process.communicate(given, timeout=limit_s)
    except subprocess.TimeoutExpired:
        last = _end_group(process).strip()[-TAIL_CHARS:]
        raise CheckFailedError(f"{Path(words[0]).name} took longer than {limit_s:g} s; it said: {last}") from None
    except BaseException:
        _end_group(process)
        raise
    return Ended(process.returncode, out, err, time.monotonic() - began_s)


def _end_group(process: subprocess.Popen[str]) -> str:
    """Tell a command and all that it has started to end, and see to it; returns what it said."""
    text = ""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            text = "".join(process.communicate(timeout=END_GRACE_S))
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return text


def check(condition: object, what: str) -> None:
    """Raises CheckFailedError with `what` unless the condition holds."""
    if not condition:
        raise CheckFailedError(what)


def until(condition: Callable[[], object], what: str, limit_s: float) -> float:
    """Wait until it holds; returns the seconds it took. Raises CheckFailedError."""
    began_s = time.monotonic()
    while not condition():
        check(time.monotonic() - began_s < limit_s, f"{what}: not within {limit_s:g} s")
        time.sleep(LOOK_S)
    return time.monotonic() - began_s
