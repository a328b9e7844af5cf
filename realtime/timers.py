"""When time alone does something to a stream: starvation, idleness, the session limit.

Two clocks run: one since any bytes came (idleness), one since audio came (starvation), so that a peer
that sends messages without audio keeps its place and still gets its last words. WebSocket pings are no
messages. While we do not read, neither runs.

Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Due", "SessionLimits", "Timers"]

STARVATION_S = 2.0
"""Without new audio for this long, what was heard is completed: the peer may be waiting for it."""
BURST_GAP_S = 0.2
"""Audio that comes within this time of the last belongs to the same burst."""
BURST_MARGIN_S = 1.0
MAX_STARVATION_S = 6.0
"""A peer that sends 5 s at a time, in real time, is silent for 5 s between; longer bursts are no live speech."""


@dataclass(frozen=True)
class SessionLimits:
    """What the operator allows one stream."""

    max_backlog_s: float = 10.0
    idle_timeout_s: float = 120.0
    max_connection_time_s: float | None = None


class Due(Enum):
    """What has to happen now."""

    OVERTIME = "the session limit is over"
    IDLE = "no bytes for too long"
    STARVED = "no audio for a while"


class Timers:
    """The timers of one stream."""

    def __init__(self, limits: SessionLimits, now_s: float) -> None:
        self._limits = limits
        self._started_s = now_s
        self._last_bytes_s = now_s
        self._last_audio_s = now_s
        self._burst_s = 0.0

    def received(self, now_s: float, *, audio_s: float = 0.0) -> None:
        """Bytes came, with so many seconds of audio in them."""
        self._last_bytes_s = now_s
        if audio_s > 0:
            goes_on = now_s - self._last_audio_s <= BURST_GAP_S
            self._burst_s = audio_s + (self._burst_s if goes_on else 0.0)
            self._last_audio_s = now_s

    def not_reading(self, now_s: float) -> None:
        """Up to now we have not read: the peer has not been silent."""
        self._last_bytes_s = self._last_audio_s = now_s

    def due(self, now_s: float, *, reading: bool, starving: bool) -> Due | None:
        """The most important of what is due; `starving`: there is audio to be completed."""
        if any(now_s >= at_s for at_s in self._overtime_s()):
            return Due.OVERTIME
        if not reading:
            self.not_reading(now_s)
        elif now_s >= self._idle_s():
            return Due.IDLE
        elif starving and now_s >= self._starved_s():
            return Due.STARVED
        return None

    def next_s(self, *, starving: bool) -> float:
        """When to look again at the latest."""
        starved_s = [self._starved_s()] if starving else []
        return min([self._idle_s(), *starved_s, *self._overtime_s()])

    def _overtime_s(self) -> list[float]:
        limit_s = self._limits.max_connection_time_s
        return [] if limit_s is None else [self._started_s + limit_s]

    def _idle_s(self) -> float:
        return self._last_bytes_s + self._limits.idle_timeout_s

    def _starved_s(self) -> float:
        # Who sends audio in large pieces has not fallen silent between two of them.
        patience_s = min(MAX_STARVATION_S, self._burst_s + BURST_MARGIN_S)
        return self._last_audio_s + max(STARVATION_S, patience_s)
