"""How many windows may share a batch: what the device's memory and the latency of others allow.

Pure. Knows the cost model and nothing of queues. Invariant: at least one window always fits; a batch
that has run out of memory is not tried again at its size until smaller ones have gone well for long.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from engine.batching import BatchKey
from engine.cost_model import CostModel
from engine.types import JobClass
from engine.window_decode import BEAM_SIZE

__all__ = ["CPU_BATCH_S", "MAX_CPU_ITEMS", "MAX_GPU_ITEMS", "MAX_GPU_ROWS", "PROBE_AFTER", "BatchLimits"]

MAX_GPU_ITEMS = 32
"""Windows in a batch on a GPU: the gain per window is small beyond, and rows that end early are cut out of
a decoder state that grows with the batch."""
MAX_GPU_ROWS = 64
"""Windows times beams on a GPU; beyond, sorting out the beams on the host takes longer than the model."""
MAX_CPU_ITEMS = 8
"""Windows in a batch on a CPU. Measured on windows of 4 s with the demo model: 20 ms of CPU for a window alone,
17 in batches of 4 to 12, 22 at 32."""
CPU_BATCH_S = 0.15
"""What a batch on a CPU may take: a final that comes just after its start waits that long, half its deadline."""
PROBE_AFTER = 50
"""Full batches without an error after which a limit learned from lack of memory is raised by one. Memory may
have been short for a while only; a probe that fails costs one batch its time, and no job its result."""


@dataclass
class _Learned:
    n_items: int
    n_good: int = 0


class BatchLimits:
    """Limits by batch key, some of them learned."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs
        self._learned: dict[tuple[JobClass, int], _Learned] = {}

    def limit(self, key: BatchKey, device: str) -> int:
        """How many windows of this key may share a batch on "cuda" or "cpu"; at least 1."""
        return min(self._of_device(key, device), self._of_memory(key))

    def _of_device(self, key: BatchKey, device: str) -> int:
        if device != "cpu":
            return min(MAX_GPU_ITEMS, MAX_GPU_ROWS // BEAM_SIZE[key.job_class])
        return max(1, bisect_right(range(1, MAX_CPU_ITEMS + 1), CPU_BATCH_S, key=lambda n: self._batch_s(key, n)))

    def _batch_s(self, key: BatchKey, n_items: int) -> float:
        took_s = self._costs.predict_s(key.job_class, n_items, key.n_frames)
        return math.inf if took_s is None else took_s

    def _of_memory(self, key: BatchKey) -> int:
        # What did not fit does not fit with longer windows either.
        found = [
            learned.n_items
            for (job_class, n_frames), learned in self._learned.items()
            if job_class is key.job_class and n_frames <= key.n_frames
        ]
        return min(found, default=MAX_GPU_ITEMS)

    def ran_out_of_memory(self, key: BatchKey, n_items: int) -> None:
        """A batch of `n_items` did not fit: no more than half of it from now on."""
        self._learned[key.job_class, key.n_frames] = _Learned(max(1, n_items // 2))

    def went_well(self, key: BatchKey, n_items: int) -> None:
        """A batch of `n_items` fitted, so as many shorter windows would have too."""
        for place, learned in list(self._learned.items()):
            job_class, n_frames = place
            if job_class is not key.job_class or n_frames > key.n_frames or n_items < learned.n_items:
                continue
            learned.n_good += 1
            if learned.n_good >= PROBE_AFTER:
                learned.n_items, learned.n_good = learned.n_items + 1, 0
            if learned.n_items >= MAX_GPU_ITEMS:
                del self._learned[place]
