"""Completed segments, collected exactly once, and the mailbox between socket and reader.

Pure: knows no socket and no clock. Invariants: completed segments are append-only and do not overlap;
a server that changes or inserts one is counted in `violations` and not believed; a mailbox is
bounded and never loses a completed segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from realtime.client.messages import Closed, Event, Segment, Update

__all__ = ["MAX_EVENTS", "Mailbox", "Transcript"]

MAX_EVENTS = 256
"""Events held for a slow reader: minutes of updates at their usual pace; beyond it updates merge."""

MAX_REJECTED = 1_000
"""Different false segments remembered, so that each is counted once though it is repeated."""


class Transcript:
    """The text of one stream so far."""

    def __init__(self) -> None:
        self.completed: list[Segment] = []
        self.provisional: Segment | None = None
        self.violations = 0
        self._keys: set[tuple[float, float, str]] = set()
        self._rejected: set[tuple[float, float, str]] = set()

    def add(self, listed: Sequence[Segment]) -> tuple[Segment, ...]:
        """Take the segments of one message; returns those completed by it, oldest first.

        A completed segment is new if it starts where the last one ended or later. Anything else that
        is not known already breaks the promise that completed text never changes.
        """
        new = []
        for segment in listed:
            if not segment.completed or segment.key in self._keys:
                continue
            if segment.start_s < self.end_s:
                self._reject(segment)
                continue
            self._keys.add(segment.key)
            self.completed.append(segment)
            new.append(segment)
        last = listed[-1] if listed else None
        self.provisional = last if last is not None and not last.completed else None
        return tuple(new)

    @property
    def end_s(self) -> float:
        """Where the completed text ends."""
        return self.completed[-1].end_s if self.completed else 0.0

    @property
    def text(self) -> str:
        """All completed text."""
        return "".join(segment.text for segment in self.completed).strip()

    def _reject(self, segment: Segment) -> None:
        if segment.key in self._rejected:
            return
        self.violations += 1
        if len(self._rejected) < MAX_REJECTED:
            self._rejected.add(segment.key)


class Mailbox:
    """A bounded queue of events that merges updates when its reader is slow.

    When full, an update joins the last update waiting (its completed segments are appended, the
    provisional is replaced), `Closed` is always taken, and other events are dropped and counted.
    """

    def __init__(self, capacity: int = MAX_EVENTS) -> None:
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add an event."""
        if len(self._events) < self._capacity or isinstance(event, Closed):
            self._events.append(event)
        elif isinstance(event, Update):
            self._merge(event)
        else:
            self.dropped += 1

    def pop(self) -> Event | None:
        """The oldest event, or None."""
        return self._events.popleft() if self._events else None

    def _merge(self, event: Update) -> None:
        for place in range(len(self._events) - 1, -1, -1):
            waiting = self._events[place]
            if isinstance(waiting, Update):
                self._events[place] = Update(waiting.completed + event.completed, event.provisional, event.at_s)
                return
        # A queue full of other things: the oldest of them makes room, text never does.
        self._events.popleft()
        self.dropped += 1
        self._events.append(event)
