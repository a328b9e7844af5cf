"""EC2 machines and what belongs to them: what they cost, and what of it nobody remembers. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.instants import duration_text, unix_s_of
from builder.money.orphans import rows_of
from builder.money.prices import Rate
from builder.money.rows import Row

if TYPE_CHECKING:
    from builder.ec2.inventory import Ec2Resource

__all__ = ["aws_rows"]

RUNNING = ("pending", "running")
OVER = ("terminated", "shutting-down")
STAYING_KINDS = ("security group", "key pair")
"""Free, and yet forgotten if their machine is gone."""


def aws_rows(resources: Iterable[Ec2Resource], now_s: float) -> list[Row]:
    """A row for every machine and volume, and for security groups and key pairs of ours without a machine."""
    resources = list(resources)
    machines = {each.name for each in resources if each.kind == "ec2 instance" and each.state not in OVER}
    return rows_of("ec2 instance", resources, lambda each: _row(each, machines, now_s))


def _row(resource: Ec2Resource, machines: set[str], now_s: float) -> Row | None:
    if resource.kind == "ec2 instance" and resource.state in OVER:
        return None
    has_machine = resource.name in machines
    if resource.kind in STAYING_KINDS and has_machine:
        return None
    return Row(
        kind=resource.kind,
        id=resource.id,
        name=resource.name,
        status=f"{resource.state} ({resource.region})" if resource.state else resource.region,
        rate=_rate(resource),
        command=_command(resource),
        is_ours=resource.is_ours,
        reasons=tuple(_reasons(resource, now_s, has_machine=has_machine)),
        notes=() if resource.is_ours else ("not made by the builder",),
        since_s=unix_s_of(resource.created_at),
    )


def _rate(resource: Ec2Resource) -> Rate:
    if resource.kind == "ec2 instance":
        return Rate(resource.price_per_h if resource.state in RUNNING else 0.0, 0.0)
    if resource.kind == "ec2 volume":
        return Rate(0.0, resource.price_per_h or 0.0)
    return Rate(0.0, 0.0)


def _reasons(resource: Ec2Resource, now_s: float, *, has_machine: bool) -> Iterable[str]:
    if not resource.is_ours:
        return
    end_s = unix_s_of(resource.deadline)
    if resource.kind == "ec2 instance" and end_s is not None and end_s < now_s:
        yield f"runs {duration_text(now_s - end_s)} past its deadline"
    if resource.kind == "ec2 instance" and not resource.recorded:
        yield "made by the builder, but not recorded here"
    if resource.kind != "ec2 instance" and not has_machine:
        yield "its machine is gone"


def _command(resource: Ec2Resource) -> str:
    if resource.is_ours:
        return f"python -m builder ec2 terminate {shlex.quote(resource.name or resource.id)}"
    place = f"--region {shlex.quote(resource.region)}"
    if resource.kind == "ec2 volume":
        return f"aws ec2 delete-volume {place} --volume-id {shlex.quote(resource.id)}"
    return f"aws ec2 terminate-instances {place} --instance-ids {shlex.quote(resource.id)}"
