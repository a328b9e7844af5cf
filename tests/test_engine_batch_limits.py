"""engine/batch_limits.py: device, latency on a CPU, memory that did not suffice."""

from __future__ import annotations

import pytest

from engine.batch_limits import (
    CPU_BATCH_S,
    MAX_CPU_ITEMS,
    MAX_GPU_ITEMS,
    MAX_GPU_ROWS,
    PROBE_AFTER,
    BatchLimits,
)
from engine.batching import BatchKey
from engine.cost_model import CostModel
from engine.types import JobClass
from engine.window_search import n_rows

PARTIAL, FINAL = JobClass.PARTIAL, JobClass.FINAL


def key(job_class: JobClass = PARTIAL, n_frames: int = 400) -> BatchKey:
    return BatchKey(job_class, n_frames, 40, 0, "", "")


def test_on_a_gpu_partials_are_limited_by_number_and_finals_by_rows() -> None:
    limits = BatchLimits(CostModel())
    assert limits.limit(key(PARTIAL), "cuda") == MAX_GPU_ITEMS
    n_finals = limits.limit(key(FINAL), "cuda")
    assert n_finals * n_rows(FINAL, None) <= MAX_GPU_ROWS < (n_finals + 1) * n_rows(FINAL, None)


def test_on_a_cpu_an_unknown_window_runs_alone() -> None:
    assert BatchLimits(CostModel()).limit(key(), "cpu") == 1


@pytest.mark.parametrize(
    ("per_item_s", "expected"),
    [(CPU_BATCH_S * 2, 1), (CPU_BATCH_S / 3.9, 3), (CPU_BATCH_S / 4.1, 4), (CPU_BATCH_S / 100, MAX_CPU_ITEMS)],
)
def test_on_a_cpu_a_batch_ends_before_a_final_has_waited_too_long(per_item_s: float, expected: int) -> None:
    costs = CostModel()
    for _ in range(3):
        for n_items in (1, 2, 4, 8):
            costs.observe(PARTIAL, n_items, 400, n_items * per_item_s)
    limits = BatchLimits(costs)
    assert limits.limit(key(), "cpu") == expected
    assert limits.limit(key(FINAL), "cpu") == 1
    assert limits.limit(key(), "cuda") == MAX_GPU_ITEMS


@pytest.mark.parametrize(("n_items", "expected"), [(32, 16), (9, 4), (3, 1), (2, 1), (1, 1)])
def test_what_did_not_fit_is_halved_for_windows_of_its_length_and_longer_ones(n_items: int, expected: int) -> None:
    limits = BatchLimits(CostModel())
    limits.ran_out_of_memory(key(PARTIAL, 400), n_items)
    assert limits.limit(key(PARTIAL, 400), "cuda") == expected
    assert limits.limit(key(PARTIAL, 1_000), "cuda") == expected
    assert limits.limit(key(PARTIAL, 200), "cuda") == MAX_GPU_ITEMS
    assert limits.limit(key(FINAL, 400), "cuda") == MAX_GPU_ROWS // n_rows(FINAL, None)


def test_full_batches_that_go_well_raise_a_learned_limit_by_one_at_a_time() -> None:
    limits = BatchLimits(CostModel())
    limits.ran_out_of_memory(key(), 8)
    for _ in range(PROBE_AFTER - 1):
        limits.went_well(key(), 4)
    for _ in range(PROBE_AFTER):
        limits.went_well(key(), 3)  # tells nothing about four
        limits.went_well(key(PARTIAL, 200), 32)  # nor do shorter windows
    assert limits.limit(key(), "cuda") == 4
    limits.went_well(key(PARTIAL, 1_000), 4)
    assert limits.limit(key(), "cuda") == 5
    limits.ran_out_of_memory(key(), 5)
    assert limits.limit(key(), "cuda") == 2


def test_a_limit_that_has_recovered_is_forgotten() -> None:
    limits = BatchLimits(CostModel())
    limits.ran_out_of_memory(key(), MAX_GPU_ITEMS)
    for n_items in range(MAX_GPU_ITEMS // 2, MAX_GPU_ITEMS):
        assert limits.limit(key(), "cuda") == n_items
        for _ in range(PROBE_AFTER):
            limits.went_well(key(), n_items)
    assert limits.limit(key(), "cuda") == MAX_GPU_ITEMS
