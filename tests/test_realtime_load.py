"""How busy the serving process is, and for how many streams that is enough."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.departures import N_BUCKETS, WINDOW_S, Departures
from realtime.load import AVERAGE_S, MAX_COUNTED_S, MAX_LATE_S, MAX_SHARE, MIN_STREAMS, Load


class Counter:
    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def __call__(self) -> float:
        return self.at_s


def test_a_share_is_busy_time_over_time_smoothed() -> None:
    loop = Counter(50.0)
    load = Load({"loop": loop}, 1_000.0)
    loop.at_s += 5.0
    load.sample(1_000.0 + AVERAGE_S, 10)
    assert load.shares == {"loop": pytest.approx(0.5 * (1 - 2.718281828**-1))}, "what was busy before does not count"
    for second in range(1, 101):
        loop.at_s += 0.3
        load.sample(1_010.0 + second, 10)
    assert load.shares["loop"] == pytest.approx(0.3, abs=0.001)
    assert load.max_streams == int(MAX_SHARE * 10 / 0.3)


def test_one_bad_second_is_no_load() -> None:
    loop = Counter()
    load = Load({"loop": loop}, 0.0)
    loop.at_s = 1.0
    load.sample(1.0, 8)
    assert load.shares["loop"] < 0.1
    assert load.max_streams is not None and load.max_streams > 8


def test_two_samples_at_the_same_time_are_one() -> None:
    loop = Counter()
    load = Load({"loop": loop}, 0.0)
    loop.at_s = 1.0
    load.sample(2.0, 5)
    before = load.shares
    loop.at_s = 1.1
    load.sample(2.0, 5)
    load.sample(1.0, 5)
    assert load.shares == before
    load.sample(3.0, 5)
    assert load.shares["loop"] > 0.0


def test_the_busiest_part_decides() -> None:
    loop, threads = Counter(), Counter()
    load = Load({"loop": loop, "features": threads}, 0.0)
    loop.at_s, threads.at_s = 20.0, 50.0
    load.sample(100.0, 20)
    assert load.max_streams == int(MAX_SHARE * 20 / 0.5)


def test_nothing_measured_is_no_limit() -> None:
    assert Load({"loop": Counter()}, 0.0).max_streams is None
    assert Load({}, 0.0).max_streams is None
    idle = Load({"loop": Counter()}, 0.0)
    idle.sample(100.0, 0)
    assert idle.max_streams is None


def test_a_starved_process_has_no_room_though_it_is_never_busy() -> None:
    load = Load({"loop": Counter()}, 0.0)
    for second in range(1, 101):
        load.sample(float(second), 9)
        load.timer_fired(float(second), MAX_LATE_S)
    assert load.max_streams is None, "at the limit"
    for second in range(101, 201):
        load.sample(float(second), 9)
        load.timer_fired(float(second), MAX_LATE_S + 0.01)
    assert load.max_streams == 8, "as many as there are on average, or less"
    load.timer_fired(201.0, 0.0)
    assert load.max_streams is None


def test_one_late_timer_is_a_hiccup() -> None:
    load = Load({"loop": Counter()}, 0.0)
    load.sample(1.0, 9)
    load.timer_fired(1.0, 30.0)
    assert load.late_s == pytest.approx(0.095 * MAX_COUNTED_S, abs=0.001) and load.max_streams is None
    for second in range(2, 12):
        load.timer_fired(float(second), MAX_COUNTED_S)
    assert load.max_streams is not None, "again and again is no hiccup"


def test_what_an_empty_server_costs_is_not_what_a_stream_costs() -> None:
    loop = Counter()
    load = Load({"loop": loop}, 0.0)
    loop.at_s = 2.0
    load.sample(100.0, 0)
    assert load.max_streams == int(MAX_SHARE * MIN_STREAMS / 0.02)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(MIN_STREAMS, 200)), max_size=50))
def test_streams_that_cost_alike_are_counted_right_at_any_pace(steps: list[tuple[float, int]]) -> None:
    """Coming and going, sampled often or seldom: the ratio is what one stream costs."""
    loop = Counter()
    load = Load({"loop": loop}, 0.0)
    now_s = 0.0
    for pause_s, n_streams in [(10 * AVERAGE_S, 2 * MIN_STREAMS), *steps]:
        now_s += pause_s
        loop.at_s += pause_s * n_streams * 0.003
        load.sample(now_s, n_streams)
        assert load.max_streams == pytest.approx(MAX_SHARE / 0.003, abs=1)


def test_departures_are_forgotten_after_the_window() -> None:
    seen = Departures()
    seen.advance(0.0, 0)
    seen.advance(600.0, 1)
    seen.note(600.0)
    assert seen.wait_s(1) == pytest.approx(300.0)
    assert seen.wait_s(2) == pytest.approx(150.0)
    assert seen.wait_s(2, 2) == pytest.approx(300.0)
    seen.advance(600.0 + WINDOW_S - 1.0, 1)
    assert seen.wait_s(1) == pytest.approx((600.0 + WINDOW_S - 1.0) / 2, abs=600.0)
    seen.advance(600.0 + WINDOW_S + 120.0, 1)
    assert seen.wait_s(1) == pytest.approx(WINDOW_S, abs=61.0)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 500)), max_size=60))
def test_the_books_stay_small_and_right(steps: list[tuple[float, int]]) -> None:
    seen = Departures()
    now_s = 0.0
    seen.advance(now_s, 0)
    for pause_s, n_taken in steps:
        now_s += pause_s
        seen.advance(now_s, n_taken)
        seen.note(now_s)
        assert len(seen._buckets) <= N_BUCKETS + 1
        assert 0.0 <= seen.wait_s(max(1, n_taken)) <= 500 * (WINDOW_S + 61.0)
