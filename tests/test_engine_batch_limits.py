"""engine/batch_limits.py: device, latency, batches that were too much."""

from __future__ import annotations

import pytest

from engine.batch_limits import (
    FILE_BATCH_S,
    MAX_CPU_FILE_ITEMS,
    MAX_CPU_ITEMS,
    MAX_GPU_ITEMS,
    MAX_GPU_ROWS,
    PROBE_AFTER,
    SHORT_BATCH_S,
    BatchLimits,
)
from engine.batching import BatchKey
from engine.cost_model import CostModel
from engine.settings import Settings
from engine.types import JobClass
from engine.window_search import LADDER_S, n_rows

PARTIAL, FINAL, FILE = JobClass.PARTIAL, JobClass.FINAL, JobClass.FILE
MAX_GPU_FILES = MAX_GPU_ROWS // n_rows(FILE, None)


def key(job_class: JobClass = PARTIAL, n_frames: int = 400) -> BatchKey:
    return BatchKey(job_class, n_frames, 40, 0, "", "")


def costing(job_class: JobClass, per_item_s: float) -> CostModel:
    """Costs after some batches of a class that took so long per window of 4 s, and nothing besides."""
    costs = CostModel()
    for _ in range(3):
        for n_items in (1, 2, 4, 8):
            costs.observe(job_class, n_items, 400, n_items * per_item_s)
    return costs


def test_on_a_gpu_partials_are_limited_by_number_and_finals_by_rows() -> None:
    limits = BatchLimits(CostModel())
    assert limits.limit(key(PARTIAL), "cuda") == MAX_GPU_ITEMS
    n_finals = limits.limit(key(FINAL), "cuda")
    assert n_finals * n_rows(FINAL, None) <= MAX_GPU_ROWS < (n_finals + 1) * n_rows(FINAL, None)


def test_on_a_cpu_an_unknown_window_runs_alone() -> None:
    assert BatchLimits(CostModel()).limit(key(), "cpu") == 1


@pytest.mark.parametrize(
    ("per_item_s", "expected"),
    [(SHORT_BATCH_S * 2, 1), (SHORT_BATCH_S / 3.9, 3), (SHORT_BATCH_S / 4.1, 4), (SHORT_BATCH_S / 100, MAX_CPU_ITEMS)],
)
def test_on_a_cpu_a_batch_ends_before_a_final_has_waited_too_long(per_item_s: float, expected: int) -> None:
    limits = BatchLimits(costing(PARTIAL, per_item_s))
    assert limits.limit(key(), "cpu") == expected
    assert limits.limit(key(), "cpu", is_live=False) == expected
    assert limits.limit(key(FINAL), "cpu") == 1
    assert limits.limit(key(), "cuda") == MAX_GPU_ITEMS


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("is_live", [True, False])
def test_an_unknown_window_of_a_recording_runs_alone_on_every_device(device: str, is_live: bool) -> None:
    assert BatchLimits(costing(FINAL, 0.001)).limit(key(FILE), device, is_live=is_live) == 1


@pytest.mark.parametrize(("is_live", "limit_s"), [(True, SHORT_BATCH_S), (False, FILE_BATCH_S)])
@pytest.mark.parametrize(("device", "most"), [("cpu", MAX_CPU_FILE_ITEMS), ("cuda", MAX_GPU_FILES)])
@pytest.mark.parametrize("fitting", [0.5, 0.99, 1.01, 1.99, 2.01, 3.99, 4.01, 11.99, 12.01, 100.0])
def test_a_batch_of_recordings_ends_soon_on_every_device_and_sooner_beside_live_streams(
    is_live: bool, limit_s: float, device: str, most: int, fitting: float
) -> None:
    limits = BatchLimits(costing(FILE, limit_s / fitting))
    assert limits.limit(key(FILE), device, is_live=is_live) == max(1, min(most, int(fitting)))


def test_a_batch_of_recordings_ends_long_before_its_process_is_replaced() -> None:
    assert Settings().engine_timeout_s >= 2 * (FILE_BATCH_S + LADDER_S)


def test_what_recordings_cost_does_not_limit_finals_on_a_gpu() -> None:
    limits = BatchLimits(costing(FILE, 10.0))
    for is_live in (True, False):
        assert limits.limit(key(FINAL), "cuda", is_live=is_live) == MAX_GPU_ROWS // n_rows(FINAL, None)
        assert limits.limit(key(PARTIAL), "cuda", is_live=is_live) == MAX_GPU_ITEMS


@pytest.mark.parametrize(("n_items", "expected"), [(32, 16), (9, 4), (3, 1), (2, 1), (1, 1)])
def test_what_was_too_much_is_halved_for_windows_of_its_length_and_longer_ones(n_items: int, expected: int) -> None:
    limits = BatchLimits(CostModel())
    limits.was_too_much(key(PARTIAL, 400), n_items)
    assert limits.limit(key(PARTIAL, 400), "cuda") == expected
    assert limits.limit(key(PARTIAL, 1_000), "cuda") == expected
    assert limits.limit(key(PARTIAL, 200), "cuda") == MAX_GPU_ITEMS
    assert limits.limit(key(FINAL, 400), "cuda") == MAX_GPU_ROWS // n_rows(FINAL, None)


def test_full_batches_that_go_well_raise_a_learned_limit_by_one_at_a_time() -> None:
    limits = BatchLimits(CostModel())
    limits.was_too_much(key(), 8)
    for _ in range(PROBE_AFTER - 1):
        limits.went_well(key(), 4)
    for _ in range(PROBE_AFTER):
        limits.went_well(key(), 3)  # tells nothing about four
        limits.went_well(key(PARTIAL, 200), 32)  # nor do shorter windows
    assert limits.limit(key(), "cuda") == 4
    limits.went_well(key(PARTIAL, 1_000), 4)
    assert limits.limit(key(), "cuda") == 5
    limits.was_too_much(key(), 5)
    assert limits.limit(key(), "cuda") == 2


def test_a_limit_that_has_recovered_is_forgotten() -> None:
    limits = BatchLimits(CostModel())
    limits.was_too_much(key(), MAX_GPU_ITEMS)
    for n_items in range(MAX_GPU_ITEMS // 2, MAX_GPU_ITEMS):
        assert limits.limit(key(), "cuda") == n_items
        for _ in range(PROBE_AFTER):
            limits.went_well(key(), n_items)
    assert limits.limit(key(), "cuda") == MAX_GPU_ITEMS
