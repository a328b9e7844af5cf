"""How many windows may share a batch: what the device's memory and the latency of others allow.

Pure. Knows the cost model and nothing of queues. Invariants: at least one window always fits; a batch
that was too much for the engine (its memory, its time, its life) is not tried again at its size until smaller
ones have gone well for long; recordings share a batch only where it is known to end soon.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from engine.batching import BatchKey
from engine.cost_model import CostModel
from engine.types import JobClass
from engine.window_search import n_rows

__all__ = [
    "FILE_BATCH_S",
    "MAX_CPU_FILE_ITEMS",
    "MAX_CPU_ITEMS",
    "MAX_GPU_ITEMS",
    "MAX_GPU_ROWS",
    "PROBE_AFTER",
    "SHORT_BATCH_S",
    "BatchLimits",
]

MAX_GPU_ITEMS = 32
"""Windows in a batch on a GPU: the gain per window is small beyond, and rows that end early are cut out of
a decoder state that grows with the batch."""
MAX_GPU_ROWS = 64
"""Windows times beams on a GPU; beyond, sorting out the beams on the host takes longer than the model."""
MAX_CPU_ITEMS = 8
"""Windows in a batch on a CPU. Measured on windows of 4 s with the demo model: 20 ms of CPU for a window alone,
17 in batches of 4 to 12, 22 at 32."""
MAX_CPU_FILE_ITEMS = 4
"""Windows of recordings in a batch on a CPU. Measured with the demo model, beam 5,
CPU milliseconds per window in batches of 1, 4, 8 and 16: windows of 4 to 5 s 32, 30, 30, 29; of 6 to 7 s 50, 49,
46, 49; of 9 to 10 s 72, 73, 78, 77. More than a few gain nothing and only hold a live window up that comes."""
SHORT_BATCH_S = 0.15
"""What a batch may take that a final may have to wait for, any on a CPU and one of recordings on every device: a
final that comes just after its start waits that long, half its deadline."""
FILE_BATCH_S = 3.0
"""What a batch of recordings may take while no stream is live. A stream that connects then waits that long at
most, once; and a batch that turns out several times as dear still ends before its process is replaced for it,
after 30 s by default. On a GPU more windows than fit in it gain little."""
PROBE_AFTER = 50
"""Full batches without an error after which a learned limit is raised by one. Memory may have been short, or the
machine slow, for a while only; a probe that fails costs one batch its time, and no job its result."""


@dataclass
class _Learned:
    n_items: int
    n_good: int = 0


class BatchLimits:
    """Limits by batch key, some of them learned."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs
        self._learned: dict[tuple[JobClass, int], _Learned] = {}

    def limit(self, key: BatchKey, device: str, *, is_live: bool = True) -> int:
        """How many windows of this key may share a batch on "cuda" or "cpu"; at least 1.

        `is_live`: somebody's live window may come while it runs; else recordings may take longer.
        """
        is_file = key.job_class is JobClass.FILE
        n_items = min(_of_device(key, device), self._of_failures(key))
        if is_file or device == "cpu":
            n_items = min(n_items, self._within(FILE_BATCH_S if is_file and not is_live else SHORT_BATCH_S, key))
        return max(1, n_items)

    def _within(self, limit_s: float, key: BatchKey) -> int:
        """How many windows end within a time, 0 if not even one is known to."""
        return bisect_right(range(1, MAX_GPU_ITEMS + 1), limit_s, key=lambda n_items: self._batch_s(key, n_items))

    def _batch_s(self, key: BatchKey, n_items: int) -> float:
        took_s = self._costs.predict_s(key.job_class, n_items, key.n_frames)
        return math.inf if took_s is None else took_s

    def _of_failures(self, key: BatchKey) -> int:
        # What was too much is too much with longer windows, too.
        found = [
            learned.n_items
            for (job_class, n_frames), learned in self._learned.items()
            if job_class is key.job_class and n_frames <= key.n_frames
        ]
        return min(found, default=MAX_GPU_ITEMS)

    def was_too_much(self, key: BatchKey, n_items: int) -> None:
        """A batch of `n_items` did not fit, or the engine died over it or overstayed: at most half from now on."""
        self._learned[key.job_class, key.n_frames] = _Learned(max(1, n_items // 2))

    def went_well(self, key: BatchKey, n_items: int) -> None:
        """A batch of `n_items` went well, so as many shorter windows would have too."""
        for place, learned in list(self._learned.items()):
            job_class, n_frames = place
            if job_class is not key.job_class or n_frames > key.n_frames or n_items < learned.n_items:
                continue
            learned.n_good += 1
            if learned.n_good >= PROBE_AFTER:
                learned.n_items, learned.n_good = learned.n_items + 1, 0
            if learned.n_items >= MAX_GPU_ITEMS:
                del self._learned[place]


def _of_device(key: BatchKey, device: str) -> int:
    if device != "cpu":
        return min(MAX_GPU_ITEMS, MAX_GPU_ROWS // n_rows(key.job_class, key.search))
    return MAX_CPU_FILE_ITEMS if key.job_class is JobClass.FILE else MAX_CPU_ITEMS
