"""When a pod counts as ready, and when as lost; observations only, no network."""

from __future__ import annotations

import random
from typing import Any

from builder.pods.ladder import RUNGS, Ladder, Observation, delay_s

BEGAN_S = 1000.0


def seen(at_s: float, status: str | None = "RUNNING", **more: Any) -> Observation:
    return Observation(BEGAN_S + at_s, status, **more)


def answers(at_s: float, health: int | None, **more: Any) -> Observation:
    return seen(at_s, uptime_s=int(at_s) + 1, asked=True, health=health, **more)


def climb(*observations: Observation) -> Ladder:
    ladder = Ladder(BEGAN_S)
    for each in observations:
        ladder = ladder.see(each)
    return ladder


def failure_text(*observations: Observation) -> str:
    failure = climb(*observations).failure
    assert failure is not None
    assert failure.hint and "\n" not in failure.text + failure.hint
    return failure.text


def test_a_pod_climbs_rung_by_rung_with_times() -> None:
    ladder = climb(
        seen(0, "PROVISIONING"),
        seen(3, "STARTING"),
        seen(9, "STARTING", lines=(("system", "start container for me/whisper:v1: begin"),)),
        seen(12, "RUNNING", uptime_s=1),
        answers(15, 200, ready=503, reason="loading: the engine is not ready"),
        answers(18, 200, ready=200),
        answers(19, 200, ready=200, has_spoken=True),
    )
    assert ladder.failure is None
    assert ladder.reached == (
        ("placed", 3.0), ("image", 9.0), ("running", 12.0), ("proxy", 15.0), ("ready", 18.0), ("speaks", 19.0),
    )  # fmt: skip
    assert ladder.next_rung is None


def test_a_high_rung_proves_those_below() -> None:
    ladder = climb(answers(4, 200, ready=200))
    assert [rung for rung, _ in ladder.reached] == list(RUNGS[:5])


def test_running_without_uptime_is_not_running_unless_the_api_tells_none() -> None:
    assert not climb(seen(5, "RUNNING")).has("running")
    assert climb(seen(5, "RUNNING", trusts_status=True)).has("running")


def test_a_full_server_is_ready() -> None:
    assert climb(answers(5, 200, ready=503, reason="full: 4 streams are served")).has("ready")


def test_a_seed_server_that_says_why_not_ready_is_waited_for() -> None:
    ladder = climb(answers(5, 200, ready=503, reason="WhisperLive not accepting connections"))
    assert ladder.failure is None and ladder.next_rung == "ready"


def test_final_states_fail_at_once() -> None:
    assert "gone" in failure_text(seen(2, None))
    assert "terminated" in failure_text(seen(2, "TERMINATED"))
    assert "ERROR" in failure_text(seen(2, "ERROR"))
    assert "stopped" in failure_text(seen(2, "EXITED"))


def test_an_end_is_explained_by_what_the_log_said_before() -> None:
    text = failure_text(
        answers(5, 200, lines=(("container", "stopping this pod: its deadline has passed"),)), seen(8, "EXITED")
    )
    assert "deadline" in text


def test_system_log_of_an_image_that_cannot_be_pulled_fails_within_a_look() -> None:
    for line, part in (
        ("manifest for me/whisper:v9 not found: manifest unknown", "there is no such image"),
        ("pull access denied for me/whisper", "private"),
        ("toomanyrequests: You have reached your pull rate limit", "limits"),
        ("nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8", "driver"),
        ("failed to register layer: no space left on device", "disk is full"),
    ):
        assert part in failure_text(seen(6, "STARTING", lines=(("system", line),)))


def test_a_pull_that_stutters_is_no_failure() -> None:
    line = "image pull: Get https://registry-1.docker.io/v2/: net/http: TLS handshake timeout"
    assert climb(seen(6, "STARTING", lines=(("system", line),))).failure is None


def test_a_container_that_dies_of_a_library_fails_with_the_cause() -> None:
    lines = (("container", "Unable to load any of {libcudnn_ops.so.9.1.0, libcudnn_ops.so}"),)
    text = failure_text(answers(20, 502, lines=lines))
    assert "CUDA library" in text and "libcudnn_ops" in text


def test_while_the_server_answers_its_log_is_not_held_against_it() -> None:
    lines = (("container", "ModuleNotFoundError: No module named 'pynvml'"),)
    ladder = climb(answers(20, 200, ready=503, reason="loading: x", lines=lines), answers(25, 200, ready=200))
    assert ladder.failure is None and ladder.has("ready") and ladder.suspicion is None


def test_a_server_that_says_it_has_failed_is_believed() -> None:
    lines = (("container", "RuntimeError: CUDA failed with error out of memory"),)
    text = failure_text(answers(20, 200, lines=lines, ready=503, reason="failed: the engine is not ready"))
    assert "memory" in text


def test_uptime_that_falls_twice_is_a_loop_of_crashes() -> None:
    uptimes = (3, 9, 2, 8)
    before = [seen(5.0 * step, uptime_s=uptime) for step, uptime in enumerate(uptimes)]
    assert climb(*before).failure is None
    assert "crashed 2 times" in failure_text(*before, seen(30, uptime_s=1))


def test_silence_for_three_minutes_of_running_means_that_nothing_listens() -> None:
    silent = [answers(at_s, 502) for at_s in range(10, 190, 5)]
    assert climb(*silent).failure is None
    assert "for 180 s nothing came from /health on port 9999" in failure_text(*silent, answers(191, None))


def test_whatever_the_proxy_says_instead_of_the_server_is_silence() -> None:
    odd = [answers(at_s, status) for at_s, status in ((10, 502), (60, 403), (100, 404), (105, 502), (150, 429))]
    assert climb(*odd, answers(189, 502)).failure is None
    assert "only HTTP 301 came from /health" in failure_text(*odd, answers(191, 301))


def test_an_answer_ends_the_silence_and_a_new_one_counts_from_its_beginning() -> None:
    assert climb(answers(10, 502), answers(100, 200), answers(120, 502), answers(299, 502)).failure is None
    assert "for 180 s" in failure_text(answers(10, 502), answers(100, 200), answers(120, 502), answers(301, 502))


def test_a_port_that_is_not_declared_fails_at_once_and_404_after_a_grace() -> None:
    assert "does not declare port 9999" in failure_text(answers(10, 404, is_port_declared=False))
    assert climb(answers(10, 404), answers(35, 404)).failure is None
    assert "answers 404" in failure_text(answers(10, 404), answers(41, 404))


def test_nothing_changes_after_a_failure() -> None:
    lost = climb(seen(2, "ERROR"))
    assert lost.see(answers(5, 200, ready=200)) == lost


def test_looks_are_quick_at_first_and_never_in_step() -> None:
    source = random.Random(7)
    quick = [delay_s(10, source) for _ in range(200)]
    slow = [delay_s(31, source) for _ in range(200)]
    assert 1.6 <= min(quick) < 1.8 and 2.2 < max(quick) <= 2.4
    assert 4.0 <= min(slow) < 4.4 and 5.6 < max(slow) <= 6.0
