"""Lets the guard run by itself every few minutes: a line for cron, or units for systemd's timers, as text.

Only the line goes into a crontab, and only when asked for, by the `crontab` command; it ends in a mark that names the
folder, so that it is found again and other lines are left alone. No secret is in it: the guard reads `.env`.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import AuthError, BuilderError, UsageError
from builder.instants import duration_text, unix_s_of
from builder.money.guard_rules import Limits

if TYPE_CHECKING:
    from builder.money.guard import Ending
    from builder.runtime import Runtime

__all__ = ["Crontab", "add_line", "cron_line", "find_line", "install", "remove", "remove_line", "show_status"]

CRONTAB_TIMEOUT_S = 15
MAX_EVERY_MIN = 59
"""What cron's minutes can say."""
MARK = "# builder-guard:"


def _mark_of(folder: Path) -> str:
    """The end of the line for the checkout in `folder`."""
    return MARK + hashlib.sha256(str(folder).encode()).hexdigest()[:8]


def cron_line(folder: Path, env_path: Path, log_path: Path, every_min: int, options: Sequence[str]) -> str:
    """A crontab's line that runs the guard every `every_min` minutes (1 to 59); `options` are those of `guard`.

    Its log holds the last run only, so that it does not grow; what was ended stands in `events.jsonl`.

    Raises UsageError for other intervals, and for folders that no crontab can hold.
    """
    _check_every(every_min)
    paths = f"{folder} {env_path} {log_path}"
    if any(ord(character) < 32 for character in paths):
        raise UsageError("a folder with a line break or a tab in its name cannot be in a crontab")
    command = f"cd {shlex.quote(str(folder))} && {shlex.join(_command(env_path, options))}"
    # To cron a bare percent sign is the end of the line.
    command = f"{command} > {shlex.quote(str(log_path))} 2>&1".replace("%", "\\%")
    minutes = "*" if every_min == 1 else f"*/{every_min}"
    return f"{minutes} * * * * {command} {_mark_of(folder)}"


def systemd_units(folder: Path, env_path: Path, every_min: int, options: Sequence[str]) -> dict[str, str]:
    """Names and texts of a user's service and timer that do the same. Raises UsageError as `cron_line`."""
    _check_every(every_min)
    # systemd expands these two itself.
    words = [word.replace("%", "%%").replace("$", "$$") for word in _command(env_path, options)]
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words]
    command = " ".join(f'"{word}"' for word in escaped)
    service = (
        "[Unit]\nDescription=Ends RunPod pods that run for too long\n\n"
        f"[Service]\nType=oneshot\nWorkingDirectory={str(folder).replace('%', '%%')}\nExecStart={command}\n"
    )
    timer = (
        "[Unit]\nDescription=Runs builder-guard.service\n\n"
        f"[Timer]\nOnBootSec=1min\nOnUnitActiveSec={every_min}min\n\n[Install]\nWantedBy=timers.target\n"
    )
    return {"builder-guard.service": service, "builder-guard.timer": timer}


def find_line(crontab: str, folder: Path) -> str | None:
    """The guard's line for `folder`, if there is one."""
    return next((line for line in crontab.split("\n") if line.rstrip().endswith(_mark_of(folder))), None)


def add_line(crontab: str, line: str, folder: Path) -> str:
    """`crontab` with `line` as the only one of the guard for `folder`."""
    kept = remove_line(crontab, folder)
    line_end = "\n" if kept and not kept.endswith("\n") else ""
    return f"{kept}{line_end}{line}\n"


def remove_line(crontab: str, folder: Path) -> str:
    """`crontab` without the guard's line for `folder`; every other line stays as it is."""
    # Not splitlines(), which takes more than cron does for the end of a line.
    return "\n".join(line for line in crontab.split("\n") if not line.rstrip().endswith(_mark_of(folder)))


class Crontab:
    """The user's crontab, by the `crontab` command found in `environ`'s PATH."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._program = shutil.which("crontab", path=environ.get("PATH"))
        self._environ = dict(environ)

    @property
    def is_there(self) -> bool:
        """False if this machine has no such command."""
        return self._program is not None

    def read(self) -> str:
        """Its text; empty if the user has none. Raises BuilderError if it cannot be read."""
        result = self._call("-l")
        if result.returncode == 0:
            return result.stdout.decode("utf-8", "surrogateescape")
        # Anything else must not pass for an empty one: a write would wipe it out.
        if b"no crontab" in result.stderr.lower():
            return ""
        raise BuilderError(f"crontab -l failed: {_last_line(result.stderr)}", hint="see: crontab -l")

    def write(self, text: str) -> None:
        """Replace it. Raises BuilderError."""
        result = self._call("-", text)
        if result.returncode != 0:
            raise BuilderError(f"crontab was not changed: {_last_line(result.stderr)}", hint="see: crontab -l")

    def _call(self, argument: str, text: str = "") -> subprocess.CompletedProcess[bytes]:
        """Bytes in and out: no line end of the user's is to change."""
        if self._program is None:
            raise BuilderError(
                "this machine has no crontab command",
                hint="install cron, or use systemd's timers: python -m builder guard install shows their text",
            )
        try:
            return subprocess.run(
                [self._program, argument],
                input=text.encode("utf-8", "surrogateescape"),
                capture_output=True,
                timeout=CRONTAB_TIMEOUT_S,
                check=False,
                env=self._environ,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuilderError(f"crontab cannot be run: {error}", hint="see: crontab -l") from None


def _command(env_path: Path, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "builder", "guard", "run", "--once", "--quiet", "--env-file", str(env_path), *options]


def _check_every(every_min: int) -> None:
    if not 1 <= every_min <= MAX_EVERY_MIN:
        raise UsageError(f"--every {every_min} is not allowed; legal: 1 to {MAX_EVERY_MIN} minutes")


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "no reason given"


# The verb's actions


def install(run: Runtime, limits: Limits, ending: Ending, every_min: int, *, into_crontab: bool) -> None:
    """Show what makes the guard run by itself; `into_crontab`: put it there. Raises UsageError, BuilderError."""
    folder, env_path = run.folder.resolve(), run.env_path.resolve()
    options = _options(limits, ending)
    line = cron_line(folder, env_path, run.state.folder.resolve() / "guard.log", every_min, options)
    units = systemd_units(folder, env_path, every_min, options)
    _warn_without_key(run, env_path)
    if into_crontab:
        # The shell opens the log before the guard can make its folder.
        run.state.folder.mkdir(parents=True, exist_ok=True)
        crontab = Crontab(run.environ)
        if not crontab.is_there:
            run.console.note(f"the line would be: {line}")
        before = crontab.read()
        after = add_line(before, line, folder)
        if after != before:
            crontab.write(after)
    document = {"installed": into_crontab, "cron": line, "systemd": units, "dry_run": ending == "none"}
    run.console.result(document, lambda: _show_install(run, line, units, ending, into_crontab=into_crontab))


def _warn_without_key(run: Runtime, env_path: Path) -> None:
    """A guard that runs by itself has not the variables of this shell: is there a key without them?"""
    from builder.api.connect import find_key
    from builder.settings import read_settings

    try:
        find_key(
            read_settings({}, run.env_file), {name: run.environ[name] for name in ("HOME",) if name in run.environ}
        )
    except AuthError:
        run.console.warn(f"{env_path} has no RUNPOD_API_KEY, and what cron or systemd runs sees no other; see: setup")


def _show_install(run: Runtime, line: str, units: dict[str, str], ending: Ending, *, into_crontab: bool) -> None:
    console = run.console
    if into_crontab:
        console.line(f"Your crontab has now: {line}")
    else:
        console.line("For cron (this command with --cron adds it to your crontab):")
        console.line(f"\n{line}\n")
        console.line("For systemd, in ~/.config/systemd/user, then: systemctl --user enable --now builder-guard.timer")
        for name, text in units.items():
            console.line(f"\n# {name}\n{text.rstrip()}")
    if ending == "none":
        console.line("\nWithout --kill it only writes into its log what it would stop.")


def show_status(run: Runtime) -> None:
    """Show whether the guard is in the crontab, and when it last looked. Raises BuilderError."""
    crontab = Crontab(run.environ)
    line = find_line(crontab.read(), run.folder.resolve()) if crontab.is_there else None
    memory = run.state.read("guard") or {}
    last_run = memory.get("last_run")
    document = {
        "has_crontab": crontab.is_there,
        "cron": line,
        "last_run": last_run,
        "last_ending": memory.get("ending"),
    }

    def show() -> None:
        where = "not in your crontab" if crontab.is_there else "not in a crontab: this machine has no crontab command"
        run.console.line(f"In your crontab: {line}" if line else f"The guard is {where}.")
        looked_s = unix_s_of(last_run) if isinstance(last_run, str) else None
        ago = "never yet" if looked_s is None else f"{duration_text(run.clock.unix_s() - looked_s)} ago"
        run.console.line(f"A guard last looked: {ago}.")

    run.console.result(document, show)


def remove(run: Runtime) -> None:
    """Take the guard's line out of the crontab; fine if there is none. Raises BuilderError."""
    crontab, folder = Crontab(run.environ), run.folder.resolve()
    before = crontab.read()
    line = find_line(before, folder)
    if line is not None:
        crontab.write(remove_line(before, folder))
    text = "Your crontab had no such line." if line is None else f"Taken out of your crontab: {line}"
    run.console.result({"removed": line}, lambda: run.console.line(text))


def _options(limits: Limits, ending: Ending) -> list[str]:
    """The options of `guard` that say the same."""
    usual = Limits()
    options = {"none": [], "stop": ["--kill"], "terminate": ["--kill", "--terminate"]}[ending]
    for name in ("max_hours", "idle_min", "protect_min"):
        if getattr(limits, name) != getattr(usual, name):
            options += [f"--{name.replace('_', '-')}", f"{getattr(limits, name):g}"]
    return [*options, *(["--all"] if limits.every_pod else [])]
