"""`ec2 wait`: until the machine can run images on its GPU.

From AWS's word that it runs, over an answer of SSH and the end of its first-boot script, to a container that sees the
GPU. A machine that is gone, or whose script failed, ends the wait at once; when time is up the machine is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.aws.session import Aws
from builder.ec2.machine import TERMINATE, Machine, describe, read_machine, told_if_interrupted, with_address
from builder.ec2.ssh import connect_ssh, last_line
from builder.ec2.user_data import FAILED_FILE, READY_FILE
from builder.errors import (
    AwsError,
    BuilderError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    SshError,
    WaitTimeoutError,
)
from builder.instants import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.ec2.ssh import Ssh
    from builder.runtime import Runtime

__all__ = ["DEFAULT_TIMEOUT_S", "RUNGS", "Waited", "raise_if_unprepared", "wait_for_machine"]

DEFAULT_TIMEOUT_S = 600.0
RUNGS = ("running", "ssh", "prepared", "gpu")
POLL_S = 5.0
NEW_LAG_S = 120.0
"""AWS may not yet know a machine that it made so short a time ago."""
GPU_LIMIT_S = 300.0
"""The first container pulls its image."""
GPU_IMAGE = "ubuntu:24.04"
"""Small; the toolkit of the GPU puts nvidia-smi into any container."""
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
_OVER = ("shutting-down", "terminated", "stopping", "stopped")
_MAX_SHOWN = 300
EXIT_FAILED = 3
MARKERS = f"""root="${{BUILDER_ROOT:-}}"
if [ -e "$root{FAILED_FILE}" ]; then head -c 1000 "$root{FAILED_FILE}"; exit {EXIT_FAILED}; fi
[ -e "$root{READY_FILE}" ]"""
"""Which of the files of the first-boot script is there?"""


@dataclass
class Waited:
    """How far it got: seconds since the wait began for each rung, and the GPU's name."""

    machine: Machine
    rungs: dict[str, float] = field(default_factory=dict)
    gpu: str | None = None

    @property
    def missing(self) -> str | None:
        """The first rung that is not reached."""
        return next((rung for rung in RUNGS if rung not in self.rungs), None)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "instance_id": self.machine.instance_id,
            "public_ip": self.machine.public_ip,
            "gpu": self.gpu,
            "rungs": {rung: round(seconds, 1) for rung, seconds in self.rungs.items()},
            "price_per_h": self.machine.price_per_h,
            "deadline": self.machine.deadline,
        }


def wait_for_machine(run: Runtime, *, timeout_s: float, config: Path | None = None) -> Waited:
    """Wait, at most `timeout_s` seconds.

    Raises NotFoundError without a machine, AwsError if it is gone, SshError if its script failed or it refuses us for
    good, AuthError of AWS, and WaitTimeoutError: the machine is kept.
    """
    machine = read_machine(run)
    with told_if_interrupted(run, machine):
        return _Wait(run, machine, timeout_s, config).until_done()


def raise_if_unprepared(ssh: Ssh) -> None:
    """Raises SshError if the machine's first-boot script failed, or is not done."""
    if not _is_prepared(ssh):
        raise SshError(
            f"{ssh.machine.instance_id} is not prepared yet: its first-boot script is at work",
            hint="wait for it: python -m builder ec2 wait",
        )


class _Wait:
    def __init__(self, run: Runtime, machine: Machine, timeout_s: float, config: Path | None) -> None:
        self._run, self._timeout_s, self._config = run, timeout_s, config
        self._aws = Aws(run, machine.region)
        self._began_s = run.clock.monotonic_s()
        self._reached = Waited(machine)
        self._why = ""
        self._is_aws_mute = False

    def until_done(self) -> Waited:
        steps: Mapping[str, Callable[[], bool]] = {
            "running": self._runs,
            "ssh": self._answers,
            "prepared": self._is_prepared,
            "gpu": self._has_gpu,
        }
        with self._run.console.task(f"EC2 machine {self._reached.machine.instance_id}") as task:
            while (rung := self._reached.missing) is not None:
                if steps[rung]():
                    self._reached.rungs[rung] = self._elapsed_s()
                    self._why = ""
                    after, limit = duration_text(self._elapsed_s()), duration_text(self._timeout_s)
                    task.update(f"{rung} after {after} of {limit}")
                    continue
                left_s = self._timeout_s - self._elapsed_s()
                if left_s <= 0:
                    raise self._too_late(rung)
                if self._why:
                    task.update(f"{rung} is missing: {self._why}")
                self._run.clock.sleep(min(left_s, POLL_S))
        return self._reached

    def _elapsed_s(self) -> float:
        return self._run.clock.monotonic_s() - self._began_s

    def _runs(self) -> bool:
        found = self._look_at_aws()
        if found is None:
            # AWS does not tell; where the address is known, the machine itself may.
            return self._is_aws_mute and self._reached.machine.public_ip is not None
        state = _state(found)
        self._why = f"AWS says {state}"
        if state != "running":
            return False
        self._reached.machine = with_address(self._run, self._reached.machine, found)
        if self._reached.machine.public_ip is None:
            self._why = "it has no public address"
            return False
        return True

    def _answers(self) -> bool:
        try:
            return self._ssh().run(("true",)).code == 0
        except SshError as error:
            if "host key" in str(error):
                raise
            self._why = str(error)
            # A spot machine may be taken away again before it ever answers.
            self._look_at_aws()
            return False

    def _is_prepared(self) -> bool:
        return self._tried(lambda: _is_prepared(self._ssh()), "its first-boot script is at work")

    def _has_gpu(self) -> bool:
        return self._tried(self._ask_gpu, "no container sees the GPU")

    def _ask_gpu(self) -> bool:
        ssh = self._ssh()
        done = ssh.run(("docker", "run", "--rm", "--gpus", "all", GPU_IMAGE, *QUERY), limit_s=GPU_LIMIT_S)
        if done.code:
            self._why = f"no container sees the GPU: {last_line(done)}"
            return False
        self._reached.gpu = last_line(done)
        return True

    def _tried(self, look: Callable[[], bool], otherwise: str) -> bool:
        """What `look` finds; a connection that fails now and then is no end, a machine that is gone is."""
        self._why = otherwise
        try:
            return look()
        except SetupFailedError:
            raise
        except SshError as error:
            self._why = str(error)
            self._look_at_aws()
            return False

    def _ssh(self) -> Ssh:
        return connect_ssh(self._run, self._reached.machine, self._config)

    def _look_at_aws(self) -> Mapping[str, Any] | None:
        """AWS's description; None if it does not answer. Raises AwsError if the machine is gone."""
        machine = self._reached.machine
        if self._is_aws_mute:
            return None
        try:
            found = describe(self._run, machine, self._aws)
        except NotFoundError:
            age_s = machine.age_s(self._run.clock.unix_s())
            if age_s is not None and age_s < NEW_LAG_S:
                self._why = "AWS does not show it yet"
                return None
            raise AwsError(
                f"there is no EC2 machine {machine.instance_id} any more",
                hint="forget it: python -m builder ec2 terminate; start another: python -m builder ec2 launch",
            ) from None
        except (NetworkError, RateLimitedError) as error:
            self._why = str(error)
            return None
        except BuilderError as error:
            if machine.public_ip is None:
                raise
            self._run.console.warn(f"AWS does not tell the machine's state: {error}")
            self._is_aws_mute = True
            return None
        if _state(found) in _OVER:
            raise _over(machine, found)
        return found

    def _too_late(self, rung: str) -> WaitTimeoutError:
        machine, why = self._reached.machine, f" ({self._why})" if self._why else ""
        return WaitTimeoutError(
            f"EC2 machine {machine.instance_id} is not ready after {duration_text(self._timeout_s)}: {rung} is "
            f"missing{why}; the machine is kept and billed, {machine.price}",
            hint=f"wait on: python -m builder ec2 wait; look: python -m builder ec2 logs --boot; end it: {TERMINATE}",
        )


class SetupFailedError(SshError):
    """The machine's first-boot script failed: it will never be ready."""


def _is_prepared(ssh: Ssh) -> bool:
    """Is the first-boot script done? Raises SetupFailedError with its words, SshError."""
    done = ssh.run(("sh", "-c", MARKERS))
    if done.code == EXIT_FAILED:
        raise SetupFailedError(
            f"the first-boot script of {ssh.machine.instance_id} failed: {last_line(done)}; it is kept and billed, "
            f"{ssh.machine.price}",
            hint=f"look: python -m builder ec2 logs --boot; end it: {TERMINATE}",
        )
    return done.code == 0


def _state(found: Mapping[str, Any]) -> str:
    state = found.get("State")
    return str(state.get("Name")) if isinstance(state, Mapping) else "nothing"


def _over(machine: Machine, found: Mapping[str, Any]) -> AwsError:
    reason = found.get("StateReason")
    said = reason.get("Message") if isinstance(reason, Mapping) else found.get("StateTransitionReason")
    why = f": {str(said)[:_MAX_SHOWN]}" if said else ""
    return AwsError(
        f"EC2 machine {machine.instance_id} is {_state(found)}{why}",
        hint=f"remove what is left of it: {TERMINATE}; start another: python -m builder ec2 launch",
    )
