"""One job from its input to its answer: parse, fetch, transcribe, put into shape, make it fit.

Runs on the engine's event loop. Knows no SDK: it takes the job as the platform sends it, and returns what the
platform is to get. Invariants: a job always gets an answer (never an exception, save cancellation); an answer is
JSON and fits; one recording of a list that fails is no other's failure; what was transcribed before the deadline
is not lost to it; no file outlives its job; no text of an unexpected error is logged.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.clock import Clock, MonotonicClock
from engine.decode import MediaDecoder
from engine.errors import DeadlineError, SttError
from engine.recording import transcribe_recording
from engine.settings import Settings
from engine.types import FileSegment
from handler.fetch import Fetcher
from handler.models import ModelPool
from handler.output import OutputFacts, build_output, segment_of
from handler.results import Delivery
from handler.s3 import S3Config
from handler.schema import parse_input
from handler.schema_types import InputErrors, JobRequest
from handler.sources import PARALLEL_SOURCES, Source

__all__ = ["DEADLINE_MARGIN_S", "DEADLINE_MARGIN_SHARE", "JobRunner", "error_answer", "time_limit_s"]

DEADLINE_MARGIN_S = 5.0
"""How long before the platform's own limit a job is given up, so that its answer still arrives."""
DEADLINE_MARGIN_SHARE = 0.2
"""The most of the platform's limit that the margin takes: 5 s is the shortest limit that it allows."""

Told = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """A job that was understood; `store` is its own. `limit_s` counts from `began_s`; None: no deadline."""

    request: JobRequest
    model: str
    store: S3Config | None
    on_progress: Told | None
    on_segment: Told | None
    began_s: float
    limit_s: float | None


class JobRunner:
    """Answers jobs; several at a time."""

    def __init__(
        self,
        settings: Settings,
        pool: ModelPool,
        decoder: MediaDecoder,
        fetcher: Fetcher,
        delivery: Delivery,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._decoder = decoder
        self._fetcher = fetcher
        self._delivery = delivery
        self._clock = clock or MonotonicClock()

    async def run(
        self, job: Mapping[str, Any], *, on_progress: Told | None = None, on_segment: Told | None = None
    ) -> dict[str, Any]:
        """Answer `job`, {"id", "input", "policy", ...}; raises nothing but CancelledError.

        The answer is the output, or {"error", "error_code", "retryable"} with what there is beside it.
        `on_progress` is told {"progress_s": seconds done}, `on_segment` each segment as soon as it is known; for a
        list of recordings both with "index", the place in the list. The deadline ends transcription; what is done by
        then is delivered, for which little time is left.
        """
        began_s = self._clock.now_s()
        try:
            settings = self._settings
            request = parse_input(
                job.get("input"), strict=settings.strict_compat, allow_private=settings.allow_private_urls
            )
            model = self._pool.models.choose(request.model)
            limit_s = time_limit_s(request, job)
            task = _Task(request, model, request.s3_for(job), on_progress, on_segment, began_s, limit_s)
            return await self._answer(task)
        except Exception as error:
            return _failed(error)

    async def _answer(self, task: _Task) -> dict[str, Any]:
        results = await self._results(task)
        output = results[0]
        if task.request.is_list:
            output = (output if all("error" in result for result in results) else {}) | {"results": results}
        if "error" in output:
            return output
        return await self._delivery.deliver(output, task.request, task.store, limit_s=self._left_s(task))

    def _left_s(self, task: _Task) -> float | None:
        return None if task.limit_s is None else max(0.0, task.began_s + task.limit_s - self._clock.now_s())

    async def _results(self, task: _Task) -> list[dict[str, Any]]:
        """One answer for each recording, in order; what the deadline cuts off is an error, the rest is kept."""
        room = asyncio.Semaphore(PARALLEL_SOURCES)
        sources = task.request.sources
        items = [asyncio.ensure_future(self._one(index, source, task, room)) for index, source in enumerate(sources)]
        try:
            await asyncio.wait(items, timeout=self._left_s(task))
        finally:
            for item in items:
                item.cancel()
            await asyncio.gather(*items, return_exceptions=True)
        if task.limit_s is None:
            return [item.result() for item in items]
        late = error_answer(DeadlineError(f"the job was not done within {task.limit_s:g} s"))
        return [dict(late) if item.cancelled() else item.result() for item in items]

    async def _one(self, index: int, source: Source, task: _Task, room: asyncio.Semaphore) -> dict[str, Any]:
        async with room:
            try:
                return await self._transcribe(index, source, task)
            except Exception as error:
                return _failed(error)

    async def _transcribe(self, index: int, source: Source, task: _Task) -> dict[str, Any]:
        store = task.store or self._delivery.store
        is_strict = self._settings.strict_compat
        place = {"index": index} if task.request.is_list else {}
        with_words = task.request.word_timestamps and not is_strict
        async with self._fetcher.open(source, s3=store) as fetched, self._pool.use(task.model) as engine:
            recording = await transcribe_recording(
                engine,
                self._decoder,
                fetched.path,
                task.request.recording,
                max_audio_s=self._settings.max_audio_s,
                on_segment=_segment_told(task.on_segment, place, with_words=with_words),
                on_progress=_progress_told(task.on_progress, place),
                clock=self._clock,
            )
            facts = OutputFacts(
                model=task.model,
                device=engine.info.device,
                compute_type=engine.info.compute_type,
                model_revision=engine.info.revision,
                download_s=fetched.took_s,
                strict=is_strict,
            )
        _log.info("transcribed %.1f s of audio with model %s", recording.duration_s, task.model)
        return build_output(task.request, recording, facts)


def _segment_told(
    told: Told | None, place: Mapping[str, int], *, with_words: bool
) -> Callable[[str, FileSegment], None] | None:
    if told is None:
        return None
    number = 0

    def on_segment(task: str, segment: FileSegment) -> None:
        nonlocal number
        if task == "transcribe":
            told({**segment_of(number, segment, with_words=with_words), **place})
            number += 1

    return on_segment


def _progress_told(told: Told | None, place: Mapping[str, int]) -> Callable[[float], None] | None:
    return None if told is None else lambda done_s: told({"progress_s": round(done_s, 1), **place})


def time_limit_s(request: JobRequest, job: Mapping[str, Any]) -> float | None:
    """The smaller of what the job asks for and what its policy leaves (RunPod docs, "Execution policies", ms).

    None: there is neither.
    """
    policy = job.get("policy")
    allowed_ms = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
    limits_s = [request.deadline_s] if request.deadline_s is not None else []
    if isinstance(allowed_ms, (int, float)) and not isinstance(allowed_ms, bool) and allowed_ms > 0:
        allowed_s = allowed_ms / 1000
        limits_s.append(allowed_s - min(DEADLINE_MARGIN_S, DEADLINE_MARGIN_SHARE * allowed_s))
    return min(limits_s, default=None)


def error_answer(error: SttError) -> dict[str, Any]:
    """What the platform gets for a job that failed; faults of the input as worker-faster_whisper lists them."""
    message: str | list[str] = str(error)
    if isinstance(error, InputErrors) and error.is_list:
        message = list(error.messages)
    return {"error": message, "error_code": error.code, "retryable": error.retryable}


def _failed(error: Exception) -> dict[str, Any]:
    """The answer in place of a result; for a defect, the caller gets its kind and the log its place."""
    if isinstance(error, SttError):
        return error_answer(error)
    # Not its text, nor that of its causes: it may quote the job.
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("a job failed by a defect (%s)\n%s", type(error).__name__, frames)
    return {"error": f"internal error ({type(error).__name__})", "error_code": SttError.code, "retryable": False}
