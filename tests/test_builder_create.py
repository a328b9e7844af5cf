"""A pod is created exactly once, whatever becomes of the answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.api.models import PodSpec
from builder.deploy.create import LOOKS_S, MAX_TRIES, create_once, delete_surely, our_pods, sweep, unique_name
from builder.deploy.gpus import Candidate
from builder.deploy.pod_spec import PodOptions, make_spec
from builder.errors import BuilderError, CapacityError, ConflictError, NetworkError, ServerFaultError
from builder.runtime import Runtime, World
from tests.deploy_rig import IMAGE, Rig, rig

CREATE, LIST, GET, DELETE = "POST /v2/pods", "GET /v2/pods", "GET /v2/pods/{id}", "DELETE /v2/pods/{id}"
GPU = Candidate("NVIDIA GeForce RTX 3090", "RTX 3090", 24, "COMMUNITY", 0.23, "HIGH", "12.0")
Breakage = Callable[[Rig], None]


@pytest.fixture(scope="module")
def plane_rig() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.fixture
def world(plane_rig: Rig, tmp_path: Path) -> Rig:
    plane_rig.start_over(tmp_path)
    return plane_rig


@pytest.fixture
def run(world: Rig) -> Runtime:
    return Runtime(World(world.plane.environ(), world.folder, clock=world.plane.clock), quiet=True)


def spec(name: str = "whisper-1124-abcdef", builder_id: str = "b1", gpu: Candidate = GPU) -> PodSpec:
    return make_spec(PodOptions(image=IMAGE, env={"A": "1"}), gpu, name=name, builder_id=builder_id)


def test_names_are_nobody_elses() -> None:
    names = {unique_name("whisper", 0.0) for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"whisper-0101-[0-9a-f]{6}", name) for name in names)


def test_one_request_makes_one_pod(world: Rig, run: Runtime) -> None:
    pod = create_once(run, spec())
    assert world.alive == [pod.id]
    assert len(world.plane.requests(CREATE)) == 1
    assert list(run.state.pending()) == ["whisper-1124-abcdef"]


@pytest.mark.parametrize(
    "breakage",
    [
        lambda world: world.plane.faults.drop_after_commit(CREATE),
        lambda world: world.plane.faults.reset(CREATE, executed=True),
        lambda world: world.plane.faults.half(CREATE),
        lambda world: world.plane.faults.garbage(CREATE, executed=True),
        lambda world: world.plane.faults.fail(CREATE, status=502, executed=True),
    ],
)
def test_a_pod_whose_answer_is_lost_is_adopted(world: Rig, run: Runtime, breakage: Breakage) -> None:
    breakage(world)
    pod = create_once(run, spec())
    assert world.alive == [pod.id]
    assert len(world.plane.requests(CREATE)) == 1


@pytest.mark.parametrize(
    "breakage",
    [
        lambda world: world.plane.faults.drop_before(CREATE),
        lambda world: world.plane.faults.garbage(CREATE),
        lambda world: world.plane.faults.fail(CREATE, status=503, times=MAX_TRIES - 1),
    ],
)
def test_a_request_that_had_no_effect_is_sent_again(world: Rig, run: Runtime, breakage: Breakage) -> None:
    breakage(world)
    pod = create_once(run, spec())
    assert world.alive == [pod.id]
    assert len(world.plane.requests(CREATE)) > 1


def test_a_pod_that_the_list_shows_late_is_waited_for(world: Rig, run: Runtime) -> None:
    world.plane.faults.hide_new_pods(sum(LOOKS_S) - 1)
    world.plane.faults.drop_after_commit(CREATE)
    pod = create_once(run, spec())
    assert world.alive == [pod.id]


def test_a_double_that_shows_even_later_is_swept(world: Rig, run: Runtime) -> None:
    world.plane.faults.hide_new_pods(sum(LOOKS_S) + 2)
    world.plane.faults.drop_after_commit(CREATE)
    pod = create_once(run, spec())
    assert len(world.alive) == 2
    swept = sweep(run, "whisper-1124-abcdef", "b1", keep=pod.id, is_patient=True)
    assert len(swept.ended) == 1
    assert swept.left == {}
    assert world.alive == [pod.id]


def test_an_api_that_only_fails_is_given_up(world: Rig, run: Runtime) -> None:
    world.plane.faults.fail(CREATE, status=503, times=99)
    with pytest.raises(ServerFaultError):
        create_once(run, spec())
    assert len(world.plane.requests(CREATE)) == MAX_TRIES
    assert list(run.state.pending()) == ["whisper-1124-abcdef"], "it may yet show"


def test_a_refusal_is_certain(world: Rig, run: Runtime) -> None:
    world.plane.pods.set_stock(GPU.gpu_id, "NONE")
    with pytest.raises(CapacityError):
        create_once(run, spec())
    assert len(world.plane.requests(CREATE)) == 1
    assert run.state.pending() == {}


def test_a_refusal_after_a_doubt_is_not(world: Rig, run: Runtime) -> None:
    world.plane.faults.drop_before(CREATE)
    world.plane.pods.set_stock(GPU.gpu_id, "NONE")
    with pytest.raises(CapacityError):
        create_once(run, spec())
    assert list(run.state.pending()) == ["whisper-1124-abcdef"]


def test_who_cannot_look_does_not_try_again(world: Rig, run: Runtime) -> None:
    world.plane.faults.drop_after_commit(CREATE)
    world.plane.faults.fail(LIST, status=503, times=99)
    with pytest.raises(ServerFaultError):
        create_once(run, spec())
    assert len(world.plane.requests(CREATE)) == 1
    assert list(run.state.pending()) == ["whisper-1124-abcdef"]


def test_pods_of_others_are_left_alone(world: Rig, run: Runtime) -> None:
    other = create_once(run, spec("whisper-1124-999999", "b9"))
    mine = create_once(run, spec())
    assert [pod.id for pod in our_pods(run, "whisper-1124-abcdef", "b1")] == [mine.id]
    assert sweep(run, "whisper-1124-abcdef", "b1").ended == (mine.id,)
    assert world.alive == [other.id]


def test_a_locked_pod_is_told_of(world: Rig, run: Runtime) -> None:
    pod = create_once(run, spec())
    world.plane.pods.update(pod.id, {"locked": True})
    swept = sweep(run, "whisper-1124-abcdef", "b1")
    assert swept.ended == ()
    assert "locked" in swept.left[pod.id]


def test_ending_is_verified(world: Rig, run: Runtime) -> None:
    pod = create_once(run, spec())
    world.plane.faults.fail(DELETE, status=204, body="")
    with pytest.raises(ConflictError, match="still shows it"):
        delete_surely(run, pod.id)
    delete_surely(run, pod.id)
    assert world.alive == []
    assert [event["action"] for event in run.state.events()] == ["terminated"]


def test_a_pod_that_is_gone_already_is_ended(world: Rig, run: Runtime) -> None:
    pod = create_once(run, spec())
    world.plane.pods.delete(pod.id)
    delete_surely(run, pod.id)


@pytest.mark.parametrize("fault", ["drop_after_commit", "drop_before", "half"])
def test_an_api_that_always_fails_so_leaves_a_name_behind(world: Rig, run: Runtime, fault: str) -> None:
    getattr(world.plane.faults, fault)("*", 200)
    with pytest.raises((NetworkError, BuilderError)):
        create_once(run, spec())
    assert list(run.state.pending()) == ["whisper-1124-abcdef"]
    assert len(world.alive) <= 1
