"""The caps of the media decoder, at the limit and one past it; what is no audio at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.decode import DecodeLimitError, DecodeLimits, MediaDecoder
from engine.decode_wire import LONGEST_S
from engine.errors import BadAudioError, BadInputError
from tests.fakes.media import HELLO, encoded, tone, wav_header


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as shared:
        yield shared


@pytest.mark.parametrize("container", ["WAV", "FLAC", "CAF"])
def test_duration_cap(decoder: MediaDecoder, container: str) -> None:
    at_limit = encoded(tone(2.0), 16_000, container)
    past = encoded(np.concatenate([tone(2.0), tone(1 / 16_000)]), 16_000, container)
    assert decoder.decode(at_limit, max_duration_s=2.0).duration_s == 2.0
    with pytest.raises(DecodeLimitError, match=r"longer than the limit of 2 s"):
        decoder.decode(past, max_duration_s=2.0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), LONGEST_S + 1])
def test_duration_cap_must_make_sense(decoder: MediaDecoder, value: float) -> None:
    with pytest.raises(BadInputError, match="max_duration_s"):
        decoder.decode(b"", max_duration_s=value)
    assert DecodeLimits(max_duration_s=LONGEST_S).max_duration_s == LONGEST_S


@pytest.mark.parametrize(
    ("channels", "rate", "legal"),
    [
        (8, 16_000, True),
        (9, 16_000, False),
        (1_000, 16_000, False),
        (1, 8_000, True),
        (1, 7_999, False),
        (1, 1, False),
        (1, 192_000, True),
        (1, 192_001, False),
    ],
)
@pytest.mark.parametrize("length", [None, 0], ids=["libsndfile", "ffmpeg"])
def test_shape_caps(decoder: MediaDecoder, channels: int, rate: int, legal: bool, length: int | None) -> None:
    data = wav_header(channels, rate, bytes(2 * channels * 8_000), length, length)
    if legal:
        assert decoder.decode(data).duration_s == pytest.approx(8_000 / rate)
    else:
        with pytest.raises(BadAudioError, match=rf"{channels if channels > 8 else rate}|no audio"):
            decoder.decode(data)


def test_input_size_cap(tmp_path: Path) -> None:
    data = HELLO.read_bytes()
    path = tmp_path / "hello.wav"
    path.write_bytes(data)
    with MediaDecoder(DecodeLimits(max_input_bytes=len(data))) as enough:
        assert enough.decode(data).duration_s == enough.decode(path).duration_s
    with MediaDecoder(DecodeLimits(max_input_bytes=len(data) - 1)) as small:
        for source in (data, path):
            with pytest.raises(DecodeLimitError, match=f"{len(data)} bytes; the limit is {len(data) - 1}"):
                small.decode(source)


def test_memory_cap() -> None:
    wide = encoded(tone(0.5, 192_000, 8), 192_000)
    with MediaDecoder() as enough, MediaDecoder(DecodeLimits(memory_bytes=5 << 19)) as small:
        assert enough.decode(wide).duration_s == 0.5
        with pytest.raises(DecodeLimitError, match="limit of 2 MiB of memory"):
            small.decode(wide)


def test_native_code_that_ignores_a_refused_allocation_ends_alone() -> None:
    wide = encoded(tone(0.5, 192_000, 8), 192_000)
    with MediaDecoder(DecodeLimits(memory_bytes=1 << 20)) as small:  # too little for the resampler's tables
        with pytest.raises(BadAudioError, match=r"signal SIGSEGV|limit of 1 MiB of memory"):
            small.decode(wide)
        assert small.decode(HELLO.read_bytes()).duration_s > 1


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"fLaC", b"OggS", b"hello, world" * 99, b"\x89PNG\r\n\x1a\n" + bytes(99)]
)
def test_what_is_no_audio_is_refused(decoder: MediaDecoder, data: bytes) -> None:
    with pytest.raises(BadAudioError) as caught:
        decoder.decode(data)
    assert not isinstance(caught.value, DecodeLimitError)


def test_header_without_samples_is_no_success(decoder: MediaDecoder) -> None:
    with pytest.raises(BadAudioError, match="no audio"):
        decoder.decode(wav_header(1, 16_000, b""))


def test_paths_that_cannot_be_read(decoder: MediaDecoder, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("absent.wav", "cannot be read"), ("pipe", "no regular file"), (".", "no regular file")):
        with pytest.raises(BadAudioError, match=reason):
            decoder.decode(tmp_path / name)
