"""The audio buffer: windows by absolute sample, nothing forgotten unasked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.mel import LogMelStream
from engine.types import HOP_SAMPLES, MAX_FRAMES, FloatArray
from realtime.buffer import AudioBuffer

NOISE = np.random.default_rng(1).normal(0, 0.1, 40_000).astype(np.float32)


def whole(n_samples: int) -> FloatArray:
    stream = LogMelStream(80)
    return np.concatenate([stream.push(NOISE[:n_samples]), stream.tail()], axis=1)


def filled(n_samples: int = len(NOISE), chunk: int = 1_000) -> AudioBuffer:
    buffer = AudioBuffer(80)
    for at in range(0, n_samples, chunk):
        buffer.append(NOISE[at : min(n_samples, at + chunk)])
    return buffer


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40_000), st.data())
def test_windows_are_cuts_of_the_whole(n_samples: int, data: st.DataObject) -> None:
    buffer = filled(n_samples, data.draw(st.integers(50, 9_000)))
    end = data.draw(st.integers(1, n_samples))
    start = data.draw(st.integers(0, end - 1))
    buffer.discard_before(data.draw(st.integers(0, start)))
    window = buffer.window(start, end)
    assert window.flags.c_contiguous
    assert window.dtype == np.float32
    expected = whole(n_samples)[:, start // HOP_SAMPLES : -(-end // HOP_SAMPLES)]
    assert np.array_equal(window, expected)


def test_a_window_of_one_sample_is_one_frame() -> None:
    assert filled(1).window(0, 1).shape == (80, 1)
    assert filled().window(160, 161).shape == (80, 1)
    assert filled().window(159, 161).shape == (80, 2)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 4), (-1, 10), (0, 40_001), (40_000, 40_001)])
def test_windows_outside_of_the_audio_are_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="is not in the buffer"):
        filled().window(start, end)


def test_what_is_forgotten_is_gone() -> None:
    buffer = filled()
    buffer.discard_before(16_159)
    # Whole frames only: the frame of sample 16159 is the one at 16000.
    assert buffer.start_samples == 16_000
    assert buffer.window(16_000, 16_160).shape == (80, 1)
    with pytest.raises(ValueError, match="is not in the buffer"):
        buffer.window(15_999, 16_160)
    buffer.discard_before(0)
    assert buffer.start_samples == 16_000
    assert buffer.end_samples == len(NOISE)


def test_forgetting_everything_and_going_on() -> None:
    buffer = filled(16_000)
    buffer.discard_before(10**9)
    # Frames that are not complete yet cannot be forgotten.
    assert buffer.start_samples == 99 * HOP_SAMPLES
    buffer.append(NOISE[16_000:])
    assert np.array_equal(buffer.window(16_000, 40_000), whole(40_000)[:, 100:])


def test_the_longest_window_and_one_frame_more() -> None:
    buffer = AudioBuffer(80)
    for _ in range(31):
        buffer.append(np.zeros(16_000, dtype=np.float32))
    assert buffer.window(160, 160 + MAX_FRAMES * HOP_SAMPLES).shape == (80, MAX_FRAMES)
    with pytest.raises(ValueError, match="window of 3001 frames; legal: 1 to 3000"):
        buffer.window(160, 161 + MAX_FRAMES * HOP_SAMPLES)


def test_memory_is_what_is_kept() -> None:
    buffer = filled()
    assert buffer.size_bytes == 80 * 4 * (1 + (40_000 - 200) // 160)
    buffer.discard_before(32_000)
    assert buffer.size_bytes == 80 * 4 * (1 + (40_000 - 200) // 160 - 200)
    assert AudioBuffer(80).size_bytes == 0


def test_the_open_end_is_heard_as_if_silence_followed() -> None:
    buffer = filled(1_000)
    early = buffer.window(0, 1_000)
    assert np.array_equal(early, whole(1_000))
    buffer.append(NOISE[1_000:2_000])
    later = buffer.window(0, 1_000)
    assert np.array_equal(early[:, :6], later[:, :6])
    assert not np.array_equal(early, later)
