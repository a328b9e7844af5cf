"""One live stream without a socket: a made-up talk at its own pace into a real session, decoded by an engine.

Does what `realtime.stream` does between socket and session, on one event loop and in no time of its own. Audio
leaves in chunks at the pace of speech, each up to JITTER_S late, like a sender on a network. When each word
was first shown and when it was completed goes to a `WordWatch`.

Invariants: the session's timers are served; a chunk waits while the session wants no audio; `run` ends
when the session has closed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from bench.virtual.talk import Talk, TalkDetector
from bench.virtual.watch import WordWatch
from engine.clock import Clock
from engine.errors import EngineFailedError, SttError
from engine.scheduler import SupersededError
from engine.types import SAMPLE_RATE_HZ, Engine, JobClass, WindowJob, WindowResult
from realtime.events import Cancel, Decode, Event, SendSegments
from realtime.ledger import Ledger
from realtime.protocol import Handshake
from realtime.session import Session, SessionLimits

__all__ = ["CHUNK_S", "JITTER_S", "StreamPlan", "VirtualStream"]

CHUNK_S = 0.1
JITTER_S = 0.03
LIMITS = SessionLimits()


@dataclass(frozen=True)
class StreamPlan:
    """What a stream says and when: `seconds` of a talk, from its beginning, as of `start_s` on the clock."""

    name: str
    talk: Talk
    start_s: float
    seconds: float
    seed: int = 0


class VirtualStream:
    """See the module's docstring."""

    def __init__(
        self,
        plan: StreamPlan,
        engine: Engine,
        clock: Clock,
        on_job: Callable[[JobClass, float], None] = lambda job_class, took_s: None,
    ) -> None:
        """`on_job` is told how long each job took from its submission to its result."""
        self.watch = WordWatch(plan.talk, plan.start_s)
        self.errors: list[str] = []
        self._plan = plan
        self._engine = engine
        self._clock = clock
        self._on_job = on_job
        handshake = Handshake(plan.name, language="en", wants_language=False, use_vad=True)
        self._session = Session(
            handshake, LIMITS, TalkDetector(plan.talk), engine.info.n_mels, plan.start_s, stream_id=plan.name
        )
        self._decodes: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def ledger(self) -> Ledger:
        """Where the samples went."""
        return self._session.ledger

    async def run(self) -> None:
        """Send everything, then wait for the close."""
        plan, chunk_samples = self._plan, round(CHUNK_S * SAMPLE_RATE_HZ)
        source = random.Random(plan.seed)  # noqa: S311 - repeatable on purpose
        try:
            for first in range(0, round(plan.seconds * SAMPLE_RATE_HZ), chunk_samples):
                due_s = plan.start_s + (first + chunk_samples) / SAMPLE_RATE_HZ + source.uniform(0, JITTER_S)
                await asyncio.sleep(due_s - self._clock.now_s())
                await self._until(lambda: self._session.wants_audio)
                data = plan.talk.audio(first, chunk_samples).tobytes()
                self._session.receive_audio(data, self._clock.now_s())
                self._carry_on()
            self._session.end_of_audio()
            self._carry_on()
            await self._until(lambda: self._session.is_closed)
        finally:
            self._clean_up()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _clean_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._decodes.values():
            task.cancel()

    def _carry_on(self) -> None:
        """After every input: what the session asks for, its timer, the engine's advice."""
        for event in self._session.take_events():
            self._carry_out(event)
        self._session.partial_interval_s = self._engine.partial_interval_s
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._session.next_deadline_s()
        if deadline_s is not None:
            delay_s = max(0.0, deadline_s - self._clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)
        self._changed.set()

    def _tick(self) -> None:
        self._session.tick(self._clock.now_s())
        self._carry_on()

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Decode):
            self._decodes[event.job_id] = asyncio.create_task(self._decode(event.job_id, event.job))
        elif isinstance(event, Cancel):
            task = self._decodes.pop(event.job_id, None)
            if task is not None:
                task.cancel()
        elif isinstance(event, SendSegments):
            completed = [segment.text for segment in event.completed]
            provisional = event.provisional.text if event.provisional else ""
            self.watch.shown(self._clock.now_s(), completed, provisional)

    async def _decode(self, job_id: int, job: WindowJob) -> None:
        outcome: WindowResult | SttError
        begun_s = self._clock.now_s()
        try:
            outcome = await self._engine.transcribe_window(job)
            self._on_job(job.job_class, self._clock.now_s() - begun_s)
        except SupersededError:
            outcome = EngineFailedError("superseded by a newer decode")
        except SttError as error:
            self.errors.append(str(error))
            outcome = error
        self._decodes.pop(job_id, None)
        self._session.result(job_id, outcome, self._clock.now_s())
        self._carry_on()
