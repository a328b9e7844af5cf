"""check-all, guard and cost against a whole account over HTTP, in virtual time."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from builder.money.check_all import NOTHING
from builder.state import State, iso_time
from tests.aws_rig import aws_rig
from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.endpoint_bodies import checked_template

TOKEN = "token-of-the-pods-0123456789"
HOUR_S, MIN_S = 3600.0, 60.0
MANY = 99


class Account(ControlPlane):
    """A plane whose pods answer /status as scripted; `statuses` by pod id, `seen` what they were shown."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: dict[str, dict[str, Any] | None] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.add_routes([web.get("/scripted/{pod}/{port}/status", self._status)])

    def environ(self, **extra: str) -> dict[str, str]:
        template = f"{self.url}/scripted/{{pod}}/{{port}}"
        return super().environ(**{"RUNPOD_PROXY_TEMPLATE": template, **extra})

    async def _status(self, request: web.Request) -> web.Response:
        pod_id = request.match_info["pod"]
        token = request.headers.get("Authorization")
        self.seen.append((pod_id, token))
        status = self.statuses.get(pod_id)
        if status is None:
            return web.Response(status=502, text="<html>Bad gateway</html>")
        return web.json_response(status if token == f"Bearer {TOKEN}" else {"status": "healthy"})

    def rent(self, name: str = "whisper-1", *, volume_gb: int = 0, active: int = 0, **env: str) -> str:
        """A pod of the builder's that runs."""
        body: dict[str, Any] = {
            "name": name,
            "image": "you/whisper:1",
            "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1},
            "cloud": "SECURE",
            "disk": 5,
            "ports": ["9090/http", "9999/http"],
            "env": {"BUILDER_ID": "b1", "WHISPER_AUTH_TOKEN": TOKEN, **env},
        }
        if volume_gb:
            body["mounts"] = {"persistent": {"size": volume_gb, "path": "/workspace"}}
        pod = self.pods.create(body)
        self.clock.advance(60)
        self.pods.sweep()
        assert self.pods.get(pod.id).status == "RUNNING"
        self.serve(pod.id, active)
        return pod.id

    def serve(self, pod_id: str, active: int, *, decoded_s_ago: float | None = None) -> None:
        """The pod serves so many streams now."""
        self.statuses[pod_id] = {
            "status": "healthy",
            "sessions": {"active": active, "max": 4},
            "files": {"active": 0, "uploads": 0},
            "engine": {"last_decode_seconds_ago": decoded_s_ago},
        }

    def actions(self) -> list[tuple[str, str]]:
        """What was asked to change: method and path."""
        return [(entry.method, entry.path) for entry in self.mutations()]


@pytest.fixture(scope="module")
def shared_plane() -> Iterator[Account]:
    plane = Account()
    with plane:
        yield plane


@pytest.fixture
def plane(shared_plane: Account) -> Account:
    shared_plane.reset()
    shared_plane.statuses.clear()
    shared_plane.seen.clear()
    return shared_plane


@pytest.fixture
def cli(plane: Account, tmp_path: Path) -> Cli:
    return Cli(plane.environ(WHISPER_AUTH_TOKEN=TOKEN), tmp_path, plane.clock)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "artifacts")


def record(plane: Account, state: State, pod_id: str) -> None:
    """As deploy writes it down."""
    pod = plane.pods.get(pod_id)
    state.event(pod.created_s, "created", "pod", pod_id, name=pod.name, cost_per_hour=pod.price)
    state.write("pod", {"pod_id": pod_id, "pod_name": pod.name, "is_spot": False})


# check-all


def test_an_empty_account_is_said_in_a_sentence(cli: Cli) -> None:
    outcome = cli.run("check-all", "--fail-if-running")
    assert (outcome.code, outcome.out) == (0, NOTHING + "\n"), outcome.err


def test_all_that_costs_is_listed_with_the_command_that_ends_it(plane: Account, cli: Cli, state: State) -> None:
    mine, forgotten = plane.rent(), plane.rent("whisper-2", volume_gb=50)
    stopped = plane.rent("whisper-3", volume_gb=50)
    plane.pods.act(stopped, "stop")
    record(plane, state, mine)
    state.begin_pending("whisper-9", plane.clock.unix_s())
    plane.pods.account.add_volume("vol1", "models", 100, "EU-RO-1")
    outcome = cli.run("check-all", "--json", "--fail-if-running")
    assert outcome.code == 1, outcome.err
    rows = {row["id"]: row for row in outcome.document["resources"]}
    price = plane.pods.get(mine).price
    assert rows[mine]["cost_per_hour"] == pytest.approx(price + 5 * 0.1 / 730, abs=1e-5)
    assert rows[mine]["reasons"] == []
    assert rows[forgotten]["reasons"] == ["made by the builder, but not recorded here"]
    assert "pays for its disk of 50 GB" in rows[stopped]["reasons"][1]
    assert rows["vol1"]["cost_per_month"] == 7.0
    assert outcome.document["totals"]["running"] == 2
    assert list(outcome.document["pending"]) == ["whisper-9"]
    text = cli.run("check-all").out
    assert all(f"python -m builder terminate {each}" in text for each in (mine, forgotten, stopped))
    assert f"curl -sS -H @- -X DELETE {plane.url}/v2/network-volumes/vol1" in text
    assert plane.actions() == []
    plane.assert_contract()


def test_the_plane_agrees_with_the_sum_per_hour(plane: Account, cli: Cli) -> None:
    plane.rent(volume_gb=100)
    stopped = plane.rent("whisper-2", volume_gb=100)
    plane.pods.act(stopped, "stop")
    totals = cli.run("check-all", "--json").document["totals"]
    assert totals["cost_per_hour"] == pytest.approx(plane.pods.spend_per_h, abs=0.005)
    assert totals["cost_per_day"] == pytest.approx(24 * totals["cost_per_hour"], abs=0.001)


def test_storage_alone_is_not_running(plane: Account, cli: Cli) -> None:
    plane.pods.account.add_volume("vol1", "models", 100, "EU-RO-1")
    outcome = cli.run("check-all", "--fail-if-running")
    assert outcome.code == 0 and "machines running: 0" in outcome.out


def test_every_command_of_check_all_ends_what_it_is_for(plane: Account, cli: Cli, state: State) -> None:
    body: dict[str, Any] = {
        "type": "QUEUE",
        "image": "you/whisper:1",
        "gpu": {"pools": ["AMPERE_24"], "count": 1},
        "workers": {"min": 1, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    }
    plane.endpoints.create({**body, "name": "mine -fb", "env": {"BUILDER_ID": "b1"}})
    plane.endpoints.create({**body, "name": "theirs", "env": {}})
    template = {"name": "old one", "image": "you/w:1", "env": {"BUILDER_ID": "b2"}, "disk": 5, "serverless": True}
    plane.endpoints.add_template(checked_template(template, plane.pods.account))
    plane.rent()
    state.write("pod", {"pod_id": "gone9"})
    state.write("endpoint", {"endpoint_id": "e9", "name": "w"})
    state.begin_pending("old-name", plane.clock.unix_s() - HOUR_S, "pending-endpoints")
    document = cli.run("check-all", "--json").document
    assert document["totals"]["running"] == 3 and document["pending"] == {}
    assert state.pending("pending-endpoints") == {}
    for row in document["resources"]:
        assert cli.run(*shlex.split(row["command"].removeprefix("python -m builder ")), "--yes").code == 0, row
    plane.clock.advance(120)
    left = cli.run("check-all", "--json").document
    assert left["resources"] == [] and left["totals"]["cost_per_hour"] == 0


def test_what_cannot_be_seen_does_not_pass_for_nothing(plane: Account, cli: Cli, state: State) -> None:
    plane.faults.fail("GET /v2/serverless", status=403, times=MANY)
    outcome = cli.run("check-all", "--fail-if-running")
    assert outcome.code == 1 and "endpoints could not be looked at" in outcome.err
    assert "Nothing that was looked at is billed." in outcome.out
    # Neither gone, nor without an endpoint: nobody can tell.
    state.write("endpoint", {"endpoint_id": "e9", "name": "w", "template_id": "t9"})
    state.begin_pending("whisper-7", plane.clock.unix_s(), "pending-endpoints")
    blind = cli.run("check-all")
    assert "GONE" not in blind.out and "Forget" not in blind.out and "whether it exists is not known" in blind.err
    plane.faults.fail("GET /v2/pods", status=503, times=MANY)
    state.write("pod", {"pod_id": "p9"})
    state.begin_pending("whisper-8", plane.clock.unix_s() - HOUR_S)
    plane.faults.restore()
    plane.faults.fail("GET /v2/pods", status=503, times=MANY)
    plane.pods.account.add_volume("vol1", "models", 100, "EU-RO-1")
    outcome = cli.run("check-all", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "server_error"
    # Nor does it hide the rest, nor make what is recorded gone.
    assert [row["kind"] for row in outcome.document["resources"]] == ["network volume", "endpoint"]
    assert "pods" in outcome.document["unseen"] and "whisper-8" in state.pending()


def test_one_answer_that_makes_no_sense_hides_nothing_else(plane: Account, cli: Cli) -> None:
    plane.rent()
    odd = {"id": "e1", "name": "n", "workers": {"min": "x", "max": 3}, "env": {"BUILDER_ID": "b"}}
    plane.faults.fail("GET /v2/serverless", status=200, body={"endpoints": [odd]})
    outcome = cli.run("check-all", "--json")
    assert outcome.code == 0 and "endpoints" in outcome.document["unseen"]
    assert [row["kind"] for row in outcome.document["resources"]] == ["pod"]


# guard


def test_a_guard_that_sees_no_pods_still_ends_overdue_machines(tmp_path: Path) -> None:
    with ControlPlane() as plane, aws_rig(tmp_path, plane.clock, **plane.environ()) as rig:
        assert rig.launch("--max-minutes", "60").code == 0
        rig.clock.advance(1.5 * HOUR_S)
        plane.faults.fail("GET /v2/pods", status=503, times=MANY)
        outcome = rig.run("guard", "--kill", "--json")
        assert outcome.code == 1 and "terminated" in outcome.err, outcome.err
        rig.assert_nothing_left()


def test_a_dry_run_tells_and_touches_nothing(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent(active=1)
    plane.clock.advance(3 * HOUR_S)
    outcome = cli.run("guard", "--json")
    assert outcome.code == 0, outcome.err
    (decision,) = outcome.document["pods"]
    assert (decision["pod_id"], decision["verdict"], decision["rule"]) == (pod_id, "kill", "age")
    assert decision["done"] is None and plane.actions() == []
    assert cli.run("guard", "--fail-if-any").code == 1
    assert "dry run" in cli.run("guard").out


@pytest.mark.parametrize(("options", "left"), [(["--kill"], "EXITED"), (["--kill", "--terminate"], None)])
def test_what_is_due_is_ended_and_written_down(
    plane: Account, cli: Cli, state: State, options: list[str], left: str | None
) -> None:
    pod_id = plane.rent(active=1)
    plane.clock.advance(3 * HOUR_S)
    young = plane.rent("whisper-2", active=1)
    outcome = cli.run("guard", "--json", *options)
    assert outcome.code == 0, outcome.err
    done = {pod["pod_id"]: pod["done"] for pod in outcome.document["pods"]}
    assert done == {pod_id: "stopped" if left else "terminated", young: None}
    assert {pod.id: pod.status for pod in plane.pods.list()}.get(pod_id) == left
    assert plane.pods.get(young).status == "RUNNING"
    last = list(state.events())[-1]
    assert (last["action"], last["resource_id"], last["details"]["rule"]) == ("guarded", pod_id, "age")
    plane.assert_contract()


def test_idling_is_seen_over_several_runs(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent(active=1)
    plane.clock.advance(25 * MIN_S)
    assert cli.run("guard", "--kill", "--json").document["pods"][0]["rule"] == "none"
    plane.serve(pod_id, 0)
    for _ in range(5):
        assert cli.run("guard", "--kill", "--json").document["pods"][0]["done"] is None
        plane.clock.advance(6 * MIN_S)
    (pod,) = cli.run("guard", "--kill", "--json").document["pods"]
    assert (pod["rule"], pod["done"]) == ("idle", "stopped")
    assert set(plane.seen) == {(pod_id, f"Bearer {TOKEN}")}


def test_a_busy_gpu_or_a_recent_decode_is_not_idle(plane: Account, cli: Cli) -> None:
    busy, recent = plane.rent(), plane.rent("whisper-2")
    plane.pods.get(busy).gpu_util = 40
    for _ in range(9):
        plane.serve(recent, 0, decoded_s_ago=120)
        cli.run("guard", "--kill")
        plane.clock.advance(6 * MIN_S)
    assert plane.actions() == []


def test_a_dead_pod_is_stopped_after_half_an_hour(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent()
    plane.statuses[pod_id] = None
    plane.clock.advance(25 * MIN_S)
    assert cli.run("guard", "--kill", "--json").document["pods"][0]["verdict"] == "warn"
    plane.clock.advance(31 * MIN_S)
    assert cli.run("guard", "--kill", "--json").document["pods"][0]["rule"] == "health"
    assert plane.pods.get(pod_id).status == "EXITED"


def test_others_pods_are_left_alone_and_never_see_our_secret(plane: Account, cli: Cli) -> None:
    foreign = plane.rent(active=1)
    del plane.pods.get(foreign).env["BUILDER_ID"]
    plane.pods.get(foreign).env["WHISPER_AUTH_TOKEN"] = ""
    plane.clock.advance(3 * HOUR_S)
    assert cli.run("guard", "--kill", "--json").document["pods"][0]["rule"] == "foreign"
    assert plane.seen == [] and plane.actions() == []
    assert cli.run("guard", "--kill", "--all", "--json").document["pods"][0]["done"] == "stopped"
    assert plane.seen == [(foreign, None)]


def test_a_pod_without_our_port_is_judged_by_its_gpu_alone(plane: Account, cli: Cli) -> None:
    foreign = plane.rent()
    pod = plane.pods.get(foreign)
    pod.env.clear()
    pod.ports[:] = ["8888/http"]
    plane.clock.advance(25 * MIN_S)
    cli.run("guard", "--kill", "--all")
    plane.clock.advance(30 * MIN_S)
    assert cli.run("guard", "--kill", "--all", "--json").document["pods"][0]["rule"] == "idle"
    assert plane.seen == [] and plane.pods.get(foreign).status == "EXITED"


def test_locked_pods_are_warned_of(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent(POD_DEADLINE=iso_time(plane.clock.unix_s()))
    plane.pods.get(pod_id).locked = True
    plane.clock.advance(9 * HOUR_S)
    (pod,) = cli.run("guard", "--kill", "--json").document["pods"]
    assert (pod["verdict"], pod["rule"]) == ("warn", "deadline") and plane.actions() == []


def test_a_pod_that_will_not_stop_is_an_error(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent()
    plane.clock.advance(3 * HOUR_S)
    plane.faults.fail("POST /v2/pods/{id}/action", status=409, times=MANY)
    outcome = cli.run("guard", "--kill")
    assert outcome.code == 1 and f"not ended: {pod_id}" in outcome.err and "builder check-all" in outcome.err


def test_a_guard_that_sees_nothing_fails(plane: Account, cli: Cli) -> None:
    plane.faults.fail("GET /v2/pods", status=503, times=MANY)
    assert cli.run("guard", "--kill").code == 1
    plane.faults.restore()
    plane.faults.expire_key()
    assert cli.run("guard", "--kill").code == 4


class ImpatientClock(PlaneClock):
    """Ctrl-C once `until_s` seconds have passed."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.until_s = until_s

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.monotonic_s() > self.until_s:
            raise KeyboardInterrupt


def test_every_survives_faults_says_so_and_acts_once(plane: Account, tmp_path: Path) -> None:
    clock = ImpatientClock(2.5 * HOUR_S)
    plane.reset(clock=clock)
    pod_id = plane.rent(active=1)
    plane.faults.fail("GET /v2/pods", status=503, times=20)
    cli = Cli(plane.environ(), tmp_path, clock)
    outcome = cli.run("guard", "--kill", "--every", "5")
    assert outcome.code == 130
    assert "the pods cannot be seen" in outcome.err and "nothing is guarded now" in outcome.err
    assert plane.actions() == [("POST", f"/v2/pods/{pod_id}/action")]
    assert plane.pods.get(pod_id).status == "EXITED"


def test_every_ends_with_a_key_that_is_refused(plane: Account, cli: Cli) -> None:
    plane.faults.expire_key()
    assert cli.run("guard", "--kill", "--every", "5").code == 4


def test_no_secret_reaches_output_or_files(plane: Account, cli: Cli, tmp_path: Path) -> None:
    plane.rent(active=1)
    plane.clock.advance(3 * HOUR_S)
    said = [cli.run(*verb) for verb in (["check-all", "--json"], ["guard", "--kill", "--json"], ["cost", "--json"])]
    text = "".join(each.out + each.err for each in said)
    text += "".join(path.read_text() for path in (tmp_path / "artifacts").iterdir())
    assert TOKEN not in text and plane.api_key not in text
    plane.assert_no_secret()


# cost


def test_the_diary_agrees_with_the_bill_to_the_cent(plane: Account, cli: Cli, state: State) -> None:
    pod_id = plane.rent(active=1)
    record(plane, state, pod_id)
    plane.clock.advance(90 * MIN_S)
    assert cli.run("stop", pod_id).code == 0
    plane.clock.advance(5 * HOUR_S)
    assert cli.run("start", pod_id).code == 0
    plane.clock.advance(45 * MIN_S)
    assert cli.run("terminate", pod_id, "--yes").code == 0
    plane.clock.advance(HOUR_S)
    document = cli.run("cost", "--reconcile", "--days", "2", "--json").document
    (row,) = document["pods"]
    assert row["estimate"] > 0.5
    assert row["billed"] == pytest.approx(row["estimate"], abs=0.005)
    assert document["totals"]["difference"] == pytest.approx(0, abs=0.005)
    assert document["burn"]["per_hour"] == 0
    text = cli.run("cost", "--reconcile").out
    assert "billed $" in text and "difference of" in text
    plane.assert_contract()


def test_a_pod_that_stopped_itself_shows_in_the_difference(plane: Account, cli: Cli, state: State) -> None:
    pod_id = plane.rent()
    record(plane, state, pod_id)
    plane.clock.advance(HOUR_S)
    plane.pods.act(pod_id, "stop")
    plane.clock.advance(5 * HOUR_S)
    (row,) = cli.run("cost", "--reconcile", "--json").document["pods"]
    assert row["note"].startswith("no stop on record") and row["difference"] < -1
    assert cli.run("cost", "--pod", pod_id, "--json").document["pods"][0]["billed"] is None


def test_costs_are_told_without_a_balance(plane: Account, cli: Cli) -> None:
    plane.retire_graphql()
    outcome = cli.run("cost")
    assert outcome.code == 0 and outcome.out.startswith("No costs of pods since")
    assert "the balance is not known" in outcome.err
    assert json.loads(cli.run("cost", "--json").out)["credit"] is None


def test_the_credit_is_told_with_the_hours_it_lasts(plane: Account, cli: Cli) -> None:
    plane.rent()
    document = cli.run("cost", "--json").document
    assert document["credit"] == pytest.approx(plane.pods.balance, abs=0.01)
    assert document["hours_left"] == pytest.approx(plane.pods.balance / plane.pods.spend_per_h, abs=0.2)


def test_costs_of_a_pod_that_nobody_knows(cli: Cli) -> None:
    assert cli.run("cost", "--pod", "nobody").code == 3


def test_a_guard_that_can_write_nothing_still_ends_what_is_due(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent()
    plane.clock.advance(3 * HOUR_S)
    (cli.folder / "artifacts").write_text("not a folder")
    outcome = cli.run("guard", "--kill")
    assert (outcome.code, plane.pods.get(pod_id).status) == (0, "EXITED")
    assert "is not remembered" in outcome.err


def test_a_guard_lives_with_a_damaged_diary(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent()
    plane.clock.advance(3 * HOUR_S)
    (cli.folder / "artifacts").mkdir()
    (cli.folder / "artifacts" / "events.jsonl").write_text('{"details": "x", "resource_id": 1}\n[]\nnonsense\n')
    (cli.folder / "artifacts" / "guard.json").write_text("[" * 100_000)
    assert cli.run("guard", "--kill").code == 0
    assert plane.pods.get(pod_id).status == "EXITED"


ODD_DEADLINE = "9999-12-31T23:59:59-23:00"


@pytest.mark.parametrize(
    "odd_env", [{"POD_DEADLINE": ODD_DEADLINE}, {"HEALTH_CHECK_PORT": "9" * 5000}, {"POD_IDLE_STOP_MIN": "9" * 5000}]
)
def test_odd_words_in_a_pod_blind_nobody(plane: Account, cli: Cli, odd_env: dict[str, str]) -> None:
    odd, late = plane.rent(), plane.rent("whisper-2")
    plane.pods.get(odd).env.update(odd_env)
    plane.clock.advance(3 * HOUR_S)
    assert cli.run("check-all").code == cli.run("status", odd).code == 0
    outcome = cli.run("guard", "--kill", "--json")
    assert [(pod["pod_id"], pod["done"]) for pod in outcome.document["pods"]] == [(odd, "stopped"), (late, "stopped")]
    assert outcome.code == 0


def test_a_pod_that_cannot_be_judged_is_a_problem_and_the_others_are_ended(plane: Account, cli: Cli) -> None:
    odd, late = plane.rent(), plane.rent("whisper-2")
    plane.clock.advance(3 * HOUR_S)
    shown = plane.pods.get(odd)
    shown.id = "a/b"
    outcome = cli.run("guard", "--kill", "--json")
    assert outcome.code == 1 and "a/b: cannot be judged: 'a/b' cannot be the id" in outcome.problem["error"]
    pods = {pod["pod_id"]: pod for pod in outcome.document["pods"]}
    assert (pods["a/b"]["rule"], pods["a/b"]["done"]) == ("odd", None) and pods["a/b"]["problem"]
    assert pods[late]["done"] == "stopped" and plane.pods.get(late).status == "EXITED"


def test_a_pod_with_odd_figures_is_ended_at_its_deadline(plane: Account, cli: Cli) -> None:
    pod_id = plane.rent(POD_DEADLINE=iso_time(plane.clock.unix_s()))
    plane.statuses[pod_id] = {"sessions": {"active": 10**400}, "engine": {"last_decode_seconds_ago": 10**400}}
    plane.clock.advance(HOUR_S)
    (pod,) = cli.run("guard", "--kill", "--json").document["pods"]
    assert (pod["rule"], pod["done"]) == ("deadline", "stopped")
