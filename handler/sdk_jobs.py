"""A job between the SDK's loop and the engine's: begun, watched, cut off, answered.

The SDK calls `run_job`, or iterates over `stream_job`; the job itself runs on the engine's loop. Whatever ends
the SDK's task (a stop signal, the end of the process) ends the engine's task as well.

Invariants: every job that is not cancelled is answered once, with a fresh dict; no answer shows its content
when it is printed. Knows nothing of recordings.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

from engine.errors import DrainingError, SttError
from handler.bridge import EngineLoop
from handler.sdk_post import ResultPoster
from handler.sdk_progress import ProgressSender
from handler.sdk_shutdown import Shutdown, first_of

__all__ = ["MAX_CHUNK_SEGMENTS", "Answer", "JobHandler", "RunJob", "draining_answer"]

MAX_CHUNK_SEGMENTS = 64
"""Segments with all their words take up to 10 kB each, and the platform takes chunks of up to 1 MB."""

_log = logging.getLogger(__name__)


class RunJob(Protocol):
    """What does a job, on the engine's loop: `handler.job.JobRunner.run`."""

    async def __call__(
        self,
        job: Mapping[str, Any],
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        on_segment: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """The output, or {"error": ..., "error_code": ...}; raises CancelledError alone."""
        ...


class Answer(dict[str, Any]):
    """A dict that does not show what it holds: the SDK's debug lines print whole results."""

    def __repr__(self) -> str:
        return f"<{len(self)} fields, not shown>"


def draining_answer() -> dict[str, Any]:
    """What a job is told that this worker cannot finish any more."""
    return {
        "error": "the worker is shutting down; send the job again",
        "error_code": DrainingError.code,
        "retryable": True,
    }


def _broken_answer(reason: str) -> dict[str, Any]:
    return {"error": f"the job failed inside the worker ({reason})", "error_code": SttError.code, "retryable": True}


class JobHandler:
    """Both kinds of handler that the SDK knows, over one `run`."""

    def __init__(
        self, run: RunJob, loop: EngineLoop, shutdown: Shutdown, poster: ResultPoster, *, shows_results: bool = False
    ) -> None:
        """`shows_results`: answers are plain dicts, which the SDK's local mode prints."""
        self._run = run
        self._loop = loop
        self._shutdown = shutdown
        self._poster = poster
        self._kind: type[dict[str, Any]] = dict if shows_results else Answer
        self._sessions: dict[str, Any] = {}

    @contextlib.contextmanager
    def session_of(self, job_id: str, session: Any) -> Iterator[None]:
        """Inside, the job's progress goes through `session`; without one there is none."""
        self._sessions[job_id] = session
        try:
            yield
        finally:
            self._sessions.pop(job_id, None)
            self._poster.forget(job_id)

    async def run_job(self, job: dict[str, Any]) -> dict[str, Any]:
        """The SDK's plain handler."""
        session = self._sessions.get(str(job.get("id")))
        if session is None:
            return await self._watched(job, None, None)

        async def send(progress: Mapping[str, Any]) -> None:
            await self._poster.send_progress(session, job["id"], progress)

        sender = ProgressSender(send, self._shutdown.is_draining.is_set)
        try:
            answer = await self._watched(job, sender.tell, None)
            await sender.close()
            return answer
        finally:
            sender.drop()

    async def stream_job(self, job: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The SDK's generator: {"segments": [...]} as they come, those that came together together; then the answer."""
        segments: deque[dict[str, Any]] = deque()
        news = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_segment(segment: dict[str, Any]) -> None:
            segments.append(segment)
            with contextlib.suppress(RuntimeError):  # the loop has ended before the job
                loop.call_soon_threadsafe(news.set)

        task = asyncio.create_task(self._watched(job, None, on_segment))
        try:
            while segments or not task.done():
                await first_of(task, news)
                news.clear()
                while segments:
                    n_taken = min(len(segments), MAX_CHUNK_SEGMENTS)
                    yield self._kind(segments=[segments.popleft() for _ in range(n_taken)])
            answer = task.result()
            if answer.get("error") and job["id"] in self._sessions:
                self._poster.remember_error(job["id"], answer)
            yield answer
        finally:
            task.cancel()

    async def _watched(
        self,
        job: dict[str, Any],
        on_progress: Callable[[dict[str, Any]], None] | None,
        on_segment: Callable[[dict[str, Any]], None] | None,
    ) -> dict[str, Any]:
        if self._shutdown.is_draining.is_set():
            return self._kind(draining_answer())
        try:
            work = self._loop.submit(self._run(job, on_progress=on_progress, on_segment=on_segment))
        except DrainingError:
            return self._kind(draining_answer())
        future = asyncio.wrap_future(work)
        try:
            await first_of(future, self._shutdown.is_cut)
            return self._kind(_answer_of(future))
        finally:
            future.cancel()


def _answer_of(future: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
    if not future.done():
        return draining_answer()
    if future.cancelled():
        return _broken_answer("it was cancelled")
    if error := future.exception():
        # Its text may quote the job.
        _log.error("a job ended with %s, which its runner should have answered", type(error).__name__)
        return _broken_answer(type(error).__name__)
    return future.result()
