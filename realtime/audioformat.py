"""Raw PCM encodings: their decoders, and the diagnosis of bytes that are not what they are said to be.

Five encodings can be declared. One more can only be diagnosed: float32 samples in the range of
int16, which senders make by a cast without a division.

Knows nothing of streams, rates or clocks. Everything works on the bit patterns of the samples, so
that signalling NaNs and denormals cost neither warnings nor time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.types import FloatArray

__all__ = [
    "FORMATS",
    "FULL_SCALE",
    "MAX_RATE_HZ",
    "MIN_RATE_HZ",
    "MIN_WORDS",
    "SCALED",
    "AudioFormat",
    "SampleFormat",
    "container",
    "diagnose",
    "format_named",
    "informative",
]

AudioFormat: TypeAlias = Literal["float32", "int16", "uint8", "mulaw", "alaw"]
BitArray: TypeAlias = npt.NDArray[np.uint32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

MIN_RATE_HZ = 8_000
"""Telephony; Whisper needs the band up to 4 kHz at least."""
MAX_RATE_HZ = 48_000
"""What sound cards and browsers run at; higher rates carry nothing that Whisper hears."""

FULL_SCALE = 32_768.0
"""The int16 value that stands for 1.0."""
MAX_HONEST_SAMPLE = 1e4
"""Magnitude beyond which a float32 sample is garbage: 80 dB over full scale."""
MIN_WORDS = 32
"""Fewer informative words than this (2 ms of float32 at 16 kHz) carry no diagnosis."""

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_QUIET_NAN = np.uint32(0x7FC00000)


def _bits(value: float) -> np.uint32:
    pattern: np.uint32 = np.float32(value).view(np.uint32)
    return pattern


@dataclass(frozen=True)
class SampleFormat:
    """One encoding: `decode` turns whole samples, little-endian, into float32 of full scale 1.

    If `is_float`, garbage is possible; `decode` marks it by NaN.
    """

    name: str
    bytes_per_sample: int
    decode: Callable[[bytes], FloatArray]
    is_float: bool = False


def _decode_float32(data: bytes) -> FloatArray:
    return _without_garbage(data, MAX_HONEST_SAMPLE)


def _decode_scaled(data: bytes) -> FloatArray:
    samples = _without_garbage(data, 2 * FULL_SCALE)
    samples /= np.float32(FULL_SCALE)
    return samples


def _without_garbage(data: bytes, limit: float) -> FloatArray:
    """Samples; those of a magnitude beyond `limit`, infinite or not a number become NaN."""
    bits = np.frombuffer(data, "<u4").astype(np.uint32)
    bits[(bits & _MAGNITUDE) > _bits(limit)] = _QUIET_NAN
    return bits.view(np.float32)


def _decode_int16(data: bytes) -> FloatArray:
    samples = np.frombuffer(data, "<i2").astype(np.float32)
    samples /= np.float32(FULL_SCALE)
    return samples


def _decode_uint8(data: bytes) -> FloatArray:
    samples = np.frombuffer(data, np.uint8).astype(np.float32)
    samples -= np.float32(128)
    samples /= np.float32(128)
    return samples


def _mulaw_table() -> FloatArray:
    """ITU-T G.711, table 2: 14-bit values; code bits are inverted; sign, 3 bits chord, 4 bits step."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    chord, step = (code >> 4) & 7, code & 15
    magnitude = ((2 * step + 33) << chord) - 33
    value = np.where(code & 0x80, -magnitude, magnitude)
    return (value / 8_192).astype(np.float32)


def _alaw_table() -> FloatArray:
    """ITU-T G.711, table 1: 13-bit values; even bits are inverted; sign, 3 bits chord, 4 bits step."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    chord, step = (code >> 4) & 7, code & 15
    # Chord 0 is linear like chord 1: same step size, no leading one.
    magnitude = np.where(chord == 0, 2 * step + 1, (2 * step + 33) << np.maximum(chord - 1, 0))
    value = np.where(code & 0x80, magnitude, -magnitude)
    return (value / 4_096).astype(np.float32)


_MULAW = _mulaw_table()
_ALAW = _alaw_table()


def _decode_mulaw(data: bytes) -> FloatArray:
    return _MULAW[np.frombuffer(data, np.uint8)]


def _decode_alaw(data: bytes) -> FloatArray:
    return _ALAW[np.frombuffer(data, np.uint8)]


FORMATS: Mapping[AudioFormat, SampleFormat] = MappingProxyType(
    {
        "float32": SampleFormat("float32", 4, _decode_float32, is_float=True),
        "int16": SampleFormat("int16", 2, _decode_int16),
        "uint8": SampleFormat("uint8", 1, _decode_uint8),
        "mulaw": SampleFormat("mulaw", 1, _decode_mulaw),
        "alaw": SampleFormat("alaw", 1, _decode_alaw),
    }
)
"""The encodings that a handshake can declare."""
SCALED = SampleFormat("float32 in the range of int16", 4, _decode_scaled, is_float=True)

_ALIASES: Mapping[str, AudioFormat] = {
    "f32": "float32", "f32le": "float32", "pcm_f32le": "float32", "float": "float32",
    "s16": "int16", "s16le": "int16", "pcm_s16le": "int16", "pcm16": "int16", "linear16": "int16",
    "u8": "uint8", "pcm_u8": "uint8",
    "mu-law": "mulaw", "ulaw": "mulaw", "pcmu": "mulaw", "pcm_mulaw": "mulaw", "g711_ulaw": "mulaw",
    "a-law": "alaw", "pcma": "alaw", "pcm_alaw": "alaw", "g711_alaw": "alaw",
}  # fmt: skip
"""Names of FFmpeg, RTP (RFC 3551), and hosted services for the same five encodings."""

_CONTAINERS: Mapping[bytes, str] = {
    b"RIFF": "a WAV file",
    b"\x1aE\xdf\xa3": "a WebM or Matroska file",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
}


def format_named(name: str) -> AudioFormat | None:
    """The encoding of this name or alias, whatever its case; None if there is none."""
    plain = name.strip().lower()
    for known in FORMATS:
        if plain == known:
            return known
    return _ALIASES.get(plain)


def container(head: bytes) -> str | None:
    """What kind of file begins with these four bytes, in words; None for raw samples."""
    return _CONTAINERS.get(head[:4])


def informative(data: bytes) -> BoolArray:
    """For each 4-byte word of `data` (a whole number of them): can it tell one encoding from another?

    Zeros of either sign, infinities and the usual NaN cannot: silence is alike in all encodings,
    and a broken audio graph may send the rest before it sends sound.
    """
    magnitude = np.frombuffer(data, "<u4") & _MAGNITUDE
    dull: BoolArray = (magnitude == 0) | (magnitude == _INFINITY) | (magnitude == _QUIET_NAN)
    return ~dull


def diagnose(data: bytes, declared: SampleFormat) -> SampleFormat | None:
    """Tell float32, int16 and `SCALED` apart by the exponents that words of `data` have as float32.

    Speech as float32 lies between 2**-30 and 16. Of int16 speech read as float32 hardly a quarter
    does: each sample after a positive one becomes a denormal or nearly so, each after a negative
    one becomes NaN or larger than 1e4. To overrule `declared` int16 takes 90 % of plausible words,
    to overrule float32 less than 50 %, and 1 % of garbage besides: tiny values alone may be a
    filter's decay.

    Measured on 2,200 stretches of real speech at three levels: plausible words 100 % for float32,
    0 to 23 % for int16. None: too little evidence, ask again with later bytes.
    """
    magnitude = (np.frombuffer(data, "<u4") & _MAGNITUDE)[informative(data)]
    if len(magnitude) < MIN_WORDS:
        return None
    needed = 0.5 if declared.name == "float32" else 0.9
    if _share(_looks_scaled(magnitude)) >= needed:
        # Full-scale squares and the last bit of an int16 are both nothing but ones.
        return SCALED if (magnitude > _bits(1.0)).any() else None
    if _share((magnitude >= _bits(2.0**-30)) & (magnitude <= _bits(16.0))) >= needed:
        return FORMATS["float32"]
    if _share(magnitude > _bits(MAX_HONEST_SAMPLE)) >= 0.01:
        return FORMATS["int16"]
    return None


def _looks_scaled(magnitude: BitArray) -> BoolArray:
    in_range = (magnitude >= _bits(1.0)) & (magnitude <= _bits(2 * FULL_SCALE))
    values = np.where(in_range, magnitude, np.uint32(0)).view(np.float32)
    scaled: BoolArray = in_range & ((values > np.float32(8)) | (values == np.rint(values)))
    return scaled


def _share(mask: BoolArray) -> float:
    return float(np.count_nonzero(mask)) / len(mask)
