"""What the doctor's looks share: findings, limits of time, and questions to a child process.

Looks run at once, each in a thread of its own with a limit of time; one that fails or does not end is a finding
itself. What may crash (native libraries) or hang (drivers) is asked of a child process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.clock import Clock, MonotonicClock

__all__ = ["CHILD_LIMIT_S", "Check", "ChildFailedError", "Look", "ask", "ask_child", "examine", "lines_of"]

State = Literal["ok", "warn", "fail", "skip"]

CHILD_LIMIT_S = 60.0
"""Libraries of hundreds of megabytes come from a cold disk."""
KILL_WAIT_S = 0.5
MAX_SHOWN_CHARS = 300


@dataclass(frozen=True)
class Check:
    """One finding: `fail` keeps the image from working, `warn` may, `skip` was not looked at."""

    name: str
    state: State
    says: str
    remedy: str = ""


@dataclass(frozen=True)
class Look:
    """A thing to look at: yields its findings, the time limit is for all of them."""

    name: str
    look: Callable[[Mapping[str, str]], Iterator[Check]]
    limit_s: float = CHILD_LIMIT_S + 10


class ChildFailedError(Exception):
    """A child process crashed, overstayed or said nothing; `str(error)` is one line."""


def examine(looks: Sequence[Look], environ: Mapping[str, str], clock: Clock | None = None) -> list[Check]:
    """Run all looks at once; the findings are in the order of the looks."""
    clock = clock or MonotonicClock()
    start_s = clock.now_s()
    running = [(look, *_start(look, environ)) for look in looks]
    found: list[Check] = []
    for look, thread, checks in running:
        thread.join(max(0.0, look.limit_s - (clock.now_s() - start_s)))
        found += list(checks)
        if thread.is_alive():
            found.append(Check(look.name, "fail", f"not done within {look.limit_s:g} s", "is a disk or driver hung?"))
    return found


def _start(look: Look, environ: Mapping[str, str]) -> tuple[threading.Thread, list[Check]]:
    checks: list[Check] = []

    def run() -> None:
        try:
            for check in look.look(environ):
                checks.append(check)
        except Exception as error:  # an edge: a doctor that dies of what it looks at tells nothing
            checks.append(Check(look.name, "fail", f"could not be checked ({_short(error)})"))

    thread = threading.Thread(target=run, name=f"doctor {look.name}", daemon=True)
    thread.start()
    return thread, checks


def ask_child(question: str, *arguments: str, limit_s: float = CHILD_LIMIT_S) -> dict[str, Any]:
    """What `engine.doctor_child` answers to a question. Raises ChildFailedError."""
    text = ask([sys.executable, "-m", "engine.doctor_child", question, *arguments], limit_s=limit_s)
    try:
        answer: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise ChildFailedError(f"no answer about {question}") from None
    return answer


def ask(command: Sequence[str], *, limit_s: float) -> str:
    """The output of a program. Raises ChildFailedError, or FileNotFoundError if there is no such program."""
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        # A process that hangs in a driver does not even end when it is killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILL_WAIT_S)
        raise ChildFailedError(f"not done within {limit_s:g} s") from None
    if process.returncode < 0:
        raise ChildFailedError(f"crashed ({_signal_name(-process.returncode)})")
    if process.returncode:
        said = lines_of(err) or lines_of(out) or [f"exit status {process.returncode}"]
        raise ChildFailedError(said[-1][:MAX_SHOWN_CHARS])
    return out


def lines_of(text: str) -> list[str]:
    """The lines of a text that are not blank, without blanks around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _short(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_SHOWN_CHARS]
