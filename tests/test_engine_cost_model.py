"""engine/cost_model.py: learns what batches take, follows changes, forgets stalls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cost_model import MAX_JUMP, CostModel
from engine.types import JobClass

PARTIAL, FINAL = JobClass.PARTIAL, JobClass.FINAL
SIZES = (1, 2, 3, 5, 8, 16, 32)
FRAMES = (200, 400, 800, 1_200)


def taking(fixed_s: float, per_item_s: float, per_kiloframe_s: float, n_items: float, n_frames: int) -> float:
    return fixed_s + n_items * (per_item_s + per_kiloframe_s * n_frames / 1_000)


def teach(model: CostModel, costs: tuple[float, float, float], count: int, noise: float = 0.0, seed: int = 1) -> None:
    rnd = random.Random(seed)
    for _ in range(count):
        n_items, n_frames = rnd.choice(SIZES), rnd.choice(FRAMES)
        took_s = taking(*costs, n_items, n_frames) * (1 + noise * rnd.uniform(-1, 1))
        model.observe(PARTIAL, n_items, n_frames, took_s)


def worst_error(model: CostModel, costs: tuple[float, float, float]) -> float:
    """The largest relative error over all batches."""
    errors = []
    for n_items in SIZES:
        for n_frames in FRAMES:
            predicted_s = model.predict_s(PARTIAL, n_items, n_frames)
            assert predicted_s is not None
            errors.append(abs(predicted_s / taking(*costs, n_items, n_frames) - 1))
    return max(errors)


def test_before_the_first_batch_nothing_is_known() -> None:
    model = CostModel()
    assert model.predict_s(PARTIAL, 1, 200) is None
    model.observe(FINAL, 1, 200, 0.1)
    assert model.predict_s(PARTIAL, 1, 200) is None
    assert (model.n_observed(FINAL), model.n_observed(PARTIAL)) == (1, 0)


@pytest.mark.parametrize(("n_items", "n_frames", "took_s"), [(1, 200, 0.03), (8, 3_000, 1.5), (32, 1_200, 0.002)])
def test_after_one_batch_its_like_is_known_and_no_gain_by_batching_is_assumed(
    n_items: int, n_frames: int, took_s: float
) -> None:
    model = CostModel()
    model.observe(PARTIAL, n_items, n_frames, took_s)
    assert model.predict_s(PARTIAL, n_items, n_frames) == pytest.approx(took_s, rel=0.01)
    assert model.predict_s(PARTIAL, 2 * n_items, n_frames) == pytest.approx(2 * took_s, rel=0.06)


@pytest.mark.parametrize(
    "costs",
    [(0.05, 0.002, 0.01), (0.004, 0.01, 0.03), (0.0, 0.02, 0.0), (0.1, 0.0, 0.0), (0.01, 0.0, 0.05)],
)
def test_known_costs_are_recovered_from_noisy_batches(costs: tuple[float, float, float]) -> None:
    exact, noisy = CostModel(), CostModel()
    teach(exact, costs, 150)
    teach(noisy, costs, 150, noise=0.15)
    assert worst_error(exact, costs) < 0.02
    assert worst_error(noisy, costs) < 0.15


def test_one_batch_size_alone_still_predicts_itself() -> None:
    model = CostModel()
    for _ in range(200):
        model.observe(PARTIAL, 4, 600, 0.08)
    assert model.predict_s(PARTIAL, 4, 600) == pytest.approx(0.08, rel=1e-3)


def test_what_larger_batches_have_told_is_kept_while_only_small_ones_run() -> None:
    model = CostModel()
    costs = (0.05, 0.002, 0.01)
    teach(model, costs, 100)
    for _ in range(500):
        model.observe(PARTIAL, 1, 400, taking(*costs, 1, 400))
    predicted_s = model.predict_s(PARTIAL, 32, 400)
    assert predicted_s == pytest.approx(taking(*costs, 32, 400), rel=0.25)


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_a_change_is_tracked(factor: float) -> None:
    model = CostModel()
    before = (0.03, 0.004, 0.02)
    after = (0.03 * factor, 0.004 * factor, 0.02 * factor)
    teach(model, before, 100, noise=0.05)
    teach(model, after, 40, noise=0.05, seed=2)
    assert worst_error(model, after) < 0.4
    teach(model, after, 100, noise=0.05, seed=3)
    assert worst_error(model, after) < 0.1


@pytest.mark.parametrize("stall", [20.0, 1_000.0, 0.001])
def test_a_spike_hardly_moves_the_costs_and_is_forgotten(stall: float) -> None:
    model = CostModel()
    costs = (0.03, 0.004, 0.02)
    teach(model, costs, 100)
    model.observe(PARTIAL, 4, 400, stall * taking(*costs, 4, 400))
    assert worst_error(model, costs) < 0.2
    assert model.predict_s(PARTIAL, 4, 400) == pytest.approx(taking(*costs, 4, 400), rel=(MAX_JUMP - 1) * 0.06)
    teach(model, costs, 60)
    assert worst_error(model, costs) < 0.03


@pytest.mark.parametrize("first_s", [0.0, 0.001, 10.0])
def test_a_first_batch_like_no_other_is_overcome(first_s: float) -> None:
    model = CostModel()
    costs = (0.03, 0.004, 0.02)
    model.observe(PARTIAL, 1, 400, first_s)
    teach(model, costs, 40, noise=0.1)
    assert worst_error(model, costs) < 0.15


BATCHES = st.lists(
    st.tuples(st.integers(1, 32), st.integers(0, 3_000), st.floats(0.0, 60.0)),
    min_size=1,
    max_size=30,
)


@given(BATCHES)
def test_whatever_is_observed_costs_are_finite_positive_and_grow(batches: list[tuple[int, int, float]]) -> None:
    model = CostModel()
    for n_items, n_frames, took_s in batches:
        model.observe(PARTIAL, n_items, n_frames, took_s)
        predicted = [model.predict_s(PARTIAL, n, n_frames) for n in (1, 2, 32)]
        assert all(each is not None for each in predicted)
        small, more, many = (each or 0.0 for each in predicted)
        assert 0 < small <= more <= many < 1e4
