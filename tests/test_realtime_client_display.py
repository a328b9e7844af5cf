"""realtime.client.display: what goes to which kind of output."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from engine.types import Word
from realtime.client.display import Captions, Display, JsonLines, PlainLines, Silent, as_json, clock_text, make_display
from realtime.client.messages import (
    Closed,
    Disconnect,
    ErrorReply,
    Event,
    Language,
    Ready,
    Segment,
    ServerWarning,
    Update,
    Wait,
)

EVENTS: list[Event] = [
    Ready("faster_whisper"),
    Language("en", 0.97),
    Update((), Segment(0, 1, " Hell", False), 5.0),
    Update((Segment(0, 1, " Hello\x1b[2J\nthere.", True),), Segment(62, 63, " How", False), 6.0),
    Update((Segment(62, 64, " How are you?", True), Segment(3_725, 3_726, " ", True)), None, 7.0),
    Closed(1000, ""),
]


def console(*, is_terminal: bool, term: str = "xterm", **environ: str) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    # A width in the environment would win over the one given.
    return Console(file=out, force_terminal=is_terminal, width=80, _environ={"TERM": term, **environ}), out


def show(display: Display) -> None:
    with display:
        display.begin("talk.wav")
        for number, event in enumerate(EVENTS):
            display.event(event)
            display.position(float(number), 5.0)


def test_pipes_get_lines_of_final_text_only() -> None:
    target, out = console(is_terminal=False)
    show(make_display("auto", target))
    assert out.getvalue() == "Hello[2J there.\nHow are you?\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_line_that_was_still_open_is_shown_at_the_end_whatever_ends_it(is_terminal: bool) -> None:
    target, out = console(is_terminal=is_terminal)
    with make_display("auto", target) as display:
        display.event(Update((Segment(0, 1, " so we", True),), Segment(1, 2, " went", False), 6.0))
        if not is_terminal:
            assert out.getvalue() == ""
    assert "so we" in out.getvalue()
    if not is_terminal:
        assert out.getvalue() == "so we\n"


def test_quiet_shows_nothing() -> None:
    target, out = console(is_terminal=True)
    show(make_display("quiet", target))
    assert out.getvalue() == ""


def test_json_has_one_object_per_event() -> None:
    target, out = console(is_terminal=True)
    show(make_display("json", target))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["ready", "language", "update", "update", "update", "closed"]
    assert {line["source"] for line in lines} == {"talk.wav"}
    assert lines[2]["provisional"] == {"start": 0, "end": 1, "text": " Hell"}
    assert lines[4]["completed"][0] == {"start": 62, "end": 64, "text": " How are you?"}


def test_a_terminal_gets_captions_and_a_position() -> None:
    target, out = console(is_terminal=True)
    show(make_display("auto", target))
    text = out.getvalue()
    assert "talk.wav" in text
    assert "\x1b[1mHow are you?\x1b[0m" in text
    assert "\x1b[2;3mHell\x1b[0m" in text
    assert "00:05 / 00:05  en" in text
    assert "01:02" in text
    assert "\x1b[2J" not in text
    # The cursor is back and the guess is gone at the end.
    assert text.rindex("\x1b[?25h") > text.rindex("How are you?")


def test_no_colour_is_honoured() -> None:
    with_colour, out = console(is_terminal=True)
    show(make_display("auto", with_colour))
    assert "\x1b[9" in out.getvalue()
    without, out = console(is_terminal=True, NO_COLOR="1")
    show(make_display("auto", without))
    assert not any(f"\x1b[{code}" in out.getvalue() for code in ("3", "9", "38;"))


@pytest.mark.parametrize(
    ("mode", "is_terminal", "term", "is_for_people", "kind"),
    [
        ("auto", True, "xterm", False, Captions),
        ("auto", True, "xterm", True, Captions),
        ("auto", True, "dumb", False, PlainLines),
        ("auto", False, "xterm", False, PlainLines),
        ("auto", False, "xterm", True, Silent),
        ("json", True, "xterm", False, JsonLines),
        ("quiet", True, "xterm", False, Silent),
    ],
)
def test_choice(mode: str, is_terminal: bool, term: str, is_for_people: bool, kind: type[Display]) -> None:
    target, _ = console(is_terminal=is_terminal, term=term)
    assert type(make_display(mode, target, is_for_people=is_for_people)) is kind


@pytest.mark.parametrize(
    ("event", "document"),
    [
        (Ready("x"), {"type": "ready", "backend": "x"}),
        (Wait(2.5), {"type": "wait", "minutes": 2.5}),
        (ErrorReply("no", "bad_input"), {"type": "error", "message": "no", "code": "bad_input"}),
        (ServerWarning("hm"), {"type": "warning", "message": "hm"}),
        (Disconnect(), {"type": "disconnect"}),
        (Closed(1001, "draining"), {"type": "closed", "code": 1001, "reason": "draining"}),
        (
            Update((Segment(0, 1, " a", True, (Word(" a", 0.1, 0.9, 0.5),)),), None, 3.0),
            {
                "type": "update",
                "completed": [
                    {
                        "start": 0,
                        "end": 1,
                        "text": " a",
                        "words": [{"word": " a", "start": 0.1, "end": 0.9, "probability": 0.5}],
                    }
                ],
                "provisional": None,
            },
        ),
    ],
)
def test_events_as_json(event: Event, document: object) -> None:
    assert as_json(event) == document


@pytest.mark.parametrize(
    ("time_s", "text"), [(0, "00:00"), (59.99, "00:59"), (3_599.9, "59:59"), (3_600, "01:00:00"), (-1, "00:00")]
)
def test_clock_text(time_s: float, text: str) -> None:
    assert clock_text(time_s) == text
