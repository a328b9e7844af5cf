"""Feature threads: the pool, and the order of a stream's inputs around it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from engine.clock import MonotonicClock
from engine.errors import ConfigError
from realtime import features
from realtime.features import MAX_AUTO_THREADS, FeaturePool, feature_threads
from realtime.lane import AnalysisError, Lane
from tests.fakes.threads import pool_of, until

Sync = Callable[[], None]


@pytest.mark.parametrize(
    ("asked", "cores", "expected"),
    [(None, 1, 0), (None, 2, 0), (None, 3, 1), (None, 6, 4), (None, 7, MAX_AUTO_THREADS), (0, 64, 0), (64, 2, 64)],
)
def test_threads_by_cores(asked: int | None, cores: int, expected: int) -> None:
    assert feature_threads(asked, cores) == expected


def test_the_pool_runs_all_and_tells_of_failures() -> None:
    async def run() -> None:
        with pool_of(2) as pool:
            ran: list[str] = []
            told: list[BaseException | None] = []

            def fail() -> None:
                raise SystemExit("not even this ends a thread")

            for index in range(20):
                pool.submit(lambda: ran.append(threading.current_thread().name), told.append)
                if index % 5 == 0:
                    pool.submit(fail, told.append)
            await until(lambda: len(told) == 24)
            assert len(ran) == 20 and set(ran) <= {"features-0", "features-1"}
            assert sorted(type(failure).__name__ for failure in told if failure) == ["SystemExit"] * 4
            assert pool.busy_s > 0.0

    asyncio.run(run())


def test_a_pool_without_threads_has_none() -> None:
    before = threading.active_count()
    with pool_of(0) as pool:
        assert (threading.active_count(), pool.n_threads, pool.busy_s) == (before, 0, 0.0)


def test_closing_ends_the_threads_twice_over() -> None:
    before = threading.active_count()
    with pool_of(3) as pool:
        assert threading.active_count() == before + 3
        pool.close()
        assert threading.active_count() == before


def test_a_thread_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(features, "CLOSE_S", 0.05)
    release = threading.Event()

    async def run() -> None:
        with pool_of(2) as pool:
            pool.submit(lambda: cast("None", release.wait(10)), lambda failure: None)
            with caplog.at_level(logging.ERROR):
                pool.close()
        assert "1 feature threads hang" in caplog.text

    before = threading.active_count()
    asyncio.run(run())
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("features"):
            thread.join(5)
    assert threading.active_count() == before, "it ends once it is back, though its loop is closed"


def test_no_room_for_threads_is_a_setting_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if threading.active_count() >= before + 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(ConfigError, match=r"^--feature-threads: 3 threads cannot be started: can't start new thread$"):
        FeaturePool(3, MonotonicClock())
    assert threading.active_count() == before, "those that were started have ended"
    with pool_of(2) as pool:
        assert pool.n_threads == 2


class Log:
    """What a lane applied, in order."""

    def __init__(self) -> None:
        self.entries: list[Any] = []

    def apply(self, feed: Sync) -> None:
        try:
            feed()
        except AnalysisError as error:
            self.entries.append(error.__cause__)

    def note(self, entry: Any) -> Sync:
        return lambda: self.entries.append(entry)


def test_without_threads_a_lane_applies_at_once() -> None:
    with pool_of(0) as pool:
        log = Log()
        its = Lane(pool, log.apply)
        its.put(log.note(1))
        its.put_heavy(log.note(2))
        its.put(log.note(3))
        assert log.entries == [1, 2, 3] and not its.is_busy
        assert asyncio.run(its.settle(1.0))


def test_a_lane_keeps_the_order_around_its_thread() -> None:
    async def run() -> None:
        with pool_of(2) as pool:
            log = Log()
            its = Lane(pool, log.apply)
            for round_ in range(50):
                go = threading.Event()

                def heavy(go: threading.Event = go, round_: int = round_) -> None:
                    assert go.wait(5)
                    log.entries.append((round_, "heavy", threading.current_thread().name[:8]))

                its.put_heavy(heavy)
                assert its.is_busy
                its.put(log.note((round_, "first")))
                its.put(log.note((round_, "second")))
                await asyncio.sleep(0)
                assert len(log.entries) == 3 * round_, "nothing overtakes the thread"
                go.set()
                await until(lambda: not its.is_busy)
                assert log.entries[-3:] == [(round_, "heavy", "features"), (round_, "first"), (round_, "second")]

    asyncio.run(run())


def test_what_a_thread_raises_is_an_input_of_its_own() -> None:
    async def run() -> None:
        with pool_of(1) as pool:
            log = Log()
            its = Lane(pool, log.apply)
            defect = StopIteration("a defect")

            def heavy() -> None:
                raise defect

            its.put_heavy(heavy)
            its.put(log.note("after"))
            assert await its.settle(5.0)
            assert log.entries == [defect, "after"]

    asyncio.run(run())


def test_a_lane_whose_thread_does_not_come_back_is_given_up() -> None:
    async def run() -> None:
        release = threading.Event()
        with pool_of(1) as pool:
            log = Log()
            its = Lane(pool, log.apply)
            its.put_heavy(lambda: cast("None", release.wait(10)))
            its.put(log.note("waits"))
            assert not await its.settle(0.02)
            its.put(log.note("too late"))
            release.set()
            free = asyncio.Event()
            pool.submit(lambda: None, lambda failure: free.set())
            await asyncio.wait_for(free.wait(), 5)
            assert log.entries == []
            assert its.is_busy, "what inputs touch stays untouched"

    asyncio.run(run())


def test_two_heavy_inputs_at_once_are_a_mistake() -> None:
    """They would be two threads in one session."""
    with pool_of(1) as pool:

        async def run() -> None:
            its = Lane(pool, lambda feed: feed())
            its.put_heavy(lambda: None)
            with pytest.raises(AssertionError, match="two heavy inputs"):
                its.put_heavy(lambda: None)
            assert await its.settle(5.0)

        asyncio.run(run())
