"""A model without weights: windows of made-up talks are heard right and take the time that a cost model says.

`engine.types.Backend` for simulations: one batch at a time, as in the engine child. A batch that would not fit
into the device's memory fails as on a real one. Recordings are refused.

Knows no event loop but through `sleep`. Invariants: a batch of unequal keys is refused, as the real model
refuses it; every batch is reported to `on_batch` when it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from bench.costs import BEAM_SIZES, Cost, CostModel, Work
from bench.virtual.hearing import Hearing
from engine.batching import batch_key
from engine.errors import EngineFailedError, EngineMemoryError
from engine.types import (
    BatchResult,
    FileOptions,
    FileSegment,
    FloatArray,
    Handle,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
)
from engine.window_search import n_rows

__all__ = ["BatchDone", "Memory", "ModelledBackend"]

OUT_OF_MEMORY_S = 0.02
"""An allocation fails early in the encoder."""


@dataclass(frozen=True)
class Memory:
    """What a device can hold; `window_bytes(frames)` is what one more window in a batch takes."""

    free_bytes: float
    window_bytes: Callable[[int], float]


@dataclass(frozen=True)
class BatchDone:
    """A batch as it ran."""

    job_class: JobClass
    work: Work
    cost: Cost
    padding_frames: int


class ModelledBackend:
    """`engine.service.SupervisedBackend` over a cost model."""

    is_ready = True
    restarts = 0

    def __init__(
        self,
        info: ModelInfo,
        costs: CostModel,
        hearing: Hearing,
        *,
        memory: Memory | None = None,
        on_batch: Callable[[BatchDone], None] = lambda done: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`memory` None: there is no end to it."""
        self.info = info
        self._costs = costs
        self._hearing = hearing
        self._memory = memory
        self._on_batch = on_batch
        self._sleep = sleep
        self._turn = asyncio.Lock()

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        """Hear a batch. Raises EngineFailedError for unequal keys, EngineMemoryError for too many windows."""
        keys = {batch_key(job, self.info) for job in jobs}
        if len(keys) != 1:
            raise EngineFailedError(f"{len(keys)} kinds of windows in one batch")
        [key] = keys
        async with self._turn:
            await self._check_memory(len(jobs), key.n_frames)
            results = tuple(self._hear(job) for job in jobs)
            if not key.wants_words:
                results = tuple(replace(result, words=()) for result in results)
            tokens = [sum(len(word.tokens) for word in result.words) for result in results]
            # Others were not measured.
            beam_size = BEAM_SIZES[0] if n_rows(key.job_class, key.search) == 1 else BEAM_SIZES[1]
            # One step more than tokens: the end of the text.
            work = Work(len(jobs), key.n_frames, max(tokens) + 1, beam_size, key.n_context)
            cost = self._costs.cost(work)
            await self._sleep(cost.total_s)
        padding = sum(key.n_frames - job.mel.shape[1] for job in jobs)
        self._on_batch(BatchDone(key.job_class, work, cost, padding))
        return BatchResult(
            results=results,
            frames=len(jobs) * key.n_frames,
            padding_frames=padding,
            tokens=sum(tokens),
            encode_s=cost.encode_s,
            decode_s=cost.decode_s,
            align_s=cost.align_s,
        )

    async def _check_memory(self, n_windows: int, n_frames: int) -> None:
        memory = self._memory
        if memory is not None and n_windows * memory.window_bytes(n_frames) > memory.free_bytes:
            await self._sleep(OUT_OF_MEMORY_S)
            raise EngineMemoryError(f"{n_windows} windows of {n_frames} frames do not fit")

    def _hear(self, job: WindowJob) -> WindowResult:
        try:
            return self._hearing.hear(job)
        except ValueError as error:
            raise EngineFailedError(str(error)) from None

    async def release(self, handles: Sequence[Handle]) -> None:
        """There is nothing to forget."""

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Refuse: raises EngineFailedError."""
        raise EngineFailedError("a modelled backend takes no recordings")

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """Refuse: raises EngineFailedError."""
        raise EngineFailedError("a modelled backend takes no recordings")
