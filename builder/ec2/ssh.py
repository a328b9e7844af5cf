"""SSH to the EC2 machine, by OpenSSH's client as a child process.

Commands are lists: the remote shell gets them quoted. What is secret goes in by standard input, never by an argument,
which others on either machine could read. The machine's key is taken on at first sight and must stay the same after.
Nothing is asked of the user, and every command has a limit on its time and its output (`builder.child`).
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from builder.child import Finished, run_child
from builder.clock import SystemClock
from builder.errors import SshError, UsageError
from builder.settings import ROWS

if TYPE_CHECKING:
    from builder.ec2.machine import Machine
    from builder.runtime import Runtime

__all__ = ["Ssh", "SshLateError", "connect_ssh", "last_line", "ssh_error"]

CONNECT_S = 10
ALIVE_INTERVAL_S, ALIVE_COUNT = 15, 4
"""A machine that was taken away ends a connection within a minute."""
COMMAND_LIMIT_S = 60.0
FORWARD_LIMIT_S = 20.0
FORWARD_LOOK_S = 0.05
END_LIMIT_S = 5.0
MAX_SAID = 65_536
EXIT_SSH = 255
"""What the client itself failed with; other codes are the command's."""
_MAX_SHOWN = 300
_REAL = SystemClock()
"""Sockets wait in real time, also where the rest lives in a test's."""
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its host key is not the one that was seen before: another machine, or somebody in between",
        "if AWS gave its address to another machine, start anew: python -m builder ec2 terminate, ec2 launch; "
        "else trust it by removing {known_hosts}",
    ),
    (
        r"System is going down|shut ?down.*not permitted to log in",
        "its time is nearly up: in its last five minutes it lets nobody in",
        "launch another: python -m builder ec2 terminate, then ec2 launch --max-minutes ...",
    ),
    (
        r"Permission denied",
        "it refuses our key",
        "is {key} the key it was launched with? While it boots this may happen: python -m builder ec2 wait",
    ),
    (
        r"Connection refused",
        "nothing listens for SSH there, yet or any more",
        "wait for it: python -m builder ec2 wait",
    ),
    (
        r"Connection timed out|Operation timed out|timed out during banner|No route to host|not responding",
        "it does not answer",
        "its security group lets in the address that launched it: after a change of network, launch again; see "
        "python -m builder ec2 status",
    ),
    (r"Could not resolve hostname", "its name cannot be resolved", "check the network, and --ssh-config"),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        "the client finds its key file open to others",
        "correct it: chmod 600 {key}",
    ),
    (r"Can't open user config file", "the file of --ssh-config cannot be read", "check its name"),
)


class SshLateError(SshError):
    """A command was not done in time; it may go on there."""


class Ssh:
    """The way to one machine. `config` is given to the client as its configuration, for jump hosts."""

    def __init__(self, run: Runtime, machine: Machine, host: str, config: Path | None = None) -> None:
        self.machine, self.host = machine, host
        secret = {row.env for row in ROWS if row.is_secret}
        self.environ = {name: value for name, value in run.environ.items() if name not in secret}
        program = shutil.which("ssh", path=self.environ.get("PATH", ""))
        if program is None:
            raise SshError("there is no ssh client here", hint="install OpenSSH's (package openssh-client)")
        if config is not None and not (run.folder / config).is_file():
            raise UsageError(f"--ssh-config {config}: no such file")
        self._program, self._clean = program, run.redactor.clean
        self._config = None if config is None else run.folder / config

    def line(self, command: Sequence[str] = (), *, extra: Sequence[str] = ()) -> list[str]:
        """The client's command line; `command` is quoted for the shell of the machine, `extra` are options."""
        machine = self.machine
        options = {
            # As options, not as -i: there alone a name may hold blanks and % signs.
            "IdentityFile": _quoted_path(machine.key_path),
            "UserKnownHostsFile": _quoted_path(machine.known_hosts_path),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new",
            "ConnectTimeout": str(CONNECT_S),
            "ServerAliveInterval": str(ALIVE_INTERVAL_S),
            "ServerAliveCountMax": str(ALIVE_COUNT),
            "LogLevel": "ERROR",
        }
        line = [self._program]
        if self._config is not None:
            line += ["-F", str(self._config)]
        for name, value in options.items():
            line += ["-o", f"{name}={value}"]
        line += [*extra, "-l", machine.ssh_user, "--", self.host]
        return [*line, shlex.join(command)] if command else line

    def run(
        self,
        command: Sequence[str],
        *,
        limit_s: float = COMMAND_LIMIT_S,
        stdin: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> Finished:
        """Run `command` there, whatever its exit code; `stdin` is what it reads.

        Raises SshError if the machine cannot be reached, SshLateError if it is not done in `limit_s` real seconds.
        """
        try:
            done = run_child(
                self.line(command),
                environ=self.environ,
                limit_s=limit_s,
                stdin=stdin,
                say=say,
                clean=self._clean,
            )
        except OSError as error:
            raise SshError(f"{self._program} cannot be started: {error.strerror}") from None
        if done.timed_out:
            raise SshLateError(f"ssh to {self.machine.instance_id}: the command was not done in {limit_s:g} s")
        if done.code == EXIT_SSH:
            raise ssh_error(self.machine, done)
        return done

    @contextmanager
    def forward(self, *ports: int) -> Iterator[list[int]]:
        """Ports of this machine that lead to `ports` of the other's loopback, as long as it lasts. Raises SshError."""
        own = [_free_port() for _ in ports]
        extra = ["-N", "-o", "ExitOnForwardFailure=yes"]
        for mine, port in zip(own, ports, strict=True):
            extra += ["-L", f"127.0.0.1:{mine}:127.0.0.1:{port}"]
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
            try:
                process = subprocess.Popen(
                    self.line(extra=extra),
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                raise SshError(f"{self._program} cannot be started: {error.strerror}") from None
            try:
                if not _opens(process, own):
                    said.seek(0)
                    lines = (self._clean(line.rstrip()) for line in said.read(MAX_SAID).splitlines())
                    raise ssh_error(self.machine, Finished(EXIT_SSH, tuple(line for line in lines if line)))
                yield own
            finally:
                _end(process)


def connect_ssh(run: Runtime, machine: Machine, config: Path | None = None) -> Ssh:
    """The way to `machine`. Raises SshError without a client, key or address, UsageError for a bad `config`."""
    if not machine.key_path.is_file():
        raise SshError(
            f"{machine.key_path} is not there: without the key nobody gets into {machine.instance_id}",
            hint="end it, and start another: python -m builder ec2 terminate, then ec2 launch",
        )
    if machine.public_ip is None:
        raise SshError(f"{machine.instance_id} has no public address", hint="wait for it: python -m builder ec2 wait")
    return Ssh(run, machine, machine.public_ip, config)


def ssh_error(machine: Machine, done: Finished) -> SshError:
    """The error for a client that failed, with its reason and what to do."""
    known: Mapping[str, object] = {"key": machine.key_path, "known_hosts": machine.known_hosts_path}
    for pattern, reason, hint in _REASONS:
        if re.search(pattern, done.text, re.IGNORECASE):
            return SshError(f"ssh to {machine.instance_id}: {reason} ({last_line(done)})", hint=hint.format_map(known))
    return SshError(
        f"ssh to {machine.instance_id} failed: {last_line(done)}", hint="see it: python -m builder ec2 status"
    )


def last_line(done: Finished) -> str:
    """The last thing that was said, cut."""
    line = done.lines[-1].strip() if done.lines else "it says nothing"
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 3] + "..."


def _quoted_path(path: Path) -> str:
    escaped = str(path.absolute()).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _opens(process: subprocess.Popen[bytes], ports: Sequence[int]) -> bool:
    """Wait until all `ports` take connections; False if the client ended, or time is up."""
    ends_s = _REAL.monotonic_s() + FORWARD_LIMIT_S
    for port in ports:
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                break
            if process.poll() is not None or _REAL.monotonic_s() > ends_s:
                return False
            _REAL.sleep(FORWARD_LOOK_S)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(END_LIMIT_S)
