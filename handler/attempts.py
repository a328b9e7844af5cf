"""One rule for what is tried again, in fetching as in uploading: what may pass, and that a few times.

Knows what a status of HTTP means, and no connection. Invariant: attempts are bounded; a refusal ends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.errors import FetchError
from handler.resolver import UnreachableError

__all__ = ["MAX_ATTEMPTS", "RETRY_PAUSE_S", "attempts", "refusal"]

MAX_ATTEMPTS = 3
"""The first included; for servers that are not there or fail, never for a refusal."""
RETRY_PAUSE_S = 0.5
"""Before the second attempt; twice as long before the third."""

_PASSING = (408, 425, 429)
"""Refusals that ask for a later try."""

_T = TypeVar("_T")


async def attempts(once: Callable[[], Awaitable[_T]], pause_s: float = RETRY_PAUSE_S) -> _T:
    """What the first successful attempt returns. Raises what the last raises, and FetchError at once."""
    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return await once()
        except UnreachableError:
            await asyncio.sleep(pause_s * attempt)
    try:
        return await once()
    except UnreachableError as error:
        raise UnreachableError(f"{error} ({MAX_ATTEMPTS} attempts)") from None


def refusal(status: int, shown: str) -> FetchError:
    """The error for a status other than success, UnreachableError if it may pass; `shown` names the host."""
    text = f"HTTP status {status} from {shown}"
    return UnreachableError(text) if status >= 500 or status in _PASSING else FetchError(text)
