"""The log of a pod or worker as Server-Sent Events: which lines a connection gets, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

from tests.fakes.runpod.calls import LogStream
from tests.fakes.runpod.clock import iso_time, parse_time
from tests.fakes.runpod.pod import LogLine, PodRefusedError

__all__ = ["event", "log_stream"]

DEFAULT_TAIL, MAX_TAIL = 100, 5000
SOURCES = ("container", "system")


class Logged(Protocol):
    """Whatever has a log."""

    lines: list[LogLine]


def event(line: LogLine) -> bytes:
    """One event."""
    data = json.dumps({"ts": iso_time(line.at_s), "source": line.source, "line": line.line})
    return f"id: {line.id}\ndata: {data}\n\n".encode()


def log_stream(pod: Logged, query: Mapping[str, str], last_event_id: str | None) -> LogStream:
    """What a connection gets: `Last-Event-ID` wins over `since`, that over `tail`. Raises PodRefusedError 422."""
    source = query.get("source")
    if source is not None and source not in SOURCES:
        raise PodRefusedError(422, "invalid query", (f"source: must be one of {', '.join(SOURCES)}",))

    def wanted(lines: list[LogLine]) -> list[LogLine]:
        return [line for line in lines if source in (None, line.source)]

    def later(number: int) -> list[LogLine]:
        return wanted(pod.lines[number:])

    tail = _tail(query)
    if last_event_id is not None:
        lines = wanted(_after(pod.lines, last_event_id))
    elif "since" in query:
        since_s = _time(query["since"], "since")
        lines = wanted([line for line in pod.lines if line.at_s >= since_s])
    else:
        lines = wanted(pod.lines)[-tail:] if tail else []
    return LogStream(lines, len(pod.lines), later)


def _tail(query: Mapping[str, str]) -> int:
    try:
        tail = int(query.get("tail", str(DEFAULT_TAIL)))
    except ValueError:
        tail = -1
    if not 0 <= tail <= MAX_TAIL:
        raise PodRefusedError(422, "invalid query", (f"tail: must be an integer from 0 to {MAX_TAIL}",))
    return tail


def _after(lines: list[LogLine], event_id: str) -> list[LogLine]:
    """An id is `time/number`; a bare time is taken too, as browsers may have kept one."""
    moment, slash, number = event_id.partition("/")
    at_s = _time(moment, "Last-Event-ID")
    if slash and number.isdigit():
        return lines[int(number) :]
    return [line for line in lines if line.at_s > at_s]


def _time(text: str, name: str) -> float:
    try:
        return parse_time(text)
    except ValueError:
        raise PodRefusedError(422, "invalid query", (f"{name}: must be an RFC 3339 time",)) from None
