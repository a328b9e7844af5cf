"""What a batch will take, learned from the batches that ran. Pure: no clock, no model.

For each job class: seconds = fixed + items x per_item + (mel frames / 1000) x per_kiloframe, no part of
it negative. The three are the least squares of relative errors over the recent past (exponential
forgetting). What the recent past does not tell (a fixed part cannot be told from a part per item while all
batches are alike) stays as it was. Invariants: one observation counts for no more than MAX_JUMP
times what was expected, so a stall of the machine passes; a prediction never falls with items or frames.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

from engine.types import JobClass

__all__ = ["FORGETTING", "MAX_JUMP", "CostModel"]

FORGETTING = 0.96
"""The weight of the past after one more batch: about the last 25 count, 1 to 3 s of a busy engine."""
MAX_JUMP = 3.0
"""Where much has been seen, a batch moves what is expected of the next by at most 8 %; a real change of
costs is believed after 20 to 40 of them."""
MIN_TOOK_S = 1e-4
"""Less than the pipe to the engine process takes; a relative error needs something to be relative to."""
PULL = 1e-4
"""How strongly unexplained directions are held, relative to what one batch tells: not noticeable in
those that the batches do explain."""
DOUBTS = (10.0, 1.0, 1.0)
"""Of the fixed part, per item, per frame. What a first batch took is ascribed to its items, not to a fixed
part: to expect nothing from batching errs on the side of smaller batches and longer intervals."""

_Array = npt.NDArray[np.float64]


class CostModel:
    """Costs of all job classes."""

    def __init__(self) -> None:
        self._lines = {job_class: _Line() for job_class in JobClass}

    def observe(self, job_class: JobClass, n_items: int, n_frames: int, took_s: float) -> None:
        """A batch of `n_items` windows, each padded to `n_frames` mel frames, took so many seconds."""
        self._lines[job_class].observe(_features(n_items, n_frames), took_s)

    def predict_s(self, job_class: JobClass, n_items: float, n_frames: int) -> float | None:
        """What such a batch would take; None before the first of its class. `n_items` may be an average."""
        return self._lines[job_class].predict_s(_features(n_items, n_frames))

    def n_observed(self, job_class: JobClass) -> int:
        """How many batches of a class have been observed."""
        return self._lines[job_class].n_observed


def _features(n_items: float, n_frames: int) -> _Array:
    return np.array([1.0, n_items, n_items * n_frames / 1_000])


class _Line:
    """Weighted normal equations of one class, and their solution."""

    def __init__(self) -> None:
        self.n_observed = 0
        self._gram: _Array = np.zeros((3, 3))
        self._moment: _Array = np.zeros(3)
        self._coefficients: _Array = np.zeros(3)

    def predict_s(self, features: _Array) -> float | None:
        return max(MIN_TOOK_S, float(features @ self._coefficients)) if self.n_observed else None

    def observe(self, features: _Array, took_s: float) -> None:
        expected_s = self.predict_s(features) or max(MIN_TOOK_S, took_s)
        believed_s = min(max(took_s, expected_s / MAX_JUMP), expected_s * MAX_JUMP)
        scaled = features / expected_s
        gram = FORGETTING * self._gram + np.outer(scaled, scaled)
        moment = FORGETTING * self._moment + scaled * (believed_s / expected_s)
        held = np.diag(DOUBTS) * (PULL * float(scaled @ scaled))
        self._coefficients = _non_negative(gram + held, moment + held @ self._coefficients)
        self.n_observed += 1
        # What was learned while less was expected must not outweigh what comes now, or a machine that got
        # slower, or a first batch that was too short to be true, would be believed in for minutes.
        growth = max(1.0, (self.predict_s(features) or expected_s) / expected_s)
        self._gram, self._moment = gram / growth**2, moment / growth**2


def _non_negative(gram: _Array, moment: _Array) -> _Array:
    """Minimise x.gram.x / 2 - moment.x over x >= 0: the best of the solutions in which some are zero."""
    best, best_value = np.zeros(3), 0.0
    for size in (3, 2, 1):
        for kept in map(list, combinations(range(3), size)):
            solution = np.zeros(3)
            solution[kept] = np.linalg.solve(gram[np.ix_(kept, kept)], moment[kept])
            value = float(solution @ gram @ solution / 2 - moment @ solution)
            if solution.min() >= 0 and value < best_value:
                best, best_value = solution, value
        if size == 3 and best_value < 0:
            break  # nothing negative even without the constraint
    return best
