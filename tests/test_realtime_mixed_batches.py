"""Many sessions over one engine service: what a stream gets does not depend on who shares its batches."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.clock import MonotonicClock
from engine.errors import EngineFailedError, EngineMemoryError, EngineRestartError, SttError
from engine.scheduler import SupersededError
from engine.service import EngineService
from engine.types import BatchResult, FileOptions, FileSegment, FloatArray, Handle, ModelInfo, WindowJob
from realtime.events import Cancel, Close, Decode, SendSegments
from realtime.session import Session, SessionLimits
from tests.fakes.engine import DEMO_INFO, EnergyDetector, Habits, Hearing
from tests.fakes.streams import GATED, S, talk

INFO = replace(DEMO_INFO, pad_frames=3_000, device="cuda")
"""Padded to one length, so that windows of all streams share batches."""


class HearingBackend:
    """A supervised backend that understands tone words, and fails in the given round of faults: batch by batch."""

    info: ModelInfo = INFO
    is_ready = True
    restarts = 0

    def __init__(self, faults: Sequence[type[SttError] | None] = ()) -> None:
        self.hearing = Hearing(Habits())
        self.sizes: list[int] = []
        self.faults = itertools.cycle(faults) if faults else itertools.repeat(None)
        self.raised: set[type[SttError]] = set()

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        """Let others submit meanwhile, then hear every window."""
        self.sizes.append(len(jobs))
        await asyncio.sleep(0.002)
        # What fails alone is its own fault.
        if len(jobs) > 1 and (fault := next(self.faults)) is not None:
            self.raised.add(fault)
            raise fault("scripted")
        results = tuple(self.hearing.hear(job) for job in jobs)
        return BatchResult(results, 3_000 * len(jobs), 0, 0, 0.0, 0.0, 0.0)

    async def release(self, handles: Sequence[Handle]) -> None:
        """No recordings here."""

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """No recordings here."""
        raise NotImplementedError

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """No recordings here."""
        raise NotImplementedError


@dataclass
class Speaker:
    """A stream that says `numbers`, in chunks of `chunk_bytes`, with partials every `interval_s`."""

    name: str
    numbers: list[int]
    chunk_bytes: int
    interval_s: float

    async def stream(self, service: EngineService) -> str:
        session = Session(GATED, SessionLimits(max_backlog_s=4.0), EnergyDetector(), 80, 0.0, self.name)
        session.partial_interval_s = self.interval_s
        audio, _ = talk(self.numbers, 0.1, 0.1, 0.1, 0.1, 0.8)
        tasks: dict[int, asyncio.Task[None]] = {}
        texts: list[str] = []
        changed = asyncio.Event()

        async def decode(job_id: int, job: WindowJob) -> None:
            try:
                session.result(job_id, await service.transcribe_window(job), 0.0)
            except SupersededError:
                session.result(job_id, EngineFailedError("superseded"), 0.0)
            except SttError as error:
                session.result(job_id, error, 0.0)
            carry_out()

        def carry_out() -> None:
            changed.set()
            for event in session.take_events():
                if isinstance(event, Decode):
                    tasks[event.job_id] = asyncio.create_task(decode(event.job_id, event.job))
                elif isinstance(event, Cancel):
                    tasks.pop(event.job_id).cancel()
                elif isinstance(event, SendSegments):
                    texts.extend(segment.text for segment in event.completed)
                elif isinstance(event, Close):
                    assert event.code == 1000

        for first in range(0, len(audio), self.chunk_bytes):
            while not session.wants_audio:
                changed.clear()
                await changed.wait()
            session.receive_audio(audio[first : first + self.chunk_bytes], first / 4 / S)
            carry_out()
            await asyncio.sleep(0)
        session.end_of_audio()
        carry_out()
        while not session.is_closed:
            changed.clear()
            await changed.wait()
        return "".join(texts)


def say_all(speakers: Sequence[Speaker], backend: HearingBackend) -> list[str]:
    """What each of them gets, all at once over one service."""

    async def run() -> list[str]:
        service = EngineService(backend, MonotonicClock())
        service.start()
        try:
            return list(await asyncio.gather(*(speaker.stream(service) for speaker in speakers)))
        finally:
            await service.stop()

    return asyncio.run(asyncio.wait_for(run(), 60.0))


def speakers(n_streams: int) -> list[Speaker]:
    source = random.Random(7)
    return [
        Speaker(
            f"s{number}",
            [source.randrange(1_000) for _ in range(12)],
            source.choice([1_280, 4_096, 6_400, 25_600]),
            source.choice([0.3, 0.5, 1.2]),
        )
        for number in range(n_streams)
    ]


def test_the_text_of_a_stream_is_the_same_alone_and_in_mixed_batches() -> None:
    streams = speakers(8)
    backend = HearingBackend()
    together = say_all(streams, backend)
    assert max(backend.sizes) >= 4, "there were no batches to speak of"
    alone = [say_all([stream], HearingBackend())[0] for stream in streams[:3]]
    assert together[:3] == alone
    assert len(set(together)) == len(streams)
    assert all(len(text.split()) == 12 for text in together)


def test_failing_batches_cost_nobody_a_word() -> None:
    """Errors, lack of memory and dying processes hit batches of several streams, again and again."""
    streams = speakers(8)
    backend = HearingBackend([None, EngineFailedError, None, EngineMemoryError, None, None, EngineRestartError, None])
    assert say_all(streams, backend) == say_all(streams, HearingBackend())
    # How often depends on how many streams met in one batch, and that on the machine.
    assert backend.raised == {EngineFailedError, EngineMemoryError, EngineRestartError}, "not all of them happened"
