"""Nothing that is billed is lost sight of: names in doubt, dead terminals, wrong 404s, damaged records, interrupts."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.api.models import PodSpec
from builder.console import Console
from builder.deploy.cleanup import Attempt, clean_up
from builder.deploy.create import CREATE_OVER_S, create_once
from builder.deploy.gpus import Candidate
from builder.deploy.pod_spec import PodOptions, make_spec
from builder.deploy.signals import interrupts
from builder.errors import CapacityError, PodFailedError, ServerFaultError
from builder.redact import Redactor
from builder.runtime import Runtime, World
from tests.deploy_rig import IMAGE, Rig, rig
from tests.fakes.runpod.calls import Answer
from tests.fakes.runpod.control_faults import ControlFault

CREATE, LIST, GET, DELETE = "POST /v2/pods", "GET /v2/pods", "GET /v2/pods/{id}", "DELETE /v2/pods/{id}"
GPU = Candidate("NVIDIA GeForce RTX 3090", "RTX 3090", 24, "COMMUNITY", 0.23, "HIGH", "12.0")
NAME = "whisper-0101-abcdef"


@pytest.fixture(scope="module")
def plane_rig() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.fixture
def world(plane_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr("builder.pods.wait.LOG_IDLE_S", 0.01)
    plane_rig.start_over(tmp_path)
    return plane_rig


@pytest.fixture
def run(world: Rig) -> Runtime:
    return Runtime(World(world.plane.environ(), world.folder, clock=world.plane.clock), quiet=True)


def spec() -> PodSpec:
    return make_spec(PodOptions(image=IMAGE, env={"A": "1"}), GPU, name=NAME, builder_id="b1")


def rows(world: Rig) -> dict[str, Any]:
    """What check-all shows, by id."""
    return {row["id"]: row for row in world.cli().run("check-all", "--json").document["resources"]}


def pending(world: Rig) -> list[str]:
    path = world.folder / "artifacts" / "pending.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def stray(world: Rig) -> tuple[str, str]:
    """Two pods made from here, the second the present one."""
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    (world.folder / "artifacts" / "pod.json").unlink()
    return first, world.deploy("--no-wait").document["pod"]["pod_id"]


# A terminal that was closed


class DeadTerminal(io.StringIO):
    """A terminal whose window was closed."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_dead_terminal_stops_nothing(is_terminal: bool) -> None:
    console = Console(Redactor(), stderr=DeadTerminal(is_terminal=is_terminal))
    with console.task("creating") as task:
        task.update("somewhere")
        console.note("again in 1 s")
        console.warn("careful")
        console.error(CapacityError("none"))


def test_a_dead_terminal_does_not_keep_a_failed_pod_alive(world: Rig) -> None:
    world.plane.faults.fail(DELETE, 503)
    clock = world.plane.clock
    environ = world.cli().environ
    deploy = ("deploy", "--yes", "--image", "you/missing:1")
    from builder.cli import main

    streams = {"stdin": io.StringIO(), "stdout": io.StringIO(), "stderr": DeadTerminal(is_terminal=False)}
    assert main(deploy, World(environ, world.folder, clock=clock, **streams)) == 1
    assert world.alive == []


def test_a_failure_of_any_kind_hides_no_pod(world: Rig, run: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(NAME, "b1", None)
    attempt.keep(create_once(run, spec(), attempt.watching(run.api.create_pod)))

    def broken() -> list[Any]:
        raise OSError("no more files")

    monkeypatch.setattr(run.api, "list_pods", broken)
    error = clean_up(run, attempt, PodFailedError("it failed"), keep=False)
    assert error is not None
    assert world.alive == [] or world.alive[0] in str(error)
    assert "no more files" in str(error)


# A create in doubt


def test_a_create_that_may_yet_show_is_not_called_none(world: Rig) -> None:
    world.plane.faults.hide_new_pods(120)
    world.plane.faults.drop_after_commit(CREATE, times=3)
    done = world.deploy("--gpu", "3090")
    assert done.code == 9
    assert "may show late" in done.problem["error"]
    assert "nothing is left" not in done.problem["error"]
    assert "check-all" in done.problem["hint"]
    [name] = pending(world)
    assert {pod.name for pod in world.plane.pods.alive()} == {name}
    world.plane.clock.advance(CREATE_OVER_S * 2)
    assert all("never finished" in row["reasons"][0] for row in rows(world).values())
    assert pending(world) == [name], "its pods are there"


def test_an_interrupt_within_the_request_leaves_it_in_doubt(world: Rig, run: Runtime) -> None:
    attempt = Attempt(NAME, "b1", None)

    def interrupted(spec: PodSpec) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        create_once(run, spec(), attempt.watching(interrupted))
    error = clean_up(run, attempt, caught.value, keep=False)
    assert error is not None
    assert "may show late" in str(error)
    assert list(run.state.pending()) == [NAME]


def test_a_double_that_may_yet_show_is_warned_of(world: Rig) -> None:
    world.plane.faults.hide_new_pods(120)
    world.plane.faults.drop_after_commit(CREATE)
    done = world.deploy()
    assert done.code == 0
    assert "exists twice is not certain" in done.err
    present = done.document["pod"]["pod_id"]
    assert len(world.alive) == 2
    assert pending(world) == [done.document["pod"]["pod_name"]]
    world.plane.clock.advance(200)
    shown = rows(world)
    assert {pod_id for pod_id, row in shown.items() if row["is_orphan"]} == set(world.alive) - {present}


def test_a_pod_that_answers_for_a_lost_answer_leaves_no_doubt(world: Rig) -> None:
    world.plane.faults.drop_after_commit(CREATE)
    done = world.deploy()
    assert done.code == 0
    assert "not certain" not in done.err
    assert world.recorded() == ["pod.json"]


def test_a_refusal_of_the_next_gpu_does_not_forget_the_doubt_about_the_first(world: Rig, run: Runtime) -> None:
    world.plane.faults.fail(CREATE, 503, times=99)
    with pytest.raises(ServerFaultError):
        create_once(run, spec())
    world.plane.faults.calm()
    world.plane.pods.set_stock(GPU.gpu_id, "NONE")
    with pytest.raises(CapacityError):
        create_once(run, spec())
    assert list(run.state.pending()) == [NAME]


@pytest.mark.parametrize("verb", ["check-all", "terminate", "plan"])
@pytest.mark.parametrize("is_over", [True, False])
def test_a_name_is_forgotten_once_its_create_is_over(world: Rig, run: Runtime, verb: str, is_over: bool) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    run.state.begin_pending(NAME, world.plane.clock.unix_s())
    world.plane.clock.advance(CREATE_OVER_S + 5 if is_over else CREATE_OVER_S - 60)
    done = world.cli().run(*{"terminate": ("terminate", pod, "--yes")}.get(verb, (verb, "--json")))
    assert done.code == 0, done.err
    assert pending(world) == ([] if is_over else [NAME])
    if verb == "plan":
        assert (f"may have left {NAME}" in done.err) is not is_over


# Pods made from here beside the present one


def test_a_pod_that_was_replaced_and_runs_is_an_orphan(world: Rig) -> None:
    old, present = stray(world)
    shown = rows(world)
    assert "not the present pod" in shown[old]["reasons"][0]
    assert shown[present]["reasons"] == []


def test_an_interrupt_while_the_old_pod_is_ended_names_both(world: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    old = world.deploy("--no-wait").document["pod"]["pod_id"]

    def interrupted(run: Runtime, pod_id: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builder.deploy.phases.delete_surely", interrupted)
    done = world.deploy("--replace")
    assert (done.code, done.problem["code"]) == (130, "interrupted")
    assert all(pod in done.problem["error"] for pod in world.alive)
    assert f"terminate {old} --yes" in done.problem["hint"]


def test_an_interrupt_while_a_late_pod_is_kept_still_names_it(world: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builder.deploy.phases.end_doubles", interrupted)
    world.plane.pods.script_boot("stuck")
    done = world.deploy("--timeout", "30")
    assert done.code == 7
    assert world.alive[0] in done.problem["error"]
    assert "exists twice is not known" in done.err


# A 404 that the list contradicts


def test_terminate_believes_a_404_only_if_the_list_agrees(world: Rig) -> None:
    world.deploy("--no-wait")
    world.plane.faults.fail(GET, 404)
    done = world.cli().run("terminate", "--yes", "--json")
    assert done.code == 0, done.err
    assert len(done.document["terminated"]) == 1
    assert world.alive == []


@pytest.mark.parametrize("verb", ["deploy", "stop"])
def test_other_verbs_too(world: Rig, verb: str) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    world.plane.faults.fail(GET, 404)
    if verb == "deploy":
        assert world.deploy().problem["code"] == "conflict"
    else:
        assert world.cli().run("stop").code == 0
        assert world.plane.pods.get(pod).status == "EXITED"
    assert world.alive == [pod]


def test_a_404_after_the_delete_is_no_proof(world: Rig) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    world.plane.faults.fail(DELETE, status=204, body="")
    world.plane.faults.fail(GET, 404, times=99)
    done = world.cli().run("terminate", "--yes", "--json")
    assert done.code == 1
    assert "still shows it" in done.problem["error"]
    assert world.recorded() == ["pod.json"] and world.alive == [pod]


def test_an_api_that_finds_nothing_at_all_has_ended_nothing(world: Rig) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    world.plane.faults.fail("*", 404, times=99)
    done = world.cli().run("terminate", pod, "--yes", "--json")
    world.plane.faults.calm()
    assert done.code != 0
    assert world.recorded() == ["pod.json"] and world.alive == [pod]


# One pod's failure


@pytest.mark.parametrize("status", [404, 500])
def test_all_mine_ends_all_though_a_look_fails(world: Rig, status: int) -> None:
    stray(world)
    world.plane.faults.fail(GET, status)
    assert world.cli().run("terminate", "--all-mine", "--yes").code == 0
    assert world.alive == []


def test_a_pod_that_is_not_there_saves_no_other(world: Rig) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.cli().run("terminate", "nobody", pod, "--yes", "--json")
    assert (done.code, world.alive) == (3, [])
    assert "no pod nobody" in done.problem["error"] and f"ended: {pod}" in done.problem["error"]


def test_a_list_that_fails_does_not_stop_terminate(world: Rig, monkeypatch: pytest.MonkeyPatch, run: Runtime) -> None:
    from builder.pods.operate import _split

    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    world.plane.faults.fail(LIST, 503, times=99)
    pods, gone = _split(run, [pod], {})
    assert ([each.id for each in pods], gone) == ([pod], [])


# Records


def test_a_failed_deploy_leaves_the_record_of_another(world: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def another_records(run: Runtime, pod_id: str, **more: Any) -> None:
        run.state.write("pod", {"pod_id": "other1"})
        raise PodFailedError("it failed")

    monkeypatch.setattr("builder.pods.wait.wait_for_pod", another_records)
    assert world.deploy().code == 1
    assert json.loads((world.folder / "artifacts" / "pod.json").read_text()) == {"pod_id": "other1"}


@pytest.mark.parametrize("name", ["pod", "pending"])
def test_a_damaged_record_stops_a_deploy(world: Rig, name: str) -> None:
    pod = world.deploy("--no-wait").document["pod"]["pod_id"]
    (world.folder / "artifacts" / f"{name}.json").write_text('{"pod_id": "abc')
    done = world.deploy()
    assert (done.code, world.alive) == (1, [pod])
    assert "is damaged" in done.problem["error"] and "check-all" in done.problem["hint"]
    assert "is damaged" in world.cli().run("plan").err
    assert "is damaged" in world.cli().run("check-all").err
    if name == "pod":
        assert rows(world)[pod]["is_orphan"]
        assert "is damaged" in world.cli().run("terminate", "--yes", "--json").problem["error"]


def test_an_answer_without_an_id_is_looked_into(world: Rig) -> None:
    answer = Answer(201, {"id": "", "name": "n", "status": "PROVISIONING"})
    world.plane.faults.add(CREATE, ControlFault("no id", True, answer))
    done = world.deploy("--no-wait")
    assert done.code == 0, done.err
    assert world.alive == [done.document["pod"]["pod_id"]]


def test_what_cannot_be_ended_by_id_is_swept_by_name(world: Rig, run: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = Attempt(NAME, "b1", None)
    create_once(run, spec())
    attempt.n_unknown = 1
    attempt.keep(run.api.list_pods()[0].model_copy(update={"id": "bad id"}))
    attempt.has_sent = True
    clean_up(run, attempt, PodFailedError("it failed"), keep=False)
    assert world.alive == []


def test_the_diary_holds_what_costs_are_computed_from(world: Rig, run: Runtime) -> None:
    world.deploy("--no-wait", "--volume", "20")
    [created] = [event["details"] for event in run.state.events() if event["action"] == "created"]
    assert (created["volume_gb"], created["is_spot"]) == (20, False)
    assert created["disk_gb"] > 0 and created["cost_per_hour"] > 0


def test_a_pod_that_does_not_show_yet_is_not_called_ended(world: Rig) -> None:
    world.plane.faults.hide_new_pods(60)
    world.plane.faults.fail(GET, 403)
    world.plane.faults.fail(GET, 404, times=99)
    world.plane.faults.fail(DELETE, 404, times=99)
    done = world.deploy()
    assert done.code == 4
    assert "may show late" in done.problem["error"] and "check-all" in done.problem["hint"]
    assert pending(world) == [world.plane.pods.alive()[0].name]


def test_a_closed_terminal_does_not_interrupt_the_cleaning_up() -> None:
    notes: list[str] = []
    with interrupts(notes.append) as handler:
        handler.is_cleaning = True
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
    assert notes == []


def test_nesting_without_end_is_damage(run: Runtime) -> None:
    run.state.folder.mkdir()
    (run.state.folder / "guard.json").write_text("[" * 100_000)
    assert run.state.read("guard") is None and run.state.is_damaged("guard")


# Prices and limits


def test_a_price_that_shows_after_the_create_counts(world: Rig) -> None:
    def placed(pod: Any, old: Any, new: Any) -> None:
        pod.price = 9.0 if new == "RUNNING" else 0.0

    world.plane.pods.on_change.append(placed)
    try:
        done = world.deploy("--gpu", "3090", "--max-price", "0.5")
    finally:
        world.plane.pods.on_change.remove(placed)
    assert done.code == 6, done.err
    assert "RunPod bills $9.00/h" in done.problem["error"]
    assert world.alive == []


@pytest.mark.parametrize(
    ("wishes", "code", "words"),
    [(("--max-price", "0.05"), 6, "--max-price"), (("--max-minutes", "120"), 1, "deadline"), ((), 1, "EXITED")],
)
def test_reuse_keeps_limits(world: Rig, wishes: tuple[str, ...], code: int, words: str) -> None:
    pod = world.deploy("--max-minutes", "20").document["pod"]["pod_id"]
    if not wishes:
        world.plane.pods.act(pod, "stop")
    done = world.deploy("--reuse", *wishes)
    assert done.code == code, done.err
    assert words in done.problem["error"]


def test_a_start_above_the_limit_is_taken_back(world: Rig) -> None:
    pod = world.deploy("--volume", "20").document["pod"]["pod_id"]
    assert world.cli().run("stop").code == 0
    done = world.cli(BUILDER_MAX_PRICE="0.01").run("start", "--json")
    assert done.code == 6, done.err
    assert "stopped again" in done.problem["error"]
    assert world.plane.pods.get(pod).status == "EXITED"


def test_a_new_pod_that_the_api_does_not_show_yet_is_waited_for(world: Rig) -> None:
    world.plane.faults.fail(GET, 404, times=3)
    assert len(world.alive) == 0
    deployed = world.deploy()
    assert deployed.code == 0, deployed.err
    assert world.alive == [deployed.document["pod"]["pod_id"]]
