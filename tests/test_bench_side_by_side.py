"""bench.side_by_side: ratios that are neither flattering nor made of nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.load import LoadResult
from bench.measure import summarise
from bench.ramp import Ramp, Step
from bench.resources import ResourceUse
from bench.side_by_side import CPU_CLIENTS, Ratio, compare, contenders, main


def ramp(name: str, shown: int, final: int, cpu_s: float | None = None) -> Ramp:
    """A ramp with one step of 100 s of audio."""
    summary = replace(summarise([]), audio_s=100.0)
    use = None if cpu_s is None else ResourceUse(50.0, cpu_s, 1, 1)
    result = LoadResult(summary, (), 50.0, 0.1, use, None, None)
    return Ramp(name, {"shown": shown, "final": final}, (Step(CPU_CLIENTS, result, {}),), None)


def test_ours_is_divided_by_the_best_of_the_peers_measure_by_measure() -> None:
    shown, final, cpu = compare(ramp("ours", 40, 24, 2.0), [ramp("lock", 5, 3, 20.0), ramp("batch", 4, 6, 9.0)])
    assert shown == Ratio("streams, shown", 40, 5, "lock", 8.0)
    assert final == Ratio("streams, final", 24, 6, "batch", 4.0)
    assert (cpu.ours, cpu.peers, cpu.peer) == (0.02, 0.09, "batch")
    assert cpu.ratio == pytest.approx(4.5)


def test_a_peer_that_bears_nothing_gives_no_ratio() -> None:
    _, final, _ = compare(ramp("ours", 40, 24), [ramp("lock", 5, 0), ramp("batch", 4, 0)])
    assert (final.ours, final.peers, final.ratio) == (24, 0, None)


def test_without_a_peer_or_without_its_processes_there_is_no_ratio() -> None:
    assert [(ratio.peers, ratio.ratio) for ratio in compare(ramp("ours", 4, 4, 1.0), [])] == [(None, None)] * 3
    assert compare(ramp("ours", 4, 4, None), [ramp("lock", 4, 4, 1.0)])[2].ratio is None


def test_cpu_is_that_of_the_step_of_four_streams() -> None:
    other = ramp("ours", 40, 24, 2.0)
    late = Ramp("late", {"shown": 1, "final": 1}, (Step(CPU_CLIENTS, None, {}),), "Driver-bound")
    assert compare(other, [late])[2].peers is None


def test_all_contenders_have_different_names_and_ours_is_first() -> None:
    servers = contenders((1, 2, 10))
    assert len({server.name for server in servers}) == len(servers) == 7
    assert servers[0].linger_s == 0
    assert [server.options["same_output_threshold"] for server in servers[1:]] == [1, 2, 10, 1, 2, 10]
    assert all(server.linger_s >= 15 for server in servers[1:])


@pytest.mark.parametrize(
    ("line", "text"), [("--limit 3", "4 to 1000"), ("--seconds 0", "1 to"), ("--drivers 65", "64")]
)
def test_refusals_are_one_line(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
