"""The EC2 machine that `ec2 launch` made, as `ec2.json` has it, and what AWS says of it now."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import ConflictError, InterruptError, NotFoundError, SshError, UsageError
from builder.instants import duration_text, unix_s_of
from builder.money.prices import dollars

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = ["STATE", "TERMINATE", "Machine", "describe", "read_machine", "told_if_interrupted", "with_address"]

STATE = "ec2"
"""The document's name."""
TERMINATE = "python -m builder ec2 terminate"
CHECK_ALL = "python -m builder check-all"
AGAIN = "for more time: python -m builder ec2 terminate, then ec2 launch --max-minutes ..."
LOOK = "look whether it did: python -m builder ec2 status"
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Machine:
    """What is recorded; `public_ip` None: it had none yet; `price_per_h` in $/h, None: not known."""

    instance_id: str
    name: str
    instance_type: str
    region: str
    public_ip: str | None
    key_path: Path
    known_hosts_path: Path
    ssh_user: str
    created_at: str | None = None
    deadline: str | None = None
    price_per_h: float | None = None

    @property
    def price(self) -> str:
        """`$0.53/h`, or that it is not known."""
        return "at a price that is not known" if self.price_per_h is None else f"{dollars(self.price_per_h)}/h"

    def age_s(self, now_s: float) -> float | None:
        """Seconds since it was launched."""
        created_s = unix_s_of(self.created_at)
        return None if created_s is None else now_s - created_s

    def is_over_time(self, now_s: float) -> bool:
        """True after its deadline: it should be gone."""
        ends_s = unix_s_of(self.deadline)
        return ends_s is not None and now_s > ends_s

    def cost_line(self, now_s: float) -> str:
        """That it is billed, until when, and how to end it."""
        ends_s = unix_s_of(self.deadline)
        if self.is_over_time(now_s):
            return f"{self.instance_id} ({self.instance_type}) was to end by itself at {self.deadline}; {LOOK}"
        left = "" if ends_s is None else f", ends by itself in {duration_text(ends_s - now_s)}"
        return f"{self.instance_id} ({self.instance_type}) runs and is billed, {self.price}{left}; end it: {TERMINATE}"


def read_machine(run: Runtime) -> Machine:
    """The machine in `ec2.json`. Raises NotFoundError if there is none, ConflictError if it cannot be read."""
    path = run.state.folder / f"{STATE}.json"
    if run.state.is_damaged(STATE):
        raise ConflictError(f"{path} is damaged", hint=f"see what runs, then remove it: {CHECK_ALL}")
    record = run.state.read(STATE)
    if record is None:
        raise NotFoundError("there is no EC2 machine", hint="start one: python -m builder ec2 launch")
    try:
        return _machine(record, run.folder)
    except (KeyError, TypeError, ValueError):
        raise ConflictError(
            f"{path} does not tell which machine there is",
            hint=f"see what runs: {CHECK_ALL}",
        ) from None


def describe(run: Runtime, machine: Machine, aws: Aws | None = None) -> Mapping[str, Any]:
    """AWS's description (EC2 DescribeInstances). Raises NotFoundError, AuthError, NetworkError, AwsError."""
    from builder.aws.session import Aws

    answer = (aws or Aws(run, machine.region)).call("DescribeInstances", InstanceIds=[machine.instance_id])
    for reservation in answer.get("Reservations", []):
        for found in reservation.get("Instances", []):
            return dict(found)
    raise NotFoundError(f"AWS knows no machine {machine.instance_id} in {machine.region}")


def with_address(run: Runtime, machine: Machine, found: Mapping[str, Any] | None = None) -> Machine:
    """The machine with its public address, asked of AWS (or from `found`) and recorded if it was not known.

    Raises what `describe` raises.
    """
    if machine.public_ip is not None:
        return machine
    address = (describe(run, machine) if found is None else found).get("PublicIpAddress")
    if not address:
        return machine
    if not _ADDRESS.fullmatch(str(address)):
        raise UsageError(f"AWS names an address that is none: {str(address)[:60]!r}")
    record = run.state.read(STATE)
    if record is not None and record.get("instance_id") == machine.instance_id:
        run.state.write(STATE, {**record, "public_ip": address})
    return replace(machine, public_ip=str(address))


@contextmanager
def told_if_interrupted(run: Runtime, machine: Machine) -> Iterator[None]:
    """What is interrupted inside ends with a line that says what is still billed; what fails after the machine's time
    was up says that. Raises InterruptError, SshError."""
    try:
        yield
    except SshError as error:
        if not machine.is_over_time(run.clock.unix_s()):
            raise
        raise SshError(f"{error}; {machine.cost_line(run.clock.unix_s())}", hint=AGAIN) from None
    except KeyboardInterrupt:
        raise InterruptError(f"interrupted; {machine.cost_line(run.clock.unix_s())}", hint="") from None


def _machine(record: Mapping[str, Any], folder: Path) -> Machine:
    """Raises KeyError, TypeError, ValueError."""
    address, price = record.get("public_ip"), record.get("price_per_h")
    user = str(record["ssh_user"])
    # They stand on a command line.
    if not _USER.fullmatch(user) or (address and not _ADDRESS.fullmatch(str(address))):
        raise ValueError
    return Machine(
        instance_id=str(record["instance_id"]),
        name=str(record.get("name") or ""),
        instance_type=str(record.get("instance_type") or "?"),
        region=str(record["region"]),
        public_ip=str(address) if address else None,
        key_path=folder / str(record["key_path"]),
        known_hosts_path=folder / str(record["known_hosts_path"]),
        ssh_user=user,
        created_at=record.get("created_at"),
        deadline=record.get("deadline"),
        price_per_h=None if price is None else float(price),
    )
