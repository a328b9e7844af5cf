"""Who may stream, and what the others are told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import AtCapacityError, DrainingError
from realtime.admission import MIN_WAIT_MINUTES, REMEMBERED_SESSIONS, UNKNOWN_WAIT_MINUTES, Admission, Slot


def test_the_last_place_and_one_more() -> None:
    admission = Admission(2, None)
    first, second = admission.enter(0.0), admission.enter(1.0)
    assert admission.n_active == 2
    assert admission.is_full
    with pytest.raises(AtCapacityError, match="all 2 places are taken"):
        admission.enter(2.0)
    admission.leave(first, 3.0)
    assert not admission.is_full
    third = admission.enter(4.0)
    assert len({first, second, third}) == 3


def test_leaving_twice_frees_one_place() -> None:
    admission = Admission(1, None)
    slot = admission.enter(0.0)
    admission.leave(slot, 1.0)
    other = admission.enter(2.0)
    admission.leave(slot, 3.0)
    assert admission.n_active == 1
    admission.leave(other, 4.0)
    assert admission.n_active == 0


def test_nobody_enters_a_closed_server() -> None:
    admission = Admission(1, None)
    slot = admission.enter(0.0)
    admission.close()
    with pytest.raises(DrainingError):
        admission.enter(1.0)
    admission.leave(slot, 2.0)
    with pytest.raises(DrainingError):
        admission.enter(3.0)


def test_the_wait_with_a_session_limit() -> None:
    admission = Admission(2, 600.0)
    admission.enter(0.0)
    admission.enter(240.0)
    assert admission.wait_minutes(300.0) == pytest.approx(5.0)
    assert admission.wait_minutes(599.0) == MIN_WAIT_MINUTES
    assert admission.wait_minutes(700.0) == MIN_WAIT_MINUTES


def test_the_wait_by_experience() -> None:
    admission = Admission(1, None)
    for length_s in (60.0, 300.0, 3_000.0):
        admission.leave(admission.enter(0.0), length_s)
    admission.enter(0.0)
    assert admission.wait_minutes(60.0) == pytest.approx(4.0)


def test_the_wait_without_experience() -> None:
    admission = Admission(1, None)
    assert admission.wait_minutes(0.0) == MIN_WAIT_MINUTES
    admission.enter(0.0)
    assert admission.wait_minutes(0.0) == UNKNOWN_WAIT_MINUTES


def test_only_the_last_sessions_count() -> None:
    admission = Admission(1, None)
    for _ in range(REMEMBERED_SESSIONS):
        admission.leave(admission.enter(0.0), 60_000.0)
    for _ in range(REMEMBERED_SESSIONS):
        admission.leave(admission.enter(0.0), 120.0)
    admission.enter(0.0)
    assert admission.wait_minutes(0.0) == pytest.approx(2.0)


@given(
    st.integers(1, 5),
    st.none() | st.floats(1, 1e5),
    st.lists(st.tuples(st.booleans(), st.floats(0, 1e4)), max_size=40),
)
def test_never_too_many_and_always_a_legal_wait(
    max_clients: int, limit_s: float | None, steps: list[tuple[bool, float]]
) -> None:
    admission = Admission(max_clients, limit_s)
    slots: list[Slot] = []
    now_s = 0.0
    for enters, pause_s in steps:
        now_s += pause_s
        if not enters and slots:
            admission.leave(slots.pop(0), now_s)
        elif len(slots) < max_clients:
            slots.append(admission.enter(now_s))
        else:
            with pytest.raises(AtCapacityError):
                admission.enter(now_s)
        assert admission.n_active == len(slots) <= max_clients
        wait = admission.wait_minutes(now_s)
        assert math.isfinite(wait)
        assert wait >= MIN_WAIT_MINUTES
