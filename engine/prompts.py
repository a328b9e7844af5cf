"""Arithmetic of Whisper prompts: what stands before `<|startoftranscript|>`, and how long to decode.

Layout (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", 2.3):
`<|startofprev|>` previous text, then `<|startoftranscript|>` language, task, `<|notimestamps|>`.
Pure; token ids are plain integers, and no tokenizer is known here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

__all__ = [
    "MAX_HINT_CHARS",
    "MAX_HINT_TOKENS",
    "MAX_POSITIONS",
    "MAX_PREVIOUS_TOKENS",
    "compression_ratio",
    "hint_tokens",
    "join_previous",
    "length_limit",
    "max_steps",
]

MAX_POSITIONS = 448
"""Text positions of every Whisper model, prompt and new text together."""
MAX_PREVIOUS_TOKENS = MAX_POSITIONS // 2 - 1
"""Whisper keeps half of the positions for new text and one for `<|startofprev|>`."""
MAX_HINT_TOKENS = 96
"""Hot words, and likewise the prompt, may take this many: between them they leave some to the context."""
MAX_HINT_CHARS = 4_096
"""More characters than MAX_HINT_TOKENS tokens can hold; what is beyond is not even tokenized."""


def hint_tokens(text: str, encode: Callable[[str], Sequence[int]], end_of_text: int) -> list[int]:
    """Token ids of a client's hint, without special tokens (ids from `end_of_text` on).

    A tokenizer reads "<|startoftranscript|>" in a text as that token; no client may send one.
    """
    hint = text.strip()
    return [token for token in encode(" " + hint) if token < end_of_text] if hint else []


def join_previous(hotwords: Sequence[int], prompt: Sequence[int], context: Sequence[int]) -> list[int]:
    """Token ids of the previous text, at most MAX_PREVIOUS_TOKENS.

    Hot words keep their head, the prompt and the context their tails: what was said last matters most.
    """
    hints = [*hotwords[:MAX_HINT_TOKENS], *prompt[-MAX_HINT_TOKENS:]]
    room = MAX_PREVIOUS_TOKENS - len(hints)
    return [*hints, *context[-room:]]


def max_steps(n_prompt: int, max_new_tokens: int) -> int:
    """How many tokens, the end of text among them, CTranslate2 writes after a prompt under `length_limit`."""
    return max(1, min(max_new_tokens, MAX_POSITIONS // 2, MAX_POSITIONS - n_prompt + 1))


def length_limit(n_prompt: int, max_new_tokens: int) -> int:
    """CTranslate2's `max_length` for `max_new_tokens` tokens after a prompt of `n_prompt`.

    The library decodes min(max_length // 2, max_length - (n_prompt - 1)) steps, whatever stands in
    its documentation (see CTranslate2 issue 2074); positions end at MAX_POSITIONS.
    """
    steps = max_steps(n_prompt, max_new_tokens)
    return max(2 * steps, steps + n_prompt - 1)


def compression_ratio(text: str) -> float:
    """How much shorter zlib makes a text: above 2.4 Whisper takes it for a loop; 0 for no text."""
    data = text.strip().encode("utf-8")
    return len(data) / len(zlib.compress(data)) if data else 0.0
