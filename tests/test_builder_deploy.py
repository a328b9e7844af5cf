"""`deploy` and `plan` against the fake RunPod: the way to a ready pod, and that no failure leaves one unseen."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.deploy.signals import interrupts
from tests.deploy_rig import IMAGE, TOKEN, Rig, rig
from tests.fakes.runpod.clock import PlaneClock

RTX_3090, RTX_4090, H200 = "NVIDIA GeForce RTX 3090", "NVIDIA GeForce RTX 4090", "NVIDIA H200"
CREATE = "POST /v2/pods"


@pytest.fixture(scope="module")
def plane_rig() -> Iterator[Rig]:
    with rig() as made:
        yield made


@pytest.fixture
def world(plane_rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr("builder.pods.wait.LOG_IDLE_S", 0.01)
    plane_rig.start_over(tmp_path)
    yield plane_rig
    plane_rig.plane.assert_no_secret(TOKEN)
    plane_rig.plane.assert_contract()


def pod_json(world: Rig) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((world.folder / "artifacts" / "pod.json").read_text())
    return document


class ClockThat(PlaneClock):
    """Calls `at` with the number of each wait before it."""

    def __init__(self, at: Any) -> None:
        super().__init__()
        self._at, self._waits = at, 0

    def sleep(self, seconds: float) -> None:
        self._waits += 1
        self._at(self._waits)
        super().sleep(seconds)


# The good way


def test_a_deploy_ends_with_a_pod_that_is_ready(world: Rig) -> None:
    done = world.deploy("--idle-stop", "15", "--max-minutes", "60", "--volume", "20")
    assert done.code == 0, done.err
    [pod] = world.plane.pods.alive()
    record = done.document["pod"]
    assert record == pod_json(world)
    assert record["pod_id"] == pod.id
    assert record["status"] == "RUNNING"
    assert record["pod_name"].startswith("whisper-")
    assert (record["image"], record["volume_gb"], record["idle_stop_min"]) == (IMAGE, 20, 15)
    assert record["ws_url"] == f"ws://127.0.0.1:{world.plane.port}/proxy/{pod.id}/9090"
    assert done.document["readiness"]["rungs"]["ready"] > 0
    assert pod.env["WHISPER_MODE"] == "pod"
    assert pod.env["WHISPER_AUTH_TOKEN"] == TOKEN
    assert pod.env["POD_IDLE_STOP_MIN"] == "15"
    assert pod.env["POD_DEADLINE"] == record["deadline"]
    assert pod.env["BUILDER_ID"] == record["builder_id"]
    assert pod.env["BUILDER_SPEC_SHA"] == record["spec_sha"]
    assert world.recorded() == ["pod.json"]
    [create] = world.plane.requests(CREATE)
    assert create.body["gpu"]["minCudaVersion"] == "12.0"


def test_a_value_given_by_its_name_reaches_the_pod_and_no_message(world: Rig) -> None:
    (world.folder / ".env").write_text("MY_SETTING=canary-value\n")
    world.plane.faults.fail(CREATE, 422, body={"detail": "y" * 470 + " env: MY_SETTING=canary-value"})
    refused = world.deploy("--no-wait", "--gpu", "3090", "--set", "MY_SETTING")
    assert refused.code != 0 and "canary" not in refused.out + refused.err
    world.plane.faults.restore()
    assert world.deploy("--no-wait", "--set", "MY_SETTING").code == 0
    [pod] = world.plane.pods.alive()
    assert pod.env["MY_SETTING"] == "canary-value"


def test_what_a_person_sees(world: Rig) -> None:
    shown = world.cli().run("deploy", "--gpu", "3090", "--idle-stop", "15", answers="y\n")
    assert shown.code == 0, shown.err
    for text in ("RTX 3090", "COMMUNITY", "$/audio-h*", "estimate from data sheets", "token required: yes"):
        assert text in shown.out
    assert "credit $100.00" in shown.out
    assert "terminate" in shown.out
    assert "/proxy/" in shown.out
    assert "[y/N]" in shown.err
    assert TOKEN not in shown.out + shown.err


def test_a_no_changes_nothing(world: Rig) -> None:
    shown = world.cli().run("deploy", answers="n\n")
    assert shown.code == 2
    assert "nothing was done" in shown.err
    assert world.plane.mutations() == []


def test_nobody_to_ask_means_no(world: Rig) -> None:
    assert world.cli().run("deploy", "--json").code == 2
    assert world.plane.mutations() == []


@pytest.mark.parametrize("argv", [("plan",), ("deploy", "--dry-run"), ("deploy", "pod", "--dry-run", "--spot")])
def test_a_plan_changes_nothing_and_shows_the_request(world: Rig, argv: tuple[str, ...]) -> None:
    done = world.cli(HF_TOKEN="hidden-from-everyone").run(*argv, "--json", "--set", "HF_TOKEN")
    assert done.code == 0, done.err
    assert [entry.route for entry in world.plane.mutations()] == []
    [would] = done.document["would"]
    assert would["method"] == "POST"
    assert would["body"]["image"] == IMAGE
    assert would["body"]["env"]["WHISPER_AUTH_TOKEN"] == "[hidden]"
    assert would["body"]["env"]["HF_TOKEN"] == "[hidden]"
    assert "hidden-from-everyone" not in done.out + done.err
    assert TOKEN not in done.out + done.err
    assert "never_stops" in [each["code"] for each in done.document["plan"]["warnings"]]
    assert world.recorded() == []


def test_without_waiting_the_pod_is_only_created(world: Rig) -> None:
    done = world.deploy("--no-wait")
    assert done.code == 0
    assert done.document["readiness"] is None
    assert done.document["pod"]["status"] == "PROVISIONING"


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("argv", "environ", "code", "words"),
    [
        ((), {"DOCKER_IMAGE": "whisper"}, 2, ("build", "push")),
        ((), {"DOCKER_IMAGE": "whisper", "DOCKER_TAG": "1"}, 2, ("DOCKER_HUB_USERNAME",)),
        (("--image", "You/Whisper:1"), {}, 2, ("lower-case",)),
        ((), {"WHISPER_AUTH_TOKEN": ""}, 2, ("WHISPER_AUTH_TOKEN", "--no-auth")),
        ((), {"WHISPER_AUTH_TOKEN": "short"}, 2, ("16 to 512",)),
        ((), {"RUNPOD_API_KEY": ""}, 4, ("RUNPOD_API_KEY",)),
        ((), {"RUNPOD_API_KEY": "rpa_WRONG0WRONG0WRONG0WRONG"}, 4, ("API key",)),
        (("--gpu", "A100"), {}, 2, ("A100 PCIe", "A100-SXM4-80GB")),
        (("--gpu", "9090"), {}, 2, ("not in RunPod's catalog",)),
        (("--max-price", "0.05"), {}, 6, ("--max-price",)),
        (("--reuse", "--replace"), {}, 2, ("exclude",)),
        (("--cloud", "moon"), {}, 2, ("secure",)),
        (("--volume", "5"), {}, 2, ("10 GB",)),
        (("--network-volume", "vol1", "--cloud", "community"), {}, 2, ("secure cloud",)),
        (("--network-volume", "vol1"), {}, 3, ("vol1",)),
        (("--bid", "0.1"), {}, 2, ("--spot",)),
        (("--set", "WHISPER_AUTH_TOKEN=x"), {}, 2, ("--set",)),
        (("--set", "HF_TOKEN=x"), {}, 2, ("is secret", "--set HF_TOKEN")),
        (("nonsense",), {}, 2, ("legal: pod, endpoint, lb",)),
    ],
)
def test_refusals(
    world: Rig, argv: tuple[str, ...], environ: dict[str, str], code: int, words: tuple[str, ...]
) -> None:
    done = world.deploy(*argv, **environ)
    problem = done.problem
    assert done.code == code, done.err
    said = f"{problem['error']} {problem['hint']}".replace("NVIDIA A100 80GB PCIe", "A100 PCIe")
    assert all(word in said for word in words), said
    assert [entry for entry in world.plane.mutations() if entry.executed] == []


def test_an_hour_must_be_paid_for(world: Rig) -> None:
    world.plane.pods.balance = 0.20
    done = world.deploy("--gpu", "4090", "--cloud", "secure")
    assert done.code == 10
    assert "$0.20" in done.problem["error"]
    assert world.plane.mutations() == []


def test_without_graphql_the_balance_is_not_checked(world: Rig) -> None:
    world.plane.retire_graphql()
    done = world.deploy()
    assert done.code == 0
    assert "credit not checked" in done.err


def test_the_last_push_is_the_image(world: Rig) -> None:
    (world.folder / "artifacts").mkdir()
    (world.folder / "artifacts" / "push.json").write_text(json.dumps({"image": "you/pushed:1"}))
    done = world.deploy("--dry-run", DOCKER_IMAGE="whisper")
    assert done.document["plan"]["image"] == "you/pushed:1"


# Fallback


def test_a_sold_out_gpu_gives_way_to_the_next(world: Rig) -> None:
    world.plane.pods.set_stock(RTX_3090, "NONE", shown="HIGH")
    done = world.deploy("--gpu", "3090,4090")
    assert done.code == 0, done.err
    assert done.document["pod"]["gpu_type"] == RTX_4090
    assert len(done.document["refused"]) == 2
    assert len(world.alive) == 1


def test_everything_sold_out_lists_what_was_tried(world: Rig) -> None:
    for gpu in (RTX_3090, H200):
        world.plane.pods.set_stock(gpu, "NONE", shown="HIGH")
    done = world.deploy("--gpu", "3090,h200")
    assert done.code == 5
    for text in ("RTX 3090 (COMMUNITY): no capacity", "RTX 3090 (SECURE)", "H200 SXM (SECURE)", "nothing is left"):
        assert text in done.problem["error"]
    assert world.recorded() == []


def test_a_rule_that_every_candidate_breaks_is_told_as_it_is(world: Rig) -> None:
    world.plane.faults.fail(CREATE, status=400, times=9, body={"title": "x", "status": 400, "detail": "ports: no"})
    done = world.deploy("--gpu", "3090")
    assert (done.code, done.problem["code"]) == (1, "bad_request")
    assert "ports: no" in done.problem["error"]
    assert len(world.plane.requests(CREATE)) == 2


def test_a_body_that_is_wrong_is_sent_once(world: Rig) -> None:
    body = {"title": "x", "status": 422, "detail": "no", "errors": ["$: missing property 'x'"]}
    world.plane.faults.fail(CREATE, status=422, body=body)
    done = world.deploy("--gpu", "3090")
    assert (done.code, done.problem["status"]) == (1, 422)
    assert len(world.plane.requests(CREATE)) == 1


def test_no_money_stops_the_search(world: Rig) -> None:
    body = {"title": "x", "status": 402, "detail": "Insufficient balance"}
    world.plane.faults.fail(CREATE, status=402, body=body)
    done = world.deploy()
    assert done.code == 10
    assert len(world.plane.requests(CREATE)) == 1


def test_a_key_that_may_only_read(world: Rig) -> None:
    done = world.deploy("--gpu", "3090", RUNPOD_API_KEY=world.plane.read_only_key)
    assert (done.code, done.problem["code"]) == (4, "forbidden")


def test_a_price_above_the_limit_after_all_ends_the_pod(world: Rig) -> None:
    def dearer(pod: Any, old: Any, new: Any) -> None:
        pod.price = 0.50

    world.plane.pods.on_change.append(dearer)
    try:
        done = world.deploy("--gpu", "3090", "--cloud", "community", "--max-price", "0.23")
    finally:
        world.plane.pods.on_change.remove(dearer)
    assert done.code == 6
    assert "RunPod bills $0.50/h" in done.problem["error"]
    world.plane.assert_no_leaks()
    assert world.recorded() == []


# Failures after the create


def test_an_image_that_is_missing_ends_the_pod(world: Rig) -> None:
    done = world.deploy("--image", "you/missing:1")
    assert (done.code, done.problem["code"]) == (1, "pod_failed")
    assert "nothing is left" in done.problem["error"]
    world.plane.assert_no_leaks()
    assert world.recorded() == []


def test_a_pod_that_fails_is_kept_if_asked(world: Rig) -> None:
    done = world.deploy("--image", "you/missing:1", "--keep")
    assert done.code == 1
    [pod] = world.alive
    assert pod in done.problem["error"]
    assert f"terminate {pod}" in done.problem["hint"]
    assert pod_json(world)["pod_id"] == pod


def test_a_pod_that_is_late_is_kept(world: Rig) -> None:
    world.plane.pods.script_boot("stuck")
    done = world.deploy("--timeout", "60")
    assert done.code == 7
    [pod] = world.alive
    assert pod in done.problem["error"]
    assert "is kept" in done.problem["error"]
    assert f"terminate {pod}" in done.problem["hint"]
    assert pod_json(world)["pod_id"] == pod
    assert world.recorded() == ["pod.json"]


def test_a_pod_that_cannot_be_ended_is_named_with_price_and_command(world: Rig) -> None:
    world.plane.faults.fail("DELETE /v2/pods/{id}", status=503, times=99)
    done = world.deploy("--image", "you/missing:1", "--gpu", "3090")
    [pod] = world.alive
    assert done.code == 1
    for text in (pod, "could not be ended", "$0.23/h"):
        assert text in done.problem["error"]
    assert f"python -m builder terminate {pod} --yes" in done.problem["hint"]
    assert world.recorded() == ["pending.json", "pod.json"]


def _double(world: Rig) -> None:
    """The first create's answer is lost, and its pod is hidden until the second is made."""
    world.plane.faults.hide_new_pods(11.0)
    world.plane.faults.drop_after_commit(CREATE)


def test_a_double_is_ended_once_it_shows(world: Rig) -> None:
    _double(world)
    done = world.deploy()
    assert done.code == 0, done.err
    assert world.creates == 2
    assert world.alive == [done.document["pod"]["pod_id"]]


def test_a_double_that_cannot_be_ended_is_named(world: Rig) -> None:
    _double(world)
    world.plane.faults.fail("DELETE /v2/pods/{id}", status=503, times=99)
    done = world.deploy()
    kept = done.document["pod"]["pod_id"]
    [double] = [pod for pod in world.alive if pod != kept]
    assert done.code == 1
    assert double in done.problem["error"]
    assert f"terminate {double}" in done.problem["hint"]
    assert world.recorded() == ["pending.json", "pod.json"]


def test_without_a_place_to_remember_nothing_is_created(world: Rig) -> None:
    (world.folder / "artifacts").write_text("no folder")
    done = world.deploy()
    assert done.code == 1
    assert "artifacts" in done.problem["error"]
    assert world.plane.mutations() == []


@pytest.mark.parametrize("can_delete", [True, False])
def test_a_disk_that_fills_up_hides_no_pod(world: Rig, can_delete: bool) -> None:
    def fill(pod: Any, old: Any, new: Any) -> None:
        if old is None:
            (world.folder / "artifacts").rename(world.folder / "away")
            (world.folder / "artifacts").write_text("no folder")

    if not can_delete:
        world.plane.faults.fail("DELETE /v2/pods/{id}", status=503, times=99)
    world.plane.pods.on_change.append(fill)
    try:
        done = world.deploy()
    finally:
        world.plane.pods.on_change.remove(fill)
    assert done.code == 1
    assert all(pod in done.problem["error"] for pod in world.alive)
    assert len(world.alive) == (0 if can_delete else 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("wait", [1, 4])
def test_signals_while_waiting_end_the_pod(world: Rig, number: signal.Signals, wait: int) -> None:
    def at(count: int) -> None:
        if count == wait:
            os.kill(os.getpid(), number)

    world.start_over(world.folder, ClockThat(at))
    before = signal.getsignal(number)
    done = world.deploy()
    assert signal.getsignal(number) is before
    assert done.code == 130
    assert "nothing is left" in done.problem["error"]
    world.plane.assert_no_leaks()
    assert world.creates == 1
    assert world.recorded() == []


def test_ctrl_c_during_the_create_finds_the_pod_that_was_made(world: Rig) -> None:
    def at(count: int) -> None:
        # The first wait is that between two looks for the pod.
        if count == 1:
            raise KeyboardInterrupt

    world.start_over(world.folder, ClockThat(at))
    world.plane.faults.hide_new_pods(3.0)
    world.plane.faults.drop_after_commit(CREATE)
    done = world.deploy()
    assert done.code == 130
    assert "ended" in done.problem["error"]
    world.plane.assert_no_leaks()


def test_a_second_signal_leaves_the_cleaning_up() -> None:
    notes: list[str] = []
    with interrupts(notes.append) as handler:
        handler.is_cleaning = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert notes
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(print):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with interrupts(seen.append):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


# A pod that is there


def test_a_second_deploy_wants_to_know_what_to_do(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.deploy()
    assert (done.code, done.problem["code"]) == (1, "conflict")
    assert first in done.problem["error"]
    assert "--reuse" in done.problem["hint"]
    assert "--replace" in done.problem["hint"]
    assert world.alive == [first]


def test_a_pod_that_is_gone_is_no_obstacle(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    world.plane.pods.delete(first)
    assert world.deploy("--no-wait").code == 0


def test_reuse_is_a_no_op_for_the_same_wishes(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    n_mutations = len(world.plane.mutations())
    done = world.deploy("--reuse")
    assert done.code == 0
    assert (done.document["reused"], done.document["pod"]["pod_id"]) == (True, first)
    assert len(world.plane.mutations()) == n_mutations


def test_reuse_names_what_differs_and_changes_nothing(world: Rig) -> None:
    world.deploy("--no-wait", "--gpu", "3090", "--cloud", "community")
    n_mutations = len(world.plane.mutations())
    done = world.deploy("--reuse", "--gpu", "4090", "--cloud", "secure", "--disk", "40", WHISPER_MODEL="turbo")
    assert done.code == 1
    assert "differs from what is wanted now in disk, env.WHISPER_MODEL, gpu, cloud" in done.problem["error"]
    assert "--replace" in done.problem["hint"]
    assert len(world.plane.mutations()) == n_mutations


def test_replace_ends_the_old_pod_once_the_new_one_is_ready(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.deploy("--replace")
    assert done.code == 0, done.err
    assert done.document["replaced"] == first
    assert world.alive == [done.document["pod"]["pod_id"]] == [pod_json(world)["pod_id"]]


def test_a_replacement_that_fails_leaves_the_old_pod(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.deploy("--replace", "--image", "you/missing:1")
    assert done.code == 1
    assert world.alive == [first] == [pod_json(world)["pod_id"]]


@pytest.mark.parametrize(("answer", "code"), [("r", 0), ("c", 2), ("", 2)])
def test_a_person_is_asked(world: Rig, answer: str, code: int) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.cli().run("deploy", answers=f"{answer}\n")
    assert done.code == code
    assert first in done.err
    assert world.alive == [first]


def test_a_person_may_replace(world: Rig) -> None:
    first = world.deploy("--no-wait").document["pod"]["pod_id"]
    done = world.cli().run("deploy", answers="p\ny\n")
    assert done.code == 0, done.err
    assert first not in world.alive
    assert f"end pod {first}" in done.err


def test_the_trace_of_a_killed_deploy_is_pointed_out(world: Rig) -> None:
    (world.folder / "artifacts").mkdir()
    (world.folder / "artifacts" / "pending.json").write_text('{"whisper-1123-aaaaaa": "2026-11-23T10:00:00Z"}')
    assert "may have left whisper-1123-aaaaaa" in world.deploy("--no-wait").err


# REST v1


def test_the_rollback_switch_deploys_without_prices(world: Rig) -> None:
    done = world.deploy("--gpu", RTX_3090, "--cloud", "secure", RUNPOD_API_V1="1")
    assert done.code == 0, done.err
    assert "without prices" in done.err
    assert done.document["pod"]["gpu_type"] == RTX_3090
    assert len(world.alive) == 1
    assert world.deploy("--replace", RUNPOD_API_V1="1").code == 2


# What only GraphQL can do


def test_a_spot_pod_at_the_lowest_bid(world: Rig) -> None:
    done = world.deploy("--spot", "--gpu", "3090", "--cloud", "community")
    assert done.code == 0, done.err
    [pod] = world.plane.pods.alive()
    assert pod.is_spot
    assert pod.bid == pytest.approx(0.115)
    assert done.document["pod"]["is_spot"] is True
    assert world.plane.requests(CREATE) == []


def test_a_bid_that_is_too_low(world: Rig) -> None:
    done = world.deploy("--spot", "--gpu", "3090", "--bid", "0.01")
    assert done.code == 6
    assert "lowest bid" in done.problem["error"]


def test_a_pod_that_runpod_ends(world: Rig) -> None:
    done = world.deploy("--terminate-after", "90", "--no-wait")
    assert done.code == 0, done.err
    [pod] = world.plane.pods.alive()
    assert pod.terminate_at_s == pytest.approx(world.plane.clock.unix_s() + 90 * 60, abs=5)


def test_a_token_in_runpods_secret_store(world: Rig) -> None:
    done = world.deploy("--secret", "whisper_token", "--no-wait")
    assert done.code == 0, done.err
    [pod] = world.plane.pods.alive()
    assert pod.env["WHISPER_AUTH_TOKEN"] == "{{ RUNPOD_SECRET_whisper_token }}"
    assert [each.name for each in world.plane.pods.account.secrets.values()] == ["whisper_token"]


@pytest.mark.parametrize("argv", [("--spot",), ("--terminate-after", "60"), ("--secret", "a")])
def test_what_graphql_took_along(world: Rig, argv: tuple[str, ...]) -> None:
    world.plane.retire_graphql()
    done = world.deploy(*argv)
    assert (done.code, done.problem["code"]) == (1, "not_available")
    assert done.problem["hint"]
    world.plane.assert_no_leaks()


# gpus


def test_gpus_lists_prices_and_stock(world: Rig) -> None:
    done = world.cli().run("gpus", "--json", "--cloud", "community", "--model", "turbo")
    assert done.code == 0
    first = done.document["gpus"][0]
    assert (first["name"], first["price_per_h"], first["stock"]) == ("RTX 3070", 0.13, "HIGH")
    assert done.document["price_per_audio_h"] == "estimate from data sheets"
    assert world.plane.mutations() == []


def test_gpus_picks_the_cheapest_that_does_and_remembers_it(world: Rig) -> None:
    world.plane.pods.set_stock("NVIDIA RTX A4000", "NONE")
    done = world.cli().run("gpus", "--json", "--pick", "--write", "--model", "large-v3")
    assert [each["name"] for each in done.document["gpus"]] == ["RTX 3080 Ti"]
    assert "RUNPOD_GPU_TYPE" in (world.folder / ".env").read_text()
    nothing = world.cli().run("gpus", "--json", "--pick", "--max-price", "0.05")
    assert nothing.code == 5


def test_gpus_for_people(world: Rig) -> None:
    done = world.cli().run("gpus", "--gpu", "4090,L4")
    assert "RTX 4090" in done.out
    assert "estimate from data sheets" in done.out
