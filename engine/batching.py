"""Which windows can share one call of the model, and how long they are made for it.

Used on both sides of the pipe: the parent puts windows of equal key into one batch, the child pads and
prompts them alike. Pure. Invariants: the key and the length of a window depend on that window alone, so its
words do not depend on who else is in the batch; CTranslate2 refuses a batch in which the index of
`<|startoftranscript|>` differs, and the key keeps it equal (language and task are one token each and may
mix).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.types import FRAMES_PER_SECOND, MAX_FRAMES, JobClass, ModelInfo, SearchOptions, WindowJob

__all__ = [
    "MAX_TOKEN_BUDGET",
    "MIN_TOKEN_BUDGET",
    "BatchKey",
    "batch_key",
    "cut_context",
    "padded_frames",
    "token_budget",
]

MIN_TOKEN_BUDGET = 20
MAX_TOKEN_BUDGET = 224
"""Half of Whisper's text positions: the other half is the prompt's."""
BUDGET_TOKENS_PER_S = 22.5
"""Fast speech has 15 tokens per second (scripts of byte tokens included), and half as many to spare. A
loop ends here instead of at 224."""


BUDGET_STEP_FRAMES = 500
"""Where windows are padded far beyond their content, the budget follows the content in steps of 5 s."""


class BatchKey(NamedTuple):
    """What windows of one batch have in common; `n_frames` counts mel frames with padding.

    The rows of a call share the options of the search.
    """

    job_class: JobClass
    n_frames: int
    max_new_tokens: int
    n_context: int
    prompt: str
    hotwords: str
    search: SearchOptions | None = None
    wants_words: bool = True


def padded_frames(n_frames: int, info: ModelInfo) -> int:
    """To how many mel frames a window of `n_frames` is padded: its bucket, at least the model's minimum."""
    wanted = n_frames + info.tail_frames
    bucket = -(-wanted // info.bucket_frames) * info.bucket_frames
    return min(MAX_FRAMES, max(info.pad_frames, bucket))


def batch_key(job: WindowJob, info: ModelInfo) -> BatchKey:
    """The key of a window. Equal hints are equally many tokens, whatever the tokenizer."""
    n_content = job.mel.shape[1]
    n_frames = padded_frames(n_content, info)
    budget = token_budget(min(n_frames, -(-n_content // BUDGET_STEP_FRAMES) * BUDGET_STEP_FRAMES))
    return BatchKey(
        job.job_class, n_frames, budget, len(job.context), job.prompt, job.hotwords, job.search, job.wants_words
    )


def token_budget(n_frames: int) -> int:
    """How many tokens `n_frames` mel frames may have."""
    wanted = int(n_frames / FRAMES_PER_SECOND * BUDGET_TOKENS_PER_S)
    return min(MAX_TOKEN_BUDGET, max(MIN_TOKEN_BUDGET, wanted))


def cut_context(tokens: Sequence[int], lengths: Sequence[int]) -> tuple[int, ...]:
    """The last of `tokens`, cut to the largest of the ascending `lengths` that they fill."""
    length = max((each for each in lengths if each <= len(tokens)), default=0)
    return tuple(tokens[len(tokens) - length :])
