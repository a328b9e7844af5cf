"""Which language most of a recording is in.

Every window that was listened to has a vote, by how much speech is in it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import BadInputError
from engine.types import DetectResult, ModelInfo

__all__ = ["LanguageVote", "allowed_languages"]

SILENT_WEIGHT = 1e-6
"""What a window without speech counts, in seconds: something only if there is no other."""


def allowed_languages(info: ModelInfo, language: str | None, languages: Sequence[str]) -> tuple[str, ...]:
    """Among which languages the choice is; one: there is none. Raises BadInputError."""
    legal = ", ".join(info.languages)
    if language is not None:
        if language not in info.languages:
            raise BadInputError("language", language, legal)
        return (language,)
    allowed = tuple(code for code in info.languages if not languages or code in languages)
    if not allowed:
        raise BadInputError("languages", tuple(languages), f"at least one of {legal}")
    return allowed


class LanguageVote:
    """The weighted mean of what windows were detected as."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._sums = dict.fromkeys(allowed, 0.0)
        self._total = 0.0

    def add(self, probabilities: DetectResult, speech_s: float) -> None:
        """A window with `speech_s` seconds of speech was detected as this."""
        weight = max(speech_s, SILENT_WEIGHT)
        for code, probability in probabilities:
            if code in self._sums:
                self._sums[code] += weight * probability
        self._total += weight

    @property
    def speech_s(self) -> float:
        """Seconds of speech that have voted."""
        return self._total

    @property
    def probabilities(self) -> DetectResult:
        """(language, probability), best first; all 0 before the first vote, one language alone 1."""
        if len(self._sums) == 1:
            return tuple((code, 1.0) for code in self._sums)
        scale = 1.0 / self._total if self._total else 0.0
        ranked = sorted(self._sums.items(), key=lambda pair: -pair[1])
        return tuple((code, votes * scale) for code, votes in ranked)

    @property
    def leader(self) -> str:
        """The language with the most votes."""
        return self.probabilities[0][0]
