"""Warnings to the peer, and when they may be sent. Pure.

Where the peer left the language open, warnings wait until the first text is out: WhisperLive's Chrome
extension takes the second message for the language, whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from realtime.events import SendWarning

__all__ = ["Notices"]


class Notices:
    """Warnings in the order in which they came."""

    def __init__(self, texts: Sequence[str], *, held: bool) -> None:
        """`held`: nothing is sent before `release`."""
        self._texts = list(texts)
        self._is_held = held

    def add(self, text: str) -> None:
        """Something the peer should know."""
        self._texts.append(text)

    def release(self) -> None:
        """From now on warnings may be sent."""
        self._is_held = False

    def take(self, *, at_the_end: bool = False) -> list[SendWarning]:
        """What may be sent now; at the end all of it."""
        if self._is_held and not at_the_end:
            return []
        texts, self._texts = self._texts, []
        return [SendWarning(text) for text in texts]
