"""The clients of one run: what each is to do, and what each saw.

Pure. Invariants: the same seed gives the same clients, and a client is the same whatever their number
(but for its start, which depends on it).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.collect import Frame
from bench.playlist import Playlist, Pool, make_playlists, start_times_s
from engine.types import SAMPLE_RATE_HZ

__all__ = ["MIXED_CHUNKS_MS", "ClientPlan", "RawStream", "make_plans"]

MIXED_CHUNKS_MS = (20, 64, 100, 256)
"""Telephony, iOS, most programs, WhisperLive's Python client."""


@dataclass(frozen=True)
class ClientPlan:
    """One client: when it comes (`delay_s` from the run's start), what it says, and how.

    `linger_s`: how long it keeps silent between the end of the audio and END_OF_AUDIO.
    """

    playlist: Playlist
    chunk_samples: int
    delay_s: float = 0.0
    linger_s: float = 0.0
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class RawStream:
    """What one client saw; times are the monotonic clock, which all processes of a machine share.

    `start_s` is when sample 0 was recorded; `blocked_s` how long sending waited for the server;
    `own_lateness_s` how late the driver was at worst; `finish_s` from END_OF_AUDIO to the close.
    `error` tells why the stream is not complete.
    """

    name: str
    frames: tuple[Frame, ...] = ()
    start_s: float = 0.0
    sent_samples: int = 0
    blocked_s: float = 0.0
    own_lateness_s: float = 0.0
    finish_s: float = 0.0
    error: str | None = None

    def due_s(self, second: float) -> float:
        """The clock's time at which `second` of the audio had been recorded."""
        return self.start_s + second


def make_plans(
    pools: Mapping[str, Pool],
    clients: int,
    *,
    seconds: float,
    seed: int,
    chunk_ms: int | None = None,
    spread_s: float = 0.0,
    linger_s: float = 0.0,
    options: Mapping[str, object] | None = None,
) -> tuple[ClientPlan, ...]:
    """One plan per client; `chunk_ms` None: MIXED_CHUNKS_MS in turn, in an order that the seed decides."""
    sizes_ms: Sequence[int] = MIXED_CHUNKS_MS if chunk_ms is None else (chunk_ms,)
    order = random.Random(seed).sample(sizes_ms, len(sizes_ms))  # noqa: S311 - repeatable on purpose
    playlists = make_playlists(pools, clients, seconds, seed)
    delays_s = start_times_s(clients, spread_s, seed)
    return tuple(
        ClientPlan(
            playlist=playlist,
            chunk_samples=order[number % len(order)] * SAMPLE_RATE_HZ // 1_000,
            delay_s=delay_s,
            linger_s=linger_s,
            options=options or {},
        )
        for number, (playlist, delay_s) in enumerate(zip(playlists, delays_s, strict=True))
    )
