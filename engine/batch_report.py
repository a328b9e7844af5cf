"""What one batch was like, for whoever counts: numbers only, no text and no names of streams."""

from __future__ import annotations

from dataclasses import dataclass

from engine.types import JobClass

__all__ = ["BatchReport"]


@dataclass(frozen=True)
class BatchReport:
    """One call of the engine; a step of a recording is a batch of one.

    `queue_ages_s` are the waiting times of the jobs that ran for the first time. `frames` counts mel
    frames encoded and `padding_frames` how many of them were padding; they, `tokens` and the times of the
    stages are zero for a call that failed and for a recording. `took_s` is what the caller waited;
    `missed_deadlines` counts results that came after their time.
    """

    job_class: JobClass
    n_items: int
    queue_ages_s: tuple[float, ...]
    took_s: float
    is_success: bool = False
    missed_deadlines: int = 0
    frames: int = 0
    padding_frames: int = 0
    tokens: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0
    align_s: float = 0.0
