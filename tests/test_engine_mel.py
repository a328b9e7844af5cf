"""Log-mel frames: those of faster-whisper, to the last bit the same however the audio is cut."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from faster_whisper.feature_extractor import FeatureExtractor
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mel import LogMelStream, mel_filters, window_features
from engine.types import FloatArray

SAMPLES = Path(__file__).parent.parent / "engine" / "demo_model" / "samples"


@functools.cache
def recording() -> FloatArray:
    """A shipped recording between stretches of silence, so that its borders are the same to everybody."""
    samples, rate_hz = soundfile.read(SAMPLES / "hello_en.wav", dtype="float32")
    assert rate_hz == 16_000
    quiet = np.zeros(480, dtype=np.float32)
    return np.concatenate([quiet, samples, quiet])


@functools.cache
def whole(n_mels: int, n_samples: int) -> FloatArray:
    stream = LogMelStream(n_mels)
    return np.concatenate([stream.push(recording()[:n_samples]), stream.tail()], axis=1)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_equals_faster_whisper(n_mels: int) -> None:
    expected = FeatureExtractor(feature_size=n_mels)(recording())
    features = window_features(whole(n_mels, len(recording())), 0)
    n_frames = features.shape[1]
    assert n_frames == -(-len(recording()) // 160)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected[:, :n_frames], rtol=0, atol=2e-5)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_equal_faster_whisper(n_mels: int) -> None:
    expected = FeatureExtractor(feature_size=n_mels).mel_filters
    assert mel_filters(n_mels).shape == (n_mels, 201)
    assert (mel_filters(n_mels).max(axis=1) > 0).all()
    np.testing.assert_allclose(mel_filters(n_mels), expected, rtol=0, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([80, 128]),
    st.integers(0, 48_000),
    st.lists(st.integers(0, 48_000), max_size=30) | st.integers(60, 5_000).map(lambda n: list(range(0, 48_000, n))),
)
def test_any_chunking_gives_the_same_bits(n_mels: int, n_samples: int, cuts: list[int]) -> None:
    samples = recording()[:n_samples]
    stream = LogMelStream(n_mels)
    places = [0, *sorted(cut for cut in cuts if cut < len(samples)), len(samples)]
    parts = [stream.push(samples[begin:end]) for begin, end in pairwise(places)]
    frames = np.concatenate([*parts, stream.tail()], axis=1)
    assert frames.shape == (n_mels, -(-len(samples) // 160))
    assert np.array_equal(frames, whole(n_mels, n_samples))


def test_tail_changes_nothing() -> None:
    stream, other = LogMelStream(80), LogMelStream(80)
    first, second = recording()[:10_123], recording()[10_123:]
    stream.push(first)
    other.push(first)
    assert stream.tail().shape[1] == 1
    assert np.array_equal(stream.tail(), stream.tail())
    assert np.array_equal(stream.push(second), other.push(second))


@pytest.mark.parametrize("n_samples", [0, 1, 159, 160, 161, 199, 200, 201, 399, 400, 401, 560])
def test_a_frame_for_every_hop_begun(n_samples: int) -> None:
    stream = LogMelStream(80)
    pushed = stream.push(np.ones(n_samples, dtype=np.float32))
    # A frame is complete when the 200 samples after its middle are there.
    assert pushed.shape == (80, max(0, 1 + (n_samples - 200) // 160))
    assert pushed.shape[1] + stream.tail().shape[1] == -(-n_samples // 160)


def test_silence_is_the_floor() -> None:
    frames = LogMelStream(80).push(np.zeros(16_000, dtype=np.float32))
    assert frames.shape == (80, 99)
    assert np.allclose(frames, -10.0, rtol=0, atol=1e-5)


def test_features_are_padded_with_their_own_silence() -> None:
    log_mel = np.full((80, 3), -9.0, dtype=np.float32)
    log_mel[0, 0] = 2.0
    features = window_features(log_mel, 5)
    assert features.shape == (80, 5)
    assert features.dtype == np.float32
    assert features.flags.c_contiguous
    # Clamped to 8 decades under the maximum, then (x + 4) / 4.
    assert features[0, 0] == pytest.approx((2.0 + 4) / 4)
    assert features[1:].max() == features.min() == pytest.approx((-6.0 + 4) / 4)
    assert (log_mel[1:] == -9.0).all()


def test_features_are_not_cut() -> None:
    assert window_features(np.zeros((80, 7), dtype=np.float32), 5).shape == (80, 7)


def test_features_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        window_features(np.zeros((80, 0), dtype=np.float32), 100)
