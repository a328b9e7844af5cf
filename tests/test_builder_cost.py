"""What was spent, by the diary, by RunPod's list, and by its bill."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.api.models import BillingRecord, Pod
from builder.money.cost import CostRow, cost_rows
from builder.money.cost_history import History, read_histories
from builder.money.prices import storage_rate
from builder.state import iso_time

NOON_S = 1_767_268_800.0
HOUR_S = 3600.0
DAY_START_S = NOON_S - 12 * HOUR_S


def event(hour: float, action: str, pod_id: str = "p1", **details: Any) -> dict[str, Any]:
    at = iso_time(DAY_START_S + hour * HOUR_S)
    return {"timestamp": at, "type": "pod", "resource_id": pod_id, "action": action, "details": details}


def pod(**fields: Any) -> Pod:
    return Pod.model_validate({"id": "p1", "name": "w", "status": "RUNNING", "cost": 0.5} | fields)


def bill(amount: float, pod_id: str = "p1") -> BillingRecord:
    return BillingRecord.model_validate(
        {
            "podId": pod_id,
            "startTime": iso_time(DAY_START_S),
            "endTime": iso_time(DAY_START_S + 24 * HOUR_S),
            "totalAmount": amount,
        }
    )


def only(history: dict[str, History]) -> History:
    (one,) = history.values()
    return one


def row_of(events: list[dict[str, Any]], pods: list[Pod], bills: list[BillingRecord] | None = None) -> CostRow:
    (row,) = cost_rows(read_histories(events), pods, bills, start_s=DAY_START_S, end_s=NOON_S)
    return row


def test_a_pod_costs_from_its_creation_to_its_end_less_the_hours_it_was_stopped() -> None:
    history = only(
        read_histories(
            [
                event(1, "created", cost_per_hour=0.5, pod_name="w"),
                event(3, "stopped", cost_per_hour=0),
                event(5, "started"),
                event(6, "terminated"),
            ]
        )
    )
    assert history.cost(DAY_START_S, NOON_S) == pytest.approx(0.5 * 3)
    assert history.cost(DAY_START_S + 2 * HOUR_S, DAY_START_S + 5.5 * HOUR_S) == pytest.approx(0.5 * 1.5)
    assert (history.name, history.seems_running) == ("w", False)


def test_disks_are_counted_and_a_stopped_one_costs_on() -> None:
    events = [event(0, "created", cost_per_hour=1, disk_gb=10, volume_gb=100), event(2, "stopped")]
    running = 2 * (1 + storage_rate(disk_gb=10, volume_gb=100, is_running=True))
    stopped = 10 * storage_rate(disk_gb=10, volume_gb=100, is_running=False)
    assert only(read_histories(events)).cost(DAY_START_S, NOON_S) == pytest.approx(running + stopped)


@given(
    st.lists(
        st.tuples(st.floats(0, 12), st.sampled_from(["created", "adopted", "started", "stopped", "terminated", "x"]))
    )
)
def test_no_order_of_events_counts_an_hour_twice_or_below_zero(steps: list[tuple[float, str]]) -> None:
    events = [event(hour, action, cost_per_hour=1.0) for hour, action in sorted(steps)]
    for history in read_histories(events).values():
        assert 0 <= history.cost(DAY_START_S, NOON_S) <= 12 + 1e-9


def test_damaged_events_and_those_of_other_things_are_left_out() -> None:
    events = [{}, {"type": "pod"}, event(1, "created") | {"timestamp": "?"}, event(1, "pushed") | {"type": "image"}]
    events += [event(1, "created") | {"details": None}]
    assert only(read_histories(events)).cost(DAY_START_S, NOON_S) == 0


def test_a_pod_without_a_diary_counts_from_its_last_start() -> None:
    row = row_of([], [pod(startedAt=iso_time(NOON_S - 2 * HOUR_S))])
    assert row.estimate == pytest.approx(1.0)
    assert row.note == "by RunPod's list: its last start only"
    assert row_of([], [pod(status="EXITED")]).estimate is None


def test_a_pod_that_stopped_without_us_is_an_upper_bound_and_no_longer_than_its_deadline() -> None:
    created = [event(0, "created", cost_per_hour=0.5)]
    row = row_of(created, [pod(status="EXITED", cost=0)])
    assert row.estimate == pytest.approx(6.0)
    assert row.note == "no stop on record: at most"
    row = row_of(created, [pod(status="EXITED", cost=0, env={"POD_DEADLINE": iso_time(DAY_START_S + HOUR_S)})])
    assert row.estimate == pytest.approx(0.5)
    assert row_of(created, []).status == "GONE"


def test_the_bill_is_compared_pod_by_pod() -> None:
    events = [event(0, "created", cost_per_hour=0.5), event(2, "terminated")]
    histories = read_histories(events)
    rows = cost_rows(histories, [], [bill(0.6), bill(0.5), bill(9.0, "other")], start_s=DAY_START_S, end_s=NOON_S)
    assert [(row.pod_id, row.estimate, row.billed) for row in rows] == [("other", None, 9.0), ("p1", 1.0, 1.1)]
    assert rows[0].difference is None and rows[1].difference == pytest.approx(0.1)
    assert row_of(events, [], None).billed is None


def test_pods_of_long_ago_are_not_listed() -> None:
    old = read_histories([event(-200, "created", cost_per_hour=1), event(-190, "terminated")])
    assert cost_rows(old, [], [], start_s=DAY_START_S, end_s=NOON_S) == []
