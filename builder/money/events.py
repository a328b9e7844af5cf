"""Reads the diary for people: what was done, when, to what.

Pure: events are handed in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from builder.errors import UsageError
from builder.instants import unix_s_of

__all__ = ["pick_events", "since_s", "table_rows"]

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def since_s(text: str, now_s: float) -> float:
    """Seconds since 1970 of `2h`, `30m`, `7d` before now, or of a date or instant in ISO form (UTC if no zone).

    Raises UsageError for anything else.
    """
    text = text.strip()
    span = _SPAN.fullmatch(text)
    if span:
        return now_s - int(span[1]) * UNITS_S[span[2]]
    instant_s = unix_s_of(f"{text}T00:00:00" if _DAY.fullmatch(text) else text)
    if instant_s is None:
        raise UsageError(
            f"--since {text[:60]!r} is not allowed; legal: a span such as 30m, 2h, 7d, or a date or time such as "
            "2026-01-31T12:00:00Z"
        )
    return instant_s


def pick_events(
    events: Iterable[Mapping[str, Any]], *, after_s: float | None, resource_id: str | None
) -> list[Mapping[str, Any]]:
    """Events at or after `after_s` and of `resource_id`, in their order; None: any."""
    return [
        event
        for event in events
        if (resource_id is None or event.get("resource_id") == resource_id)
        and (after_s is None or (unix_s_of(str(event.get("timestamp", ""))) or 0.0) >= after_s)
    ]


def table_rows(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Cells: time, action, type, id, details in one line."""
    rows = []
    for event in events:
        details = event.get("details")
        pairs = details.items() if isinstance(details, Mapping) else ()
        told = ", ".join(f"{name} {value}" for name, value in pairs if value not in (None, "", {}, []))
        rows.append((*(str(event.get(each, "")) for each in ("timestamp", "action", "type", "resource_id")), told))
    return rows
