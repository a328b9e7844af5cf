"""`python -m bench.roofline`: how many live streams a GPU could serve if only physics limited it.

Once per tick the window of each stream is encoded and all streams take `steps` decoder steps together:

    T(N) = N (F_encoder + F_cross) / P  +  N A / B  +  steps (W + N K) / B  +  steps layers launch

F are FLOPs of the encoder and of the decoder's cross-attention keys and values, P the peak FLOP/s (fp16
inputs, fp32 sums: what CTranslate2 uses for Whisper), A bytes of attention scores (none if attention is
fused; CTranslate2's is not), W bytes of decoder weights read per step, K bytes of cross-attention keys and
values read per stream and step, B the memory bandwidth. The limit is the N with T(N) = tick.

Pure arithmetic; knows no GPU but its data sheet. "Ideal" is the limit of the card, "ct2" that of an
unfused engine which spends LAUNCH_S on the host per decoder layer and step; good kernels reach about half.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

__all__ = [
    "GPUS",
    "LAUNCH_S",
    "N_VOCABULARY",
    "RENTED",
    "SHAPES",
    "Gpu",
    "Shape",
    "WindowCost",
    "file_speed",
    "item_bytes",
    "max_streams",
    "rental_figures",
    "tick_s",
    "weight_bytes",
    "window_cost",
]

POSITIONS_PER_S = 50
"""Encoder positions per second of audio: two mel frames of 10 ms each."""
N_VOCABULARY = 51_866
"""Of the large-v3 family; the others have one entry less."""
LAUNCH_S = 80e-6
"""Host time and kernel launches per decoder layer and step: an assumption, of the order that users of
CTranslate2 on one GPU report for single calls."""
HALF_BYTES = 2
"""Bytes of a float16."""
FILE_WINDOW_S = 30.0
TABLE_COLUMNS = 132
"""Eight cards of up to 13 characters and a name: narrower terminals wrap, but lose no digit."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Whisper model (OpenAI's `ModelDimensions`)."""

    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    mels: int


@dataclass(frozen=True)
class Gpu:
    """A card's data sheet: dense FLOP/s (fp16 to fp32), bytes/s, bytes of memory."""

    flops_per_s: float
    bytes_per_s: float
    memory_bytes: float


SHAPES = {
    "tiny": Shape(384, 4, 4, 6, 80),
    "base": Shape(512, 6, 6, 8, 80),
    "small": Shape(768, 12, 12, 12, 80),
    "medium": Shape(1024, 24, 24, 16, 80),
    "large-v3": Shape(1280, 32, 32, 20, 128),
    "large-v3-turbo": Shape(1280, 32, 4, 20, 128),
    "distil-large-v3": Shape(1280, 32, 2, 20, 128),
}
GPUS = {
    "L4": Gpu(121e12, 300e9, 24e9),
    "RTX3090": Gpu(71e12, 936e9, 24e9),
    "RTX4090": Gpu(165e12, 1008e9, 24e9),
    "RTX5090": Gpu(209e12, 1792e9, 32e9),
    "L40S": Gpu(362e12, 864e9, 48e9),
    "A100-80": Gpu(312e12, 2039e9, 80e9),
    "H100": Gpu(989e12, 3350e9, 80e9),
    "H200": Gpu(989e12, 4800e9, 141e9),
}
RENTED = {
    "NVIDIA RTX 2000 Ada Generation": Gpu(48e12, 224e9, 16e9),
    "NVIDIA RTX 5000 Ada Generation": Gpu(261e12, 576e9, 32e9),
    "NVIDIA RTX 6000 Ada Generation": Gpu(364e12, 960e9, 48e9),
    "NVIDIA RTX A4000": Gpu(76.7e12, 448e9, 16e9),
    "NVIDIA RTX A4500": Gpu(94.6e12, 640e9, 20e9),
    "NVIDIA RTX A5000": Gpu(111e12, 768e9, 24e9),
    "NVIDIA RTX A6000": Gpu(155e12, 768e9, 48e9),
    "NVIDIA A30": Gpu(165e12, 933e9, 24e9),
    "NVIDIA A40": Gpu(150e12, 696e9, 48e9),
    "NVIDIA L4": GPUS["L4"],
    "NVIDIA L40": Gpu(181e12, 864e9, 48e9),
    "NVIDIA L40S": GPUS["L40S"],
    "NVIDIA GeForce RTX 3070": Gpu(40.6e12, 448e9, 8e9),
    "NVIDIA GeForce RTX 3080": Gpu(59.5e12, 760e9, 10e9),
    "NVIDIA GeForce RTX 3080 Ti": Gpu(68.2e12, 912e9, 12e9),
    "NVIDIA GeForce RTX 3090": GPUS["RTX3090"],
    "NVIDIA GeForce RTX 3090 Ti": Gpu(80e12, 1008e9, 24e9),
    "NVIDIA GeForce RTX 4080": Gpu(97.5e12, 717e9, 16e9),
    "NVIDIA GeForce RTX 4080 SUPER": Gpu(104e12, 736e9, 16e9),
    "NVIDIA GeForce RTX 4090": GPUS["RTX4090"],
    "NVIDIA GeForce RTX 5090": GPUS["RTX5090"],
    "NVIDIA A100 80GB PCIe": Gpu(312e12, 1935e9, 80e9),
    "NVIDIA A100-SXM4-80GB": GPUS["A100-80"],
    "NVIDIA H100 PCIe": Gpu(756e12, 2000e9, 80e9),
    "NVIDIA H100 80GB HBM3": GPUS["H100"],
    "NVIDIA H200": GPUS["H200"],
}
"""Cards by the ids of RunPod's catalog, which are the names that the driver tells."""


@dataclass(frozen=True)
class WindowCost:
    """What one window costs: FLOPs once, bytes once, bytes per decoder step."""

    encoder_flops: float
    cross_flops: float
    score_bytes: float
    step_weight_bytes: float
    step_cross_bytes: float


def window_cost(shape: Shape, window_s: float, bytes_per_weight: int = HALF_BYTES) -> WindowCost:
    """The cost of a window of `window_s` seconds, padding included."""
    d, positions = shape.width, window_s * POSITIONS_PER_S
    convolutions = 2 * 3 * shape.mels * d * 2 * positions + 2 * 3 * d * d * positions
    layer = 24 * d * d * positions + 4 * positions * positions * d
    score_passes = 4  # written, read and written by the softmax, read
    return WindowCost(
        encoder_flops=shape.encoder_layers * layer + convolutions,
        cross_flops=shape.decoder_layers * 4 * d * d * positions,
        score_bytes=shape.encoder_layers * score_passes * shape.heads * positions * positions * HALF_BYTES,
        step_weight_bytes=(shape.decoder_layers * 14 * d * d + N_VOCABULARY * d) * bytes_per_weight,
        step_cross_bytes=2 * positions * d * shape.decoder_layers * HALF_BYTES,
    )


def tick_s(
    n_streams: float,
    shape: Shape,
    gpu: Gpu,
    window_s: float,
    steps: float,
    *,
    launch_s: float = 0.0,
    fused: bool = True,
) -> float:
    """The least time in which `n_streams` windows are encoded and decoded together."""
    cost = window_cost(shape, window_s)
    encode_s = n_streams * (cost.encoder_flops + cost.cross_flops) / gpu.flops_per_s
    scores_s = 0.0 if fused else n_streams * cost.score_bytes / gpu.bytes_per_s
    step_s = (cost.step_weight_bytes + n_streams * cost.step_cross_bytes) / gpu.bytes_per_s
    return encode_s + scores_s + steps * (step_s + shape.decoder_layers * launch_s)


def max_streams(
    shape: Shape,
    gpu: Gpu,
    window_s: float,
    steps: float,
    *,
    every_s: float = 1.0,
    launch_s: float = 0.0,
    fused: bool = True,
) -> float:
    """How many streams can be decoded once every `every_s` seconds; 0 if not even the weights can be read."""
    none_s = tick_s(0, shape, gpu, window_s, steps, launch_s=launch_s, fused=fused)
    one_s = tick_s(1, shape, gpu, window_s, steps, launch_s=launch_s, fused=fused)
    return max(0.0, (every_s - none_s) / (one_s - none_s))


def file_speed(
    shape: Shape, gpu: Gpu, *, tokens: float = 90, batch: int = 16, launch_s: float = 0.0, fused: bool = True
) -> float:
    """Seconds of recordings per second, in windows of 30 s with `tokens` each."""
    batch_s = tick_s(batch, shape, gpu, FILE_WINDOW_S, tokens, launch_s=launch_s, fused=fused)
    return FILE_WINDOW_S * batch / batch_s


def weight_bytes(shape: Shape) -> float:
    """float16 weights of the whole model, without the small change (norms, biases, positions)."""
    d = shape.width
    layers = shape.encoder_layers * 12 * d * d + shape.decoder_layers * 16 * d * d
    return (layers + N_VOCABULARY * d + 3 * d * (shape.mels + d)) * HALF_BYTES


def item_bytes(shape: Shape, window_s: float) -> float:
    """Device memory that one more window in a batch takes while it is encoded and decoded.

    Cross-attention keys and values, and two copies each of one layer's scores and feed-forward outputs.
    """
    positions = window_s * POSITIONS_PER_S
    cross = window_cost(shape, window_s).step_cross_bytes
    scores = 2 * shape.heads * positions * positions * HALF_BYTES
    feed_forward = 2 * positions * 4 * shape.width * HALF_BYTES
    return cross + scores + feed_forward


def rental_figures() -> dict[str, object]:
    """What `builder/deploy/throughput.json` holds: speeds of recordings by rented card, and memory by model."""
    return {
        "about": "Estimates from data sheets by python -m bench.roofline --json, not measured; do not edit.",
        "audio_s_per_s": {
            card: {
                model: round(file_speed(shape, gpu, launch_s=LAUNCH_S, fused=False)) for model, shape in SHAPES.items()
            }
            for card, gpu in RENTED.items()
        },
        "memory_gb": {
            model: {
                "weights": round(weight_bytes(shape) / 1e9, 2),
                "window": round(item_bytes(shape, FILE_WINDOW_S) / 1e9, 2),
            }
            for model, shape in SHAPES.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=15, help="decoder steps per tick (default %(default)s)")
    parser.add_argument("--tick", type=float, default=1.0, help="seconds between two decodes (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print what builder/deploy/throughput.json holds instead")
    args = parser.parse_args(argv)
    if args.json:
        print(json.dumps(rental_figures(), indent=1))
        return 0
    if args.steps < 1 or args.tick <= 0:
        parser.error("--steps and --tick must be positive")
    console = Console(width=TABLE_COLUMNS)
    console.print("Computed from data sheets, not measured. Each cell: ideal / ct2.")
    for window_s in (30.0, 10.0):
        title = f"streams decoded every {args.tick:g} s, windows of {window_s:g} s, {args.steps} steps"
        console.print(_table(title, window_s, args.steps, args.tick))
    console.print(_files_table())
    return 0


def _table(title: str, window_s: float, steps: int, every_s: float) -> Table:
    def cell(shape: Shape, gpu: Gpu) -> str:
        ideal = max_streams(shape, gpu, window_s, steps, every_s=every_s)
        ct2 = max_streams(shape, gpu, window_s, steps, every_s=every_s, launch_s=LAUNCH_S, fused=False)
        return f"{ideal:.0f} / {ct2:.0f}"

    return _grid(title, {name: [cell(shape, gpu) for gpu in GPUS.values()] for name, shape in SHAPES.items()})


def _files_table() -> Table:
    def cell(shape: Shape, gpu: Gpu) -> str:
        return f"{file_speed(shape, gpu):.0f} / {file_speed(shape, gpu, launch_s=LAUNCH_S, fused=False):.0f}"

    title = "recordings: seconds of audio per second, batches of 16 windows of 30 s, 90 tokens each"
    return _grid(title, {name: [cell(shape, gpu) for gpu in GPUS.values()] for name, shape in SHAPES.items()})


def _grid(title: str, rows: dict[str, list[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for name in GPUS:
        table.add_column(name, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
