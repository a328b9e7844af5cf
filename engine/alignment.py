"""Words with times for the rows of an encoded batch, from the decoder's cross-attention.

Decides which rows share a call of CTranslate2's `align`, and turns its answers into words. Runs in the engine
child; the model and its tokenizer are given, no model library is imported. Invariant: the times of a row do not
depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from engine.errors import EngineFailedError
from engine.types import MAX_FRAMES, Word
from engine.window_model import AlignRequest
from engine.words import build_words, pieces_of

__all__ = ["MAX_ALIGN_TOKENS", "RowSource", "align_calls", "align_rows"]

MAX_ALIGN_TOKENS = 440
"""Text positions (448) less the start sequence: the library does not check this itself."""
MUTE_FRAMES = 2
"""Content of a row that goes along for the shape's sake, without text: one position."""
UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Written without blanks; faster-whisper splits these at characters."""


class RowSource(Protocol):
    """An encoded batch."""

    n_rows: int

    def rows(self, wanted: Sequence[int]) -> Any:
        """The encoder's output for some rows."""
        ...


def align_calls(frames: Mapping[int, int], n_rows: int, device: str) -> list[tuple[list[int], list[int]]]:
    """(rows whose words are wanted, rows that are sent) for each call.

    `frames` holds the mel frames of the rows to be aligned, out of a batch of `n_rows`.

    CPU: row by row. Measured on one core, per window of 6 to 19 tokens: 3.0 ms alone, 2.9 to 3.2 ms in twos to
    fours, 5 in eights, 9 in 32: the logits of a call pass 32 MB, from where on the C library maps and clears
    new pages every time.

    GPU: the whole batch, since leaving rows out would take it through the host, and a row without text costs
    little. But where all rows have equally many positions, CTranslate2 4.8 normalises the attention over the
    padding of the shorter texts too (`compute_alignments` in its whisper.cc); measured on equal windows in
    pairs, a quarter of the texts move, by up to 1.8 s. Rows of different lengths take another branch, so a
    uniform batch goes in two calls, in each of which some are mute.
    """
    rows = list(frames)
    if device == "cpu":
        return [([row], [row]) for row in rows]
    everything = list(range(n_rows))
    if n_rows > 1 and rows == everything and len({n_frames // 2 for n_frames in frames.values()}) == 1:
        return [(rows[:1], everything), (rows[1:], everything)]
    return [(rows, everything)] if rows else []


def align_rows(
    model: Any, tokenizer: Any, encoded: RowSource, device: str, requests: Sequence[AlignRequest]
) -> list[tuple[Word, ...]]:
    """Words per request; no tokens, or fewer than 2 frames, have none.

    Raises EngineFailedError for more than MAX_ALIGN_TOKENS tokens.
    """
    texts: dict[int, list[int]] = {}
    frames: dict[int, int] = {}
    for request in requests:
        tokens = [token for token in request.tokens if 0 <= token < tokenizer.eot]
        if len(tokens) > MAX_ALIGN_TOKENS:
            raise EngineFailedError(f"{len(tokens)} tokens to align; legal: 1 to {MAX_ALIGN_TOKENS}")
        # With fewer than 2 frames older versions of the library divide by zero and take the process along.
        if tokens and request.n_frames >= 2:
            texts[request.row], frames[request.row] = tokens, min(request.n_frames, MAX_FRAMES)
    words: dict[int, tuple[Word, ...]] = {}
    for wanted, sent in align_calls(frames, encoded.n_rows, device):
        found = model.align(
            encoded.rows(sent),
            tokenizer.sot_sequence,
            [texts[row] if row in wanted else [] for row in sent],
            [frames[row] if row in wanted else MUTE_FRAMES for row in sent],
        )
        for row in wanted:
            words[row] = _read(found[sent.index(row)], tokenizer, texts[row], frames[row])
    return [words.get(request.row, ()) for request in requests]


def _read(result: Any, tokenizer: Any, tokens: list[int], n_frames: int) -> tuple[Word, ...]:
    # The end of text goes along: where the alignment enters it, the last word ends.
    texts, groups = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
    pieces = pieces_of(texts[:-1], groups[:-1], result.alignments, result.text_token_probs)
    return build_words(pieces, n_frames, is_spaced=tokenizer.language_code not in UNSPACED_LANGUAGES)
