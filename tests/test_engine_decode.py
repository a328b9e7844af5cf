"""Files that have to decode, wholly or in part."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.decode import MediaDecoder
from engine.decode_media import MAX_OGG_LINKS, ogg_links
from engine.types import FloatArray
from tests.fakes.media import HELLO, ROOT, encoded, likeness, muxed, tone, wav_header, with_subtitles, without_length

SAMPLES = sorted((ROOT / "engine/demo_model/samples").glob("*.wav"))
SPEECH = sorted((ROOT / "engine/demo_model/speech").glob("*.flac"))


@pytest.fixture(scope="module")
def decoder() -> Iterator[MediaDecoder]:
    with MediaDecoder() as shared:
        yield shared


@pytest.fixture(scope="module")
def hello() -> FloatArray:
    return np.asarray(soundfile.read(HELLO, dtype="float32")[0], dtype=np.float32)


# --- what has to decode ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*SAMPLES, *SPEECH], ids=lambda path: path.name)
def test_shipped_recordings_decode_bit_exactly(decoder: MediaDecoder, path: Path) -> None:
    expected, rate = soundfile.read(path, dtype="float32")
    found = decoder.decode(path)
    assert rate == 16_000
    np.testing.assert_array_equal(found.samples, expected)
    assert found.samples.dtype == np.float32 and found.samples.flags.writeable
    assert found.duration_s == len(expected) / 16_000
    assert found.warnings == ()


FORMATS = [
    ("wav", "pcm_s16le", 44_100),
    ("w64", "pcm_s16le", 44_100),
    ("aiff", "pcm_s16be", 44_100),
    ("caf", "pcm_s16le", 44_100),
    ("au", "pcm_s16be", 8_000),
    ("flac", "flac", 48_000),
    ("ogg", "libopus", 48_000),
    ("opus", "libopus", 48_000),
    ("webm", "libopus", 48_000),
    ("mp3", "libmp3lame", 44_100),
    ("mp2", "mp2", 44_100),
    ("mp4", "aac", 44_100),
    ("mov", "alac", 44_100),
    ("adts", "aac", 44_100),
    ("mpegts", "aac", 44_100),
    ("flv", "aac", 44_100),
    ("avi", "mp3", 44_100),
    ("ac3", "ac3", 48_000),
    ("wv", "wavpack", 44_100),
]


@pytest.mark.parametrize(("container", "codec", "rate"), FORMATS, ids=lambda value: str(value))
def test_speech_survives_every_format(
    decoder: MediaDecoder, hello: FloatArray, container: str, codec: str, rate: int
) -> None:
    found = decoder.decode(muxed(hello, container, codec, rate))
    assert abs(found.duration_s - len(hello) / 16_000) < 0.06
    assert abs(len(found.samples) - found.duration_s * 16_000) <= 1
    assert likeness(found.samples, hello) > 0.9
    assert found.warnings == ()
    assert found.container and found.codec


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "GSM610"]
)
def test_wav_flavours(decoder: MediaDecoder, subtype: str) -> None:
    found = decoder.decode(encoded(tone(1.0, 8_000), 8_000, "WAV", subtype))
    assert abs(found.duration_s - 1.0) < 0.05
    assert 0.15 < float(np.sqrt(np.mean(found.samples**2))) < 0.3
    assert found.warnings == ()


def test_speech_beside_subtitles(decoder: MediaDecoder, hello: FloatArray) -> None:
    found = decoder.decode(with_subtitles(hello))
    assert len(found.samples) == len(hello)
    assert found.warnings == ()


def test_ogg_vorbis(decoder: MediaDecoder, hello: FloatArray) -> None:
    found = decoder.decode(encoded(hello, 16_000, "OGG", "VORBIS"))
    assert found.codec == "vorbis"
    assert likeness(found.samples, hello) > 0.9


@pytest.mark.parametrize("container", ["WAV", "CAF"])  # libsndfile, FFmpeg
def test_channels_are_averaged(decoder: MediaDecoder, container: str) -> None:
    both = np.concatenate([tone(0.5), 0.5 * tone(0.5, hz=880.0)], axis=1)
    found = decoder.decode(encoded(both, 16_000, container, "FLOAT"))
    np.testing.assert_allclose(found.samples, both.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_resampled_length_and_pitch_are_exact(decoder: MediaDecoder, rate: int) -> None:
    found = decoder.decode(encoded(tone(2.0, rate), rate))
    assert len(found.samples) == 32_000
    spectrum = np.abs(np.fft.rfft(found.samples))
    assert int(spectrum.argmax()) == 880  # 440 Hz in bins of 0.5 Hz


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_kind(decoder: MediaDecoder, kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    assert decoder.decode(kind(HELLO.read_bytes())).duration_s == pytest.approx(2.922, abs=1e-3)


def test_bytes_where_the_system_has_no_memory_files(decoder: MediaDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert decoder.decode(HELLO.read_bytes()).duration_s == pytest.approx(2.922, abs=1e-3)


def test_no_room_for_the_bytes_is_not_the_senders_fault() -> None:
    script = f"""
        import resource
        from pathlib import Path
        from engine.decode import MediaDecoder
        from engine.errors import EngineFailedError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        with MediaDecoder() as decoder:
            try:
                decoder.decode(Path({str(HELLO)!r}).read_bytes())
            except EngineFailedError as error:
                print(error)
    """
    command = [sys.executable, "-B", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("no room for the media file")


# --- what is only partly there ------------------------------------------------------------------


def cut_cases(hello: FloatArray) -> dict[str, tuple[bytes, float]]:
    """Name -> file that lost its end, seconds that are still in it."""
    wav = encoded(hello, 16_000)
    flac = encoded(hello, 16_000, "FLAC")
    mp3 = muxed(hello, "mp3", "libmp3lame", 44_100)
    opus = muxed(hello, "ogg", "libopus", 48_000)
    webm = muxed(hello, "webm", "libopus", 48_000)
    return {
        "wav": (wav[: len(wav) // 2], 1.4),
        "flac": (flac[: len(flac) // 2], 1.0),
        "mp3": (mp3[: len(mp3) // 2], 1.3),
        "opus": (opus[: len(opus) // 2], 0.9),
        "webm": (webm[: len(webm) // 2], 1.0),
    }


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus", "webm"])
def test_cut_file_gives_what_is_there_and_says_so(decoder: MediaDecoder, hello: FloatArray, name: str) -> None:
    data, seconds = cut_cases(hello)[name]
    found = decoder.decode(data)
    assert seconds < found.duration_s < 2.0
    assert likeness(found.samples, hello[: len(found.samples)]) > 0.9
    assert any(warning.startswith("truncated") for warning in found.warnings), found.warnings


def test_damage_in_the_middle_costs_only_the_damage(decoder: MediaDecoder, hello: FloatArray) -> None:
    flac = encoded(hello, 16_000, "FLAC")
    half = len(flac) // 2
    found = decoder.decode(flac[:half] + bytes(200) + flac[half + 200 :])
    assert 2.2 < found.duration_s < 3.0
    np.testing.assert_array_equal(found.samples[:12_000], hello[:12_000])
    np.testing.assert_array_equal(found.samples[-12_000:], hello[-12_000:])
    assert any(warning.startswith("damaged") for warning in found.warnings)


@pytest.mark.parametrize("placeholder", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_streamed_wav_with_placeholder_lengths(decoder: MediaDecoder, hello: FloatArray, placeholder: int) -> None:
    data = (hello * 32_768).astype("<i2").tobytes()
    found = decoder.decode(wav_header(1, 16_000, data, placeholder, placeholder))
    assert len(found.samples) == len(hello)
    assert found.warnings == ()


def test_flac_without_a_length(decoder: MediaDecoder, hello: FloatArray) -> None:
    found = decoder.decode(without_length(encoded(hello, 16_000, "FLAC")))
    np.testing.assert_array_equal(found.samples, hello)


def test_joined_files_are_decoded_to_the_end(decoder: MediaDecoder, hello: FloatArray) -> None:
    vorbis = encoded(tone(1.0, 44_100), 44_100, "OGG", "VORBIS")
    slower = encoded(tone(1.0, 22_050, 2), 22_050, "OGG", "VORBIS")
    opus = muxed(hello, "ogg", "libopus", 48_000)
    found = decoder.decode(vorbis + slower + opus)
    assert found.duration_s == pytest.approx(1.0 + 1.0 + 2.922, abs=0.05)
    assert likeness(found.samples[-len(hello) :], hello) > 0.9
    assert found.warnings == ("the sample rate changes to 22050 Hz", "the sample rate changes to 48000 Hz")


def test_track_that_appears_midway_costs_nothing(decoder: MediaDecoder) -> None:
    """PyAV raises IndexError at the end of such a file, when all has been read."""
    audio = bytearray(muxed(np.tile(tone(1.0)[:, 0], 100), "flv", "libmp3lame", 11_025))
    audio[4] = 4  # the header promises audio alone
    body = bytes.fromhex("17000000000142c00affe1000f6742c00ada0f0089f961000003000100") + bytes(8)
    tag = b"\x09" + len(body).to_bytes(3, "big") + (100_000).to_bytes(3, "big") + bytes(4) + body
    found = decoder.decode(bytes(audio) + 20 * (tag + len(tag).to_bytes(4, "big")))
    assert found.duration_s == pytest.approx(100.0, abs=0.3)
    assert found.warnings == ()


def test_joined_mp3_with_another_rate(decoder: MediaDecoder, hello: FloatArray) -> None:
    joined = muxed(hello, "mp3", "libmp3lame", 44_100) + muxed(hello, "mp3", "libmp3lame", 24_000)
    assert decoder.decode(joined).duration_s > 2 * 2.9


def test_ogg_links_at_the_cap_and_one_past(tmp_path: Path) -> None:
    def page(flags: int) -> bytes:
        return b"OggS\0" + bytes([flags]) + bytes(20) + b"\1\1x"

    for links in (1, 2, MAX_OGG_LINKS, MAX_OGG_LINKS + 1):
        file = tmp_path / "links.ogg"
        file.write_bytes((page(2) + page(0)) * links)
        with file.open("rb") as opened:
            starts, _ = ogg_links(opened.fileno(), file.stat().st_size)
        assert len(starts) == min(links, MAX_OGG_LINKS)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_numbers_that_are_none_become_silence(decoder: MediaDecoder, subtype: str) -> None:
    samples = tone(1.0, 44_100).astype(np.float64)
    samples[10_000:10_004, 0] = [np.nan, np.inf, -np.inf, 1e30]
    found = decoder.decode(encoded(samples.astype(np.float64), 44_100, "WAV", subtype))
    assert np.isfinite(found.samples).all()
    assert float(np.abs(found.samples).max()) <= 1.0
    assert found.warnings == ("samples that are no numbers were replaced by silence",)
