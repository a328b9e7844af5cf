"""What could be lost sight of at EC2: killed processes, lists that lag, two at once, and things of others."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.ec2.inventory import our_resources
from builder.ec2.resources import ID_TAG, NAME_TAG
from builder.runtime import Runtime, World
from tests.aws_rig import OLD_IMAGE_ID, AwsRig, KilledError, aws_rig
from tests.fakes.runpod.clock import PlaneClock

ENDING = ["TerminateInstances", "DescribeInstances", "DeleteSecurityGroup", "DeleteKeyPair", "DescribeVolumes"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsRig]:
    with aws_rig(tmp_path_factory.mktemp("ec2")) as made:
        yield made


@pytest.fixture
def rig(shared: AwsRig, tmp_path: Path) -> AwsRig:
    shared.cli.folder = tmp_path
    shared.reset(PlaneClock())
    return shared


@pytest.mark.parametrize("step", ENDING)
def test_a_terminate_killed_at_any_step_is_ended_by_the_next(rig: AwsRig, step: str) -> None:
    assert rig.launch().code == 0
    rig.kill_at = step
    with pytest.raises(KilledError):
        rig.run("ec2", "terminate", "--yes")
    rig.restore()
    assert rig.state("ec2") is not None
    ended = rig.run("ec2", "terminate", "--yes", "--json")
    assert ended.code == 0, ended.err
    rig.assert_nothing_left()
    assert rig.state("ec2") is None


def test_two_launches_at_once_make_one_machine(rig: AwsRig) -> None:
    path = rig.cli.folder / "artifacts" / "ec2.lock"
    path.parent.mkdir()
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = rig.launch()
        assert (refused.code, refused.problem["code"]) == (1, "conflict")
        assert "another ec2 launch is at work" in refused.problem["error"]
        assert rig.operations() == []
        assert rig.launch("--dry-run").code == 0
    assert rig.launch().code == 0


def test_a_machine_that_does_not_show_yet_is_no_machine_that_is_over(rig: AwsRig) -> None:
    rig.hide_s = 40.0
    machine = rig.launch().document["machine"]
    assert rig.run("ec2", "status", "--json").document["state"] == "pending"
    refused = rig.launch()
    assert (refused.code, refused.problem["code"]) == (1, "conflict"), refused.err
    assert rig.operations()[-1] == "RunInstances", "something of the new machine was removed"
    rig.clock.advance(40)
    assert rig.run("ec2", "status", "--json").document["state"] == "running"
    assert rig.state("ec2")["instance_id"] == machine["instance_id"]


@pytest.mark.parametrize("late_s", [4.0, 12.0])
@pytest.mark.parametrize("fault", [None, "lost"])
def test_a_group_and_a_key_that_show_late_are_not_doubled(rig: AwsRig, late_s: float, fault: str | None) -> None:
    rig.hide_groups_s = late_s if fault else 4.0
    for operation in ("CreateKeyPair", "CreateSecurityGroup"):
        rig.fail(operation, fault)
    launched = rig.launch()
    assert launched.code == 0, launched.err
    assert (len(rig.instances), len(rig.groups), len(rig.keys)) == (1, 1, 1)


def test_a_group_that_shows_late_is_removed_all_the_same(rig: AwsRig) -> None:
    rig.hide_groups_s = 8.0
    rig.fail("AuthorizeSecurityGroupIngress", "UnauthorizedOperation")
    failed = rig.launch()
    assert failed.code == 4, failed.err
    assert "nothing is left" in failed.problem["error"]
    rig.assert_nothing_left()


def test_what_costs_nothing_is_not_said_to_be_billed(rig: AwsRig) -> None:
    rig.fail("CreateKeyPair", *["lost"] * 3)
    failed = rig.launch()
    assert failed.code == 9
    assert "neither is billed" in failed.problem["error"] and "machine named" not in failed.problem["error"]
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0
    rig.assert_nothing_left()


def test_things_of_others_with_one_of_our_words_for_a_tag_are_left_alone(rig: AwsRig) -> None:
    def other(**tags: str) -> Any:
        made = rig.ec2.run_instances(
            OLD_IMAGE_ID, 1, "", [], instance_type="g4dn.xlarge", is_instance_type_default=False, tags={}
        ).instances[0]
        rig.ec2.create_tags([made.id], tags)
        return made.id

    left = {other(**{NAME_TAG: "theirs"}), other(**{ID_TAG: "7"}), other(Name="whisper")}
    assert rig.run("ec2", "terminate", "theirs", "--yes").code == 3
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0
    for machine in left:
        assert rig.run("ec2", "terminate", machine, "--yes").code == 1
    assert {each.id for each in rig.instances} == left
    run = Runtime(World(rig.cli.environ, rig.cli.folder, clock=rig.clock), quiet=True)
    # GPU machines, so they are shown: as those of others.
    assert {(each.id, each.is_ours) for each in our_resources(run)} == {(each, False) for each in left}


def test_no_default_network_says_how_to_get_one(rig: AwsRig) -> None:
    for operation, code in (("CreateSecurityGroup", "VPCIdNotSpecified"), ("RunInstances", "MissingInput")):
        rig.fail(operation, code)
        refused = rig.launch()
        assert (refused.code, refused.problem["code"]) == (1, "aws_error")
        assert "create-default-vpc" in refused.problem["hint"]
        rig.assert_nothing_left()


def test_names_of_several_launches_that_were_killed_are_told(rig: AwsRig) -> None:
    for _ in range(2):
        rig.kill_at = "CreateKeyPair"
        with pytest.raises(KilledError):
            rig.launch()
        rig.restore()
    names = sorted(rig.state("pending-ec2"))
    refused = rig.run("ec2", "terminate", "--yes", "--json")
    assert refused.code == 3 and all(name in refused.problem["error"] for name in names)
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0
    rig.assert_nothing_left()


def test_a_network_of_version_6_alone_is_warned_of(rig: AwsRig) -> None:
    shown = rig.run("ec2", "launch", "--dry-run", "--allow-cidr", "2001:db8::1")
    assert shown.code == 0 and "IPv4 address alone" in shown.err and "Nothing was made" in shown.out
