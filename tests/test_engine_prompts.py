"""engine/prompts.py: what fits before the text, and how long the text may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts import (
    MAX_HINT_TOKENS,
    MAX_POSITIONS,
    MAX_PREVIOUS_TOKENS,
    compression_ratio,
    hint_tokens,
    join_previous,
    length_limit,
)


def steps(max_length: int, n_prompt: int) -> int:
    """CTranslate2's own arithmetic (whisper.cc)."""
    return min(max_length // 2, max_length - (n_prompt - 1))


@given(st.integers(1, 228), st.integers(1, 220))
def test_the_library_takes_exactly_the_steps_that_were_asked_for(n_prompt: int, n_new: int) -> None:
    limit = length_limit(n_prompt, n_new)
    assert steps(limit, n_prompt) == n_new
    assert limit <= MAX_POSITIONS


@pytest.mark.parametrize(("n_prompt", "n_new", "expected"), [(4, 0, 1), (4, 224, 224), (4, 225, 224), (440, 100, 9)])
def test_the_steps_stay_within_the_positions(n_prompt: int, n_new: int, expected: int) -> None:
    assert steps(length_limit(n_prompt, n_new), n_prompt) == expected


def test_the_previous_text_keeps_order_heads_of_hot_words_and_tails_of_the_rest() -> None:
    assert join_previous([1, 2], [3], [4, 5]) == [1, 2, 3, 4, 5]
    assert join_previous([], [], []) == []
    long = list(range(1_000))
    joined = join_previous(long, long, long)
    assert len(joined) == MAX_PREVIOUS_TOKENS
    assert joined[:MAX_HINT_TOKENS] == long[:MAX_HINT_TOKENS]
    assert joined[MAX_HINT_TOKENS : 2 * MAX_HINT_TOKENS] == long[-MAX_HINT_TOKENS:]
    assert joined[2 * MAX_HINT_TOKENS :] == long[-(MAX_PREVIOUS_TOKENS - 2 * MAX_HINT_TOKENS) :]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_context_is_cut_at_the_limit(extra: int) -> None:
    context = list(range(MAX_PREVIOUS_TOKENS + extra))
    assert join_previous([], [], context) == context[extra:]


def test_hints_hold_no_special_tokens() -> None:
    seen = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return [5, 50257, 7]

    assert hint_tokens("  names ", encode, 50257) == [5, 7]
    assert hint_tokens("   ", encode, 50257) == []
    assert seen == [" names"]


def test_compression_ratio_tells_loops_from_speech() -> None:
    assert compression_ratio("") == compression_ratio("  ") == 0.0
    assert compression_ratio(" Good morning, Peter.") < 1.2
    assert compression_ratio(" and so on" * 30) > 2.4
