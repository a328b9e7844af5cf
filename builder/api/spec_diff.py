"""Compares descriptions of RunPod's REST API: what changed that the builder uses, and how much else. The core is pure.

The description that this version was written against is `openapi_known.json`, a summary by `builder.api.spec_summary`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.api.spec_summary import summarise
from builder.api.spec_use import USED, WAIVED
from builder.errors import BadAnswerError, NotFoundError, UsageError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["MAX_DOCUMENT_BYTES", "Change", "Difference", "compare", "diff", "known_summary", "parse_document"]

MAX_DOCUMENT_BYTES = 8_000_000
FETCH_LIMIT_S = 60.0
_KNOWN = Path(__file__).with_name("openapi_known.json")


@dataclass(frozen=True)
class Change:
    """One difference in what the builder uses; `breaks`: what it sends or reads may no longer work."""

    where: str
    kind: Literal["added", "removed", "changed"]
    before: str | None
    after: str | None
    breaks: bool


@dataclass(frozen=True)
class Difference:
    """`changes` in what is used; `others_*` count operations that are not; `unlisted` are neither used nor waived."""

    before_version: str
    after_version: str
    changes: tuple[Change, ...]
    others_added: tuple[str, ...]
    others_removed: tuple[str, ...]
    others_moved: tuple[str, ...]
    unlisted: tuple[str, ...]

    @property
    def breaks(self) -> bool:
        """True if anything the builder relies on is gone or different."""
        return any(change.breaks for change in self.changes)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**vars(self), "changes": [vars(change) for change in self.changes], "breaks": self.breaks}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """Compare two summaries."""
    old, new = dict(_facts(before)), dict(_facts(after))
    changes = []
    for where in sorted({*old, *new}):
        first, second = old.get(where), new.get(where)
        if first == second:
            continue
        if first is None and second is not None:
            # What comes on top is ignored in answers and not sent, unless the API now insists on it.
            breaks = not where.startswith("answer ") and second.endswith(", required")
            changes.append(Change(where, "added", first, second, breaks))
        elif second is None:
            changes.append(Change(where, "removed", first, second, breaks=True))
        else:
            changes.append(Change(where, "changed", first, second, breaks=True))
    others_before, others_after = before["others"], after["others"]
    common = others_before.keys() & others_after.keys()
    return Difference(
        str(before["version"]),
        str(after["version"]),
        tuple(changes),
        tuple(sorted(others_after.keys() - others_before.keys())),
        tuple(sorted(others_before.keys() - others_after.keys())),
        tuple(sorted(name for name in common if others_before[name] != others_after[name])),
        tuple(sorted(name for name in others_after if name not in WAIVED)),
    )


def parse_document(text: str, name: str) -> dict[str, Any]:
    """The OpenAPI document in `text`. Raises BadAnswerError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadAnswerError(f"{name} is no JSON", hint="give the JSON form of the OpenAPI document") from None
    if not isinstance(document, dict):
        raise BadAnswerError(f"{name} is no OpenAPI document", hint="give the JSON form of the OpenAPI document")
    return document


def known_summary() -> dict[str, Any]:
    """What this version was written against."""
    known: dict[str, Any] = json.loads(_KNOWN.read_text(encoding="utf-8"))
    return known


def diff(run: Runtime, source: str, against: Path | None) -> Difference:
    """Read `source` (file or URL) and compare it with `against`, or what is known.

    Raises NotFoundError, UsageError, BadAnswerError, NetworkError.
    """
    is_url = source.startswith(("http://", "https://"))
    text = _fetch(source) if is_url else _read(run.folder / source)
    after = summarise(parse_document(text, source), USED)
    if against is None:
        return compare(known_summary(), after)
    path = run.folder / against
    return compare(summarise(parse_document(_read(path), str(path)), USED), after)


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, operation in summary["operations"].items():
        yield name, operation["call"]
        for parameter, kind in operation["query"].items():
            yield f"{name} ?{parameter}", kind
        yield f"{name} request", operation["request"]
        for status, kind in operation["answers"].items():
            yield f"{name} {status}", kind
    for part, word in (("requests", "request"), ("answers", "answer")):
        for schema, fields in summary[part].items():
            for field, kind in fields.items():
                yield f"{word} {schema}.{field}", kind


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"there is no {path}", hint="name a file or a URL of an OpenAPI document") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return _text(data, str(path))


def _fetch(url: str) -> str:
    from builder.api.http import get_once

    answer = get_once(url, timeout_s=FETCH_LIMIT_S)
    if answer.status != 200:
        raise BadAnswerError(f"{url} answers with status {answer.status}", hint="name the document itself")
    return _text(answer.text.encode(), url)


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UsageError(f"{name} is larger than {MAX_DOCUMENT_BYTES / 1e6:g} MB", hint="is it an OpenAPI document?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadAnswerError(f"{name} is no JSON", hint="give the JSON form of the OpenAPI document") from None
