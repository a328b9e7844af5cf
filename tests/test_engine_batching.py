"""engine/batching.py: which windows share a call, and that a window alone decides its own shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching import (
    MAX_TOKEN_BUDGET,
    MIN_TOKEN_BUDGET,
    batch_key,
    cut_context,
    padded_frames,
    token_budget,
)
from engine.prompts import MAX_HINT_TOKENS, MAX_POSITIONS, MAX_PREVIOUS_TOKENS, join_previous, length_limit
from engine.types import MAX_FRAMES, JobClass, ModelInfo, WindowJob
from tests.fakes.model import FAKE_MODEL_INFO

DEMO = FAKE_MODEL_INFO
REAL = replace(FAKE_MODEL_INFO, pad_frames=MAX_FRAMES, tail_frames=0, bucket_frames=200)
SHORT = replace(FAKE_MODEL_INFO, pad_frames=1_000, tail_frames=300, bucket_frames=200)
INFOS = st.sampled_from([DEMO, REAL, SHORT])
FRAMES = st.integers(0, MAX_FRAMES)


def job(n_frames: int = 200, job_class: JobClass = JobClass.FINAL, **more: Any) -> WindowJob:
    mel = np.zeros((80, n_frames), dtype=np.float32)
    return WindowJob(**{"stream": "a", "job_class": job_class, "mel": mel, "language": "en", **more})


# Lengths


@pytest.mark.parametrize(
    ("info", "n_frames", "expected"),
    [
        (DEMO, 0, 100),
        (DEMO, 1, 200),
        (DEMO, 100, 200),
        (DEMO, 101, 300),
        (DEMO, MAX_FRAMES - 100, MAX_FRAMES),
        (DEMO, MAX_FRAMES - 99, MAX_FRAMES),
        (DEMO, MAX_FRAMES, MAX_FRAMES),
        (REAL, 0, MAX_FRAMES),
        (REAL, MAX_FRAMES, MAX_FRAMES),
        (SHORT, 700, 1_000),
        (SHORT, 701, 1_200),
        (SHORT, 900, 1_200),
        (SHORT, 901, 1_400),
        (replace(SHORT, pad_frames=1_001), 700, 1_001),
    ],
)
def test_windows_are_made_as_long_as_their_bucket(info: ModelInfo, n_frames: int, expected: int) -> None:
    assert padded_frames(n_frames, info) == expected


@given(FRAMES, INFOS)
def test_no_window_is_cut_and_each_gets_its_tail(n_frames: int, info: ModelInfo) -> None:
    padded = padded_frames(n_frames, info)
    assert max(info.pad_frames, min(MAX_FRAMES, n_frames + info.tail_frames)) <= padded <= MAX_FRAMES
    assert padded == info.pad_frames or padded - info.tail_frames - n_frames < info.bucket_frames


@given(FRAMES, FRAMES, INFOS)
def test_longer_windows_are_never_made_shorter(one: int, other: int, info: ModelInfo) -> None:
    low, high = sorted((one, other))
    assert padded_frames(low, info) <= padded_frames(high, info)


def test_the_token_budget_follows_the_length_within_its_bounds() -> None:
    expected = [MIN_TOKEN_BUDGET, MIN_TOKEN_BUDGET, 20, 21, 112, 223, MAX_TOKEN_BUDGET, MAX_TOKEN_BUDGET]
    assert [token_budget(n) for n in (0, 88, 93, 94, 500, 995, 996, MAX_FRAMES)] == expected


@given(FRAMES, st.sampled_from([0, 32, 96, MAX_PREVIOUS_TOKENS]))
def test_the_budget_and_the_longest_prompt_fit_into_the_models_positions(n_frames: int, n_previous: int) -> None:
    n_prompt = 1 + n_previous + 4
    max_length = length_limit(n_prompt, token_budget(n_frames))
    assert max_length <= MAX_POSITIONS
    # What CTranslate2 makes of it: as many steps as were asked for, and one position each.
    steps = min(max_length // 2, max_length - (n_prompt - 1))
    assert n_prompt - 1 + steps <= MAX_POSITIONS
    assert steps >= min(token_budget(n_frames), MAX_POSITIONS - n_prompt + 1)


# Keys


@pytest.mark.parametrize(
    "other",
    [
        job(150),
        job(language="es"),
        job(language=None),
        job(language=None, languages=("es",)),
        job(task="translate"),
        job(stream="b"),
    ],
)
def test_what_may_differ_within_a_batch(other: WindowJob) -> None:
    assert batch_key(other, DEMO) == batch_key(job(), DEMO)


@pytest.mark.parametrize(
    "other",
    [
        job(100),
        job(201),
        job(job_class=JobClass.PARTIAL),
        job(context=(1,) * 32),
        job(prompt="p"),
        job(hotwords="h"),
    ],
)
def test_what_keeps_windows_apart(other: WindowJob) -> None:
    assert batch_key(other, DEMO) != batch_key(job(), DEMO)


def test_where_all_windows_are_padded_alike_their_content_decides_the_budget() -> None:
    keys = [batch_key(job(n_frames), REAL) for n_frames in (1, 500, 501, 1_000, 1_001, MAX_FRAMES)]
    assert {key.n_frames for key in keys} == {MAX_FRAMES}
    assert [key.max_new_tokens for key in keys] == [112, 112, 224, 224, 224, 224]


@given(FRAMES, INFOS)
def test_the_budget_covers_the_content_of_each_window(n_frames: int, info: ModelInfo) -> None:
    key = batch_key(job(n_frames), info)
    assert key.max_new_tokens >= min(token_budget(n_frames), token_budget(key.n_frames))


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_equal_hints_and_equally_long_contexts_are_equally_many_tokens(
    n_hotwords: int, n_prompt: int, n_context: int
) -> None:
    hotwords, prompt = range(n_hotwords), range(n_prompt)
    one = join_previous(hotwords, prompt, range(n_context))
    other = join_previous(hotwords, prompt, [7] * n_context)
    assert len(one) == len(other) <= MAX_PREVIOUS_TOKENS
    # Contexts of the lengths that models name are not cut behind the longest hints.
    if n_context <= MAX_PREVIOUS_TOKENS - 2 * MAX_HINT_TOKENS:
        assert one[len(one) - n_context :] == list(range(n_context))


# Context


@pytest.mark.parametrize(
    ("n_tokens", "expected"), [(0, 0), (31, 0), (32, 32), (33, 32), (95, 32), (96, 96), (97, 96), (500, 96)]
)
def test_context_is_cut_to_the_largest_length_that_it_fills(n_tokens: int, expected: int) -> None:
    tokens = list(range(n_tokens))
    assert cut_context(tokens, (0, 32, 96)) == tuple(tokens[n_tokens - expected :])


def test_a_model_without_context_gets_none() -> None:
    assert cut_context(range(500), (0,)) == ()
    assert cut_context(range(500), ()) == ()
