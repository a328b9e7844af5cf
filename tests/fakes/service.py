"""An engine service over a fake backend, and jobs for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from engine.service import BatchReport, EngineService
from engine.types import SAMPLE_RATE_HZ, FileOptions, FileSegment, FloatArray, JobClass, WindowJob, WindowResult
from tests.fakes.backend import FAKE_INFO, FakeBackend
from tests.fakes.clock import ManualClock

__all__ = ["LIMIT_S", "audio", "collect", "drive", "job", "submit", "text"]

LIMIT_S = 10.0
"""Nothing waits for real time; a test that does is broken."""

Body = Callable[[EngineService, FakeBackend], Coroutine[Any, Any, None]]


def drive(
    body: Body,
    *,
    clock: ManualClock | None = None,
    on_batch: Callable[[BatchReport], None] | None = None,
    device: str = FAKE_INFO.device,
) -> None:
    """Run a test with a started service and its backend, and stop the service."""

    async def run() -> None:
        backend = FakeBackend(device=device)
        service = EngineService(backend, clock or ManualClock(), on_batch)
        service.start()
        try:
            await asyncio.wait_for(body(service, backend), LIMIT_S)
        finally:
            await service.stop()

    asyncio.run(run())


def job(
    n_frames: int = 200, job_class: JobClass = JobClass.FINAL, stream: str = "a", speaker: int = 0, **more: Any
) -> WindowJob:
    """A window in which the fake backend hears a word of the speaker per WORD_FRAMES."""
    mel = np.zeros((80, n_frames), dtype=np.float32)
    mel[0, :1] = speaker
    return WindowJob(stream=stream, job_class=job_class, mel=mel, **{"language": "en", **more})


def submit(service: EngineService, window: WindowJob) -> asyncio.Task[WindowResult]:
    """Windows submitted without an await in between are in the queue before the engine looks."""
    return asyncio.create_task(service.transcribe_window(window))


def audio(seconds: float) -> FloatArray:
    """Silence, mono 16 kHz."""
    return np.zeros(int(seconds * SAMPLE_RATE_HZ), dtype=np.float32)


async def collect(service: EngineService, seconds: float, **options: Any) -> list[FileSegment]:
    """All segments of a recording."""
    return [segment async for segment in service.transcribe_file(audio(seconds), FileOptions(**options))]


def text(result: WindowResult) -> str:
    """The words of a window, joined."""
    return "".join(word.text for word in result.words)
