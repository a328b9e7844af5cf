"""Recordings in memory, without a media file: a decoder that hands out samples in blocks of any size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from engine.decode import MediaSource, MediaSummary
from engine.recording import transcribe_recording
from engine.recording_types import OnProgress, OnSegment, Recording, RecordingOptions
from engine.types import SAMPLE_RATE_HZ, Engine, FileSegment, FloatArray
from engine.vad import SpeechDetector
from tests.fakes.engine import EnergyDetector
from tests.fakes.tones import Spoken, word_number

__all__ = ["FakeBlocks", "FakeDecoder", "numbers_in", "transcribe", "words_of"]

LIMIT_S = 20.0
"""Nothing waits for real time; a test that does is broken."""


class FakeBlocks:
    """Blocks of one reading, as `engine.decode.BlockStream` gives them out."""

    def __init__(self, blocks: Iterator[FloatArray], warnings: Sequence[str], error: Exception | None) -> None:
        self.summary: MediaSummary | None = None
        self.is_closed = False
        self._blocks = blocks
        self._warnings = tuple(warnings)
        self._error = error
        self._n_samples = 0

    def __iter__(self) -> Iterator[FloatArray]:
        return self

    def __next__(self) -> FloatArray:
        if self.is_closed:
            raise StopIteration
        block = next(self._blocks, None)
        if block is None:
            if self._error is not None:
                raise self._error
            self.summary = MediaSummary(self._n_samples / SAMPLE_RATE_HZ, "fake", "pcm", self._warnings)
            raise StopIteration
        self._n_samples += len(block)
        return block

    def close(self) -> None:
        self.is_closed = True


class FakeDecoder:
    """`engine.decode.MediaDecoder` for audio that exists already, or is made block by block."""

    def __init__(
        self,
        audio: FloatArray | Callable[[], Iterator[FloatArray]],
        block_samples: int = 65_536,
        *,
        warnings: Sequence[str] = (),
        error: Exception | None = None,
    ) -> None:
        """`error` is raised in place of the end."""
        self.readings: list[FakeBlocks] = []
        self._audio = audio
        self._block_samples = block_samples
        self._warnings = warnings
        self._error = error

    def iter_blocks(self, data: MediaSource, *, max_duration_s: float | None = None) -> FakeBlocks:
        self.readings.append(FakeBlocks(self._blocks(), self._warnings, self._error))
        return self.readings[-1]

    def _blocks(self) -> Iterator[FloatArray]:
        if isinstance(self._audio, np.ndarray):
            for at in range(0, len(self._audio), self._block_samples):
                yield self._audio[at : at + self._block_samples]
        else:
            yield from self._audio()


def transcribe(
    engine: Engine,
    decoder: FakeDecoder,
    *,
    make_detector: Callable[[], SpeechDetector] = EnergyDetector,
    on_segment: OnSegment | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Recording:
    """Transcribe a recording of tone words, in English unless said otherwise."""
    wanted = RecordingOptions(**{"language": "en", **options})

    async def run() -> Recording:
        work = transcribe_recording(
            engine,
            decoder,
            b"",
            wanted,
            max_audio_s=86_400.0,
            on_segment=on_segment,
            on_progress=on_progress,
            make_detector=make_detector,
        )
        return await asyncio.wait_for(work, LIMIT_S)

    return asyncio.run(run())


def words_of(segments: Sequence[FileSegment]) -> list[Spoken]:
    """The tone words of some segments. Raises ValueError for what is none."""
    return [Spoken(word_number(word.text), word.start_s, word.end_s) for each in segments for word in each.words]


def numbers_in(segments: Sequence[FileSegment]) -> list[int]:
    """The numbers of the tone words in the texts of some segments."""
    return [word_number(text) for each in segments for text in each.text.split()]
