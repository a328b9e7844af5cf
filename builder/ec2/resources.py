"""What is ours at EC2: found by its tags, and ended in the order that AWS wants.

A machine, its security group, its key pair and its disk carry the same unique name in the tag `builder-name`. The
name holds the region, so that a name alone tells where to look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builder.deploy.create import LOOKS_S
from builder.errors import BuilderError, ConflictError, NotFoundError

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = [
    "DEADLINE_TAG",
    "ID_TAG",
    "LOOKS_S",
    "NAME_TAG",
    "OVER_STATES",
    "PRICE_TAG",
    "Ended",
    "Found",
    "all_instances",
    "end_found",
    "find_instance",
    "find_named",
    "find_ours",
    "instance_of",
    "local_files",
    "region_of",
    "tags_of",
]

ID_TAG, NAME_TAG, DEADLINE_TAG, PRICE_TAG = "builder-id", "builder-name", "builder-deadline", "builder-price"
YOUNG_S = 60.0
"""What was made so short a time ago may not show yet."""
TERMINATED_LIMIT_S, TERMINATED_EVERY_S = 600.0, 5.0
GROUP_LIMIT_S, GROUP_EVERY_S = 60.0, 5.0
"""A group is in use for a while after its machine is gone."""
OVER_STATES = ("shutting-down", "terminated")
"""States of a machine that is billed no more."""
_REGION = re.compile(r"-([a-z]{2}(?:-[a-z]+)+-\d+)-\d{4}-[0-9a-f]+$")

Kind = Literal["ec2 instance", "security group", "key pair", "ec2 volume"]
ORDER: tuple[Kind, ...] = ("ec2 instance", "security group", "key pair", "ec2 volume")
"""Of ending: a group cannot go before its machine, and a disk goes with it."""


@dataclass(frozen=True)
class Found:
    """One resource as AWS shows it; `raw` is all that it says. `is_young`: it may not show everywhere yet."""

    kind: Kind
    id: str
    name: str = field(compare=False)
    state: str = field(compare=False)
    raw: dict[str, Any] = field(default_factory=dict, compare=False)
    is_young: bool = field(default=False, compare=False)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return tags_of(self.raw)

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass
class Ended:
    """Resources that are gone, and those that are left, with the reason."""

    gone: list[Found] = field(default_factory=list)
    left: dict[Found, BuilderError] = field(default_factory=dict)


def tags_of(raw: dict[str, Any]) -> dict[str, str]:
    """The tags of a resource as a mapping."""
    return {str(each.get("Key")): str(each.get("Value", "")) for each in raw.get("Tags", [])}


def region_of(name: str) -> str | None:
    """The region that a unique name of ours holds."""
    match = _REGION.search(name)
    return match.group(1) if match else None


def local_files(run: Runtime, name: str) -> tuple[Path, ...]:
    """What this machine keeps for it: private key, known hosts, log of the outside timer."""
    folder = run.state.folder / "ec2"
    return folder / f"{name}.pem", folder / f"{name}.known_hosts", folder / f"{name}.timer.log"


def find_named(aws: Aws, name: str) -> list[Found]:
    """Everything of this unique name that is there, in the order of ending. Raises what AWS raises."""
    return _ours(_all_of(aws, f"tag:{NAME_TAG}", name))


def find_ours(aws: Aws) -> list[Found]:
    """Everything of ours in the region, in the order of ending. Raises what AWS raises."""
    return _ours(_all_of(aws, "tag-key", ID_TAG))


def _ours(found: Iterable[Found]) -> list[Found]:
    """Those with both tags, in the order of ending: others may use one of these words for things of their own."""
    ours = [each for each in found if each.tags.get(ID_TAG) and each.tags.get(NAME_TAG)]
    return sorted(ours, key=lambda each: ORDER.index(each.kind))


def _all_of(aws: Aws, filter_name: str, value: str) -> Iterator[Found]:
    filters = [{"Name": filter_name, "Values": [value]}]
    for raw in _instances(aws, Filters=filters):
        # One that shuts down is billed no more, but its group must wait for it.
        if raw["State"]["Name"] != "terminated":
            yield instance_of(raw)
    for raw in aws.pages("DescribeSecurityGroups", "SecurityGroups", Filters=filters):
        yield Found("security group", str(raw["GroupId"]), _name_of(raw), "", raw)
    for raw in aws.call("DescribeKeyPairs", Filters=filters).get("KeyPairs", []):
        yield Found("key pair", str(raw["KeyName"]), _name_of(raw), "", raw)
    for raw in aws.pages("DescribeVolumes", "Volumes", Filters=filters):
        # A disk in use goes with its machine.
        if raw.get("State") in ("available", "error"):
            yield Found("ec2 volume", str(raw["VolumeId"]), _name_of(raw), str(raw["State"]), raw)


def _instances(aws: Aws, **params: Any) -> Iterator[dict[str, Any]]:
    for reservation in aws.pages("DescribeInstances", "Reservations", **params):
        yield from reservation.get("Instances", [])


def instance_of(raw: dict[str, Any]) -> Found:
    """A machine out of DescribeInstances."""
    return Found("ec2 instance", str(raw["InstanceId"]), _name_of(raw), str(raw["State"]["Name"]), raw)


def all_instances(aws: Aws) -> list[Found]:
    """Every machine in the region, also of others; those that are over are left out. Raises what AWS raises."""
    return [instance_of(raw) for raw in _instances(aws) if raw["State"]["Name"] not in OVER_STATES]


def find_instance(aws: Aws, instance_id: str) -> Found | None:
    """The machine, also one that is over; None if AWS knows none. Raises what AWS raises."""
    try:
        return next((instance_of(raw) for raw in _instances(aws, InstanceIds=[instance_id])), None)
    except NotFoundError:
        return None


def _name_of(raw: dict[str, Any]) -> str:
    tags = tags_of(raw)
    return tags.get(NAME_TAG) or tags.get("Name") or str(raw.get("GroupName") or raw.get("KeyName") or "")


def end_found(run: Runtime, aws: Aws, found: Iterable[Found], ended: Ended | None = None) -> Ended:
    """End these: machines first, all of them, and wait until they are gone; then the rest, if they are.

    What cannot be ended is in `left` with the reason; nothing is raised but KeyboardInterrupt, and then `ended`
    tells how far it came.
    """
    ended = ended if ended is not None else Ended()
    ordered = sorted(found, key=lambda each: ORDER.index(each.kind))
    for each in ordered:
        ended.left[each] = ConflictError("it waits for its machine to be gone")
    machines = [each for each in ordered if each.kind == "ec2 instance"]
    for each in machines:
        _noting(ended, each, partial(_terminate, run, aws, each))
    for each in machines:
        if each in ended.gone and not _noting(ended, each, partial(_until_terminated, run, aws, each)):
            ended.gone.remove(each)
    if any(each in ended.left for each in machines):
        return ended
    for each in ordered:
        if each.kind != "ec2 instance":
            _noting(ended, each, partial(_delete, run, aws, each))
    return ended


def _noting(ended: Ended, each: Found, act: Callable[[], None]) -> bool:
    """Do it, and note what came of it."""
    try:
        act()
    except BuilderError as error:
        ended.left[each] = error
        return False
    ended.left.pop(each, None)
    if each not in ended.gone:
        ended.gone.append(each)
    return True


def _terminate(run: Runtime, aws: Aws, machine: Found) -> None:
    """Raises what AWS raises; what is gone already is fine, unless it is so young that it may only not show yet."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        try:
            aws.call("TerminateInstances", again=True, InstanceIds=[machine.id])
        except NotFoundError as error:
            if not _is_young(run, machine):
                break
            last = error
        else:
            break
    else:
        raise last
    run.state.event(run.clock.unix_s(), "terminated", "ec2", machine.id, provider="aws", name=machine.name)


def _is_young(run: Runtime, machine: Found) -> bool:
    launched = machine.raw.get("LaunchTime")
    return machine.is_young or (launched is not None and run.clock.unix_s() - launched.timestamp() < YOUNG_S)


def _until_terminated(run: Runtime, aws: Aws, machine: Found) -> None:
    """Raises ConflictError if it takes too long, and what AWS raises."""
    until_s = run.clock.monotonic_s() + TERMINATED_LIMIT_S
    with run.console.task(f"waiting for {machine.id} to end") as task:
        while True:
            seen = find_instance(aws, machine.id)
            if seen is None or seen.state == "terminated":
                return
            task.update(seen.state)
            if run.clock.monotonic_s() >= until_s:
                raise ConflictError(f"{machine.id} is still {seen.state} after {TERMINATED_LIMIT_S / 60:.0f} min")
            run.clock.sleep(TERMINATED_EVERY_S)


def _delete(run: Runtime, aws: Aws, each: Found) -> None:
    """Raises what AWS raises; what is gone already is fine, and what is young is asked for until it shows."""
    looks_s = list(LOOKS_S)
    operation, key = {
        "security group": ("DeleteSecurityGroup", "GroupId"),
        "key pair": ("DeleteKeyPair", "KeyName"),
        "ec2 volume": ("DeleteVolume", "VolumeId"),
    }[each.kind]
    value = str(each.raw[key])
    until_s = run.clock.monotonic_s() + GROUP_LIMIT_S
    while True:
        try:
            aws.call(operation, again=True, **{key: value})
            return
        except NotFoundError:
            if not each.is_young:
                return
            if not looks_s:
                raise
            run.clock.sleep(looks_s.pop(0))
        except ConflictError:
            if each.kind == "key pair" or run.clock.monotonic_s() >= until_s:
                raise
            run.clock.sleep(GROUP_EVERY_S)
