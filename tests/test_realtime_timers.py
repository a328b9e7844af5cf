"""Starvation, idleness and the session limit: at their moment and one tick before."""

from __future__ import annotations

import pytest

from realtime.timers import BURST_GAP_S, BURST_MARGIN_S, MAX_STARVATION_S, STARVATION_S, Due, SessionLimits, Timers

LIMITS = SessionLimits(idle_timeout_s=10.0, max_connection_time_s=100.0)
TICK_S = 1e-6


def due(timers: Timers, now_s: float, *, reading: bool = True, starving: bool = True) -> Due | None:
    return timers.due(now_s, reading=reading, starving=starving)


def test_starvation() -> None:
    timers = Timers(LIMITS, 0.0)
    timers.received(5.0, audio_s=0.1)
    assert timers.next_s(starving=True) == 5.0 + STARVATION_S
    assert due(timers, 5.0 + STARVATION_S - TICK_S) is None
    assert due(timers, 5.0 + STARVATION_S) is Due.STARVED
    assert due(timers, 5.0 + STARVATION_S, starving=False) is None


def test_idleness() -> None:
    timers = Timers(LIMITS, 0.0)
    timers.received(5.0, audio_s=0.1)
    assert timers.next_s(starving=False) == 15.0
    assert due(timers, 15.0 - TICK_S, starving=False) is None
    assert due(timers, 15.0, starving=False) is Due.IDLE


def test_bytes_that_are_no_audio_keep_the_place_but_do_not_feed() -> None:
    timers = Timers(LIMITS, 0.0)
    timers.received(9.0)
    assert due(timers, 9.0) is Due.STARVED
    assert due(timers, 10.0, starving=False) is None
    assert due(timers, 19.0) is Due.IDLE


def test_a_peer_that_is_not_read_is_not_silent() -> None:
    timers = Timers(LIMITS, 0.0)
    assert due(timers, 50.0, reading=False) is None
    assert due(timers, 50.0 + STARVATION_S - TICK_S) is None
    assert timers.next_s(starving=False) == 60.0
    timers.not_reading(55.0)
    assert timers.next_s(starving=False) == 65.0


@pytest.mark.parametrize("reading", [True, False])
def test_overtime_comes_first(reading: bool) -> None:
    timers = Timers(LIMITS, 0.0)
    timers.received(99.0, audio_s=0.1)
    assert timers.next_s(starving=True) == 100.0
    assert due(timers, 100.0 - TICK_S, reading=reading) is None
    assert due(timers, 100.0, reading=reading) is Due.OVERTIME
    assert Timers(SessionLimits(), 0.0).due(119.0, reading=True, starving=False) is None


def starved_after_s(timers: Timers, since_s: float) -> float:
    return timers.next_s(starving=True) - since_s


def test_large_pieces_of_audio_in_real_time_are_no_starvation() -> None:
    timers = Timers(SessionLimits(), 0.0)
    timers.received(10.0, audio_s=4.0)
    assert starved_after_s(timers, 10.0) == 4.0 + BURST_MARGIN_S
    timers.received(14.0, audio_s=0.1)
    assert starved_after_s(timers, 14.0) == STARVATION_S


def test_the_pieces_of_a_burst_add_up_to_a_limit() -> None:
    timers = Timers(SessionLimits(), 0.0)
    timers.received(10.0, audio_s=1.5)
    timers.received(10.0 + BURST_GAP_S, audio_s=1.5)
    assert starved_after_s(timers, 10.0 + BURST_GAP_S) == pytest.approx(3.0 + BURST_MARGIN_S)
    timers.received(20.0, audio_s=60.0)
    assert starved_after_s(timers, 20.0) == MAX_STARVATION_S
