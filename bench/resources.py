"""What a server's processes cost: CPU seconds, memory, threads; read from /proc of this machine.

Knows Linux's /proc (proc(5)) and nothing of servers. Invariants: a tree is the given processes with all
their descendants; the CPU time of processes that ended and were waited for is in their parents' account,
so the tree's total never loses any; a tree that is gone reads as None and never raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.clock import MonotonicClock

__all__ = ["PROC", "ResourceUse", "TreeState", "TreeWatch", "parse_stat", "read_tree", "watch_tree"]

PROC = Path("/proc")
SAMPLE_S = 1.0
"""Memory is read this often: reading costs about 3 ms, and memory moves slowly."""


@dataclass(frozen=True)
class ProcessState:
    """One process at a moment; `cpu_s` is user and system time, with that of its ended children."""

    pid: int
    parent: int
    cpu_s: float
    threads: int
    rss_bytes: int


@dataclass(frozen=True)
class TreeState:
    """A tree of processes at a moment; memory that they share is counted once for each."""

    processes: int
    cpu_s: float
    threads: int
    rss_bytes: int


@dataclass(frozen=True)
class ResourceUse:
    """What a tree used during a run of `wall_s` seconds."""

    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_threads: int

    @property
    def cores(self) -> float:
        """CPU seconds per second."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0


def parse_stat(line: str) -> ProcessState:
    """One line of /proc/PID/stat. Raises ValueError if it is none."""
    head, _, rest = line.rpartition(")")
    fields = rest.split()
    if not head or len(fields) < 22:
        raise ValueError("not a line of /proc/PID/stat")
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    # utime, stime, cutime, cstime: fields 14 to 17 of proc(5), which counts from the process id.
    cpu_ticks = sum(int(field) for field in fields[11:15])
    return ProcessState(
        pid=int(head.partition("(")[0]),
        parent=int(fields[1]),
        cpu_s=cpu_ticks * tick_s,
        threads=int(fields[17]),
        rss_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def read_tree(pids: Iterable[int], proc: Path = PROC) -> TreeState | None:
    """The trees below `pids` as they are now; None if none of `pids` exists."""
    states = {state.pid: state for state in _all(proc)}
    waiting = [pid for pid in pids if pid in states]
    if not waiting:
        return None
    children: dict[int, list[int]] = {}
    for state in states.values():
        children.setdefault(state.parent, []).append(state.pid)
    found: dict[int, ProcessState] = {}
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = states[pid]
            waiting += children.get(pid, [])
    return TreeState(
        len(found),
        sum(state.cpu_s for state in found.values()),
        sum(state.threads for state in found.values()),
        sum(state.rss_bytes for state in found.values()),
    )


class TreeWatch:
    """Adds samples of a tree up to what it used between the first and the last."""

    def __init__(self) -> None:
        self._first: tuple[float, TreeState] | None = None
        self._last: tuple[float, TreeState] | None = None
        self._peak_rss_bytes = 0
        self._peak_threads = 0

    def take(self, now_s: float, state: TreeState | None) -> None:
        """Add a sample; one of a tree that is gone adds nothing."""
        if state is None:
            return
        self._first = self._first or (now_s, state)
        self._last = (now_s, state)
        self._peak_rss_bytes = max(self._peak_rss_bytes, state.rss_bytes)
        self._peak_threads = max(self._peak_threads, state.threads)

    @property
    def use(self) -> ResourceUse | None:
        """What was used; None if nothing was seen."""
        if self._first is None or self._last is None:
            return None
        (begin_s, first), (end_s, last) = self._first, self._last
        return ResourceUse(end_s - begin_s, last.cpu_s - first.cpu_s, self._peak_rss_bytes, self._peak_threads)


@contextlib.asynccontextmanager
async def watch_tree(pids: Sequence[int], proc: Path = PROC, limit_s: float = math.inf) -> AsyncIterator[TreeWatch]:
    """Sample the trees below `pids`, with one sample at each end: until the context is left, or `limit_s`.

    What a server does after the audio is over belongs to no second of audio.
    """
    watch, clock = TreeWatch(), MonotonicClock()
    end_s = clock.now_s() + limit_s

    def sample() -> None:
        if clock.now_s() <= end_s + SAMPLE_S:
            watch.take(clock.now_s(), read_tree(pids, proc) if pids else None)

    async def keep_sampling() -> None:
        while (left_s := end_s - clock.now_s()) > 0:
            await asyncio.sleep(min(SAMPLE_S, left_s))
            sample()

    sample()
    task = asyncio.create_task(keep_sampling())
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sample()


def _all(proc: Path) -> list[ProcessState]:
    states = []
    for folder in proc.iterdir():
        if folder.name.isdigit():
            # A process may end between the listing and the reading.
            with contextlib.suppress(OSError, ValueError):
                states.append(parse_stat((folder / "stat").read_text(encoding="utf-8", errors="replace")))
    return states
