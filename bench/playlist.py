"""What each client of a load test says: recordings in a shuffled order, with the words' times moved along.

Pure: audio comes in as arrays. Invariants: the same seed gives the same playlists; all clients share the
arrays; the times of the words are those of the joined audio.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.latency import GoldWord, Recording

__all__ = ["GAP_S", "Playlist", "make_playlists", "play", "start_times_s"]

GAP_S = 1.0
"""Silence between two recordings: more than any pause within a sentence."""


@dataclass(frozen=True)
class Playlist:
    """The recordings of one client, one after the other."""

    name: str
    recordings: tuple[Recording, ...]
    words: tuple[GoldWord, ...]
    audio_s: float


def make_playlists(recordings: Sequence[Recording], clients: int, seconds: float, seed: int) -> tuple[Playlist, ...]:
    """One playlist per client, of whole recordings, at least `seconds` long."""
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return tuple(_playlist(f"client {number}", recordings, seconds, source) for number in range(clients))


def start_times_s(clients: int, spread_s: float, seed: int) -> tuple[float, ...]:
    """When each client starts: evenly over `spread_s`, each at a random place of its share."""
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return tuple((number + source.random()) * spread_s / clients for number in range(clients))


async def play(
    playlist: Playlist, audio: Mapping[Recording, FloatArray], chunk_samples: int
) -> AsyncGenerator[FloatArray, None]:
    """The joined audio in chunks of `chunk_samples`, the last may be shorter."""
    gap = np.zeros(round(GAP_S * SAMPLE_RATE_HZ), dtype=np.float32)
    pieces = [piece for recording in playlist.recordings for piece in (audio[recording], gap)]
    rest = gap[:0]
    for piece in pieces[:-1]:
        joined = np.concatenate((rest, piece))
        whole = joined.size - joined.size % chunk_samples
        for begin in range(0, whole, chunk_samples):
            yield joined[begin : begin + chunk_samples]
        rest = joined[whole:]
    if rest.size:
        yield rest


def _playlist(name: str, recordings: Sequence[Recording], seconds: float, source: random.Random) -> Playlist:
    chosen: list[Recording] = []
    words: list[GoldWord] = []
    end_s = -GAP_S
    while end_s < seconds:
        for recording in source.sample(recordings, len(recordings)):
            if end_s >= seconds:
                break
            begin_s = end_s + GAP_S
            chosen.append(recording)
            words += [
                replace(word, start_s=word.start_s + begin_s, end_s=word.end_s + begin_s) for word in recording.words
            ]
            end_s = begin_s + recording.duration_s
    return Playlist(name, tuple(chosen), tuple(words), end_s)
