"""Runs `python -m builder` inside the test's process: real command line, real HTTP, virtual time."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.cli import main
from builder.clock import Clock
from builder.runtime import World

__all__ = ["Cli", "Outcome"]


class Terminal(io.StringIO):
    """Standard input of somebody who sits there."""

    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Outcome:
    """What a command did as its caller sees it."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        """What --json said on stderr about the error."""
        return json.loads(self.err.strip().splitlines()[-1])


class Cli:
    """A folder with `.env` and `artifacts`, an environment, a clock; `run` is one command there."""

    def __init__(self, environ: Mapping[str, str], folder: Path, clock: Clock) -> None:
        self.environ = dict(environ)
        self.folder = folder
        self.clock = clock

    def run(self, *argv: str, answers: str | None = None) -> Outcome:
        """Run one command; `answers` is what a user at a terminal types (None: standard input is empty)."""
        stdin = io.StringIO() if answers is None else Terminal(answers)
        out, err = io.StringIO(), io.StringIO()
        world = World(self.environ, self.folder, clock=self.clock, stdin=stdin, stdout=out, stderr=err)
        code = main(argv, world)
        return Outcome(code, out.getvalue(), err.getvalue())
