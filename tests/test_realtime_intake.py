"""From raw bytes to windows, with every sample accounted for."""

from __future__ import annotations

import numpy as np
import pytest

from engine.types import FloatArray
from realtime.intake import INGEST_S, Intake
from realtime.protocol import Handshake, VadParameters
from tests.fakes.engine import EnergyDetector
from tests.fakes.tones import silence, speak

S = 16_000
GATED = Handshake("u", use_vad=True)
UNGATED = Handshake("u", use_vad=False)


def intake(handshake: Handshake = GATED, max_backlog_s: float = 10.0) -> Intake:
    return Intake(handshake, max_backlog_s, EnergyDetector(), 80)


def raw(samples: FloatArray) -> bytes:
    return samples.astype("<f4").tobytes()


def test_speech_becomes_windows_and_silence_is_settled() -> None:
    audio, [word] = speak([7], lead_s=2.0, tail_s=2.0)
    stream = intake()
    stream.add(raw(audio))
    stream.pump(to_the_end=False)
    head = stream.head
    assert head is not None
    assert head.end is not None
    assert head.start / S < word.start_s < word.end_s < head.end / S
    assert stream.settle_silence() == head.start == stream.ledger.silent
    stream.window_done(head.end)
    assert stream.ledger.decoded == head.end - head.start
    assert stream.head is None
    assert stream.settle_silence() > head.end
    assert stream.settle_rest() == 0
    assert stream.ledger.buffered == stream.ledger.refused == 0


@pytest.mark.parametrize(("audio_format", "n_bytes"), [("float32", 4), ("int16", 2), ("uint8", 1), ("mulaw", 1)])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
def test_one_big_message_does_not_overfill_the_backlog(audio_format: str, n_bytes: int, rate_hz: int) -> None:
    handshake = Handshake("u", audio_format=audio_format, sample_rate_hz=rate_hz)  # type: ignore[arg-type]
    stream = intake(handshake, max_backlog_s=1.0)
    stream.add(bytes(n_bytes * rate_hz * 30))
    stream.pump(to_the_end=False)
    assert S <= stream.backlog_samples <= S * (1 + INGEST_S)
    assert stream.room_samples <= 0
    assert stream.has_raw
    stream.heard = stream.ledger.received
    assert stream.backlog_samples == 0
    assert stream.room_samples == S
    stream.pump(to_the_end=True)
    assert not stream.has_raw
    assert stream.ledger.received == pytest.approx(30 * S, abs=1)


def test_the_backlog_counts_from_what_was_heard_or_settled() -> None:
    stream = intake(UNGATED)
    stream.add(raw(silence(3.0)))
    stream.pump(to_the_end=False)
    assert stream.backlog_samples == 3 * S
    stream.heard = S
    assert stream.backlog_samples == 2 * S
    stream.ledger.settle_decoded(2 * S)
    assert stream.backlog_samples == S
    assert stream.room_samples == 9 * S


def test_the_last_window_is_closed_at_the_end() -> None:
    audio, _ = speak([7], lead_s=1.0, tail_s=0.0)
    stream = intake()
    stream.add(raw(audio[:-100]))
    stream.add(raw(audio[-100:]))
    stream.pump(to_the_end=True)
    head = stream.head
    assert head is not None
    assert head.end == len(audio) == stream.end_samples
    assert stream.window(head.start, head.end).shape == (80, -(-head.end // 160) - head.start // 160)
    stream.pump(to_the_end=True)
    assert stream.end_samples == len(audio)


def test_an_open_window_is_one_with_audio_in_it() -> None:
    stream = intake(UNGATED)
    assert not stream.has_open_window
    assert stream.head is None
    stream.add(raw(silence(0.1)))
    stream.pump(to_the_end=False)
    assert stream.has_open_window
    stream.close_window()
    assert not stream.has_open_window
    gated = intake()
    gated.add(raw(silence(0.1)))
    gated.pump(to_the_end=False)
    assert not gated.has_open_window


def test_what_is_refused_is_counted_wherever_it_waits() -> None:
    stream = intake(max_backlog_s=1.0)
    audio, _ = speak([1, 2, 3, 4, 5, 6], lead_s=0.0)
    stream.add(raw(audio) + b"\x00")
    stream.pump(to_the_end=False)
    taken = stream.ledger.received
    assert taken < len(audio)
    stream.add_late(bytes(4_000))
    stream.ledger.settle_decoded(100)
    assert stream.refuse_rest() == len(audio) + 1_000 - 100
    assert stream.ledger.received == len(audio) + 1_000
    assert stream.ledger.refused == len(audio) + 1_000 - 100
    assert stream.refuse_rest() == 0
    assert not stream.has_raw


def test_late_audio_after_a_complete_stream_is_all_that_is_refused() -> None:
    stream = intake()
    stream.add(raw(silence(1.0)))
    stream.pump(to_the_end=True)
    stream.add_late(bytes(6_400))
    assert stream.settle_rest() == 1_600
    assert (stream.ledger.silent, stream.ledger.refused) == (S, 1_600)


def test_frames_are_forgotten_on_request() -> None:
    stream = intake()
    stream.add(raw(silence(2.0)))
    stream.pump(to_the_end=False)
    stream.discard_before(S)
    with pytest.raises(ValueError, match="not in the buffer"):
        stream.window(S - 1, 2 * S)
    assert stream.window(S, 2 * S).shape == (80, 100)


def test_warnings_about_the_bytes() -> None:
    stream = intake()
    samples = np.zeros(S, dtype="<f4")
    samples[::100] = 0.1
    samples[500] = np.nan
    stream.add(samples.tobytes())
    stream.pump(to_the_end=True)
    [warning] = stream.take_warnings()
    assert "bad_audio" in warning
    assert stream.take_warnings() == ()


@pytest.mark.parametrize("asked_ms", [600, 60_000])
def test_padding_leaves_room_in_the_backlog(asked_ms: int) -> None:
    """Were the padding as long as the backlog, silence would fill it, and nothing would be read any more."""
    handshake = Handshake("u", use_vad=True, vad=VadParameters(speech_pad_ms=asked_ms))
    stream = intake(handshake, max_backlog_s=1.0)
    stream.add(raw(silence(10.0)))
    while stream.has_raw:
        stream.pump(to_the_end=False)
        stream.settle_silence()
        assert stream.room_samples > 0
    assert stream.ledger.received == 10 * S


@pytest.mark.parametrize(
    ("vad", "closes"),
    [
        (VadParameters(min_silence_duration_ms=200), True),
        (VadParameters(min_silence_duration_ms=1_000), False),
        (VadParameters(threshold=0.0), False),
        (VadParameters(neg_threshold=1.0), True),
    ],
)
def test_the_peers_wishes_reach_the_endpointer(vad: VadParameters, closes: bool) -> None:
    audio, _ = speak([7], lead_s=0.0, tail_s=0.8)
    stream = intake(Handshake("u", use_vad=True, vad=vad))
    stream.add(raw(audio))
    stream.pump(to_the_end=False)
    head = stream.head
    assert head is not None
    assert (head.end is not None) is closes
