"""bench.resources: trees of processes, read from a made-up /proc and from the real one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.resources import PROC, ResourceUse, TreeState, TreeWatch, parse_stat, read_tree, watch_tree

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stat_line(pid: int, parent: int, ticks: tuple[int, int, int, int] = (0, 0, 0, 0), threads: int = 1) -> str:
    fields = ["S", str(parent), *["0"] * 9, *map(str, ticks), "20", "0", str(threads), "0", "100", "5000", "7"]
    return f"{pid} (a (b) c) {' '.join(fields)} 18446744073709551615 1\n"


def make_proc(folder: Path, *lines: str) -> Path:
    for line in lines:
        place = folder / line.split()[0]
        place.mkdir()
        (place / "stat").write_text(line)
    (folder / "self").mkdir()
    (folder / "99").mkdir()
    return folder


def test_a_line_with_brackets_in_its_name() -> None:
    state = parse_stat(stat_line(5, 2, (TICKS, 2 * TICKS, 3 * TICKS, 4 * TICKS), threads=6))
    assert (state.pid, state.parent, state.threads) == (5, 2, 6)
    assert state.cpu_s == pytest.approx(10.0)
    assert state.rss_bytes == 7 * PAGE


@pytest.mark.parametrize("line", ["", "1 name S 0", "1 (name) S 0 0", "x (name) " + "0 " * 40])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"stat|invalid literal"):
        parse_stat(line)


def test_a_tree_is_all_descendants_each_once(tmp_path: Path) -> None:
    proc = make_proc(
        tmp_path,
        stat_line(1, 0, (TICKS, 0, 0, 0)),
        stat_line(10, 1, (TICKS, 0, 0, 0), threads=2),
        stat_line(11, 10, (0, TICKS, 0, TICKS), threads=3),
        stat_line(12, 11),
        stat_line(20, 1, (TICKS, 0, 0, 0)),
    )
    assert read_tree([10], proc) == TreeState(3, 3.0, 6, 21 * PAGE)
    assert read_tree([10, 11, 777], proc) == read_tree([10], proc)
    assert read_tree([777], proc) is None
    assert read_tree([], proc) is None


def test_use_is_what_came_between_the_first_and_the_last_sample() -> None:
    watch = TreeWatch()
    assert watch.use is None
    for now_s, state in ((1.0, TreeState(2, 5.0, 3, 100)), (2.0, TreeState(3, 6.0, 9, 300)), (5.0, None)):
        watch.take(now_s, state)
    watch.take(4.0, TreeState(2, 7.5, 4, 200))
    use = watch.use
    assert use == ResourceUse(3.0, 2.5, 300, 9)
    assert use is not None
    assert use.cores == pytest.approx(2.5 / 3)
    assert ResourceUse(0.0, 0.0, 1, 1).cores == 0.0


def test_this_machine_and_a_child_that_ended() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))']); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            # The grandchild's time is the child's once it has been waited for.
            while (PROC / str(process.pid) / "task" / str(process.pid) / "children").read_text().strip():
                os.sched_yield()
            state = read_tree([os.getpid()])
        finally:
            process.communicate(b"\n")
    assert state is not None
    assert state.processes >= 2
    assert state.rss_bytes > 10 * 2**20


def test_watching_takes_a_sample_at_each_end() -> None:
    async def main() -> tuple[ResourceUse | None, ResourceUse | None]:
        async with watch_tree([os.getpid()]) as watch, watch_tree([]) as nothing:
            sum(range(2_000_000))
        return watch.use, nothing.use

    use, nothing = asyncio.run(main())
    assert use is not None
    assert use.wall_s > 0
    assert use.cpu_s >= 0
    assert nothing is None
