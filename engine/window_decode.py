"""A batch of windows through the model: encode, detect, decode, align.

Runs in the engine child; the parent uses `check_job` alone. Stateless; knows a model by its four calls
(`engine.window_model`) and no pipe, queue or library. How a text is searched for and judged is the matter of
`engine.window_search`.

Invariants: a batch is encoded once, whatever is done with its rows afterwards, and nothing of it is held when
`decode_batch` returns or raises; results come in the order of the jobs; a window's words do not depend on
its neighbours (where the model is unsure and they are sampled, on chance alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.batching import batch_key
from engine.clock import Clock
from engine.errors import BadInputError, EngineFailedError
from engine.mel import window_features
from engine.types import MAX_FRAMES, BatchResult, DetectResult, ModelInfo, WindowJob, WindowResult, Word
from engine.window_model import AlignRequest, DecodeRequest, DecodeResult, EncodedT, WindowModel, group_indexes
from engine.window_search import Policy, best_of_tries, check_search, decode_rows, is_silence, policy_of

__all__ = ["check_job", "decode_batch", "restrict"]

MIN_FRAMES = 2
"""One mel frame, 10 ms, holds no word, and the alignment needs two."""


def check_job(job: WindowJob, info: ModelInfo) -> None:
    """Refuse what the model cannot take; raises BadInputError."""
    legal_mel = f"float32 [{info.n_mels}, 0 to {MAX_FRAMES}]"
    if job.mel.ndim != 2 or job.mel.shape[0] != info.n_mels or job.mel.shape[1] > MAX_FRAMES:
        raise BadInputError("mel", job.mel.shape, legal_mel)
    if job.language is not None and job.language not in info.languages:
        raise BadInputError("language", job.language, ", ".join(info.languages))
    if job.languages and not set(job.languages) & set(info.languages):
        raise BadInputError("languages", job.languages, f"at least one of {', '.join(info.languages)}")
    if job.search is not None:
        check_search(job.search)


def restrict(found: DetectResult, languages: tuple[str, ...]) -> DetectResult:
    """Keep some languages (none named: all) and let their probabilities sum to 1 again."""
    kept = [(code, probability) for code, probability in found if not languages or code in languages]
    total = sum(probability for _, probability in kept)
    if total <= 0:
        return tuple((code, 1 / len(kept)) for code, _ in kept)
    return tuple((code, probability / total) for code, probability in kept)


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
    n_tokens, decoded_s = 0, clock.now_s()
    results = [WindowResult((), request.language, found[row], 0.0, 0.0, 0.0) for row, request in enumerate(requests)]
    if key.wants_words:
        policy = policy_of(key.job_class, key.search)
        tries = decode_rows(model, encoded, requests, policy, key.max_new_tokens, clock, began_s)
        n_tokens = sum(len(result.tokens) for each in tries for result in each)
        decoded = [_heard(best_of_tries(each, policy.search), policy) for each in tries]
        decoded_s = clock.now_s()
        words = _align(model, encoded, jobs, requests, decoded)
        results = list(map(_with_text, results, decoded, words))
    n_frames = len(jobs) * key.n_frames
    return BatchResult(
        results=tuple(results),
        frames=n_frames,
        padding_frames=n_frames - sum(job.mel.shape[1] for job in jobs),
        tokens=n_tokens,
        encode_s=encoded_s - began_s,
        decode_s=decoded_s - encoded_s,
        align_s=clock.now_s() - decoded_s,
    )


def _heard(result: DecodeResult, policy: Policy) -> DecodeResult:
    if policy.drops_silence and is_silence(result, policy.search):
        return replace(result, tokens=(), text="", is_cut=False)
    return result


def _with_text(result: WindowResult, decoded: DecodeResult, words: tuple[Word, ...]) -> WindowResult:
    return replace(
        result,
        words=words,
        avg_logprob=decoded.avg_logprob,
        no_speech_prob=decoded.no_speech_prob,
        compression_ratio=decoded.compression_ratio,
        temperature=decoded.temperature,
        is_cut=decoded.is_cut,
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
