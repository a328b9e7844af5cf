"""A failure text to its cause and remedy; the text comes from an argument, standard input, a file, or a pod's logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, NotFoundError, UsageError
from builder.pods.causes import diagnose
from builder.pods.log_follow import LogQuery
from builder.pods.watch import pod_lines

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["explain", "read_text"]

MAX_CHARS = 2_000_000
"""Of a longer file the end is read."""
LOG_LINES = 500


def read_text(run: Runtime, text: str | None, pod_id: str | None) -> str:
    """The text that is meant: a pod's logs, standard input (`-`, or nothing named), a file, or `text` itself.

    Raises UsageError if nothing is given, NotFoundError for a pod without logs.
    """
    if pod_id is not None:
        return _logs(run, pod_id)
    if text is None and run.console.is_interactive:
        raise UsageError("nothing to explain", hint="give a text, a file, - for standard input, or --pod POD")
    if text in (None, "-"):
        return run.console.read_input(MAX_CHARS)
    assert text is not None
    return _file(Path(text)) if _names_a_file(text) else text


def explain(text: str) -> dict[str, Any]:
    """The document of `explain`. Raises BuilderError (exit 1) if no rule knows the text."""
    if not text.strip():
        raise UsageError("nothing to explain: the text is empty", hint="give a text, a file, or --pod POD")
    cause = diagnose(text)
    if cause is None:
        raise BuilderError(
            "no known cause in this text", hint="read on around it: python -m builder logs --tail 1000, status, doctor"
        )
    return {
        "kind": cause.kind,
        "cause": cause.cause,
        "remedy": cause.remedy,
        "confidence": cause.confidence,
        "is_final": cause.is_final,
        "line": cause.line[:500],
    }


def _logs(run: Runtime, pod_id: str) -> str:
    lines = [event.line for event in pod_lines(run, pod_id, LogQuery(tail=LOG_LINES), is_endless=False)]
    if not lines:
        raise NotFoundError(f"pod {pod_id} has written no log", hint="see its state: python -m builder status")
    return "\n".join(lines)


def _names_a_file(text: str) -> bool:
    if len(text) >= 1_000 or "\n" in text:
        return False
    try:
        return Path(text).is_file()
    except OSError:
        # Longer than names can be.
        return False


def _file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - MAX_CHARS))
            return file.read().decode("utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="") from None
