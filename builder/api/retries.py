"""Whether a failed request is sent again, and after how long. Pure.

mode     sent again after                          for
any      429, 5xx, no connection, a lost answer,
         a page instead of JSON                    what may happen twice: GET, PATCH, DELETE, queries
unsent   429, no connection                        actions: their effect can be read, so the caller decides
limits   429                                       create: a second one would be paid for twice
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from builder.api.backoff import full_jitter_s
from builder.errors import BuilderError, NetworkError, RateLimitedError, ServerFaultError

__all__ = ["ATTEMPTS", "LONGEST_WAIT_S", "Failure", "Retry", "given_up", "next_wait_s"]

ATTEMPTS = 5
"""Tries of one request, the first included."""
LONGEST_WAIT_S = 60.0
"""Longest single wait; a server that asks for more gets none."""
Retry = Literal["any", "unsent", "limits"]


@dataclass(frozen=True)
class Failure:
    """One try that failed: with what, how long the server asks to wait, whether nothing can have arrived.

    `may_pass`: worth another try, whatever the error's class says.
    """

    error: BuilderError
    asked_s: float | None = None
    is_unsent: bool = False
    may_pass: bool = False


def next_wait_s(failure: Failure, failures: int, retry: Retry, draw: Callable[[], float]) -> float | None:
    """Seconds until the next try, after `failures` of them failed; None: give up."""
    if failures >= ATTEMPTS or not _may_repeat(failure, retry):
        return None
    if failure.asked_s is not None and failure.asked_s > LONGEST_WAIT_S:
        return None
    return max(full_jitter_s(failures, draw), failure.asked_s or 0.0)


def given_up(failure: Failure, failures: int) -> BuilderError:
    """The error to raise: that of the last try, with what led to giving up."""
    error = failure.error
    if failure.asked_s is not None and failure.asked_s > LONGEST_WAIT_S:
        suffix = f"; RunPod asks to wait {failure.asked_s:.0f} s, more than the {LONGEST_WAIT_S:.0f} s waited for here"
    elif failures > 1:
        suffix = f" (tried {failures} times)"
    else:
        return error
    return type(error)(f"{error}{suffix}", hint=error.hint, status=error.status, request_id=error.request_id)


def _may_repeat(failure: Failure, retry: Retry) -> bool:
    if isinstance(failure.error, RateLimitedError):
        return True
    if failure.is_unsent:
        return retry != "limits"
    return retry == "any" and (failure.may_pass or isinstance(failure.error, (NetworkError, ServerFaultError)))
