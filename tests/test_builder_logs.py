"""A log across connections that drop: the scripted server counts time, and several lines share an id."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.api.models import LogEvent
from builder.errors import NetworkError, NotFoundError, UsageError
from builder.pods.log_follow import MAX_DROPS, LogQuery, follow, read_since
from tests.builder_pods import Bench, pod_bench
from tests.fakes.runpod.clock import PlaneClock


def event(number: int, id_: str | None = None, line: str | None = None) -> LogEvent:
    ts = f"2026-06-01T12:00:{number:02d}Z"
    return LogEvent(id=id_ or f"{ts}/{number:012d}", ts=ts, source="container", line=line or f"line {number}")


class Server:
    """A log that is complete from the beginning; a connection breaks or ends after so many events."""

    def __init__(self, events: list[LogEvent], breaks: list[int | None], *, inclusive: bool = False) -> None:
        self.events, self.breaks, self.inclusive = events, breaks, inclusive
        self.asked: list[str | None] = []

    def connect(self, query: LogQuery, resume_id: str | None, idle_s: float) -> Iterator[LogEvent]:
        self.asked.append(resume_id)
        after = self.breaks.pop(0) if self.breaks else None
        first = 0 if resume_id is None else self._place(resume_id)
        for sent, each in enumerate(self.events[first:]):
            if after is not None and sent >= after:
                raise NetworkError("the connection broke")
            yield each
        if after == 0:
            raise NetworkError("the connection broke at once")

    def _place(self, resume_id: str) -> int:
        ids = [each.id for each in self.events]
        return ids.index(resume_id) if self.inclusive else len(ids) - ids[::-1].index(resume_id)


def read(
    connect: Callable[[LogQuery, str | None, float], Iterator[LogEvent]],
    query: LogQuery | None = None,
    *,
    is_endless: bool = False,
    runs: int = 0,
) -> list[str]:
    left = iter([True] * runs)
    found = follow(
        connect,
        query or LogQuery(),
        clock=PlaneClock(0.0),
        is_endless=is_endless,
        still_runs=lambda: next(left, False),
        note=lambda text: None,
        source=random.Random(1),
    )
    return [each.line for each in found]


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_no_line_twice_and_none_lost_wherever_it_drops(seed: int, inclusive: bool) -> None:
    source = random.Random(seed)
    # Two or three lines share each id; some are equal to the letter.
    events = [event(n, f"T{n // 3:03d}", f"line {n % 5}") for n in range(60)]
    server = Server(events, [source.randint(7, 12) for _ in range(30)], inclusive=inclusive)
    assert read(server.connect, is_endless=True) == [each.line for each in events]


def test_it_resumes_and_does_not_begin_again() -> None:
    events = [event(n) for n in range(20)]
    server = Server(events, [8, None])
    assert read(server.connect) == [each.line for each in events]
    assert server.asked == [None, events[6].id]


def test_connections_that_bring_nothing_end_the_follow() -> None:
    server = Server([], [0] * 100)
    with pytest.raises(NetworkError, match=f"{MAX_DROPS} times in a row"):
        read(server.connect, is_endless=True)
    assert len(server.asked) == MAX_DROPS


def test_a_quiet_pod_is_followed_as_long_as_it_runs() -> None:
    server = Server([event(1)], [])
    assert read(server.connect, is_endless=True, runs=40) == ["line 1"]
    assert len(server.asked) == 41


def test_history_ends_with_the_lines_asked_for_without_waiting_for_silence() -> None:
    def connect(query: LogQuery, resume_id: str | None, idle_s: float) -> Iterator[LogEvent]:
        yield from (event(n) for n in range(3))
        pytest.fail("it waits for more")

    assert read(connect, LogQuery(tail=3)) == ["line 0", "line 1", "line 2"]


def test_other_errors_come_through() -> None:
    def connect(query: LogQuery, resume_id: str | None, idle_s: float) -> Iterator[LogEvent]:
        raise NotFoundError("no such pod")

    with pytest.raises(NotFoundError):
        read(connect)


def test_grep_is_without_regard_to_case_and_filters_what_is_shown_alone() -> None:
    server = Server([event(1, line="ERROR one"), event(2, line="fine"), event(3, line="an error")], [2, None])
    assert read(server.connect, LogQuery(grep="Error")) == ["ERROR one", "an error"]


def test_since_takes_an_instant_or_a_time_ago() -> None:
    now_s = 1_790_000_000.0
    assert read_since(None, now_s) is None
    assert read_since("15m", now_s) == "2026-09-21T13:58:20Z"
    assert read_since("2026-01-31T12:00:00+01:00", now_s) == "2026-01-31T11:00:00Z"
    with pytest.raises(UsageError, match="--since"):
        read_since("yesterday", now_s)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pod_bench(tmp_path) as made:
        yield made
        made.plane.assert_contract()


def fill(bench: Bench, lines: int = 30) -> str:
    pod = bench.add_running()
    pod.lines.clear()
    for number in range(lines):
        bench.plane.pods.log(pod.id, "container" if number % 3 else "system", f"line {number}")
    return pod.id


def test_the_verb_prints_the_tail_of_both_logs_or_of_one(bench: Bench) -> None:
    fill(bench)
    outcome = bench.cli.run("logs", "--tail", "4")
    assert outcome.code == 0
    assert [line.split(maxsplit=2)[1:] for line in outcome.out.splitlines()] == [
        ["container", "line 26"],
        ["system", "line 27"],
        ["container", "line 28"],
        ["container", "line 29"],
    ]
    system = bench.cli.run("logs", "--source", "system", "--tail", "2", "--json").out.splitlines()
    assert [json.loads(line)["line"] for line in system] == ["line 24", "line 27"]
    assert bench.cli.run("logs", "--tail", "5001").code == 2


def test_the_verb_resumes_after_drops_with_no_line_twice_and_none_lost(bench: Bench) -> None:
    fill(bench)
    bench.plane.faults.cut_logs(7, times=4)
    outcome = bench.cli.run("logs", "--json")
    lines = [json.loads(line)["line"] for line in outcome.out.splitlines()]
    assert outcome.code == 0 and lines == [f"line {number}" for number in range(30)]
    assert "Last-Event-ID" in bench.plane.requests("GET /v2/pods/{id}/logs")[1].headers


def test_a_follow_goes_on_until_the_pod_stops(bench: Bench) -> None:
    pod_id = fill(bench, 3)
    sleep, left = bench.clock.sleep, [3]

    def living(seconds: float) -> None:
        left[0] -= 1
        if left[0] == 0:
            bench.plane.pods.act(pod_id, "stop")
        else:
            bench.plane.pods.log(pod_id, "container", f"more {left[0]}")
        sleep(seconds)

    bench.clock.sleep = living  # type: ignore[method-assign]
    outcome = bench.cli.run("logs", "--follow", "--json")
    lines = [json.loads(line)["line"] for line in outcome.out.splitlines()]
    assert outcome.code == 0 and "its log ends here" in outcome.err
    assert lines[:5] == ["line 0", "line 1", "line 2", "more 2", "more 1"]
    assert len(lines) == len(set(lines))


def test_grep_and_since_reach_the_verb(bench: Bench) -> None:
    pod_id = fill(bench, 5)
    bench.clock.advance(3600)
    bench.plane.pods.log(pod_id, "container", "an ERROR of today")
    assert len(bench.cli.run("logs", "--since", "10m").out.splitlines()) == 1
    assert "ERROR" in bench.cli.run("logs", "--grep", "error").out
    assert bench.cli.run("logs", "--since", "yesterday").code == 2


def test_no_logs_of_an_unknown_pod(bench: Bench) -> None:
    assert bench.cli.run("logs", "nosuchpod", "--json").code == 3


def test_explain_reads_a_text_a_file_standard_input_and_a_pod(bench: Bench, tmp_path: Path) -> None:
    said = bench.cli.run("explain", "manifest unknown", "--json")
    assert said.code == 0 and said.document["kind"] == "IMAGE" and said.document["confidence"] == "high"
    file = tmp_path / "pod.log"
    file.write_text("fine\nRuntimeError: CUDA failed with error out of memory\n", encoding="utf-8")
    assert bench.cli.run("explain", str(file), "--json").document["kind"] == "GPU_MEMORY"
    typed = bench.cli.run("explain", "-", "--json", answers="no space left on device\n")
    assert typed.document["kind"] == "DISK"
    pod_id = fill(bench)
    assert bench.cli.run("explain", "--pod", pod_id, "--json").code == 1
    bench.plane.pods.log(pod_id, "container", "ModuleNotFoundError: No module named 'engine'")
    shown = bench.cli.run("explain", "--pod", pod_id)
    assert shown.code == 0 and "is missing in the image" in shown.out and "No module named" in shown.out


def test_explain_does_not_guess(bench: Bench) -> None:
    unknown = bench.cli.run("explain", "the cat sat on the mat", "--json")
    assert unknown.code == 1 and "no known cause" in unknown.problem["error"]
    assert bench.cli.run("explain", "", "--json").code == 2
    assert bench.cli.run("explain", "x", "--pod", "y", "--json").code == 2


def test_a_drop_within_the_first_moment_loses_nothing() -> None:
    """RunPod's ids may be bare times, which lines of one moment share: then there is no id to resume from yet."""
    events = [event(n, "2026-06-01T12:00:00Z" if n < 8 else None) for n in range(12)]
    assert read(Server(events, [3, 9, None]).connect) == [each.line for each in events]
