"""PCM encodings against known values, and their diagnosis on real speech."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from engine.types import FloatArray
from realtime.audioformat import FORMATS, MIN_WORDS, SCALED, container, diagnose, format_named, informative

SAMPLES = Path(__file__).parent.parent / "engine" / "demo_model" / "samples"


def speech(name: str, gain: float = 1.0) -> FloatArray:
    """A real recording, 16 kHz mono, on the grid of int16."""
    samples, rate_hz = soundfile.read(SAMPLES / name, dtype="float32")
    assert rate_hz == 16_000
    return np.asarray(np.clip(np.rint(samples * gain * 32_768), -32_768, 32_767) / 32_768, np.float32)


def nearest(table: FloatArray, samples: FloatArray) -> bytes:
    """The codes whose table values come nearest."""
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:] + table[order][:-1]) / 2
    return order[np.searchsorted(middles, samples)].astype(np.uint8).tobytes()


def encode(name: str, samples: FloatArray) -> bytes:
    """Samples as bytes of an encoding, those included that nobody can declare."""
    int16 = np.rint(samples * 32_768).clip(-32_768, 32_767)
    if name in ("mulaw", "alaw"):
        return nearest(FORMATS[format_named(name) or "mulaw"].decode(bytes(range(256))), samples)
    if name == "dithered float32":
        dither = np.random.default_rng(1).uniform(-0.5, 0.5, len(samples))
        return ((int16 + dither) / 32_768).astype("<f4").tobytes()
    return {
        "float32": lambda: samples.astype("<f4").tobytes(),
        "scaled float32": lambda: int16.astype("<f4").tobytes(),
        "int16": lambda: int16.astype("<i2").tobytes(),
        "big-endian int16": lambda: int16.astype(">i2").tobytes(),
        "uint8": lambda: np.rint(samples * 128 + 128).clip(0, 255).astype(np.uint8).tobytes(),
    }[name]()


@pytest.mark.parametrize("name, subtype", [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_agrees_with_libsndfile_on_every_code(name: str, subtype: str) -> None:
    codes = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(codes), format="RAW", subtype=subtype, samplerate=8_000, channels=1, dtype="float32"
    )
    np.testing.assert_array_equal(FORMATS["mulaw" if name == "mulaw" else "alaw"].decode(codes), expected)


def test_g711_values_of_the_recommendation() -> None:
    # Table 2a: 14-bit decoder outputs y0, y1, y127, y128 and both zeros.
    mulaw = FORMATS["mulaw"].decode(bytes([0xFF, 0xFE, 0x80, 0x00, 0x7F])) * 8_192
    assert mulaw.tolist() == [0, 2, 8_031, -8_031, 0]
    # Table 1a: 13-bit decoder outputs y1, y128 and their negatives, even bits inverted.
    alaw = FORMATS["alaw"].decode(bytes([0xD5, 0xAA, 0x55, 0x2A])) * 4_096
    assert alaw.tolist() == [1, 4_032, -1, -4_032]


def test_linear_encodings_at_their_ends() -> None:
    assert FORMATS["int16"].decode(b"\x00\x80\xff\xff\x00\x00\xff\x7f").tolist() == [
        -1.0, -1 / 32_768, 0.0, 32_767 / 32_768,
    ]  # fmt: skip
    assert FORMATS["uint8"].decode(b"\x00\x80\xff").tolist() == [-1.0, 0.0, 127 / 128]
    assert FORMATS["float32"].decode(np.array([1.5, -0.25], "<f4").tobytes()).tolist() == [1.5, -0.25]
    assert SCALED.decode(np.array([32_767, -32_768], "<f4").tobytes()).tolist() == [32_767 / 32_768, -1.0]


@pytest.mark.parametrize("name, limit", [("float32", 1e4), ("scaled", 65_536.0)])
def test_garbage_becomes_nan_from_one_past_the_limit(name: str, limit: float) -> None:
    past = np.nextafter(np.float32(limit), np.float32(np.inf))
    values = np.array([limit, -limit, past, -past, np.inf, -np.inf, np.nan, 1e38], "<f4")
    decoded = (SCALED if name == "scaled" else FORMATS["float32"]).decode(values.tobytes())
    assert np.isnan(decoded).tolist() == [False, False, True, True, True, True, True, True]


def test_signalling_nans_and_denormals_raise_no_warning() -> None:
    words = np.array([0x7F800001, 0xFF800001, 0x00000001, 0x80000001], "<u4").tobytes()
    for each in (FORMATS["float32"], SCALED):
        assert np.isnan(each.decode(words)).tolist() == [True, True, False, False]
    assert diagnose(words * 100, FORMATS["float32"]) is FORMATS["int16"]


def test_names_and_aliases() -> None:
    assert [format_named(name) for name in FORMATS] == list(FORMATS)
    assert format_named(" G711_ULAW ") == "mulaw"
    assert format_named("opus") is None


def test_containers_are_recognised_by_their_first_bytes() -> None:
    assert container((SAMPLES / "hello_en.wav").read_bytes()) == "a WAV file"
    assert container(b"\x1aE\xdf\xa3") == "a WebM or Matroska file"
    assert container(bytes(4)) is None


def test_words_without_information() -> None:
    words = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 1, 0x7FC00001], "<u4")
    assert informative(words.tobytes()).tolist() == [False] * 6 + [True] * 2


def test_evidence_at_the_limit_and_one_below_it() -> None:
    word = np.array([0.25], "<f4").tobytes()
    assert diagnose(word * MIN_WORDS, FORMATS["int16"]) is FORMATS["float32"]
    assert diagnose(word * (MIN_WORDS - 1) + bytes(4_000), FORMATS["int16"]) is None


@pytest.mark.parametrize("declared", ["float32", "int16"])
def test_honest_oddities_change_nothing(declared: str) -> None:
    """What honest float32 senders emit besides speech is never taken for int16."""
    this = FORMATS["float32"] if declared == "float32" else FORMATS["int16"]
    rng = np.random.default_rng(0)
    decay = (1e-30 * 0.9 ** np.arange(1_600) * rng.standard_normal(1_600)).astype("<f4")
    square = np.sign(rng.standard_normal(1_600)).astype("<f4")
    for oddity in (decay, square):
        assert diagnose(oddity.tobytes(), this) is None
    half_nan = np.where(np.arange(1_600) % 2, 0.1 * rng.standard_normal(1_600), np.nan).astype("<f4")
    assert diagnose(half_nan.tobytes(), this) is FORMATS["float32"]
    loud = (4 * rng.standard_normal(1_600)).astype("<f4")
    assert diagnose(loud.tobytes(), this) is FORMATS["float32"]
    offset = (40 + rng.standard_normal(3_200)).astype("<i2")
    assert diagnose(offset.tobytes(), this) is None
