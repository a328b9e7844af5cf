"""Server-sent events: any cutting of the bytes, limits, fields."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.api.sse import MAX_EVENT_CHARS, MAX_LINE_BYTES, Event, events, lines

STREAM = (
    ': hello\r\nid: 1\r\ndata: {"line":"año"}\r\n\r\nid: 2\ndata: a\ndata:b\n\nevent: x\rid: 3\rdata:  c\r\rdata: lost'
)
EXPECTED = [Event("1", '{"line":"año"}'), Event("2", "a\nb"), Event("3", " c")]


def read(*chunks: bytes) -> list[Event]:
    return list(events(lines(chunks)))


def test_fields_comments_and_line_ends() -> None:
    assert read(STREAM.encode()) == EXPECTED


@settings(max_examples=60)
@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=20))
def test_the_cutting_of_the_bytes_does_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM.encode())]
    assert read(*(STREAM.encode()[a:b] for a, b in pairwise(edges))) == EXPECTED


def test_an_id_stays_until_the_next_one() -> None:
    assert read(b"id: 7\ndata: a\n\ndata: b\n\n") == [Event("7", "a"), Event("7", "b")]


def test_a_long_line_is_cut_and_the_stream_goes_on() -> None:
    first, second = read(b"data: " + b"x" * 50_000, b"x" * 50_000, b"\n\ndata: next\n\n")
    assert len(first.data) == MAX_LINE_BYTES - len("data: ")
    assert second.data == "next"


def test_an_event_of_many_lines_is_cut() -> None:
    (event,) = read(*[b"data: " + b"y" * 60_000 + b"\n"] * 10, b"\n")
    assert len(event.data) <= MAX_EVENT_CHARS


def test_bytes_that_are_no_text_do_not_stop_it() -> None:
    assert read(b"data: \xff\xfe\n\n")[0].data == "\ufffd\ufffd"
