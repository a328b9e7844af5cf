"""Ends machines with all that was made for them: machine, security group, key pair, disk, then what is kept here.

A second time is fine, and so is what is gone already. A name stays in `pending-ec2.json` while AWS may yet show a
machine of that name.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from builder.deploy.create import CREATE_OVER_S
from builder.ec2.resources import (
    ID_TAG,
    LOOKS_S,
    NAME_TAG,
    YOUNG_S,
    Ended,
    Found,
    end_found,
    find_instance,
    find_named,
    find_ours,
    local_files,
    region_of,
)
from builder.errors import AuthError, BuilderError, ConflictError, InterruptError, NotFoundError, UsageError
from builder.instants import unix_s_of

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.runtime import Runtime

__all__ = ["RECORD", "Target", "end_command", "end_name", "forget", "terminate"]

RECORD = "ec2"
"""The document of the machine that verbs without a name mean."""
_INSTANCE_ID = re.compile(r"i-[0-9a-f]{8,17}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,90}")


@dataclass(frozen=True)
class Target:
    """One launch to end: its unique name, its region, and what of it is known to exist.

    A group may be named only together with its machine, or if it has none: it cannot go before. `is_group_young`: AWS
    has not shown it yet, so that it is not found does not say that it is gone.
    """

    name: str
    region: str
    instance_id: str | None = None
    group_id: str | None = None
    has_key: bool = False
    is_group_young: bool = False

    def known(self, machine: Found | None) -> list[Found]:
        """What there is of it for certain, whatever the lists show yet."""
        found = [] if machine is None else [machine]
        if self.group_id:
            raw = {"GroupId": self.group_id}
            found.append(Found("security group", self.group_id, self.name, "", raw, self.is_group_young))
        if self.has_key:
            found.append(Found("key pair", self.name, self.name, "", {"KeyName": self.name}))
        return found


def end_command(name: str) -> str:
    """What ends a launch."""
    return f"python -m builder ec2 terminate {name} --yes"


def end_name(
    run: Runtime,
    aws: Aws,
    target: Target,
    *,
    is_patient: bool = False,
    is_young: bool = False,
    ended: Ended | None = None,
) -> Ended:
    """End everything of one launch, and look that nothing is left.

    `is_patient`: look again for ten seconds, for what the lists do not show yet; `is_young`: the machine may not show
    yet. Raises what listing raises; `ended` tells how far it came.
    """
    ended = ended if ended is not None else Ended()
    machine = None
    if target.instance_id is not None:
        machine = find_instance(aws, target.instance_id)
        if machine is None and is_young:
            machine = Found("ec2 instance", target.instance_id, target.name, "pending")
        if machine is not None:
            machine = None if machine.state == "terminated" else replace(machine, is_young=is_young)
    if known := target.known(machine):
        end_found(run, aws, known, ended)
    for pause_s in (0.0, *(LOOKS_S if is_patient else LOOKS_S[:1])):
        if pause_s:
            run.clock.sleep(pause_s)
        found = [each for each in find_named(aws, target.name) if each not in ended.gone]
        if found:
            end_found(run, aws, found, ended)
        elif not is_patient:
            break
    return ended


def terminate(run: Runtime, target: str | None, *, all_mine: bool, yes: bool) -> dict[str, Any]:
    """End the recorded machine, the one of this name or id, or all of ours in the region; returns the document.

    Raises NotFoundError if there is nothing to end; ConflictError for a machine that is not ours; UsageError if not
    confirmed; after trying all, the error of what could not be ended; and what AWS raises.
    """
    from builder.aws.session import Aws

    if all_mine and target is not None:
        raise UsageError("give a name or --all-mine, not both")
    clients: dict[str, Aws] = {}

    def aws_of(region: str) -> Aws:
        return clients.setdefault(region, Aws(run, region))

    targets = _all_targets(run, aws_of) if all_mine else [_one_target(run, aws_of, target)]
    if targets:
        named = ", ".join(each.name + (f" ({each.instance_id})" if each.instance_id else "") for each in targets)
        run.console.confirm(f"Terminate {named} with disks, security groups and key pairs?", yes=yes)
    gone: list[Found] = []
    left: dict[Found, BuilderError] = {}
    unsure: dict[str, BuilderError] = {}
    for each in targets:
        ended = Ended()
        try:
            _end_target(run, aws_of(each.region), each, ended)
        except BuilderError as error:
            unsure[each.name] = error
        except KeyboardInterrupt:
            raise InterruptError(
                f"interrupted while {each.name} was being ended: it may still be billed",
                hint=f"again: {end_command(each.name)}",
            ) from None
        gone += ended.gone
        left.update(ended.left)
    _raise_left(left, unsure)
    return {
        "terminated": [each.id for each in gone if each.kind == "ec2 instance"],
        "deleted": [{"kind": each.kind, "id": each.id} for each in gone if each.kind != "ec2 instance"],
        "names": [each.name for each in targets],
        "pending": sorted(run.state.pending("pending-ec2")),
    }


def _end_target(run: Runtime, aws: Aws, target: Target, ended: Ended) -> None:
    pending = run.state.pending("pending-ec2")
    record = run.state.read(RECORD) or {}
    began_s = unix_s_of(pending.get(target.name) or str(record.get("created_at") or ""))
    age_s = CREATE_OVER_S + 1 if began_s is None else run.clock.unix_s() - began_s
    is_recorded = record.get("name") == target.name
    is_young = is_recorded and age_s < YOUNG_S
    with run.console.task(f"ending {target.name}") as task:
        task.update("looking for what it has")
        # What was begun a short time ago may show late.
        end_name(run, aws, target, is_patient=age_s < YOUNG_S and not is_recorded, is_young=is_young, ended=ended)
    if ended.left:
        return
    forget(run, target.name)
    saw_machine = is_recorded or any(each.kind == "ec2 instance" for each in ended.gone)
    if target.name not in pending:
        return
    if saw_machine or age_s > CREATE_OVER_S:
        run.state.end_pending(target.name, "pending-ec2")
    else:
        run.console.warn(
            f"a machine named {target.name} may show late, and is billed then; in ten minutes, again: "
            f"{end_command(target.name)}"
        )


def forget(run: Runtime, name: str) -> None:
    """Remove what this folder keeps of a launch that is over."""
    for path in local_files(run, name):
        with suppress(OSError):
            path.unlink()
    if (run.state.read(RECORD) or {}).get("name") == name:
        run.state.remove(RECORD)


def _recorded(run: Runtime) -> Target | None:
    record = run.state.read(RECORD) or {}
    name, machine = str(record.get("name") or ""), str(record.get("instance_id") or "")
    if not name:
        return None
    region = str(record.get("region") or "") or region_of(name) or run.settings.aws_region
    if not machine:
        return Target(name, region)
    return Target(name, region, machine, str(record.get("security_group_id") or "") or None, has_key=True)


def _one_target(run: Runtime, aws_of: Any, given: str | None) -> Target:
    recorded = _recorded(run)
    if given is None:
        if recorded is None:
            pending = sorted(run.state.pending("pending-ec2"))
            if len(pending) == 1:
                return Target(pending[0], region_of(pending[0]) or run.settings.aws_region)
            if pending:
                raise NotFoundError(
                    f"no EC2 machine is recorded here, but launches may have left {', '.join(pending)}",
                    hint="end them: python -m builder ec2 terminate --all-mine",
                )
            damaged = " (ec2.json is damaged)" if run.state.is_damaged(RECORD) else ""
            raise NotFoundError(
                f"no EC2 machine is recorded here{damaged}",
                hint="end all that is ours: python -m builder ec2 terminate --all-mine",
            )
        return recorded
    if recorded is not None and given in (recorded.name, recorded.instance_id):
        return recorded
    if given.startswith("i-"):
        return _by_id(run, aws_of(run.settings.aws_region), given)
    if not _NAME.fullmatch(given):
        raise UsageError(f"{given[:60]!r} is no name; legal: letters, digits and -, or an id like i-0123456789abcdef0")
    target = Target(given, region_of(given) or run.settings.aws_region)
    is_ours = given in run.state.pending("pending-ec2") or any(path.exists() for path in local_files(run, given))
    if not is_ours and not find_named(aws_of(target.region), given):
        if region_of(given) is not None:
            # It has the form of our names: ended before, or never made.
            run.console.note(f"{target.region} has nothing of {given}")
            return target
        raise NotFoundError(f"{target.region} has nothing of {given}")
    return target


def _by_id(run: Runtime, aws: Aws, instance_id: str) -> Target:
    if not _INSTANCE_ID.fullmatch(instance_id):
        raise UsageError(f"{instance_id[:60]!r} is no id; legal: like i-0123456789abcdef0")
    machine = find_instance(aws, instance_id)
    if machine is None:
        raise NotFoundError(f"{aws.region} has no machine {instance_id}")
    name = machine.tags.get(NAME_TAG)
    if name is None or ID_TAG not in machine.tags:
        raise ConflictError(
            f"{instance_id} is not one of ours, and was left alone", hint="end it in the EC2 console if it is yours"
        )
    return Target(name, aws.region, instance_id)


def _all_targets(run: Runtime, aws_of: Any) -> list[Target]:
    """All that is ours: by tags in every region that is known of, recorded, or begun. Raises what listing raises."""
    recorded = _recorded(run)
    found: dict[str, Target] = {}
    for name in run.state.pending("pending-ec2"):
        found[name] = Target(name, region_of(name) or run.settings.aws_region)
    if recorded is not None:
        found[recorded.name] = recorded
    for region in dict.fromkeys([run.settings.aws_region, *(each.region for each in found.values())]):
        for each in find_ours(aws_of(region)):
            name = each.tags.get(NAME_TAG, "")
            if name:
                found.setdefault(name, Target(name, region))
    return list(found.values())


def _raise_left(left: dict[Found, BuilderError], unsure: dict[str, BuilderError]) -> None:
    if not left and not unsure:
        return
    first = next(iter([*left.values(), *unsure.values()]))
    said = [f"{each} of {each.name} could not be ended ({error})" for each, error in left.items()]
    said += [f"what is left of {name} is not known ({error})" for name, error in unsure.items()]
    billed = "" if not any(each.kind == "ec2 instance" for each in left) else "; the machine is billed"
    names = dict.fromkeys([*(each.name for each in left), *unsure])
    # Without credentials the same again helps nobody.
    before = f"{first.hint}; " if isinstance(first, AuthError) else ""
    raise type(first)(
        "; ".join(said) + billed,
        hint=f"{before}again: " + "; ".join(end_command(name) for name in names),
        status=first.status,
        request_id=first.request_id,
    )
