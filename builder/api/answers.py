"""What an HTTP answer is worth: a reply to go on with, or a failure, which `builder.api.retries` may answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from urllib.parse import urlsplit

from builder.api.problems import http_error, one_line
from builder.api.rate_limits import asked_wait_s
from builder.api.retries import Failure
from builder.errors import AmbiguousError, BadAnswerError, NetworkError, RateLimitedError, ServerFaultError

__all__ = ["Answer", "Reply", "judge", "lost", "parse_json", "unreadable"]

_MAX_QUOTED_CHARS = 80


@dataclass(frozen=True)
class Reply:
    """An answer with status 2xx; `headers` in lower case, `json` None if there is no body."""

    status: int
    headers: Mapping[str, str]
    json: Any
    text: str


@dataclass(frozen=True)
class Answer:
    """What a pod answers, whatever it is; `body` is None if `text` is not JSON."""

    status: int
    body: Any
    text: str
    latency_s: float


def parse_json(text: str) -> tuple[bool, Any]:
    """Whether `text` is JSON (numbers that are none, such as NaN, are not), and what it says; None if it is not."""
    try:
        return True, json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False, None


def judge(
    what: str,
    is_read: bool,
    status: int,
    headers: Mapping[str, str],
    text: str,
    now_s: float,
    clean: Callable[[str], str] = str,
) -> Reply | Failure:
    """The verdict on one answer to `what` (an operation in words); `is_read`: it changes nothing.

    `headers` have names in lower case; `now_s` is unix time; `clean` takes secrets out of a text.
    """
    is_json, body = parse_json(text)
    if not (200 <= status < 300 and is_json) or (isinstance(body, dict) and body.get("errors")):
        # It will be quoted, and cut to a length first; half a secret is not recognised.
        headers, text = {name: clean(value) for name, value in headers.items()}, clean(text)
        is_json, body = parse_json(text)
    if 200 <= status < 300:
        if text.strip() and not is_json:
            # Often a page of the edge before the API, which passes.
            shown = one_line(text, _MAX_QUOTED_CHARS)
            return replace(unreadable(what, is_read, f"the answer is not JSON: {shown}"), may_pass=True)
        return Reply(status, headers, body, text)
    if 300 <= status < 400:
        host = _host(headers.get("location", ""))
        return Failure(
            BadAnswerError(f"{what}: HTTP {status}, a redirect to {host}, not followed: it would take the key there")
        )
    error = http_error(what, status, headers, body, text)
    can_wait = isinstance(error, (RateLimitedError, ServerFaultError))
    return Failure(error, asked_wait_s(headers, now_s) if can_wait else None)


def lost(what: str, is_read: bool, why: str, *, is_unsent: bool) -> Failure:
    """No answer came."""
    kind = NetworkError if is_read or is_unsent else AmbiguousError
    return Failure(kind(f"{what}: {why}"), is_unsent=is_unsent)


def unreadable(what: str, is_read: bool, why: str) -> Failure:
    """An answer came that cannot be read; what was asked may have happened."""
    return Failure(BadAnswerError(f"{what}: {why}") if is_read else AmbiguousError(f"{what}: {why}"))


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or "another place"
    except ValueError:
        return "another place"


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
