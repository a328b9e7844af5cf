"""The audio side of a recording: blocks of samples in, stretches to decode out.

Each block goes through the voice activity detector; what counts as speech (with `vad` None: all that is not
certain silence) is kept and cut into stretches (`engine.recording_cut`). The memory it takes does not depend on
how long the recording is. Runs in a worker thread; knows no file, no model and no event loop.

Invariants: every sample is in at most one stretch; within the clips, what is in none was silent by the rule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np

from engine.mel import LogMelStream
from engine.recording_cut import Cutter, Stretch
from engine.recording_spans import SpeechSpans
from engine.recording_types import VadOptions
from engine.types import MAX_FRAMES, SAMPLE_RATE_HZ, FloatArray
from engine.vad import VAD_FRAME_SAMPLES, SpeechDetector

__all__ = ["CERTAIN_SILENCE", "Analysis", "Found", "Rereading", "log_mel"]

Found = tuple[Stretch, FloatArray]
"""A stretch and its samples, joined."""

CERTAIN_SILENCE = VadOptions(threshold=0.15, neg_threshold=0.15, min_silence_duration_ms=2_000, speech_pad_ms=800)
"""Only this is left out where nobody asked for voice activity detection: 2 s in which the detector does not even
suspect speech, but for 0.8 s at both ends."""
LOUD_RMS = 0.01
"""-40 dBFS. What is louder is no silence, whatever the detector says: it knows speech better than song."""
QUIET_PEAK = 0.03
TARGET_PEAK = 0.1
MAX_GAIN = 100.0
"""A recording whose peaks are below QUIET_PEAK is made louder for the detector, which hears nothing below -60 dBFS
(measured on the demo recordings at 1/300 of their level: a fifth of the words score below 0.15)."""
MEL_PIECE_SAMPLES = SAMPLE_RATE_HZ
"""The spectrogram is computed in pieces of 1 s, whose temporary arrays (2 MB) the allocator keeps. Measured on 10
minutes in stretches of 10 s: 0.16 s of CPU, in one piece each 0.43 s."""
PEAK_MEMORY_S = 30.0
"""The level of a recording is the highest peak of about so long: who is far from the microphone is not drowned by
who spoke before."""


def log_mel(samples: FloatArray, n_mels: int) -> FloatArray:
    """Raw log10-mel of one stretch, float32 [n_mels, 0..MAX_FRAMES], as if silence stood around it."""
    stream = LogMelStream(n_mels)
    pieces = [stream.push(samples[at : at + MEL_PIECE_SAMPLES]) for at in range(0, len(samples), MEL_PIECE_SAMPLES)]
    frames = np.concatenate([*pieces, stream.tail()], axis=1)
    return np.ascontiguousarray(frames[:, :MAX_FRAMES])


class _WaryDetector:
    """A detector for those who must not lose quiet speech, or song."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._peak = 0.0
        self._pending: FloatArray = np.zeros(0, dtype=np.float32)

    def push(self, samples: FloatArray) -> list[float]:
        """One probability per completed frame of 512 samples."""
        if not len(samples):
            return []
        fading = 0.5 ** (len(samples) / SAMPLE_RATE_HZ / PEAK_MEMORY_S)
        self._peak = max(float(np.abs(samples).max()), self._peak * fading)
        gain = 1.0
        if 0.0 < self._peak < QUIET_PEAK:
            gain = min(MAX_GAIN, TARGET_PEAK / self._peak)
        probabilities = self._detector.push((samples * np.float32(gain)).astype(np.float32))
        audio = np.concatenate([self._pending, samples])
        n_whole = len(probabilities) * VAD_FRAME_SAMPLES
        self._pending = audio[n_whole:]
        frames = audio[:n_whole].reshape(-1, VAD_FRAME_SAMPLES)
        is_loud = np.mean(frames**2, axis=1) > LOUD_RMS**2
        least = CERTAIN_SILENCE.threshold
        return [max(p, least) if loud else p for p, loud in zip(probabilities, is_loud.tolist(), strict=True)]


class _Clip:
    """One part of the recording that is to be transcribed; `base` is its first sample."""

    def __init__(self, base: int, vad: VadOptions | None, detector: SpeechDetector, max_frames: int) -> None:
        self._base = base
        self._detector = _WaryDetector(detector) if vad is None else detector
        self._spans = SpeechSpans(vad or CERTAIN_SILENCE)
        self._cutter = Cutter(max_frames)
        # What has come and may still be wanted, from a whole frame on; places are relative to `base`.
        self._samples: FloatArray = np.zeros(0, dtype=np.float32)
        self._probabilities: list[float] = []
        self._first_frame = 0
        self._next_frame = 0
        self._n_samples = 0

    def push(self, samples: FloatArray) -> list[Found]:
        """Take samples; return the stretches that they fill."""
        self._n_samples += len(samples)
        self._samples = np.concatenate([self._samples, samples])
        self._judge(samples)
        return self._keep()

    def finish(self) -> list[Found]:
        """The clip, or the recording, has ended."""
        missing = -self._n_samples % VAD_FRAME_SAMPLES
        if missing:
            self._judge(np.zeros(missing, dtype=np.float32))
        self._spans.finish(self._n_samples)
        found = self._keep()
        last = self._cutter.flush()
        return found if last is None else [*found, last]

    def _judge(self, samples: FloatArray) -> None:
        for probability in self._detector.push(samples):
            self._probabilities.append(probability)
            self._spans.push(probability)

    def _keep(self) -> list[Found]:
        found = []
        for start, end in self._spans.take():
            first = max(self._next_frame, start // VAD_FRAME_SAMPLES)
            last = -(-end // VAD_FRAME_SAMPLES)
            # A frame of which only a part is wanted may not have come yet: it is taken when it has.
            last = min(last, self._first_frame + len(self._probabilities))
            if last > first:
                self._add(first, last)
                self._next_frame = last
            while (stretch := self._cutter.take()) is not None:
                found.append(stretch)
        self._forget(self._spans.needed_from // VAD_FRAME_SAMPLES)
        return found

    def _add(self, first: int, last: int) -> None:
        at, to = first - self._first_frame, last - self._first_frame
        samples = self._samples[at * VAD_FRAME_SAMPLES : to * VAD_FRAME_SAMPLES]
        self._cutter.add(self._base + first * VAD_FRAME_SAMPLES, samples.copy(), self._probabilities[at:to])

    def _forget(self, frame: int) -> None:
        n_frames = min(frame - self._first_frame, len(self._probabilities))
        if n_frames > 0:
            self._samples = self._samples[n_frames * VAD_FRAME_SAMPLES :].copy()
            del self._probabilities[:n_frames]
            self._first_frame += n_frames


class Analysis:
    """A whole recording, block by block."""

    def __init__(
        self,
        vad: VadOptions | None,
        clips: Sequence[tuple[float, float]],
        make_detector: Callable[[], SpeechDetector],
        max_stretch_s: float,
    ) -> None:
        """`clips` are seconds, ascending and apart (empty: everything is wanted)."""
        self.n_samples = 0
        self.kept_samples = 0
        self._vad = vad
        self._make_detector = make_detector
        self._max_frames = max(1, int(max_stretch_s * SAMPLE_RATE_HZ) // VAD_FRAME_SAMPLES)
        self._clips = [(round(a * SAMPLE_RATE_HZ), round(b * SAMPLE_RATE_HZ)) for a, b in clips] or [(0, sys.maxsize)]
        self._clip: _Clip | None = None

    @property
    def kept_s(self) -> float:
        """How much audio is in the stretches so far."""
        return self.kept_samples / SAMPLE_RATE_HZ

    def push(self, samples: FloatArray) -> list[Found]:
        """Take the next samples; return the stretches that are complete."""
        found = []
        at, self.n_samples = self.n_samples, self.n_samples + len(samples)
        while self._clips and at < self.n_samples:
            start, end = self._clips[0]
            first, last = max(at, start), min(self.n_samples, end)
            if first >= self.n_samples:
                break
            if self._clip is None:
                self._clip = _Clip(start, self._vad, self._make_detector(), self._max_frames)
            offset = self.n_samples - len(samples)
            found += self._clip.push(samples[first - offset : last - offset])
            at = last
            if last >= end:
                found += self._end_clip()
        return self._counted(found)

    def finish(self) -> list[Found]:
        """The recording has ended."""
        return self._counted(self._end_clip())

    def _end_clip(self) -> list[Found]:
        if self._clips:
            del self._clips[0]
        clip, self._clip = self._clip, None
        return [] if clip is None else clip.finish()

    def _counted(self, found: list[Found]) -> list[Found]:
        self.kept_samples += sum(stretch.n_samples for stretch, _ in found)
        return found


class Rereading:
    """Picks the audio of stretches that are known already out of a second reading."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        """`stretches` ascend."""
        self._wanted = list(reversed(stretches))
        self._parts: list[FloatArray] = []
        self._n_samples = 0

    def push(self, samples: FloatArray) -> list[Found]:
        """Take the next samples; return the stretches that are complete."""
        found = []
        offset, self._n_samples = self._n_samples, self._n_samples + len(samples)
        while self._wanted:
            stretch = self._wanted[-1]
            for start, end in stretch.pieces:
                part = samples[max(0, start - offset) : max(0, end - offset)]
                if len(part):
                    self._parts.append(part.copy())
            if stretch.pieces[-1][1] > self._n_samples:
                break
            found.append((self._wanted.pop(), np.concatenate(self._parts)))
            self._parts = []
        return found

    def finish(self) -> list[Found]:
        """The recording has ended: nothing is left, unless the file has changed."""
        return []
