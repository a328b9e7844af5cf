"""A model as the decoding of windows sees it: four calls, and what goes in and out of them.

Plain frozen dataclasses and one protocol; knows no library, no policy and no batch. Runs on both sides of the
pipe.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine.types import DetectResult, FloatArray, Word

__all__ = [
    "AlignRequest",
    "DecodeOptions",
    "DecodeRequest",
    "DecodeResult",
    "EncodedT",
    "WindowModel",
    "group_indexes",
]

EncodedT = TypeVar("EncodedT")


@dataclass(frozen=True)
class DecodeRequest:
    """One row of an encoded batch to be decoded; `context` are token ids that stand before the window."""

    row: int
    language: str
    task: str = "transcribe"
    context: tuple[int, ...] = ()
    prompt: str = ""
    hotwords: str = ""


@dataclass(frozen=True)
class DecodeOptions:
    """How all rows of a call are decoded.

    Above temperature 0 `beam_size` is the number of samples to choose from, and `patience` means nothing; no
    sequence of `no_repeat_ngram` tokens (0: any) comes twice. `suppress_tokens` are never written, -1 stands for
    the model's own list.
    """

    beam_size: int
    max_new_tokens: int
    temperature: float = 0.0
    no_repeat_ngram: int = 0
    patience: float = 1.0
    length_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = (-1,)


@dataclass(frozen=True)
class DecodeResult:
    """What the decoder wrote, and how sure it was.

    `is_cut`: the text ended at its token budget. `temperature` is that of the call.
    """

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    is_cut: bool = False
    temperature: float = 0.0


@dataclass(frozen=True)
class AlignRequest:
    """Tokens to place in time on one row of an encoded batch, whose content is `n_frames` mel frames."""

    row: int
    tokens: tuple[int, ...]
    n_frames: int


class WindowModel(Protocol[EncodedT]):
    """The calls of a model for windows; `EncodedT` is its own form of an encoded batch."""

    def encode(self, features: FloatArray) -> EncodedT:
        """Encode normalised float32 [n, n_mels, frames]."""
        ...

    def detect(self, encoded: EncodedT, rows: Sequence[int]) -> list[DetectResult]:
        """Language probabilities of some rows."""
        ...

    def decode(
        self, encoded: EncodedT, requests: Sequence[DecodeRequest], options: DecodeOptions
    ) -> list[DecodeResult]:
        """Decode some rows; in as few calls as their prompts allow."""
        ...

    def align(
        self, encoded: EncodedT, language: str, task: str, requests: Sequence[AlignRequest]
    ) -> list[tuple[Word, ...]]:
        """Words with times for some rows of one language and task."""
        ...


def group_indexes(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indexes of equal keys together, in the order in which the keys appear."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())
