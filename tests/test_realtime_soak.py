"""Whoever serves for hours stays as fast and as small as at the start; short forms of `python -m bench.soak`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from bench.doors import MAX_GROWTH_BYTES as MAX_DOOR_BYTES
from bench.doors import DoorsResult, Remains, open_and_close
from bench.memory import live_bytes
from bench.soak import MAX_DRIFT_S, MAX_GROWTH_BYTES, HoursResult, Slice, run_hours, slope


def test_ten_minutes_of_streams_get_no_slower_lose_no_word_and_leave_no_memory_behind() -> None:
    result = run_hours(2, seconds=600.0, slice_s=120.0)
    assert [each.until_s for each in result.slices] == pytest.approx([120, 240, 360, 480, 600])
    assert sum(each.words for each in result.slices) > 1_500
    assert result.faults == []


def test_sessions_leave_no_task_descriptor_or_memory_behind() -> None:
    result = asyncio.run(open_and_close(200))
    assert result.sessions == 200
    assert result.faults == []


# The verdicts


def slices(*p95_s: float, memory: int = 0) -> HoursResult:
    every = [Slice(600.0 * n, 100, 0, 0.5, value, memory if n else 0) for n, value in enumerate(p95_s)]
    return HoursResult(1, tuple(every))


def test_the_slope_is_that_of_the_line_through_all_slices() -> None:
    assert slope([(0, 1.0), (1, 2.0), (2, 3.0)]) == pytest.approx(1.0)
    assert slope([(0, 1.0), (1, 5.0), (2, 1.0)]) == pytest.approx(0.0)
    assert slope([(600, 1.0)]) == 0.0


def test_what_is_kept_is_counted_and_what_is_dropped_is_not() -> None:
    before = live_bytes()
    kept = {"text": "x" * 50_000, "arrays": [np.zeros(1_000, dtype=np.float32) for _ in range(50)]}
    assert live_bytes() - before == pytest.approx(250_000, rel=0.1)
    del kept
    assert abs(live_bytes() - before) < 10_000


def test_a_drift_a_growth_and_a_loss_are_faults() -> None:
    assert slices(1.0, 1.3, 0.9, 1.1).faults == []
    assert slices(1.0, 1.0 + MAX_DRIFT_S * 0.99).faults == []
    assert "p95 changed" in slices(1.0, 1.0 + MAX_DRIFT_S * 1.01).faults[0]
    assert "p95 changed" in slices(1.0, 1.0 - MAX_DRIFT_S * 1.01).faults[0]
    assert slices(1.0, 1.0, memory=MAX_GROWTH_BYTES).faults == []
    assert "memory grew" in slices(1.0, 1.0, memory=MAX_GROWTH_BYTES + 1).faults[0]
    lossy = HoursResult(1, (replace(slices(1.0).slices[0], lost=2),))
    assert lossy.faults == ["2 words were lost"]


def test_whatever_stays_behind_is_a_fault() -> None:
    before = Remains(tasks=2, descriptors=10, sessions=0, memory_bytes=1_000_000)

    def faults(**changes: int) -> list[str]:
        return DoorsResult(100, before, replace(before, **changes), ()).faults

    assert faults() == []
    assert faults(tasks=3) == ["1 tasks stayed behind"]
    assert faults(descriptors=12) == ["2 descriptors stayed behind"]
    assert faults(sessions=1) == ["1 sessions stayed behind"]
    assert faults(memory_bytes=1_000_000 + MAX_DOOR_BYTES) == []
    assert "stayed behind" in faults(memory_bytes=1_000_000 + MAX_DOOR_BYTES + 1)[0]
    assert DoorsResult(1, before, before, ("heard nothing",)).faults == ["heard nothing"]
