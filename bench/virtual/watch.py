"""When each word of a made-up talk was first shown and when it was completed, and which were lost.

Every word of a talk has a text of its own, so what is shown is matched with what was said at sight. A
talk is said over and over: a word belongs to the round whose end of it is nearest in time, which is right
unless it is half a round late.

Pure: times come in as arguments. Memory is bounded by calling `take`, which hands over the words that are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.virtual.talk import SaidWord, Talk, word_place

__all__ = ["WatchedWord", "WordWatch"]


@dataclass
class WatchedWord:
    """A word that was said: when its sound ended, when it was shown and completed, on the stream's clock.

    A word heard wrong counts as completed, but not as shown before.
    """

    said: SaidWord
    end_s: float
    shown_s: float | None = None
    completed_s: float | None = None
    is_wrong: bool = False

    @property
    def shown_after_s(self) -> float | None:
        """From the end of its sound to its first showing, completed or not."""
        return None if self.shown_s is None else self.shown_s - self.end_s

    @property
    def completed_after_s(self) -> float | None:
        """From the end of its sound to its completion."""
        return None if self.completed_s is None else self.completed_s - self.end_s


class WordWatch:
    """The words of one stream.

    `n_doubled` counts words completed again, `n_strange` completed texts that are no word of the talk, or that
    came when the word had been taken.
    """

    def __init__(self, talk: Talk, start_s: float) -> None:
        """The stream says the talk from `start_s` on."""
        self._talk = talk
        self._start_s = start_s
        self._words: dict[tuple[int, int], WatchedWord] = {}
        self._n_taken = 0
        self.n_doubled = 0
        self.n_strange = 0

    def shown(self, now_s: float, completed: Sequence[str], provisional: str) -> None:
        """Take the texts of newly completed segments, and of the provisional one."""
        for text in " ".join(completed).split():
            self._complete(text, now_s)
        for text in provisional.split():
            word, is_right = self._word(text, now_s)
            if word is not None and is_right and word.shown_s is None:
                word.shown_s = now_s

    def take(self, until_s: float) -> list[WatchedWord]:
        """All words that ended by second `until_s` of the stream, in order, shown or not; forgets them."""
        taken = []
        while (key := self._key(self._n_taken)) and self._end_s(key) <= until_s:
            said = self._talk.words[key[1]]
            taken.append(self._words.pop(key, WatchedWord(said, self._start_s + self._end_s(key))))
            self._n_taken += 1
        return taken

    def _key(self, number: int) -> tuple[int, int]:
        return divmod(number, len(self._talk.words))

    def _end_s(self, key: tuple[int, int]) -> float:
        return key[0] * self._talk.duration_s + self._talk.words[key[1]].end_s

    def _complete(self, text: str, now_s: float) -> None:
        word, is_right = self._word(text, now_s)
        if word is None:
            self.n_strange += 1
        elif word.completed_s is not None:
            self.n_doubled += 1
        else:
            word.completed_s, word.is_wrong = now_s, not is_right
            word.shown_s = now_s if word.shown_s is None else word.shown_s

    def _word(self, text: str, now_s: float) -> tuple[WatchedWord | None, bool]:
        """The word that a text stands for, and whether it was heard right; none: strange, or too late to count."""
        found = word_place(text)
        if found is None or found[0] >= len(self._talk.words):
            return None, False
        place, is_right = found
        end_s = self._talk.words[place].end_s
        key = (max(0, round((now_s - self._start_s - end_s) / self._talk.duration_s)), place)
        if key < self._key(self._n_taken):
            return None, False
        if key not in self._words:
            self._words[key] = WatchedWord(self._talk.words[place], self._start_s + self._end_s(key))
        return self._words[key], is_right
