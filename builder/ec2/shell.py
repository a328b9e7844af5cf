"""`ec2 ssh`: a shell on the machine, or one command there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.ec2.machine import read_machine, with_address
from builder.ec2.ssh import Ssh, connect_ssh
from builder.errors import SshError, UsageError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["enter", "run_there", "shell_line"]

LIMIT_S = 3600.0


def shell_line(run: Runtime, command: Sequence[str], config: Path | None = None) -> list[str]:
    """The command line of ssh. Raises NotFoundError without a machine, SshError, UsageError."""
    return _way(run, config).line(command)


def run_there(run: Runtime, command: Sequence[str], config: Path | None = None) -> dict[str, Any]:
    """Run `command` there and collect what it prints, at most the last 200 lines.

    Raises UsageError without a command, NotFoundError without a machine, SshError.
    """
    if not command:
        raise UsageError("a shell makes no JSON", hint="leave --json out, or give a command behind --")
    done = _way(run, config).run(command, limit_s=LIMIT_S)
    return {"command": list(command), "exit_code": done.code, "lines": list(done.lines)}


def enter(run: Runtime, command: Sequence[str], config: Path | None = None) -> None:
    """Become ssh: what the user types goes there, and its exit code is ours. Raises as `shell_line`."""
    way = _way(run, config)
    line = way.line(command)
    run.console.note(way.machine.cost_line(run.clock.unix_s()))
    try:
        os.execve(line[0], line, way.environ)
    except OSError as error:
        raise SshError(f"{line[0]} cannot be started: {error.strerror}") from None


def _way(run: Runtime, config: Path | None) -> Ssh:
    return connect_ssh(run, with_address(run, read_machine(run)), config)
