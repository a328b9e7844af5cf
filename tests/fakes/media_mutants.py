"""Damaged media files, the same ones for the same seed, and what the decoder must make of each.

Honest files are made on the spot in the containers that people send; a mutant is one of them with bits turned, cut,
spliced with another, parts moved or repeated, or with lengths in its headers that lie.
"""

from __future__ import annotations

import functools
import random
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import soundfile

from engine.decode import DecodedAudio, DecodeLimitError, DecodeLimits, MediaDecoder
from engine.errors import BadAudioError
from tests.fakes.media import HELLO, encoded, muxed

__all__ = ["FUZZ_LIMITS", "Judged", "Mutant", "Outcome", "judge", "mutant", "seeds"]

FUZZ_LIMITS = DecodeLimits(max_duration_s=60.0, wall_s=10.0)
"""Small, so that a file that takes long is one that breaks a limit."""
SLACK_S = 5.0
"""For ending a child and starting the next one, on a busy machine."""
MAX_MESSAGE_CHARS = 300
"""Longest text that a refusal may show."""

Outcome: TypeAlias = Literal["audio", "damaged audio", "refused", "over a limit", "killed its decoder"]
_Dice: TypeAlias = random.Random

_LENGTHS = (0, 1, 2, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_MARKS = re.compile(
    rb"RIFF|fmt |data|LIST|fLaC|OggS|OpusHead|OpusTags|vorbis|ID3|Xing|Info|LAME|ftyp|moov|trak|mdia|stbl|stsd|stts|"
    rb"stsc|stsz|stco|mdat|esds|mdhd|elst|\x1a\x45\xdf\xa3|\x18\x53\x80\x67|\x16\x54\xae\x6b|\x1f\x43\xb6\x75|\xff\xfb"
)
"""Where headers of the containers above have their lengths nearby."""


@dataclass(frozen=True)
class Mutant:
    """A damaged file; `name` says what was done to what."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Judged:
    """What the decoder made of a file; `problem` None: it behaved."""

    outcome: Outcome | None
    took_s: float
    problem: str | None = None


@functools.cache
def seeds() -> dict[str, bytes]:
    """Honest files by container: 1.2 s of speech each."""
    speech = np.asarray(soundfile.read(HELLO, dtype="float32")[0][4_000:23_200], dtype=np.float32)
    files = {
        "wav": encoded(speech, 16_000),
        "wav float": encoded(speech, 16_000, "WAV", "FLOAT"),
        "wav adpcm": encoded(speech, 16_000, "WAV", "IMA_ADPCM"),
        "flac": encoded(speech, 16_000, "FLAC"),
        "ogg vorbis": encoded(speech, 16_000, "OGG", "VORBIS"),
    }
    for name, container, codec in (
        ("opus", "ogg", "libopus"),
        ("webm", "webm", "libopus"),
        ("mp3", "mp3", "libmp3lame"),
        ("m4a", "mp4", "aac"),
    ):
        files[name] = muxed(speech, container, codec, 48_000)
    return files


def mutant(seed: int, number: int) -> Mutant:
    """The mutant with this number; each container and each kind of damage comes by turns."""
    dice = random.Random(f"{seed}/{number}")
    files = list(seeds().items())
    container, data = files[number % len(files)]
    damage = _DAMAGES[number // len(files) % len(_DAMAGES)]
    changed = damage(bytearray(data), dice)
    if dice.random() < 0.2:
        changed = dice.choice(_DAMAGES)(changed, dice) if changed else changed
    return Mutant(f"{seed}-{number}-{container.replace(' ', '_')}-{damage.__name__.strip('_')}", bytes(changed))


def judge(decoder: MediaDecoder, data: bytes) -> Judged:
    """Decode a file and say how it ended; a decoder with FUZZ_LIMITS is meant."""
    began_s = time.monotonic()
    outcome: Outcome | None = None
    problem = None
    try:
        found = decoder.decode(data)
    except DecodeLimitError as error:
        outcome, problem = "over a limit", _problem_of(error)
    except BadAudioError as error:
        outcome = "killed its decoder" if "ended its decoder process" in str(error) else "refused"
        problem = _problem_of(error)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        outcome = "damaged audio" if found.warnings else "audio"
        problem = _problem_in(found, decoder.limits)
    took_s = time.monotonic() - began_s
    allowed_s = decoder.limits.work_s(decoder.limits.max_duration_s) + SLACK_S
    if problem is None and took_s > allowed_s:
        problem = f"took {took_s:.1f} s; allowed are {allowed_s:.1f} s"
    return Judged(outcome, took_s, problem)


def _problem_of(error: BadAudioError) -> str | None:
    return None if 0 < len(str(error)) <= MAX_MESSAGE_CHARS else f"a message of {len(str(error))} characters"


def _problem_in(found: DecodedAudio, limits: DecodeLimits) -> str | None:
    samples = found.samples
    if samples.dtype != np.float32 or samples.ndim != 1 or not samples.size:
        return f"samples of type {samples.dtype}, shape {samples.shape}"
    if not np.isfinite(samples).all() or float(np.abs(samples).max()) > 1.0:
        return "samples that are not within -1 and 1"
    if not 0 < found.duration_s <= limits.max_duration_s:
        return f"a duration of {found.duration_s} s"
    return None


def _place(data: bytearray, dice: _Dice) -> int:
    """Headers are hit as often as all the rest."""
    return dice.randrange(min(len(data), dice.choice((64, 1_024, len(data)))))


def _bits(data: bytearray, dice: _Dice) -> bytearray:
    for _ in range(dice.choice((1, 2, 8, 64, 512))):
        data[_place(data, dice)] ^= 1 << dice.randrange(8)
    return data


def _bytes(data: bytearray, dice: _Dice) -> bytearray:
    for _ in range(dice.choice((1, 4, 32))):
        data[_place(data, dice)] = dice.choice((0, 0x7F, 0x80, 0xFF, dice.randrange(256)))
    return data


def _truncated(data: bytearray, dice: _Dice) -> bytearray:
    del data[_place(data, dice) :]
    return data


def _beheaded(data: bytearray, dice: _Dice) -> bytearray:
    return data[_place(data, dice) :]


def _spliced(data: bytearray, dice: _Dice) -> bytearray:
    other = dice.choice(list(seeds().values()))
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


def _joined(data: bytearray, dice: _Dice) -> bytearray:
    return data + dice.choice(list(seeds().values()))


def _repeated(data: bytearray, dice: _Dice) -> bytearray:
    at, size = _place(data, dice), dice.choice((4, 188, 2_048))
    return data[:at] + data[at : at + size] * dice.choice((2, 50)) + data[at:]


def _removed(data: bytearray, dice: _Dice) -> bytearray:
    at = _place(data, dice)
    del data[at : at + dice.choice((1, 4, 100, 3_000))]
    return data


def _blank(data: bytearray, dice: _Dice) -> bytearray:
    at, size = _place(data, dice), dice.choice((4, 100, 3_000))
    data[at : at + size] = bytes([dice.choice((0, 0xFF))]) * min(size, len(data) - at)
    return data


def _lying(data: bytearray, dice: _Dice) -> bytearray:
    """A number near the mark of a header becomes one that cannot be true, or nearly could."""
    marks = [found.start() for found in _MARKS.finditer(data)] or [0]
    for _ in range(dice.choice((1, 1, 3))):
        at = max(0, dice.choice(marks) + dice.choice((-4, 4, 8, 12, 16, 20, 26)))
        value = dice.choice((*_LENGTHS, len(data), len(data) * 2, dice.randrange(1 << 32)))
        number = struct.pack(dice.choice(("<I", ">I")), value)
        data[at : at + 4] = number[: max(0, len(data) - at)]
    return data


_DAMAGES: tuple[Callable[[bytearray, _Dice], bytearray], ...] = (
    _bits,
    _lying,
    _truncated,
    _bytes,
    _spliced,
    _lying,
    _repeated,
    _removed,
    _blank,
    _bits,
    _joined,
    _beheaded,
)
