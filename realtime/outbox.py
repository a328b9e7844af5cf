"""What waits to be sent to one peer, bounded and in order.

While the peer does not read, updates of the transcript melt together: the newest provisional text
wins, completed segments are all kept. Also holds what WhisperLive's clients expect of the list:
the last completed segments are repeated, and a completed segment was shown as provisional, in the
same words, just before (their SRT writer appends the last provisional it saw if it differs).

Pure: no socket, no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from realtime import messages
from realtime.events import Message, SendDisconnect, SendLanguage, SendSegments, SendWarning
from realtime.messages import Segment
from realtime.protocol import Handshake

__all__ = ["Outbox"]


class Outbox:
    """Messages in, JSON texts out; `result_key` as in `messages.segments`."""

    def __init__(self, handshake: Handshake, *, result_key: bool) -> None:
        self._uid = handshake.uid
        self._result_key = result_key
        self._seed_language = handshake.language if handshake.seed_protocol else None
        self._is_seed = handshake.seed_protocol
        self._queue: deque[Message] = deque()
        self._history: deque[Segment] = deque(maxlen=handshake.send_last_n_segments)
        self._shown: Segment | None = None

    def put(self, message: Message) -> None:
        """Add a message behind those that wait."""
        last = self._queue[-1] if self._queue else None
        if isinstance(message, SendSegments) and isinstance(last, SendSegments):
            self._queue[-1] = SendSegments(last.completed + message.completed, message.provisional)
        else:
            self._queue.append(message)

    def pop(self) -> str | None:
        """The next message as JSON text; None if nothing waits."""
        while self._queue:
            message = self._queue.popleft()
            if not isinstance(message, SendSegments):
                return messages.encode(self._control(message))
            if text := self._segments(message):
                return text
        return None

    def _control(self, message: SendLanguage | SendWarning | SendDisconnect) -> messages.Message:
        if isinstance(message, SendLanguage):
            if self._is_seed:
                self._seed_language = message.language
            return messages.language(self._uid, message.language, message.probability)
        if isinstance(message, SendWarning):
            return messages.warning(self._uid, message.text)
        return messages.disconnect(self._uid)

    def _segments(self, update: SendSegments) -> str | None:
        completed, provisional = update.completed, update.provisional
        if completed and provisional is None and not self._was_shown(completed[-1]):
            self._queue.appendleft(SendSegments(completed[-1:], None))
            provisional = replace(completed[-1], completed=False)
            completed = completed[:-1]
        elif not completed and (provisional is None or self._was_shown(provisional)):
            return None
        listed = [*self._earlier(len(completed)), *completed]
        self._history.extend(completed)
        if provisional is not None:
            self._shown = provisional
        return messages.encode(
            messages.segments(
                self._uid,
                listed,
                provisional,
                result_key=self._result_key,
                seed_language=self._seed_language,
            )
        )

    def _earlier(self, n_new: int) -> list[Segment]:
        """Completed segments that were sent before and are repeated in front of `n_new` new ones."""
        n_repeated = max(0, (self._history.maxlen or 0) - n_new)
        return list(self._history)[-n_repeated:] if n_repeated else []

    def _was_shown(self, segment: Segment) -> bool:
        shown = self._shown
        return shown is not None and (shown.text, shown.start_ms) == (segment.text, segment.start_ms)
