"""How long the parts of a start took, from the moment the kernel made the process.

A program that replaces its process by another (execv) keeps the process and its age; it hands on when that was in
HANDED_ON, so that the next one can tell its predecessor's part from its own interpreter's. Imports nothing heavy:
it must be loaded before what it measures.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import MutableMapping

__all__ = ["HANDED_ON", "StartTimes", "process_began_s"]

LOADED_S = time.monotonic()
"""Whoever wants to measure itself imports this module first: what was until now is the interpreter's part."""
HANDED_ON = "ENTRYPOINT_ENDED_S"
"""Monotonic seconds, good within one process only."""
PROC_STAT = "/proc/self/stat"
START_FIELD = 19
"""starttime, the 22nd field of proc_pid_stat(5), counted from behind the name."""
SLACK_S = 0.02
"""The kernel tells a process's start in ticks of 10 ms."""


def process_began_s() -> float | None:
    """When this process was made, on the monotonic clock; None where the kernel does not tell."""
    try:
        with open(PROC_STAT, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib takes ms to load
            ticks = int(file.read().rpartition(")")[2].split()[START_FIELD])
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    # Emulated kernels may tell nonsense.
    return time.monotonic() - age_s if 0.0 <= age_s + SLACK_S < 86_400.0 else None


class StartTimes:
    """Takes the time at the end of each part; `as_json` tells them in milliseconds, in order, with their sum."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes HANDED_ON out of `environ`: it is no news for other processes."""
        began_s = process_began_s()
        self._began_s = self._last_s = LOADED_S if began_s is None else began_s
        self._parts_ms: dict[str, int] = {}
        ended_s = _number(environ.pop(HANDED_ON, ""))
        if ended_s is not None and self._began_s - SLACK_S <= ended_s <= LOADED_S:
            self._add("entrypoint", ended_s)
        self._add("interpreter", LOADED_S)

    def mark(self, part: str) -> None:
        """`part` has just ended."""
        self._add(part, time.monotonic())

    def _add(self, part: str, at_s: float) -> None:
        self._parts_ms[f"{part}_ms"] = max(0, round((at_s - self._last_s) * 1000))
        self._last_s = at_s

    def as_json(self) -> str:
        """One line, for the log."""
        total_ms = max(0, round((self._last_s - self._began_s) * 1000))
        return json.dumps({**self._parts_ms, "total_ms": total_ms})


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
