"""N live streams on a modelled GPU, in virtual time: what is real, what is modelled, what comes out.

Real: the sessions with their endpoints, mel frames and agreement of hypotheses; the scheduler, batching and
cadence of the engine service. Modelled: the speakers (`bench.virtual.talk`), what the model hears
(`bench.virtual.hearing`), how long it takes (`bench.costs`). Left out: sockets, the voice activity network, and all
time that the serving process needs, which is measured by the way and reported beside.

Knows no terminal and no file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.costs import CostModel, limit_s
from bench.roofline import Gpu, Shape, item_bytes, weight_bytes
from bench.virtual.backend import BatchDone, Memory, ModelledBackend
from bench.virtual.hearing import Hearing
from bench.virtual.loop import LoopClock, run_virtual
from bench.virtual.stream import StreamPlan, VirtualStream
from bench.virtual.talk import Talk, make_talk
from bench.virtual.watch import WatchedWord
from engine.service import EngineService
from engine.types import FRAMES_PER_SECOND, MAX_FRAMES, SAMPLE_RATE_HZ, JobClass, ModelInfo
from realtime.client.latency import percentile

__all__ = ["MIN_SECONDS", "STAGGER_S", "WARM_UP_S", "Card", "Figures", "Scenario", "model_info", "simulate"]

STAGGER_S = 10.0
"""Streams begin within this time of each other."""
WARM_UP_S = 10.0
"""After the last has begun: the service learns what batches take, talks drift apart."""
TAIL_S = 3.0
"""Before the first stream ends: words at the end are completed earlier than in mid-stream."""
MIN_SECONDS = STAGGER_S + WARM_UP_S + TAIL_S + 1.0
TALKS = 16
"""Different talks; streams that share one say it at different times."""
TALK_S = 60.0
USABLE_MEMORY = 0.9
"""Of a card's memory: the rest is the driver's, and lost to fragmentation."""
TAIL_FRAMES = 300
"""Silence behind a window that is not padded to 30 s, as the engine child decides it."""


@dataclass(frozen=True)
class Card:
    """A model on a GPU; `name` is the card's."""

    name: str
    shape: Shape
    gpu: Gpu
    costs: CostModel
    info: ModelInfo

    @property
    def memory(self) -> Memory:
        """What is left for batches once the weights are loaded."""
        free_bytes = USABLE_MEMORY * self.gpu.memory_bytes - weight_bytes(self.shape)
        return Memory(free_bytes, lambda frames: item_bytes(self.shape, frames / FRAMES_PER_SECOND))


@dataclass(frozen=True)
class Scenario:
    """How many streams, for how long, and for which share of the time each of them speaks."""

    n_streams: int
    seconds: float
    speech_share: float
    seed: int = 1


@dataclass(frozen=True)
class Figures:
    """What came of a scenario; latencies in seconds of virtual time, counted from the end of a word's sound.

    `final` is that of a turn's last word, the wait for the endpoint included; `final_job` how long finals took
    from their submission. `busy` is the GPU's, `limit_share` the time that its data sheet asks for the same
    batches. `max_streams` is what the service itself says it can serve. `cpu_ms_per_s` was measured: the
    serving process without sockets and voice activity, per second of audio.
    """

    streams: int
    audio_s: float
    words: int
    lost: int
    wrong: int
    doubled: int
    errors: int
    shown_p50_s: float | None
    shown_p95_s: float | None
    completed_p50_s: float | None
    completed_p95_s: float | None
    final_p50_s: float | None
    final_p95_s: float | None
    final_job_p95_s: float | None
    busy: float
    limit_share: float
    batch_mean: float
    batch_p95: float | None
    padding_share: float
    partial_interval_s: float
    max_streams: int | None
    cpu_ms_per_s: float


@dataclass
class _Notes:
    """What is written down while the streams run."""

    batches: list[tuple[float, BatchDone]] = field(default_factory=list)
    final_jobs: list[tuple[float, float]] = field(default_factory=list)
    intervals_s: list[tuple[float, float]] = field(default_factory=list)
    max_streams: int | None = None


def model_info(name: str, shape: Shape, window_pad_s: float) -> ModelInfo:
    """What the engine child would say of the model on a GPU."""
    pad_frames = round(window_pad_s * FRAMES_PER_SECOND)
    tail_frames = TAIL_FRAMES if pad_frames < MAX_FRAMES else 0
    languages = ("en", "es")
    return ModelInfo(name, shape.mels, languages, "cuda", "float16", pad_frames=pad_frames, tail_frames=tail_frames)


def simulate(card: Card, scenario: Scenario) -> Figures:
    """Run a scenario. The same arguments give the same figures, except for `cpu_ms_per_s`."""
    talks = [
        make_talk(TALK_S, scenario.speech_share, seed=scenario.seed * TALKS + n)
        for n in range(min(TALKS, scenario.n_streams))
    ]
    hearing = Hearing(talks, card.shape.mels, scenario.seed)
    return run_virtual(_run(card, scenario, talks, hearing))


async def _run(card: Card, scenario: Scenario, talks: Sequence[Talk], hearing: Hearing) -> Figures:
    clock = LoopClock(asyncio.get_running_loop())
    notes = _Notes()

    def note_batch(done: BatchDone) -> None:
        notes.batches.append((clock.now_s(), done))
        notes.intervals_s.append((clock.now_s(), service.partial_interval_s))
        if clock.now_s() < scenario.seconds:  # no stream has ended yet
            notes.max_streams = service.max_streams

    def note_job(job_class: JobClass, took_s: float) -> None:
        if job_class is JobClass.FINAL:
            notes.final_jobs.append((clock.now_s(), took_s))

    backend = ModelledBackend(card.info, card.costs, hearing, memory=card.memory, on_batch=note_batch)
    service = EngineService(backend, clock)
    service.start()
    streams = [VirtualStream(plan, service, clock, note_job) for plan in _plans(scenario, talks)]
    began_s = time.process_time()
    await asyncio.gather(*(stream.run() for stream in streams))
    cpu_s = time.process_time() - began_s
    await service.stop()
    return _figures(card, scenario, streams, notes, cpu_s)


def _plans(scenario: Scenario, talks: Sequence[Talk]) -> list[StreamPlan]:
    step_s = STAGGER_S / scenario.n_streams
    return [
        StreamPlan(f"stream {n}", talks[n % len(talks)], n * step_s, scenario.seconds, scenario.seed + n)
        for n in range(scenario.n_streams)
    ]


def _figures(
    card: Card,
    scenario: Scenario,
    streams: Sequence[VirtualStream],
    notes: _Notes,
    cpu_s: float,
) -> Figures:
    from_s, to_s = STAGGER_S + WARM_UP_S, scenario.seconds - TAIL_S
    said = [word for stream in streams for word in stream.watch.take(scenario.seconds)]
    words = [word for word in said if from_s <= word.end_s < to_s]
    ends = [word for word in words if word.said.ends_turn]
    batches = [done for at_s, done in notes.batches if from_s <= at_s < to_s]
    final_jobs_s = [took_s for at_s, took_s in notes.final_jobs if from_s <= at_s < to_s]
    intervals_s = [value for at_s, value in notes.intervals_s if from_s <= at_s < to_s]
    sizes = [float(done.work.n_windows) for done in batches]
    frames = sum(done.work.n_windows * done.work.frames for done in batches)
    limits_s = sum(limit_s(card.shape, card.gpu, done.work) for done in batches)
    audio_s = sum(stream.ledger.received for stream in streams) / SAMPLE_RATE_HZ
    shown_s = _known([word.shown_after_s for word in words])
    completed_s, final_s = _completed_after_s(words), _completed_after_s(ends)
    return Figures(
        streams=len(streams),
        audio_s=audio_s,
        words=len(words),
        lost=sum(word.completed_s is None for word in said),
        wrong=sum(word.is_wrong for word in said),
        doubled=sum(stream.watch.n_doubled + stream.watch.n_strange for stream in streams),
        errors=sum(len(stream.errors) for stream in streams),
        shown_p50_s=percentile(shown_s, 0.5),
        shown_p95_s=percentile(shown_s, 0.95),
        completed_p50_s=percentile(completed_s, 0.5),
        completed_p95_s=percentile(completed_s, 0.95),
        final_p50_s=percentile(final_s, 0.5),
        final_p95_s=percentile(final_s, 0.95),
        final_job_p95_s=percentile(final_jobs_s, 0.95),
        busy=sum(_within(at_s, done.cost.total_s, from_s, to_s) for at_s, done in notes.batches) / (to_s - from_s),
        limit_share=limits_s / (to_s - from_s),
        batch_mean=_mean(sizes),
        batch_p95=percentile(sizes, 0.95),
        padding_share=sum(done.padding_frames for done in batches) / frames if frames else 0.0,
        partial_interval_s=_mean(intervals_s),
        max_streams=notes.max_streams,
        cpu_ms_per_s=1_000 * cpu_s / audio_s,
    )


def _within(end_s: float, took_s: float, from_s: float, to_s: float) -> float:
    """How much of a batch that ended at `end_s` lies in a span of time."""
    return max(0.0, min(end_s, to_s) - max(end_s - took_s, from_s))


def _completed_after_s(words: Sequence[WatchedWord]) -> list[float]:
    return _known([word.completed_after_s for word in words])


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
