"""A request as the fake's handlers see it, and their answer: no HTTP library here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tests.fakes.runpod.pod import LogLine, PodRefusedError

__all__ = ["Answer", "Call", "Handler", "LogStream", "Operation", "problem"]

PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Call:
    """One request. `route` is "POST /v2/pods/{id}/action", `params` what stands for the braces."""

    method: str
    route: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: bytes

    def json(self) -> Any:
        """The body. Raises PodRefusedError 400 if it is no JSON."""
        try:
            return json.loads(self.raw.decode("utf-8"))
        except ValueError:
            raise PodRefusedError(400, "request body is not valid JSON") from None


@dataclass(frozen=True)
class LogStream:
    """Log lines to send, and how to ask for those that come later (after the number of the last one sent)."""

    lines: list[LogLine]
    last_number: int
    later: Callable[[int], list[LogLine]]


@dataclass
class Answer:
    """What goes back: `body` as JSON, `text` as it is, or a stream of log lines; None of them: empty."""

    status: int = 200
    body: Any = None
    text: str | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    stream: LogStream | None = None

    def payload(self) -> bytes:
        """The bytes of body or text."""
        if self.text is not None:
            return self.text.encode()
        return b"" if self.body is None else json.dumps(self.body).encode()


Handler = Callable[[Call], Answer]


def problem(refusal: PodRefusedError) -> Answer:
    """REST v2's shape of an error."""
    body: dict[str, Any] = {
        "title": HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.detail,
    }
    if refusal.errors:
        body["errors"] = list(refusal.errors)
    return Answer(refusal.status, body, content_type=PROBLEM_TYPE)


@dataclass(frozen=True)
class Operation:
    """One route of the server. `reads`: changes nothing, so that a read-only key suffices."""

    method: str
    path: str
    handler: Handler
    name: str
    reads: bool
    needs_key: bool = True
    refuse: Callable[[PodRefusedError], Answer] = problem

    @property
    def route(self) -> str:
        """What faults and journal call it."""
        return f"{self.method} {self.path}"
