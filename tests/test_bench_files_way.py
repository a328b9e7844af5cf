"""bench.files_way and bench.files_wire: a way in a process of its own, which is this module run as one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bench.files_way import Sample, WayFailedError, WayOptions, way_process
from bench.files_wire import FileAnswer, FileTask, Transcribe, serve
from bench.soak_files import MAX_ABOVE_IDLE_BYTES, FileUse, Stretch, faults, main, stretches

OPTIONS = WayOptions("demo", "cpu", "int8", 1)
COMMAND = ("tests.test_bench_files_way",)
HELD_BYTES = 60_000_000


def _load() -> tuple[Transcribe, Mapping[str, Any]]:
    held = []

    def transcribe(task: FileTask, on_progress: Callable[[float], None]) -> FileAnswer:
        print("noise of a library")
        on_progress(12.5)
        if task.path == "broken":
            raise ValueError("no such file")
        if task.path == "large":
            held.append(b"\x01" * HELD_BYTES)
        return FileAnswer(f"{task.language} text", 2, {"model": 0.5})

    return transcribe, {"arguments": sys.argv[1:]}


def test_a_way_answers_and_is_measured() -> None:
    async def scenario() -> None:
        async with way_process("test", COMMAND, OPTIONS) as way:
            assert tuple(way.about["arguments"]) == OPTIONS.arguments
            seen: list[Sample] = []
            done = await way.transcribe(FileTask("large", "en"), seen.append)
            assert done.answer == FileAnswer("en text", 2, {"model": 0.5})
            assert done.samples == tuple(seen)
            assert done.samples[-1].done_s == 12.5
            assert done.peak_rss_bytes - way.idle_rss_bytes > 0.9 * HELD_BYTES
            assert 0 <= done.cpu_s <= 1 and done.wall_s > 0
            with pytest.raises(WayFailedError, match="test: ValueError: no such file"):
                await way.transcribe(FileTask("broken", "en"))

    asyncio.run(scenario())


def test_a_way_that_cannot_start_is_named() -> None:
    async def scenario() -> None:
        async with way_process("gone", ("bench.no_such_module",), OPTIONS):
            pass

    with pytest.raises(WayFailedError, match="gone: its process ended"):
        asyncio.run(scenario())


def test_memory_over_time_in_a_few_rows() -> None:
    samples = [Sample(float(n), 10.0 * n, 1_000 + (500 if n == 3 else n)) for n in range(10)]
    assert stretches(samples, 1_000, rows=3) == (
        Stretch(3.0, 30.0, 500),
        Stretch(7.0, 70.0, 7),
        Stretch(9.0, 90.0, 9),
    )


@pytest.mark.parametrize(
    ("peak_bytes", "heard", "n_faults"),
    [
        (MAX_ABOVE_IDLE_BYTES, 90, 0),
        (MAX_ABOVE_IDLE_BYTES + 1, 90, 1),
        (MAX_ABOVE_IDLE_BYTES, 110, 0),
        (MAX_ABOVE_IDLE_BYTES, 89, 1),
        (MAX_ABOVE_IDLE_BYTES + 1, 111, 2),
    ],
)
def test_faults_of_a_soak_at_their_limits(peak_bytes: int, heard: int, n_faults: int) -> None:
    use = FileUse(600.0, 9.0, 9.0, 100, heard, (Stretch(1.0, 2.0, 3), Stretch(4.0, 5.0, peak_bytes)))
    assert len(faults([use])) == n_faults


@pytest.mark.parametrize("hours", ["0.01", "10.1"])
def test_hours_out_of_range_are_refused(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--hours", hours]) == 2
    assert "--hours" in capsys.readouterr().err


if __name__ == "__main__":
    serve(_load)
