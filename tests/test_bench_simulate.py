"""Simulated streams through the real sessions and scheduler, and the command that prints them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.costs import RooflineCosts
from bench.roofline import GPUS, SHAPES, item_bytes, weight_bytes
from bench.simulate import main, streams_at_p95
from bench.virtual.simulation import MIN_SECONDS, USABLE_MEMORY, Card, Figures, Scenario, model_info, simulate

SECONDS = MIN_SECONDS + 6
TURBO = SHAPES["large-v3-turbo"]


def card(gpu: str = "H100", efficiency: float = 0.5, memory_bytes: float | None = None) -> Card:
    data = GPUS[gpu] if memory_bytes is None else replace(GPUS[gpu], memory_bytes=memory_bytes)
    return Card(gpu, TURBO, data, RooflineCosts(TURBO, data, efficiency), model_info("large-v3-turbo", TURBO, 10.0))


@pytest.fixture(scope="module")
def light() -> Figures:
    """A card with hardly anything to do."""
    return simulate(card(), Scenario(4, SECONDS, 0.6))


@pytest.fixture(scope="module")
def heavy() -> Figures:
    """A card that cannot keep up."""
    return simulate(card("L4", efficiency=0.05), Scenario(8, SECONDS, 1.0))


def test_a_light_load_is_served_at_once(light: Figures) -> None:
    assert (light.streams, light.lost, light.doubled, light.errors) == (4, 0, 0, 0)
    assert light.words > 10
    assert light.audio_s == pytest.approx(4 * SECONDS)
    assert light.completed_p95_s is not None
    assert light.completed_p95_s < 2.0
    assert light.shown_p50_s is not None
    assert light.shown_p50_s < light.completed_p95_s
    assert 0 < light.limit_share < light.busy < 0.5
    assert light.batch_mean < 2
    assert 0 < light.padding_share < 1


def test_the_same_scenario_has_the_same_figures(light: Figures) -> None:
    again = simulate(card(), Scenario(4, SECONDS, 0.6))
    assert replace(again, cpu_ms_per_s=light.cpu_ms_per_s) == light


def test_an_overloaded_card_is_late_but_loses_no_word(light: Figures, heavy: Figures) -> None:
    assert heavy.lost == heavy.doubled == heavy.errors == 0
    assert heavy.busy > 0.9
    assert heavy.completed_p95_s is not None and light.completed_p95_s is not None
    assert heavy.completed_p95_s > light.completed_p95_s + 1.0
    assert heavy.partial_interval_s > light.partial_interval_s
    assert heavy.batch_mean > light.batch_mean
    assert light.max_streams is not None
    assert light.max_streams > 8


def test_a_card_with_little_memory_still_serves_every_word() -> None:
    # Two windows of 10 s fit, a third does not.
    room = 2.5 * item_bytes(TURBO, 10.0)
    small = card("L4", 0.1, memory_bytes=(weight_bytes(TURBO) + room) / USABLE_MEMORY)
    figures = simulate(small, Scenario(6, SECONDS, 0.6))
    assert figures.lost == figures.errors == 0
    assert figures.batch_p95 is not None
    assert figures.batch_p95 <= 2


def test_streams_at_p95_ends_at_the_first_number_that_fails(light: Figures) -> None:
    def at(streams: int, **changes: Any) -> Figures:
        return replace(light, **{"streams": streams, "completed_p95_s": 2.0, **changes})

    assert streams_at_p95([]) == 0
    assert streams_at_p95([at(64), at(16), at(128, completed_p95_s=2.01), at(256)]) == 64
    assert streams_at_p95([at(16, lost=1), at(64)]) == 0
    assert streams_at_p95([at(16), at(64, errors=1)]) == 16
    assert streams_at_p95([at(16), at(64, completed_p95_s=None)]) == 16


def test_the_command_says_that_it_simulates_and_what_it_assumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "simulated.json"
    arguments = ["--gpu", "H100", "--streams", "2", "--seconds", str(MIN_SECONDS), "--window-pad", "10"]
    assert main([*arguments, "--output", str(path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Simulated, not measured" in printed
    assert "50% of its data sheet" in printed
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written["kind"] == "simulated"
    assert len(written["conditions"]["assumptions"]) >= 5
    [section] = written["results"]["cards"]
    assert (section["gpu"], section["window_pad_s"], section["streams_at_p95"]) == ("H100", 10.0, 2)
    assert section["limit_streams"] == {"every_s": 1.0, "steps": 15, "ideal": 1345, "unfused": 884}
    assert [set(run) for run in section["runs"]] == [set(Figures.__dataclass_fields__)]


def test_without_numbers_the_command_looks_for_the_largest_that_is_served(
    light: Figures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def up_to_100(card: Card, scenario: Scenario) -> Figures:
        late_s = 1.0 if scenario.n_streams <= 100 else 3.0
        return replace(light, streams=scenario.n_streams, completed_p95_s=late_s)

    monkeypatch.setattr("bench.simulate.simulate", up_to_100)
    assert main(["--gpu", "L40S,H100", "--window-pad", "10,30", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["results"]["cards"]
    assert [(card["gpu"], card["window_pad_s"]) for card in cards] == [
        ("L40S", 10.0),
        ("L40S", 30.0),
        ("H100", 10.0),
        ("H100", 30.0),
    ]
    assert all(95 <= card["streams_at_p95"] <= 100 for card in cards)
    assert 64 in [run["streams"] for run in cards[0]["runs"]]


def test_the_command_takes_measured_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"model": "large-v3-turbo", "n_windows": n, "frames": 1_000, "steps": 26, "beam_size": beam}
        | {"host_s": 0.001, "encode_s": 0.001 * n, "decode_s": 0.01, "align_s": 0.001}
        for n in (1, 8)
        for beam in (1, 5)
    ]
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps({"results": {"batches": rows}}), encoding="utf-8")
    assert main(["--costs", str(costs), "--streams", "3", "--seconds", str(SECONDS), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert "measured" in printed["conditions"]["assumptions"][0]
    # One window: host 1 ms, encoder 1 ms, and 10 ms for 26 steps.
    [run] = printed["results"]["cards"][0]["runs"]
    assert 0 < run["final_job_p95_s"] < 0.03


@pytest.mark.parametrize(
    ("option", "legal", "illegal"),
    [
        ("--window-pad", "30", "30.1"),
        ("--speech", "1", "1.01"),
        ("--efficiency", "1", "1.01"),
        ("--streams", "1", "2001"),
        ("--gpu", "L4", "L5"),
    ],
)
def test_limits_of_the_options(option: str, legal: str, illegal: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--seconds", str(MIN_SECONDS), "--streams", "1", "--json"]
    assert main([*common, option, legal]) == 0
    assert main([*common, option, illegal]) == 2
    assert option in capsys.readouterr().err
    assert main([*common, "--seconds", str(MIN_SECONDS - 1)]) == 2
    assert main([*common, "--costs", "/nowhere.json"]) == 2
