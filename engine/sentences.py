"""Where a sentence ends: the one definition, for live text and for recordings. Pure."""

from __future__ import annotations

__all__ = ["ends_sentence"]

SENTENCE_ENDS = (".", "?", "!", "。", "？", "！", "…")


def ends_sentence(text: str) -> bool:
    """True if the word closes a sentence."""
    return text.rstrip("\"'”’)» ").endswith(SENTENCE_ENDS)
