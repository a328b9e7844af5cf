"""`python -m bench.gpu`: measure the engine on this machine's GPU, with random weights in true shapes.

Nothing is downloaded: models are made (`bench.random_model`) and speak a fixed text, so speed is that of the real
ones and words mean nothing. Measured through the product's own engine process and service: batches of every size
with their share of the physical limit (`bench.roofline`), and how many streams at one window per second it keeps
up with. The JSON feeds `python -m bench.simulate --costs`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.arguments import command_line
from bench.costs import Work, limit_s
from bench.gpu_runs import TICK_S, BatchPoint, TickRun, find_streams, measure_batches
from bench.random_model import NANO, RANDOM_SIZES, count_gpus, make_model
from bench.report import document, write_document
from bench.roofline import GPUS, SHAPES, Gpu, max_streams
from engine.clock import MonotonicClock
from engine.errors import BadInputError, ConfigError, SttError
from engine.owner import EngineOwner
from engine.service import EngineService
from engine.settings import Settings, load_settings
from engine.types import FRAMES_PER_SECOND

__all__ = ["data_sheet", "main"]

SCRIPT_TOKENS = 25
"""What is said in a window of 10 s of conversation."""
SIZES = (1, 2, 4, 8, 16, 32)
MAX_STREAMS = 2_000
NVIDIA_SMI_LIMIT_S = 10.0
NEEDS_GPU = "no NVIDIA GPU can be seen here; `--device cpu` tries the command with a tiny model on the CPU"
CPU_NOTE = "Measured on a CPU with a tiny model: it shows that the command works, and tells nothing about a GPU."


@dataclass(frozen=True)
class Device:
    """Where it was measured; `gpu` is its data sheet, None for a CPU or an unknown card."""

    kind: str
    name: str
    driver: str | None
    gpu: Gpu | None


@dataclass(frozen=True)
class ModelRun:
    """All that was measured of one model at one window length."""

    model: str
    window_s: float
    compute_type: str
    batches: tuple[BatchPoint, ...]
    ticks: tuple[TickRun, ...]

    @property
    def streams(self) -> int:
        """The largest number of streams that it kept up with."""
        return max((run.streams for run in self.ticks if run.keeps_up), default=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; exit code 0 if it was measured."""
    args = _parser().parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        _check(args)
        device = _device(args.device)
        models = args.models or ([NANO] if args.device == "cpu" else ["small", "large-v3-turbo"])
        runs = []
        for model in models:
            for window_s in args.windows:
                runs.append(asyncio.run(_run(args, model, window_s)))
                if not args.json:
                    _print(runs[-1], device, console)
    except SttError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    command = command_line("bench.gpu", sys.argv[1:] if argv is None else argv)
    found = _document(args, device, runs, command)
    if args.json:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    if args.output is not None:
        write_document(args.output, found)
    if device.kind == "cpu":
        sys.stderr.write(f"{CPU_NOTE}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the command (default %(default)s)")
    add("--models", type=_names, help="shapes (default: small,large-v3-turbo; nano on a CPU)")
    add("--windows", type=_seconds_list, default="10,30", help="least windows in seconds (default %(default)s)")
    add("--sizes", type=_sizes, default=SIZES, help="batch sizes (default 1,2,4,8,16,32)")
    add("--repeats", type=int, default=5, help="calls per batch; the median counts (default %(default)s)")
    add("--ticks", type=int, default=8, help="seconds per number of streams tried (default %(default)s)")
    add("--max-streams", type=int, default=MAX_STREAMS, help="most streams tried (default %(default)s)")
    add("--compute-type", default="auto", help="as WHISPER_COMPUTE_TYPE (default %(default)s)")
    add("--model-folder", type=Path, help="keep the made models there (default: a temporary folder)")
    add("--json", action="store_true", help="print a JSON document instead of tables")
    add("--output", type=Path, metavar="FILE", help="write the JSON document to a file, too")
    return parser


def _names(text: str) -> list[str]:
    return text.split(",")


def _seconds_list(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _check(args: argparse.Namespace) -> None:
    for name, values, low, high in (
        ("--windows", args.windows, 4, 30),
        ("--sizes", args.sizes, 1, 256),
        ("--repeats", [args.repeats], 1, 1_000),
        ("--ticks", [args.ticks], 1, 600),
        ("--max-streams", [args.max_streams], 1, MAX_STREAMS),
    ):
        for value in values:
            if not low <= value <= high:
                raise BadInputError(name, value, f"{low:g} to {high:g}")
    for model in args.models or ():
        if model not in RANDOM_SIZES:
            raise BadInputError("--models", model, ", ".join(RANDOM_SIZES))


def _device(kind: str) -> Device:
    """What will be measured. Raises ConfigError without a GPU."""
    if kind == "cpu":
        return Device("cpu", platform.machine(), None, None)
    if count_gpus() == 0:
        raise ConfigError(NEEDS_GPU)
    name, driver = _nvidia_smi()
    return Device("cuda", name, driver, data_sheet(name))


def data_sheet(name: str) -> Gpu | None:
    """The data sheet of a card by the name that its driver tells; None if it is not in the table."""
    words = name.upper().replace("RTX ", "RTX").replace("-", " ").split()
    for known, gpu in GPUS.items():
        card, _, memory_gb = known.partition("-")
        if card in words and (not memory_gb or f"{memory_gb}GB" in words):
            return gpu
    return None


def _nvidia_smi() -> tuple[str, str | None]:
    command = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown GPU", None
    name, _, driver = result.stdout.split("\n")[0].partition(",")
    return name.strip(), driver.strip() or None


async def _run(args: argparse.Namespace, model: str, window_s: float) -> ModelRun:
    """Make the model, start the engine, measure, stop it."""
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.model_folder or Path(temporary)) / f"random-{model}"
        if not (folder / "tokenizer.json").is_file():
            quantization = "float16" if args.device == "cuda" else None
            await asyncio.to_thread(
                make_model, folder, RANDOM_SIZES[model], n_script=SCRIPT_TOKENS, quantization=quantization
            )
        owner = EngineOwner(_settings(args, folder, window_s), clock)
        owner.start()
        service = EngineService(owner, clock)
        try:
            await owner.wait_ready()
            batches = await measure_batches(owner, owner.info, clock, args.sizes, args.repeats)
            service.start()
            ticks = await find_streams(service, clock, _first_guess(batches), args.max_streams, args.ticks)
        finally:
            await service.stop()
            await owner.stop()
        return ModelRun(model, window_s, owner.info.compute_type, tuple(batches), tuple(ticks))


def _settings(args: argparse.Namespace, folder: Path, window_s: float) -> Settings:
    options = {
        "model": str(folder),
        "device": args.device,
        "compute_type": args.compute_type,
        "window_pad_s": window_s,
        "log_level": "warning",
    }
    return load_settings(options, env_file=None)


def _first_guess(batches: Sequence[BatchPoint]) -> int:
    """Half of what the best batch would allow."""
    greedy = [point for point in batches if point.beam_size == 1]
    return int(max((point.n_windows / point.total_s for point in greedy), default=1.0) * TICK_S / 2)


def _document(args: argparse.Namespace, device: Device, runs: Sequence[ModelRun], command: str) -> dict[str, Any]:
    conditions = {
        "device": device.name,
        "driver": device.driver,
        "weights": f"random, {SCRIPT_TOKENS} tokens per window",
        "repeats": args.repeats,
        "ticks": args.ticks,
        "data_sheet": None if device.gpu is None else asdict(device.gpu),
    }
    rows = [
        {"model": run.model, "window_s": run.window_s, **asdict(point), "limit_share": _limit_share(device, run, point)}
        for run in runs
        for point in run.batches
    ]
    streams = [
        {
            "model": run.model,
            "window_s": run.window_s,
            "compute_type": run.compute_type,
            "streams": run.streams,
            "limit_streams": _limit_streams(device, run),
            "limit_share": _streams_share(device, run),
            "runs": [asdict(tick) for tick in run.ticks],
        }
        for run in runs
    ]
    kind = "gpu" if device.kind == "cuda" else "gpu-command-on-a-cpu"
    return document(kind, conditions, {"batches": rows, "streams": streams}, command=command)


def _limit_share(device: Device, run: ModelRun, point: BatchPoint) -> float | None:
    """Which part of its time a batch would take if only physics limited it."""
    if device.gpu is None or run.model not in SHAPES:
        return None
    work = Work(point.n_windows, point.frames, point.steps, point.beam_size)
    return limit_s(SHAPES[run.model], device.gpu, work) / point.total_s


def _limit_streams(device: Device, run: ModelRun) -> float | None:
    if device.gpu is None or run.model not in SHAPES or not run.batches:
        return None
    point = run.batches[0]
    window_s = point.frames / FRAMES_PER_SECOND
    return max_streams(SHAPES[run.model], device.gpu, window_s, point.steps, every_s=TICK_S)


def _streams_share(device: Device, run: ModelRun) -> float | None:
    limit = _limit_streams(device, run)
    return None if not limit else run.streams / limit


def _print(run: ModelRun, device: Device, console: Console) -> None:
    table = Table(
        title=f"{run.model} ({run.compute_type}) on {device.name}, windows of {run.window_s:g} s; milliseconds",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for heading in ("windows", "beams", "tokens", "host", "encode", "decode", "align", "per window", "% of limit"):
        table.add_column(heading, justify="right")
    for point in run.batches:
        share = _limit_share(device, run, point)
        times_s = (point.host_s, point.encode_s, point.decode_s, point.align_s, point.total_s / point.n_windows)
        table.add_row(
            *map(str, (point.n_windows, point.beam_size, point.steps - 1)),
            *(f"{1e3 * value:.1f}" for value in times_s),
            "-" if share is None else f"{100 * share:.0f}",
        )
    console.print(table)
    limit, share = _limit_streams(device, run), _streams_share(device, run)
    against = "" if limit is None or share is None else f" of {limit:.0f} that physics allows ({100 * share:.0f} %)"
    last = max((tick for tick in run.ticks if tick.keeps_up), key=lambda tick: tick.streams, default=None)
    waited = "" if last is None else f", answers after {last.p50_s:.2f} s (p50), {last.p95_s:.2f} s (p95)"
    console.print(f"Streams with one window per {TICK_S:g} s: {run.streams}{against}{waited}.")


if __name__ == "__main__":
    sys.exit(main())
