"""RunPod and EC2 in one look: check-all, guard, and no secret of AWS in anything that is said or kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws_rig import REGION, SECRET, AwsRig, aws_rig
from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, plane: ControlPlane) -> Iterator[AwsRig]:
    plane.reset()
    with aws_rig(tmp_path, plane.clock, **plane.environ()) as made:
        yield made


def rows(rig: AwsRig) -> dict[str, dict[str, object]]:
    outcome = rig.run("check-all", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["unseen"] == {}
    return {row["kind"]: row for row in outcome.document["resources"]}


def test_a_machine_at_ec2_is_in_the_same_list_as_what_runpod_bills(rig: AwsRig, plane: ControlPlane) -> None:
    body = {"name": "w", "image": "you/w:1", "gpu": {"id": "NVIDIA L4", "count": 1}, "cloud": "SECURE", "disk": 5}
    plane.pods.create({**body, "ports": [], "env": {}})
    launched = rig.launch()
    assert launched.code == 0, launched.err
    plane.clock.advance(600)
    found = rows(rig)
    assert {"pod", "ec2 instance"} == set(found)
    machine = found["ec2 instance"]
    assert float(str(machine["cost_per_hour"])) > 0.5 and machine["since"] and not machine["is_orphan"]
    shown = rig.run("check-all")
    assert "ec2 instance" in shown.out and "machines running: 2" in shown.out


def test_what_is_forgotten_at_ec2_is_told_with_the_command_that_ends_it(rig: AwsRig) -> None:
    name = rig.launch().document["machine"]["name"]
    (rig.cli.folder / "artifacts" / "ec2.json").unlink()
    (rig.cli.folder / "artifacts" / "pending-ec2.json").unlink(missing_ok=True)
    machine = rows(rig)["ec2 instance"]
    assert machine["is_orphan"] and machine["command"] == f"python -m builder ec2 terminate {name}"
    ended = rig.run(*str(machine["command"]).removeprefix("python -m builder ").split(), "--yes")
    assert ended.code == 0, ended.err
    rig.assert_nothing_left()


def test_a_machine_is_seen_though_the_region_was_changed_since(rig: AwsRig) -> None:
    rig.launch()
    rig.cli.environ["AWS_REGION"] = "us-west-2"
    assert rows(rig)["ec2 instance"]["status"] == f"running ({REGION})"


def test_nobody_without_aws_hears_of_it(plane: ControlPlane, tmp_path: Path) -> None:
    plane.reset()
    cli = Cli({**plane.environ(), "HOME": str(tmp_path)}, tmp_path, plane.clock)
    outcome = cli.run("check-all", "--json")
    assert outcome.code == 0 and set(outcome.document["left_out"]) == {"EC2"} and outcome.document["unseen"] == {}


def test_an_aws_that_cannot_be_seen_is_no_empty_one(rig: AwsRig) -> None:
    rig.launch()
    rig.fail("DescribeInstances", *["UnauthorizedOperation"] * 9)
    outcome = rig.run("check-all", "--json", "--fail-if-running")
    assert outcome.code == 1 and "EC2" in outcome.document["unseen"]


def test_the_guard_ends_machines_past_their_deadline_and_no_others(rig: AwsRig) -> None:
    rig.launch("--max-minutes", "60")
    assert rig.run("guard", "--kill", "--json").document["ec2"] == []
    rig.clock.advance(1.5 * HOUR_S)
    dry = rig.run("guard", "--json", "--fail-if-any")
    assert dry.code == 1 and dry.document["due"] == 1 and rig.instances
    killed = rig.run("guard", "--kill", "--json")
    assert killed.code == 0 and [each["done"] for each in killed.document["ec2"]] == ["terminated"]
    rig.assert_nothing_left()


def test_a_guard_that_cannot_look_at_ec2_says_so(rig: AwsRig) -> None:
    rig.launch()
    rig.fail("DescribeInstances", *["UnauthorizedOperation"] * 9)
    outcome = rig.run("guard", "--kill")
    assert outcome.code == 1 and "EC2" in outcome.err


@pytest.mark.parametrize("trouble", ["", "UnauthorizedOperation", f"Odd{SECRET}", "lost", "broken", "refused"])
def test_no_verb_tells_a_secret_of_aws(tmp_path: Path, trouble: str, capfd: pytest.CaptureFixture[str]) -> None:
    with ControlPlane() as plane, aws_rig(tmp_path, PlaneClock(), **plane.environ()) as rig:
        verbs = ("ec2 launch --dry-run", "ec2 launch --yes", "ec2 status", "check-all", "guard --kill", "config show")
        for number, verb in enumerate((*verbs, "ec2 terminate --yes", "ec2 terminate --all-mine --yes")):
            rig.calm()
            if trouble and number:
                rig.fail("*", None, *[trouble] * 60)
            address = ["--allow-cidr", "203.0.113.7"] if "launch" in verb else []
            outcome = rig.run(*verb.split(), *address, *(["--json"] if number % 2 else []))
            said = outcome.out + outcome.err + "".join(capfd.readouterr())
            assert "Traceback" not in said, verb
            assert SECRET not in said and "PRIVATE KEY" not in said, f"{verb} told a secret"
        for path in (rig.cli.folder / "artifacts").rglob("*"):
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                assert SECRET not in text and plane.api_key not in text, path.name
                assert path.suffix == ".pem" or "PRIVATE KEY" not in text
                assert path.stat().st_mode & 0o077 == 0, f"{path.name} is open to others"
        plane.assert_no_secret(SECRET)


def test_the_diary_tells_of_ec2_too(rig: AwsRig) -> None:
    rig.launch()
    rig.run("ec2", "terminate", "--yes")
    lines = (rig.cli.folder / "artifacts" / "events.jsonl").read_text().splitlines()
    assert {"aws"} == {json.loads(line)["provider"] for line in lines}


def test_the_doctor_asks_who_the_key_belongs_to(rig: AwsRig) -> None:
    def aws() -> list[tuple[str, str]]:
        checks = rig.run("doctor", "--json").document["checks"]
        return [(each["state"], each["says"]) for each in checks if each["name"] == "AWS"]

    assert aws()[-1] == ("ok", f"account 123456789012, region {REGION}")
    rig.fail("GetCallerIdentity", "InvalidClientTokenId")
    state, says = aws()[-1]
    assert state == "warn" and says
    rig.cli.environ["PATH"] = "/nonexistent"
    assert any("ssh" in says for _, says in aws())
