"""Who may stream, and how long the others should wait. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.errors import AtCapacityError, DrainingError

__all__ = ["Admission", "Slot"]

REMEMBERED_SESSIONS = 50
"""Finished sessions whose length feeds the estimate."""
UNKNOWN_WAIT_MINUTES = 1.0
"""What is told when nothing is known yet: no session has ended and none has a limit."""
MIN_WAIT_MINUTES = 0.1


@dataclass(frozen=True)
class Slot:
    """A place in the server, held from the handshake to the close."""

    number: int
    since_s: float


class Admission:
    """Counts slots; refuses with AtCapacityError (`wait_minutes` tells for how long)."""

    def __init__(self, max_clients: int, max_connection_time_s: float | None) -> None:
        self.max_clients = max_clients
        self._limit_s = max_connection_time_s
        self._slots: dict[int, Slot] = {}
        self._next_number = 1
        self._lengths_s: deque[float] = deque(maxlen=REMEMBERED_SESSIONS)
        self._is_closed = False

    @property
    def n_active(self) -> int:
        """Slots taken."""
        return len(self._slots)

    @property
    def is_full(self) -> bool:
        """True if the next peer would have to wait."""
        return len(self._slots) >= self.max_clients

    def close(self) -> None:
        """Admit nobody any more."""
        self._is_closed = True

    def enter(self, now_s: float) -> Slot:
        """Take a slot. Raises AtCapacityError or DrainingError."""
        if self._is_closed:
            raise DrainingError("the server is shutting down; reconnect later or elsewhere")
        if self.is_full:
            raise AtCapacityError(f"all {self.max_clients} places are taken")
        slot = Slot(self._next_number, now_s)
        self._next_number += 1
        self._slots[slot.number] = slot
        return slot

    def leave(self, slot: Slot, now_s: float) -> None:
        """Give a slot back. Idempotent."""
        if self._slots.pop(slot.number, None) is not None:
            self._lengths_s.append(now_s - slot.since_s)

    def wait_minutes(self, now_s: float) -> float:
        """Minutes until a slot is likely free: from the session limit, or from how long sessions last."""
        ages_s = [now_s - slot.since_s for slot in self._slots.values()]
        if not ages_s:
            return MIN_WAIT_MINUTES
        if self._limit_s is not None:
            wait_s = self._limit_s - max(ages_s)
        elif self._lengths_s:
            typical_s = sorted(self._lengths_s)[len(self._lengths_s) // 2]
            wait_s = typical_s - max(ages_s)
        else:
            return UNKNOWN_WAIT_MINUTES
        return max(MIN_WAIT_MINUTES, wait_s / 60)
