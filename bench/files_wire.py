"""How a benchmark of the file half talks to the processes that it compares: one JSON object per line.

Each way to transcribe runs in a process of its own, so that its CPU time and memory are its own. This module is
the process's side; it imports no model, so that it adds nothing to what is measured. Invariants: one task at a
time; standard output carries nothing else, whatever libraries print; the process ends when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

__all__ = ["ANSWER", "ERROR", "PROGRESS", "READY", "FileAnswer", "FileTask", "Transcribe", "serve"]

READY, PROGRESS, ANSWER, ERROR = "ready", "progress", "answer", "error"
"""Kinds of lines, each an object with this one key: facts about the way, seconds done, FileAnswer, a message."""


@dataclass(frozen=True)
class FileTask:
    """One file to transcribe."""

    path: str
    language: str


@dataclass(frozen=True)
class FileAnswer:
    """What was heard; `timings_s` are the way's own, if it has any."""

    text: str
    segments: int
    timings_s: Mapping[str, float] = field(default_factory=dict)


Transcribe: TypeAlias = Callable[[FileTask, Callable[[float], None]], FileAnswer]
"""Does one task, and may tell how many seconds are done."""


def serve(load: Callable[[], tuple[Transcribe, Mapping[str, Any]]]) -> None:
    """Load a way (with facts about it), then do the tasks that come, until the input ends."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(kind: str, value: object) -> None:
        lines.write(json.dumps({kind: value}) + "\n")
        lines.flush()

    with lines:
        try:
            transcribe, facts = load()
            say(READY, dict(facts))
            for line in sys.stdin:
                answer = transcribe(FileTask(**json.loads(line)), lambda done_s: say(PROGRESS, done_s))
                say(ANSWER, asdict(answer))
        except Exception as error:  # an edge: told to the benchmark, which ends with it
            say(ERROR, f"{type(error).__name__}: {error}")
