"""What was asked and what was answered, for tests to judge; the key that came with a request is not kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.runpod.calls import Answer, Call

__all__ = ["Entry", "Journal"]

SECRET_PLACES = ("env", "password", "value")
"""Where a request's body may hold a secret: a pod's environment, a registry's password, a stored secret."""


@dataclass
class Entry:
    """One request. `status` None: its answer never went out (or is still to come); `executed`: it had its effect.

    `fault` names what the plane did wrong on purpose, `is_malformed` a request that a test wanted to be wrong.
    """

    number: int
    at: float
    method: str
    route: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    is_malformed: bool = False
    fault: str | None = None
    executed: bool = False
    status: int | None = None
    answer: Any = None
    answer_type: str = ""
    answer_headers: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    @property
    def is_mutation(self) -> bool:
        """Meant to change something."""
        if self.path.endswith("/graphql"):
            text = self.body.get("query", "") if isinstance(self.body, dict) else ""
            return str(text).lstrip().startswith("mutation")
        return self.method not in ("GET", "HEAD", "OPTIONS")

    def close(self, answer: Answer, headers: dict[str, str]) -> None:
        """Its answer goes out."""
        self.status = answer.status
        self.answer = answer.body if answer.text is None else answer.text
        self.answer_type = answer.content_type if answer.payload() or answer.stream else ""
        self.answer_headers = headers


class Journal(list[Entry]):
    """Entries, oldest first."""

    is_malformed = False

    def begin(self, call: Call, at_s: float) -> Entry:
        """Write a request down."""
        headers = {name: value for name, value in call.headers.items() if name.lower() != "authorization"}
        entry = Entry(
            len(self) + 1,
            at_s,
            call.method,
            call.route,
            call.path,
            dict(call.query),
            headers,
            _readable(call.raw),
            self.is_malformed,
        )
        self.append(entry)
        return entry

    @contextmanager
    def malformed(self) -> Iterator[None]:
        """Requests from here on are wrong on purpose."""
        self.is_malformed = True
        try:
            yield
        finally:
            self.is_malformed = False

    def assert_no_secret(self, *secrets: str, in_places: bool = False) -> None:
        """No secret in an address, a header, or a body; `in_places`: not even where a body may hold one."""
        for entry in list(self):
            body = entry.body if in_places else _without_places(entry.body)
            text = json.dumps([entry.path, entry.query, entry.headers, body, entry.answer_headers])
            for number, secret in enumerate(secrets):
                escaped = json.dumps(secret)[1:-1]
                assert escaped not in text, f"secret {number} is in {entry.method} {entry.route} (entry {entry.number})"


def _readable(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8")) if raw else None
    except ValueError:
        return raw.decode("utf-8", "replace")


def _without_places(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _without_places(value) for name, value in body.items() if name not in SECRET_PLACES}
    if isinstance(body, list):
        return [_without_places(value) for value in body]
    return body
