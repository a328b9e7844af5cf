"""Start, stop, restart and terminate against the fake control plane: what they cost, refuse and verify."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.api.models import Pod
from builder.errors import BudgetError
from builder.pods.operate import new_deadline
from builder.state import iso_time
from tests.builder_pods import TOKEN, Bench, pod_bench

NOW_S = 1_790_000_000.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pod_bench(tmp_path) as made:
        yield made
        made.plane.assert_contract()
        made.plane.assert_no_secret(TOKEN)


def pod_with(deadline: str | None) -> Pod:
    env = {} if deadline is None else {"POD_DEADLINE": deadline}
    return Pod(id="p1", name="n", status="EXITED", env=env)


def test_a_deadline_that_passed_or_is_near_must_be_renewed() -> None:
    for ends_s in (NOW_S - 1, NOW_S + 599):
        with pytest.raises(BudgetError, match="would stop itself"):
            new_deadline(pod_with(iso_time(ends_s)), NOW_S, None, is_asked=False)
        assert new_deadline(pod_with(iso_time(ends_s)), NOW_S, 60, is_asked=False) == iso_time(NOW_S + 3600)


def test_a_far_deadline_is_kept_unless_an_option_says_otherwise() -> None:
    far = pod_with(iso_time(NOW_S + 7200))
    assert new_deadline(far, NOW_S, None, is_asked=False) is None
    assert new_deadline(far, NOW_S, 60, is_asked=False) is None
    assert new_deadline(far, NOW_S, 60, is_asked=True) == iso_time(NOW_S + 3600)


def test_a_pod_without_a_deadline_gets_one_if_there_is_a_limit() -> None:
    assert new_deadline(pod_with(None), NOW_S, None, is_asked=False) is None
    assert new_deadline(pod_with(None), NOW_S, 60, is_asked=False) == iso_time(NOW_S + 3600)


def test_start_renews_the_deadline_and_keeps_the_rest_of_the_environment(bench: Bench) -> None:
    pod = bench.add_stopped(env={"POD_DEADLINE": iso_time(bench.clock.unix_s() + 80)})
    refused = bench.cli.run("start", "--json")
    assert refused.code == 6 and "deadline" in refused.problem["error"] and "--max-minutes" in refused.problem["hint"]
    assert bench.plane.mutations() == []
    outcome = bench.cli.run("start", "--max-minutes", "120", "--json")
    deadline = iso_time(bench.clock.unix_s() + 7200)
    assert outcome.code == 0 and outcome.document["deadline"] == deadline
    env = bench.plane.pods.get(pod.id).env
    assert env == {"BUILDER_ID": "b-1", "WHISPER_AUTH_TOKEN": TOKEN, "KEPT": "as it is", "POD_DEADLINE": deadline}
    assert bench.recorded is not None and bench.recorded["deadline"] == deadline
    assert bench.events() == ["started"]
    assert TOKEN not in outcome.out + outcome.err


def test_start_waits_if_asked_and_leaves_a_running_pod_alone(bench: Bench) -> None:
    bench.add_stopped()
    outcome = bench.cli.run("start", "--wait", "--json")
    assert outcome.code == 0 and list(outcome.document["wait"]["rungs"])[-1] == "ready"
    before = len(bench.plane.mutations())
    again = bench.cli.run("start", "--wait", "--json")
    assert again.code == 0 and again.document["action"] == "none" and "already" in again.err
    assert len(bench.plane.mutations()) == before


def test_a_host_without_a_free_gpu_is_named_with_the_way_out(bench: Bench) -> None:
    bench.add_stopped()
    bench.plane.pods.refuse_starts()
    outcome = bench.cli.run("start", "--json")
    assert outcome.code == 5 and "no GPU is free on its host" in outcome.problem["error"]
    assert "deploy --replace" in outcome.problem["hint"]


def test_a_start_whose_answer_is_lost_happens_once(bench: Bench) -> None:
    pod = bench.add_stopped()
    bench.plane.faults.drop_after_commit("POST /v2/pods/{id}/action")
    assert bench.cli.run("start", "--json").code == 0
    assert bench.plane.pods.get(pod.id).starts == 2


def test_stop_verifies_and_tells_what_the_disk_costs(bench: Bench) -> None:
    pod = bench.add_running()
    outcome = bench.cli.run("stop", "--json")
    assert outcome.code == 0 and outcome.document["status"] == "EXITED"
    assert outcome.document["storage_per_month"] == 4.0
    assert bench.plane.pods.get(pod.id).status == "EXITED"
    assert bench.recorded is not None and bench.recorded["status"] == "EXITED"
    assert bench.plane.requests("GET /v2/pods/{id}")[-1].answer["status"] == "EXITED"
    again = bench.cli.run("stop")
    assert again.code == 0 and "20 GB disk is kept and costs $4.00 a month" in again.out
    assert bench.events() == ["stopped"]


def test_a_locked_pod_is_explained(bench: Bench) -> None:
    pod = bench.add_running()
    pod.locked = True
    for argv in (("stop",), ("restart",), ("terminate", "--yes")):
        outcome = bench.cli.run(*argv, "--json")
        assert outcome.code == 1 and "locked" in outcome.problem["error"] and "unlock" in outcome.problem["hint"]
    assert bench.plane.pods.get(pod.id).status == "RUNNING" and bench.recorded is not None


def test_restart_needs_a_running_pod_and_says_what_to_do(bench: Bench) -> None:
    bench.add_stopped()
    outcome = bench.cli.run("restart", "--json")
    assert outcome.code == 1 and "EXITED" in outcome.problem["error"] and "start" in outcome.problem["hint"]


def test_a_soft_restart_is_one_action(bench: Bench) -> None:
    bench.add_running()
    assert bench.cli.run("restart", "--json").code == 0
    assert [entry.body for entry in bench.plane.mutations()] == [{"action": "restart"}]


def test_a_hard_restart_stops_and_starts_but_not_into_a_passed_deadline(bench: Bench) -> None:
    pod = bench.add_running(env={"POD_DEADLINE": iso_time(bench.clock.unix_s() + 300)})
    refused = bench.cli.run("restart", "--hard", "--json")
    assert refused.code == 6 and bench.plane.pods.get(pod.id).status == "RUNNING"
    outcome = bench.cli.run("restart", "--hard", "--wait", "--max-minutes", "60", "--json")
    assert outcome.code == 0, outcome.err
    assert [entry.body.get("action") for entry in bench.plane.mutations()] == ["stop", None, "start"]
    assert "gives the GPU back" in outcome.err


def test_terminate_asks_by_name_verifies_and_forgets(bench: Bench) -> None:
    pod = bench.add_running()
    nobody = bench.cli.run("terminate", "--json")
    assert nobody.code == 2 and pod.name in nobody.problem["error"] and "--yes" in nobody.problem["hint"]
    no = bench.cli.run("terminate", answers="n\n")
    assert no.code == 2 and bench.plane.pods.get(pod.id).status == "RUNNING"
    yes = bench.cli.run("terminate", "--json", answers="y\n")
    assert yes.code == 0 and yes.document == {"terminated": [pod.id], "gone": []}
    assert pod.name in yes.err and bench.recorded is None and bench.events() == ["terminated"]
    assert [(entry.route, entry.status) for entry in bench.plane.journal[-2:]] == [
        ("GET /v2/pods/{id}", 404),
        ("GET /v2/pods", 200),
    ]
    bench.plane.assert_no_leaks()


def test_a_recorded_pod_that_is_gone_is_only_forgotten(bench: Bench) -> None:
    pod = bench.add_running()
    bench.plane.pods.delete(pod.id)
    outcome = bench.cli.run("terminate", "--json")
    assert outcome.code == 0 and outcome.document == {"terminated": [], "gone": [pod.id]} and bench.recorded is None
    assert bench.cli.run("terminate", pod.id, "--json").code == 3


def test_the_id_in_the_env_file_is_forgotten_too(bench: Bench) -> None:
    pod = bench.add_running(records=False)
    env_path = bench.cli.folder / ".env"
    env_path.write_text(f"# mine\nRUNPOD_POD_ID={pod.id}\nWHISPER_MODEL=tiny.en\n", encoding="utf-8")
    assert bench.cli.run("terminate", "--yes", "--json").code == 0
    text = env_path.read_text(encoding="utf-8")
    assert pod.id not in text and "# mine" in text and "WHISPER_MODEL=tiny.en" in text


def test_all_mine_ends_what_builders_made_and_nothing_else(bench: Bench) -> None:
    mine = [bench.add_running(name=f"whisper-{n}") for n in range(2)]
    foreign = bench.add_running(records=False, name="somebody-elses")
    del foreign.env["BUILDER_ID"]
    outcome = bench.cli.run("terminate", "--all-mine", "--yes", "--json")
    assert outcome.code == 0 and sorted(outcome.document["terminated"]) == sorted(pod.id for pod in mine)
    bench.plane.assert_no_leaks(allow=[foreign.id])
    assert bench.cli.run("terminate", "--all-mine", "--yes", "--json").document["terminated"] == []


def test_one_pod_that_cannot_be_ended_does_not_save_the_others(bench: Bench) -> None:
    locked, free = bench.add_running(name="whisper-1"), bench.add_running(name="whisper-2")
    locked.locked = True
    outcome = bench.cli.run("terminate", locked.id, free.id, "--yes", "--json")
    assert outcome.code == 1 and "locked" in outcome.problem["error"] and free.id in outcome.problem["error"]
    bench.plane.assert_no_leaks(allow=[locked.id])


def test_a_lost_answer_to_terminate_ends_well(bench: Bench) -> None:
    bench.add_running()
    bench.plane.faults.drop_after_commit("DELETE /v2/pods/{id}")
    assert bench.cli.run("terminate", "--yes", "--json").code == 0
    bench.plane.assert_no_leaks()


def test_a_spot_pod_starts_through_graphql_at_the_lowest_bid(bench: Bench) -> None:
    pod = bench.add_stopped()
    pod.is_spot = True
    bench.record(pod.id, is_spot=True)
    bench.plane.faults.drop_after_commit("podBidResume")
    outcome = bench.cli.run("start", "--json")
    assert outcome.code == 0, outcome.err
    assert all("/action" not in entry.path for entry in bench.plane.mutations())
    assert bench.plane.pods.get(pod.id).status in ("STARTING", "RUNNING")


def test_a_bid_above_the_limit_is_not_made(bench: Bench) -> None:
    pod = bench.add_stopped()
    bench.record(pod.id, is_spot=True)
    bench.cli.environ["BUILDER_MAX_PRICE"] = "0.01"
    outcome = bench.cli.run("start", "--json")
    assert outcome.code == 6 and "lowest bid" in outcome.problem["error"]
    assert bench.plane.mutations() == []


def test_without_graphql_a_spot_pod_cannot_start_and_that_is_said(bench: Bench) -> None:
    pod = bench.add_stopped()
    bench.record(pod.id, is_spot=True)
    bench.plane.retire_graphql()
    outcome = bench.cli.run("start", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "not_available"


def test_the_life_of_a_pod_over_rest_v1(bench: Bench) -> None:
    bench.cli.environ["RUNPOD_API_V1"] = "1"
    pod = bench.add_running()
    for argv in (("stop",), ("start", "--wait", "--max-minutes", "60"), ("restart",), ("terminate", "--yes")):
        outcome = bench.cli.run(*argv, "--json")
        assert outcome.code == 0, (argv, outcome.err)
    bench.plane.assert_no_leaks()
    assert bench.events() == ["stopped", "started", "restarted", "terminated"]
    assert all(entry.path.startswith("/v1/") for entry in bench.plane.mutations()), pod
