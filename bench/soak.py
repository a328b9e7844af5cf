"""`python -m bench.soak`: does a server that runs for long stay as fast and as small as it was?

Two parts, each with a verdict. Hours: a few streams talk for hours of virtual time to a modelled engine; the p95
of their latencies and the memory are noted slice by slice. Doors: thousands of sessions over real sockets, ended
in all the ways in which sessions end (`bench.doors`); no task, file descriptor or memory may stay behind.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from bench.costs import RooflineCosts
from bench.doors import DoorsResult, open_and_close
from bench.memory import live_bytes
from bench.roofline import GPUS, SHAPES
from bench.virtual.backend import ModelledBackend
from bench.virtual.hearing import Hearing
from bench.virtual.loop import LoopClock, run_virtual
from bench.virtual.simulation import model_info
from bench.virtual.stream import StreamPlan, VirtualStream
from bench.virtual.talk import Talk, make_talk
from engine.service import EngineService
from realtime.client.latency import percentile

__all__ = ["HoursResult", "Slice", "main", "run_hours", "slope"]

GPU, MODEL = "L40S", "large-v3-turbo"
WINDOW_PAD_S = 10.0
SPEECH_SHARE = 0.6
TALK_S = 60.0
SLICE_S = 600.0
SETTLE_S = 15.0
"""Words younger than this at the end of a slice belong to the next: they may not be completed yet."""
MAX_DRIFT_S = 0.1
"""By how much p95 may change over a run, along the line through its slices: a twentieth of the goal, and
more than the slices of a flat run differ by chance."""
MAX_GROWTH_BYTES = 500_000
"""By how much memory may grow over a run, along the same line: ten seconds of one stream's mel frames, which
come and go."""


@dataclass(frozen=True)
class Slice:
    """Some minutes of all streams; latencies from the end of a word's sound."""

    until_s: float
    words: int
    lost: int
    shown_p95_s: float
    completed_p95_s: float
    memory_bytes: int


@dataclass(frozen=True)
class HoursResult:
    """All slices of a run; the last seconds of the streams are in none."""

    streams: int
    slices: tuple[Slice, ...]

    @property
    def drift_s(self) -> float:
        """Change of the completion's p95 from the first slice to the last, along the line through all."""
        return self._change([each.completed_p95_s for each in self.slices])

    @property
    def growth_bytes(self) -> float:
        """Change of the memory, likewise."""
        return self._change([each.memory_bytes for each in self.slices])

    def _change(self, values: Sequence[float]) -> float:
        times_s = [each.until_s for each in self.slices]
        return slope(list(zip(times_s, values, strict=True))) * (times_s[-1] - times_s[0])

    @property
    def faults(self) -> list[str]:
        """What is wrong; empty if all is flat."""
        faults = []
        lost = sum(each.lost for each in self.slices)
        if lost:
            faults.append(f"{lost} words were lost")
        if abs(self.drift_s) > MAX_DRIFT_S:
            faults.append(f"p95 changed by {self.drift_s:+.3f} s (limit {MAX_DRIFT_S:g} s)")
        if self.growth_bytes > MAX_GROWTH_BYTES:
            faults.append(f"memory grew by {self.growth_bytes:.0f} bytes (limit {MAX_GROWTH_BYTES})")
        return faults


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line through (x, y) with the least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def run_hours(n_streams: int, seconds: float, slice_s: float = SLICE_S) -> HoursResult:
    """Let streams talk in virtual time, for two slices or more."""
    talks = [make_talk(TALK_S, SPEECH_SHARE, seed) for seed in range(n_streams)]
    hearing = Hearing(talks, SHAPES[MODEL].mels)
    return run_virtual(_hours(talks, hearing, seconds, slice_s))


async def _hours(talks: Sequence[Talk], hearing: Hearing, seconds: float, slice_s: float) -> HoursResult:
    clock = LoopClock(asyncio.get_running_loop())
    shape = SHAPES[MODEL]
    costs = RooflineCosts(shape, GPUS[GPU])
    service = EngineService(ModelledBackend(model_info(MODEL, shape, WINDOW_PAD_S), costs, hearing), clock)
    service.start()
    streams = [
        VirtualStream(StreamPlan(f"stream {n}", talk, 0.1 * n, seconds, n), service, clock)
        for n, talk in enumerate(talks)
    ]
    running = [asyncio.create_task(stream.run()) for stream in streams]
    slices = []
    for number in range(1, int(seconds // slice_s) + 1):
        await asyncio.sleep(number * slice_s - clock.now_s())
        slices.append(_slice(streams, clock.now_s()))
    await asyncio.gather(*running)
    await service.stop()
    return HoursResult(len(streams), tuple(slices))


def _slice(streams: Sequence[VirtualStream], now_s: float) -> Slice:
    words = [word for stream in streams for word in stream.watch.take(now_s - SETTLE_S)]
    shown_s = [word.shown_after_s for word in words if word.shown_after_s is not None]
    completed_s = [word.completed_after_s for word in words if word.completed_after_s is not None]
    return Slice(
        until_s=now_s,
        words=len(words),
        lost=len(words) - len(completed_s),
        shown_p95_s=percentile(shown_s, 0.95) or 0.0,
        completed_p95_s=percentile(completed_s, 0.95) or 0.0,
        memory_bytes=live_bytes(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run both parts; exit code 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--hours", type=float, default=2.0, help="of virtual time (default %(default)s)")
    parser.add_argument("--streams", type=int, default=2, help="that talk for so long (default %(default)s)")
    parser.add_argument("--sessions", type=int, default=10_000, help="over real sockets (default %(default)s)")
    args = parser.parse_args(argv)
    if args.hours * 3_600 < 2 * SLICE_S or args.streams < 1 or args.sessions < 0:
        parser.error("--hours, --streams and --sessions are too small")
    console = Console(highlight=False)
    hours = run_hours(args.streams, args.hours * 3_600)
    _print_hours(hours, console)
    faults = hours.faults
    if args.sessions:
        doors = asyncio.run(open_and_close(args.sessions))
        _print_doors(doors, console)
        faults += doors.faults
    console.print("\n".join(f"[red]fault:[/] {fault}" for fault in faults) or "Nothing grew, nothing slowed down.")
    return 1 if faults else 0


def _print_hours(result: HoursResult, console: Console) -> None:
    table = Table(title="Virtual time, modelled engine", title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("minute", "words", "lost", "shown p95", "completed p95", "memory MB"):
        table.add_column(heading, justify="right")
    for each in result.slices:
        table.add_row(
            f"{each.until_s / 60:.0f}",
            str(each.words),
            str(each.lost),
            f"{each.shown_p95_s:.3f}",
            f"{each.completed_p95_s:.3f}",
            f"{each.memory_bytes / 1e6:.2f}",
        )
    console.print(table)
    console.print(f"p95 changed by {result.drift_s:+.3f} s, memory by {result.growth_bytes / 1e3:+.0f} kB.")


def _print_doors(result: DoorsResult, console: Console) -> None:
    console.print(
        f"{result.sessions} sessions over sockets: tasks {result.before.tasks} -> {result.after.tasks}, file "
        f"descriptors {result.before.descriptors} -> {result.after.descriptors}, memory "
        f"{result.growth_bytes / 1e3:+.0f} kB."
    )


if __name__ == "__main__":
    sys.exit(main())
