"""Who may stream, and what the others are told."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import AtCapacityError, DrainingError
from realtime.admission import MAX_AUTO_STREAMS, MIN_WAIT_MINUTES, UNMEASURED_STREAMS, Admission, Slot
from realtime.load import AVERAGE_S, MIN_STREAMS, Load


def is_full(admission: Admission) -> bool:
    return admission.n_active >= admission.capacity.streams


def test_the_last_place_and_one_more() -> None:
    admission = Admission(2, None)
    first, second = admission.enter(0.0), admission.enter(1.0)
    assert admission.n_active == 2
    assert is_full(admission)
    with pytest.raises(AtCapacityError, match="all 2 places are taken"):
        admission.enter(2.0)
    admission.leave(first, 3.0)
    assert not is_full(admission)
    third = admission.enter(4.0)
    assert len({first, second, third}) == 3


def test_without_a_number_there_is_a_ceiling() -> None:
    admission = Admission(None, None)
    for _ in range(MAX_AUTO_STREAMS):
        assert not is_full(admission)
        admission.enter(0.0)
    assert (admission.max_clients, admission.ceiling, is_full(admission)) == (None, MAX_AUTO_STREAMS, True)
    with pytest.raises(AtCapacityError, match=f"all {MAX_AUTO_STREAMS} places are taken"):
        admission.enter(0.0)


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


class Part:
    """A part of the process that is busy for a share of the time, by the number of streams."""

    def __init__(self, per_stream: float) -> None:
        self.per_stream = per_stream
        self.busy_s = 0.0

    def pass_time(self, admission: Admission, from_s: float, for_s: float) -> float:
        """Second by second; returns the time afterwards."""
        for second in range(1, int(for_s) + 1):
            self.busy_s += min(1.0, self.per_stream * admission.n_active)
            admission.sample(from_s + second)
        return from_s + for_s


@pytest.mark.parametrize("max_clients", [None, 100])
def test_the_engine_keeps_the_next_one_out(max_clients: int | None) -> None:
    """Whether or not the operator gave a number."""
    engine: list[int | None] = [None]
    admission = Admission(max_clients, None, lambda: engine[0])
    for _ in range(6):
        admission.enter(0.0)
    engine[0] = 7
    admission.enter(0.0)
    assert is_full(admission)
    with pytest.raises(AtCapacityError, match="the engine keeps up with 7 streams at present"):
        admission.enter(0.0)
    engine[0] = 8
    assert not is_full(admission)
    engine[0] = None
    assert admission.capacity.streams == UNMEASURED_STREAMS, "after a restart not everybody comes in at once"


def test_a_number_counts_below_what_was_measured() -> None:
    admission = Admission(3, None, lambda: 50)
    assert admission.capacity.streams == 3
    assert admission.capacity.reason == "all 3 places are taken"


@pytest.mark.parametrize("engine_streams", [0, 1, MIN_STREAMS])
def test_the_first_few_are_let_in_whatever_was_measured(engine_streams: int) -> None:
    part = Part(1.0)
    admission = Admission(None, None, lambda: engine_streams, Load({"loop": lambda: part.busy_s}, 0.0))
    now_s = 0.0
    for _ in range(MIN_STREAMS):
        admission.enter(now_s)
        now_s = part.pass_time(admission, now_s, 60.0)
    with pytest.raises(AtCapacityError, match=f"keeps up with {MIN_STREAMS} streams"):
        admission.enter(now_s)


def test_a_busy_loop_keeps_the_next_one_out() -> None:
    """4.8 % per stream: the 17th makes it 82 %, the 18th would make it 86 %."""
    part = Part(0.048)
    admission = Admission(None, None, load=Load({"loop": lambda: part.busy_s}, 0.0))
    now_s = 0.0
    for _ in range(17):
        admission.enter(now_s)
        now_s = part.pass_time(admission, now_s, 10 * AVERAGE_S)
    assert is_full(admission)
    with pytest.raises(AtCapacityError, match="the serving process keeps up with 17 streams at present"):
        admission.enter(now_s)
    part.per_stream = 0.04
    now_s = part.pass_time(admission, now_s, 10 * AVERAGE_S)
    for _ in range(4):
        admission.enter(now_s)
        now_s = part.pass_time(admission, now_s, 10 * AVERAGE_S)
    assert admission.n_active == 21 and is_full(admission)


def test_a_crowd_that_comes_at_once_is_not_let_in_as_a_whole() -> None:
    """What streams cost is known from those before them, not from the average of the last seconds alone."""
    part = Part(0.01)
    admission = Admission(None, None, load=Load({"loop": lambda: part.busy_s}, 0.0))
    for _ in range(10):
        admission.enter(0.0)
    now_s = part.pass_time(admission, 0.0, 10 * AVERAGE_S)
    entered = 0
    with pytest.raises(AtCapacityError):
        for _ in range(200):
            admission.enter(now_s)
            entered += 1
            now_s += 0.001
    assert 70 <= entered <= 80


def test_a_crowd_finds_an_idle_server_open() -> None:
    part = Part(0.005)
    admission = Admission(None, None, load=Load({"loop": lambda: part.busy_s}, 0.0))
    part.busy_s = 0.5
    admission.sample(60.0)
    for index in range(60):
        admission.enter(60.0 + index * 0.01)
    assert admission.n_active == 60


def test_no_wait_while_there_is_room() -> None:
    admission = Admission(1, None)
    assert admission.wait_minutes(0.0) == MIN_WAIT_MINUTES
    slot = admission.enter(0.0)
    admission.leave(slot, 6_000.0)
    assert admission.wait_minutes(6_000.0) == MIN_WAIT_MINUTES


def test_the_wait_by_departures() -> None:
    admission = Admission(4, None)
    slots = [admission.enter(0.0) for _ in range(4)]
    assert admission.wait_minutes(60.0) == pytest.approx(1.0), "4 min of places, one departure assumed, 4 places"
    for slot in slots[:2]:
        admission.leave(slot, 600.0)
        admission.enter(600.0)
    # 4 places for 20 minutes, 2 departures and the one that is assumed, 4 places.
    assert admission.wait_minutes(1_200.0) == pytest.approx(80 / 3 / 4)
    # The last 30 minutes only, to a minute: the departures are out of them.
    assert admission.wait_minutes(600.0 + 1_800.0 + 60.0) == pytest.approx(30.0, abs=1.0)


def test_the_wait_with_a_session_limit() -> None:
    admission = Admission(2, 600.0)
    for at_s in (0.0, 240.0):
        admission.enter(at_s)
    assert admission.wait_minutes(540.0) == pytest.approx(1.0), "the oldest ends in a minute"
    assert admission.wait_minutes(599.0) == MIN_WAIT_MINUTES
    assert admission.wait_minutes(700.0) == MIN_WAIT_MINUTES


def test_the_wait_when_several_have_to_leave() -> None:
    """Six are there, and the engine keeps up with four: two leave before a third makes room."""
    engine: list[int | None] = [None]
    admission = Admission(None, 3_600.0, lambda: engine[0])
    for index in range(6):
        admission.enter(10.0 * index)
    now_s = 600.0
    engine[0] = 6
    alone = admission.wait_minutes(now_s)
    engine[0] = 4
    assert admission.wait_minutes(now_s) == pytest.approx(3 * alone)
    # The third of them ends at its limit at the latest.
    assert admission.wait_minutes(3_600.0) == pytest.approx(20.0 / 60)


HOURS = 150
"""Of simulated time: hundreds of times in which the server is full."""


def simulated_waits(
    n_places: int, length_s: Callable[[], float], arrivals_per_s: float, source: random.Random
) -> tuple[float, float]:
    """Mean wait told to those who find a full server, and mean time until a place became free; minutes."""
    admission = Admission(n_places, None)
    ends: list[tuple[float, Slot]] = []
    pending: list[float] = []
    told: list[float] = []
    real: list[float] = []
    now_s = 0.0
    while now_s < HOURS * 3_600.0:
        now_s += source.expovariate(arrivals_per_s)
        while ends and min(ends, key=lambda end: end[0])[0] <= now_s:
            end = min(ends, key=lambda end: end[0])
            ends.remove(end)
            admission.leave(end[1], end[0])
            real += [(end[0] - since_s) / 60 for since_s in pending]
            pending.clear()
        if is_full(admission):
            if now_s > 1_800.0:
                told.append(admission.wait_minutes(now_s))
                pending.append(now_s)
        else:
            ends.append((now_s + length_s(), admission.enter(now_s)))
    told = told[: len(real)]
    assert len(real) > 200
    return sum(told) / len(told), sum(real) / len(real)


@pytest.mark.parametrize("n_places", [1, 4, 16])
@pytest.mark.parametrize("pressure", [0.8, 3.0])
def test_the_told_wait_is_honest_for_sessions_of_any_length(n_places: int, pressure: float) -> None:
    source = random.Random(n_places)
    mean_s = 300.0 if n_places < 16 else 900.0
    told, real = simulated_waits(
        n_places, lambda: source.expovariate(1 / mean_s), pressure * n_places / mean_s, random.Random(7)
    )
    assert 0.65 * real <= told <= 1.35 * real, (told, real)


@pytest.mark.parametrize("n_places", [4, 16])
@pytest.mark.parametrize("pressure", [0.8, 3.0])
def test_the_told_wait_is_honest_for_sessions_of_equal_length(n_places: int, pressure: float) -> None:
    length_s = 300.0 if n_places < 16 else 900.0
    told, real = simulated_waits(n_places, lambda: length_s, pressure * n_places / length_s, random.Random(7))
    assert 0.65 * real <= told <= 1.35 * real, (told, real)


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
