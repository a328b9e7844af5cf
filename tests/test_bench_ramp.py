"""bench.search and bench.ramp: the largest size, found with few runs."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.load import LoadResult
from bench.measure import MAX_OWN_LATENESS_S, Spread, Summary, summarise
from bench.ramp import LIMIT_S, Ramp, holds_final, holds_shown, main, print_ramp, ramp, step_line
from bench.search import RESOLUTION, Search
from bench.server_metrics import Ledger


def found(most: int, limit: int = 256, start: int = 4) -> tuple[int, list[int]]:
    search, tried = Search(limit, start), list[int]()
    while (number := search.next()) is not None:
        tried.append(number)
        search.take(number, number <= most)
    return search.best, tried


def test_doubling_then_halving() -> None:
    assert found(11) == (11, [4, 8, 16, 12, 10, 11])
    assert found(3) == (3, [4, 2, 3])
    assert found(1) == (1, [4, 2, 1])
    assert found(0) == (0, [4, 2, 1])


def test_the_limit_is_tried_and_not_passed() -> None:
    assert found(1_000, limit=10) == (10, [4, 8, 10])
    assert found(1_000, limit=2) == (2, [2])


@given(st.integers(0, 256), st.integers(1, 16))
def test_what_is_found_held_and_is_close(most: int, start: int) -> None:
    best, tried = found(most, start=start)
    assert best <= most
    assert most - best <= RESOLUTION * best
    assert len(tried) == len(set(tried)) <= 16
    assert best == 0 or best in tried


BASE = summarise([])


def result(
    shown_s: float = 1.0, final_s: float = 1.0, *, lateness_s: float = 0.0, ledger: Ledger | None = None, **more: object
) -> LoadResult:
    summary = replace(
        BASE,
        shown=Spread(10, 0.5, shown_s, shown_s),
        final=Spread(10, 0.5, final_s, final_s),
        own_lateness_s=lateness_s,
    )
    summary = replace(summary, **more)  # type: ignore[arg-type]
    return LoadResult(summary, (), 10.0, 0.05, None, None, ledger)


def test_the_limit_of_latency_holds_and_more_does_not() -> None:
    assert holds_shown(result(LIMIT_S, 9.0))
    assert not holds_shown(result(LIMIT_S + 0.001))
    assert holds_final(result(9.0, LIMIT_S))
    assert not holds_final(result(1.0, LIMIT_S + 0.001))


@pytest.mark.parametrize(("share", "holds"), [(0.99, True), (0.9899, False)])
def test_the_limit_of_coverage(share: float, holds: bool) -> None:
    assert holds_shown(result(coverage_shown=share, coverage_final=0.0)) is holds
    assert holds_final(result(coverage_final=share, coverage_shown=0.0)) is holds


@pytest.mark.parametrize(("gap", "holds"), [(None, True), (-0.5, True), (0.01, True), (0.0101, False)])
def test_the_limit_of_word_errors(gap: float | None, holds: bool) -> None:
    assert holds_shown(result(wer_gap=gap)) is holds
    assert holds_final(result(wer_gap=gap)) is holds


def test_no_words_and_broken_streams_never_hold() -> None:
    assert not holds_shown(result(shown=Spread(0, None, None, None)))
    assert not holds_shown(result(broken=1))
    assert not holds_final(result(broken=1))


def test_nothing_may_be_lost_or_changed() -> None:
    assert holds_final(result(ledger=Ledger(100, 60, 40, 0, 0, 0)))
    assert not holds_final(result(ledger=Ledger(100, 60, 39, 1, 0, 0)))
    assert not holds_final(result(mutated=1))
    assert holds_shown(result(mutated=1, ledger=Ledger(100, 60, 39, 1, 0, 0)))


def make_ramp(run: Callable[[int], LoadResult], limit: int = 64) -> tuple[Ramp, list[int]]:
    runs: list[int] = []

    async def once(clients: int) -> LoadResult:
        runs.append(clients)
        return run(clients)

    return asyncio.run(ramp("server", once, limit=limit)), runs


def test_both_criteria_are_judged_on_the_same_runs() -> None:
    made, runs = make_ramp(lambda n: result(shown_s=1.9 if n <= 20 else 2.1, final_s=1.9 if n <= 6 else 2.1))
    assert made.best == {"shown": 20, "final": 6}
    assert made.note is None
    assert runs == [4, 8, 16, 32, 24, 20, 22, 21, 6, 7]
    assert [step.clients for step in made.steps] == sorted(runs)


def test_nothing_holds_anywhere() -> None:
    made, _ = make_ramp(lambda n: result(shown_s=5.0, final_s=1.0))
    assert made.best == {"shown": 0, "final": 64}


def test_a_late_driver_gets_one_more_run() -> None:
    late = iter([True, False])
    made, runs = make_ramp(lambda n: result(lateness_s=1.0 if n == 8 and next(late) else 0.0), limit=8)
    assert runs == [4, 8, 8]
    assert (made.best["shown"], made.note) == (8, None)


def test_a_driver_late_twice_bounds_the_ramp_and_says_so() -> None:
    made, runs = make_ramp(lambda n: result(lateness_s=MAX_OWN_LATENESS_S + 0.001 if n > 10 else MAX_OWN_LATENESS_S))
    assert made.best == {"shown": 10, "final": 10}
    assert runs == [4, 8, 16, 16, 12, 12, 10, 11, 11]
    assert made.note == "Driver-bound: the driver was late at 11, 12, 16 streams."
    assert next(step for step in made.steps if step.clients == 16).result is None


def test_a_ramp_as_a_document_and_as_a_table() -> None:
    made, _ = make_ramp(lambda n: result(1.9 if n <= 4 else 2.1, lateness_s=1.0 if n == 8 else 0.0), limit=8)
    document = made.as_results()
    assert document["best"] == {"shown": 4, "final": 7}
    assert [(step["clients"], step["holds"]) for step in document["steps"]] == [
        (4, {"shown": True, "final": True}),
        (5, {"shown": False, "final": True}),
        (6, {"shown": False, "final": True}),
        (7, {"shown": False, "final": True}),
        (8, {}),
    ]
    assert document["steps"][-1]["run"] is None
    assert document["steps"][0]["run"]["summary"]["shown"]["p95_s"] == 1.9
    assert step_line("server", made.steps[1]) == "server: 5 streams, holds: final"
    assert step_line("server", made.steps[-1]) == "server: 8 streams, the driver was late"
    text = io.StringIO()
    print_ramp(made, Console(file=text, width=80))
    assert any(line.split()[:2] == ["8", "void"] for line in text.getvalue().splitlines())
    assert "…" not in text.getvalue(), "it fits into a usual terminal"
    assert "shown 4" in text.getvalue()


@pytest.mark.parametrize(
    ("line", "text"), [("--limit 0", "1 to 1000"), ("--start 0", "--start"), ("--seconds -1", "0")]
)
def test_refusals_are_one_line(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert text in capsys.readouterr().err


def test_the_empty_summary_is_void() -> None:
    assert isinstance(BASE, Summary)
    assert BASE.void_because == ("no stream was run",)
