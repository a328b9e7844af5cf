"""What counts as speech, told while reading: the same as faster-whisper says of the whole recording."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from faster_whisper.vad import VadOptions as PeerOptions
from faster_whisper.vad import get_speech_timestamps
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.recording_audio import CERTAIN_SILENCE, Analysis
from engine.recording_spans import MAX_HELD_S, SpeechSpans
from engine.recording_types import VadOptions
from engine.types import SAMPLE_RATE_HZ, FloatArray
from engine.vad import VAD_FRAME_SAMPLES, SileroDetector
from tests.fakes.demo_audio import samples
from tests.fakes.tones import silence

FRAME = VAD_FRAME_SAMPLES
OPTIONS: list[dict[str, Any]] = [
    {},
    {"min_silence_duration_ms": 500},
    {"min_silence_duration_ms": 160, "speech_pad_ms": 30, "max_speech_duration_s": 5.0},
    {"threshold": 0.7, "neg_threshold": 0.3, "min_silence_duration_ms": 300, "min_speech_duration_ms": 700},
    {"min_silence_duration_ms": 100, "speech_pad_ms": 0, "min_speech_duration_ms": 250},
    {"max_speech_duration_s": 8.0, "speech_pad_ms": 200},
]


@lru_cache(maxsize=1)
def speech() -> FloatArray:
    """40 s of speech, with pauses of up to 5 s between."""
    source = np.random.default_rng(0)
    parts = [[each.audio, silence(source.uniform(0, 5))] for each in samples()]
    return np.concatenate([part for pair in parts for part in pair])


@lru_cache(maxsize=1)
def heard() -> tuple[float, ...]:
    """Probabilities from a network whose state is never reset, as the peer's is not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.vad.QUIET_FRAMES", 10**9)
        return tuple(SileroDetector().push(np.pad(speech(), (0, -len(speech()) % FRAME))))


def joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch are one (but for a rounded half)."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and start - found[-1][1] <= 1:
            start = found.pop()[0]
        found.append((start, end))
    return found


def spans_of(probabilities: tuple[float, ...], n_samples: int, options: VadOptions, step: int = 1) -> list[Any]:
    spans = SpeechSpans(options)
    found = []
    for index, probability in enumerate(probabilities):
        spans.push(probability)
        if index % step == 0:
            found += spans.take()
            assert spans.needed_from <= (index + 1) * FRAME
    spans.finish(n_samples)
    return joined(found + spans.take())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("step", [1, 40])
def test_the_same_stretches_as_the_peer(options: dict[str, Any], step: int) -> None:
    peer = [(span["start"], span["end"]) for span in get_speech_timestamps(speech(), PeerOptions(**options))]
    assert len(peer) > 3
    assert spans_of(heard(), len(speech()), VadOptions(**options), step) == joined(peer)


def test_with_our_detector_no_speech_of_the_peer_is_missing() -> None:
    """Our detector forgets after a second of silence: it hears words that the peer's hears late or not at all."""
    options = {"min_silence_duration_ms": 500}
    peer = get_speech_timestamps(speech(), PeerOptions(**options))
    probabilities = tuple(SileroDetector().push(np.pad(speech(), (0, -len(speech()) % FRAME))))
    ours = spans_of(probabilities, len(speech()), VadOptions(**options))
    slack = SAMPLE_RATE_HZ // 10
    for span in peer:
        assert any(start <= span["start"] + slack and span["end"] - slack <= end for start, end in ours)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.0, 0.2, 0.4, 0.8])), min_size=1, max_size=30),
    st.sampled_from(OPTIONS),
)
def test_stretches_ascend_and_stay_inside(runs: list[tuple[int, float]], options: dict[str, Any]) -> None:
    probabilities = tuple(value for n, value in runs for _ in range(n))
    at = 0
    for start, end in spans_of(probabilities, len(probabilities) * FRAME, VadOptions(**options)):
        assert at <= start < end <= len(probabilities) * FRAME
        at = end


def test_little_is_undecided_while_speech_goes_on() -> None:
    spans = SpeechSpans(VadOptions(max_speech_duration_s=3_600.0))
    for probability in [0.9] * 50 + [0.0] * 10:
        spans.push(probability)
    for _ in range(10_000):
        spans.push(0.9)
    until = spans.take()[-1][1]
    assert 10_060 * FRAME - until <= (MAX_HELD_S + 1) * SAMPLE_RATE_HZ
    assert spans.needed_from >= until


@pytest.mark.parametrize("level", [1.0, 0.03, 0.003, 0.001])
def test_no_word_is_left_out_as_silence_however_quiet(level: float) -> None:
    for sample in (samples()[3], samples()[5]):
        long = np.concatenate([sample.audio, silence(20.0), sample.audio]) * np.float32(level)
        long += np.random.default_rng(0).normal(0, 2e-5, len(long)).astype(np.float32)
        analysis = Analysis(None, (), SileroDetector, 30.0)
        found = [each for at in range(0, len(long), 65_536) for each in analysis.push(long[at : at + 65_536])]
        pieces = [piece for stretch, _ in found + analysis.finish() for piece in stretch.pieces]
        second_s = len(sample.audio) / SAMPLE_RATE_HZ + 20.0
        for offset_s in (0.0, second_s):
            for _, start_s, end_s in sample.words:
                middle = (offset_s + (start_s + end_s) / 2) * SAMPLE_RATE_HZ
                assert any(start <= middle < end for start, end in pieces)
        assert analysis.kept_samples < len(long) - 10 * SAMPLE_RATE_HZ


@pytest.mark.parametrize(("silence_s", "is_left_out"), [(1.9, False), (2.1, True)])
def test_silence_is_left_out_from_two_seconds_on(silence_s: float, is_left_out: bool) -> None:
    n = round(silence_s * SAMPLE_RATE_HZ / FRAME)
    probabilities = (0.9,) * 50 + (0.1,) * n + (0.9,) * 50
    found = spans_of(probabilities, len(probabilities) * FRAME, CERTAIN_SILENCE)
    assert len(found) == (2 if is_left_out else 1)
