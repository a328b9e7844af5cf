"""EC2 machines: launch, status, terminate, the timers, and what AWS refuses, against moto in strict mode."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder.aws.session import Aws
from builder.ec2.caller_address import allowed_network
from builder.ec2.inventory import our_resources
from builder.ec2.kill_timer import spawn
from builder.ec2.prices import on_demand_per_h
from builder.ec2.resources import region_of
from builder.errors import AuthError, BadAnswerError, NetworkError, UsageError
from builder.instants import unix_s_of
from builder.runtime import Runtime, World
from builder.state import iso_time
from tests.aws_rig import IMAGE_ID, OLD_IMAGE_ID, REGION, SECRET, AwsRig, KilledError, aws_rig
from tests.fakes.runpod.clock import PlaneClock

MAKING = ["CreateKeyPair", "CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "RunInstances"]
ENDING = ["TerminateInstances", "DeleteSecurityGroup", "DeleteKeyPair"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsRig]:
    with aws_rig(tmp_path_factory.mktemp("ec2")) as made:
        yield made


@pytest.fixture
def rig(shared: AwsRig, tmp_path: Path) -> Iterator[AwsRig]:
    environ = dict(shared.cli.environ)
    shared.cli.folder = tmp_path
    shared.reset(PlaneClock())
    yield shared
    shared.cli.environ = environ


def run_of(rig: AwsRig, **environ: str) -> Runtime:
    return Runtime(World({**rig.cli.environ, **environ}, rig.cli.folder, clock=rig.clock), quiet=True)


def form(rig: AwsRig, operation: str) -> dict[str, str]:
    return next(dict(each.params) for each in rig.calls if each.operation == operation and each.took_effect)


# Launch


def test_launch_makes_what_it_says_and_terminate_removes_it_in_order(rig: AwsRig) -> None:
    launched = rig.launch("--max-minutes", "30", "--disk", "50")
    assert launched.code == 0, launched.err
    machine = launched.document["machine"]
    assert rig.operations() == MAKING
    assert rig.state("ec2") == machine
    assert rig.state("pending-ec2") is None
    assert unix_s_of(machine["deadline"]) == rig.clock.unix_s() + 1800
    made = form(rig, "RunInstances")
    assert made["ClientToken"] == machine["name"] == made["KeyName"]
    assert made["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert made["MetadataOptions.HttpTokens"] == "required"
    assert made["ImageId"] == IMAGE_ID
    assert (made["BlockDeviceMapping.1.Ebs.VolumeType"], made["BlockDeviceMapping.1.Ebs.VolumeSize"]) == ("gp3", "50")
    assert made["BlockDeviceMapping.1.Ebs.DeleteOnTermination"] == "true"
    tagged = {value for key, value in made.items() if key.endswith(".ResourceType")}
    assert tagged == {"instance", "volume"}
    rules = form(rig, "AuthorizeSecurityGroupIngress")
    assert {value for key, value in rules.items() if key.endswith("CidrIp")} == {"203.0.113.7/32"}
    assert {value for key, value in rules.items() if key.endswith("FromPort")} == {"22", "9090", "9999"}
    key = Path(machine["key_path"])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "PRIVATE KEY" in key.read_text()
    assert "PRIVATE KEY" not in launched.out + launched.err + str(rig.state("ec2"))

    ended = rig.run("ec2", "terminate", "--yes", "--json")
    assert ended.code == 0, ended.err
    assert ended.document["terminated"] == [machine["instance_id"]]
    assert rig.operations() == MAKING + ENDING
    looks = [each.operation for each in rig.calls]
    waits = looks[looks.index("TerminateInstances") : looks.index("DeleteSecurityGroup")]
    assert "DescribeInstances" in waits, "it did not wait for the end of the machine"
    rig.assert_nothing_left()
    assert not key.exists()
    assert rig.state("ec2") is None


def test_a_second_terminate_is_fine_and_none_recorded_is_said(rig: AwsRig) -> None:
    name = rig.launch().document["machine"]["name"]
    assert rig.run("ec2", "terminate", "--yes").code == 0
    again = rig.run("ec2", "terminate", name, "--yes", "--json")
    assert (again.code, again.document["terminated"]) == (0, [])
    nameless = rig.run("ec2", "terminate", "--yes", "--json")
    assert nameless.code == 3
    assert "--all-mine" in nameless.problem["hint"]
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0


def test_what_is_gone_already_is_fine(rig: AwsRig) -> None:
    machine = rig.launch().document["machine"]
    rig.clock.advance(120)
    rig.ec2.terminate_instances([machine["instance_id"]])
    rig.ec2.delete_security_group(group_id=machine["security_group_id"])
    rig.ec2.delete_key_pair(machine["key_name"])
    assert rig.run("ec2", "terminate", "--yes").code == 0
    rig.assert_nothing_left()


def test_a_machine_that_is_there_is_not_doubled_and_one_that_ended_is_tidied_up(rig: AwsRig) -> None:
    machine = rig.launch().document["machine"]
    refused = rig.launch()
    assert refused.code == 1
    assert (refused.problem["code"], machine["instance_id"] in refused.problem["error"]) == ("conflict", True)
    assert "ec2 terminate" in refused.problem["hint"]
    # Its own timer ended it.
    rig.ec2.terminate_instances([machine["instance_id"]])
    rig.clock.advance(7200)
    second = rig.launch()
    assert second.code == 0, second.err
    assert (len(rig.instances), len(rig.groups), len(rig.keys)) == (1, 1, 1)
    assert not Path(machine["key_path"]).exists()


def test_dry_run_changes_nothing_and_shows_the_request(rig: AwsRig) -> None:
    shown = rig.run("ec2", "launch", "--dry-run", "--json", "--allow-cidr", "203.0.113.7/32")
    assert shown.code == 0, shown.err
    assert rig.operations() == []
    assert [each["operation"] for each in shown.document["would"]] == MAKING
    assert shown.document["plan"]["worst_case"] == pytest.approx(0.81, abs=0.01)
    assert not (rig.cli.folder / "artifacts").exists()


def test_it_asks_with_price_and_worst_case(rig: AwsRig) -> None:
    refused = rig.run("ec2", "launch", "--allow-cidr", "203.0.113.7", answers="n\n")
    assert refused.code == 2
    assert "at about $0.54/h, at most about $0.81 in 90 min? [y/N]" in refused.err
    assert rig.operations() == []
    assert rig.run("ec2", "launch", "--allow-cidr", "203.0.113.7").code == 2


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--max-minutes", "9"], 2, "10"),
        (["--max-minutes", "721"], 2, "720"),
        (["--disk", "19"], 2, "20"),
        (["--disk", "1001"], 2, "1000"),
        (["--type", "x9.huge"], 2, "no such type"),
        (["--type", "t3.micro"], 2, "no NVIDIA GPU"),
        (["--type", "g5g.xlarge"], 2, "x86_64"),
        (["--ami", "ami-0000000000000dead"], 3, "no such image"),
        (["--name", "sg-mine"], 2, "legal"),
        (["--name", "a" * 31], 2, "at most 30"),
        (["--max-price", "0.52"], 6, "costs $0.526/h"),
        (["--type", "g4dn.metal", "--max-price", "50"], 6, "no price"),
        (["--region", "eu-central-1", "--max-price", "5"], 6, "no price in eu-central-1"),
        (["--region", "not a region"], 2, ""),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(rig: AwsRig, options: list[str], code: int, said: str) -> None:
    refused = rig.launch(*options)
    assert refused.code == code, refused.err
    assert said in refused.err
    assert rig.operations() == []
    assert rig.state("pending-ec2") is None


def test_limits_themselves_are_taken(rig: AwsRig) -> None:
    plan = rig.run("ec2", "launch", "--dry-run", "--json", "--allow-cidr", "203.0.113.7", "--max-price", "0.526")
    assert plan.code == 0, plan.err
    for options in (["--max-minutes", "10", "--disk", "20"], ["--max-minutes", "720", "--disk", "1000"]):
        assert rig.launch("--dry-run", "--name", "a" * 30, *options).code == 0


def test_image_by_setting_by_option_and_by_name(rig: AwsRig) -> None:
    rig.cli.environ["EC2_AMI_ID"] = OLD_IMAGE_ID
    assert rig.launch("--dry-run").document["plan"]["image"]["id"] == OLD_IMAGE_ID
    named = rig.launch("--dry-run", "--ami", "ami-0aaaaaaaaaaaaaaaa").document
    assert named["plan"]["image"]["id"] == "ami-0aaaaaaaaaaaaaaaa"
    assert "ec2-user" in named["would"][3]["params"]["UserData"]


def test_spot_is_one_time_and_takes_no_shutdown_behaviour(rig: AwsRig) -> None:
    launched = rig.launch("--spot", "--max-price", "0.3")
    assert launched.code == 0, launched.err
    made = form(rig, "RunInstances")
    assert made["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert made["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.3"
    assert "InstanceInitiatedShutdownBehavior" not in made
    assert launched.document["machine"]["is_spot"] is True
    assert "one-time spot machine" in launched.document["plan"]["ends"]


# What AWS refuses


@pytest.mark.parametrize(
    ("operation", "fault", "code", "said"),
    [
        ("GetCallerIdentity", "InvalidClientTokenId", 4, "AWS_ACCESS_KEY_ID"),
        ("GetCallerIdentity", "ExpiredToken", 4, "have expired"),
        ("DescribeInstanceTypes", "AuthFailure", 4, "aws sso login"),
        ("DescribeInstanceTypes", "UnauthorizedOperation", 4, "IAM"),
        ("CreateSecurityGroup", "UnauthorizedOperation", 4, "nothing is left"),
        ("RunInstances", "InsufficientInstanceCapacity", 5, "no machine of this type is free"),
        ("RunInstances", "VcpuLimitExceeded", 5, "Service Quotas"),
        ("RunInstances", "MaxSpotInstanceCountExceeded", 5, "quota"),
        ("RunInstances", "SpotMaxPriceTooLow", 5, "--max-price"),
        ("RunInstances", "Unsupported", 5, "zone"),
        ("RunInstances", "SomethingNew", 1, "SomethingNew"),
    ],
)
def test_a_refusal_leaves_nothing_and_says_what_to_do(
    rig: AwsRig, operation: str, fault: str, code: int, said: str
) -> None:
    rig.fail(operation, fault)
    refused = rig.launch()
    assert refused.code == code, refused.err
    assert said in refused.err
    assert refused.problem["hint"]
    assert "Traceback" not in refused.err
    rig.assert_nothing_left()
    assert rig.state("pending-ec2") is None
    assert rig.state("ec2") is None


def test_no_credentials_are_said_by_every_verb(rig: AwsRig) -> None:
    rig.launch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del rig.cli.environ[name]
    with pytest.MonkeyPatch.context() as patch:
        # moto sets some of its own.
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(rig.cli.folder))
        for verb in (["launch", "--yes"], ["status"], ["terminate", "--yes"], ["terminate", "--all-mine", "--yes"]):
            refused = rig.run("ec2", *verb, "--json")
            assert (refused.code, "AWS_PROFILE" in refused.problem["hint"]) == (4, True), refused.err
        with pytest.raises(AuthError):
            our_resources(run_of(rig))
    assert len(rig.instances) == 1


def test_credentials_may_stand_in_the_env_file_and_a_profile_must_exist(rig: AwsRig) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        value = rig.cli.environ.pop(name)
        with (rig.cli.folder / ".env").open("a") as file:
            file.write(f"{name}={value}\n")
    assert rig.launch("--dry-run").code == 0
    (rig.cli.folder / ".env").write_text("AWS_PROFILE=nobody\n")
    refused = rig.launch("--dry-run")
    assert (refused.code, "nobody" in refused.problem["error"]) == (4, True)


def test_without_boto3_it_says_how_to_install_it(rig: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    refused = rig.launch()
    assert (refused.code, refused.problem["code"]) == (1, "not_available")
    assert "whisper-runpod[aws]" in refused.problem["hint"]


def test_aws_is_asked_again_when_it_is_slow_or_away(rig: AwsRig) -> None:
    rig.fail("DescribeImages", "RequestLimitExceeded", "refused", "lost")
    rig.fail("RunInstances", "RequestLimitExceeded", "refused")
    assert rig.launch().code == 0
    rig.fail("TerminateInstances", "lost", "down")
    rig.fail("DeleteSecurityGroup", "DependencyViolation", "DependencyViolation", "lost")
    assert rig.run("ec2", "terminate", "--yes").code == 0
    rig.assert_nothing_left()
    rig.fail("GetCallerIdentity", *["RequestLimitExceeded"] * 4)
    assert rig.launch().code == 8
    rig.fail("GetCallerIdentity", *["refused"] * 4)
    assert rig.launch().code == 9


# Lost answers, interrupts, full disks


@pytest.mark.parametrize("kind", ["lost", "late", "broken", "reset", "down"])
@pytest.mark.parametrize("operation", MAKING)
def test_a_lost_answer_makes_nothing_twice(rig: AwsRig, operation: str, kind: str) -> None:
    rig.fail(operation, kind)
    launched = rig.launch()
    assert launched.code == 0, launched.err
    assert (len(rig.instances), len(rig.groups), len(rig.keys)) == (1, 1, 1)
    assert launched.document["machine"]["instance_id"] == rig.instances[0].id
    # The key here is the one that AWS has.
    key = Path(launched.document["machine"]["key_path"]).read_text()
    assert key.strip() == rig.ec2.key_pairs[rig.keys[0]].key_material.strip()


def test_a_machine_that_shows_late_is_not_made_twice(rig: AwsRig) -> None:
    rig.hide_s = 14.0
    rig.fail("RunInstances", "lost")
    launched = rig.launch()
    assert launched.code == 0, launched.err
    assert [each.id for each in rig.instances] == [launched.document["machine"]["instance_id"]]


def test_a_machine_in_doubt_is_remembered_and_ended_later(rig: AwsRig) -> None:
    rig.hide_s = 60.0
    rig.fail("RunInstances", "lost", "reset", "reset")
    failed = rig.launch()
    assert failed.code == 9
    name = rig.instances[0].key_name
    assert "may show late, and is billed" in failed.problem["error"]
    assert name in failed.problem["hint"]
    assert list(rig.state("pending-ec2")) == [name]
    rig.clock.advance(60)
    assert rig.run("ec2", "terminate", name, "--yes").code == 0
    rig.assert_nothing_left()
    assert rig.state("pending-ec2") is None


@pytest.mark.parametrize("at", range(8))
def test_an_interrupt_in_any_call_leaves_nothing(rig: AwsRig, at: int) -> None:
    rig.interrupt_at = at
    outcome = rig.launch()
    assert outcome.code == 130, outcome.err
    rig.assert_nothing_left()
    assert rig.state("ec2") is None


def test_what_cannot_be_ended_is_named_with_its_price_and_command(rig: AwsRig) -> None:
    rig.interrupt_at = 7
    rig.fail("TerminateInstances", *["UnauthorizedOperation"] * 9)
    failed = rig.launch()
    machine = rig.instances[0]
    assert failed.code == 130
    assert f"ec2 instance {machine.id}" in failed.problem["error"]
    assert "billed at $0.54/h" in failed.problem["error"]
    assert f"python -m builder ec2 terminate {machine.key_name} --yes" in failed.problem["hint"]
    assert machine.key_name in rig.state("pending-ec2")
    assert len(rig.groups) == 1, "a group goes after its machine"
    rig.calm()
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0
    rig.assert_nothing_left()


def test_a_record_that_cannot_be_written_ends_the_machine(rig: AwsRig) -> None:
    (rig.cli.folder / "artifacts" / "ec2.json").mkdir(parents=True)
    (rig.cli.folder / "artifacts" / "ec2.json" / "x").touch()
    damaged = rig.launch()
    assert (damaged.code, damaged.problem["code"]) == (1, "conflict")
    assert rig.operations() == []


@pytest.mark.parametrize("step", [*MAKING, "DescribeInstances"])
def test_a_process_killed_at_any_step_leaves_a_name_that_ends_it_all(rig: AwsRig, step: str) -> None:
    rig.kill_at = step
    with pytest.raises(KilledError):
        rig.launch()
    rig.restore()
    if step == "DescribeInstances":
        assert rig.state("ec2")["instance_id"] == rig.instances[0].id
    else:
        (name,) = rig.state("pending-ec2")
        assert region_of(name) == REGION
        warned = rig.launch("--dry-run")
        assert f"python -m builder ec2 terminate {name} --yes" in warned.err
    ended = rig.run("ec2", "terminate", "--all-mine", "--yes", "--json")
    assert ended.code == 0, ended.err
    rig.assert_nothing_left()


# Terminate


def test_others_machines_are_left_alone(rig: AwsRig) -> None:
    other = rig.ec2.run_instances(
        OLD_IMAGE_ID, 1, "", [], instance_type="g4dn.xlarge", is_instance_type_default=False, tags={}
    ).instances[0]
    rig.launch()
    refused = rig.run("ec2", "terminate", other.id, "--yes", "--json")
    assert (refused.code, refused.problem["code"]) == (1, "conflict")
    assert rig.run("ec2", "terminate", "--all-mine", "--yes").code == 0
    assert [each.id for each in rig.instances] == [other.id]
    assert rig.run("ec2", "terminate", "i-0123456789abcdef0", "--yes").code == 3
    for bad in ("i-xyz", "a b", "x" * 92):
        assert rig.run("ec2", "terminate", bad, "--yes").code == 2
    assert rig.run("ec2", "terminate", "nothing-of-this-name", "--yes").code == 3
    assert rig.run("ec2", "terminate", "x", "--all-mine", "--yes").code == 2


def test_terminate_asks_and_finds_by_id_without_a_record(rig: AwsRig) -> None:
    machine = rig.launch().document["machine"]
    asked = rig.run("ec2", "terminate", answers="n\n")
    assert asked.code == 2
    assert machine["instance_id"] in asked.err
    assert len(rig.instances) == 1
    shutil.rmtree(rig.cli.folder / "artifacts")
    assert rig.run("ec2", "terminate", machine["instance_id"], "--yes").code == 0
    assert (rig.instances, rig.groups, rig.keys) == ([], [], [])


def test_a_machine_that_does_not_end_keeps_its_group_and_is_said(rig: AwsRig) -> None:
    machine = rig.launch().document["machine"]
    rig.fail("TerminateInstances", *["OperationNotPermitted"] * 3)
    failed = rig.run("ec2", "terminate", "--yes", "--json")
    assert failed.code == 1
    assert machine["instance_id"] in failed.problem["error"]
    assert "billed" in failed.problem["error"]
    assert "DeleteSecurityGroup" not in rig.operations()
    assert rig.state("ec2") is not None
    rig.calm()
    assert rig.run("ec2", "terminate", "--yes").code == 0
    rig.assert_nothing_left()


def test_a_group_waits_for_a_machine_that_shuts_down(rig: AwsRig) -> None:
    name = rig.launch().document["machine"]["name"]
    rig.instances[0]._state.name = "shutting-down"
    assert {each.kind for each in our_resources(run_of(rig))} == {"security group", "key pair"}
    shutil.rmtree(rig.cli.folder / "artifacts")
    assert rig.run("ec2", "terminate", name, "--yes").code == 0
    assert rig.operations() == MAKING + ENDING
    rig.assert_nothing_left()


def test_an_interrupted_terminate_says_what_may_be_billed(rig: AwsRig) -> None:
    name = rig.launch().document["machine"]["name"]
    rig.interrupt_at = 0
    stopped = rig.run("ec2", "terminate", "--yes", "--json")
    assert (stopped.code, name in stopped.problem["error"]) == (130, True)
    assert stopped.problem["hint"] == f"again: python -m builder ec2 terminate {name} --yes"
    assert rig.run("ec2", "terminate", "--yes").code == 0
    rig.assert_nothing_left()


# Status and inventory


def test_status_tells_time_and_cost_and_a_deadline_that_passed(rig: AwsRig) -> None:
    assert rig.run("ec2", "status").code == 3
    machine = rig.launch().document["machine"]
    rig.clock.advance(1800)
    status = rig.run("ec2", "status", "--json").document
    assert (status["state"], status["uptime_s"]) == ("running", pytest.approx(1800, abs=5))
    assert status["minutes_left"] == pytest.approx(60, abs=0.2)
    assert status["cost"] == pytest.approx(0.27, abs=0.01)
    assert status["public_ip"]
    rig.clock.advance(3601)
    late = rig.run("ec2", "status")
    assert f"past its deadline {machine['deadline']}" in late.err
    assert f"python -m builder ec2 terminate {machine['name']} --yes" in late.err
    rig.ec2.terminate_instances([machine["instance_id"]])
    over = rig.run("ec2", "status")
    assert (over.code, "remove what it left" in over.out) == (0, True)


def test_inventory_shows_ours_and_gpu_machines_of_others(rig: AwsRig) -> None:
    rig.ec2.run_instances(OLD_IMAGE_ID, 1, "", [], instance_type="t3.micro", is_instance_type_default=False, tags={})
    rig.ec2.run_instances(OLD_IMAGE_ID, 1, "", [], instance_type="g5.xlarge", is_instance_type_default=False, tags={})
    machine = rig.launch().document["machine"]
    found = {(each.kind, each.is_ours): each for each in our_resources(run_of(rig))}
    assert set(found) == {
        ("ec2 instance", True),
        ("security group", True),
        ("key pair", True),
        ("ec2 instance", False),
    }
    ours, other = found["ec2 instance", True], found["ec2 instance", False]
    assert (ours.id, ours.recorded, ours.deadline) == (machine["instance_id"], True, machine["deadline"])
    assert ours.price_per_h == pytest.approx(machine["price_per_h"])
    assert (other.price_per_h, other.recorded) == (on_demand_per_h("g5.xlarge", REGION).per_h, False)
    shutil.rmtree(rig.cli.folder / "artifacts")
    assert not any(each.recorded for each in our_resources(run_of(rig)))


# The outside timer


def test_the_timer_has_no_secret_on_its_command_line_and_ends_the_machine(rig: AwsRig) -> None:
    machine = rig.launch("--max-minutes", "30").document["machine"]
    (argv,) = rig.timers
    assert SECRET not in " ".join(argv)
    assert argv[1:] == [
        *("-m", "builder", "ec2", "terminate", machine["name"]),
        *("--yes", "--at", machine["deadline"], "--quiet"),
    ]
    before_s = rig.clock.unix_s()
    assert rig.run(*argv[3:]).code == 0
    assert rig.clock.unix_s() >= (unix_s_of(machine["deadline"]) or 0) > before_s
    rig.assert_nothing_left()


def test_the_timer_goes_early_when_nothing_is_left_and_tries_on_while_aws_is_away(rig: AwsRig) -> None:
    machine = rig.launch("--max-minutes", "30").document["machine"]
    rig.run("ec2", "terminate", "--yes")
    before_s = rig.clock.unix_s()
    assert rig.run(*rig.timers[0][3:]).code == 0
    assert rig.clock.unix_s() - before_s < 60
    machine = rig.launch("--max-minutes", "30").document["machine"]
    rig.clock.advance(1790)
    rig.fail("*", *["refused"] * 40)
    assert rig.run(*rig.timers[1][3:]).code == 0
    assert rig.clock.unix_s() > (unix_s_of(machine["deadline"]) or 0)
    rig.assert_nothing_left()


@pytest.mark.parametrize("at", ["", "soon", "2026-13-01T00:00:00Z", "2026-01-02T00:00:01Z"])
def test_bad_instants_are_refused(rig: AwsRig, at: str) -> None:
    assert rig.run("ec2", "terminate", "whisper-1", "--yes", "--at", at).code == 2


def test_an_instant_wants_a_name_and_yes(rig: AwsRig) -> None:
    at = iso_time(rig.clock.unix_s())
    assert rig.run("ec2", "terminate", "--yes", "--at", at).code == 2
    assert rig.run("ec2", "terminate", "whisper-1", "--at", at).code == 2


def test_the_timer_outlives_its_parent_with_a_private_log(tmp_path: Path) -> None:
    log = tmp_path / "ec2" / "x.timer.log"
    program = "import os; print(os.getsid(0) == os.getpid(), os.environ['GIVEN'], flush=True)"
    spawn([sys.executable, "-c", program], {**os.environ, "GIVEN": "by environment"}, tmp_path, log)
    until_s = time.monotonic() + 20
    while "by environment" not in log.read_text() and time.monotonic() < until_s:
        time.sleep(0.02)
    assert log.read_text() == "True by environment\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_no_outside_timer_if_none_is_wanted(rig: AwsRig) -> None:
    assert rig.launch("--no-outside-timer").code == 0
    assert rig.timers == []


# The caller's address


@pytest.fixture
def told() -> Iterator[tuple[str, dict[str, Any]]]:
    """An address service that says what a test wants."""
    says: dict[str, Any] = {"status": 200, "text": "8.8.4.4\n"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = str(says["text"]).encode()
            self.send_response(says["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", says
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_callers_address_is_a_network_of_one(told: tuple[str, dict[str, Any]]) -> None:
    url, says = told
    assert allowed_network(None, url=url) == "8.8.4.4/32"
    says["text"] = "2606:4700::1111"
    assert allowed_network(None, url=url) == "2606:4700::1111/128"
    for status, text in ((200, "<html>"), (500, "8.8.4.4"), (200, "10.0.0.1"), (200, "")):
        says.update(status=status, text=text)
        with pytest.raises(BadAnswerError, match="no public address"):
            allowed_network(None, url=url)
    with pytest.raises(NetworkError):
        allowed_network(None, url="http://127.0.0.1:9/")


def test_networks_that_may_be_named() -> None:
    assert allowed_network("203.0.113.7") == "203.0.113.7/32"
    assert allowed_network("203.0.113.7/24") == "203.0.113.0/24"
    assert allowed_network("10.0.0.0/8") == "10.0.0.0/8"
    assert allowed_network("2001:db8::1") == "2001:db8::1/128"
    for everyone in ("0.0.0.0/0", "::/0", "0.0.0.0/7", "8000::/1"):
        with pytest.raises(UsageError, match="everyone"):
            allowed_network(everyone)
        assert allowed_network(everyone, allow_everyone=True) == everyone
    assert allowed_network(None, allow_everyone=True) == "0.0.0.0/0"
    for bad in ("", "me", "300.0.0.1", "10.0.0.0/33", "1.2.3.4, 5.6.7.8"):
        with pytest.raises(UsageError, match="not allowed"):
            allowed_network(bad)


def test_an_address_of_version_6_gets_rules_of_its_own(rig: AwsRig) -> None:
    assert rig.run("ec2", "launch", "--yes", "--json", "--allow-cidr", "2001:db8::1").code == 0
    rules = form(rig, "AuthorizeSecurityGroupIngress")
    assert {value for key, value in rules.items() if key.endswith("CidrIpv6")} == {"2001:db8::1/128"}


# AWS's own variables


def test_an_endpoint_of_ones_own_is_asked(rig: AwsRig) -> None:
    for name, service in (("AWS_ENDPOINT_URL", "sts"), ("AWS_ENDPOINT_URL_EC2", "ec2")):
        from builder.aws.session import client

        made = client(run_of(rig, **{name: "http://127.0.0.1:9"}), service)
        assert made.meta.endpoint_url == "http://127.0.0.1:9"
        assert made.meta.config.retries["total_max_attempts"] == 1


def test_messages_are_one_line_without_secrets(rig: AwsRig) -> None:
    rig.fail("DescribeImages", f"Odd{SECRET}")
    with pytest.raises(Exception, match="hidden") as caught:
        Aws(run_of(rig)).call("DescribeImages")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
