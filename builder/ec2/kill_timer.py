"""The outside timer: a process of this machine that waits for the deadline and then ends the EC2 machine.

The machine ends itself, too; this one is for a machine that cannot. Credentials reach it by the environment and
`.env`, never by its command line. It goes early once AWS has nothing of that name any more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, NotFoundError, UsageError
from builder.instants import unix_s_of

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["MAX_AHEAD_S", "command", "end_at", "spawn", "start"]

LOOK_EVERY_S = 15.0
"""A laptop that slept is noticed within this time."""
ASK_EVERY_S = 600.0
"""Between questions to AWS whether there still is something to end."""
RETRY_EVERY_S, RETRY_FOR_S = 60.0, 3600.0
"""After the deadline, while AWS cannot be reached."""
MAX_AHEAD_S = 24 * 3600.0


def command(run: Runtime, name: str, deadline: str) -> list[str]:
    """The process's command line; no secret is in it."""
    given = ["--env-file", str(run.env_path.resolve())] if run.env_path.exists() else []
    words = ["ec2", "terminate", name, "--yes", "--at", deadline, "--quiet"]
    return [sys.executable, "-m", "builder", *words, *given]


def spawn(argv: Sequence[str], environ: Mapping[str, str], folder: Path, log: Path) -> None:
    """Start a process that outlives this one. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
            close_fds=True,
        )
    finally:
        os.close(descriptor)
    # It is not ours to wait for; this keeps Python from warning of it.
    process.returncode = 0


def start(run: Runtime, name: str, deadline: str) -> bool:
    """Start the timer; False, with a warning, if that cannot be done: the machine's own timer is left then."""
    from builder.ec2.resources import local_files

    log = next(path for path in local_files(run, name) if path.suffix == ".log")
    try:
        spawn(command(run, name, deadline), run.environ, run.folder, log)
    except OSError as error:
        run.console.warn(f"no timer of this machine watches {name} ({error}): only its own ends it at {deadline}")
        return False
    return True


def end_at(run: Runtime, name: str, at: str) -> dict[str, Any]:
    """Wait until `at`, then end the machine `name`; returns the document. What AWS refuses is tried for an hour.

    Raises UsageError for no instant, or one more than a day ahead; then what the last try raises.
    """
    from builder.ec2.terminate import terminate

    at_s = unix_s_of(at)
    if at_s is None or at_s - run.clock.unix_s() > MAX_AHEAD_S:
        raise UsageError(f"--at {at[:60]!r} is not allowed; legal: like 2026-01-31T12:00:00Z, at most a day ahead")
    if not _wait(run, name, at_s):
        run.console.note(f"nothing of {name} is left")
        return {"terminated": [], "deleted": [], "names": [name], "pending": []}
    until_s = run.clock.unix_s() + RETRY_FOR_S
    while True:
        try:
            return terminate(run, name, all_mine=False, yes=True)
        except NotFoundError:
            return {"terminated": [], "deleted": [], "names": [name], "pending": []}
        except BuilderError as error:
            if run.clock.unix_s() >= until_s:
                raise
            run.console.warn(f"{error}; trying again")
            run.clock.sleep(RETRY_EVERY_S)


def _wait(run: Runtime, name: str, at_s: float) -> bool:
    """Until the instant; False if there is nothing to end any more before."""
    from builder.ec2.resources import local_files

    log = next(path for path in local_files(run, name) if path.suffix == ".log")
    asked_s = run.clock.unix_s()
    while (now_s := run.clock.unix_s()) < at_s:
        run.clock.sleep(min(LOOK_EVERY_S, at_s - now_s))
        # `terminate` removes the log; only AWS can say that all is gone.
        if not log.exists() or run.clock.unix_s() - asked_s >= ASK_EVERY_S:
            asked_s = run.clock.unix_s()
            with suppress(BuilderError):
                if _is_gone(run, name):
                    return False
    return True


def _is_gone(run: Runtime, name: str) -> bool:
    from builder.aws.session import Aws
    from builder.ec2.resources import find_named, region_of

    return not find_named(Aws(run, region_of(name) or run.settings.aws_region), name)
