"""A pod's log as one stream, though its connections drop: no line twice, none lost.

RunPod resumes from the id of an event, but an id is a time, and several lines may share it. So a new connection asks
from the id before the last one, and what was already passed on of it is left out, line by line.

A follow ends when the pod no longer runs, when the caller stops asking, or, with an error, after MAX_DROPS
connections in a row that brought nothing new.
"""

from __future__ import annotations

import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.clock import SystemClock
from builder.errors import NetworkError, RateLimitedError, ServerFaultError, UsageError
from builder.instants import unix_s_of
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import LogEvent
    from builder.clock import Clock

__all__ = ["LogQuery", "follow", "read_since"]

KEPT_KEYS = 10_000
"""Lines remembered to tell a repeated one from a new one."""
MAX_DROPS = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
FOLLOW_IDLE_S = 60.0
"""After this long without a line a connection is made anew: a dead one looks just like a quiet one."""
READ_IDLE_S, READ_LIMIT_S = 1.5, 30.0
"""Silence, or real time, after which what there is has been read, for a log that is not followed."""
_REAL = SystemClock()
"""Connections last in real time, also where the rest lives in a test's."""
_AGO = re.compile(r"(\d+)\s*([smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Connect = Callable[["LogQuery", str | None, float], "Iterator[LogEvent]"]
"""(query, Last-Event-ID or None, idle_s) to the lines of one connection."""


@dataclass(frozen=True)
class LogQuery:
    """What to read: `source` container, system or None for both; `since` RFC 3339; `grep` without regard to case."""

    source: str | None = None
    tail: int = 100
    since: str | None = None
    grep: str | None = None

    def matches(self, line: str) -> bool:
        """True if `grep` asks for the line."""
        return self.grep is None or self.grep.lower() in line.lower()


def read_since(text: str | None, now_s: float) -> str | None:
    """`--since` as RFC 3339: an instant, or a time ago (`90s`, `15m`, `2h`, `1d`). Raises UsageError."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text.strip().lower())
    if ago is not None:
        return iso_time(now_s - int(ago.group(1)) * _UNITS_S[ago.group(2)])
    at_s = unix_s_of(text)
    if at_s is None:
        raise UsageError(
            f"--since: {text[:60]!r} is not allowed; legal: 2026-01-31T12:00:00Z, or a time ago (90s, 15m, 2h)"
        )
    return iso_time(at_s)


class _Seen:
    """What was passed on, and where the next connection begins."""

    def __init__(self) -> None:
        self._keys: deque[tuple[str, str, str]] = deque(maxlen=KEPT_KEYS)
        self._last_id: str | None = None
        self._id_before: str | None = None

    @property
    def resume_id(self) -> str | None:
        """The id before the last one, so that lines which share the last id are not lost; None: as at first.

        RunPod's ids are times, with or without a number behind them.
        """
        return self._id_before

    def repeated(self) -> Counter[tuple[str, str, str]]:
        """What a connection that begins at `resume_id` may bring again, and how often."""
        return Counter(self._keys)

    def add(self, event: LogEvent) -> None:
        self._keys.append(_key(event))
        if event.id and event.id != self._last_id:
            self._id_before, self._last_id = self._last_id, event.id


def follow(
    connect: Connect,
    query: LogQuery,
    *,
    clock: Clock,
    is_endless: bool,
    still_runs: Callable[[], bool],
    note: Callable[[str], None],
    source: random.Random | None = None,
) -> Iterator[LogEvent]:
    """The lines that `query` asks for, in order, across connections.

    `is_endless`: go on while `still_runs`, which is asked after each connection that ended; otherwise stop once what
    there is has been read. Raises NetworkError after MAX_DROPS connections in a row without a new line; other errors
    of `connect` as they are.
    """
    draw = source or random.Random()  # noqa: S311 - spreads calls, no secret
    seen, drops, quiet = _Seen(), 0, 0
    while True:
        n_new = 0
        why: Exception | None = None
        try:
            for event in _new_events(connect, query, seen, is_endless):
                n_new += 1
                if query.matches(event.line):
                    yield event
        except (NetworkError, ServerFaultError, RateLimitedError) as error:
            why = error
        quiet = 0 if n_new else quiet + 1
        if why is None:
            if not is_endless or not still_runs():
                return
            # Ended in order: a quiet pod is no fault, however often.
            drops = 0
        else:
            drops = 1 if n_new else drops + 1
            if drops >= MAX_DROPS:
                raise NetworkError(f"the log broke off {drops} times in a row: {why}") from None
            note(f"{why}; resuming the log")
        clock.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**quiet) * draw.uniform(0.8, 1.2))


def _new_events(connect: Connect, query: LogQuery, seen: _Seen, is_endless: bool) -> Iterator[LogEvent]:
    """One connection's lines that were not passed on before."""
    resume_id, repeated = seen.resume_id, seen.repeated()
    is_history = not is_endless and resume_id is None and query.since is None
    n_events, ends_s = 0, _REAL.monotonic_s() + READ_LIMIT_S
    events = connect(query, resume_id, FOLLOW_IDLE_S if is_endless else READ_IDLE_S)
    try:
        for event in events:
            n_events += 1
            key = _key(event)
            if repeated[key] > 0:
                repeated[key] -= 1
                continue
            seen.add(event)
            yield event
            is_complete = is_history and n_events >= query.tail
            if is_complete or (not is_endless and _REAL.monotonic_s() > ends_s):
                return
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()


def _key(event: LogEvent) -> tuple[str, str, str]:
    return event.id or event.ts, event.source, event.line
