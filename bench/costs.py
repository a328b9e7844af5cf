"""What a batch of windows costs a GPU: from its data sheet, or from a file of `bench.gpu`'s measurements.

`RooflineCosts` takes the physical limit (`bench.roofline`), divides it by an efficiency and adds what the
host spends per layer, step, row, window and batch. These are assumptions, printed with every
result; they stand for CTranslate2 without fused attention.

Pure arithmetic; knows no GPU, no model and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.roofline import LAUNCH_S, Gpu, Shape, tick_s, window_cost
from engine.errors import BadInputError
from engine.types import FRAMES_PER_SECOND

__all__ = [
    "BEAM_SIZES",
    "DEFAULT_EFFICIENCY",
    "Cost",
    "CostModel",
    "MeasuredCosts",
    "MeasuredPoint",
    "RooflineCosts",
    "Work",
    "limit_s",
    "load_measured",
]

DEFAULT_EFFICIENCY = 0.5
"""Part of the data sheet that kernels reach: 40 to 60 % is what good ones get from Whisper's shapes."""
HOST_ROW_S = 8e-6
"""Host time per step for each row of the batch (a window, or one of its beams)."""
HOST_BATCH_S = 3e-3
"""Host time per batch: the pipe, Python, conversions."""
HOST_WINDOW_S = 1e-3
"""Host time per window of a batch: its mel through the pipe, clamped and padded (0.3 ms on one core), and its
words read from tokens."""
ALIGN_SHARE = 0.15
"""Finding word times, in units of decoding the same words: 0.1 to 0.2 was measured on a CPU."""
BEAM_SIZES = (1, 5)
"""Of partials and of finals."""


@dataclass(frozen=True)
class Work:
    """One batch: equal windows of `frames` mel frames, decoder steps of the longest text, tokens before it."""

    n_windows: int
    frames: int
    steps: int
    beam_size: int = 1
    n_context: int = 0


@dataclass(frozen=True)
class Cost:
    """Seconds that a batch takes, by what takes them."""

    host_s: float
    encode_s: float
    decode_s: float
    align_s: float

    @property
    def total_s(self) -> float:
        """From the call to its answer."""
        return self.host_s + self.encode_s + self.decode_s + self.align_s


class CostModel(Protocol):
    """Tells what a batch costs."""

    def cost(self, work: Work) -> Cost:
        """The cost of one batch."""
        ...


@dataclass(frozen=True)
class RooflineCosts:
    """Costs computed from shapes and data sheets; see the module's docstring."""

    shape: Shape
    gpu: Gpu
    efficiency: float = DEFAULT_EFFICIENCY

    def cost(self, work: Work) -> Cost:
        """The cost of one batch."""
        shape, gpu, n = self.shape, self.gpu, work.n_windows
        window = window_cost(shape, work.frames / FRAMES_PER_SECOND)
        flops_s = (window.encoder_flops + window.cross_flops) / gpu.flops_per_s
        encode_s = n * (flops_s + window.score_bytes / gpu.bytes_per_s) / self.efficiency
        read_s = (window.step_weight_bytes + n * window.step_cross_bytes) / gpu.bytes_per_s / self.efficiency
        step_s = read_s + shape.decoder_layers * LAUNCH_S + n * work.beam_size * HOST_ROW_S
        # Two FLOPs per weight and token: the text before the window is one parallel forward.
        context_flops = 2 * 14 * shape.width**2 * shape.decoder_layers * work.n_context * n
        decode_s = work.steps * step_s + context_flops / gpu.flops_per_s / self.efficiency
        return Cost(HOST_BATCH_S + n * HOST_WINDOW_S, encode_s, decode_s, ALIGN_SHARE * decode_s)


def limit_s(shape: Shape, gpu: Gpu, work: Work) -> float:
    """What physics asks for a batch: no host, fused attention, one beam."""
    return tick_s(work.n_windows, shape, gpu, work.frames / FRAMES_PER_SECOND, work.steps)


@dataclass(frozen=True)
class MeasuredPoint:
    """One measured batch."""

    n_windows: int
    frames: int
    steps: int
    beam_size: int
    cost: Cost


class MeasuredCosts:
    """Costs between and beyond measured batches, along straight lines.

    Text before the window is not in the measurements and costs nothing here.
    """

    def __init__(self, points: Sequence[MeasuredPoint]) -> None:
        """Raises BadInputError unless each beam size has two batch sizes at one window length, or more."""
        self._points = {beam: _by_frames(points, beam) for beam in BEAM_SIZES}
        for beam, lengths in self._points.items():
            if not lengths or any(len(row) < 2 for row in lengths.values()):
                raise BadInputError("costs", f"beam size {beam}", "two batch sizes or more for each window length")

    def cost(self, work: Work) -> Cost:
        """The cost of one batch."""
        lengths = self._points[work.beam_size]
        known = sorted(lengths)
        costs = [_at_size(lengths[frames], work) for frames in known]
        if len(known) == 1:
            return costs[0]
        high = next((n for n in range(1, len(known) - 1) if known[n] >= work.frames), len(known) - 1)
        return _between(costs[high - 1], costs[high], known[high - 1], known[high], work.frames)


def load_measured(path: Path, model: str) -> MeasuredCosts:
    """Read what `bench.gpu` measured of a model. Raises BadInputError."""
    try:
        document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        points = [
            MeasuredPoint(
                row["n_windows"],
                row["frames"],
                row["steps"],
                row["beam_size"],
                Cost(row["host_s"], row["encode_s"], row["decode_s"], row["align_s"]),
            )
            for row in document["results"]["batches"]
            if row["model"] == model
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError("costs", str(path), f"a result of bench.gpu ({type(error).__name__})") from None
    return MeasuredCosts(points)


def _by_frames(points: Sequence[MeasuredPoint], beam: int) -> dict[int, list[MeasuredPoint]]:
    lengths: dict[int, list[MeasuredPoint]] = {}
    for point in sorted(points, key=lambda point: point.n_windows):
        if point.beam_size == beam:
            lengths.setdefault(point.frames, []).append(point)
    return lengths


def _at_size(row: Sequence[MeasuredPoint], work: Work) -> Cost:
    """The cost at one measured window length, for as many steps as asked."""
    high = next((n for n in range(1, len(row) - 1) if row[n].n_windows >= work.n_windows), len(row) - 1)
    low_cost, high_cost = _scaled(row[high - 1], work.steps), _scaled(row[high], work.steps)
    return _between(low_cost, high_cost, row[high - 1].n_windows, row[high].n_windows, work.n_windows)


def _scaled(point: MeasuredPoint, steps: int) -> Cost:
    ratio = steps / point.steps
    return Cost(point.cost.host_s, point.cost.encode_s, point.cost.decode_s * ratio, point.cost.align_s * ratio)


def _between(low: Cost, high: Cost, low_at: float, high_at: float, at: float) -> Cost:
    """On the line through two costs; never below zero."""
    share = (at - low_at) / (high_at - low_at)

    def part(a: float, b: float) -> float:
        return max(0.0, a + share * (b - a))

    return Cost(
        part(low.host_s, high.host_s),
        part(low.encode_s, high.encode_s),
        part(low.decode_s, high.decode_s),
        part(low.align_s, high.align_s),
    )
