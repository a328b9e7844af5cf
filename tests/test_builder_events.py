"""The diary as the user reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.clock import SystemClock
from builder.errors import UsageError
from builder.money.events import since_s
from builder.state import State
from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock

NOW_S = 1_767_225_600.0


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("7d", 604_800),
        ("1w", 604_800),
        ("2026-01-01", 0),
        ("2025-12-31T23:00:00Z", 3600),
        ("2026-01-01T01:00:00+02:00", 3600),
    ],
)
def test_since_takes_spans_and_instants(text: str, ago_s: float) -> None:
    assert since_s(text, NOW_S) == NOW_S - ago_s


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "yesterday", "2026-13-01", "2h30m", "1e3s"])
def test_since_names_what_is_legal(text: str) -> None:
    with pytest.raises(UsageError, match="legal: a span such as 30m"):
        since_s(text, NOW_S)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    state = State(tmp_path / "artifacts")
    state.event(NOW_S - 7200, "created", "pod", "p1", cost_per_hour=0.5)
    state.event(NOW_S - 60, "pushed", "image", "you/whisper:1")
    state.event(NOW_S - 30, "stopped", "pod", "p1", by="guard")
    with (tmp_path / "artifacts" / "events.jsonl").open("a") as diary:
        diary.write("damaged\n")
    return Cli({}, tmp_path, PlaneClock(NOW_S))


def test_events_are_shown_without_a_key(cli: Cli) -> None:
    outcome = cli.run("events")
    assert outcome.code == 0, outcome.err
    assert [line.split()[1] for line in outcome.out.splitlines()[1:]] == ["created", "pushed", "stopped"]
    assert "by guard" in outcome.out


def test_events_are_picked_by_time_and_pod(cli: Cli) -> None:
    document = cli.run("events", "--since", "1h", "--pod", "p1", "--json").document
    assert [event["action"] for event in document["events"]] == ["stopped"]
    assert cli.run("events", "--since", "10s").out == "No events.\n"
    assert cli.run("events", "--since", "soon").code == 2


def test_no_diary_is_no_error(tmp_path: Path) -> None:
    assert Cli({}, tmp_path, SystemClock()).run("events", "--json").document == {"events": []}
