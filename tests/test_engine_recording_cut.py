"""Where recordings are cut, and how times find their way back."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recording_audio import Analysis, Rereading, log_mel
from engine.recording_cut import Cutter, Stretch, best_cut
from engine.types import SAMPLE_RATE_HZ, FloatArray, Word
from engine.vad import VAD_FRAME_SAMPLES
from tests.fakes.engine import EnergyDetector
from tests.fakes.tones import silence, speak

FRAME = VAD_FRAME_SAMPLES


def frames(first: int, n: int) -> FloatArray:
    """Samples that tell which frame they are of."""
    return np.repeat(np.arange(first, first + n, dtype=np.float32), FRAME)


def probabilities(*runs: tuple[int, float]) -> list[float]:
    return [value for n, value in runs for _ in range(n)]


def cut_all(values: list[float], max_frames: int) -> list[tuple[Stretch, FloatArray]]:
    cutter = Cutter(max_frames)
    cutter.add(0, frames(0, len(values)), values)
    found = []
    while (each := cutter.take()) is not None:
        found.append(each)
    last = cutter.flush()
    return found if last is None else [*found, last]


def test_no_cut_is_needed_where_all_fits() -> None:
    ((stretch, samples),) = cut_all([1.0] * 100, 100)
    assert stretch.pieces == ((0, 100 * FRAME),)
    assert len(samples) == 100 * FRAME


def test_one_frame_more_than_fits_is_cut() -> None:
    assert [len(stretch.probabilities) for stretch, _ in cut_all([1.0] * 101, 100)] == [100, 1]


def test_the_middle_of_a_pause_is_the_place() -> None:
    values = probabilities((60, 1.0), (20, 0.0), (60, 1.0))
    assert [len(stretch.probabilities) for stretch, _ in cut_all(values, 100)] == [70, 70]


def test_of_equal_pauses_the_later_and_of_near_ones_the_longer() -> None:
    equal = probabilities((40, 1.0), (10, 0.0), (30, 1.0), (10, 0.0), (60, 1.0))
    assert len(cut_all(equal, 100)[0][0].probabilities) == 85
    longer = probabilities((60, 1.0), (25, 0.0), (5, 1.0), (4, 0.0), (60, 1.0))
    assert len(cut_all(longer, 100)[0][0].probabilities) == 73


def test_a_dip_inside_of_a_word_is_no_pause_but_better_than_nothing() -> None:
    values = probabilities((80, 0.9), (1, 0.35), (1, 0.4), (60, 0.9))
    assert len(cut_all(values, 100)[0][0].probabilities) == 81


def test_without_any_dip_the_stretch_is_filled() -> None:
    assert len(cut_all([0.9] * 150, 100)[0][0].probabilities) == 100


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.2, 0.5, 0.9])), min_size=1, max_size=40),
    st.integers(1, 80),
)
def test_every_frame_is_in_one_stretch(runs: list[tuple[int, float]], max_frames: int) -> None:
    values = probabilities(*runs)
    found = cut_all(values, max_frames)
    assert all(1 <= len(stretch.probabilities) <= max_frames for stretch, _ in found)
    assert np.array_equal(np.concatenate([samples for _, samples in found]), frames(0, len(values)))
    ends = [piece for stretch, _ in found for piece in stretch.pieces]
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]


def test_cuts_are_in_pauses_when_there_are_some() -> None:
    audio, spoken = speak(range(200), (0.08, 0.08, 0.5, 0.08))
    analysis = Analysis(None, (), EnergyDetector, 6.0)
    found = analysis.push(audio) + analysis.finish()
    cuts_s = [stretch.end_s for stretch, _ in found[:-1]]
    pauses = [(a.end_s, b.start_s) for a, b in pairwise(spoken) if b.start_s - a.end_s > 0.4]
    assert len(cuts_s) > 10
    assert all(any(start < cut < end for start, end in pauses) for cut in cuts_s)


def test_joined_pieces_know_their_times() -> None:
    cutter = Cutter(100)
    cutter.add(0, frames(0, 20), [0.9] * 20)
    cutter.add(50 * FRAME, frames(50, 30), [0.9] * 30)
    found = cutter.flush()
    assert found is not None
    stretch, samples = found
    assert stretch.pieces == ((0, 20 * FRAME), (50 * FRAME, 80 * FRAME))
    assert stretch.n_samples == len(samples) == 50 * FRAME
    frame_s = FRAME / SAMPLE_RATE_HZ
    assert stretch.place(frame_s, 2 * frame_s) == pytest.approx((frame_s, 2 * frame_s))
    assert stretch.place(21 * frame_s, 22 * frame_s) == pytest.approx((51 * frame_s, 52 * frame_s))
    # A word over the joint belongs to the piece that holds most of it.
    assert stretch.place(18 * frame_s, 21 * frame_s) == pytest.approx((18 * frame_s, 20 * frame_s))
    assert stretch.place(19 * frame_s, 23 * frame_s) == pytest.approx((50 * frame_s, 53 * frame_s))
    assert stretch.place(49 * frame_s, 99 * frame_s) == pytest.approx((79 * frame_s, 80 * frame_s))
    word = stretch.placed(Word(" a", 21 * frame_s, 22 * frame_s, 0.5, (7,)))
    assert (word.text, word.probability, word.tokens) == (" a", 0.5, (7,))
    assert stretch.frame_starts_s()[20] == pytest.approx(50 * frame_s)


def test_left_out_silence_is_the_best_place_to_cut() -> None:
    cutter = Cutter(100)
    cutter.add(0, frames(0, 60), [0.9] * 60)
    cutter.add(200 * FRAME, frames(200, 60), [0.9] * 60)
    found = cutter.take()
    assert found is not None
    assert found[0].pieces == ((0, 60 * FRAME),)


def test_splitting_keeps_everything() -> None:
    stretch = Stretch(((0, 20 * FRAME), (50 * FRAME, 80 * FRAME + 100)), np.full(51, 0.9, dtype=np.float16))
    before, after = stretch.split(20)
    assert (before.pieces, after.pieces) == (((0, 20 * FRAME),), ((50 * FRAME, 80 * FRAME + 100),))
    before, after = stretch.split(30)
    assert before.pieces == ((0, 20 * FRAME), (50 * FRAME, 60 * FRAME))
    assert after.pieces == ((60 * FRAME, 80 * FRAME + 100),)
    assert (len(before.probabilities), len(after.probabilities)) == (30, 21)
    assert stretch.best_split() == 20


def test_the_best_split_is_a_pause_near_the_middle() -> None:
    values = np.array(probabilities((10, 0.9), (10, 0.0), (25, 0.9), (6, 0.0), (49, 0.9)), dtype=np.float16)
    assert Stretch(((0, 100 * FRAME),), values).best_split() == 48
    assert best_cut(values, (), 33, 33, 66, lateness=0.0) == 48


def test_a_second_reading_finds_the_same_audio() -> None:
    audio, _ = speak(range(60), (0.1, 0.1, 3.0))
    analysis = Analysis(None, (), EnergyDetector, 5.0)
    first = analysis.push(audio) + analysis.finish()
    wanted = first[1::2]
    again = Rereading([stretch for stretch, _ in wanted])
    found = [each for at in range(0, len(audio), 7_000) for each in again.push(audio[at : at + 7_000])]
    assert [stretch for stretch, _ in found] == [stretch for stretch, _ in wanted]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, wanted, strict=True))
    assert again.finish() == []


def test_a_full_window_fits_the_encoder() -> None:
    analysis = Analysis(None, (), EnergyDetector, 30.0)
    tone = np.full(40 * SAMPLE_RATE_HZ, 0.1, dtype=np.float32)
    ((stretch, samples),) = analysis.push(tone)
    assert 29.9 < stretch.n_samples / SAMPLE_RATE_HZ <= 30.0
    assert log_mel(samples, 80).shape == (80, -(-len(samples) // 160))
    assert log_mel(silence(31.0), 80).shape == (80, 3_000)
