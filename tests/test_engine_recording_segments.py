"""From words to segments, and speech for which there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.recording_cut import FRAME_S, Stretch
from engine.recording_result import MAX_LISTED, Collector
from engine.recording_segments import (
    MAX_SEGMENT_CHARS,
    MAX_SEGMENT_S,
    MIN_GAP_S,
    SPLIT_PAUSE_S,
    GapFinder,
    segments_of,
)
from engine.recording_types import RecordingOptions
from engine.types import FileSegment, WindowResult, Word
from engine.vad import VAD_FRAME_SAMPLES


def stretch(start_s: float = 0.0, n_frames: int = 900, probability: float = 0.9) -> Stretch:
    first = round(start_s * 16_000)
    return Stretch(((first, first + n_frames * VAD_FRAME_SAMPLES),), np.full(n_frames, probability, dtype=np.float16))


def result(*words: tuple[str, float, float], **more: float) -> WindowResult:
    made = tuple(Word(text, start, end, 0.9, (index, index + 100)) for index, (text, start, end) in enumerate(words))
    return replace(WindowResult(made, "en", (), -0.2, 0.01, 1.3), **more)  # type: ignore[arg-type]


def texts(segments: list[FileSegment]) -> list[str]:
    return [segment.text for segment in segments]


def test_sentences_are_segments() -> None:
    heard = result(
        (" One", 0.5, 0.8), (" two.", 0.9, 1.2), (' Three?"', 1.3, 1.6), (" four", 1.7, 2.0), temperature=0.4
    )
    found = segments_of(stretch(100.0), heard, "en")
    assert texts(found) == [" One two.", ' Three?"', " four"]
    first = found[0]
    assert (first.start_s, first.end_s) == pytest.approx((100.5, 101.2))
    assert (first.language, first.temperature, first.avg_logprob) == ("en", 0.4, -0.2)
    assert (first.no_speech_prob, first.compression_ratio) == (0.01, 1.3)
    assert first.tokens == (0, 100, 1, 101)
    assert [word.start_s for word in first.words] == pytest.approx([100.5, 100.9])


@pytest.mark.parametrize(("pause_s", "n_segments"), [(SPLIT_PAUSE_S - 0.01, 1), (SPLIT_PAUSE_S + 0.01, 2)])
def test_a_long_pause_ends_a_segment(pause_s: float, n_segments: int) -> None:
    assert len(segments_of(stretch(), result((" a", 0.0, 0.5), (" b", 0.5 + pause_s, 3.0)), "en")) == n_segments


@pytest.mark.parametrize(("end_s", "n_segments"), [(MAX_SEGMENT_S, 1), (MAX_SEGMENT_S + 0.01, 2)])
def test_no_segment_is_longer_than_its_time(end_s: float, n_segments: int) -> None:
    words = [(f" w{n}", n * 0.9, n * 0.9 + 0.8) for n in range(33)]
    words.append((" last", 29.7, end_s))
    assert len(segments_of(stretch(n_frames=1_000), result(*words), "en")) == n_segments


@pytest.mark.parametrize(("n_chars", "n_segments"), [(MAX_SEGMENT_CHARS, 1), (MAX_SEGMENT_CHARS + 1, 2)])
def test_no_segment_is_longer_than_its_text(n_chars: int, n_segments: int) -> None:
    heard = result((" " + "a" * 99, 0.0, 1.0), (" " + "b" * (n_chars - 101), 1.1, 2.0))
    found = segments_of(stretch(), heard, "en")
    assert len(found) == n_segments
    assert "".join(texts(found)) == "".join(word.text for word in heard.words)


def test_times_neither_overlap_nor_leave_the_stretch() -> None:
    heard = result((" a.", 0.0, 2.0), (" b.", 1.5, 1.8), (" c", 27.0, 99.0))
    found = segments_of(stretch(10.0), heard, "en", not_before_s=10.5)
    times = [time_s for each in found for time_s in (each.start_s, each.end_s)]
    assert times == pytest.approx([10.5, 12.0, 12.0, 12.0, 37.0, 38.8])


def test_blank_text_is_no_segment() -> None:
    assert segments_of(stretch(), result((" ", 0.0, 1.0)), "en") == []
    assert segments_of(stretch(), result(), "en") == []


def gaps(*looks: tuple[Stretch, list[tuple[float, float]]]) -> list[tuple[float, float]]:
    finder = GapFinder()
    for each, spoken in looks:
        finder.look(each, spoken)
    return finder.found()


def test_speech_with_text_is_no_gap() -> None:
    assert gaps((stretch(), [(n * 0.9, n * 0.9 + 0.5) for n in range(33)])) == []


@pytest.mark.parametrize(
    ("n_frames", "is_told"), [(int(MIN_GAP_S / FRAME_S), False), (int(MIN_GAP_S / FRAME_S) + 1, True)]
)
def test_a_gap_has_two_seconds(n_frames: int, is_told: bool) -> None:
    found = gaps((stretch(5.0, n_frames), []))
    assert found == ([pytest.approx((5.0, 5.0 + n_frames * FRAME_S), abs=1e-3)] if is_told else [])


def test_silence_is_no_gap() -> None:
    assert gaps((stretch(0.0, 500, 0.4), [])) == []


def test_a_gap_may_lie_on_both_sides_of_a_cut() -> None:
    one = stretch(0.0, 100)
    two = stretch(one.end_s, 100)
    ((start_s, end_s),) = gaps((one, [(0.0, 1.2)]), (two, [(4.6, 6.0)]))
    assert (start_s, end_s) == pytest.approx((1.7, 4.1), abs=0.05)


@pytest.mark.parametrize(
    ("n_gaps", "last"), [(MAX_LISTED, "speech without text"), (MAX_LISTED + 1, "1 more stretches")]
)
def test_only_so_many_gaps_are_listed(n_gaps: int, last: str) -> None:
    collector = Collector(RecordingOptions(), None, None)
    for n in range(n_gaps):
        collector.look(stretch(10.0 * n, 100))
    warnings = collector.warnings()
    assert len(warnings) == min(n_gaps, MAX_LISTED + 1)
    assert warnings[0] == "speech without text from 0.0 s to 3.2 s"
    assert warnings[-1].startswith(last)
