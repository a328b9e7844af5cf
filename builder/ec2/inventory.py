"""What of EC2 costs money or was left behind, for `check-all`: ours by its tags, and GPU machines of others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.ec2.prices import disk_per_h, on_demand_per_h
from builder.ec2.resources import (
    DEADLINE_TAG,
    OVER_STATES,
    PRICE_TAG,
    Found,
    Kind,
    all_instances,
    find_ours,
    region_of,
)
from builder.ec2.terminate import RECORD
from builder.instants import unix_s_of
from builder.state import iso_time

if TYPE_CHECKING:
    from datetime import datetime

    from builder.runtime import Runtime

__all__ = ["Ec2Resource", "our_resources"]

_GPU_FAMILY = re.compile(r"(g\d|p\d)")


@dataclass(frozen=True)
class Ec2Resource:
    """One thing at EC2; `price_per_h` in $/h, None: not known; `recorded`: this folder's `ec2.json` or
    `pending-ec2.json` names it."""

    kind: Kind
    id: str
    name: str
    region: str
    state: str
    price_per_h: float | None
    created_at: str | None
    deadline: str | None
    is_ours: bool
    recorded: bool


def our_resources(run: Runtime) -> list[Ec2Resource]:
    """All that is ours, and GPU machines of others that are not over, in the configured region and in those of what
    is recorded or begun here.

    Machines that are over are left out. Raises AuthError without credentials, NotAvailableError without boto3, and
    what EC2's Describe operations raise.
    """
    from builder.aws.session import Aws

    record = run.state.read(RECORD) or {}
    names = {str(record.get("name")), *run.state.pending("pending-ec2")}
    regions = [run.settings.aws_region, str(record.get("region") or ""), *(region_of(name) or "" for name in names)]
    found: list[Ec2Resource] = []
    for region in dict.fromkeys(filter(None, regions)):
        aws = Aws(run, region)
        ours = [each for each in find_ours(aws) if each.state not in OVER_STATES]
        others = [
            each
            for each in all_instances(aws)
            if each not in ours and _GPU_FAMILY.match(str(each.raw.get("InstanceType")))
        ]
        found += [_resource(region, each, is_ours=each in ours, names=names) for each in [*ours, *others]]
    return found


def _resource(region: str, found: Found, *, is_ours: bool, names: set[str]) -> Ec2Resource:
    made: datetime | None = found.raw.get("LaunchTime") or found.raw.get("CreateTime")
    deadline = found.tags.get(DEADLINE_TAG)
    return Ec2Resource(
        kind=found.kind,
        id=found.id,
        name=found.name,
        region=region,
        state=found.state,
        price_per_h=_price(region, found),
        created_at=None if made is None else iso_time(made.timestamp()),
        deadline=deadline if unix_s_of(deadline) is not None else None,
        is_ours=is_ours,
        recorded=is_ours and found.name in names,
    )


def _price(region: str, found: Found) -> float | None:
    if found.kind == "ec2 volume":
        return disk_per_h(float(found.raw.get("Size") or 0))
    if found.kind != "ec2 instance" or found.state in ("stopped", "stopping"):
        return 0.0
    try:
        return float(found.tags[PRICE_TAG])
    except (KeyError, ValueError):
        is_spot = found.raw.get("InstanceLifecycle") == "spot"
        return None if is_spot else on_demand_per_h(str(found.raw.get("InstanceType")), region).per_h
