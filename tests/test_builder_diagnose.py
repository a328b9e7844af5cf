"""Why an endpoint does not serve: the rules, one by one, at and past their limits."""

from __future__ import annotations

from typing import Any

import pytest

from builder.endpoints.diagnose import LOG_LINES, Facts, Finding, diagnose


def found(max_workers: int = 3, workers: dict[str, int] | None = None, **more: Any) -> list[Finding]:
    return diagnose(Facts("ep1", max_workers, workers or {}, **more))


def kinds(findings: list[Finding]) -> list[str]:
    return [each.kind for each in findings]


def test_nothing_is_wrong_with_an_endpoint_that_rests_or_works() -> None:
    assert found() == []
    assert found(workers={"running": 2, "idle": 1, "throttled": 1}, n_queued=0) == []
    assert found(n_queued=4) == []


def test_a_parked_endpoint_says_how_to_start_it_again() -> None:
    (one,) = found(max_workers=0, n_queued=2, recorded_max=5)
    assert one.kind == "parked" and one.is_final and "7 days" in one.cause
    assert one.remedy.endswith("python -m builder endpoint scale ep1 --max 5")
    # Workers that wait say nothing where none may start.
    assert kinds(found(max_workers=0, workers={"throttled": 1})) == ["parked"]


def test_a_lowered_maximum_is_told_from_one_that_was_asked_for() -> None:
    (one,) = found(max_workers=2, recorded_max=3)
    assert one.kind == "lowered" and not one.is_final and "3 days" in one.cause and "--max 3" in one.remedy
    assert found(max_workers=2, recorded_max=2) == []
    assert found(max_workers=2) == []
    assert found(max_workers=1, recorded_max=3) == []


def test_a_crash_loop_shows_the_last_lines_and_their_cause() -> None:
    log = [f"line {number}" for number in range(40)] + ["RuntimeError: CUDA failed with error out of memory"]
    (one,) = found(workers={"unhealthy": 1}, log=log)
    assert one.kind == "crash_loop" and one.is_final
    assert len(one.lines) == LOG_LINES and one.lines[-1] == log[-1]
    assert "does not fit into the GPU's memory" in one.cause and "WHISPER_MODEL" in one.remedy


def test_a_crash_of_an_unknown_cause_is_still_told_and_others_that_work_keep_it_from_being_final() -> None:
    (one,) = found(workers={"unhealthy": 2}, log=["hello"])
    assert "2 workers are unhealthy" in one.cause and one.lines == ("hello",) and "read its log" in one.remedy
    for state in ("running", "idle", "initializing"):
        (other,) = found(workers={"unhealthy": 1, state: 1})
        assert not other.is_final and other.lines == ()


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"throttled": 1}, ["capacity"]),
        ({"throttled": 3, "initializing": 1}, ["capacity"]),
        ({"throttled": 3, "running": 1}, []),
        ({"throttled": 3, "idle": 1}, []),
        ({}, []),
    ],
)
def test_capacity_is_missing_only_if_no_worker_has_a_machine(workers: dict[str, int], expected: list[str]) -> None:
    assert kinds(found(workers=workers)) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(None, []), (600.0, []), (600.1, ["image_pull"])])
def test_a_pull_that_takes_over_ten_minutes_is_named(seconds: float | None, expected: list[str]) -> None:
    assert kinds(found(workers={"initializing": 1}, initializing_s=seconds)) == expected


def test_a_long_initialization_of_a_worker_that_is_gone_is_none() -> None:
    assert found(workers={"running": 1}, initializing_s=10_000) == []


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, []), (60.0, []), (60.1, ["broken_worker"])])
def test_idle_beside_a_queue_for_over_a_minute_is_a_broken_worker(seconds: float, expected: list[str]) -> None:
    findings = found(workers={"idle": 1}, n_queued=1, idle_with_queue_s=seconds)
    assert kinds(findings) == expected
    assert all(each.is_final and each.is_sure for each in findings)


def test_one_look_at_idle_workers_beside_a_queue_only_suspects() -> None:
    (one,) = found(workers={"idle": 1}, n_queued=7)
    assert one.kind == "broken_worker" and not one.is_sure and not one.is_final
    assert "jobs that wait (7)" in one.cause and "--watch" in one.remedy
    assert found(workers={"idle": 1}, n_queued=0) == []
    assert found(workers={"idle": 1}, n_queued=None) == []


@pytest.mark.parametrize(
    ("credit", "spend", "price", "expected"),
    [
        (None, 5.0, 5.0, []),
        (0.0, 0.0, None, ["billing"]),
        (-1.0, None, None, ["billing"]),
        (0.99, 1.0, 0.5, ["billing"]),
        (1.0, 1.0, 0.5, []),
        (0.99, 0.0, 1.0, ["billing"]),
        (10.0, None, None, []),
    ],
)
def test_credit_must_last_an_hour(
    credit: float | None, spend: float | None, price: float | None, expected: list[str]
) -> None:
    assert kinds(found(credit=credit, spend_per_h=spend, worker_price_per_h=price)) == expected


def test_findings_are_documents_and_the_most_telling_comes_first() -> None:
    findings = found(workers={"unhealthy": 1, "throttled": 1}, credit=0.0, log=["x"])
    assert kinds(findings) == ["crash_loop", "capacity", "billing"]
    assert findings[0].document() == {
        "kind": "crash_loop",
        "cause": findings[0].cause,
        "remedy": findings[0].remedy,
        "is_final": True,
        "is_sure": True,
        "lines": ["x"],
    }
