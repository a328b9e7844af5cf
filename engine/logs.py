"""Logging for both modes: text or JSON lines on standard error, without secrets, bounded.

What a line may not hold: a known secret in any usual spelling, and whatever stands where secrets
stand (`token=`, `Bearer`, `/t/<...>/`). That goes for messages, arguments, tracebacks, warnings and
exceptions nobody caught. A message template that repeats too often is held back and counted, so that
a flood of bad requests cannot fill a disk. Line breaks and control characters in messages are
escaped: what a peer sends cannot forge a line.

Knows nothing of what is logged.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime, timezone
from types import TracebackType
from urllib.parse import quote, quote_plus

from engine.clock import Clock, MonotonicClock

__all__ = [
    "MAX_TEMPLATES",
    "REPEATS",
    "REPEAT_WINDOW_S",
    "RedactionFilter",
    "Redactor",
    "RepeatLimiter",
    "configure_logging",
]

REPEATS = 10
REPEAT_WINDOW_S = 60.0
"""Lines of one template in this time; the rest is counted and told in one line."""
MAX_TEMPLATES = 512
"""Templates counted at once; beyond it the oldest is told early and forgotten."""
MAX_TEMPLATE_CHARS = 200
"""Of a template this much tells it from others; the rest may be somebody's data."""
MAX_TEXT_CHARS = 16_384
"""Of a message or traceback; deeper tracebacks repeat themselves."""
LONGEST_SPELLING_CHARS = 2_048
"""A secret has at most 512 characters, of which percent-encoding makes three each."""
HIDDEN = "***"
QUIET_LOGGERS = ("asyncio", "filelock", "httpcore", "httpx", "huggingface_hub", "multipart", "urllib3")
LOUD_LOGGERS = ("uvicorn", "uvicorn.access", "uvicorn.asgi", "uvicorn.error", "websockets")
"""Their lines below WARNING show request targets, headers and frames: secrets and what was said."""

_NAMES = r"(?:token|secret|password|passwd|api[_-]?key)"
_OPEN = r"""["'\\]"""
_VALUE = r"""[^\s&"'\\,;)}\]]+"""
_PATTERNS = (
    re.compile(r"""(?i)(\bbearer[\s,]+)[^\s,"'\\]+"""),
    re.compile(rf"(?i)({_NAMES}{_OPEN}*\s*=\s*{_OPEN}*){_VALUE}"),
    re.compile(rf"(?i)({_NAMES}{_OPEN}+\s*:\s*{_OPEN}+){_VALUE}"),
    re.compile(rf"(?i)(authorization{_OPEN}*\s*[:=]\s*{_OPEN}*)(?!bearer\b){_VALUE}"),
    re.compile(r"""(/t/)[^/\s"'\\?#]+"""),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Redactor:
    """Takes secrets out of text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
        # The longest first, or a part of a spelling would remain.
        ordered = sorted(spellings, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def redact(self, text: str) -> str:
        """Return `text`, shortened to MAX_TEXT_CHARS, with *** in the place of each secret."""
        # Cut twice: a secret across the first cut is whole when it is looked for.
        text = text[: MAX_TEXT_CHARS + LONGEST_SPELLING_CHARS]
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        for pattern in _PATTERNS:
            text = pattern.sub(rf"\g<1>{HIDDEN}", text)
        return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + " ..."


def _spellings(secret: str) -> Iterable[str]:
    raw = secret.encode()
    yield secret
    yield from (repr(secret)[1:-1], repr(raw)[2:-1], json.dumps(secret)[1:-1])
    for encoded in (quote(secret), quote(secret, safe=""), quote_plus(secret)):
        yield encoded
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), encoded)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")


class RedactionFilter(logging.Filter):
    """Replaces what a record says by its redacted text; belongs on every handler that writes anywhere."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact message with arguments, traceback and stack; let the record pass."""
        redact = self._redactor.redact
        record.msg, record.args = redact(_message(record)), None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_info = None
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        # An edge: arguments that do not fit must not raise into the code that logs, and the
        # template alone says where that is.
        return f"{_template(record)} (its arguments cannot be shown)"


def _template(record: logging.LogRecord) -> str:
    return record.msg[:MAX_TEMPLATE_CHARS] if isinstance(record.msg, str) else type(record.msg).__name__


class RepeatLimiter:
    """Lets REPEATS lines per key and window through, counts the rest; pure, `now_s` is monotonic."""

    def __init__(
        self, repeats: int = REPEATS, window_s: float = REPEAT_WINDOW_S, max_templates: int = MAX_TEMPLATES
    ) -> None:
        self._repeats = repeats
        self._window_s = window_s
        self._max_templates = max_templates
        # In order of their windows' begin, because a window never moves.
        self._windows: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def admit(self, key: tuple[str, str], now_s: float) -> tuple[bool, list[tuple[tuple[str, str], int]]]:
        """Return whether a line of `key` may be written, and (key, count held back) of ended windows."""
        told = self._end_windows(now_s)
        begun_s, count = self._windows.get(key, (now_s, 0))
        self._windows[key] = (begun_s, count + 1)
        return count < self._repeats, told

    def _end_windows(self, now_s: float) -> list[tuple[tuple[str, str], int]]:
        told = []
        while self._windows:
            key, (begun_s, count) = next(iter(self._windows.items()))
            if now_s - begun_s < self._window_s and len(self._windows) < self._max_templates:
                break
            del self._windows[key]
            if count > self._repeats:
                told.append((key, count - self._repeats))
        return told


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error, behind the repeat limiter."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(sys.stderr)
        self._clock = clock
        self._limiter = RepeatLimiter()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record unless its template has repeated too often."""
        with self.lock:  # type: ignore[union-attr]
            may, told = self._limiter.admit((record.name, _template(record)), self._clock.now_s())
            for (name, template), count in told:
                text = f"suppressed {count} more like: {template}"
                super().handle(logging.LogRecord(name, logging.WARNING, "", 0, "%s", (text,), None))
            if may:
                super().handle(record)
        return may

    def handleError(self, record: logging.LogRecord) -> None:
        """Standard error is gone or full: there is nowhere left to say so, and the service goes on."""


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda match: repr(match.group())[1:-1], super().formatMessage(record))


class _JsonFormatter(logging.Formatter):
    """The keys of the seed project's log lines."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "component": record.name,
            "message": record.getMessage(),
        }
        if record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


def configure_logging(log_format: str, level: str, secrets: Iterable[str] = (), clock: Clock | None = None) -> None:
    """Send all logging to standard error as `text` or `json`; `secrets` never appear in it.

    Also takes over warnings and the reports of exceptions that nobody caught. `level` is debug,
    info, warning or error; third-party loggers that tell too much stay at warning whatever it is.
    """
    handler = _Handler(clock or MonotonicClock())
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    handler.addFilter(RedactionFilter(Redactor(secrets)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in (*QUIET_LOGGERS, *LOUD_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _report
    threading.excepthook = _report_thread
    sys.unraisablehook = _report_unraisable


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("python").critical("unhandled exception", exc_info=(kind, error, trace))


def _report_thread(report: threading.ExceptHookArgs) -> None:
    if report.exc_value is not None:
        _report(report.exc_type, report.exc_value, report.exc_traceback)


def _report_unraisable(report: sys.UnraisableHookArgs) -> None:
    if report.exc_value is not None:
        _report(report.exc_type, report.exc_value, report.exc_traceback)
