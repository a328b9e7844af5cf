"""Measuring an engine: on a modelled one in virtual time, and for real on the CPU with a tiny model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.costs import Cost
from bench.gpu import data_sheet, main
from bench.gpu_runs import BatchPoint, TickRun, find_streams, measure_batches, run_ticks
from bench.random_model import NANO, RANDOM_SIZES, count_gpus, make_model
from bench.random_model import main as make_model_main
from bench.roofline import GPUS
from bench.virtual.loop import LoopClock, run_virtual
from engine.batching import batch_key
from engine.errors import EngineMemoryError
from engine.service import EngineService
from engine.types import FRAMES_PER_SECOND, BatchResult, ModelInfo, WindowJob, WindowResult
from tests.fakes.backend import FakeBackend

WINDOW_S = 0.02
"""What each window costs the engine below."""
BATCH_S = 0.01


class TimedBackend(FakeBackend):
    """Says nothing, and takes a fixed time per batch and per window; up to `room` windows fit."""

    def __init__(self, room: int = 1_000) -> None:
        super().__init__()
        self.info = ModelInfo("timed", 80, ("en",), "cuda", "float16", pad_frames=1_000, tail_frames=300)
        self.room = room
        self.sizes: list[int] = []

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        assert len({batch_key(job, self.info) for job in jobs}) == 1
        if len(jobs) > self.room:
            raise EngineMemoryError("full")
        self.sizes.append(len(jobs))
        cost = Cost(BATCH_S, 0.5 * WINDOW_S * len(jobs), 0.3 * WINDOW_S * len(jobs), 0.2 * WINDOW_S * len(jobs))
        await asyncio.sleep(cost.total_s)
        results = tuple(WindowResult((), "en", (), 0.0, 0.0, 0.0) for _ in jobs)
        return BatchResult(results, 1_000 * len(jobs), 300, 25 * len(jobs), cost.encode_s, cost.decode_s, cost.align_s)


def test_batches_are_measured_as_they_are() -> None:
    async def measure(backend: TimedBackend) -> list[BatchPoint]:
        clock = LoopClock(asyncio.get_running_loop())
        return await measure_batches(backend, backend.info, clock, (1, 4), repeats=3)

    points = run_virtual(measure(TimedBackend()))
    assert [(point.n_windows, point.beam_size) for point in points] == [(1, 1), (4, 1), (1, 5), (4, 5)]
    for point in points:
        assert (point.frames, point.steps) == (1_000, 26)
        assert point.host_s == pytest.approx(BATCH_S)
        assert point.encode_s == pytest.approx(0.5 * WINDOW_S * point.n_windows)
        assert point.total_s == pytest.approx(BATCH_S + WINDOW_S * point.n_windows)


def test_sizes_that_do_not_fit_are_left_out() -> None:
    async def measure(backend: TimedBackend) -> list[BatchPoint]:
        clock = LoopClock(asyncio.get_running_loop())
        return await measure_batches(backend, backend.info, clock, (1, 2, 3, 4), repeats=1)

    points = run_virtual(measure(TimedBackend(room=2)))
    assert [point.n_windows for point in points] == [1, 2, 1, 2]


def test_streams_each_get_one_answer_per_second() -> None:
    async def run() -> TickRun:
        clock = LoopClock(asyncio.get_running_loop())
        service = EngineService(TimedBackend(), clock)
        service.start()
        found = await run_ticks(service, clock, n_streams=5, n_ticks=4)
        await service.stop()
        return found

    found = run_virtual(run())
    assert (found.streams, found.answers, found.superseded) == (5, 20, 0)
    assert found.p95_s == pytest.approx(BATCH_S + WINDOW_S)
    assert found.keeps_up


@pytest.mark.parametrize("first", [1, 30, 200])
def test_the_largest_number_of_streams_is_found_from_anywhere(first: int) -> None:
    async def run() -> list[TickRun]:
        clock = LoopClock(asyncio.get_running_loop())
        service = EngineService(TimedBackend(), clock)
        service.start()
        runs = await find_streams(service, clock, first, at_most=500, n_ticks=5)
        await service.stop()
        return runs

    # 32 windows take 0.65 s, so one second holds 49 of them.
    best = max(run.streams for run in run_virtual(run()) if run.keeps_up)
    assert 40 <= best <= 52


def test_the_search_ends_at_its_bound() -> None:
    async def run(at_most: int) -> list[TickRun]:
        clock = LoopClock(asyncio.get_running_loop())
        service = EngineService(TimedBackend(), clock)
        service.start()
        runs = await find_streams(service, clock, 100, at_most, n_ticks=2)
        await service.stop()
        return runs

    assert [run.streams for run in run_virtual(run(4))] == [4]


def test_falling_behind_is_not_keeping_up() -> None:
    assert TickRun(1, 10, 0, 0.5, 1.0).keeps_up
    assert not TickRun(1, 10, 0, 0.5, 1.01).keeps_up
    assert not TickRun(1, 10, 1, 0.5, 0.9).keeps_up
    assert not TickRun(1, 0, 0, 0.0, 0.0).keeps_up


# Random models


def test_vocabularies_have_the_published_sizes() -> None:
    for name, entries in (("small", 51_865), ("large-v3-turbo", 51_866)):
        size = RANDOM_SIZES[name]
        n_specials = 2 + len(size.languages) + 6
        assert size.n_text + n_specials + 1_501 == entries
    assert RANDOM_SIZES["large-v3-turbo"].languages[-1] == "yue"


def test_a_made_model_is_whole_and_the_same_every_time(tmp_path: Path) -> None:
    make_model(tmp_path / "a", RANDOM_SIZES[NANO], n_script=5, seed=7)
    assert make_model_main([NANO, str(tmp_path / "b"), "--tokens", "5"]) == 0
    make_model(tmp_path / "c", RANDOM_SIZES[NANO], n_script=5, seed=7)
    names = {"model.bin", "config.json", "vocabulary.json", "tokenizer.json", "preprocessor_config.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    weights = {folder: (tmp_path / folder / "model.bin").read_bytes() for folder in "abc"}
    assert weights["a"] == weights["c"] != weights["b"]


# The command


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-PCIE-40GB", None),
        ("NVIDIA L40", None),
        ("unknown GPU", None),
    ],
)
def test_cards_are_known_by_the_names_of_their_drivers(name: str, known: str | None) -> None:
    assert data_sheet(name) is (GPUS[known] if known else None)


def test_without_a_gpu_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    if count_gpus():
        pytest.skip("there is a GPU here")
    assert main([]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


def test_on_a_cpu_the_command_measures_and_says_that_it_is_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cpu.json"
    quick = ["--sizes", "1,2", "--repeats", "1", "--windows", "4", "--ticks", "1", "--max-streams", "2"]
    assert main(["--device", "cpu", *quick, "--output", str(path)]) == 0
    printed = capsys.readouterr()
    assert "tells nothing about a GPU" in printed.err
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["kind"] == "gpu-command-on-a-cpu"
    rows = written["results"]["batches"]
    assert [(row["n_windows"], row["beam_size"]) for row in rows] == [(1, 1), (2, 1), (1, 5), (2, 5)]
    # The scripted text: 25 tokens and its end, whatever the batch and the beam.
    assert {row["steps"] for row in rows} == {26}
    assert {row["frames"] for row in rows} == {4 * FRAMES_PER_SECOND}
    assert all(row["encode_s"] > 0 and row["decode_s"] > 0 and row["limit_share"] is None for row in rows)
    [streams] = written["results"]["streams"]
    assert all(np.isfinite(run["p95_s"]) for run in streams["runs"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--windows", "3.9"],
        ["--windows", "30.1"],
        ["--sizes", "0"],
        ["--sizes", "257"],
        ["--models", "huge"],
        ["--max-streams", "2001"],
    ],
)
def test_limits_of_the_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", *arguments]) == 2
    assert arguments[0] in capsys.readouterr().err
