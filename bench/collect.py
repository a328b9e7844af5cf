"""What a client received, frame by frame, to updates: after the run, so that the run costs little.

Pure. Takes the frames of any server of the protocol: keys that a server leaves out or adds, messages
nobody knows, and frames that are not JSON are all met. Invariant: text is kept exactly once, in the
order in which it was completed.

It believes more than `realtime.client` and WhisperLive's own client do: completed segments that overlap
in time are taken (and counted), where those clients drop them. A completed segment is new if it stands
behind all known ones in the list; one that appears before a known one, or that replaces known ones,
was changed after it had been completed: it counts as mutated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from realtime.client.messages import (
    Disconnect,
    ErrorReply,
    Listing,
    Ready,
    Segment,
    ServerWarning,
    Update,
    Wait,
    parse_message,
)

__all__ = ["Collected", "Frame", "collect"]

Frame = tuple[float, str | bytes]
"""When a frame came on the client's monotonic clock, and the frame."""


@dataclass(frozen=True)
class Collected:
    """One stream's messages. `refusal` is what the server said when it refused or gave up."""

    updates: tuple[Update, ...]
    mutated: int
    overlapping: int
    warnings: int
    refusal: str | None
    is_ready: bool
    is_disconnected: bool

    @property
    def text(self) -> str:
        """All completed text, one blank between segments."""
        return " ".join(segment.text.strip() for update in self.updates for segment in update.completed)


def collect(frames: Sequence[Frame]) -> Collected:
    """Read all frames of a stream."""
    taken = _Completed()
    updates: list[Update] = []
    warnings, refusal, is_ready, is_disconnected = 0, None, False, False
    for at_s, data in frames:
        message = parse_message(data)
        if isinstance(message, Listing):
            new = taken.take(message.segments)
            last = message.segments[-1]
            updates.append(Update(new, None if last.completed else last, at_s))
        elif isinstance(message, Ready):
            is_ready = True
        elif isinstance(message, Wait):
            refusal = f"the server is full (try again in {message.minutes:.1f} min)"
        elif isinstance(message, ErrorReply):
            refusal = f"the server refused: {message.message}"
        elif isinstance(message, Disconnect):
            is_disconnected = True
        elif isinstance(message, ServerWarning):
            warnings += 1
    return Collected(
        tuple(updates), len(taken.mutated), taken.overlapping, warnings, refusal, is_ready, is_disconnected
    )


class _Completed:
    """The completed segments so far."""

    def __init__(self) -> None:
        self.mutated: set[tuple[float, float, str]] = set()
        self.overlapping = 0
        self._known: set[tuple[float, float, str]] = set()
        self._last: Segment | None = None

    def take(self, listed: Sequence[Segment]) -> tuple[Segment, ...]:
        """The segments that this list adds."""
        done = [segment for segment in listed if segment.completed]
        known = [place for place, segment in enumerate(done) if segment.key in self._known]
        begin = known[-1] + 1 if known else 0
        # A list without any known segment may only continue: what begins before the last one replaces it.
        if not known and self._last is not None:
            while begin < len(done) and done[begin].start_s < self._last.start_s:
                begin += 1
        self.mutated.update(segment.key for segment in done[:begin] if segment.key not in self._known)
        new = tuple(done[begin:])
        for segment in new:
            self.overlapping += self._last is not None and segment.start_s < self._last.end_s
            self._known.add(segment.key)
            self._last = segment
        return new
