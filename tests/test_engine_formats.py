"""engine.formats: stamps, escapes and empty input of every format; engine.line_breaks."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInputError
from engine.formats import (
    FORMATS,
    MAX_TIME_S,
    Cue,
    one_line,
    render,
    timestamp,
    to_json,
    to_lrc,
    to_srt,
    to_tsv,
    to_txt,
    to_vtt,
)
from engine.line_breaks import break_cue
from engine.types import Word

TWO = (Cue(0.0, 1.5, " Hello world."), Cue(61.25, 3_725.0, " How are you?"))


def test_txt_is_one_line_per_cue() -> None:
    assert to_txt(TWO) == "Hello world.\nHow are you?\n"


def test_srt_numbers_blocks_and_uses_commas() -> None:
    assert to_srt(TWO) == (
        "1\n00:00:00,000 --> 00:00:01,500\nHello world.\n\n2\n00:01:01,250 --> 01:02:05,000\nHow are you?\n"
    )


def test_vtt_has_a_header_and_full_stops() -> None:
    assert to_vtt(TWO) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello world.\n\n00:01:01.250 --> 01:02:05.000\nHow are you?\n"
    )


def test_tsv_counts_milliseconds() -> None:
    assert to_tsv(TWO) == "start\tend\ttext\n0\t1500\tHello world.\n61250\t3725000\tHow are you?\n"


def test_json_follows_verbose_json() -> None:
    words = (Word(" Hello", 0.0, 0.4199999, 0.98765), Word(" world.", 0.5, 1.5, 0.5))
    cues = (Cue(0.0, 1.5, " Hello world.", words), Cue(2.0, 3.0, " Bye."))
    document = json.loads(to_json(cues, language="en", duration_s=3.4567))
    assert document == {
        "task": "transcribe",
        "language": "en",
        "duration": 3.457,
        "text": "Hello world. Bye.",
        "segments": [
            {"id": 0, "start": 0.0, "end": 1.5, "text": "Hello world."},
            {"id": 1, "start": 2.0, "end": 3.0, "text": "Bye."},
        ],
        "words": [
            {"word": "Hello", "start": 0.0, "end": 0.42, "probability": 0.9877},
            {"word": "world.", "start": 0.5, "end": 1.5, "probability": 0.5},
        ],
    }


def test_json_falls_back_to_the_last_end() -> None:
    assert json.loads(to_json((Cue(1.0, 2.0, "a"), Cue(3.0, 4.5, "b"))))["duration"] == 4.5


@pytest.mark.parametrize(
    ("time_ms", "stamp"),
    [
        (0, "00:00:00.000"),
        (999, "00:00:00.999"),
        (1_000, "00:00:01.000"),
        (59_999, "00:00:59.999"),
        (60_000, "00:01:00.000"),
        (3_599_999, "00:59:59.999"),
        (3_600_000, "01:00:00.000"),
        (359_999_999, "99:59:59.999"),
        (360_000_000, "100:00:00.000"),
    ],
)
def test_timestamp(time_ms: int, stamp: str) -> None:
    assert timestamp(time_ms, ".") == stamp


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [(59.9994, "00:00:59,999"), (59.9996, "00:01:00,000"), (3_599.9999, "01:00:00,000"), (86_399.9996, "24:00:00,000")],
)
def test_rounding_carries_into_minutes_and_hours(seconds: float, stamp: str) -> None:
    assert to_srt((Cue(seconds, seconds + 5, "x"),)).splitlines()[1].startswith(f"{stamp} -->")


def test_an_end_before_the_start_is_read_as_the_start() -> None:
    cue = Cue(2.0, 1.0, "x")
    assert (cue.start_ms, cue.end_ms) == (2_000, 2_000)
    assert "00:00:02.000 --> 00:00:02.001" in to_vtt((cue,))
    assert to_tsv((cue,)).endswith("2000\t2000\tx\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, MAX_TIME_S + 0.001])
@pytest.mark.parametrize("field", ["start_s", "end_s"])
def test_impossible_times_are_refused_by_name(field: str, value: float) -> None:
    start_s, end_s = (value, 0.0) if field == "start_s" else (0.0, value)
    with pytest.raises(BadInputError, match=field):
        Cue(start_s, end_s, "x")


def test_the_longest_time_is_allowed() -> None:
    assert "10000:00:00,000" in to_srt((Cue(MAX_TIME_S, MAX_TIME_S, "x"),))


def test_no_cues_make_a_valid_empty_document() -> None:
    empty = {name: render((), name) for name in FORMATS}
    assert empty["txt"] == empty["srt"] == ""
    assert empty["vtt"] == "WEBVTT\n"
    assert empty["tsv"] == "start\tend\ttext\n"
    assert json.loads(empty["json"]) == {
        "task": "transcribe",
        "language": None,
        "duration": 0.0,
        "text": "",
        "segments": [],
    }


@pytest.mark.parametrize("text", ["", "   ", "\n\n", "\x00\x1b"])
def test_cues_without_text_are_left_out(text: str) -> None:
    cues = (Cue(0, 1, text), Cue(1, 2, "b"))
    assert to_srt(cues).startswith("1\n00:00:01,000")
    assert json.loads(to_json(cues))["segments"] == [{"id": 0, "start": 1.0, "end": 2.0, "text": "b"}]


def test_vtt_escapes_markup() -> None:
    assert to_vtt((Cue(0, 1, "a < b && c --> d"),)).endswith("a &lt; b &amp;&amp; c --&gt; d\n")


def test_render_passes_what_a_format_has_a_place_for() -> None:
    document = json.loads(render(TWO, "json", language="es", duration_s=9, task="translate"))
    assert (document["language"], document["duration"], document["task"]) == ("es", 9.0, "translate")
    assert render(TWO, "srt", language="es") == to_srt(TWO)


def test_unknown_format_names_the_legal_ones() -> None:
    with pytest.raises(BadInputError, match="txt, srt, vtt, tsv, json"):
        render(TWO, "docx")


def test_one_line_drops_what_steers_a_terminal() -> None:
    assert one_line(" a\r\n\n b\x1b[31m\x07 \x00 c\u2028d\ud800 ") == "a b[31m c d"


nasty_text = st.text(alphabet=st.sampled_from("ab ->\n\r\t\x00\x85\u2028<&\ud800"), max_size=30)
cues = st.lists(
    st.builds(Cue, st.floats(0, 4e5, allow_nan=False), st.floats(0, 4e5, allow_nan=False), nasty_text), max_size=5
)


@given(cues)
def test_any_text_leaves_the_block_structure_whole(some: list[Cue]) -> None:
    expected = sum(bool(one_line(cue.text)) for cue in some)
    time_line = re.compile(r"\d{2,}:\d\d:\d\d[.,]\d{3} --> \d{2,}:\d\d:\d\d[.,]\d{3}")
    for document, header in ((to_srt(some), 0), (to_vtt(some), 1)):
        blocks = [block for block in document.split("\n\n") if block][header:]
        assert len(blocks) == expected
        for block in blocks:
            lines = block.rstrip("\n").split("\n")
            assert sum("-->" in line for line in lines) == 1
            assert any(time_line.fullmatch(line) for line in lines)
        document.encode("utf-8")
    assert len(to_tsv(some).rstrip("\n").split("\n")) == expected + 1
    assert all(line.count("\t") == 2 for line in to_tsv(some).rstrip("\n").split("\n"))


def test_lrc_counts_minutes_and_hundredths() -> None:
    assert to_lrc(TWO) == "[00:00.00]Hello world.\n[01:01.25]How are you?\n"
    assert to_lrc((Cue(59.996, 61, "a"), Cue(6_000, 6_001, "[Music]"))) == "[01:00.00]a\n[100:00.00] [Music]\n"
    assert render((), "lrc") == ""


def spoken(text: str, start_s: float, seconds_per_word: float) -> tuple[Word, ...]:
    starts = [start_s + number * seconds_per_word for number in range(len(text.split()))]
    return tuple(
        Word(f" {word}", at, at + seconds_per_word / 2, 1.0) for word, at in zip(text.split(), starts, strict=True)
    )


LONG = "one two three four five six"


def test_lines_are_broken_between_words() -> None:
    cue = Cue(0, 6, LONG)
    assert to_srt((cue,), 13).splitlines()[2:] == ["one two three", "four five six"]
    assert render((cue,), "vtt", max_line_width=9).splitlines()[3:] == ["one two", "three", "four five", "six"]
    assert render((cue,), "srt", max_line_count=1) == to_srt((cue,)), "a count alone changes nothing"
    assert render((cue,), "tsv", max_line_width=9) == to_tsv((cue,)), "other formats have no lines"


def test_a_cue_with_too_many_lines_is_split_at_the_times_of_its_words() -> None:
    cue = Cue(1, 13, LONG, spoken(LONG, 1, 2))
    assert to_srt((cue,), 9, 2) == (
        "1\n00:00:01,000 --> 00:00:06,000\none two\nthree\n\n2\n00:00:07,000 --> 00:00:13,000\nfour five\nsix\n"
    )


@pytest.mark.parametrize("words", [(), spoken("other words than in the text", 1, 1)])
def test_without_fitting_words_time_is_shared_out_by_characters(words: tuple[Word, ...]) -> None:
    cue = Cue(0, 10, "aaaa bbbbbb", words)
    assert [line for line in to_vtt((cue,), 6, 1).splitlines() if "-->" in line] == [
        "00:00:00.000 --> 00:00:04.000",
        "00:00:04.000 --> 00:00:10.000",
    ]


def test_text_without_blanks_is_broken_anywhere() -> None:
    assert to_srt((Cue(0, 1, "日本語" * 4),), 5).splitlines()[2:] == ["日本語日本", "語日本語日", "本語"]


@pytest.mark.parametrize("limits", [{"max_line_width": 0}, {"max_line_width": 5, "max_line_count": 0}])
def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(BadInputError, match="1 or more"):
        render(TWO, "srt", **limits)  # type: ignore[arg-type]
    render(TWO, "srt", max_line_width=1, max_line_count=1)


word_lists = st.lists(
    st.builds(Word, st.text("ab -", max_size=6), st.floats(0, 50), st.floats(0, 50), st.just(1.0)), max_size=12
)


@given(word_lists, st.floats(0, 50), st.floats(0, 50), st.integers(1, 9), st.one_of(st.none(), st.integers(1, 3)))
def test_pieces_keep_the_text_and_stay_in_order(
    words: list[Word], start_s: float, end_s: float, width: int, count: int | None
) -> None:
    text = one_line("".join(word.text for word in words))
    pieces = break_cue(start_s, end_s, text, words, width, count)
    lines = [line for _, _, piece in pieces for line in piece]
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(len(line) <= width for line in lines)
    assert all(len(piece) <= (count or len(piece)) for _, _, piece in pieces)
    edges = [edge for piece_start_s, piece_end_s, _ in pieces for edge in (piece_start_s, piece_end_s)]
    assert edges == sorted(edges)
    assert edges[0] == start_s and edges[-1] == max(start_s, end_s)
