"""Turns the bytes of binary messages into float32 samples at 16 kHz.

Bytes may be cut anywhere, inside a sample too. Garbage (NaN, infinities, more than 1e4) becomes
silence and is counted, because one NaN blinds Whisper for a whole window. Samples beyond full
scale are kept, as WhisperLive does, but limited to HEADROOM: one wild spike would otherwise push
the speech around it under the floor of the log-mel spectrum. Bytes declared float32 that are
int16, or the reverse, are told apart by their exponents before anything but silence is let out.

Knows nothing of sockets, sessions or clocks. Invariants: the output, put end to end, and the
warnings are functions of the bytes, put end to end, however they were cut; after `flush` the
number of samples is that of the input times 16000 / rate, give or take one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr

from engine.errors import BadInputError, BadStateError
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.audioformat import (
    FORMATS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    AudioFormat,
    SampleFormat,
    container,
    diagnose,
    informative,
)

__all__ = ["FrameDecoder"]

WORD_BYTES = 4
"""The encodings are told apart in units of one float32 or two int16."""
EVIDENCE_S = 0.1
"""Sound that a diagnosis is made from, in the declared encoding."""
MAX_HELD_S = 1.0
"""Bytes held back for a diagnosis: sound as sparse as this carries no words yet."""
MAX_MISSING_S = 60.0
"""Silence supplied when int16 was taken for float32, so that the clock is right: 4 MB at 16 kHz."""
HEADROOM = 8.0
"""18 dB over full scale: more than any honest gain, and of the 80 dB that Whisper keeps it leaves 62 to speech."""
MAX_BAD_SHARE = 0.01
"""Share of garbage samples in one second from which recognition suffers."""
BLOCKS_PER_SECOND = 100
"""The resampler is fed blocks of 10 ms: soxr does not promise to be blind to how input is cut."""


class FrameDecoder:
    """Decodes the bytes of one stream; mono, little-endian.

    `push` every binary message, `flush` once at the end. Not safe for use by several threads.
    """

    def __init__(self, audio_format: AudioFormat, sample_rate_hz: int) -> None:
        """Raise BadInputError for an encoding or a rate that is not offered."""
        if audio_format not in FORMATS:
            raise BadInputError("audio_format", audio_format, ", ".join(FORMATS))
        if not MIN_RATE_HZ <= sample_rate_hz <= MAX_RATE_HZ:
            raise BadInputError("sample_rate_hz", sample_rate_hz, f"{MIN_RATE_HZ} to {MAX_RATE_HZ}")
        self._format = FORMATS[audio_format]
        self._rate_hz = sample_rate_hz
        self._is_diagnosed = self._format.bytes_per_sample == 1
        self._resampler = None if sample_rate_hz == SAMPLE_RATE_HZ else _Resampler(sample_rate_hz)
        self._raw = bytearray()
        self._head_checked = False
        self._finished = False
        self._samples_in = 0
        self._samples_out = 0
        self._warnings: list[str] = []
        self._bad = _BadSamples(sample_rate_hz, self._warnings)

    def push(self, data: bytes | bytearray | memoryview) -> FloatArray:
        """Take one message; return what can be told so far, float32 mono at 16 kHz, maybe empty.

        Up to 0.1 s of sound (1 s if it is nearly silent) is held back until float32 and int16 are
        told apart, up to 10 ms for a full block and up to 0.12 s inside the resampler.
        Raises BadStateError after `flush`.
        """
        if self._finished:
            raise BadStateError("audio after its end")
        self._raw += data
        return self._emit(self._decode(final=False))

    def flush(self) -> FloatArray:
        """End the audio; return the rest. Bytes of an incomplete last sample are dropped.

        Idempotent.
        """
        if self._finished:
            return np.zeros(0, np.float32)
        self._finished = True
        samples = self._emit(self._decode(final=True))
        self._raw.clear()
        return samples

    def take_warnings(self) -> tuple[str, ...]:
        """Hand over the warnings since the last call; there are at most four in a stream's life."""
        warnings = tuple(self._warnings)
        self._warnings.clear()
        return warnings

    def samples_for_bytes(self, n_bytes: int) -> int:
        """How many samples at 16 kHz `n_bytes` of raw audio stand for, rounded down."""
        return n_bytes // self._format.bytes_per_sample * SAMPLE_RATE_HZ // self._rate_hz

    @property
    def format_name(self) -> str:
        """The encoding in use: the declared one, until the bytes say otherwise."""
        return self._format.name

    @property
    def samples_out(self) -> int:
        """Samples at 16 kHz returned so far."""
        return self._samples_out

    @property
    def bad_samples(self) -> int:
        """Garbage samples that were replaced by silence, counted at the sender's rate."""
        return self._bad.count

    @property
    def pending_bytes(self) -> int:
        """Raw bytes taken but not decoded or not resampled; the resampler's own delay is not in it."""
        held = self._resampler.pending_samples * self._format.bytes_per_sample if self._resampler else 0
        return len(self._raw) + held

    def _decode(self, *, final: bool) -> list[FloatArray]:
        self._check_head()
        parts: list[FloatArray] = []
        while not self._is_diagnosed and self._diagnose_next(parts, final=final):
            pass
        if self._is_diagnosed or final:
            parts.append(self._take(len(self._raw)))
        return parts

    def _check_head(self) -> None:
        if self._head_checked or len(self._raw) < WORD_BYTES:
            return
        self._head_checked = True
        kind = container(bytes(self._raw[:WORD_BYTES]))
        if kind is not None:
            self._warnings.append(f"the audio begins like {kind}; raw samples are expected, without any container")

    def _diagnose_next(self, parts: list[FloatArray], *, final: bool) -> bool:
        """Let leading silence out, then weigh the sound after it; False if more bytes are needed."""
        words = informative(bytes(self._raw[: len(self._raw) // WORD_BYTES * WORD_BYTES]))
        where = np.flatnonzero(words)
        silent = int(where[0]) if len(where) else len(words)
        if silent:
            parts.append(self._take(silent * WORD_BYTES))
        if not len(where):
            return False
        end = self._evidence_end(where - silent, len(words) - silent, final=final)
        if end is None:
            return False
        found = diagnose(bytes(self._raw[: end * WORD_BYTES]), self._format)
        if found is None:
            parts.append(self._take(end * WORD_BYTES))
        else:
            self._is_diagnosed = True
            self._switch(found, parts)
        return found is None

    def _evidence_end(self, where: npt.NDArray[np.intp], n_words: int, *, final: bool) -> int | None:
        words_per_second = self._rate_hz * self._format.bytes_per_sample // WORD_BYTES
        enough = int(words_per_second * EVIDENCE_S)
        longest = int(words_per_second * MAX_HELD_S)
        if len(where) >= enough:
            return min(int(where[enough - 1]) + 1, longest)
        if n_words >= longest:
            return longest
        return n_words if final else None

    def _switch(self, found: SampleFormat, parts: list[FloatArray]) -> None:
        declared, self._format = self._format, found
        if found.name == declared.name:
            return
        self._warnings.append(
            f"audio_format: {declared.name} was declared, but the bytes do not look like it; "
            f"they are read as {found.name}"
        )
        if found.bytes_per_sample < declared.bytes_per_sample:
            # What was let out as n silent float32 samples were 2 n samples of int16. (After the
            # reverse mistake there is too much silence, and the clock stays ahead by half of it.)
            missing = min(self._samples_in, int(MAX_MISSING_S * self._rate_hz))
            self._samples_in += missing
            parts.append(np.zeros(missing, np.float32))

    def _take(self, n_bytes: int) -> FloatArray:
        n_bytes -= n_bytes % self._format.bytes_per_sample
        samples = self._format.decode(bytes(self._raw[:n_bytes]))
        del self._raw[:n_bytes]
        if self._format.is_float:
            self._bad.replace(samples, self._samples_in)
            np.clip(samples, -HEADROOM, HEADROOM, out=samples)
        self._samples_in += len(samples)
        return samples

    def _emit(self, parts: list[FloatArray]) -> FloatArray:
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if self._resampler is not None:
            samples = self._resampler.process(samples, last=self._finished)
        self._samples_out += len(samples)
        return samples


class _Resampler:
    """soxr's streaming resampler (band-limited, delay compensated), fed in blocks of one size."""

    def __init__(self, rate_hz: int) -> None:
        self._stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        self._block_samples = rate_hz // BLOCKS_PER_SECOND
        self._pending = np.zeros(0, np.float32)

    @property
    def pending_samples(self) -> int:
        """Input samples that wait for a full block."""
        return len(self._pending)

    def process(self, samples: FloatArray, *, last: bool) -> FloatArray:
        """Resample all full blocks, and with `last` what is left, the filter's tail included."""
        samples = np.concatenate([self._pending, samples])
        size = self._block_samples
        whole = len(samples) // size * size
        outputs = [self._stream.resample_chunk(samples[at : at + size]) for at in range(0, whole, size)]
        self._pending = samples[whole:].copy()
        if last:
            outputs.append(self._stream.resample_chunk(self._pending, last=True))
            self._pending = np.zeros(0, np.float32)
        return np.concatenate(outputs) if outputs else np.zeros(0, np.float32)


class _BadSamples:
    """Replaces garbage by silence, counts it, and warns of the first and of the first bad second."""

    def __init__(self, rate_hz: int, warnings: list[str]) -> None:
        self.count = 0
        self._rate_hz = rate_hz
        self._second = 0
        self._in_second = 0
        self._warned_share = False
        self._warnings = warnings

    def replace(self, samples: FloatArray, first: int) -> None:
        """Replace NaN in `samples`, in place; sample `first` of the stream is its first."""
        where = np.flatnonzero(np.isnan(samples))
        if not len(where):
            return
        samples[where] = 0.0
        if not self.count:
            self._warnings.append(
                f"bad_audio: sample {first + int(where[0])} is no finite number below 1e4; such samples become silence"
            )
        self.count += len(where)
        self._count_by_second(where + first)

    def _count_by_second(self, positions: npt.NDArray[np.intp]) -> None:
        seconds, counts = np.unique(positions // self._rate_hz, return_counts=True)
        for second, count in zip(seconds.tolist(), counts.tolist(), strict=True):
            self._in_second = count + (self._in_second if second == self._second else 0)
            self._second = second
            if self._in_second > MAX_BAD_SHARE * self._rate_hz and not self._warned_share:
                self._warned_share = True
                self._warnings.append(
                    f"bad_audio: more than {MAX_BAD_SHARE:.0%} of the samples of second {second} are garbage"
                )
