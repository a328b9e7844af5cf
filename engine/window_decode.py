"""One window of a live stream through the model: encode, detect, decode, judge, align, release.

Stateless. Knows the backend's calls and nothing of queues, restarts or clocks; an
EngineRestartError passes through, and the same job can be decoded again from the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from engine.errors import BadInputError, EngineFailedError, EngineRestartError
from engine.mel import window_features
from engine.scheduler import SupersededError
from engine.types import (
    FRAMES_PER_SECOND,
    MAX_FRAMES,
    AlignRequest,
    Backend,
    DecodeRequest,
    DecodeResult,
    DetectResult,
    Handle,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
)

__all__ = ["check_job", "decode_window", "is_doubtful", "restrict", "token_budget"]

BEAM_SIZE = {JobClass.PARTIAL: 1, JobClass.FINAL: 5, JobClass.FILE: 5}
"""A partial is decoded again in a second; what stays is worth a beam (measured: twice the time)."""
MIN_TOKEN_BUDGET = 20
MAX_TOKEN_BUDGET = 224
"""Half of Whisper's text positions: the other half is the prompt's."""
BUDGET_TOKENS_PER_S = 22.5
"""Fast speech has 15 tokens per second (scripts of byte tokens included), and half as many to spare. A
loop ends here instead of at 224."""
MAX_COMPRESSION_RATIO = 2.4
MIN_AVG_LOGPROB = -1.0
NO_SPEECH_PROB = 0.6
"""Whisper's own thresholds (OpenAI's transcribe.py) for loops, doubt and silence."""
FALLBACK_TEMPERATURE = 0.4
FALLBACK_SAMPLES = 5
"""Samples drawn at FALLBACK_TEMPERATURE, the best of which counts: Whisper's best_of."""
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


def token_budget(n_frames: int) -> int:
    """How many tokens a window of `n_frames` mel frames may have."""
    wanted = int(n_frames / FRAMES_PER_SECOND * BUDGET_TOKENS_PER_S)
    return min(MAX_TOKEN_BUDGET, max(MIN_TOKEN_BUDGET, wanted))


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
    return (is_unsure or result.compression_ratio > MAX_COMPRESSION_RATIO) and not is_silence


async def decode_window(
    backend: Backend, info: ModelInfo, job: WindowJob, is_wanted: Callable[[], bool]
) -> WindowResult:
    """Decode one checked window, as long as `is_wanted` says so.

    Raises EngineRestartError if the model's process went away, EngineFailedError if a call failed,
    SupersededError if the result is not wanted any more.
    """
    n_frames = job.mel.shape[1]
    if n_frames < MIN_FRAMES:
        return _nothing_heard(job, info)
    padded = min(MAX_FRAMES, max(info.pad_frames, n_frames + info.tail_frames))
    [handle] = await backend.encode([window_features(job.mel, padded)])
    try:
        return await _decode_encoded(backend, info, job, handle, is_wanted)
    finally:
        # The result is complete, or another error is on its way; a handle that is not released
        # is forgotten by the child in time.
        with contextlib.suppress(EngineRestartError, EngineFailedError):
            await backend.release([handle])


def _nothing_heard(job: WindowJob, info: ModelInfo) -> WindowResult:
    language = job.language or (job.languages or info.languages)[0]
    return WindowResult((), language, (), avg_logprob=0.0, no_speech_prob=1.0, compression_ratio=0.0)


async def _decode_encoded(
    backend: Backend, info: ModelInfo, job: WindowJob, handle: Handle, is_wanted: Callable[[], bool]
) -> WindowResult:
    _check_wanted(is_wanted)
    language = job.language
    probabilities: DetectResult = ()
    if language is None:
        probabilities = await _detect(backend, info, job, handle)
        language = probabilities[0][0]
    request = DecodeRequest(
        handle=handle,
        language=language,
        task=job.task,
        context=job.context,
        prompt=job.prompt,
        hotwords=job.hotwords,
        beam_size=BEAM_SIZE[job.job_class],
        max_new_tokens=token_budget(job.mel.shape[1]),
    )
    result = await _decode(backend, request, is_kept=job.job_class is not JobClass.PARTIAL)
    _check_wanted(is_wanted)
    words = await backend.align([AlignRequest(handle, language, job.task, result.tokens, job.mel.shape[1])])
    return WindowResult(
        words=words[0],
        language=language,
        language_probs=probabilities,
        avg_logprob=result.avg_logprob,
        no_speech_prob=result.no_speech_prob,
        compression_ratio=result.compression_ratio,
    )


def _check_wanted(is_wanted: Callable[[], bool]) -> None:
    # A final may be waiting behind this: what nobody will read must not keep it.
    if not is_wanted():
        raise SupersededError("nobody waits for this window any more")


async def _detect(backend: Backend, info: ModelInfo, job: WindowJob, handle: Handle) -> DetectResult:
    if not info.is_multilingual:
        return ((info.languages[0], 1.0),)
    [found] = await backend.detect([handle])
    return restrict(found, tuple(code for code in job.languages if code in info.languages))


async def _decode(backend: Backend, request: DecodeRequest, *, is_kept: bool) -> DecodeResult:
    """Decode; a doubtful text that would stay is tried again without context, then with samples."""
    [result] = await backend.decode([request])
    if not is_kept or not is_doubtful(result):
        return result
    tried = [result]
    for fallback in _fallbacks(request):
        [result] = await backend.decode([fallback])
        if not is_doubtful(result):
            return result
        tried.append(result)
    return max(tried, key=lambda each: (each.compression_ratio <= MAX_COMPRESSION_RATIO, each.avg_logprob))


def _fallbacks(request: DecodeRequest) -> list[DecodeRequest]:
    # A loop is most often copied from the previous text.
    alone = replace(request, context=(), prompt="", hotwords="")
    sampled = replace(alone, beam_size=FALLBACK_SAMPLES, temperature=FALLBACK_TEMPERATURE)
    return [sampled] if alone == request else [alone, sampled]
