"""What a verb works with: settings, console, clock, RunPod's API, remembered state; each made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from builder.clock import Clock, SystemClock
from builder.console import Console
from builder.errors import UsageError
from builder.redact import Redactor, is_secret_name
from builder.settings import ROWS, Settings, is_placeholder, read_settings
from builder.state import State, iso_time

if TYPE_CHECKING:
    from builder.api.control_plane import ControlPlane
    from builder.api.graphql import GraphQl
    from builder.api.jobs import JobApi

__all__ = ["Runtime", "World"]


class World:
    """The process's surroundings; tests bring their own."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        *,
        clock: Clock | None = None,
        stdin: TextIO | None = None,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.environ = environ
        self.folder = folder
        self.clock: Clock = clock or SystemClock()
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.redactor = Redactor()


class Runtime:
    """One invocation of one verb."""

    def __init__(
        self, world: World, *, as_json: bool = False, quiet: bool = False, env_path: Path | None = None
    ) -> None:
        self.environ = world.environ
        self.clock = world.clock
        self.folder = world.folder
        self.redactor = world.redactor
        self._must_exist = env_path is not None
        self.env_path = env_path or world.folder / ".env"
        self.console = Console(
            world.redactor,
            as_json=as_json,
            quiet=quiet,
            stdin=world.stdin,
            stdout=world.stdout,
            stderr=world.stderr,
        )
        self.state = State(self.env_path.parent / "artifacts")
        self._hide_secrets()

    @cached_property
    def env_file(self) -> dict[str, str]:
        """What `.env` says. Raises UsageError if it cannot be read."""
        from builder.env_file import read_env_file

        return read_env_file(self.env_path)

    @cached_property
    def settings(self) -> Settings:
        """Validated settings. Raises UsageError, also if the file that --env-file names is not there."""
        if self._must_exist and not self.env_path.exists():
            # An empty one in its place would lose limits on price and time without a word.
            raise UsageError(f"--env-file: there is no {self.env_path}", hint="")
        return read_settings(self.environ, self.env_file)

    @cached_property
    def api(self) -> ControlPlane:
        """RunPod's REST API. Raises AuthError without a key."""
        from builder.api.connect import connect

        return connect(self.settings, self.clock, self.redactor, self.console.note, self.environ)

    @cached_property
    def graphql(self) -> GraphQl:
        """RunPod's GraphQL API, for the few things only it can do. Raises AuthError without a key."""
        from builder.api.connect import connect_graphql

        return connect_graphql(self.settings, self.clock, self.redactor, self.console.note, self.environ)

    @cached_property
    def jobs(self) -> JobApi:
        """The job API of serverless endpoints. Raises AuthError without a key."""
        from builder.api.connect import connect_jobs

        return connect_jobs(self.settings, self.clock, self.redactor, self.console.note, self.environ)

    def show_moment(self, document: Mapping[str, Any], line_of: Callable[[Mapping[str, Any], str], str]) -> None:
        """One of many looks: a line for people on a terminal (`line_of` document and instant), else a line of JSON."""
        at = iso_time(self.clock.unix_s())
        if self.console.as_json or not self.console.shows_to_terminal:
            self.console.json_line({"at": at, **document})
        else:
            self.console.line(line_of(document, at))

    def _hide_secrets(self) -> None:
        """From the start: also verbs that read no settings show texts of others, which may quote anything."""
        secret = [row.env for row in ROWS if row.is_secret]
        found = [self.environ[name] for name in secret if name in self.environ]
        # Whoever needs the file will hear that it cannot be read.
        with suppress(UsageError):
            found += [value for name, value in self.env_file.items() if name in secret or is_secret_name(name)]
        for value in found:
            if not is_placeholder(value):
                self.redactor.add(value)
