"""The group `endpoint` against the fake plane: what it shows, what it costs, what it ends and what it keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.api.models_serverless import Endpoint
from builder.endpoints.operate import Scale, wanted_limits
from builder.errors import UsageError
from builder.state import State
from tests.builder_endpoints import AUDIO, Bench
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.endpoint import FakeEndpoint

SECRET = "canary-env-secret-0123"
PRICE = 0.68
"""$/h of a worker in AMPERE_24."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ControlPlane() as plane:
        yield Bench(plane, tmp_path)
        plane.assert_no_secret(SECRET, in_places=True)


def running(bench: Bench, n_jobs: int = 1) -> None:
    """Jobs in progress at the endpoint, and workers that have them."""
    bench.plane.endpoints.job_s = 3_600.0
    for _ in range(n_jobs):
        bench.submit()
    bench.clock.advance(120)
    assert bench.cli.run("endpoint", "status", "--json").document["jobs"]["inProgress"] > 0


# Which one


def test_the_one_named_wins_over_the_setting_and_that_over_the_one_deployed_last(bench: Bench) -> None:
    second, third = bench.add(name="second"), bench.add(name="third")

    def shown(*argv: str) -> str:
        return str(bench.cli.run("endpoint", "status", *argv, "--json").document["endpoint_id"])

    assert shown() == bench.endpoint.id
    bench.cli.environ["RUNPOD_ENDPOINT_ID"] = second.id
    assert shown() == second.id
    assert shown(third.id) == third.id


def test_none_at_all_a_damaged_record_and_an_impossible_id_are_told_apart(bench: Bench) -> None:
    record = bench.cli.folder / "artifacts" / "endpoint.json"
    record.write_text("{", encoding="utf-8")
    assert "is damaged" in bench.cli.run("endpoint", "status", "--json").problem["error"]
    record.unlink()
    none = bench.cli.run("endpoint", "status", "--json")
    assert none.code == 3 and "deploy endpoint" in none.problem["hint"]
    odd = bench.cli.run("endpoint", "status", "a/b", "--json")
    assert odd.code == 2 and "legal: 1 to 100 letters" in odd.problem["error"]
    assert bench.cli.run("endpoint", "status", "x" * 101).code == 2
    assert bench.cli.run("endpoint", "status", "x" * 100).code == 3
    bench.cli.environ["RUNPOD_ENDPOINT_ID"] = "no id"
    assert "RUNPOD_ENDPOINT_ID: 'no id'" in bench.cli.run("endpoint", "status").err


def test_an_empty_name_means_no_endpoint_and_not_the_last_one(bench: Bench) -> None:
    for argv in (("delete", "", "--yes"), ("purge", "", "--yes"), ("scale", "", "--park", "--yes")):
        outcome = bench.cli.run("endpoint", *argv, "--json")
        assert outcome.code == 2 and "legal: 1 to 100 letters" in outcome.problem["error"]
    assert bench.plane.mutations() == [] and bench.sent("purge-queue") == []


# What it shows


def test_list_shows_all_and_marks_ours(bench: Bench) -> None:
    bench.add(name="somebodys", env={}, workers={"min": 2, "max": 2, "idleTimeout": 5})
    bench.clock.advance(120)
    document = bench.cli.run("endpoint", "list", "--json").document
    assert [row["name"] for row in document["endpoints"]] == ["somebodys", bench.endpoint.name]
    theirs, ours = document["endpoints"]
    assert (theirs["is_ours"], theirs["is_present"], ours["is_ours"], ours["is_present"]) == (False, False, True, True)
    assert theirs["cost_per_hour"] == pytest.approx(2 * PRICE) == document["cost_per_hour"]
    assert ours["cost_per_hour"] == 0.0 and ours["cost_per_hour_max"] == pytest.approx(3 * PRICE)
    text = bench.cli.run("endpoint", "list").out
    assert f"* {bench.endpoint.id}" in text and "2 idle" in text and "$1.36/h now" in text


def test_list_of_an_empty_account_says_so(bench: Bench) -> None:
    bench.plane.endpoints.delete(bench.endpoint.id)
    assert bench.cli.run("endpoint", "list").out.strip() == "The account has no endpoints."


def test_status_tells_workers_jobs_release_cost_and_addresses(bench: Bench) -> None:
    running(bench, 2)
    outcome = bench.cli.run("endpoint", "status", "--json")
    document = outcome.document
    n_running = document["workers"]["running"]
    assert n_running >= 1 and len(document["worker_list"]) == document["workers"]["total"]
    billed = document["workers"]["running"] + document["workers"]["idle"]
    assert document["cost_per_hour"] == pytest.approx(billed * PRICE)
    assert (document["cost_per_hour_min"], document["cost_per_hour_max"]) == (0.0, pytest.approx(3 * PRICE))
    assert document["rollout"]["in_progress"] is False and document["version"] == 1 and document["age_s"] >= 120
    assert document["addresses"]["run"] == f"{bench.plane.url}/jobs/v2/{bench.endpoint.id}/run"
    assert document["findings"] == [] and document["unseen"] == {} and document["balance"] is not None
    text = bench.cli.run("endpoint", "status").out
    assert "in progress" in text and "AMPERE_24" in text and f"{n_running} running" in text


def test_status_of_a_load_balancer_has_its_address_and_no_queue(bench: Bench) -> None:
    made = load_balancer(bench)
    document = bench.cli.run("endpoint", "status", made.id, "--json").document
    assert document["jobs"] is None and document["addresses"]["base"] == f"{bench.plane.url}/lb/{made.id}"
    assert "no queue" in bench.cli.run("endpoint", "status", made.id).out
    purged = bench.cli.run("endpoint", "purge", made.id, "--yes", "--json")
    assert purged.code == 2 and "has no queue" in purged.problem["error"]


def test_status_shows_no_environment(bench: Bench) -> None:
    made = bench.add(name="secretive", env={"BUILDER_ID": "b-2", "HF_TOKEN": SECRET})
    for argv in (("status", made.id), ("status", made.id, "--json"), ("list",), ("list", "--json")):
        outcome = bench.cli.run("endpoint", *argv)
        assert outcome.code == 0 and SECRET not in outcome.out + outcome.err


def test_status_shows_the_last_words_of_a_worker_that_crashes(bench: Bench) -> None:
    bench.plane.endpoints.fail_boots("you/whisper", "RuntimeError: CUDA out of memory", source="container")
    bench.submit()
    bench.clock.advance(120)
    outcome = bench.cli.run("endpoint", "status")
    assert outcome.code == 0 and "crash_loop:" in outcome.out, outcome.out + outcome.err
    assert "| RuntimeError: CUDA out of memory" in outcome.out and "does not fit into the GPU's memory" in outcome.out


def test_status_names_missing_capacity_and_a_parked_endpoint(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    bench.submit()
    bench.clock.advance(60)
    (one,) = bench.cli.run("endpoint", "status", "--json").document["findings"]
    assert one["kind"] == "capacity" and "RUNPOD_GPU_POOLS" in one["remedy"]
    bench.plane.endpoints.park(bench.endpoint.id)
    kinds = [each["kind"] for each in bench.cli.run("endpoint", "status", "--json").document["findings"]]
    assert kinds == ["parked"]


def test_status_tells_what_could_not_be_read_and_shows_the_rest(bench: Bench) -> None:
    bench.plane.faults.fail("GET /v2/serverless/{id}/workers", 500, times=20)
    outcome = bench.cli.run("endpoint", "status")
    assert outcome.code == 0 and "not known (of 0 to 3)" in outcome.out and "workers could not be read" in outcome.err


def test_status_of_one_that_is_gone_says_whether_it_was_ours(bench: Bench) -> None:
    bench.plane.endpoints.delete(bench.endpoint.id)
    ours = bench.cli.run("endpoint", "status", "--json")
    assert ours.code == 3 and "deployed from here, is gone" in ours.problem["error"]
    assert "there is no endpoint nobody" in bench.cli.run("endpoint", "status", "nobody", "--json").problem["error"]


def test_watch_is_a_json_line_each_in_a_pipe_until_it_is_gone(bench: Bench) -> None:
    class Ending(type(bench.clock)):  # type: ignore[misc]
        looks = 0

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            Ending.looks += 1
            if Ending.looks == 3:
                raise KeyboardInterrupt

    clock = Ending()
    clock.advance(bench.clock.monotonic_s())
    bench.cli.clock = clock
    outcome = bench.cli.run("endpoint", "status", "--watch")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(lines) == 3 and all(each["endpoint_id"] == bench.endpoint.id and each["at"] for each in lines)


# Scale


def endpoint_with(low: int, high: int, **more: Any) -> Endpoint:
    workers = {"min": low, "max": high, "idleTimeout": 10}
    return Endpoint(id="e1", name="n", workers=workers, scaling={"type": "QUEUE_DELAY", "queueDelay": 4}, **more)


@pytest.mark.parametrize(
    ("scale", "limits"),
    [
        (Scale(min=2), (2, 3, 10)),
        (Scale(min=3), (3, 3, 10)),
        (Scale(max=1), (1, 1, 10)),
        (Scale(zero=True), (0, 3, 10)),
        (Scale(zero=True, max=7), (0, 7, 10)),
        (Scale(park=True), (0, 0, 10)),
        (Scale(idle_timeout_s=30), (1, 3, 30)),
    ],
)
def test_what_is_not_asked_for_stays(scale: Scale, limits: tuple[int, int, int]) -> None:
    assert wanted_limits(endpoint_with(1, 3), scale) == limits


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (Scale(), "nothing to change"),
        (Scale(min=4), "legal: 0 to 3"),
        (Scale(max=0), r"legal: 1 \(min\) to 1000"),
        (Scale(zero=True, min=0), "give one of them"),
        (Scale(park=True, max=0), "without --min"),
        (Scale(park=True, zero=True), "without --min"),
    ],
)
def test_what_cannot_be_is_refused(scale: Scale, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        wanted_limits(endpoint_with(1, 3), scale)


def test_a_queue_that_scales_by_requests_takes_no_idle_timeout(bench: Bench) -> None:
    made = bench.add(name="counts", scaling={"type": "REQUEST_COUNT", "requestCount": 1}, workers={"min": 0, "max": 2})
    refused = bench.cli.run("endpoint", "scale", made.id, "--idle-timeout", "5", "--json")
    assert refused.code == 2 and "scales by requests" in refused.problem["error"]
    assert bench.cli.run("endpoint", "scale", made.id, "--max", "1").code == 0
    assert made.workers_max == 1


def test_scale_up_asks_with_the_price_before_and_after(bench: Bench) -> None:
    refused = bench.cli.run("endpoint", "scale", "--min", "1", "--max", "5", answers="n\n")
    assert refused.code == 2 and "1 to 5 workers, $0.68/h to $3.40/h" in refused.err
    assert "0 to 3 workers, $0.00/h to $2.04/h" in refused.err and bench.plane.mutations() == []
    assert bench.cli.run("endpoint", "scale", "--min", "1").code == 2
    outcome = bench.cli.run("endpoint", "scale", "--min", "1", "--max", "5", "--idle-timeout", "30", "--yes")
    assert outcome.code == 0 and "1 to 5 workers" in outcome.out, outcome.err
    made = bench.endpoint
    assert (made.workers_min, made.workers_max, made.idle_timeout_s) == (1, 5, 30)
    assert bench.recorded is not None and (bench.recorded["workers_min"], bench.recorded["workers_max"]) == (1, 5)
    assert [each["action"] for each in bench.events()] == ["scaled"]


def test_scale_to_what_it_is_changes_nothing(bench: Bench) -> None:
    outcome = bench.cli.run("endpoint", "scale", "--max", "3", "--json")
    assert outcome.code == 0 and outcome.document["action"] == "none" and bench.plane.mutations() == []


def test_the_price_guard_refuses_more_workers_and_never_fewer(bench: Bench) -> None:
    argv = ("endpoint", "scale", "--max", "4", "--yes", "--json")
    refused = bench.cli.run(*argv, "--max-price", "0.67")
    assert refused.code == 6 and "$0.68/h" in refused.problem["error"] and bench.plane.mutations() == []
    bench.cli.environ["BUILDER_MAX_PRICE"] = "0.5"
    assert bench.cli.run(*argv).code == 6
    assert bench.cli.run("endpoint", "scale", "--max", "2", "--json").code == 0
    assert bench.cli.run(*argv, "--max-price", "0.68").code == 0
    assert bench.endpoint.workers_max == 4


def test_a_guard_without_prices_refuses_and_scaling_down_needs_none(bench: Bench) -> None:
    bench.plane.faults.fail("GET /v2/catalog/gpus", 500, times=50)
    assert bench.cli.run("endpoint", "scale", "--max", "4", "--yes", "--max-price", "9").code == 1
    down = bench.cli.run("endpoint", "scale", "--max", "1")
    assert down.code == 0 and "$?/h" in down.out and bench.endpoint.workers_max == 1


def test_zero_and_wait_end_the_workers_that_were_kept(bench: Bench) -> None:
    assert bench.cli.run("endpoint", "scale", "--min", "2", "--yes").code == 0
    bench.clock.advance(120)
    assert bench.cli.run("endpoint", "status", "--json").document["workers"]["idle"] == 2
    outcome = bench.cli.run("endpoint", "scale", "--zero", "--wait", "--json")
    assert outcome.code == 0 and outcome.document["wait"]["workers"] == 0, outcome.err
    assert (bench.endpoint.workers_min, bench.endpoint.workers_max, bench.endpoint.workers) == (0, 3, [])


def test_a_wait_for_workers_that_work_on_ends_in_time_and_says_so(bench: Bench) -> None:
    running(bench)
    outcome = bench.cli.run("endpoint", "scale", "--max", "2", "--wait", "--timeout", "30", "--json")
    assert outcome.code == 7 and "more workers (1) than are to be kept (0)" in outcome.problem["error"]
    assert "endpoint delete" in outcome.problem["hint"] and bench.endpoint.workers_max == 2


def test_parking_asks_only_if_jobs_are_held_up(bench: Bench) -> None:
    running(bench)
    refused = bench.cli.run("endpoint", "scale", "--park")
    assert refused.code == 2 and "1 in progress" in refused.err and bench.endpoint.workers_max == 3
    other = bench.add(name="quiet")
    assert bench.cli.run("endpoint", "scale", other.id, "--park").code == 0 and other.workers_max == 0


@pytest.mark.parametrize(
    "argv",
    [("--min", "-1"), ("--max", "1001"), ("--idle-timeout", "0"), ("--idle-timeout", "3601"), ("--max-price", "0")],
)
def test_values_past_their_limits_are_refused_with_the_legal_range(bench: Bench, argv: tuple[str, str]) -> None:
    outcome = bench.cli.run("endpoint", "scale", *argv, "--json")
    assert outcome.code == 2 and "legal: " in outcome.problem["error"]


# Purge


def test_purge_removes_what_waits_and_says_how_many(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    ids = [bench.submit() for _ in range(3)]
    refused = bench.cli.run("endpoint", "purge", answers="no\n")
    assert refused.code == 2 and "(3)? They never run" in refused.err
    outcome = bench.cli.run("endpoint", "purge", "--yes", "--json")
    assert outcome.code == 0 and outcome.document["removed"] == 3
    assert {bench.job(each).status for each in ids} == {"CANCELLED"}
    assert bench.cli.run("endpoint", "purge", "--json").document["removed"] == 0
    assert [each["action"] for each in bench.events()] == ["purged"]


def test_purge_with_a_lost_answer_says_so_and_is_not_sent_again(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    bench.submit()
    bench.queue.faults.cut("purge-queue", after_commit=True)
    assert bench.cli.run("endpoint", "purge", "--yes", "--json").problem["code"] == "answer_lost"
    assert len(bench.sent("purge-queue")) == 1


# Delete


def with_template(bench: Bench, **more: Any) -> FakeEndpoint:
    made = bench.add(template=True, **{"name": "whisper-0202-def456", "env": {"BUILDER_ID": "b-9"}, **more})
    bench.record(made, template_id=made.template_id, builder_id="b-9")
    return made


def test_delete_ends_workers_endpoint_and_template_and_forgets_it(bench: Bench) -> None:
    bench.plane.endpoints.delete(bench.endpoint.id)
    made = with_template(bench, workers={"min": 1, "max": 2, "idleTimeout": 5})
    assert bench.cli.run("endpoint", "delete").code == 2 and bench.plane.mutations() == []
    outcome = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["deleted"] == [made.id] and document["templates"] == [made.template_id] and document["gone"] == []
    bench.plane.assert_no_leaks()
    assert bench.plane.endpoints.templates == {} and bench.recorded is None
    routes = [(each.method, each.route) for each in bench.plane.mutations()]
    assert routes[0][0] == "PATCH" and routes[1][0] == "DELETE"
    assert [each["action"] for each in bench.events()] == ["deleted", "deleted"]


def test_a_template_that_its_endpoint_holds_is_removed_after_it(bench: Bench) -> None:
    bench.plane.endpoints.templates_are_bound = True
    made = with_template(bench)
    assert bench.cli.run("endpoint", "delete", made.id, "--yes").code == 0
    assert bench.plane.endpoints.templates == {}


def test_a_template_of_the_same_mark_and_name_is_found_without_a_record_and_no_other(bench: Bench) -> None:
    made = with_template(bench)
    bench.record(bench.endpoint)
    other = with_template(bench, name="whisper-0303-aaa111", env={"BUILDER_ID": "b-7"})
    bench.record(bench.endpoint)
    outcome = bench.cli.run("endpoint", "delete", made.id, "--yes", "--json")
    assert outcome.document["templates"] == [made.template_id]
    assert list(bench.plane.endpoints.templates) == [other.template_id]
    assert bench.recorded is not None


def test_jobs_that_are_lost_are_told_before_and_counted_after(bench: Bench) -> None:
    running(bench)
    bench.plane.endpoints.throttle(99)
    for _ in range(2):
        bench.submit()
    refused = bench.cli.run("endpoint", "delete", answers="n\n")
    assert (
        refused.code == 2
        and "its jobs are lost: 2 that wait, 1 in progress" in refused.err
        and len(bench.plane.endpoints.alive()) == 1
    )
    outcome = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert outcome.code == 0 and outcome.document["lost_jobs"] == 3 and "are lost: 3" in outcome.err


def test_one_that_is_gone_is_forgotten_with_its_template_and_a_stranger_is_not_found(bench: Bench) -> None:
    made = with_template(bench)
    bench.plane.endpoints.delete(made.id)
    outcome = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert outcome.code == 0 and outcome.document["gone"] == [made.id]
    assert outcome.document["templates"] == [made.template_id] and bench.recorded is None
    assert bench.cli.run("endpoint", "delete", "nobody", "--yes").code == 3


def test_an_id_in_the_env_file_goes_too(bench: Bench) -> None:
    env = bench.cli.folder / ".env"
    env.write_text(f"RUNPOD_ENDPOINT_ID={bench.endpoint.id}\nWHISPER_MODEL=turbo\n", encoding="utf-8")
    assert bench.cli.run("endpoint", "delete", "--yes").code == 0
    assert bench.endpoint.id not in env.read_text(encoding="utf-8") and "turbo" in env.read_text(encoding="utf-8")


def test_all_mine_ends_ours_and_leftover_templates_and_leaves_others(bench: Bench) -> None:
    made = with_template(bench)
    theirs = bench.add(name="somebodys", env={})
    leftover = bench.add_template(name="whisper-0404-left00", env={"BUILDER_ID": "b-5"})
    stranger = bench.add_template(name="somebodys-template", env={})
    outcome = bench.cli.run("endpoint", "delete", "--all-mine", "--yes", "--json")
    assert outcome.code == 0, outcome.err
    assert set(outcome.document["deleted"]) == {made.id, bench.endpoint.id}
    assert set(outcome.document["templates"]) == {made.template_id, leftover}
    assert [each.id for each in bench.plane.endpoints.alive()] == [theirs.id]
    assert list(bench.plane.endpoints.templates) == [stranger]
    again = bench.cli.run("endpoint", "delete", "--all-mine")
    assert again.code == 0 and "nothing to delete" in again.out
    assert bench.cli.run("endpoint", "delete", theirs.id, "--all-mine").code == 2


def test_a_leftover_template_goes_by_its_name_or_id_and_no_other_does(bench: Bench) -> None:
    made = with_template(bench)
    by_name = bench.add_template(name="whisper-0404-left00", env={"BUILDER_ID": "b-5"})
    by_id = bench.add_template(name="whisper-0505-left00", env={"BUILDER_ID": "b-6"})
    bench.add_template(name="strangers", env={})
    refused = bench.cli.run("endpoint", "delete", "whisper-0404-left00", answers="n\n")
    assert refused.code == 2 and "templates whisper-0404-left00?" in refused.err and bench.plane.mutations() == []
    outcome = bench.cli.run("endpoint", "delete", "whisper-0404-left00", by_id, "--yes", "--json")
    assert outcome.code == 0 and outcome.document["templates"] == [by_name, by_id], outcome.err
    used = bench.cli.run("endpoint", "delete", made.name, "--yes", "--json")
    assert used.code == 1 and used.problem["hint"] == f"end both: python -m builder endpoint delete {made.id}"
    assert bench.cli.run("endpoint", "delete", "strangers", "--yes").code == 3
    assert len(bench.plane.endpoints.templates) == 2 and len(bench.plane.endpoints.alive()) == 2


def test_one_that_nobody_here_made_is_named_so_before_it_ends(bench: Bench) -> None:
    theirs = bench.add(name="somebodys", env={})
    refused = bench.cli.run("endpoint", "delete", theirs.id, answers="n\n")
    assert "not made by the builder" in refused.err and theirs in bench.plane.endpoints.alive()


def test_a_template_that_cannot_be_removed_is_tried_again_by_the_same_command(bench: Bench) -> None:
    made = with_template(bench)
    bench.plane.faults.fail("DELETE /v2/templates/{id}", 400, times=99, body={"title": "Bad Request", "status": 400})
    failed = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert failed.code == 1 and "costs nothing" in failed.problem["error"] and made.id in failed.problem["error"]
    assert bench.recorded is not None
    bench.plane.faults.restore()
    assert bench.cli.run("endpoint", "delete", "--yes").code == 0
    assert bench.plane.endpoints.templates == {} and bench.recorded is None


def test_faults_that_pass_do_not_keep_it_from_being_deleted(bench: Bench) -> None:
    bench.plane.faults.fail("PATCH /v2/serverless/{id}", 500, times=99)
    bench.plane.faults.fail("DELETE /v2/serverless/{id}", 503, times=2)
    outcome = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert outcome.code == 0 and bench.plane.endpoints.alive() == [], outcome.err


def test_a_delete_that_cannot_be_looked_after_says_so_and_can_be_sent_again(bench: Bench) -> None:
    made = with_template(bench)
    bench.plane.faults.fail("GET /v2/serverless", 500, times=99)
    outcome = bench.cli.run("endpoint", "delete", "--yes", "--json")
    assert outcome.code == 1 and f"{made.id} was deleted, but whether it is gone" in outcome.problem["error"]
    assert outcome.problem["hint"].endswith(f"endpoint delete {made.id}") and bench.recorded is not None
    bench.plane.faults.restore()
    assert bench.cli.run("endpoint", "delete", made.id, "--yes").code == 0
    assert bench.plane.endpoints.templates == {} and bench.recorded is None


def test_one_that_cannot_be_deleted_stays_recorded_and_has_no_workers(bench: Bench) -> None:
    other = bench.add(name="other", env={"BUILDER_ID": "b-2"})
    bench.plane.faults.fail(f"DELETE /v2/serverless/{bench.endpoint.id}", 500, times=99)
    outcome = bench.cli.run("endpoint", "delete", bench.endpoint.id, other.id, "--yes", "--json")
    assert outcome.code == 1 and f"deleted: {other.id}" in outcome.problem["error"]
    assert bench.recorded is not None and bench.endpoint.is_parked


def test_a_double_of_a_doubtful_create_goes_with_it_and_its_name_is_kept_while_more_may_show(bench: Bench) -> None:
    double = bench.add()
    state = State(bench.cli.folder / "artifacts")
    state.begin_pending(bench.endpoint.name, bench.clock.unix_s(), "pending-endpoints")
    outcome = bench.cli.run("endpoint", "delete", bench.endpoint.id, "--yes", "--json")
    assert outcome.code == 0 and set(outcome.document["deleted"]) == {bench.endpoint.id, double.id}
    assert "may show late" in outcome.err and list(state.pending("pending-endpoints")) == [bench.endpoint.name]
    bench.clock.advance(700)
    assert bench.cli.run("endpoint", "delete", "--all-mine").code == 0
    assert state.pending("pending-endpoints") == {}


def test_an_interrupt_says_what_is_left_and_how_to_go_on(bench: Bench) -> None:
    other = bench.add(name="other", env={"BUILDER_ID": "b-2"})

    class Ending(type(bench.clock)):  # type: ignore[misc]
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    bench.plane.faults.fail(f"DELETE /v2/serverless/{other.id}", 500, times=9)
    clock = Ending()
    clock.advance(bench.clock.monotonic_s())
    bench.cli.clock = clock
    outcome = bench.cli.run("endpoint", "delete", bench.endpoint.id, other.id, "--yes", "--json")
    assert outcome.code == 130 and f"deleted: {bench.endpoint.id}" in outcome.problem["error"]
    assert other.id in outcome.problem["hint"]


@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_interrupt_before_the_template_goes_names_it_and_no_other_endpoint(
    bench: Bench, *, is_recorded: bool
) -> None:
    made = with_template(bench)
    if not is_recorded:
        bench.record(bench.endpoint)

    class Ending(type(bench.clock)):  # type: ignore[misc]
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    bench.plane.faults.fail("DELETE /v2/templates/{id}", 409, times=9)
    bench.cli.clock = Ending()
    outcome = bench.cli.run("endpoint", "delete", made.id, "--yes", "--json")
    assert outcome.code == 130 and f"deleted: {made.id}" in outcome.problem["error"]
    bench.plane.faults.restore()
    bench.cli.clock = bench.clock
    again = outcome.problem["hint"].partition("; ")[0].removeprefix("go on: python -m builder ").split()
    assert bench.cli.run(*again, "--yes").code == 0
    assert bench.plane.endpoints.templates == {} and [each.id for each in bench.plane.endpoints.alive()] == [
        bench.endpoint.id
    ]


def load_balancer(bench: Bench) -> FakeEndpoint:
    return bench.add(
        name="live",
        type="LOAD_BALANCER",
        ports=["9090/http"],
        scaling={"type": "REQUEST_COUNT", "requestCount": 4},
        workers={"min": 1, "max": 2, "idleTimeout": 60},
    )


def test_jobs_run_through_an_endpoint_from_list_to_delete(bench: Bench) -> None:
    assert bench.cli.run("endpoint", "list").code == 0
    assert bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait").code == 0
    assert bench.cli.run("endpoint", "scale", "--zero").code == 0
    assert bench.cli.run("endpoint", "delete", "--yes").code == 0
    bench.plane.assert_no_leaks()
