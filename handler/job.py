"""One job from its input to its answer: parse, fetch, transcribe, put into shape, make it fit.

Runs on the engine's event loop. Knows no SDK: it takes the job as the platform sends it, and returns what the
platform is to get. Invariants: a job always gets an answer (never an exception, save cancellation); an answer is
JSON and fits; one recording of a list that fails is no other's failure; no file outlives its job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
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
from handler.timeouts import within

__all__ = ["DEADLINE_MARGIN_S", "JobRunner", "error_answer"]

DEADLINE_MARGIN_S = 5.0
"""How long before the platform's own limit a job is given up, so that its error still arrives."""

Told = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """A job that was understood; `store` is its own."""

    request: JobRequest
    model: str
    store: S3Config | None
    on_progress: Told | None
    on_segment: Told | None


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
        `on_progress` is told {"progress_s": seconds done}, `on_segment` each segment as soon as it is known.
        """
        try:
            settings = self._settings
            request = parse_input(
                job.get("input"), strict=settings.strict_compat, allow_private=settings.allow_private_urls
            )
            model = self._pool.models.choose(request.model)
            task = _Task(request, model, request.s3_for(job), on_progress, on_segment)
            limit_s = _deadline_s(request, job)
            if limit_s is None:
                return await self._answer(task)
            try:
                return await within(self._answer(task), limit_s)
            except asyncio.TimeoutError:
                raise DeadlineError(f"the job was not done within {limit_s:g} s") from None
        except SttError as error:
            return error_answer(error)
        except Exception as error:
            # The edge of the job: the caller gets the kind of the error, the log the place.
            _log.exception("a job failed by a defect")
            return {
                "error": f"internal error ({type(error).__name__})",
                "error_code": SttError.code,
                "retryable": False,
            }

    async def _answer(self, task: _Task) -> dict[str, Any]:
        if not task.request.is_list:
            output = await self._transcribe(task.request.sources[0], task)
            return await self._delivery.deliver(output, task.request, task.store)
        room = asyncio.Semaphore(PARALLEL_SOURCES)

        async def one(source: Source) -> dict[str, Any]:
            async with room:
                try:
                    return await self._transcribe(source, task)
                except SttError as error:
                    return error_answer(error)

        results = await _all_or_none([one(source) for source in task.request.sources])
        if all("error" in result for result in results):
            return {**results[0], "results": results}
        return await self._delivery.deliver({"results": results}, task.request, task.store)

    async def _transcribe(self, source: Source, task: _Task) -> dict[str, Any]:
        store = task.store or self._delivery.store
        async with self._fetcher.open(source, s3=store) as fetched, self._pool.use(task.model) as engine:
            recording = await transcribe_recording(
                engine,
                self._decoder,
                fetched.path,
                task.request.recording,
                max_audio_s=self._settings.max_audio_s,
                on_segment=_segment_told(task.on_segment),
                on_progress=_progress_told(task.on_progress),
                clock=self._clock,
            )
            facts = OutputFacts(
                model=task.model,
                device=engine.info.device,
                compute_type=engine.info.compute_type,
                download_s=fetched.took_s,
                strict=self._settings.strict_compat,
            )
        _log.info("transcribed %.1f s of audio with model %s", recording.duration_s, task.model)
        return build_output(task.request, recording, facts)


async def _all_or_none(work: Sequence[Coroutine[Any, Any, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Results in order; if one raises, the others are cancelled and waited for."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _segment_told(told: Told | None) -> Callable[[str, FileSegment], None] | None:
    if told is None:
        return None
    number = 0

    def on_segment(task: str, segment: FileSegment) -> None:
        nonlocal number
        if task == "transcribe":
            told(segment_of(number, segment))
            number += 1

    return on_segment


def _progress_told(told: Told | None) -> Callable[[float], None] | None:
    return None if told is None else lambda done_s: told({"progress_s": round(done_s, 1)})


def _deadline_s(request: JobRequest, job: Mapping[str, Any]) -> float | None:
    """The smaller of what the job asks for and what its policy leaves (RunPod docs, "Execution policies", ms)."""
    policy = job.get("policy")
    allowed_ms = policy.get("executionTimeout") if isinstance(policy, Mapping) else None
    limits_s = [request.deadline_s] if request.deadline_s is not None else []
    if isinstance(allowed_ms, (int, float)) and not isinstance(allowed_ms, bool) and allowed_ms > 0:
        limits_s.append(max(1.0, allowed_ms / 1000 - DEADLINE_MARGIN_S))
    return min(limits_s, default=None)


def error_answer(error: SttError) -> dict[str, Any]:
    """What the platform gets for a job that failed; faults of the input as worker-faster_whisper lists them."""
    message: str | list[str] = str(error)
    if isinstance(error, InputErrors) and error.is_list:
        message = list(error.messages)
    return {"error": message, "error_code": error.code, "retryable": error.retryable}
