"""What a test of a server found: checks, a report of them, and the comparison of texts they share.

Pure, but for reading a file that holds an expected text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from builder.console import Console
    from engine.wer import WordErrors

__all__ = ["Check", "Report", "compare", "expected_text"]

MAX_TEXT_BYTES = 10_000_000


@dataclass(frozen=True)
class Check:
    """One question and its answer; `figures` are for programs."""

    name: str
    ok: bool
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail, **self.figures}


@dataclass(frozen=True)
class Report:
    """All checks of one test against one address."""

    test: str
    address: str
    checks: tuple[Check, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    hint: str | None = None
    """What to do about a failure; None: look at the pod."""

    @property
    def ok(self) -> bool:
        """True if nothing failed."""
        return all(check.ok for check in self.checks)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        checks = [check.document() for check in self.checks]
        return {"test": self.test, "address": self.address, "ok": self.ok, "checks": checks, **self.details}

    def show(self, console: Console) -> None:
        """For people."""
        rows = [("ok" if check.ok else "FAILED", check.name, check.detail) for check in self.checks]
        console.table(("", "check", "result"), rows, title=f"{self.test}: {self.address}")

    def conclude(self, console: Console) -> None:
        """Print it. Raises CheckFailedError if anything failed."""
        console.result(self.document(), lambda: self.show(console))
        failed = [check for check in self.checks if not check.ok]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise CheckFailedError(f"{failed[0].name}: {failed[0].detail}{more}", hint=self.hint)


def compare(reference: str, hypothesis: str) -> WordErrors:
    """Word errors of `hypothesis`. Raises UsageError if the texts are too long to compare."""
    from engine.wer import MAX_CELLS, align, count_errors, normalise

    meant, heard = normalise(reference), normalise(hypothesis)
    if len(meant) * len(heard) > MAX_CELLS:
        raise UsageError(f"{len(meant)} and {len(heard)} words are too many to compare", hint="use a shorter recording")
    return count_errors(align(meant, heard))


def expected_text(text_or_file: str) -> str:
    """The text of `--expect`: that of a file if there is one of this name, else itself. Raises UsageError."""
    try:
        path = Path(text_or_file)
        if not path.is_file():
            return text_or_file
        with path.open("rb") as file:
            return file.read(MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"--expect {text_or_file}: not UTF-8 text") from None
    except (OSError, ValueError):
        # Too long for a name: it is the text.
        return text_or_file
