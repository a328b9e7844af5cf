"""What an answer that refuses means: HTTP status, headers and body to an error of `builder.errors`. Pure.

REST v2 refuses with `application/problem+json`, v1 with `{"error"}` or `{"message"}` and often status 500 for what the
user did, GraphQL with HTTP 200 and `errors`; edges in front of all three with pages in HTML. That no machine is free
or the account is empty is told by the text alone on most of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from builder.errors import (
    AuthError,
    BadAnswerError,
    BadRequestError,
    BalanceError,
    BuilderError,
    CapacityError,
    ConflictError,
    ForbiddenError,
    NotAvailableError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
)

__all__ = ["detail_of", "graphql_error", "http_error", "is_capacity", "one_line", "parsed", "parsed_list"]

MAX_DETAIL_CHARS = 500
"""Longest text of the API's in a message."""
MAX_PAGE_CHARS = 120
"""Longest piece of an HTML page in a message."""
MAX_ID_CHARS = 100
_LOOKED_AT_CHARS = 20_000
_CAPACITY = re.compile(
    r"no longer any instances available|does not have the resources|try a different machine|not enough free gpus"
    r"|\bno\s+(?:\w+\s+){0,3}?(?:machines?|capacity|hosts?|gpus?|instances?)\s+(?:\w+\s+){0,2}?available"
    r"|no available (?:machines?|hosts?|gpus?|instances?)|out of stock",
    re.IGNORECASE,
)
_BALANCE = re.compile(
    r"insufficient (?:balance|funds|credits?)|spend(?:ing)? limit|balance (?:is )?too low", re.IGNORECASE
)
_PASSING = re.compile(r"something went wrong", re.IGNORECASE)
_RETIRED = re.compile(r"no longer (?:supported|served|available|offered)|deprecated|retired|sunset", re.IGNORECASE)
_AUTH_CODES = ("UNAUTHENTICATED", "UNAUTHORIZED")
_AUTH = re.compile(r"not authenticated|unauthenticated|unauthorized|invalid api key", re.IGNORECASE)
_FORBIDDEN = re.compile(r"forbidden|permission|not allowed", re.IGNORECASE)
_EXISTS = re.compile(r"already exists", re.IGNORECASE)
_BID = re.compile(r"\bbid\b", re.IGNORECASE)
_NO_POD = re.compile(r"\bpod not found\b", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|does not exist", re.IGNORECASE)
_KINDS: dict[int, type[BuilderError]] = {
    400: BadRequestError,
    401: AuthError,
    402: BalanceError,
    403: ForbiddenError,
    404: NotFoundError,
    # Not refusals: the request may have got through.
    408: ServerFaultError,
    425: ServerFaultError,
    499: ServerFaultError,
    409: ConflictError,
    410: NotAvailableError,
    422: BadRequestError,
    423: ConflictError,
    429: RateLimitedError,
}
Model = TypeVar("Model", bound=BaseModel)


def http_error(what: str, status: int, headers: Mapping[str, str], body: Any, text: str) -> BuilderError:
    """The error for a refusal of `what` (an operation in words).

    `headers` have names in lower case; `body` is the parsed JSON, None if `text` is none.
    """
    detail = detail_of(status, body, text)
    kind = _kind(status, detail, is_page=body is None)
    request_id = one_line(headers.get("x-request-id", ""), MAX_ID_CHARS) or None
    return kind(f"{what}: {detail}", status=status, request_id=request_id)


def graphql_error(what: str, errors: Any, request_id: str | None = None) -> BuilderError:
    """The error for the `errors` of a GraphQL answer, which comes with HTTP status 200."""
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    extensions = first.get("extensions")
    code = str(extensions.get("code", "")).upper() if isinstance(extensions, dict) else ""
    detail = one_line(str(first.get("message") or code or "an error without a message"))
    return _graphql_kind(code, detail)(f"{what}: {detail}", request_id=request_id)


def detail_of(status: int, body: Any, text: str) -> str:
    """One line that says what the API says."""
    if isinstance(body, dict):
        found = body.get("detail") or body.get("error") or body.get("message") or body.get("title")
        errors = body.get("errors")
        single = [_text_of(each) for each in errors] if isinstance(errors, list) else []
        joined = ": ".join(part for part in (_text_of(found), "; ".join(single)) if part)
        if joined:
            return one_line(joined)
    page = _page(text) if body is None else ""
    said = f"HTTP {status} {_reason(status)}".rstrip()
    return f"{said} ({page})" if page and page not in said else said


def is_capacity(text: str) -> bool:
    """True if `text` says that no machine is free."""
    return _CAPACITY.search(text) is not None


def one_line(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """`text` without line breaks and control characters, cut to `limit` characters."""
    printable = "".join(char if char.isprintable() else " " for char in text[:_LOOKED_AT_CHARS])
    flat = " ".join(printable.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def parsed(kind: type[Model], data: Any, what: str) -> Model:
    """`data` as a `kind`. Raises BadAnswerError that names `what` (the operation) and the field."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole answer"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadAnswerError(f"{what}: field {field!r} of the answer: {one_line(first['msg'])}{more}") from None


def parsed_list(kind: type[Model], data: Any, key: str | None, what: str) -> list[Model]:
    """The list in `data` (under `key`; None: `data` itself), each item a `kind`. Raises BadAnswerError."""
    items = data if key is None else data.get(key) if isinstance(data, dict) else None
    if not isinstance(items, list):
        raise BadAnswerError(f"{what}: the answer has no list" + (f" {key!r}" if key else ""))
    return [parsed(kind, item, what) for item in items]


def _kind(status: int, detail: str, *, is_page: bool) -> type[BuilderError]:
    if status in (401, 402, 429):
        return _KINDS[status]
    if not is_page:
        if _BALANCE.search(detail):
            return BalanceError
        # A body that breaks the contract (422) is not a matter of stock, whatever it quotes.
        if status != 422 and is_capacity(detail):
            return CapacityError
        # REST v1 says 500 to a user's mistake, too.
        if status == 500 and _NO_POD.search(detail):
            return NotFoundError
    if status >= 500 or (status == 400 and _PASSING.search(detail)):
        return ServerFaultError
    return _KINDS.get(status, BadRequestError if 400 <= status < 500 else BadAnswerError)


def _graphql_kind(code: str, detail: str) -> type[BuilderError]:
    if is_capacity(detail):
        return CapacityError
    if _BALANCE.search(detail):
        return BalanceError
    if code in _AUTH_CODES or _AUTH.search(detail):
        return AuthError
    if _RETIRED.search(detail):
        return NotAvailableError
    if code == "FORBIDDEN" or _FORBIDDEN.search(detail):
        return ForbiddenError
    if _NOT_FOUND.search(detail):
        return NotFoundError
    if _EXISTS.search(detail):
        return ConflictError
    # GraphQL gives this code to most refusals; a bid that is too low is the user's to raise.
    if (code == "INTERNAL_SERVER_ERROR" and not _BID.search(detail)) or _PASSING.search(detail):
        return ServerFaultError
    return BadRequestError


def _text_of(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("message") or value.get("detail")
    return "" if value is None else str(value)


def _page(text: str) -> str:
    head = text[:_LOOKED_AT_CHARS]
    title = re.search(r"<title[^>]*>([^<]*)", head, re.IGNORECASE)
    return one_line(title[1] if title else re.sub(r"<[^>]*>", " ", head), MAX_PAGE_CHARS)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
