"""The engine child's low-level model without weights: it counts rows, spreads words and errs as it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.types import FRAMES_PER_SECOND, DetectResult, FloatArray, ModelInfo, Word
from engine.window_model import AlignRequest, DecodeOptions, DecodeRequest, DecodeResult
from tests.fakes.clock import ManualClock

__all__ = ["COSTS_S", "FAKE_MODEL_INFO", "FakeEncoded", "FakeModel", "written"]

FAKE_MODEL_INFO = ModelInfo(
    name="fake",
    n_mels=80,
    languages=("en", "es", "de"),
    device="cpu",
    compute_type="int8",
    pad_frames=0,
    tail_frames=100,
    bucket_frames=100,
)
COSTS_S = {"encode": 1.0, "detect": 0.25, "decode": 0.5, "align": 0.125}
"""What each call moves the clock by."""
FIRST_TOKEN = 1_000


def written(n_words: int, **more: Any) -> DecodeResult:
    """A decoder's answer of `n_words` words, beyond doubt unless `more` says otherwise."""
    values = {"avg_logprob": -0.1, "no_speech_prob": 0.01, "compression_ratio": 1.0, **more}
    tokens = tuple(range(FIRST_TOKEN, FIRST_TOKEN + n_words))
    return DecodeResult(tokens=tokens, text="".join(f" w{index}" for index in range(n_words)), **values)


@dataclass(eq=False)
class FakeEncoded:
    """An encoded batch: what was encoded."""

    features: FloatArray


class FakeModel:
    """`engine.window_model.WindowModel`; `calls` are (method, argument) in order.

    A row's decodes take their results from its list in `script`, then are `written(row + 1)`, so that every
    row has words of its own. `errors` names methods that raise.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.script: dict[int, deque[DecodeResult]] = {}
        self.language_probs: dict[int, DetectResult] = {}
        self.errors: dict[str, Exception] = {}
        self._clock = clock or ManualClock()

    def methods(self) -> list[str]:
        """Names of the calls so far, in order."""
        return [method for method, _ in self.calls]

    def arguments(self, method: str) -> list[Any]:
        """Arguments of all calls of a method, without the encoded batch."""
        return [argument for name, argument in self.calls if name == method]

    def _enter(self, method: str, argument: Any) -> None:
        self.calls.append((method, argument))
        self._clock.advance(COSTS_S[method])
        if method in self.errors:
            raise self.errors[method]

    def encode(self, features: FloatArray) -> FakeEncoded:
        """Remember what is encoded."""
        self._enter("encode", features)
        return FakeEncoded(features)

    def detect(self, encoded: FakeEncoded, rows: Sequence[int]) -> list[DetectResult]:
        """English, unless `language_probs` has something for the row."""
        self._enter("detect", list(rows))
        english = (("en", 0.8), ("de", 0.15), ("es", 0.05))
        return [self.language_probs.get(row, english) for row in rows]

    def decode(
        self, encoded: FakeEncoded, requests: Sequence[DecodeRequest], options: DecodeOptions
    ) -> list[DecodeResult]:
        """Scripted results first."""
        self._enter("decode", (list(requests), options))
        return [
            self.script[request.row].popleft() if self.script.get(request.row) else written(request.row + 1)
            for request in requests
        ]

    def align(
        self, encoded: FakeEncoded, language: str, task: str, requests: Sequence[AlignRequest]
    ) -> list[tuple[Word, ...]]:
        """Spread the words evenly over the content."""
        self._enter("align", (language, task, list(requests)))
        return [_spread(request.tokens, request.n_frames / FRAMES_PER_SECOND) for request in requests]


def _spread(tokens: Sequence[int], length_s: float) -> tuple[Word, ...]:
    step_s = length_s / max(1, len(tokens))
    return tuple(
        Word(f" w{token - FIRST_TOKEN}", index * step_s, (index + 1) * step_s, 0.9, (token,))
        for index, token in enumerate(tokens)
    )
