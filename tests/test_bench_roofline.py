"""The physical limit: published rows, and that it behaves like a limit."""

from __future__ import annotations

import pytest

from bench.roofline import (
    GPUS,
    LAUNCH_S,
    SHAPES,
    file_speed,
    item_bytes,
    main,
    max_streams,
    tick_s,
    weight_bytes,
    window_cost,
)


@pytest.mark.parametrize(
    ("model", "gflop_30_s", "gflop_10_s", "step_mb", "cross_mb"),
    [
        ("tiny", 37, 9, 56, 9),
        ("base", 87, 23, 97, 18),
        ("small", 344, 96, 278, 55),
        ("medium", 1138, 330, 811, 147),
        ("large-v3-turbo", 2274, 676, 316, 31),
        ("large-v3", 2274, 676, 1601, 246),
    ],
)
def test_costs_of_a_window(model: str, gflop_30_s: int, gflop_10_s: int, step_mb: int, cross_mb: int) -> None:
    cost, short = window_cost(SHAPES[model], 30), window_cost(SHAPES[model], 10)
    assert round(cost.encoder_flops / 1e9) == gflop_30_s
    assert round(short.encoder_flops / 1e9) == gflop_10_s
    assert round(cost.step_weight_bytes / 1e6) == step_mb
    assert round(cost.step_cross_bytes / 1e6) == cross_mb
    assert short.step_cross_bytes == pytest.approx(cost.step_cross_bytes / 3)
    assert short.score_bytes == pytest.approx(cost.score_bytes / 9)


@pytest.mark.parametrize(
    ("gpu", "model", "window_s", "ideal", "ct2"),
    [
        ("RTX3090", "small", 30, 157, 108),
        ("RTX4090", "small", 10, 1055, 798),
        ("L40S", "large-v3-turbo", 30, 144, 49),
        ("L40S", "large-v3-turbo", 10, 478, 278),
        ("H100", "large-v3-turbo", 30, 403, 168),
        ("H100", "large-v3-turbo", 10, 1345, 884),
        ("H200", "large-v3", 30, 294, 165),
    ],
)
def test_streams_per_gpu(gpu: str, model: str, window_s: float, ideal: int, ct2: int) -> None:
    shape, card = SHAPES[model], GPUS[gpu]
    assert round(max_streams(shape, card, window_s, 15)) == ideal
    assert round(max_streams(shape, card, window_s, 15, launch_s=LAUNCH_S, fused=False)) == ct2


def test_speed_of_recordings() -> None:
    turbo = SHAPES["large-v3-turbo"]
    assert round(file_speed(turbo, GPUS["RTX3090"], launch_s=LAUNCH_S, fused=False)) == 582
    assert round(file_speed(turbo, GPUS["H100"])) == 8119


def test_the_limit_is_where_the_tick_is_full() -> None:
    shape, gpu = SHAPES["large-v3-turbo"], GPUS["L40S"]
    limit = max_streams(shape, gpu, 10, 15, every_s=0.5, launch_s=LAUNCH_S, fused=False)
    assert tick_s(limit, shape, gpu, 10, 15, launch_s=LAUNCH_S, fused=False) == pytest.approx(0.5)
    # 600 steps of large-v3 on an L4 read weights for longer than a second: no stream at all.
    assert max_streams(SHAPES["large-v3"], GPUS["L4"], 30, 600) == 0.0


@pytest.mark.parametrize(
    ("model", "mb_30_s", "mb_10_s"),
    [("small", 181, 36), ("medium", 317, 73), ("large-v3-turbo", 242, 40), ("large-v3", 457, 112)],
)
def test_memory_of_a_window(model: str, mb_30_s: int, mb_10_s: int) -> None:
    assert item_bytes(SHAPES[model], 30) / 1e6 == pytest.approx(mb_30_s, abs=1)
    assert item_bytes(SHAPES[model], 10) / 1e6 == pytest.approx(mb_10_s, abs=1)


def test_memory_of_the_weights() -> None:
    assert weight_bytes(SHAPES["small"]) / 1e9 == pytest.approx(0.48, abs=0.02)
    assert weight_bytes(SHAPES["large-v3-turbo"]) / 1e9 == pytest.approx(1.61, abs=0.05)
    assert weight_bytes(SHAPES["large-v3"]) / 1e9 == pytest.approx(3.1, abs=0.1)


def test_the_tables_name_every_model_and_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "15"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*SHAPES, *GPUS))
    assert "478 / 278" in printed
    assert "not measured" in printed


@pytest.mark.parametrize("arguments", [["--steps", "0"], ["--tick", "0"]])
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
