"""`deploy endpoint|lb` against the fake RunPod: the way to a served job, and that no failure leaves anything unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.deploy_rig import IMAGE, TOKEN, Rig, rig
from tests.fakes.runpod.clock import PlaneClock

BAD = "you/whisper:broken"
TEMPLATES, ENDPOINTS = "POST /v2/templates", "POST /v2/serverless"
PATCH = "PATCH /v2/serverless/{id}"
HEARD = {"output": {"transcription": "Hello, my name is Anna."}}


@pytest.fixture(scope="module")
def plane_rig() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.fixture
def world(plane_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr("builder.endpoints.rollout.LOG_IDLE_S", 0.01)
    plane_rig.start_over(tmp_path)
    plane_rig.plane.endpoints.answer = lambda job: HEARD
    yield plane_rig
    plane_rig.plane.assert_no_secret(TOKEN)
    plane_rig.plane.assert_contract()


class ClockThat(PlaneClock):
    """Calls `at` with the number of each wait before it."""

    def __init__(self, at: Callable[[int], None]) -> None:
        super().__init__()
        self._at, self._waits = at, 0

    def sleep(self, seconds: float) -> None:
        self._waits += 1
        self._at(self._waits)
        super().sleep(seconds)


def deploy(world: Rig, *argv: str, **environ: str) -> Any:
    return world.cli(**environ).run("deploy", "endpoint", "--json", "--yes", *argv)


def record(world: Rig) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((world.folder / "artifacts" / "endpoint.json").read_text())
    return document


def only(world: Rig) -> Any:
    [endpoint] = world.plane.endpoints.alive()
    return endpoint


def delete_all(world: Rig) -> None:
    for endpoint in world.plane.endpoints.alive():
        world.plane.endpoints.delete(endpoint.id)


# The good way


def test_a_deploy_ends_with_an_endpoint_that_transcribes(world: Rig) -> None:
    done = deploy(world, "--workers-max", "2", "--set", "CONCURRENCY=2")
    assert done.code == 0, done.err
    endpoint = only(world)
    assert done.document["endpoint"] == record(world)
    assert done.document["done"] == "created"
    assert done.document["canary"]["text"] == HEARD["output"]["transcription"]
    found = record(world)
    assert (found["endpoint_id"], found["type"], found["image"]) == (endpoint.id, "QUEUE", IMAGE)
    assert (found["workers_min"], found["workers_max"], found["price_per_worker_h"]) == (0, 2, 1.12)
    assert endpoint.env["WHISPER_MODE"] == "serverless"
    assert endpoint.env["CONCURRENCY"] == "2"
    assert endpoint.env["BUILDER_ID"] == found["builder_id"]
    assert endpoint.env["BUILDER_SPEC_SHA"] == found["spec_sha"]
    assert "WHISPER_AUTH_TOKEN" not in endpoint.env
    [template] = world.plane.endpoints.templates.values()
    assert (template.id, template.name) == (found["template_id"], found["name"])
    assert endpoint.flashboot == "FLASHBOOT"
    assert world.recorded() == ["endpoint.json"]


@contextmanager
def workers_that_answer(world: Rig, *statuses: int) -> Iterator[list[str]]:
    """Load balancers' workers say these to /ping, the last one for ever; what they were asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(statuses[min(len(asked), len(statuses)) - 1])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    def on_worker(endpoint: Any, worker: Any, before: object, after: object) -> None:
        worker.address = f"127.0.0.1:{server.server_port}"

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    world.plane.endpoints.on_worker.append(on_worker)
    try:
        yield asked
    finally:
        world.plane.endpoints.on_worker.remove(on_worker)
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_load_balancer_is_asked_until_it_answers(world: Rig) -> None:
    with workers_that_answer(world, 204, 503, 200) as asked:
        done = world.cli().run("deploy", "lb", "--json", "--yes")
    assert done.code == 0, done.err
    assert asked == ["/ping"] * 3
    endpoint = only(world)
    assert endpoint.workers_min == 1
    assert done.document["canary"]["url"].endswith(f"/lb/{endpoint.id}")
    assert endpoint.ports == ["9090/http"]
    assert endpoint.env["WHISPER_NO_AUTH"] == "1"
    assert record(world)["type"] == "LOAD_BALANCER"


def test_what_a_person_sees(world: Rig) -> None:
    shown = world.cli().run("deploy", "endpoint", "--workers-min", "1", answers="y\n")
    assert shown.code == 0, shown.err
    for text in ("AMPERE_24", "a day", "worst case", "credit $100.00", "FlashBoot on", "Hello, my name is Anna."):
        assert text in shown.out
    assert "26.88 a day without any job" in shown.err
    assert "endpoint delete" in shown.out
    assert "[y/N]" in shown.err


def test_without_waiting_it_is_only_created(world: Rig) -> None:
    done = deploy(world, "--no-wait")
    assert done.code == 0
    assert (done.document["readiness"], done.document["canary"]) == (None, None)
    assert record(world)["endpoint_id"] == only(world).id


@pytest.mark.parametrize("argv", [("plan", "endpoint"), ("deploy", "endpoint", "--dry-run"), ("plan", "lb")])
def test_a_plan_changes_nothing_and_shows_the_requests(world: Rig, argv: tuple[str, ...]) -> None:
    done = world.cli(HF_TOKEN="hidden-from-everyone").run(*argv, "--json", "--set", "HF_TOKEN")
    assert done.code == 0, done.err
    assert world.plane.mutations() == []
    template, endpoint = done.document["would"]
    assert (template["path"], endpoint["path"]) == ("/v2/templates", "/v2/serverless")
    assert template["body"]["env"]["HF_TOKEN"] == "[hidden]"
    assert "hidden-from-everyone" not in done.out + done.err
    cost = done.document["plan"]["cost"]
    assert cost["at_max_per_h"] == pytest.approx(3.36)
    assert cost["at_max_per_day"] == pytest.approx(80.64)
    assert world.recorded() == []


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (("--max-price", "0.57"), 6),
        (("--max-total", "3.35"), 6),
        (("--spot",), 2),
        (("--volume", "20"), 2),
        (("--idle-timeout", "0"), 2),
        (("--idle-timeout", "3601"), 2),
        (("--queue-delay", "0.4"), 2),
        (("--job-timeout", "4"), 2),
        (("--job-timeout", "604801"), 2),
        (("--workers-min", "4"), 2),
        (("--gpu", "3070"), 2),
        (("--pool", "nonsense"), 2),
        (("--with-token",), 2),
    ],
)
def test_guards_refuse_before_anything_is_sent(world: Rig, argv: tuple[str, ...], code: int) -> None:
    done = deploy(world, *argv)
    assert done.code == code, done.err
    assert world.plane.mutations() == []


def test_guards_at_their_limits_let_through(world: Rig) -> None:
    limits = ("--max-price", "1.12", "--max-total", "3.36", "--idle-timeout", "3600", "--job-timeout", "604800")
    assert deploy(world, *limits, "--queue-delay", "0.5", "--no-wait").code == 0
    assert only(world).timeout == 604_800_000


def test_an_option_of_endpoints_is_not_for_pods(world: Rig) -> None:
    done = world.cli().run("deploy", "--json", "--yes", "--pool", "ADA_24")
    assert done.code == 2
    assert "--pool is not for pod" in done.problem["error"]


def test_the_old_api_has_no_endpoints(world: Rig) -> None:
    done = deploy(world, RUNPOD_API_V1="1")
    assert (done.code, done.problem["code"]) == (1, "not_available")
    assert world.plane.mutations() == []


def test_too_little_credit_is_refused(plane_rig: Rig, tmp_path: Path) -> None:
    plane_rig.start_over(tmp_path)
    plane_rig.plane.reset(balance=1.0)
    assert deploy(plane_rig).code == 10
    assert plane_rig.plane.mutations() == []


@pytest.mark.parametrize("what", ["pod", "endpoint"])
def test_an_image_that_never_ran_is_refused_if_asked_for(world: Rig, what: str) -> None:
    done = world.cli().run("deploy", what, "--json", "--yes", "--require-validated")
    assert (done.code, done.problem["code"]) == (1, "not_validated"), done.err
    assert world.plane.mutations() == []
    planned = world.cli().run("deploy", what, "--json", "--dry-run", "--require-validated")
    assert planned.code == 0 and "never tried" in planned.err


# Failures of a first deploy


@pytest.mark.parametrize("route", [TEMPLATES, ENDPOINTS])
@pytest.mark.parametrize("happened", [True, False])
def test_a_lost_answer_makes_exactly_one(world: Rig, route: str, happened: bool) -> None:
    faults = world.plane.faults
    (faults.drop_after_commit if happened else faults.drop_before)(route)
    done = deploy(world)
    assert done.code == 0, done.err
    assert record(world)["endpoint_id"] == only(world).id
    assert len(world.plane.endpoints.templates) == 1
    pending = [name for name in world.recorded() if name.startswith("pending")]
    # Where it is not certain what became of the lost request, its name is kept in mind.
    assert pending == ([] if happened else [f"pending-{'templates' if route == TEMPLATES else 'endpoints'}.json"])


def test_a_double_is_ended_once_it_shows(world: Rig) -> None:
    world.plane.faults.drop_after_commit(ENDPOINTS)
    world.plane.faults.hide_new_pods(11.0)
    done = deploy(world)
    assert done.code == 0, done.err
    assert len([entry for entry in world.plane.requests(ENDPOINTS) if entry.executed]) == 2
    assert only(world).id == record(world)["endpoint_id"]
    assert world.recorded() == ["endpoint.json"]


def test_a_template_whose_name_is_taken_by_the_lost_one_is_adopted(world: Rig) -> None:
    world.plane.faults.drop_after_commit(TEMPLATES)
    world.plane.faults.fail(TEMPLATES, 400, body={"detail": "template name must be unique"})
    world.plane.faults.hide_new_pods(11.0)
    done = deploy(world)
    assert done.code == 0, done.err
    assert len(world.plane.endpoints.templates) == 1


@pytest.mark.parametrize("route", [TEMPLATES, ENDPOINTS])
def test_a_refusal_leaves_nothing(world: Rig, route: str) -> None:
    world.plane.faults.fail(route, 422)
    done = deploy(world)
    assert done.code == 1
    assert "nothing is left" in done.problem["error"] or route == TEMPLATES
    world.plane.assert_no_leaks()
    assert world.recorded() == []


def test_workers_that_fail_end_the_deploy_with_their_words(world: Rig) -> None:
    world.plane.endpoints.fail_boots(BAD, "torch.cuda.OutOfMemoryError: CUDA out of memory")
    done = deploy(world, "--image", BAD)
    assert (done.code, done.problem["code"]) == (1, "endpoint_failed")
    assert "nothing is left" in done.problem["error"]
    assert "memory" in done.problem["error"].lower()
    world.plane.assert_no_leaks()
    assert world.recorded() == []


@pytest.mark.parametrize("body", [{"error": "the model is not there"}, {"output": {"transcription": " "}}])
def test_a_canary_that_fails_ends_the_deploy(world: Rig, body: dict[str, Any]) -> None:
    world.plane.endpoints.answer = lambda job: dict(body)
    done = deploy(world)
    assert (done.code, done.problem["code"]) == (1, "endpoint_failed")
    world.plane.assert_no_leaks()


def test_without_machines_it_says_so(world: Rig) -> None:
    world.plane.endpoints.throttle(50)
    done = deploy(world, "--timeout", "1200", "--workers-min", "1")
    assert done.code == 5, done.err
    assert "--pool" in done.problem["hint"]
    world.plane.assert_no_leaks()


def test_not_ready_in_time_it_is_kept_and_said_what_it_costs(world: Rig) -> None:
    world.plane.endpoints.boot_s = 5000.0
    done = deploy(world, "--timeout", "60", "--workers-min", "1")
    assert done.code == 7
    assert "is kept at $1.12/h" in done.problem["error"]
    assert record(world)["endpoint_id"] == only(world).id


def test_keep_keeps_what_failed(world: Rig) -> None:
    world.plane.endpoints.fail_boots(BAD)
    done = deploy(world, "--image", BAD, "--keep")
    assert done.code == 1
    assert f"endpoint {only(world).id} is kept" in done.problem["error"]


@pytest.mark.parametrize("wait", [1, 4, 9])
def test_ctrl_c_ends_what_was_made(plane_rig: Rig, tmp_path: Path, wait: int) -> None:
    def interrupt(waits: int) -> None:
        if waits == wait:
            raise KeyboardInterrupt

    plane_rig.start_over(tmp_path, ClockThat(interrupt))
    done = deploy(plane_rig, "--workers-min", "1")
    assert done.code == 130, done.err
    assert "nothing is left" in done.problem["error"]
    plane_rig.plane.assert_no_leaks()
    assert plane_rig.recorded() == []


def test_what_cannot_be_ended_is_named(world: Rig) -> None:
    world.plane.endpoints.fail_boots(BAD)
    world.plane.faults.fail("DELETE /v2/serverless/{id}", 403, times=50)
    done = deploy(world, "--image", BAD)
    endpoint_id = only(world).id
    assert f"endpoint {endpoint_id} could not be ended" not in done.out
    assert endpoint_id in done.problem["error"] and "may be billed" in done.problem["error"]
    assert endpoint_id in done.problem["hint"]
    assert "pending-endpoints.json" in world.recorded()


def test_what_never_showed_is_not_said_to_be_gone(world: Rig) -> None:
    world.plane.endpoints.fail_boots(BAD)
    world.plane.faults.hide_new_pods(5000.0)
    world.plane.faults.fail("GET /v2/serverless/{id}", 404, times=50)
    done = deploy(world, "--image", BAD)
    assert "may show late" in done.problem["error"]
    assert "check-all" in done.problem["hint"]
    assert world.recorded() == ["pending-endpoints.json"]


@pytest.mark.parametrize("route", [TEMPLATES, ENDPOINTS])
def test_a_killed_deploy_is_known_to_the_next_one(world: Rig, route: str) -> None:
    kind = "templates" if route == TEMPLATES else "endpoints"
    pending = world.folder / "artifacts" / f"pending-{kind}.json"
    world.plane.faults.slow(route, 2.0)
    argv = [sys.executable, "-m", "builder", "deploy", "endpoint", "--yes", "--quiet"]
    environ = {**os.environ, **world.cli().environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(argv, cwd=world.folder, env=environ, stdout=subprocess.DEVNULL)
    try:
        while not world.plane.requests(route):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    [name] = json.loads(pending.read_text())
    while name not in [each.name for each in getattr(world.plane.endpoints, kind).values()]:
        time.sleep(0.02)
    done = deploy(world)
    assert done.code == 0, done.err
    assert f"an earlier deploy may have left {name}: look with python -m builder check-all" in done.err
    assert world.cli().run("endpoint", "delete", "--all-mine", "--yes").code == 0
    world.plane.assert_no_leaks()


def test_another_deploy_at_the_same_time_is_not_overwritten_in_silence(plane_rig: Rig, tmp_path: Path) -> None:
    def write(waits: int) -> None:
        (tmp_path / "artifacts" / "endpoint.json").write_text('{"endpoint_id": "other1"}')

    plane_rig.start_over(tmp_path, ClockThat(write))
    plane_rig.plane.faults.drop_after_commit(ENDPOINTS)
    plane_rig.plane.faults.hide_new_pods(1.0)
    done = deploy(plane_rig, "--no-wait")
    assert done.code == 0, done.err
    assert "another deploy made endpoint other1 meanwhile" in done.err


# An endpoint that is there


@pytest.fixture
def deployed(world: Rig) -> Rig:
    assert deploy(world, "--workers-min", "1").code == 0
    world.plane.journal.clear()
    return world


def test_the_same_again_does_nothing(deployed: Rig) -> None:
    done = deploy(deployed, "--workers-min", "1")
    assert done.code == 0, done.err
    assert (done.document["done"], done.document["drift"]) == ("nothing", [])
    assert deployed.plane.mutations() == []


def test_the_same_again_sees_whether_it_is_ready(world: Rig) -> None:
    world.plane.endpoints.fail_boots(BAD)
    argv = ("--image", BAD, "--workers-min", "1")
    assert deploy(world, *argv, "--no-wait").code == 0
    done = deploy(world, *argv)
    assert (done.code, done.problem["code"]) == (1, "endpoint_failed")
    assert len(world.plane.endpoints.alive()) == 1


def test_the_same_again_writes_down_what_a_killed_deploy_did_not(deployed: Rig) -> None:
    path = deployed.folder / "artifacts" / "endpoint.json"
    known = record(deployed)
    path.write_text(json.dumps({**known, "image": "you/whisper:old", "workers_max": 1}))
    assert deploy(deployed, "--workers-min", "1").document["done"] == "nothing"
    assert {**record(deployed), "last_updated": None} == {**known, "last_updated": None}


def test_a_new_image_rolls_out_in_place(deployed: Rig) -> None:
    endpoint = only(deployed)
    plan = deployed.cli().run("plan", "endpoint", "--json", "--workers-min", "1", "--image", "you/whisper:2")
    assert [each["field"] for each in plan.document["plan"]["drift"]] == ["image"]
    assert [each["method"] for each in plan.document["would"]] == ["PATCH"]
    assert deployed.plane.mutations() == []
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2")
    assert done.code == 0, done.err
    assert done.document["done"] == "changed"
    assert only(deployed).id == endpoint.id and only(deployed).image == "you/whisper:2"
    assert {each.image for each in only(deployed).workers} == {"you/whisper:2"}
    assert record(deployed)["image"] == "you/whisper:2"
    [template] = deployed.plane.endpoints.templates.values()
    assert template.document["image"] == "you/whisper:2"


def test_scaling_alone_replaces_no_worker_and_tries_no_job(deployed: Rig) -> None:
    workers = [each.id for each in only(deployed).workers]
    done = deploy(deployed, "--workers-min", "1", "--workers-max", "5")
    assert done.code == 0, done.err
    assert done.document["canary"] is None
    assert [each.id for each in only(deployed).workers] == workers
    assert record(deployed)["workers_max"] == 5


def test_an_unhealthy_release_is_rolled_back(deployed: Rig) -> None:
    deployed.plane.endpoints.fail_boots(BAD, "ImportError: libcudnn_ops.so.9: cannot open shared object file")
    done = deploy(deployed, "--workers-min", "1", "--image", BAD)
    assert (done.code, done.problem["code"]) == (1, "endpoint_failed"), done.err
    assert "was put back as it was" in done.problem["error"]
    endpoint = only(deployed)
    assert endpoint.image == IMAGE
    assert {each.image for each in endpoint.workers} == {IMAGE}
    assert record(deployed)["image"] == IMAGE
    [template] = deployed.plane.endpoints.templates.values()
    assert template.document["image"] == IMAGE


def test_a_release_that_takes_too_long_is_rolled_back(deployed: Rig) -> None:
    deployed.plane.endpoints.boot_s = 5000.0
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2", "--timeout", "60")
    assert (done.code, done.problem["code"]) == (1, "endpoint_failed")
    assert only(deployed).image == IMAGE


def test_a_release_that_hears_nothing_is_rolled_back(deployed: Rig) -> None:
    deployed.plane.endpoints.answer = lambda job: {"error": "no model"}
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2")
    assert "no model" in done.problem["error"]
    assert only(deployed).image == IMAGE


def test_keep_leaves_the_failed_release(deployed: Rig) -> None:
    deployed.plane.endpoints.fail_boots(BAD)
    done = deploy(deployed, "--workers-min", "1", "--image", BAD, "--keep")
    assert "left as changed" in done.problem["error"]
    assert only(deployed).image == record(deployed)["image"] == BAD


def test_a_change_that_is_refused_changes_nothing(deployed: Rig) -> None:
    deployed.plane.faults.fail(PATCH, 422)
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2")
    assert done.code == 1
    assert "is as it was" in done.problem["error"]
    assert len(deployed.plane.requests(PATCH)) == 1


def test_a_refusal_after_a_lost_answer_is_not_taken_for_no_change(deployed: Rig) -> None:
    deployed.plane.faults.drop_after_commit(PATCH)
    deployed.plane.faults.fail(PATCH, 422)
    done = deploy(deployed, "--workers-min", "3")
    assert done.code == 1
    assert "was put back as it was" in done.problem["error"]
    assert only(deployed).workers_min == 1


def test_what_cannot_be_put_back_is_said_with_the_way_back(deployed: Rig) -> None:
    deployed.plane.endpoints.fail_boots(BAD, "torch.cuda.OutOfMemoryError: CUDA out of memory")
    deployed.plane.faults.slow(PATCH, 0.0)
    deployed.plane.faults.fail(PATCH, 503, times=20)
    done = deploy(deployed, "--workers-min", "1", "--image", BAD)
    assert "could not be put back" in done.problem["error"]
    assert f"deploy again with the old settings (image {IMAGE}, 1 to 3 workers)" in done.problem["hint"]
    assert record(deployed)["image"] == BAD


def test_it_is_put_back_though_its_releases_cannot_be_read(deployed: Rig) -> None:
    # The canary's answer comes after the watch of the rollout, and before the way back.
    def answer(job: dict[str, Any]) -> dict[str, Any]:
        deployed.plane.faults.fail("GET /v2/serverless/{id}/releases", 503, times=40)
        return {"error": "no model"}

    deployed.plane.endpoints.answer = answer
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2")
    assert done.code == 1
    assert "was put back as it was" in done.problem["error"]
    assert only(deployed).image == IMAGE


def test_a_change_that_cannot_be_written_down_is_said_to_be_done(deployed: Rig) -> None:
    path = deployed.folder / "artifacts" / "endpoint.json"

    def answer(job: dict[str, Any]) -> dict[str, Any]:
        path.unlink()
        path.mkdir()
        return HEARD

    deployed.plane.endpoints.answer = answer
    done = deploy(deployed, "--workers-min", "1", "--image", "you/whisper:2")
    assert done.code == 1
    assert "is changed, but that could not be written down" in done.problem["error"]
    assert only(deployed).image == "you/whisper:2"


def test_ctrl_c_during_a_rollout_rolls_back(plane_rig: Rig, tmp_path: Path) -> None:
    armed: list[bool] = []

    def interrupt(waits: int) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    plane_rig.start_over(tmp_path, ClockThat(interrupt))
    plane_rig.plane.endpoints.answer = lambda job: HEARD
    assert deploy(plane_rig, "--workers-min", "1").code == 0
    armed.append(True)
    done = deploy(plane_rig, "--workers-min", "1", "--image", "you/whisper:2")
    assert done.code == 130
    assert "was put back as it was" in done.problem["error"]
    assert only(plane_rig).image == IMAGE


def test_another_one_is_made_only_if_asked_for(deployed: Rig) -> None:
    first = only(deployed).id
    done = deploy(deployed, "--new")
    assert done.code == 0
    assert f"endpoint {first} stays as it is" in done.err and f"endpoint delete {first}" in done.err
    assert len(deployed.plane.endpoints.alive()) == 2


def test_a_queue_does_not_become_a_load_balancer(deployed: Rig) -> None:
    done = deployed.cli().run("deploy", "lb", "--json", "--yes")
    assert (done.code, done.problem["code"]) == (1, "conflict")
    assert "--new" in done.problem["hint"]
    assert deployed.plane.mutations() == []


def test_a_name_is_for_a_new_one(deployed: Rig) -> None:
    assert deploy(deployed, "--workers-min", "1", "--name", "whisper").document["done"] == "nothing"
    done = deploy(deployed, "--workers-min", "1", "--name", "other")
    assert done.code == 2 and "--new" in done.problem["hint"]


def test_old_and_new_values_given_by_name_are_unseen(deployed: Rig) -> None:
    def changed(value: str, *argv: str) -> Any:
        return deploy(deployed, "--workers-min", "1", "--no-canary", "--set", "MY_SETTING", *argv, MY_SETTING=value)

    first, second = changed("canary-one-1"), changed("canary-two-2", "--dry-run")
    assert [each["field"] for each in second.document["plan"]["drift"]] == ["env.MY_SETTING"]
    assert "canary-" not in first.out + first.err + second.out + second.err


def test_what_was_taken_from_the_environment_before_is_unseen(deployed: Rig) -> None:
    one = deploy(deployed, "--workers-min", "1", "--no-canary", "--set", "MY_SETTING", MY_SETTING="canary-one-1")
    assert one.code == 0
    plan = deployed.cli().run("plan", "endpoint", "--workers-min", "1", "--image", "you/whisper:2", "--json")
    assert plan.document["would"][0]["body"]["env"]["MY_SETTING"] == "[hidden]"
    assert "canary-one-1" not in plan.out + plan.err


def test_jobs_that_go_elsewhere_are_warned_of(deployed: Rig) -> None:
    other = deploy(deployed, "--workers-min", "1", RUNPOD_ENDPOINT_ID="other1")
    assert "RUNPOD_ENDPOINT_ID is other1: jobs" in other.err
    own = deploy(deployed, "--workers-min", "1", RUNPOD_ENDPOINT_ID=only(deployed).id)
    assert "RUNPOD_ENDPOINT_ID" not in own.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("endpoint", "--no-wait"), ("is created and was not waited for.", "transcribe talk.mp3 --endpoint ")),
        (("endpoint", "--no-canary"), ("is created and has no worker now: the first request starts one.",)),
        (("lb", "--no-wait"), ("is created and was not waited for.", "Authorization: Bearer <RUNPOD_API_KEY>", "/lb/")),
    ],
)
def test_what_is_said_at_the_end_is_what_is_known(world: Rig, argv: tuple[str, ...], said: tuple[str, ...]) -> None:
    done = world.cli().run("deploy", *argv, "--yes")
    assert done.code == 0, done.err
    assert all(text in done.out for text in said), done.out


def test_one_that_is_gone_is_made_anew(deployed: Rig) -> None:
    delete_all(deployed)
    assert deploy(deployed).document["done"] == "created"
    # The template of the old one went, too.
    [template] = deployed.plane.endpoints.templates.values()
    assert template.id == record(deployed)["template_id"]


def test_a_damaged_record_stops_a_deploy(world: Rig) -> None:
    (world.folder / "artifacts").mkdir()
    (world.folder / "artifacts" / "pending-endpoints.json").write_text("{")
    done = deploy(world)
    assert (done.code, done.problem["code"]) == (1, "conflict")
    assert world.plane.mutations() == []
