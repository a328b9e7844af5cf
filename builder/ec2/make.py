"""Makes what a launch needs, each thing once: key pair, security group, machine.

EC2's RunInstances takes a token (the unique name) that makes it safe to repeat; the other creates are looked for by
their name after an answer was lost. AWS may deny for seconds what it has just made: that is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from builder.deploy.create import DOUBTFUL
from builder.ec2.resources import DEADLINE_TAG, ID_TAG, LOOKS_S, NAME_TAG, PRICE_TAG, Found, find_named, instance_of
from builder.ec2.user_data import render
from builder.errors import AwsError, BuilderError, NotFoundError
from builder.state import iso_time, write_private

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.ec2.plan import LaunchPlan
    from builder.runtime import Runtime

__all__ = ["Attempt", "deadline_of", "instance_request", "make_group", "make_key", "run_instance"]

T = TypeVar("T")
MAX_TRIES = 3
"""Creates of one thing while AWS fails."""


@dataclass
class Attempt:
    """One launch's traces. `is_doubtful`: a machine, group or key may exist that nobody has seen.

    `may_be_billed`: a machine was asked for; keys and groups cost nothing.
    """

    name: str
    region: str
    builder_id: str
    deadline: str = ""
    machine: Found | None = None
    group_id: str = ""
    has_key: bool = False
    has_sent: bool = False
    is_doubtful: bool = False
    may_be_billed: bool = False
    has_shown_group: bool = False

    def sending(self, act: Callable[[], T]) -> T:
        """Do it, noticing that something was sent and whether it is known what came of it."""
        self.has_sent = True
        # Until an answer says what came of it: an interrupt leaves it so.
        was_doubtful, self.is_doubtful = self.is_doubtful, True
        try:
            result = act()
        except BuilderError as error:
            if not isinstance(error, DOUBTFUL):
                self.is_doubtful = was_doubtful
            raise
        self.is_doubtful = was_doubtful
        return result


def _tags(plan: LaunchPlan, attempt: Attempt, kind: str) -> dict[str, Any]:
    tags = {ID_TAG: attempt.builder_id, NAME_TAG: plan.name, "Name": plan.name, DEADLINE_TAG: attempt.deadline}
    if plan.per_h is not None:
        tags[PRICE_TAG] = f"{plan.per_h:.4f}"
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def make_key(run: Runtime, aws: Aws, plan: LaunchPlan, attempt: Attempt, path: Path) -> None:
    """An ed25519 key pair made by AWS (EC2 CreateKeyPair), its private half in `path`, mode 0600.

    Raises what AWS raises, DiskFullError, BuilderError.
    """

    def create() -> dict[str, Any]:
        tags = [_tags(plan, attempt, "key-pair")]
        return aws.call("CreateKeyPair", KeyName=plan.name, KeyType="ed25519", KeyFormat="pem", TagSpecifications=tags)

    for left in reversed(range(MAX_TRIES)):
        try:
            material = str(attempt.sending(create)["KeyMaterial"])
            break
        except (*DOUBTFUL, AwsError) as error:
            if not left or (isinstance(error, AwsError) and not _is_double(error)):
                raise
            run.console.note(f"{error}; making the key pair anew")
            # Its private half came with the answer that is lost.
            aws.call("DeleteKeyPair", again=True, KeyName=plan.name)
    attempt.has_key, attempt.is_doubtful = True, False
    run.redactor.add(material)
    write_private(path, material if material.endswith("\n") else material + "\n")


def make_group(run: Runtime, aws: Aws, plan: LaunchPlan, attempt: Attempt) -> str:
    """A security group that lets the caller's network reach the ports (EC2 CreateSecurityGroup); returns its id.

    Raises what AWS raises.
    """

    def create() -> Found:
        answer = aws.call(
            "CreateSecurityGroup",
            GroupName=plan.name,
            Description="SSH and speech-to-text from one network",
            TagSpecifications=[_tags(plan, attempt, "security-group")],
        )
        return Found("security group", str(answer["GroupId"]), plan.name, "")

    attempt.group_id = group_id = _once(run, aws, attempt, create, "security group").id
    ranges = "Ipv6Ranges" if ip_network(plan.network).version == 6 else "IpRanges"
    address = "CidrIpv6" if ranges == "Ipv6Ranges" else "CidrIp"
    rules = [
        {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, ranges: [{address: plan.network}]}
        for port in plan.ports
    ]

    def open_ports() -> None:
        try:
            aws.call("AuthorizeSecurityGroupIngress", again=True, GroupId=group_id, IpPermissions=rules)
        except BuilderError as error:
            # What an answer that was lost had done.
            if "InvalidPermission.Duplicate" not in str(error):
                raise

    _soon(run, open_ports)
    attempt.has_shown_group = True
    return group_id


def instance_request(plan: LaunchPlan, attempt: Attempt) -> dict[str, Any]:
    """The parameters of EC2 RunInstances."""
    disk = {"VolumeSize": plan.disk_gb, "VolumeType": "gp3", "DeleteOnTermination": True}
    request: dict[str, Any] = {
        "ImageId": plan.image.id,
        "InstanceType": plan.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "KeyName": plan.name,
        "SecurityGroupIds": [attempt.group_id],
        "ClientToken": plan.name,
        "UserData": render(plan.minutes, attempt.deadline, plan.image.ssh_user),
        "BlockDeviceMappings": [{"DeviceName": plan.image.root_device, "Ebs": disk}],
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [_tags(plan, attempt, "instance"), _tags(plan, attempt, "volume")],
    }
    if plan.is_spot:
        # A one-time spot machine takes no shutdown behaviour: a shutdown always terminates it.
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        if plan.max_price is not None:
            options["MaxPrice"] = f"{plan.max_price:g}"
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    else:
        request["InstanceInitiatedShutdownBehavior"] = "terminate"
    return request


def run_instance(run: Runtime, aws: Aws, plan: LaunchPlan, attempt: Attempt) -> Found:
    """The one machine of this launch (EC2 RunInstances). Raises what AWS raises."""
    request = instance_request(plan, attempt)
    attempt.may_be_billed = True

    def create() -> Found:
        answer = _soon(run, lambda: aws.call("RunInstances", **request))
        attempt.machine = instance_of(answer["Instances"][0])
        return attempt.machine

    attempt.machine = machine = _once(run, aws, attempt, create, "ec2 instance")
    return machine


def _once(run: Runtime, aws: Aws, attempt: Attempt, create: Callable[[], Found], kind: str) -> Found:
    """What was made, or was found after a lost answer. Raises what AWS raises."""
    for left in reversed(range(MAX_TRIES)):
        try:
            made = attempt.sending(create)
            attempt.is_doubtful = False
            return made
        except (*DOUBTFUL, AwsError) as error:
            if isinstance(error, AwsError) and not _is_double(error):
                raise
            run.console.note(f"{error}; looking for the {kind} of {attempt.name}")
            found = _look(run, aws, attempt.name, kind)
            if found is not None:
                attempt.is_doubtful = False
                return found
            if not left:
                raise
    raise AssertionError("the last try returns or raises")  # pragma: no cover


def _is_double(error: AwsError) -> bool:
    """True if there is one of that name: it is unique, so an earlier try of ours made it, and the lists lag."""
    return ".Duplicate" in str(error)


def _look(run: Runtime, aws: Aws, name: str, kind: str) -> Found | None:
    """What a create in doubt made. Raises what listing raises: then it stays in doubt."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        for each in find_named(aws, name):
            if each.kind == kind:
                return each
    return None


def _soon(run: Runtime, act: Callable[[], T]) -> T:
    """Do it; what is not found is what was just made, and will be. Raises what AWS raises."""
    for pause_s in LOOKS_S:
        try:
            return act()
        except NotFoundError as error:
            run.console.note(f"{error}; AWS does not show it yet")
            run.clock.sleep(pause_s)
    return act()


def deadline_of(run: Runtime, plan: LaunchPlan) -> str:
    """When a machine that is started now ends."""
    return iso_time(run.clock.unix_s() + plan.minutes * 60)
