"""Compares descriptions of RunPod's REST API: what changed that the builder uses, and how much else. The core is pure.

The description that this version was written against is `openapi_known.json`, a summary by `builder.api.spec_summary`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.api.spec_summary import ASPECTS, summarise
from builder.api.spec_use import USED, WAIVED, Need, needs
from builder.errors import BadAnswerError, NotFoundError, UsageError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["MAX_DOCUMENT_BYTES", "Change", "Difference", "compare", "diff", "known_summary", "parse_document"]

MAX_DOCUMENT_BYTES = 8_000_000
FETCH_LIMIT_S = 60.0
_PARTS = (("requests", "request"), ("answers", "answer"), ("refusals", "refusal"))
_KNOWN = Path(__file__).with_name("openapi_known.json")
_Kind = Literal["added", "removed", "changed"]


@dataclass(frozen=True)
class Change:
    """One difference in the operations that are used; `breaks`: what the builder sends or reads may no longer work."""

    where: str
    kind: _Kind
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
    old, new = dict(_facts(before, {})), dict(_facts(after, _renamed(before, after)))
    needed = needs(before)
    changes = []
    for where in sorted({*old, *new}):
        first, second = old.get(where), new.get(where)
        if first != second:
            kind: _Kind = "added" if first is None else "removed" if second is None else "changed"
            changes.append(Change(where, kind, first, second, _breaks(where, first, second, needed)))
    others_before, others_after = before["others"], after["others"]
    common = others_before.keys() & others_after.keys()
    return Difference(
        str(before["version"]),
        str(after["version"]),
        tuple(changes),
        tuple(sorted(others_after.keys() - others_before.keys())),
        tuple(sorted(others_before.keys() - others_after.keys())),
        tuple(sorted(name for name in common if _call(others_before[name]) != _call(others_after[name]))),
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


def _facts(summary: Mapping[str, Any], renamed: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a summary says, line by line; `renamed` gives the old names of schemas."""

    def old(word: str) -> str:
        return re.sub(r"\w+", lambda found: renamed.get(found[0], found[0]), word)

    for key, value in summary["api"].items():
        yield f"api {key}", value
    for name, operation in summary["operations"].items():
        yield name, _call(operation["call"])
        yield f"{name} request", old(operation["request"])
        yield f"answer {name} refusal", old(operation["refusal"])
        for parameter, kind in operation["parameters"].items():
            yield f"{name} {parameter}", old(kind)
        for status, kind in operation["answers"].items():
            yield f"answer {name} {status}", old(kind)
        if "deprecated" in operation:
            yield f"{name} deprecated", operation["deprecated"]
    for part, label in _PARTS:
        for schema, fields in summary[part].items():
            for field, kind in fields.items():
                is_word = field.rpartition(" ")[2] not in ASPECTS
                yield f"{label} {renamed.get(schema, schema)}.{field}", old(kind) if is_word else kind


def _call(call: str) -> str:
    """Without the names of parameters in the path, which nobody sends."""
    return re.sub(r"\{[^}]*\}", "{}", call)


def _renamed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    """New names of schemas that look the same as one that is gone, with its name."""
    names: dict[str, str] = {}
    for part, _label in _PARTS:
        gone = {name: fields for name, fields in before[part].items() if name not in after[part]}
        for name in sorted(after[part].keys() - before[part].keys()):
            fields = after[part][name]
            same = (
                old for old, its in gone.items() if its == fields or ("is" not in its and its.keys() == fields.keys())
            )
            twin = next(same, None)
            if twin is not None:
                names[name] = twin
                del gone[twin]
    return names


def _breaks(where: str, before: str | None, after: str | None, needed: Mapping[str, Need]) -> bool:
    """Whether a change of the fact `where` may hurt what the builder sends or reads."""
    base, _space, aspect = where.rpartition(" ")
    is_read = where.startswith(("answer ", "refusal "))
    if aspect in ASPECTS:
        return not is_read and base.removesuffix("[]") in needed and _is_tighter(aspect, before, after)
    if where.startswith("api "):
        return True
    need = needed.get(where)
    old, new = _Type.of(before), _Type.of(after)
    if not is_read and new.is_required and not old.is_required and (need is None or not need.is_sure):
        owner = where.partition(".")[0] if where.startswith("request ") else base
        return owner in needed
    if need is None:
        return False
    if after is None or (before is not None and not _fits(old, new, need, is_read=is_read)):
        return True
    return is_read and need.is_sure and old.is_required and not new.is_required


@dataclass(frozen=True)
class _Type:
    """A type in words, taken apart."""

    values: frozenset[str]
    is_choice: bool
    is_required: bool

    @staticmethod
    def of(word: str | None) -> _Type:
        kind = (word or "").removesuffix(", required")
        is_choice = kind.startswith("one of ")
        values = kind.removeprefix("one of ").split(" / ") if is_choice else re.split(r" or |\|", kind)
        return _Type(frozenset(values), is_choice, kind != word and word is not None)


def _fits(old: _Type, new: _Type, need: Need, *, is_read: bool) -> bool:
    """Whether what was sent is still taken, or what comes is still understood."""
    if old.is_choice != new.is_choice:
        return False
    if not is_read:
        return old.values <= new.values
    return new.values <= old.values or (old.is_choice and not need.is_closed)


def _is_tighter(aspect: str, before: str | None, after: str | None) -> bool:
    if after is None or aspect in ("default", "format", "deprecated"):
        return False
    if before is None or aspect == "pattern":
        return True
    try:
        step = float(after) - float(before)
    except ValueError:
        return True
    return step > 0 if aspect.startswith("min") else step < 0


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
