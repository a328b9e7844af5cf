"""Deadlines, keepalive, frame boundaries and the queue, on a clock that moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from realtime.transport_parts import Assembler, Deadline, FrameMeter, Inbox, Keepalive
from tests.fakes.loopback import BINARY, CONT, PING, frame


class HandTimer:
    def __init__(self, when_s: float, callback: Callable[[], None]) -> None:
        self._when_s = when_s
        self.callback = callback
        self.cancelled = False

    def when(self) -> float:
        return self._when_s

    def cancel(self) -> None:
        self.cancelled = True


class HandLoop:
    """The three methods of an event loop that deadlines use."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._count = itertools.count()
        self._timers: list[tuple[float, int, HandTimer]] = []

    def time(self) -> float:
        return self._now_s

    def call_at(self, when_s: float, callback: Callable[[], None]) -> HandTimer:
        timer = HandTimer(when_s, callback)
        heapq.heappush(self._timers, (when_s, next(self._count), timer))
        return timer

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> HandTimer:
        return self.call_at(self._now_s + delay_s, callback)

    def advance(self, seconds: float) -> None:
        end_s = self._now_s + seconds
        while self._timers and self._timers[0][0] <= end_s:
            when_s, _count, timer = heapq.heappop(self._timers)
            self._now_s = max(self._now_s, when_s)
            if not timer.cancelled:
                timer.callback()
        self._now_s = end_s

    @property
    def pending(self) -> int:
        return sum(not timer.cancelled for _when, _count, timer in self._timers)


def as_loop(loop: HandLoop) -> asyncio.AbstractEventLoop:
    return cast(asyncio.AbstractEventLoop, loop)


def deadline() -> tuple[HandLoop, Deadline, list[float]]:
    loop = HandLoop()
    fired: list[float] = []
    return loop, Deadline(as_loop(loop), lambda: fired.append(loop.time())), fired


def test_a_deadline_expires_once_and_on_time() -> None:
    loop, line, fired = deadline()
    line.start(10)
    loop.advance(9.9)
    assert fired == [] and line.running
    loop.advance(100)
    assert fired == [10.0] and not line.running


def test_a_stopped_deadline_does_not_expire() -> None:
    loop, line, fired = deadline()
    line.start(10)
    line.stop()
    loop.advance(100)
    assert fired == []


def test_restarting_moves_a_deadline_later_and_earlier() -> None:
    loop, line, fired = deadline()
    line.start(10)
    loop.advance(9)
    line.start(10)
    loop.advance(9)
    assert fired == []
    line.start(0.5)
    loop.advance(0.5)
    assert fired == [18.5]


def test_held_time_does_not_count() -> None:
    loop, line, fired = deadline()
    line.start(10)
    loop.advance(6)
    line.hold()
    line.hold()
    loop.advance(1_000)
    assert fired == [] and line.running
    line.go_on()
    line.go_on()
    loop.advance(3.9)
    assert fired == []
    loop.advance(0.2)
    assert fired == [1_010.0]


def test_a_deadline_started_while_held_counts_from_go_on() -> None:
    loop, line, fired = deadline()
    line.hold()
    line.start(5)
    loop.advance(50)
    line.go_on()
    loop.advance(5)
    assert fired == [55.0]


def test_close_leaves_no_timer_behind() -> None:
    loop, line, fired = deadline()
    line.start(5)
    line.close()
    assert loop.pending == 0
    loop.advance(10)
    assert fired == []


def test_many_restarts_cost_one_timer() -> None:
    loop, line, _fired = deadline()
    for _ in range(1_000):
        line.start(10)
        line.stop()
    assert loop.pending == 1


def keepalive() -> tuple[HandLoop, Keepalive, list[str]]:
    loop = HandLoop()
    log: list[str] = []
    keeper = Keepalive(as_loop(loop), 20, 20, lambda: log.append("ping"), lambda: log.append(f"dead {loop.time():g}"))
    keeper.start()
    return loop, keeper, log


def test_a_silent_peer_is_dead_after_interval_and_timeout() -> None:
    loop, keeper, log = keepalive()
    loop.advance(39.9)
    assert log == ["ping"]
    loop.advance(0.2)
    assert log[:2] == ["ping", "dead 40"]
    keeper.close()


def test_any_byte_proves_that_the_peer_lives() -> None:
    loop, keeper, log = keepalive()
    for _ in range(10):
        loop.advance(15)
        keeper.heard()
    assert set(log) == {"ping"}
    keeper.close()
    assert loop.pending == 0


def test_time_in_which_we_do_not_read_is_not_held_against_the_peer() -> None:
    loop, keeper, log = keepalive()
    keeper.deadline.hold()
    loop.advance(3_600)
    assert log == ["ping"]
    keeper.deadline.go_on()
    loop.advance(19)
    assert log == ["ping"]
    loop.advance(2)
    assert log[1] == "dead 3620"
    keeper.close()


frames_of_any_size = st.lists(
    st.tuples(st.sampled_from([BINARY, PING]), st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])),
    min_size=1,
    max_size=4,
)


@given(frames_of_any_size, st.lists(st.integers(1, 2_000), max_size=30), st.booleans())
def test_the_meter_knows_every_boundary_however_the_stream_is_cut(
    shapes: list[tuple[int, int]], cuts: list[int], masked: bool
) -> None:
    encoded = [frame(opcode, bytes(size), masked=masked) for opcode, size in shapes]
    ends = set(itertools.accumulate(len(item) for item in encoded)) | {0}
    stream = b"".join(encoded)
    meter = FrameMeter(2**63)
    position = 0
    for step in [*cuts, len(stream)]:
        meter.feed(stream[position : position + step])
        position = min(position + step, len(stream))
        assert meter.mid_frame == (position not in ends)


def test_the_meter_believes_any_declared_length() -> None:
    meter = FrameMeter(2**63)
    meter.feed(b"\x82\xff" + (2**62).to_bytes(8, "big") + b"\0\0\0\0" + bytes(1_000))
    assert meter.mid_frame


@given(st.lists(st.integers(1, 5), max_size=30))
def test_the_meter_stops_before_the_frame_that_makes_a_message_too_big(cuts: list[int]) -> None:
    fine = frame(BINARY, bytes(10)) + frame(BINARY, bytes(6), fin=False) + frame(PING, bytes(9)) + frame(CONT, bytes(4))
    stream = fine + frame(BINARY, bytes(6), fin=False) + frame(CONT, bytes(5))
    expected = len(fine) + len(frame(BINARY, bytes(6), fin=False))
    meter = FrameMeter(10)
    position = accepted = 0
    for step in [*cuts, len(stream)]:
        accepted += meter.feed(stream[position : position + step])
        position += step
    assert meter.is_over
    # The head of the frame itself may have gone through in pieces; none of its payload has.
    assert expected <= accepted < expected + 14


def test_the_assembler_joins_fragments_and_keeps_the_kind_of_the_first() -> None:
    assembler = Assembler()
    assert assembler.feed(Frame(Opcode.TEXT, "né".encode()[:2], fin=False)) is None
    assert assembler.fragmented
    assert assembler.feed(Frame(Opcode.CONT, "né".encode()[2:])) == {"type": "websocket.receive", "text": "né"}
    assert not assembler.fragmented
    assert assembler.feed(Frame(Opcode.BINARY, b"\x00")) == {"type": "websocket.receive", "bytes": b"\x00"}


def test_the_assembler_reports_text_that_is_not_utf8() -> None:
    with pytest.raises(UnicodeDecodeError):
        Assembler().feed(Frame(Opcode.TEXT, b"\xff"))


def put(inbox: Inbox, count: int, size_bytes: int = 1) -> None:
    for _ in range(count):
        inbox.put({"type": "websocket.receive"}, size_bytes)


def take(inbox: Inbox, count: int) -> list[Any]:
    async def get() -> list[Any]:
        return [await inbox.get() for _ in range(count)]

    return asyncio.run(get())


def test_an_inbox_is_full_at_its_message_bound_and_free_again_at_half_of_it() -> None:
    inbox = Inbox(max_messages=4, max_bytes=1_000)
    put(inbox, 3)
    assert not inbox.full
    put(inbox, 1)
    assert inbox.full
    take(inbox, 2)
    assert inbox.full
    take(inbox, 1)
    assert not inbox.full


def test_an_inbox_is_full_at_its_byte_bound() -> None:
    inbox = Inbox(max_messages=100, max_bytes=10)
    put(inbox, 1, 9)
    assert not inbox.full
    put(inbox, 1, 1)
    assert inbox.full
    take(inbox, 1)
    assert not inbox.full


def test_an_ended_inbox_gives_what_waits_and_then_the_same_last_word_for_ever() -> None:
    inbox = Inbox(4, 10)
    put(inbox, 1)
    inbox.end({"type": "websocket.disconnect", "code": 1000})
    inbox.end({"type": "websocket.disconnect", "code": 1006})
    put(inbox, 1)
    got = take(inbox, 3)
    assert [item.get("code") for item in got] == [None, 1000, 1000]


def test_a_cleared_inbox_gives_only_the_last_word() -> None:
    inbox = Inbox(4, 10)
    put(inbox, 3)
    inbox.clear()
    inbox.end({"type": "websocket.disconnect", "code": 4000})
    assert take(inbox, 1)[0]["code"] == 4000 and not inbox.full
