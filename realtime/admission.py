"""Who may stream, and how long the others should wait. Pure: time is an argument.

Besides the operator's limit, what was measured counts: how many streams the engine keeps up with, and how
many the serving process does. A few streams are let in whatever was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import AtCapacityError, DrainingError
from realtime.departures import Departures
from realtime.load import MIN_STREAMS, Load

__all__ = ["MAX_AUTO_STREAMS", "Admission", "Capacity", "Slot"]

MAX_AUTO_STREAMS = 512
"""Without a number from the operator: half of the 1024 sockets that a process usually gets, and 1 GiB at
the 2 MiB that a stream with a full backlog and its socket's queues take."""
UNMEASURED_STREAMS = 64
"""While nothing was measured: after a restart everybody comes back at once, and who is in stays in."""
MIN_WAIT_MINUTES = 0.1
MAX_LOAD_WAIT_MINUTES = 1.0
"""The serving process may have room again without anybody's leaving: its load is an average of 10 s."""
PLACES, ENGINE, PROCESS = "places", "the engine", "the serving process"


@dataclass(frozen=True)
class Slot:
    """A place in the server, held from the handshake to the close."""

    number: int
    since_s: float


@dataclass(frozen=True)
class Capacity:
    """How many streams are let in at present; `limited_by`: "places", "the engine" or "the serving process"."""

    streams: int
    limited_by: str

    @property
    def reason(self) -> str:
        """What a peer is told that finds no place."""
        if self.limited_by == PLACES:
            return f"all {self.streams} places are taken"
        return f"{self.limited_by} keeps up with {self.streams} streams at present"


class Admission:
    """Counts slots; refuses with AtCapacityError (`wait_minutes` tells for how long)."""

    def __init__(
        self,
        max_clients: int | None,
        max_connection_time_s: float | None,
        engine_streams: Callable[[], int | None] | None = None,
        load: Load | None = None,
    ) -> None:
        """`max_clients` None: MAX_AUTO_STREAMS. `engine_streams`: how many the engine keeps up with, or None yet."""
        self.max_clients = max_clients
        self._limit_s = max_connection_time_s
        self._engine_streams = engine_streams
        self._load = load
        self._slots: dict[int, Slot] = {}
        self._next_number = 1
        self._departures = Departures()
        self._is_closed = False
        self.last_left_s: float | None = None
        """When the last slot was given back."""

    @property
    def n_active(self) -> int:
        """Slots taken."""
        return len(self._slots)

    @property
    def ceiling(self) -> int:
        """How many streams there can ever be."""
        return MAX_AUTO_STREAMS if self.max_clients is None else self.max_clients

    @property
    def capacity(self) -> Capacity:
        """What may be taken at present; below `n_active` if there is too much already."""
        measured: dict[str, int | None] = {PROCESS: self._load.max_streams if self._load else None}
        if self._engine_streams is not None:
            found_out = self._engine_streams()
            measured[ENGINE] = UNMEASURED_STREAMS if found_out is None else found_out
        found = [Capacity(self.ceiling, PLACES)]
        found += [Capacity(max(MIN_STREAMS, most), name) for name, most in measured.items() if most is not None]
        return min(found, key=lambda capacity: capacity.streams)

    def close(self) -> None:
        """Admit nobody any more."""
        self._is_closed = True

    def sample(self, now_s: float) -> None:
        """Look at the load; done at every admission, and to be done about once a second."""
        if self._load is not None:
            self._load.sample(now_s, self.n_active)

    def enter(self, now_s: float) -> Slot:
        """Take a slot. Raises AtCapacityError or DrainingError."""
        if self._is_closed:
            raise DrainingError("the server is shutting down; reconnect later or elsewhere")
        self.sample(now_s)
        capacity = self.capacity
        if self.n_active >= capacity.streams:
            raise AtCapacityError(capacity.reason)
        self._departures.advance(now_s, self.n_active)
        slot = Slot(self._next_number, now_s)
        self._next_number += 1
        self._slots[slot.number] = slot
        return slot

    def leave(self, slot: Slot, now_s: float) -> None:
        """Give a slot back. Idempotent."""
        if slot.number in self._slots:
            self._departures.advance(now_s, self.n_active)
            self._departures.note(now_s)
            del self._slots[slot.number]
            self.last_left_s = now_s

    def wait_minutes(self, now_s: float) -> float:
        """Minutes until a slot is likely free, by how often places became free; see `realtime.departures`."""
        # More than one has to leave if there are more streams than keep up with each other.
        capacity = self.capacity
        n_leaving = self.n_active - capacity.streams + 1
        if n_leaving <= 0:
            return MIN_WAIT_MINUTES
        self._departures.advance(now_s, self.n_active)
        wait_s = self._departures.wait_s(self.n_active, n_leaving)
        if self._limit_s is not None:
            oldest_first = list(self._slots.values())
            wait_s = min(wait_s, oldest_first[n_leaving - 1].since_s + self._limit_s - now_s)
        if capacity.limited_by == PROCESS:
            wait_s = min(wait_s, MAX_LOAD_WAIT_MINUTES * 60)
        return max(MIN_WAIT_MINUTES, wait_s / 60)
