"""Audio bytes to samples: exact, blind to how bytes are cut, and hard to deceive."""

from __future__ import annotations

import functools
import itertools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInputError, BadStateError
from engine.types import FloatArray
from realtime.audioformat import FORMATS, SCALED, AudioFormat
from realtime.frames import HEADROOM, FrameDecoder
from tests.test_realtime_audioformat import SAMPLES, encode, speech

FLOATS = np.linspace(-0.9, 0.9, 3_200, dtype="<f4")
RECORDINGS = sorted(path.name for path in SAMPLES.glob("*.wav"))


def decode(decoder: FrameDecoder, data: bytes, cuts: list[int] | None = None) -> tuple[FloatArray, tuple[str, ...]]:
    """All samples and all warnings of `data` sent in pieces that end at `cuts`."""
    places = [0, *sorted(cuts or []), len(data)]
    outputs: list[FloatArray] = []
    warnings: list[str] = []
    for begin, end in pairwise(places):
        outputs.append(decoder.push(data[begin:end]))
        warnings.extend(decoder.take_warnings())
    outputs.append(decoder.flush())
    warnings.extend(decoder.take_warnings())
    assert decoder.samples_out == sum(map(len, outputs))
    assert decoder.pending_bytes == 0
    return np.concatenate(outputs), tuple(warnings)


@functools.cache
def streams() -> dict[str, bytes]:
    """Streams that exercise every branch: speech in all encodings, silence, clicks, garbage."""
    part = speech("hello_en.wav")[6_000:12_000]
    made = {name: encode(name, part) for name in ENCODINGS}
    click = np.zeros(6_000, "<f4")
    click[100] = 0.5
    holes = part.copy()
    holes[::50] = np.nan
    made |= {
        "late int16": bytes(5_000) + made["int16"],
        "late float32": bytes(5_002) + made["float32"],
        "sparse": click.tobytes() * 3 + made["int16"],
        "holes": holes.tobytes(),
        "all bad": np.full(9_000, np.nan, "<f4").tobytes() + made["float32"],
        "file": (SAMPLES / "hello_en.wav").read_bytes()[:9_001],
        "noise": np.random.default_rng(3).bytes(9_003),
        "short": made["int16"][4_000:4_301],
    }
    return made


ENCODINGS = [
    *("float32", "dithered float32", "scaled float32", "int16"),
    *("big-endian int16", "uint8", "mulaw", "alaw"),
]
STREAMS = [*ENCODINGS, *("late int16", "late float32", "sparse", "holes", "all bad", "file", "noise", "short")]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(STREAMS),
    st.sampled_from(list(FORMATS)),
    st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    st.lists(st.integers(0, 40_000), max_size=40) | st.integers(1, 700).map(lambda size: list(range(0, 40_000, size))),
)
def test_output_and_warnings_do_not_depend_on_the_cuts(
    stream: str, declared: AudioFormat, rate_hz: int, cuts: list[int]
) -> None:
    data = streams()[stream]
    whole, whole_warnings = decode(FrameDecoder(declared, rate_hz), data)
    parts, warnings = decode(FrameDecoder(declared, rate_hz), data, [cut for cut in cuts if cut <= len(data)])
    np.testing.assert_array_equal(parts, whole)
    assert warnings == whole_warnings
    assert np.isfinite(whole).all()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(list(FORMATS)), st.integers(8_000, 48_000))
def test_any_bytes_at_any_rate_are_decoded(data: bytes, declared: AudioFormat, rate_hz: int) -> None:
    decoder = FrameDecoder(declared, rate_hz)
    samples, _ = decode(decoder, data, list(range(len(data))))
    assert np.isfinite(samples).all()
    assert abs(len(samples) - len(data) / FORMATS[declared].bytes_per_sample * 16_000 / rate_hz) <= 2 + len(data) / 4


@pytest.mark.parametrize("name", list(FORMATS))
def test_speech_comes_out_as_it_went_in(name: AudioFormat) -> None:
    original = speech("hello_en.wav")
    decoder = FrameDecoder(name, 16_000)
    samples, warnings = decode(decoder, encode(name, original))
    assert warnings == () and decoder.bad_samples == 0 and decoder.format_name == name
    tolerance = {"float32": 0.0, "int16": 0.0, "uint8": 0.006}.get(name, 0.02)
    np.testing.assert_allclose(samples, original, atol=tolerance)


@pytest.mark.parametrize("recording", RECORDINGS)
@pytest.mark.parametrize("gain", [0.05, 1.0, 4.0])
def test_encodings_are_told_apart_on_real_speech(recording: str, gain: float) -> None:
    """8 encodings x 2 declarations, the stream beginning at every half second of the recording."""
    original = speech(recording, gain)
    found = {"float32": "float32", "dithered float32": "float32", "scaled float32": SCALED.name, "int16": "int16"}
    declarations: tuple[AudioFormat, ...] = ("float32", "int16")
    stretches = [original[begin : begin + 16_000] for begin in range(0, len(original) - 16_000, 8_000)]
    audible = [stretch for stretch in stretches if stretch.any()]
    assert len(audible) >= 2
    for stretch, name, declared in itertools.product(audible, ENCODINGS, declarations):
        decoder = FrameDecoder(declared, 16_000)
        decode(decoder, encode(name, stretch))
        if name in found:
            assert decoder.format_name == found[name], (name, declared)
        elif declared == "int16":
            # 8-bit and big-endian audio cannot be told from int16; it stays what was said.
            assert decoder.format_name == "int16", name


@pytest.mark.parametrize("name", ["uint8", "mulaw", "alaw", "big-endian int16"])
def test_what_is_neither_float32_nor_int16_is_at_least_warned_of(name: str) -> None:
    for recording in RECORDINGS:
        _, warnings = decode(FrameDecoder("float32", 16_000), encode(name, speech(recording)))
        assert any("float32 was declared" in warning for warning in warnings), recording


def test_int16_declared_float32_loses_nothing_and_keeps_the_clock() -> None:
    original = np.concatenate([np.zeros(40_000, np.float32), speech("hello_en.wav")])
    decoder = FrameDecoder("float32", 16_000)
    samples, warnings = decode(decoder, encode("int16", original), list(range(0, 90_000, 1_001)))
    np.testing.assert_array_equal(samples, original)
    assert warnings == (
        "audio_format: float32 was declared, but the bytes do not look like it; they are read as int16",
    )
    assert decoder.samples_for_bytes(100) == 50


def test_float32_declared_int16_loses_nothing() -> None:
    original = speech("hello_en.wav")
    samples, warnings = decode(FrameDecoder("int16", 16_000), encode("float32", original))
    silent = int(np.flatnonzero(original)[0])
    # Silence before the first sound was let out as int16, twice as many samples.
    np.testing.assert_array_equal(samples[silent:], original)
    assert len(warnings) == 1 and "read as float32" in warnings[0]


def test_silence_is_let_out_at_once_and_sound_after_a_tenth_of_a_second() -> None:
    decoder = FrameDecoder("float32", 16_000)
    assert len(decoder.push(bytes(64_000))) == 16_000
    assert decoder.push(FLOATS[:1_599].tobytes()).size == 0
    assert decoder.pending_bytes == 1_599 * 4
    assert decoder.push(FLOATS[1_599:1_600].tobytes()).size == 1_600
    assert decoder.pending_bytes == 0
    assert decoder.push(FLOATS[:1].tobytes()).size == 1


def test_sparse_sound_is_held_for_a_second_and_proves_nothing() -> None:
    click = np.zeros(16_000, "<f4")
    click[0] = np.float32(1e30)
    decoder = FrameDecoder("float32", 16_000)
    assert decoder.push(click[:-1].tobytes()).size == 0
    assert decoder.push(click[-1:].tobytes()).size == 16_000
    assert decoder.push(encode("int16", speech("hello_en.wav"))).size > 0
    assert decoder.format_name == "int16"


def test_silence_owed_after_a_wrong_declaration_is_bounded() -> None:
    sound = encode("int16", speech("hello_en.wav")[8_000:16_000])
    for silent_s, total_s in ((60, 120), (61, 121)):
        samples, _ = decode(FrameDecoder("float32", 16_000), bytes(silent_s * 64_000) + sound)
        assert len(samples) == total_s * 16_000 + 8_000


def test_bad_samples_become_silence_and_are_counted_and_told_once() -> None:
    samples = np.tile(FLOATS, 10)
    bad = [5_000, 7_000, 20_000, 20_001]
    samples[bad] = [np.nan, np.inf, -1e38, 10_001]
    decoder = FrameDecoder("float32", 16_000)
    output, warnings = decode(decoder, samples.tobytes())
    samples[bad] = 0
    np.testing.assert_array_equal(output, samples)
    assert decoder.bad_samples == 4
    assert warnings == ("bad_audio: sample 5000 is no finite number below 1e4; such samples become silence",)


@pytest.mark.parametrize("n_bad, expected", [(160, 1), (161, 2)])
def test_more_than_one_percent_of_bad_samples_in_a_second_is_told(n_bad: int, expected: int) -> None:
    samples = np.tile(FLOATS, 20)
    samples[32_000 : 32_000 + n_bad] = np.nan
    _, warnings = decode(FrameDecoder("float32", 16_000), samples.tobytes(), [130_001])
    assert len(warnings) == expected
    assert expected == 1 or warnings[1] == "bad_audio: more than 1% of the samples of second 2 are garbage"


def test_levels_over_full_scale_are_kept_up_to_the_headroom() -> None:
    values = np.tile(np.array([1.0, -3.5, HEADROOM, -HEADROOM, 8.001, -9_999.0], "<f4"), 1_000)
    expected = np.clip(values, -HEADROOM, HEADROOM)
    quiet = np.tile(FLOATS, 2)
    output, _ = decode(FrameDecoder("float32", 16_000), quiet.tobytes() + values.tobytes())
    np.testing.assert_array_equal(output[len(quiet) :], expected)


def test_a_file_instead_of_samples_is_told() -> None:
    _, warnings = decode(FrameDecoder("int16", 16_000), (SAMPLES / "hello_en.wav").read_bytes(), [1, 3, 4])
    assert warnings == ("the audio begins like a WAV file; raw samples are expected, without any container",)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 32_000, 44_100, 47_999, 48_000])
def test_resampling_keeps_tones_in_place(rate_hz: int) -> None:
    seconds = np.arange(2 * rate_hz) / rate_hz
    tone = (0.5 * np.sin(2 * np.pi * 440 * seconds)).astype("<f4")
    output, _ = decode(FrameDecoder("float32", rate_hz), tone.tobytes())
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(output)) / 16_000)
    assert len(output) == 32_000
    np.testing.assert_allclose(output[1_600:-1_600], expected[1_600:-1_600], atol=2e-4)


def test_the_clock_is_exact_after_an_hour_of_44100_hz() -> None:
    decoder = FrameDecoder("int16", 44_100)
    ten_seconds = encode("int16", 0.1 * np.sin(np.arange(441_000) / 30).astype(np.float32))
    most_behind = 0
    for tens in range(1, 361):
        decoder.push(ten_seconds)
        most_behind = max(most_behind, tens * 160_000 - decoder.samples_out)
    decoder.flush()
    assert abs(decoder.samples_out - 3_600 * 16_000) <= 1
    assert most_behind < 0.06 * 16_000


def test_odd_bytes_at_the_end_are_dropped() -> None:
    samples, _ = decode(FrameDecoder("int16", 16_000), b"\x01\x00\x02")
    assert samples.tolist() == [1 / 32_768]


def test_nothing_in_nothing_out() -> None:
    for rate_hz in (16_000, 44_100):
        assert decode(FrameDecoder("float32", rate_hz), b"")[0].size == 0


def test_flush_ends_the_stream_and_may_be_repeated() -> None:
    decoder = FrameDecoder("int16", 16_000)
    assert decoder.push(memoryview(b"\x00\x01\x00\x01")).size == 0
    assert decoder.flush().size == 2
    assert decoder.flush().size == 0
    with pytest.raises(BadStateError, match="after its end"):
        decoder.push(b"\x00")


@pytest.mark.parametrize(
    "name, rate_hz, n_bytes, n_samples",
    [
        ("float32", 16_000, 7, 1), ("int16", 16_000, 7, 3), ("mulaw", 8_000, 7, 14),
        ("int16", 48_000, 600, 100), ("int16", 44_100, 882, 160), ("float32", 16_000, 0, 0),
    ],
)  # fmt: skip
def test_samples_for_bytes(name: AudioFormat, rate_hz: int, n_bytes: int, n_samples: int) -> None:
    assert FrameDecoder(name, rate_hz).samples_for_bytes(n_bytes) == n_samples


@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_rates_at_the_limit_and_one_past_it(rate_hz: int) -> None:
    assert FrameDecoder("uint8", rate_hz).push(b"\x80").size == 0
    with pytest.raises(BadInputError, match="sample_rate_hz"):
        FrameDecoder("uint8", rate_hz + (1 if rate_hz == 48_000 else -1))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(BadInputError, match="audio_format"):
        FrameDecoder("mp3", 16_000)  # type: ignore[arg-type]
