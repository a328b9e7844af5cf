"""What is found in a document, by file and JSON path; and small checks that tell it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CUDA_VERSION", "MAX_PROBLEMS", "Document", "Problem", "at", "is_integer", "is_number", "shown"]

Level = Literal["error", "warning"]
CUDA_VERSION = r"[1-9][0-9]?\.[0-9]{1,2}"
MAX_PROBLEMS = 200
"""Of one document and level; a thousand lines help nobody."""
_MAX_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """`path` is the place in `file` as JSON path (`config.env[2].key`), empty for the whole; `text` says what is wrong
    and what is legal."""

    file: str
    path: str
    level: Level
    text: str

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {"file": self.file, "path": self.path, "level": self.level, "text": self.text}


@dataclass
class Document:
    """Collects the problems of one file, MAX_PROBLEMS of a level at most."""

    file: str
    problems: list[Problem] = field(default_factory=list)

    def error(self, path: str, text: str) -> None:
        """The Hub, or the worker, will not take this."""
        self._add(Problem(self.file, path, "error", text))

    def warning(self, path: str, text: str) -> None:
        """It works, and is hardly what was meant."""
        self._add(Problem(self.file, path, "warning", text))

    def _add(self, problem: Problem) -> None:
        n_before = sum(each.level == problem.level for each in self.problems)
        if n_before < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def mapping(self, value: Any, path: str, known: Collection[str]) -> Mapping[str, Any] | None:
        """`value` if it is an object, with a warning for each key that is not `known`; else an error and None."""
        if not isinstance(value, dict):
            self.error(path, f"{shown(value)}; legal: an object")
            return None
        for key in value:
            if key not in known:
                self.warning(at(path, key), f"unknown and ignored; legal: {', '.join(sorted(known))}")
        return value

    def items(self, parent: Mapping[str, Any], key: str, path: str) -> list[Any]:
        """The list `key`; empty if there is none, after an error if it is something else."""
        value = parent.get(key, [])
        if isinstance(value, list):
            return value
        self.error(at(path, key), f"{shown(value)}; legal: a list")
        return []

    def text(self, parent: Mapping[str, Any], key: str, path: str, *, needed: bool = True) -> str | None:
        """The text `key`, not blank; an error and None if it is something else, or missing and `needed`."""
        value = parent.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if key in parent:
            self.error(at(path, key), f"{shown(value)}; legal: a text that is not empty")
        elif needed:
            self.error(at(path, key), "missing; legal: a text that is not empty")
        return None

    def choice(self, parent: Mapping[str, Any], key: str, path: str, legal: Collection[str]) -> str | None:
        """The text `key`, one of `legal`; else an error and None."""
        value = parent.get(key)
        if isinstance(value, str) and value in legal:
            return value
        found = shown(value) if key in parent else "missing"
        self.error(at(path, key), f"{found}; legal: {', '.join(legal)}")
        return None

    def integer(
        self, parent: Mapping[str, Any], key: str, path: str, low: int, high: int, *, needed: bool = True
    ) -> None:
        """An error unless `key` is a whole number from `low` to `high`."""
        value: Any = parent.get(key)
        if is_integer(value) and low <= value <= high:
            return
        if key in parent or needed:
            found = shown(value) if key in parent else "missing"
            self.error(at(path, key), f"{found}; legal: a whole number, {low} to {high}")


def at(path: str, key: str | int) -> str:
    """The path of `key` in what is at `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key[:_MAX_SHOWN]}" if path else key[:_MAX_SHOWN]


def is_integer(value: Any) -> bool:
    """True for a whole number, as JSON has it; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """True for a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value in a message: what it is, or a short text itself."""
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_SHOWN else value[: _MAX_SHOWN - 3] + "...")
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = {None: "null", True: "true", False: "false"}.get(value) if not is_number(value) else repr(value)
    return str(text)[:_MAX_SHOWN]
