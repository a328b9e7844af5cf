"""When a stream's language counts as known.

Text is withheld, and audio kept, until then; nothing is discarded. A confident short look or a
longer less confident one decides, and the first finished utterance with words in any case.
"""

from __future__ import annotations

from engine.types import WindowResult

__all__ = ["LanguageLock"]

SURE_PROBABILITY = 0.85
SURE_AFTER_S = 1.0
LIKELY_PROBABILITY = 0.5
"""WhisperLive's threshold."""
LIKELY_AFTER_S = 3.0


class LanguageLock:
    """Open until the peer or the audio has decided it."""

    def __init__(self, asked: str | None) -> None:
        self.code = asked

    def observe(
        self, result: WindowResult, window_s: float, *, has_words: bool, final: bool
    ) -> tuple[str, float] | None:
        """Look at a decode of `window_s` seconds; return (code, probability) when it decides."""
        if self.code is not None or not has_words:
            return None
        probability = dict(result.language_probs).get(result.language, 0.0)
        sure = probability >= SURE_PROBABILITY and window_s >= SURE_AFTER_S
        likely = probability >= LIKELY_PROBABILITY and window_s >= LIKELY_AFTER_S
        if not (sure or likely or final):
            return None
        self.code = result.language
        return result.language, probability
