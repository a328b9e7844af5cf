"""A batch of live windows through the model: encode, detect, decode, judge, align.

Runs in the engine child; the parent uses `check_job` alone. Stateless; knows a model by its four calls
(`WindowModel`) and no pipe, queue or library.

Invariants: a batch is encoded once, whatever is done with its rows afterwards, and nothing of it is held when
`decode_batch` returns or raises; results come in the order of the jobs; a window's words do not depend on
its neighbours (where the model is unsure and they are sampled, on chance alone).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from engine.batching import batch_key
from engine.clock import Clock
from engine.errors import BadInputError, EngineFailedError
from engine.mel import window_features
from engine.types import (
    MAX_FRAMES,
    BatchResult,
    DetectResult,
    FloatArray,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
    Word,
)

__all__ = [
    "AlignRequest",
    "DecodeOptions",
    "DecodeRequest",
    "DecodeResult",
    "WindowModel",
    "check_job",
    "decode_batch",
    "group_indexes",
    "is_doubtful",
    "is_loop",
    "restrict",
]

BEAM_SIZE = {JobClass.PARTIAL: 1, JobClass.FINAL: 5, JobClass.FILE: 5}
"""A partial is decoded again soon; what stays is worth a beam (measured: three times the time to decode)."""
MAX_COMPRESSION_RATIO = 2.4
MIN_AVG_LOGPROB = -1.0
NO_SPEECH_PROB = 0.6
"""Whisper's own thresholds (OpenAI's transcribe.py) for loops, doubt and silence."""
FALLBACK_TEMPERATURE = 0.4
FALLBACK_SAMPLES = 5
"""Samples drawn at FALLBACK_TEMPERATURE, the best of which counts: Whisper's best_of."""
FALLBACK_NGRAM = 4
"""A loop is tried again without repeating this many tokens: unlike sampling, the same every time. Measured on the
loops of the demo model (36 words): 19 errors, sampled 130, not tried again 87."""
MIN_FRAMES = 2
"""One mel frame, 10 ms, holds no word, and the alignment needs two."""

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

    Above temperature 0 `beam_size` is the number of samples to choose from; no sequence of
    `no_repeat_ngram` tokens (0: any) comes twice.
    """

    beam_size: int
    max_new_tokens: int
    temperature: float = 0.0
    no_repeat_ngram: int = 0


@dataclass(frozen=True)
class DecodeResult:
    """What the decoder wrote, and how sure it was."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


@dataclass(frozen=True)
class AlignRequest:
    """Tokens to place in time on one row of an encoded batch, whose content is `n_frames` mel frames."""

    row: int
    tokens: tuple[int, ...]
    n_frames: int


class WindowModel(Protocol[EncodedT]):
    """The calls of a model for live windows; `EncodedT` is its own form of an encoded batch."""

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


def check_job(job: WindowJob, info: ModelInfo) -> None:
    """Refuse what the model cannot take; raises BadInputError."""
    legal_mel = f"float32 [{info.n_mels}, 0 to {MAX_FRAMES}]"
    if job.mel.ndim != 2 or job.mel.shape[0] != info.n_mels or job.mel.shape[1] > MAX_FRAMES:
        raise BadInputError("mel", job.mel.shape, legal_mel)
    if job.language is not None and job.language not in info.languages:
        raise BadInputError("language", job.language, ", ".join(info.languages))
    if job.languages and not set(job.languages) & set(info.languages):
        raise BadInputError("languages", job.languages, f"at least one of {', '.join(info.languages)}")


def restrict(found: DetectResult, languages: tuple[str, ...]) -> DetectResult:
    """Keep some languages (none named: all) and let their probabilities sum to 1 again."""
    kept = [(code, probability) for code, probability in found if not languages or code in languages]
    total = sum(probability for _, probability in kept)
    if total <= 0:
        return tuple((code, 1 / len(kept)) for code, _ in kept)
    return tuple((code, probability / total) for code, probability in kept)


def is_doubtful(result: DecodeResult) -> bool:
    """True for a loop or for a text that the model does not believe; silence is not worth a second try."""
    is_unsure = result.avg_logprob < MIN_AVG_LOGPROB
    is_silence = is_unsure and result.no_speech_prob > NO_SPEECH_PROB
    return (is_unsure or is_loop(result)) and not is_silence


def is_loop(result: DecodeResult | WindowResult) -> bool:
    """True if the model repeated itself."""
    return result.compression_ratio > MAX_COMPRESSION_RATIO


def group_indexes(keys: Iterable[Hashable]) -> list[list[int]]:
    """Indexes of equal keys together, in the order in which the keys appear."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def decode_batch(model: WindowModel[EncodedT], info: ModelInfo, jobs: Sequence[WindowJob], clock: Clock) -> BatchResult:
    """Decode windows of equal `batch_key`.

    Raises BadInputError for a job that the model cannot take, EngineFailedError if the keys differ or the
    scores of a window are no numbers, and whatever the model raises; an error concerns the whole batch.
    """
    for job in jobs:
        check_job(job, info)
    if len({batch_key(job, info) for job in jobs}) > 1:
        raise EngineFailedError("the windows of a batch differ in length, class or context")
    results = [_nothing_heard(job, info) for job in jobs]
    audible = [index for index, job in enumerate(jobs) if job.mel.shape[1] >= MIN_FRAMES]
    if not audible:
        return BatchResult(tuple(results), 0, 0, 0, 0.0, 0.0, 0.0)
    batch = _decode_audible(model, info, [jobs[index] for index in audible], clock)
    for index, result in zip(audible, batch.results, strict=True):
        results[index] = result
    return replace(batch, results=tuple(results))


def _decode_audible(
    model: WindowModel[EncodedT], info: ModelInfo, jobs: Sequence[WindowJob], clock: Clock
) -> BatchResult:
    key = batch_key(jobs[0], info)
    began_s = clock.now_s()
    encoded = model.encode(np.stack([window_features(job.mel, key.n_frames) for job in jobs]))
    encoded_s = clock.now_s()
    found = _detect(model, info, encoded, jobs)
    requests = [
        DecodeRequest(row, job.language or found[row][0][0], job.task, job.context, job.prompt, job.hotwords)
        for row, job in enumerate(jobs)
    ]
    options = DecodeOptions(BEAM_SIZE[key.job_class], key.max_new_tokens)
    tries = _decode(model, encoded, requests, options, is_kept=key.job_class is not JobClass.PARTIAL)
    decoded = [_best(results) for results in tries]
    decoded_s = clock.now_s()
    words = _align(model, encoded, jobs, requests, decoded)
    n_frames = len(jobs) * key.n_frames
    return BatchResult(
        results=tuple(
            WindowResult(
                words=words[row],
                language=request.language,
                language_probs=found[row],
                avg_logprob=decoded[row].avg_logprob,
                no_speech_prob=decoded[row].no_speech_prob,
                compression_ratio=decoded[row].compression_ratio,
            )
            for row, request in enumerate(requests)
        ),
        frames=n_frames,
        padding_frames=n_frames - sum(job.mel.shape[1] for job in jobs),
        tokens=sum(len(result.tokens) for results in tries for result in results),
        encode_s=encoded_s - began_s,
        decode_s=decoded_s - encoded_s,
        align_s=clock.now_s() - decoded_s,
    )


def _nothing_heard(job: WindowJob, info: ModelInfo) -> WindowResult:
    own = [code for code in job.languages if code in info.languages] or info.languages
    language = job.language or own[0]
    return WindowResult((), language, (), avg_logprob=0.0, no_speech_prob=1.0, compression_ratio=0.0)


def _detect(
    model: WindowModel[EncodedT], info: ModelInfo, encoded: EncodedT, jobs: Sequence[WindowJob]
) -> list[DetectResult]:
    """Per row: nothing where the language is given, else the stream's own languages, best first."""
    found: list[DetectResult] = [() for _ in jobs]
    unknown = [row for row, job in enumerate(jobs) if job.language is None]
    probabilities: list[DetectResult] = [((info.languages[0], 1.0),)] * len(unknown)
    if unknown and info.is_multilingual:
        probabilities = model.detect(encoded, unknown)
    for row, all_languages in zip(unknown, probabilities, strict=True):
        found[row] = restrict(all_languages, tuple(code for code in jobs[row].languages if code in info.languages))
    return found


def _decode(
    model: WindowModel[EncodedT],
    encoded: EncodedT,
    requests: Sequence[DecodeRequest],
    options: DecodeOptions,
    *,
    is_kept: bool,
) -> list[list[DecodeResult]]:
    """All tries per request: doubtful texts that would stay are tried without context, then in another way."""
    tries = [[result] for result in _decode_once(model, encoded, requests, options)]
    if not is_kept:
        return tries

    def again(rows: Iterable[int], how: DecodeOptions) -> None:
        doubtful = [row for row in rows if is_doubtful(tries[row][-1])]
        if doubtful:
            results = _decode_once(model, encoded, [alone[row] for row in doubtful], how)
            for row, result in zip(doubtful, results, strict=True):
                tries[row].append(result)

    # A loop is most often copied from the previous text.
    alone = [replace(request, context=(), prompt="", hotwords="") for request in requests]
    again((row for row, request in enumerate(requests) if request != alone[row]), options)
    loops = [row for row, results in enumerate(tries) if is_loop(results[-1])]
    others = [row for row in range(len(tries)) if row not in loops]
    again(loops, replace(options, no_repeat_ngram=FALLBACK_NGRAM))
    again(others, replace(options, beam_size=FALLBACK_SAMPLES, temperature=FALLBACK_TEMPERATURE))
    return tries


def _decode_once(
    model: WindowModel[EncodedT], encoded: EncodedT, requests: Sequence[DecodeRequest], options: DecodeOptions
) -> list[DecodeResult]:
    results = model.decode(encoded, requests, options)
    if not all(math.isfinite(result.avg_logprob) for result in results):
        # From values that are no numbers in the spectrogram; the text is as many exclamation marks as fit.
        raise EngineFailedError("the model's scores are no numbers")
    return results


def _best(tries: Sequence[DecodeResult]) -> DecodeResult:
    """The last try if it is beyond doubt (others would have followed), else the least bad of all."""
    if not is_doubtful(tries[-1]):
        return tries[-1]
    return max(tries, key=lambda each: (not is_loop(each), each.avg_logprob))


def _align(
    model: WindowModel[EncodedT],
    encoded: EncodedT,
    jobs: Sequence[WindowJob],
    requests: Sequence[DecodeRequest],
    decoded: Sequence[DecodeResult],
) -> list[tuple[Word, ...]]:
    words: list[tuple[Word, ...]] = [() for _ in jobs]
    # The library takes one start sequence per call.
    for rows in group_indexes((request.language, request.task) for request in requests):
        wanted = [AlignRequest(row, decoded[row].tokens, jobs[row].mel.shape[1]) for row in rows]
        first = requests[rows[0]]
        for row, found in zip(rows, model.align(encoded, first.language, first.task, wanted), strict=True):
            words[row] = found
    return words
