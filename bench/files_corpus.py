"""Long recordings for the benchmarks of the file half: labelled speech joined with pauses into one WAV file.

Knows playlists and the WAV format, no model. Invariants: the same language, length and seed give the same bytes;
the sound is written block by block, so that hours of it need no memory.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.corpus import Corpus
from bench.playlist import Playlist, make_playlists
from engine.types import SAMPLE_RATE_HZ

__all__ = ["MAX_FILE_S", "LongFile", "write_long_file"]

MAX_FILE_S = 36_000.0
"""Ten hours: 1.2 GB as WAV, a quarter of what the format's 32-bit sizes can say."""
BLOCK_SAMPLES = 10 * SAMPLE_RATE_HZ
INT16_SCALE = 32_768.0


@dataclass(frozen=True)
class LongFile:
    """One file and what is said in it (normalised words, joined by blanks)."""

    path: Path
    language: str
    audio_s: float
    reference: str

    @property
    def words(self) -> int:
        """How many words are said."""
        return len(self.reference.split())


def write_long_file(corpus: Corpus, language: str, seconds: float, seed: int, path: Path) -> LongFile:
    """Join recordings of a language, in random order with pauses, to the first pause after `seconds`."""
    playlist = make_playlists({language: corpus.pools[language]}, 1, seconds, seed)[0]
    _write(corpus, playlist, path)
    return LongFile(path, language, playlist.audio_s, " ".join(word.text for word in playlist.words))


def _write(corpus: Corpus, playlist: Playlist, path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        # Known from the start, so that a reader never sees a header without a length.
        file.setnframes(playlist.samples)
        for chunk in corpus.shared.chunks(playlist, BLOCK_SAMPLES):
            samples = np.frombuffer(chunk, dtype="<f4")
            scaled = np.clip(np.rint(samples * INT16_SCALE), -INT16_SCALE, INT16_SCALE - 1)
            file.writeframes(scaled.astype("<i2").tobytes())
