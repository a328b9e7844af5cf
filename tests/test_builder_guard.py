"""The guard ends what has run long enough, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.money.guard_rules import Decision, Limits, Observation, Since, decide, remember

NOW_S = 1_767_225_600.0
MIN_S = 60.0
LIMITS = Limits()
POD = Observation("p1", "whisper", "RUNNING", up_since_s=NOW_S - 60 * MIN_S, answers=True, gpu_percent=0, n_active=1)
times = st.none() | st.floats(NOW_S - 40 * 86_400, NOW_S + 86_400)
observations = st.builds(
    Observation,
    pod_id=st.just("p1"),
    name=st.just("n"),
    status=st.sampled_from(["PROVISIONING", "STARTING", "RUNNING", "MIGRATING", "EXITED", "ERROR", "TERMINATED"]),
    is_ours=st.booleans(),
    is_locked=st.booleans(),
    is_spot=st.booleans(),
    up_since_s=times,
    boots_since_s=times,
    deadline_s=times,
    cost_per_hour=st.floats(0, 10),
    answers=st.none() | st.booleans(),
    gpu_percent=st.none() | st.floats(0, 100),
    n_active=st.none() | st.integers(0, 9),
    busy_s=times,
)
memories = st.none() | st.builds(Since, st.floats(NOW_S - 40 * 86_400, NOW_S), times, times, times)
limits = st.builds(Limits, st.floats(0.1, 744), st.floats(1, 1440), st.floats(0, 1440), st.booleans())


def judged(pod: Observation, before: Since | None = None, limits: Limits = LIMITS, now_s: float = NOW_S) -> Decision:
    since = remember({} if before is None else {pod.pod_id: before}, [pod], now_s)
    return decide(pod, since[pod.pod_id], limits, now_s)


def is_past_deadline(pod: Observation) -> bool:
    return pod.deadline_s is not None and pod.deadline_s < NOW_S


@given(observations, memories, limits)
def test_it_never_ends_locked_foreign_protected_or_stopped_pods(
    pod: Observation, before: Since | None, limits: Limits
) -> None:
    decision = judged(pod, before, limits)
    is_young = pod.up_since_s is not None and NOW_S - pod.up_since_s < limits.protect_min * 60
    spared = (
        pod.is_locked
        or (not pod.is_ours and not limits.every_pod)
        or pod.status in ("EXITED", "TERMINATED")
        # What a pod's own deadline says holds for young pods and spot pods, too.
        or ((is_young or pod.is_spot) and not is_past_deadline(pod))
    )
    assert not (spared and decision.verdict == "kill"), decision


@given(observations, memories, limits)
def test_it_ends_every_pod_past_its_deadline(pod: Observation, before: Since | None, limits: Limits) -> None:
    pod = replace(pod, status="RUNNING", is_ours=True, is_locked=False, deadline_s=NOW_S - 1)
    decision = judged(pod, before, limits)
    assert (decision.verdict, decision.rule) == ("kill", "deadline")


@given(observations, memories, limits)
def test_it_ends_no_pod_as_idle_that_works_or_about_which_nothing_is_known(
    pod: Observation, before: Since | None, limits: Limits
) -> None:
    decision = judged(pod, before, limits)
    if pod.n_active is None or pod.n_active > 0 or pod.gpu_percent is None or pod.gpu_percent > 5:
        assert decision.rule != "idle"


@given(observations, memories)
def test_its_memory_survives_the_file(pod: Observation, before: Since | None) -> None:
    since = remember({} if before is None else {"p1": before}, [pod], NOW_S)["p1"]
    assert Since.of(since.document()) == since


def test_damaged_memory_is_no_memory() -> None:
    damaged: list[object] = [None, [], {}, {"seen_s": "x"}, {"seen_s": 10**400}, {"seen_s": float("nan")}]
    assert [Since.of(each) for each in damaged] == [None] * 6
    assert Since.of({"seen_s": 1, "idle_s": float("-inf")}) == Since(1.0)


@pytest.mark.parametrize(
    ("pod", "before", "verdict", "rule"),
    [
        (replace(POD, up_since_s=NOW_S - 19 * MIN_S, n_active=0), Since(0), "keep", "protected"),
        (replace(POD, up_since_s=NOW_S - 121 * MIN_S), None, "kill", "age"),
        (replace(POD, up_since_s=NOW_S - 121 * MIN_S, is_locked=True), None, "warn", "age"),
        (replace(POD, up_since_s=NOW_S - 121 * MIN_S, is_spot=True), None, "warn", "age"),
        (replace(POD, up_since_s=NOW_S - 121 * MIN_S, is_ours=False), None, "keep", "foreign"),
        (replace(POD, status="EXITED", up_since_s=0), None, "keep", "not_running"),
        (POD, None, "keep", "none"),
        (replace(POD, n_active=0), None, "keep", "idle"),
        (replace(POD, n_active=0), Since(NOW_S - 3000, idle_s=NOW_S - 1799), "keep", "idle"),
        (replace(POD, n_active=0), Since(NOW_S - 3000, idle_s=NOW_S - 1800), "kill", "idle"),
        (replace(POD, n_active=0, gpu_percent=6), Since(NOW_S - 3000, idle_s=NOW_S - 1800), "keep", "none"),
        (replace(POD, answers=False, n_active=None), None, "warn", "health"),
        (replace(POD, answers=False, n_active=None), Since(NOW_S - 3000, dead_s=NOW_S - 1800), "kill", "health"),
        (replace(POD, status="STARTING"), Since(NOW_S - 3000, boot_s=NOW_S - 899), "keep", "boot"),
        (replace(POD, status="STARTING"), Since(NOW_S - 3000, boot_s=NOW_S - 900), "warn", "boot"),
        (replace(POD, status="PROVISIONING"), Since(NOW_S - 3000, boot_s=NOW_S - 1800), "kill", "boot"),
        (replace(POD, status="PROVISIONING", boots_since_s=NOW_S - 1800), None, "kill", "boot"),
    ],
)
def test_the_rules(pod: Observation, before: Since | None, verdict: str, rule: str) -> None:
    decision = judged(pod, before)
    assert (decision.verdict, decision.rule) == (verdict, rule), decision


def test_work_between_two_looks_is_no_idling() -> None:
    pod = replace(POD, n_active=0, busy_s=NOW_S - 5 * MIN_S)
    assert judged(pod, Since(NOW_S - 3000, idle_s=NOW_S - 3000)).verdict == "keep"


def test_a_new_start_forgets_what_was_seen_before() -> None:
    pod = replace(POD, n_active=0)
    assert judged(pod, Since(NOW_S - 9000, idle_s=NOW_S - 9000)).verdict == "keep"


def test_an_unknown_start_counts_from_the_first_look() -> None:
    pod = replace(POD, up_since_s=None)
    assert judged(pod).rule == "protected"
    assert judged(pod, Since(NOW_S - 7300)).rule == "age"
