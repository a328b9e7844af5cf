"""Segments joined to lines for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.client.lines import MAX_GAP_S, MAX_LINE_CHARS, MAX_LINE_S, LineJoiner, joined
from realtime.client.messages import Segment


def seg(text: str, start_s: float, end_s: float) -> Segment:
    return Segment(start_s, end_s, text, True)


def test_pieces_of_a_sentence_are_one_line() -> None:
    joiner = LineJoiner()
    assert joiner.add([seg(" The meeting", 0.0, 0.5), seg(" starts at", 0.5, 1.0)]) == []
    assert joiner.rest == seg(" The meeting starts at", 0.0, 1.0)
    assert joiner.add([seg(" nine.", 1.0, 1.5), seg(" Please", 1.6, 2.0)]) == [
        seg(" The meeting starts at nine.", 0, 1.5)
    ]
    assert joiner.finish() == [seg(" Please", 1.6, 2.0)]
    assert joiner.finish() == []


@pytest.mark.parametrize(
    ("second", "n_lines"),
    [
        (seg(" b", 1.0 + MAX_GAP_S - 0.01, 2.5), 1),
        (seg(" b", 1.0 + MAX_GAP_S, 2.5), 2),
        (seg(" b", 1.5, MAX_LINE_S), 1),
        (seg(" b", 1.5, MAX_LINE_S + 0.01), 2),
        (seg("b" * (MAX_LINE_CHARS - 1), 1.5, 2.0), 1),
        (seg("b" * MAX_LINE_CHARS, 1.5, 2.0), 2),
    ],
)
def test_a_line_has_its_limits(second: Segment, n_lines: int) -> None:
    assert len(joined([seg(" a", 0.0, 1.0), second])) == n_lines


@given(st.lists(st.tuples(st.text(max_size=30), st.floats(0, 5), st.floats(0, 5)), max_size=20))
def test_no_text_is_lost_and_none_is_added(pieces: list[tuple[str, float, float]]) -> None:
    segments, at_s = [], 0.0
    for text, gap_s, length_s in pieces:
        segments.append(seg(text, at_s + gap_s, at_s + gap_s + length_s))
        at_s += gap_s + length_s
    assert "".join(line.text for line in joined(segments)) == "".join(segment.text for segment in segments)
