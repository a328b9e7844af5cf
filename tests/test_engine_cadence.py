"""engine/cadence.py: the interval follows the load, the number of streams follows the costs."""

from __future__ import annotations

import pytest

from engine.batching import BatchKey
from engine.cadence import (
    ACTIVE_S,
    CAPACITY_BUSY,
    CAPACITY_INTERVAL_S,
    FILE_SHARE,
    MAX_INTERVAL_S,
    MAX_TRACKED,
    MIN_BATCHES,
    MIN_FINALS,
    MIN_INTERVAL_S,
    MIN_PARTIAL_SHARE,
    REFRESH_S,
    SHARE_S,
    TARGET_BUSY,
    Cadence,
)
from engine.cost_model import CostModel
from engine.types import JobClass
from tests.fakes.engine_load import Costs, LoadedEngine

PARTIAL, FINAL, FILE = JobClass.PARTIAL, JobClass.FINAL, JobClass.FILE

GPU = Costs(fixed_s=0.025, per_item_s=0.001, per_kiloframe_s=0.005)
"""Most of a small batch is a fixed part: a batch of 8 costs little more than one."""
FLAT = Costs(fixed_s=0.0, per_item_s=0.01, per_kiloframe_s=0.03)
"""Batching gains nothing."""


def key(n_frames: int = 400, job_class: JobClass = PARTIAL) -> BatchKey:
    return BatchKey(job_class, n_frames, 90, 0, "", "")


def cadence(per_item_s: float | None, limit: int = 32, n_observed: int = MIN_BATCHES) -> Cadence:
    """Each window takes `per_item_s`, whatever the batch."""
    costs = CostModel()
    for index in range(n_observed if per_item_s is not None else 0):
        n_items = 1 + index % 8
        costs.observe(PARTIAL, n_items, 400, n_items * (per_item_s or 0.0))
    return Cadence(costs, lambda _: limit)


def talk(clock: Cadence, n_streams: int, from_s: float, to_s: float) -> float:
    """Streams that have a job every 0.3 s; returns the interval at the end."""
    now_s, interval_s = from_s, 0.0
    while now_s <= to_s:
        for index in range(n_streams):
            clock.seen(str(index), key(), now_s)
        interval_s = clock.interval_s(now_s)
        now_s += 0.3
    return interval_s


# The interval


def test_with_nobody_there_or_nothing_known_the_interval_is_the_shortest() -> None:
    assert cadence(0.5).interval_s(0.0) == MIN_INTERVAL_S
    assert talk(cadence(None), 50, 0.0, 5.0) == MIN_INTERVAL_S


@pytest.mark.parametrize(
    ("n_streams", "expected_s"),
    [(1, MIN_INTERVAL_S), (22, MIN_INTERVAL_S), (75, 75 * 0.01 / TARGET_BUSY), (150, 2.0), (226, MAX_INTERVAL_S)],
)
def test_the_interval_is_what_keeps_the_engine_three_quarters_busy(n_streams: int, expected_s: float) -> None:
    assert talk(cadence(0.01), n_streams, 0.0, 10.0) == pytest.approx(expected_s, rel=0.02)


def test_streams_share_a_batch_only_with_their_own_key_and_up_to_its_limit() -> None:
    # A batch costs 0.1 s, whatever is in it.
    costs = CostModel()
    for n_items in (1, 2, 4, 8) * 10:
        costs.observe(PARTIAL, n_items, 400, 0.1)
    alike, limited, strangers = Cadence(costs, lambda _: 32), Cadence(costs, lambda _: 4), Cadence(costs, lambda _: 32)
    for index in range(8):
        alike.seen(str(index), key(), 0.0)
        limited.seen(str(index), key(), 0.0)
        strangers.seen(str(index), key()._replace(prompt=str(index)), 0.0)
    intervals_s = [each.interval_s(0.0) for each in (alike, limited, strangers)]
    assert intervals_s == pytest.approx([MIN_INTERVAL_S, MIN_INTERVAL_S, 8 * 0.1 / TARGET_BUSY], rel=0.02)
    for index in range(8, 32):
        alike.seen(str(index), key(), 1e3)
        limited.seen(str(index), key(), 1e3)
    assert alike.interval_s(1e3) == MIN_INTERVAL_S
    assert limited.interval_s(1e3) == pytest.approx(6 * 0.1 / TARGET_BUSY, rel=0.02)


def test_a_final_counts_as_what_its_stream_will_ask_next() -> None:
    clock = cadence(0.1)
    clock.seen("a", key(job_class=FINAL), 0.0)
    clock.seen("b", key(), 0.0)
    clock.seen("b", key(job_class=FINAL), 0.0)
    clock.seen("c", key(), 0.0)
    assert clock.interval_s(0.0) == pytest.approx(3 * 0.1 / TARGET_BUSY, rel=0.02)


def test_the_share_of_finals_is_left_to_them_and_recordings_cost_a_little() -> None:
    finals, files = cadence(0.01), cadence(0.01)
    for second in range(60):
        now_s = float(second)
        talk(finals, 60, now_s, now_s)
        talk(files, 60, now_s, now_s)
        finals.ran(FINAL, 1, 0.35, now_s)
        files.ran(FILE, 1, 0.35, now_s)
    share = 0.35 * 1.05  # as if at the middle of the second
    assert finals.interval_s(60.0) == pytest.approx(0.6 / (TARGET_BUSY - share), rel=0.1)
    assert files.interval_s(60.0) == pytest.approx(0.6 / (TARGET_BUSY - FILE_SHARE), rel=0.05)


def test_finals_that_take_the_whole_engine_leave_partials_their_minimum() -> None:
    clock = cadence(0.01)
    for tenth in range(600):
        clock.ran(FINAL, 1, 0.1, tenth / 10)
        talk(clock, 30, tenth / 10, tenth / 10)
    assert clock.interval_s(60.0) == pytest.approx(0.3 / MIN_PARTIAL_SHARE, rel=0.02)


def test_the_interval_moves_within_seconds_and_not_at_once() -> None:
    clock = cadence(0.01)
    assert talk(clock, 1, 0.0, 10.0) == MIN_INTERVAL_S
    first_s = talk(clock, 150, 10.2, 10.2)
    assert MIN_INTERVAL_S < first_s < 1.0
    assert talk(clock, 150, 10.5, 14.0) == pytest.approx(2.0, rel=0.1)


def test_an_answer_stands_for_a_moment() -> None:
    clock = cadence(0.01)
    assert clock.interval_s(0.0) == MIN_INTERVAL_S
    for index in range(150):
        clock.seen(str(index), key(), 0.0)
    assert clock.interval_s(REFRESH_S * 0.99) == MIN_INTERVAL_S
    assert clock.interval_s(REFRESH_S) > MIN_INTERVAL_S


def test_streams_that_fall_silent_are_forgotten() -> None:
    clock = cadence(0.05)
    for index in range(15):
        clock.seen(str(index), key(), 0.0)
    assert clock.interval_s(0.0) == pytest.approx(1.0, rel=0.02)
    # Within one and a half intervals a stream may yet come back.
    assert clock.interval_s(1.4) == pytest.approx(1.0, rel=0.02)
    assert clock.interval_s(4 * ACTIVE_S) < 0.5
    assert clock.interval_s(1e6) == MIN_INTERVAL_S


def test_bookkeeping_is_bounded() -> None:
    clock = cadence(0.0001)
    for index in range(2 * MAX_TRACKED):
        clock.seen(str(index), key(), 0.0)
    assert clock.interval_s(0.0) == pytest.approx(MAX_TRACKED * 0.0001 / TARGET_BUSY, rel=0.02)


# Shares


def test_the_busy_share_is_that_of_the_last_seconds() -> None:
    clock = cadence(0.01)
    assert clock.busy_share(0.0) == 0.0
    for tenth in range(1_000):
        clock.ran(PARTIAL, 1, 0.05, tenth / 10)
    assert clock.busy_share(100.0) == pytest.approx(0.5, abs=0.02)
    assert clock.busy_share(100.0 + SHARE_S) == pytest.approx(0.5 / 2.718, abs=0.02)
    clock.ran(FINAL, 1, 1_000.0, 1_200.0)
    assert clock.busy_share(1_200.0) == 1.0


# How many streams


def utter(clock: Cadence, n_streams: int, seconds: int, final_s: float) -> None:
    """Each stream talks and has one final per second."""
    for second in range(seconds):
        talk(clock, n_streams, float(second), float(second))
        for _ in range(n_streams):
            clock.ran(FINAL, 1, final_s, float(second))


def test_the_number_of_streams_is_unknown_until_enough_was_seen() -> None:
    few_batches = cadence(0.01, n_observed=MIN_BATCHES - 1)
    utter(few_batches, 1, 10, 0.01)
    assert few_batches.max_streams(10.0) is None
    few_finals = cadence(0.01)
    utter(few_finals, 1, MIN_FINALS - 1, 0.01)
    assert few_finals.max_streams(10.0) is None
    enough = cadence(0.01)
    utter(enough, 1, MIN_FINALS, 0.01)
    assert enough.max_streams(10.0) is not None


@pytest.mark.parametrize("n_streams", [1, 5, 20])
def test_the_number_of_streams_is_that_which_fills_the_engine(n_streams: int) -> None:
    clock = cadence(0.015)
    utter(clock, n_streams, 100, 0.01)
    # 0.01 for finals and 0.015 / 1.5 s for partials, each second and stream.
    expected = TARGET_BUSY / (0.01 + 0.015 / CAPACITY_INTERVAL_S)
    assert clock.max_streams(100.0) == pytest.approx(expected, rel=0.05)


def test_streams_with_many_finals_fill_the_engine_with_those() -> None:
    clock = cadence(0.001)
    utter(clock, 4, 100, 0.05)
    # Partials have their minimum, so it is the finals that count.
    assert clock.max_streams(100.0) == pytest.approx(CAPACITY_BUSY / (0.05 + 0.001 / CAPACITY_INTERVAL_S), rel=0.05)


def test_the_number_of_streams_outlasts_a_silence() -> None:
    clock = cadence(0.015)
    utter(clock, 4, 100, 0.01)
    before = clock.max_streams(100.0)
    assert before is not None
    assert clock.max_streams(1e6) == pytest.approx(before, abs=1)


def test_finals_alone_tell_a_number_too() -> None:
    costs = CostModel()
    for _ in range(MIN_BATCHES):
        costs.observe(FINAL, 1, 400, 0.1)
    clock = Cadence(costs, lambda _: 32)
    utter(clock, 8, 20, 0.1)
    found = clock.max_streams(20.0)
    assert found is not None
    assert 1 <= found < 8


# Under load, in virtual time


@pytest.mark.parametrize("n_streams", [1, 4])
def test_few_streams_have_the_shortest_interval_and_no_queue(n_streams: int) -> None:
    engine = LoadedEngine(GPU, n_streams)
    engine.run(10)
    measured = engine.run(20)
    assert max(measured.intervals_s) == MIN_INTERVAL_S
    assert measured.age_p95_s(PARTIAL) < 0.05


@pytest.mark.parametrize("n_streams", [16, 32])
def test_without_a_gain_by_batches_the_engine_is_three_quarters_busy(n_streams: int) -> None:
    engine = LoadedEngine(FLAT, n_streams)
    engine.run(20)
    measured = engine.run(30)
    assert 0.6 < measured.busy_s / 30 < 0.85
    assert max(measured.intervals_s) < 1.4 * min(measured.intervals_s)
    assert measured.age_p95_s(PARTIAL) < 0.4
    assert measured.age_p95_s(FINAL) < 0.15


@pytest.mark.parametrize(("n_streams", "longest_s"), [(16, 0.4), (32, 0.7), (64, 1.6)])
def test_a_gpu_serves_more_streams_by_larger_batches(n_streams: int, longest_s: float) -> None:
    engine = LoadedEngine(GPU, n_streams)
    engine.run(20)
    measured = engine.run(30)
    assert max(measured.intervals_s) < longest_s
    assert max(measured.intervals_s) < 1.4 * min(measured.intervals_s)
    assert measured.age_p95_s(PARTIAL) < measured.mean_interval_s()
    assert measured.age_p95_s(FINAL) < 0.2


def test_long_intervals_with_small_batches_do_not_last() -> None:
    """The streams begin at the longest interval and see no batch of more than two."""
    steady = LoadedEngine(GPU, 32)
    steady.run(30)
    crowded = LoadedEngine(GPU, 150)
    crowded.run(20)
    assert crowded.cadence.interval_s(crowded.now_s) == pytest.approx(MAX_INTERVAL_S, rel=0.01)
    crowded.set_streams(32)
    crowded.run(20)
    settled_s = crowded.run(20).mean_interval_s()
    assert settled_s == pytest.approx(steady.run(20).mean_interval_s(), rel=0.15)


def test_a_recording_gets_on_while_partials_fill_the_engine() -> None:
    engine = LoadedEngine(GPU, 32, has_file=True)
    engine.run(20)
    measured = engine.run(30)
    assert measured.busy_s / 30 > 0.95
    assert len(measured.sizes[FILE]) >= 10
    assert measured.age_p95_s(FINAL) < 0.3
    assert measured.age_p95_s(PARTIAL) < 1.0


def test_as_many_streams_as_promised_are_served() -> None:
    engine = LoadedEngine(GPU, 16)
    engine.run(60)
    promised = engine.cadence.max_streams(engine.now_s)
    assert promised is not None
    assert promised > 40
    engine.set_streams(promised)
    engine.run(30)
    measured = engine.run(30)
    assert measured.mean_interval_s() < 1.2 * CAPACITY_INTERVAL_S
    assert measured.age_p95_s(FINAL) < 0.3
