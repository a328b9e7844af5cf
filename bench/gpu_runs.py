"""Measures an engine with equal windows: batch by batch, and with streams that want one window each second.

Works on any `engine.types.Backend`. What a batch takes comes from the engine's own figures; what is left of the
caller's time is the host's: pipe, Python, waiting.

Knows no GPU and no files. The clock is an argument.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.costs import BEAM_SIZES
from bench.search import Search
from engine.batching import padded_frames
from engine.clock import Clock
from engine.errors import EngineMemoryError
from engine.scheduler import SupersededError
from engine.types import Backend, BatchResult, Engine, FloatArray, JobClass, ModelInfo, WindowJob
from realtime.client.latency import percentile

__all__ = ["TICK_S", "BatchPoint", "TickRun", "find_streams", "measure_batches", "run_ticks"]

MAX_CONTENT_FRAMES = 1_000
"""A live window is rarely longer; what is padded beyond costs the same."""
TICK_S = 1.0
WARM_UP_TICKS = 2
"""Ticks of every stream before latencies count."""
BEAMS = {JobClass.PARTIAL: BEAM_SIZES[0], JobClass.FINAL: BEAM_SIZES[1]}


@dataclass(frozen=True)
class BatchPoint:
    """A batch of equal windows, the median of several calls; `frames` and `steps` are those of each window."""

    n_windows: int
    frames: int
    steps: int
    beam_size: int
    host_s: float
    encode_s: float
    decode_s: float
    align_s: float

    @property
    def total_s(self) -> float:
        """From the call to its answer."""
        return self.host_s + self.encode_s + self.decode_s + self.align_s


@dataclass(frozen=True)
class TickRun:
    """Streams that each wanted a window decoded every TICK_S; latencies from the wish to the answer."""

    streams: int
    answers: int
    superseded: int
    p50_s: float
    p95_s: float

    @property
    def keeps_up(self) -> bool:
        """True if answers came before the next wish, as good as always."""
        return self.answers > 0 and self.superseded == 0 and self.p95_s <= TICK_S


async def measure_batches(
    backend: Backend, info: ModelInfo, clock: Clock, sizes: Sequence[int], repeats: int
) -> list[BatchPoint]:
    """Measure batches of each size, greedy and with beams, in the windows that the model pads to.

    Sizes beyond what memory holds are left out.
    """
    points = []
    for job_class in (JobClass.PARTIAL, JobClass.FINAL):
        job = _job("bench", job_class, _mel(info))
        for size in sizes:
            try:
                points.append(await _measure(backend, info, clock, [job] * size, repeats))
            except EngineMemoryError:
                break
    return points


async def _measure(
    backend: Backend, info: ModelInfo, clock: Clock, jobs: Sequence[WindowJob], repeats: int
) -> BatchPoint:
    await backend.transcribe(jobs)
    calls = [await _timed(backend, clock, jobs) for _ in range(repeats)]
    encode_s = statistics.median(result.encode_s for _, result in calls)
    decode_s = statistics.median(result.decode_s for _, result in calls)
    align_s = statistics.median(result.align_s for _, result in calls)
    took_s = statistics.median(took_s for took_s, _ in calls)
    return BatchPoint(
        n_windows=len(jobs),
        frames=padded_frames(jobs[0].mel.shape[1], info),
        # The end of the text is a step, too.
        steps=calls[0][1].tokens // len(jobs) + 1,
        beam_size=BEAMS[jobs[0].job_class],
        host_s=max(0.0, took_s - encode_s - decode_s - align_s),
        encode_s=encode_s,
        decode_s=decode_s,
        align_s=align_s,
    )


async def _timed(backend: Backend, clock: Clock, jobs: Sequence[WindowJob]) -> tuple[float, BatchResult]:
    began_s = clock.now_s()
    result = await backend.transcribe(jobs)
    return clock.now_s() - began_s, result


def _mel(info: ModelInfo) -> FloatArray:
    """Noise for a window that is padded to the model's least length, and no further."""
    n_frames = min(MAX_CONTENT_FRAMES, max(100, info.pad_frames - info.tail_frames))
    noise: FloatArray = np.random.default_rng(0).normal(-2.0, 1.0, (info.n_mels, n_frames)).astype(np.float32)
    return noise


def _job(stream: str, job_class: JobClass, mel: FloatArray) -> WindowJob:
    return WindowJob(stream, job_class, mel, language="en")


async def run_ticks(engine: Engine, clock: Clock, n_streams: int, n_ticks: int) -> TickRun:
    """Let streams ask for a partial each per tick, evenly spread over it, for so many ticks that count."""
    mel = _mel(engine.info)
    latencies_s: list[float] = []
    n_superseded = 0
    began_s = clock.now_s()

    async def ask(name: str, due_s: float, *, counts: bool) -> None:
        nonlocal n_superseded
        try:
            await engine.transcribe_window(_job(name, JobClass.PARTIAL, mel))
        except SupersededError:
            n_superseded += counts
            return
        if counts:
            latencies_s.append(clock.now_s() - due_s)

    async def stream(number: int) -> None:
        asked = []
        for tick in range(WARM_UP_TICKS + n_ticks):
            due_s = began_s + (tick + number / n_streams) * TICK_S
            await asyncio.sleep(due_s - clock.now_s())
            asked.append(asyncio.create_task(ask(f"stream {number}", due_s, counts=tick >= WARM_UP_TICKS)))
        await asyncio.gather(*asked)

    await asyncio.gather(*(stream(number) for number in range(n_streams)))
    return TickRun(
        streams=n_streams,
        answers=len(latencies_s),
        superseded=n_superseded,
        p50_s=percentile(latencies_s, 0.5) or 0.0,
        p95_s=percentile(latencies_s, 0.95) or 0.0,
    )


async def find_streams(engine: Engine, clock: Clock, first: int, at_most: int, n_ticks: int) -> list[TickRun]:
    """Look for the largest number of streams that an engine keeps up with; returns all runs."""
    search = Search(limit=at_most, start=max(1, first))
    runs: list[TickRun] = []
    while (n_streams := search.next()) is not None:
        runs.append(await run_ticks(engine, clock, n_streams, n_ticks))
        search.take(n_streams, runs[-1].keeps_up)
    return runs
