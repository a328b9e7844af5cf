"""Run a command to its end, with a limit, and tell plainly what went wrong."""

from __future__ import annotations

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
    is_shown: bool = False,
) -> Ended:
    """Run `words`; `given` goes to its standard input, `is_shown` lets its output through to ours.

    Raises CheckFailedError if it is not there or takes longer than `limit_s`, and then it is killed.
    """
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            [str(word) for word in words],
            env=env,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=not is_shown,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except FileNotFoundError:
        raise CheckFailedError(f"{words[0]}: no such command") from None
    except subprocess.TimeoutExpired as error:
        said = b"".join(part for part in (error.stdout, error.stderr) if isinstance(part, bytes))
        last = said.decode(errors="replace").strip()[-TAIL_CHARS:]
        raise CheckFailedError(f"{Path(words[0]).name} took longer than {limit_s:g} s; it said: {last}") from None
    return Ended(done.returncode, done.stdout or "", done.stderr or "", time.monotonic() - began_s)


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
