"""doctor: each thing that can be amiss is found, named and given a remedy; and it changes nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.setup.doctor_remote import skew_check
from tests.builder_harness import Cli
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.graphql_facade import GraphQlFacade
from tests.fakes.runpod.v1_facade import V1Facade
from tests.fakes.stub_docker import StubDocker


@pytest.fixture(scope="module")
def server() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.add_operations(V1Facade(plane.pods, lambda: plane.is_v1_retired).operations())
    plane.add_operations(GraphQlFacade(plane.pods, lambda: plane.is_graphql_retired, lambda call: True).operations())
    with plane:
        yield plane


@pytest.fixture
def plane(server: ControlPlane) -> ControlPlane:
    server.reset()
    return server


@pytest.fixture
def docker(tmp_path: Path) -> StubDocker:
    return StubDocker(tmp_path / "stub")


@pytest.fixture
def cli(plane: ControlPlane, docker: StubDocker, tmp_path: Path) -> Cli:
    folder = tmp_path / "project"
    folder.mkdir()
    cli = Cli(plane.environ(**docker.environ), folder, plane.clock)
    assert cli.run("setup", "--non-interactive").code == 0
    return cli


def findings(cli: Cli) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for check in cli.run("doctor", "--json").document["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def states(cli: Cli, name: str) -> list[str]:
    return [check["state"] for check in findings(cli)[name]]


def test_a_healthy_place_has_no_failure_and_nothing_is_changed(
    cli: Cli, plane: ControlPlane, docker: StubDocker
) -> None:
    outcome = cli.run("doctor", "--json")
    assert outcome.code == 0, outcome.out
    by_name = {check["name"]: check["state"] for check in outcome.document["checks"]}
    for name in ("packages", "env file", "settings", "docker", "docker engine", "REST API"):
        assert by_name[name] == "ok", name
    assert by_name["AWS"] == "skip"
    assert plane.mutations() == []
    assert set(docker.verbs) <= {"version", "manifest"}
    assert plane.api_key not in outcome.out + outcome.err
    table = cli.run("doctor")
    assert "failed" in table.out and "accepted" in table.out


def test_whether_a_key_may_write_is_said_to_be_unknown(cli: Cli) -> None:
    accepted, writes = findings(cli)["API key"]
    assert (accepted["state"], writes["state"]) == ("ok", "skip")
    assert "only when something is changed" in writes["says"]


def test_a_refused_key_fails_with_a_remedy(cli: Cli) -> None:
    cli.environ["RUNPOD_API_KEY"] = "rpa_wrong0000000000000000"
    outcome = cli.run("doctor", "--json")
    check = next(each for each in outcome.document["checks"] if each["name"] == "API key")
    assert (outcome.code, check["state"]) == (1, "fail")
    assert check["remedy"]
    assert "rpa_wrong" not in outcome.out + outcome.err


def test_without_a_key_nothing_is_asked_of_runpod(cli: Cli, plane: ControlPlane) -> None:
    del cli.environ["RUNPOD_API_KEY"]
    (cli.folder / ".env").unlink()
    plane.journal.clear()
    found = findings(cli)
    assert found["env file"][0]["state"] == "warn"
    assert found["settings"][0]["state"] == "fail"
    assert found["API key"][0]["state"] == "skip"
    assert list(plane.journal) == []


def test_a_file_that_others_can_read_or_that_is_broken_is_found(cli: Cli) -> None:
    path = cli.folder / ".env"
    path.chmod(0o644)
    assert states(cli, "env file") == ["warn"]
    path.write_text("A='open\n")
    outcome = cli.run("doctor", "--json")
    assert outcome.code == 1
    assert "line 1" in outcome.out


def test_a_file_that_is_in_git_fails(cli: Cli) -> None:
    for command in (["init", "-q"], ["add", ".env"]):
        subprocess.run(["git", "-C", str(cli.folder), *command], check=True, env={"PATH": cli.environ["PATH"]})
    assert states(cli, "env file") == ["ok", "fail"]


def test_docker_is_optional_but_its_absence_is_said(cli: Cli, docker: StubDocker, tmp_path: Path) -> None:
    docker.fail(version="Cannot connect to the Docker daemon. Is the docker daemon running?")
    assert states(cli, "docker engine") == ["warn"]
    cli.environ["PATH"] = str(tmp_path)
    found = findings(cli)
    assert (found["docker"][0]["state"], "not installed" in found["docker"][0]["says"]) == ("warn", True)


@pytest.mark.parametrize(
    ("says", "state"),
    [
        (None, "ok"),
        ("no such manifest: docker.io/me/x:1", "fail"),
        ("errors: denied: requested access to the resource is denied", "warn"),
        ("dial tcp: i/o timeout", "warn"),
    ],
)
def test_the_image_is_looked_up_at_its_registry(cli: Cli, docker: StubDocker, says: str | None, state: str) -> None:
    cli.environ |= {"DOCKER_IMAGE": "me/x", "DOCKER_TAG": "1"}
    docker.fail(**({"manifest": says} if says else {}))
    assert states(cli, "image") == [state]


def test_rest_v1_behind_its_switch_is_warned_of_and_fails_once_retired(cli: Cli, plane: ControlPlane) -> None:
    assert findings(cli)["REST v1"][0]["says"] == "still answers; not needed"
    cli.environ["RUNPOD_API_V1"] = "1"
    found = findings(cli)
    assert (found["API key"][0]["state"], found["REST API"][0]["state"]) == ("ok", "warn")
    plane.retire_v1()
    assert states(cli, "REST v1") == ["fail"]
    del cli.environ["RUNPOD_API_V1"]
    assert findings(cli)["REST v1"][0]["says"] == "retired; not needed"


@pytest.mark.parametrize(("credit", "state"), [(12.5, "ok"), (0.05, "warn"), (0.0, "fail")])
def test_the_balance_is_read_and_judged(cli: Cli, plane: ControlPlane, credit: float, state: str) -> None:
    plane.reset(balance=credit)
    (check,) = findings(cli)["balance"]
    assert check["state"] == state
    assert f"${credit:.2f}" in check["says"]
    assert ("not an hour of the cheapest GPU" in check["says"]) is (state == "warn")


def test_a_missing_token_fails_as_deploy_refuses_it(cli: Cli) -> None:
    path = cli.folder / ".env"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("WHISPER_AUTH_TOKEN=")]
    path.write_text("\n".join(kept) + "\n")
    found = findings(cli)
    (check,) = found["token"]
    assert (check["state"], "deploy refuses" in check["says"]) == ("fail", True)
    assert (found["settings"][0]["state"], found["API key"][0]["state"]) == ("ok", "ok")


def test_without_graphql_only_the_balance_is_unknown(cli: Cli, plane: ControlPlane) -> None:
    plane.retire_graphql()
    found = findings(cli)
    assert found["GraphQL"][0]["state"] == "warn"
    assert "balance" not in found


def test_a_clock_that_is_off_is_a_warning() -> None:
    date = "Thu, 01 Jan 2026 12:00:00 GMT"
    now_s = 1_767_268_800.0
    assert skew_check(date, now_s + 5).state == "ok"
    ahead, behind = skew_check(date, now_s + 300), skew_check(date, now_s - 300)
    assert (ahead.state, "300 s ahead" in ahead.says) == ("warn", True)
    assert "behind" in behind.says
    assert skew_check(None, now_s).state == "skip"
    assert skew_check("yesterday", now_s).state == "skip"


def test_the_json_form_is_one_document(cli: Cli) -> None:
    document = json.loads(cli.run("doctor", "--json", "--quiet").out)
    assert set(document["count"]) == {"ok", "warn", "fail", "skip"}
    assert sum(document["count"].values()) == len(document["checks"])
