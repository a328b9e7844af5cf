"""What a person, a pipe or a program sees of a stream while it runs.

Knows nothing of sockets and files. Three displays of one shape: captions on a terminal (stable text bright,
the present guess dim, a bar with the position in the audio), plain lines of final text elsewhere, JSON
lines for programs. Invariants: text from the server never reaches a terminal with control characters in it;
NO_COLOR is honoured; plain lines are never taken back.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from engine.formats import one_line, timestamp
from realtime.client.lines import LineJoiner
from realtime.client.messages import (
    Closed,
    Disconnect,
    ErrorReply,
    Event,
    Language,
    Ready,
    Segment,
    ServerWarning,
    Update,
    Wait,
)

__all__ = ["Captions", "Display", "JsonLines", "PlainLines", "Silent", "as_json", "clock_text", "make_display"]

EVENT_NAMES: dict[type[Event], str] = {
    Ready: "ready",
    Language: "language",
    Update: "update",
    ServerWarning: "warning",
    Wait: "wait",
    ErrorReply: "error",
    Disconnect: "disconnect",
    Closed: "closed",
}


class Display(Protocol):
    """Takes events as they come; a context manager that leaves the terminal as it was."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, source: str) -> None:
        """A stream begins; `source` names its file or microphone."""
        ...

    def event(self, event: Event) -> None:
        """Something came from the server."""
        ...

    def position(self, sent_s: float, total_s: float | None) -> None:
        """Seconds of audio sent, and in all if that is known."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, source: str) -> None:
        """Nothing."""

    def event(self, event: Event) -> None:
        """Nothing."""

    def position(self, sent_s: float, total_s: float | None) -> None:
        """Nothing."""


class PlainLines(Silent):
    """Final text, a sentence per line."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._lines = LineJoiner()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(self._lines.finish())

    def event(self, event: Event) -> None:
        """Write the lines that an update, or the end, has finished."""
        if isinstance(event, Update):
            self._write(self._lines.add(event.completed))
        elif isinstance(event, Closed):
            self._write(self._lines.finish())

    def _write(self, lines: Sequence[Segment]) -> None:
        for line in lines:
            if text := one_line(line.text):
                self._out.write(f"{text}\n")
        self._out.flush()


class JsonLines(Silent):
    """One JSON object per event."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._source = ""

    def begin(self, source: str) -> None:
        """Remember the name that goes into each line."""
        self._source = source

    def event(self, event: Event) -> None:
        """Write the event."""
        self._out.write(json.dumps({"source": self._source, **as_json(event)}) + "\n")
        self._out.flush()


class Captions(Silent):
    """Captions on a terminal: finished lines scroll up; the line that grows, with the guess, and the bar stay."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.fields[label]}", style="dim"),
            console=console,
            auto_refresh=False,
        )
        self._bar = self._progress.add_task("", total=None, label="")
        self._lines = LineJoiner()
        self._guess = Text("")
        # Messages on standard error would break the picture, unless they go to a file anyway.
        self._live = Live(
            self._view(),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._language = ""

    def __enter__(self) -> Captions:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_line()
        self._live.stop()

    def begin(self, source: str) -> None:
        """Print the name of the source, start the bar anew."""
        self._progress.reset(self._bar, total=None, label="")
        self._language = ""
        self._print(Text(source, style="bold underline"))

    def event(self, event: Event) -> None:
        """Show text as soon as it comes."""
        if isinstance(event, Update):
            lines = self._lines.add(event.completed)
            self._guess = _growing(self._lines.rest, event.provisional)
            # Before finished text moves up, or the guess that it replaces would stand below it for a moment.
            self._live.update(self._view())
            for line in lines:
                self._print(_caption(line, "bold"))
        elif isinstance(event, Closed):
            self._finish_line()
        elif isinstance(event, Language):
            self._language = f"  {one_line(event.code)}"
        self._refresh()

    def position(self, sent_s: float, total_s: float | None) -> None:
        """Move the bar."""
        whole = f" / {clock_text(total_s)}" if total_s is not None else ""
        label = f"{clock_text(sent_s)}{whole}{self._language}"
        self._progress.update(self._bar, completed=sent_s, total=total_s, label=label)
        self._refresh()

    def _finish_line(self) -> None:
        self._guess = Text("")
        self._live.update(self._view())
        for line in self._lines.finish():
            self._print(_caption(line, "bold"))

    def _view(self) -> Group:
        return Group(self._guess, self._progress)

    def _refresh(self) -> None:
        self._live.update(self._view(), refresh=True)

    def _print(self, text: Text) -> None:
        self._live.console.print(text)


def make_display(mode: str, console: Console, *, is_for_people: bool = False) -> Display:
    """The display for `mode`: `json`, `quiet`, or `auto`, all on `console`.

    `auto` is captions if the console is a terminal that can show them, else plain lines, or nothing
    if the console `is_for_people` only.
    """
    if mode == "json":
        return JsonLines(console.file)
    if mode == "quiet":
        return Silent()
    if console.is_terminal and not console.is_dumb_terminal:
        return Captions(console)
    return Silent() if is_for_people else PlainLines(console.file)


def as_json(event: Event) -> dict[str, Any]:
    """An event as a JSON object: `type`, and its fields; times in seconds."""
    if isinstance(event, Update):
        return {
            "type": "update",
            "completed": [_segment(segment) for segment in event.completed],
            "provisional": _segment(event.provisional) if event.provisional else None,
        }
    return {"type": EVENT_NAMES[type(event)], **dataclasses.asdict(event)}


def clock_text(time_s: float) -> str:
    """`MM:SS`, with hours in front once there are any."""
    text = timestamp(max(0, int(time_s)) * 1_000, ".")[:-4]
    return text.removeprefix("00:")


def _caption(segment: Segment, style: str) -> Text:
    return Text.assemble((f"{clock_text(segment.start_s)}  ", "dim"), (one_line(segment.text), style))


def _growing(line: Segment | None, guess: Segment | None) -> Text:
    """The completed part of a line, and behind it what may still change."""
    if line is None:
        return _caption(guess, "dim italic") if guess else Text("")
    return _caption(line, "bold").append(f" {one_line(guess.text)}" if guess else "", "dim italic")


def _segment(segment: Segment) -> dict[str, Any]:
    shown: dict[str, Any] = {"start": segment.start_s, "end": segment.end_s, "text": segment.text}
    if segment.words:
        shown["words"] = [
            {"word": word.text, "start": word.start_s, "end": word.end_s, "probability": word.probability}
            for word in segment.words
        ]
    return shown
