"""The guard's look at EC2: machines of ours past their deadline, which should have ended themselves, are ended.

A machine has a timer inside and one on the computer that launched it; this is the third, for when both failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError
from builder.instants import duration_text, unix_s_of
from builder.money.aws_rows import RUNNING
from builder.money.check_all import why_no_aws

if TYPE_CHECKING:
    from builder.ec2.inventory import Ec2Resource
    from builder.runtime import Runtime

__all__ = ["Overdue", "end_overdue"]


@dataclass(frozen=True)
class Overdue:
    """One machine past its deadline; `problem` says why it could not be ended, or that EC2 could not be looked at."""

    name: str
    instance_id: str
    late_s: float
    is_ended: bool = False
    problem: str | None = None

    @property
    def text(self) -> str:
        """For people."""
        if self.problem:
            return f"EC2 {self.name}: {self.problem}"
        return f"EC2 machine {self.name} ({self.instance_id}): {duration_text(self.late_s)} past its deadline, " + (
            "terminated" if self.is_ended else "and runs"
        )

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "instance_id": self.instance_id,
            "late_s": round(self.late_s),
            "done": "terminated" if self.is_ended else None,
            "problem": self.problem,
        }


def end_overdue(run: Runtime, *, ends: bool) -> tuple[Overdue, ...]:
    """Machines of ours past their deadline, ended if `ends`; nothing where nobody uses EC2."""
    if why_no_aws(run) is not None:
        return ()
    from builder.ec2.inventory import our_resources

    now_s = run.clock.unix_s()
    try:
        resources = our_resources(run)
    except BuilderError as error:
        return (Overdue("machines", "", 0.0, problem=f"cannot be looked at: {error}"),)
    return tuple(_ended(run, each, now_s, ends=ends) for each in resources if _is_late(each, now_s))


def _is_late(resource: Ec2Resource, now_s: float) -> bool:
    end_s = unix_s_of(resource.deadline)
    is_machine = resource.kind == "ec2 instance" and resource.state in RUNNING
    return resource.is_ours and is_machine and end_s is not None and end_s < now_s


def _ended(run: Runtime, resource: Ec2Resource, now_s: float, *, ends: bool) -> Overdue:
    from builder.ec2.terminate import terminate

    late = Overdue(resource.name, resource.id, now_s - (unix_s_of(resource.deadline) or now_s))
    if not ends:
        return late
    try:
        terminate(run, resource.name, all_mine=False, yes=True)
    except BuilderError as error:
        return Overdue(late.name, late.instance_id, late.late_s, problem=str(error))
    return Overdue(late.name, late.instance_id, late.late_s, is_ended=True)
