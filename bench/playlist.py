"""What each client of a load test says: stretches of labelled recordings with pauses between them.

Pure. Invariants: the same seed gives the same playlists, and a client's playlist does not depend on how
many others there are; cuts are made in pauses only; the times of the words are those of the
joined audio; every word knows its place in its recording.

Clients take the languages in turn. A client begins at a random sentence of a random recording of its
language and goes on with the others in random order. Every fifth client (numbers 3, 8, 13 ...) begins with
its language's recording without pauses, so that a run of four or more clients always has a stretch
of speech in which no detector finds an end; smaller runs are easier.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.types import SAMPLE_RATE_HZ
from realtime.client.latency import GoldWord, Recording

__all__ = ["CUT_PAUSE_S", "MAX_PAUSE_S", "MIN_PAUSE_S", "Piece", "Playlist", "Pool", "make_playlists", "start_times_s"]

MIN_PAUSE_S, MAX_PAUSE_S = 0.2, 1.5
"""Silence between two recordings: from a short breath to the end of a turn."""
CUT_PAUSE_S = 0.2
"""Recordings are begun and left in the middle of pauses at least this long."""
MAX_OVERRUN_S = 2.0
"""A recording whose next pause would make the playlist longer than asked by more than this is put off for
another: clients that go on alone at the end of a run have an easy time."""
NONSTOP_EVERY, NONSTOP_FIRST = 5, 3
"""Which clients begin without a pause: one in five, in all languages in turn."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one recording, in samples, with the silence before it and its words (places in the recording)."""

    silence_samples: int
    recording: Recording
    begin_sample: int
    end_sample: int
    words: range

    @property
    def samples(self) -> int:
        """Length with the silence."""
        return self.silence_samples + self.end_sample - self.begin_sample


@dataclass(frozen=True)
class Playlist:
    """All that one client says. `sources` has, for each word, its recording's stem and its place there."""

    name: str
    language: str
    pieces: tuple[Piece, ...]
    words: tuple[GoldWord, ...]
    sources: tuple[tuple[str, int], ...]

    @property
    def samples(self) -> int:
        """Length in samples."""
        return sum(piece.samples for piece in self.pieces)

    @property
    def audio_s(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Pool:
    """The recordings of one language, and one without pauses, which is not among them."""

    recordings: tuple[Recording, ...]
    nonstop: Recording | None = None


def make_playlists(pools: Mapping[str, Pool], clients: int, seconds: float, seed: int) -> tuple[Playlist, ...]:
    """One playlist per client, left at the first pause after `seconds`."""
    languages = sorted(pools)
    lists = []
    for number in range(clients):
        language = languages[number % len(languages)]
        pool = pools[language]
        source = random.Random(f"{seed} {number}")  # noqa: S311 - repeatable on purpose
        first = pool.nonstop if number % NONSTOP_EVERY == NONSTOP_FIRST else None
        lists.append(_playlist(f"client {number}", language, pool.recordings, first, seconds, source))
    return tuple(lists)


def start_times_s(clients: int, spread_s: float, seed: int) -> tuple[float, ...]:
    """When each client starts: evenly over `spread_s`, each at a random place of its share."""
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return tuple((number + source.random()) * spread_s / clients for number in range(clients))


def _playlist(
    name: str,
    language: str,
    recordings: Sequence[Recording],
    first: Recording | None,
    seconds: float,
    source: random.Random,
) -> Playlist:
    left = round(seconds * SAMPLE_RATE_HZ)
    pieces: list[Piece] = []
    order: list[Recording] = []
    if first is not None:
        pieces.append(_whole(first))
        left -= pieces[-1].samples
    while left > 0:
        order = order or source.sample(recordings, len(recordings))
        silence = round(source.uniform(MIN_PAUSE_S, MAX_PAUSE_S) * SAMPLE_RATE_HZ) if pieces else 0
        candidates = [_stretch(item, silence, left, None if pieces else source) for item in order]
        overruns = [max(piece.samples - left - MAX_OVERRUN_S * SAMPLE_RATE_HZ, 0) for piece in candidates]
        chosen = overruns.index(min(overruns))
        pieces.append(candidates[chosen])
        left -= pieces[-1].samples
        del order[chosen]
    words, sources, at = [], [], 0
    for piece in pieces:
        shift_s = (at + piece.silence_samples - piece.begin_sample) / SAMPLE_RATE_HZ
        at += piece.samples
        for place in piece.words:
            word = piece.recording.words[place]
            words.append(replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s))
            sources.append((piece.recording.path.stem, place))
    return Playlist(name, language, tuple(pieces), tuple(words), tuple(sources))


def _whole(recording: Recording) -> Piece:
    return Piece(0, recording, 0, round(recording.duration_s * SAMPLE_RATE_HZ), range(len(recording.words)))


def _stretch(recording: Recording, silence: int, left: int, begins: random.Random | None) -> Piece:
    """A recording from its start, or from a pause that `begins` draws, to the first pause `left` samples later."""
    cuts = _cuts(recording)
    begin = cuts[0] if begins is None else begins.choice(cuts[:-1])
    later = [cut for cut in cuts if cut > begin]
    end = next((cut for cut in later if silence + cut[0] - begin[0] >= left), cuts[-1])
    return Piece(silence, recording, begin[0], end[0], range(begin[1], end[1]))


def _cuts(recording: Recording) -> list[tuple[int, int]]:
    """Where a recording may be begun or left: sample, and the number of words before it; its ends are among them."""
    cuts = [(0, 0)]
    for place in range(1, len(recording.words)):
        before, after = recording.words[place - 1], recording.words[place]
        if round(after.start_s - before.end_s, 6) >= CUT_PAUSE_S:
            cuts.append((round((before.end_s + after.start_s) / 2 * SAMPLE_RATE_HZ), place))
    cuts.append((round(recording.duration_s * SAMPLE_RATE_HZ), len(recording.words)))
    return cuts
