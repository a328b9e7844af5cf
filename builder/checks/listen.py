"""Live speech to a server, by the reference client in a child process; and the speech that is shipped for it.

The child is what users run, so what it cannot do nobody can. It runs in real time, whatever clock the builder has.
The secret travels in its environment. Its JSON lines tell when text came, its document what the text is.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.child import Finished, run_child
from builder.clock import Clock, SystemClock
from builder.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["GREETING", "Arrival", "LiveResult", "Piece", "listen", "sample", "samples", "transcribe_live"]

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "engine" / "demo_model" / "samples"
SAMPLE, GREETING = "meeting_en.wav", "hello_en.wav"
TOKEN_VARIABLE = "WHISPER_AUTH_TOKEN"  # noqa: S105 - the name of a variable
KEPT_FROM_CHILD = ("RUNPOD_", "DOCKER_", "AWS_", TOKEN_VARIABLE)
"""Beginnings of variables that are no business of the client."""
EXIT_USAGE, EXIT_UNAUTHORIZED, EXIT_FULL = 2, 4, 5
_HINTS = {
    EXIT_UNAUTHORIZED: "the pod has another WHISPER_AUTH_TOKEN than .env, or give --token-file",
    EXIT_FULL: "wait until a client has left, or raise MAX_CLIENTS",
}


@dataclass(frozen=True)
class Piece:
    """A line of the transcript; seconds from the start of the audio."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Arrival:
    """At `at_s` after the server was ready, the text up to `end_s` of the audio had come for good."""

    at_s: float
    end_s: float


@dataclass(frozen=True)
class LiveResult:
    """One stream. `code` is the client's exit code (0: all audio transcribed), `complaint` what it said if not.

    `duration_s`: from the server's readiness to the end; `first_text_s`: to the first text, None if none came;
    `audio_s`: audio that was sent.
    """

    text: str
    first_text_s: float | None
    duration_s: float
    audio_s: float
    language: str | None = None
    pieces: tuple[Piece, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    code: int = 0
    complaint: str = ""

    def check(self) -> LiveResult:
        """Itself. Raises CheckFailedError unless all audio was transcribed, UsageError for a file that is no audio."""
        if self.code == EXIT_USAGE:
            raise UsageError(self.complaint)
        if self.code:
            raise CheckFailedError(self.complaint, hint=_HINTS.get(self.code))
        return self


def samples() -> list[tuple[Path, str]]:
    """The shipped English recordings, with what is said in them. Raises UsageError if they are not there."""
    try:
        labels = json.loads((SAMPLES / "samples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(f"{SAMPLES}: the shipped recordings are not there", hint="give --audio FILE") from None
    return [(SAMPLES / label["file"], label["text"]) for label in labels if label["language"] == "en"]


def sample(name: str = SAMPLE) -> tuple[Path, str]:
    """A shipped recording, and what is said in it. Raises UsageError if it is not there."""
    return next((path, text) for path, text in samples() if path.name == name)


def transcribe_live(
    run: Runtime,
    url: str,
    audio: Path,
    *,
    speed_fast: bool,
    timeout_s: float,
    token: str | None,
    language: str | None = None,
) -> LiveResult:
    """Stream a file at the speed of speech, or as fast as the server reads; `token` is the secret to show, if any.

    Raises CheckFailedError if not all of it was transcribed within `timeout_s` real seconds, UsageError for a
    file that is no audio.
    """
    speed = 0.0 if speed_fast else 1.0
    return listen(run, url, audio, token=token, speed=speed, timeout_s=timeout_s, language=language).check()


def listen(
    run: Runtime,
    url: str,
    audio: Path,
    *,
    token: str | None,
    speed: float,
    timeout_s: float,
    language: str | None = None,
) -> LiveResult:
    """Stream a file, `speed` seconds of it per second (0: as fast as the server reads); however it ends, the result."""
    command = [sys.executable, "-m", "realtime.client", url, str(audio.absolute()), "--json", "--format", "json"]
    command += ["--fast"] if speed == 0 else ["--speed", f"{speed:g}"]
    if language is not None:
        command += ["--language", language]
    listener = _Listener(SystemClock())
    with tempfile.TemporaryDirectory(prefix="whisper-live-") as folder:
        document_path = Path(folder) / "transcript.json"
        command += ["--output", str(document_path)]
        # There the client is found, even if it is not installed.
        finished = run_child(
            command, environ=_environ(run.environ, token), limit_s=timeout_s, say=listener.take, folder=ROOT
        )
        document = _read_document(document_path)
    return listener.result(document, finished, timeout_s)


def _environ(environ: Mapping[str, str], token: str | None) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith(KEPT_FROM_CHILD)}
    kept["PYTHONUNBUFFERED"] = "1"
    return {**kept, TOKEN_VARIABLE: token} if token else kept


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


@dataclass
class _Listener:
    """Times the client's JSON lines."""

    clock: Clock
    ready_s: float | None = None
    first_text_s: float | None = None
    language: str | None = None
    arrivals: list[Arrival] = field(default_factory=list)

    def take(self, line: str) -> None:
        """A line of output; what is no event (or the cut half of a long one) is passed over."""
        now_s = self.clock.monotonic_s()
        try:
            event = json.loads(line)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        if event.get("type") == "ready":
            self.ready_s = now_s
        elif event.get("type") == "language":
            self.language = str(event.get("code"))
        elif event.get("type") == "update" and self.ready_s is not None:
            self._take_update(event, now_s - self.ready_s)

    def _take_update(self, event: Mapping[str, Any], at_s: float) -> None:
        completed = event.get("completed") or []
        if self.first_text_s is None and (completed or event.get("provisional")):
            self.first_text_s = at_s
        if completed:
            self.arrivals.append(Arrival(at_s, float(completed[-1]["end"])))

    def result(self, document: Mapping[str, Any], finished: Finished, timeout_s: float) -> LiveResult:
        """What became of the stream."""
        now_s = self.clock.monotonic_s()
        pieces = tuple(
            Piece(float(each["start"]), float(each["end"]), str(each["text"])) for each in document.get("segments", ())
        )
        return LiveResult(
            text=str(document.get("text", "")).strip(),
            first_text_s=self.first_text_s,
            duration_s=0.0 if self.ready_s is None else now_s - self.ready_s,
            audio_s=float(document.get("duration", 0.0)),
            language=document.get("language") or self.language,
            pieces=pieces,
            arrivals=tuple(self.arrivals),
            code=1 if finished.timed_out else finished.code,
            complaint=_complaint(finished, timeout_s),
        )


def _complaint(finished: Finished, timeout_s: float) -> str:
    if finished.timed_out:
        return f"the stream was not done within {timeout_s:g} s"
    if finished.code == 0:
        return ""
    said = [line.removeprefix("error: ") for line in finished.lines if line.startswith("error: ")]
    return said[-1] if said else f"the client ended with exit code {finished.code}"
