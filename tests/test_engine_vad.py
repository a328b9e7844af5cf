"""Voice activity with carried state equals faster-whisper's run over the whole recording."""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from faster_whisper.vad import get_vad_model
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import FloatArray
from engine.vad import VAD_FRAME_SAMPLES, SileroDetector
from tests.test_engine_mel import SAMPLES


@functools.cache
def recording() -> FloatArray:
    samples, _ = soundfile.read(SAMPLES / "hello_en.wav", dtype="float32")
    return np.asarray(samples[: len(samples) // VAD_FRAME_SAMPLES * VAD_FRAME_SAMPLES], dtype=np.float32)


@functools.cache
def expected() -> tuple[float, ...]:
    return tuple(np.asarray(get_vad_model()(recording().copy())).reshape(-1).tolist())


def detect(cuts: list[int]) -> list[float]:
    detector = SileroDetector()
    places = [0, *sorted(cut for cut in cuts if cut < len(recording())), len(recording())]
    return [p for begin, end in pairwise(places) for p in detector.push(recording()[begin:end])]


def test_equals_faster_whisper() -> None:
    probabilities = detect([])
    assert len(probabilities) == len(recording()) // VAD_FRAME_SAMPLES
    assert probabilities == pytest.approx(expected(), abs=1e-5)
    # It is a recording of speech between silences: the comparison is not one of zeros.
    assert max(probabilities) > 0.95
    assert min(probabilities) < 0.05


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 46_000), max_size=20) | st.integers(200, 5_000).map(lambda n: list(range(0, 46_000, n))))
def test_any_chunking_gives_the_same(cuts: list[int]) -> None:
    assert detect(cuts) == pytest.approx(expected(), abs=1e-4)


def test_a_frame_is_judged_when_it_is_complete() -> None:
    detector = SileroDetector()
    assert detector.push(recording()[:511]) == []
    assert len(detector.push(recording()[511:512])) == 1
    assert len(detector.push(recording()[512 : 512 * 3 + 511])) == 2
    assert detector.push(recording()[:0]) == []


def test_streams_do_not_mix() -> None:
    first, second = SileroDetector(), SileroDetector()
    heard = []
    for begin in range(0, len(recording()), 4_096):
        heard += first.push(recording()[begin : begin + 4_096])
        second.push(np.zeros(4_096, dtype=np.float32))
    assert heard == pytest.approx(expected(), abs=1e-4)


def test_one_long_push_is_as_good_as_many_short_ones() -> None:
    """Resets and pieces fall where they fall: what was pushed at once changes nothing."""
    rng = np.random.default_rng(3)
    speech = recording()
    audio = np.concatenate([speech, np.zeros(50_000, np.float32), speech, rng.normal(0, 1e-4, 40_000), speech])
    audio = audio.astype(np.float32)
    whole, pieces = SileroDetector(), SileroDetector()
    at_once = whole.push(audio)
    in_pieces = [p for at in range(0, len(audio), 5_000) for p in pieces.push(audio[at : at + 5_000])]
    assert len(at_once) == len(audio) // VAD_FRAME_SAMPLES
    assert np.allclose(at_once, in_pieces, atol=1e-4)
