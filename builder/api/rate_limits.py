"""How long a server asks us to stay away: `Retry-After` and `RateLimit` headers. Pure.

What is malformed counts as absent: a server that cannot say how long is treated like one that does not say.
Sources: RFC 9110 for `Retry-After`; RunPod REST API v2 for `RateLimit: "minute";r=0;t=12, "hour";r=2800;t=1812`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime

__all__ = ["MAX_ASKED_S", "Window", "asked_wait_s", "parse_rate_limit", "parse_retry_after"]

MAX_ASKED_S = 7 * 86_400.0
"""Nobody means more; a larger figure is malformed."""
_MAX_HEADER_CHARS = 1000
_SECONDS = re.compile(r"\d{1,9}")
_WINDOW = re.compile(r'"([A-Za-z0-9_-]{1,40})"((?:\s*;\s*[a-z]+=\d{1,9})+)')
_PARAMETER = re.compile(r"([a-z]+)=(\d{1,9})")


@dataclass(frozen=True)
class Window:
    """One quota: `remaining` requests until it is renewed in `reset_s` seconds."""

    name: str
    remaining: int
    reset_s: int


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Seconds from `now_s` (unix) that a `Retry-After` asks for, as seconds or as a date; None if it says nothing."""
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return _sane(float(text))
    if not text or len(text) > _MAX_HEADER_CHARS:
        return None
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return _sane(max(0.0, moment.timestamp() - now_s))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def parse_rate_limit(value: str | None) -> tuple[Window, ...] | None:
    """The windows of a `RateLimit` header; None if it is absent or malformed anywhere."""
    text = (value or "").strip()
    if not text or len(text) > _MAX_HEADER_CHARS:
        return None
    windows = []
    for member in text.split(","):
        match = _WINDOW.fullmatch(member.strip())
        if match is None:
            return None
        parameters = {name: int(number) for name, number in _PARAMETER.findall(match[2])}
        if "r" not in parameters or "t" not in parameters or _sane(parameters["t"]) is None:
            return None
        windows.append(Window(match[1], parameters["r"], parameters["t"]))
    return tuple(windows)


def asked_wait_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Seconds a refusal with these headers (names in lower case) asks to wait; None if it does not say.

    `Retry-After` says it outright; else the latest renewal among the windows that are used up counts.
    """
    asked = parse_retry_after(headers.get("retry-after"), now_s)
    if asked is not None:
        return asked
    used_up = [window.reset_s for window in parse_rate_limit(headers.get("ratelimit")) or () if window.remaining == 0]
    return float(max(used_up)) if used_up else None


def _sane(seconds: float) -> float | None:
    return seconds if 0 <= seconds <= MAX_ASKED_S else None
