"""Errors of file requests, in the shape that OpenAI's clients read.

Knows no socket and no form. Invariant: an answer names what was wrong for the one who asked, never how our
code looks inside.
"""

from __future__ import annotations

from typing import Any

from engine.errors import AtCapacityError, BadInputError, ClientError, EngineFailedError, ServerError, SttError
from realtime.auth import Entry
from realtime.transport import RETRY_AFTER_S

__all__ = [
    "BadFormError",
    "DefectError",
    "EntryError",
    "LoadingError",
    "MethodError",
    "ModelNotFoundError",
    "NotFoundError",
    "SlowUploadError",
    "error_body",
    "error_headers",
    "error_status",
]


class BadFormError(ClientError):
    """The body is no form with one file that can be read to its end."""

    code = "bad_form"


class ModelNotFoundError(ClientError):
    """The request names a model that is not loaded; the message names the one that is."""

    code = "model_not_found"
    http_status = 404


class NotFoundError(ClientError):
    """There is nothing at this path."""

    code = "not_found"
    http_status = 404


class MethodError(ClientError):
    """The path is there, but not for this method."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"method: {method[:16]!r} is not allowed; legal: {allowed}")
        self.allowed = allowed


class SlowUploadError(ClientError):
    """The body comes in slower than the least rate."""

    code = "slow_upload"
    retryable = True
    http_status = 408


class LoadingError(ServerError):
    """The engine is not ready yet, or not again."""

    code = "loading"
    http_status = 503


class DefectError(ServerError):
    """A defect of ours; the log has it, the sender is not told what it was."""

    code = "internal"


class EntryError(ClientError):
    """The gate's refusal: no secret, a wrong one, or too many wrong ones."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.reason)
        self.entry = entry


def error_status(error: SttError) -> int:
    """The HTTP status of the answer."""
    return error.entry.status if isinstance(error, EntryError) else error.http_status


def error_headers(error: SttError) -> dict[str, str]:
    """Headers of the answer: when to come back, what to show, what is allowed."""
    if isinstance(error, EntryError):
        return error.entry.headers
    if isinstance(error, MethodError):
        return {"Allow": error.allowed}
    if error_status(error) == AtCapacityError.http_status:
        return {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, (EngineFailedError, DefectError)):
        # OpenAI's clients send a file twice more after any 5xx: what harms the engine would do so three times.
        return {"X-Should-Retry": "false"}
    return {}


def error_body(error: SttError) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind, code = "invalid_request_error", error.code
    if isinstance(error, EntryError):
        kind, code = (kind, "invalid_api_key") if error.entry.status == 401 else ("requests", "rate_limit_exceeded")
    elif isinstance(error, ServerError):
        kind = "server_error"
    param = error.field if isinstance(error, BadInputError) else None
    return {"error": {"message": str(error), "type": kind, "param": param, "code": code}}
