"""Instants as text of other programs: RFC 3339 in, seconds since 1970 out. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timezone

__all__ = ["duration_text", "unix_s_of"]

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(\.\d+)?\s*(Z|z|[+-]\d\d:?\d\d)?$")


def unix_s_of(text: str | None) -> float | None:
    """Seconds since 1970 of an instant like `2026-01-31T12:00:00.123456789Z`; None if it is none that a clock has.

    Without a zone it is UTC.
    """
    match = _INSTANT.match((text or "").strip())
    if match is None:
        return None
    day, time, fraction, zone = match.groups()
    zone = "+0000" if zone in (None, "Z", "z") else zone.replace(":", "")
    try:
        whole = datetime.strptime(
            f"{day} {time if len(time) > 5 else time + ':00'} {zone}", "%Y-%m-%d %H:%M:%S %z"
        ).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None
    return whole.timestamp() + (float(fraction) if fraction else 0.0)


def duration_text(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`, `3d04h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"
