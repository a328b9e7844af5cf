"""`ec2 logs`: what the container says, or the machine itself while it boots."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from builder.ec2.machine import Machine, read_machine, with_address
from builder.ec2.remote_docker import RemoteDocker
from builder.ec2.ssh import Ssh, connect_ssh, last_line
from builder.errors import BuilderError, SshError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["CONTAINER", "boot_lines", "container_lines", "container_tail"]

CONTAINER = "whisper"
"""Name of the one container that `ec2 run` starts."""
LIMIT_S = 120.0
FOLLOW_LIMIT_S = 86_400.0
TAIL_ON_FAILURE = 30
MAX_CONSOLE_CHARS = 1_000_000
BOOT_LOG = "/var/log/cloud-init-output.log"
_BOOT = f'log="${{BUILDER_ROOT:-}}{BOOT_LOG}"; tail -n "$1" "$log" 2>/dev/null || sudo -n tail -n "$1" "$log"'


def container_lines(
    run: Runtime, say: Callable[[str], None], *, tail: int, is_endless: bool, config: Path | None = None
) -> None:
    """Pass on the container's last `tail` lines, and with `is_endless` all that follow until Ctrl-C.

    Raises NotFoundError without machine or container, SshError.
    """
    ssh = connect_ssh(run, with_address(run, read_machine(run)), config)
    # So that complaints of ssh and docker are not taken for lines of the log.
    RemoteDocker(run, ssh).state(CONTAINER)
    command = ["docker", "logs", "--tail", str(tail), *(["--follow"] if is_endless else []), CONTAINER]
    done = ssh.run(command, limit_s=FOLLOW_LIMIT_S if is_endless else LIMIT_S, say=say)
    if done.code:
        raise SshError(f"docker logs on {ssh.machine.instance_id} failed: {last_line(done)}")


def container_tail(ssh: Ssh, lines: int = TAIL_ON_FAILURE) -> list[str]:
    """The container's last lines, for the report of a failure; what hinders to get them instead."""
    try:
        return list(ssh.run(("docker", "logs", "--tail", str(lines), CONTAINER)).lines)
    except SshError as error:
        return [str(error)]


def boot_lines(run: Runtime, say: Callable[[str], None], *, tail: int, config: Path | None = None) -> None:
    """Pass on the last `tail` lines of the first boot: by SSH, and where that is not possible from AWS's console.

    AWS's copy of the console (EC2 GetConsoleOutput) may be minutes old. Raises NotFoundError without a machine,
    and what AWS raises.
    """
    machine = read_machine(run)
    try:
        machine = with_address(run, machine)
        lines: list[str] = []
        command = ("sh", "-c", _BOOT, "sh", str(tail))
        done = connect_ssh(run, machine, config).run(command, limit_s=LIMIT_S, say=lines.append)
        if done.code == 0:
            for line in lines:
                say(line)
            return
        why = last_line(done)
    except SshError as error:
        why = str(error)
    run.console.note(f"{why}; what AWS's console holds:")
    lines = _console(run, machine)
    if not lines:
        raise BuilderError("AWS has no console output yet", hint="try again in some minutes")
    for line in lines[-tail:] if tail else ():
        say(run.redactor.clean(line))


def _console(run: Runtime, machine: Machine) -> list[str]:
    from builder.aws.session import Aws

    output = Aws(run, machine.region).call("GetConsoleOutput", InstanceId=machine.instance_id).get("Output") or ""
    try:
        # boto3 decodes it; a copy that is still encoded is taken as well.
        text = base64.b64decode(output, validate=True).decode("utf-8", "replace") if output else ""
    except (binascii.Error, ValueError):
        text = str(output)
    return [line.rstrip() for line in text[-MAX_CONSOLE_CHARS:].splitlines() if line.strip()]
