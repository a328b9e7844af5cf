"""Word error rate and the word alignment behind it.

Knows nothing of audio, sockets or models: two texts in, counts out. Case and punctuation do not
count; digits and accents do. Alignment is the edit distance of Levenshtein with cost 1 for each
substitution, deletion and insertion, computed row by row with numpy.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import BadInputError

__all__ = ["MAX_CELLS", "Pair", "WordErrors", "align", "count_errors", "normalise", "word_errors"]

MAX_CELLS = 100_000_000
"""Most cells of one alignment table (a byte each): 10,000 words, over an hour of speech, on each side."""

_STEP_MATCH, _STEP_DELETE, _STEP_INSERT = 0, 1, 2


@dataclass(frozen=True)
class Pair:
    """One column of an alignment: places in reference and hypothesis; None stands for a gap."""

    reference: int | None
    hypothesis: int | None
    is_match: bool


@dataclass(frozen=True)
class WordErrors:
    """Error counts of a hypothesis against a reference of `reference_words` words."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_words: int = 0

    @property
    def errors(self) -> int:
        """All errors together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per word of the reference (an empty reference counts as one word), 0 is perfect."""
        return self.errors / max(1, self.reference_words)

    def __add__(self, other: WordErrors) -> WordErrors:
        """The counts of two texts together."""
        return WordErrors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_words + other.reference_words,
        )


def normalise(text: str) -> tuple[str, ...]:
    """The words of `text` as they are compared: lower case, no punctuation, digits and accents kept.

    Apostrophes vanish (`don't` is one word); any other sign separates words (`half-past` is two).
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    kept = []
    for char in unicodedata.normalize("NFC", lowered):
        if char in "'’ʼ":
            continue
        kept.append(char if unicodedata.category(char)[0] in "LMN" else " ")
    return tuple("".join(kept).split())


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Pair, ...]:
    """The cheapest alignment, left to right.

    Among equally cheap ones, matches lie as far to the left as possible: words of the reference
    that a growing text has not reached yet stay at its end. Raises BadInputError if the table would
    exceed MAX_CELLS.
    """
    cells = len(reference) * len(hypothesis)
    if cells > MAX_CELLS:
        raise BadInputError("reference words x hypothesis words", cells, f"at most {MAX_CELLS}")
    steps = _steps(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    backwards: list[Pair] = []
    while row or column:
        if not column or (row and steps[row - 1, column - 1] == _STEP_DELETE):
            row -= 1
            backwards.append(Pair(row, None, False))
        elif not row or steps[row - 1, column - 1] == _STEP_INSERT:
            column -= 1
            backwards.append(Pair(None, column, False))
        else:
            row, column = row - 1, column - 1
            backwards.append(Pair(row, column, reference[row] == hypothesis[column]))
    return tuple(reversed(backwards))


def count_errors(pairs: Sequence[Pair]) -> WordErrors:
    """The error counts of an alignment."""
    substitutions = sum(
        pair.reference is not None and pair.hypothesis is not None and not pair.is_match for pair in pairs
    )
    deletions = sum(pair.hypothesis is None for pair in pairs)
    insertions = sum(pair.reference is None for pair in pairs)
    return WordErrors(substitutions, deletions, insertions, len(pairs) - insertions)


def word_errors(reference: str, hypothesis: str) -> WordErrors:
    """The error counts between two texts, normalised first."""
    return count_errors(align(normalise(reference), normalise(hypothesis)))


def _steps(reference: Sequence[str], hypothesis: Sequence[str]) -> npt.NDArray[np.uint8]:
    """How each cell of the edit distance table is reached; shape [len(reference), len(hypothesis)]."""
    numbers = {word: number for number, word in enumerate({*reference, *hypothesis})}
    spoken = np.array([numbers[word] for word in hypothesis], dtype=np.int64)
    columns = np.arange(len(hypothesis) + 1, dtype=np.int64)
    steps = np.empty((len(reference), len(hypothesis)), dtype=np.uint8)
    above = columns.copy()
    for row, word in enumerate(reference):
        diagonal = above[:-1] + (spoken != numbers[word])
        here = np.empty_like(above)
        here[0] = row + 1
        here[1:] = np.minimum(diagonal, above[1:] + 1)
        # An insertion costs one more than the cell to the left: a running minimum of cost minus column.
        here = np.minimum.accumulate(here - columns) + columns
        steps[row] = np.where(
            here[1:] == above[1:] + 1, _STEP_DELETE, np.where(here[1:] == diagonal, _STEP_MATCH, _STEP_INSERT)
        )
        above = here
    return steps
