"""One way to transcribe files, as a benchmark sees it: a process that loads a model and does one file at a time.

Measures from outside: wall time from the question to the answer, CPU seconds and memory of the process with all
its descendants. Invariants: idle memory is taken when the model is loaded and nothing was transcribed; a process
is gone after `stop`; all ways get the same environment and number of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.files_wire import ANSWER, ERROR, PROGRESS, READY, FileAnswer, FileTask
from bench.resources import TreeState, read_tree
from engine.clock import MonotonicClock
from engine.errors import ServerError

__all__ = ["Measured", "Sample", "WayFailedError", "WayOptions", "WayProcess", "way_process"]

ROOT = Path(__file__).parent.parent
START_LIMIT_S = 1_800.0
"""The first start may fetch a model."""
TASK_LIMIT_S = 7_200.0
"""Three hours of speech take a slow way on two cores half an hour."""
STOP_LIMIT_S = 10.0
MAX_LINE_BYTES = 64 << 20
"""A transcript of ten hours is about 1 MB."""
SAMPLE_S = 0.2
"""Reading a tree costs this process about 3 ms, and what a spectrogram of a whole file takes lasts longer."""


class WayFailedError(ServerError):
    """A way ended, or told an error, instead of transcribing."""

    code = "way_failed"


@dataclass(frozen=True)
class WayOptions:
    """The model and where it runs; the same for all ways of a run."""

    model: str
    device: str
    compute_type: str
    cpu_threads: int

    @property
    def arguments(self) -> tuple[str, ...]:
        """As arguments of a way's command."""
        return (
            *("--model", self.model, "--device", self.device),
            *("--compute-type", self.compute_type, "--cpu-threads", str(self.cpu_threads)),
        )


@dataclass(frozen=True)
class Sample:
    """Memory at a moment of a task; `done_s` are the seconds of audio that the way said it had done."""

    at_s: float
    done_s: float
    rss_bytes: int


@dataclass(frozen=True)
class Measured:
    """What one file took."""

    answer: FileAnswer
    wall_s: float
    cpu_s: float
    samples: tuple[Sample, ...]

    @property
    def peak_rss_bytes(self) -> int:
        """The most memory at one of the samples."""
        return max(sample.rss_bytes for sample in self.samples)


class WayProcess:
    """A running way."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.about: Mapping[str, Any] = {}
        self.idle_rss_bytes = 0
        self._process = process
        self._clock = MonotonicClock()
        self._done_s = 0.0

    async def wait_ready(self) -> None:
        """Wait until the model is loaded. Raises WayFailedError."""
        self.about = await self._receive(READY, START_LIMIT_S)
        self.idle_rss_bytes = self._state().rss_bytes

    async def transcribe(self, task: FileTask, on_sample: Callable[[Sample], None] | None = None) -> Measured:
        """Do one file. Raises WayFailedError."""
        self._done_s = 0.0
        samples: list[Sample] = []
        before, began_s = self._state(), self._clock.now_s()

        def sample() -> TreeState:
            state = self._state()
            samples.append(Sample(self._clock.now_s() - began_s, self._done_s, state.rss_bytes))
            if on_sample is not None:
                on_sample(samples[-1])
            return state

        async def keep_sampling() -> None:
            while True:
                await asyncio.sleep(SAMPLE_S)
                sample()

        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        sampling = asyncio.create_task(keep_sampling())
        try:
            answer = FileAnswer(**await self._receive(ANSWER, TASK_LIMIT_S))
        finally:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError, WayFailedError):
                await sampling
        wall_s = self._clock.now_s() - began_s
        after = sample()
        return Measured(answer, wall_s, after.cpu_s - before.cpu_s, tuple(samples))

    async def stop(self) -> None:
        """End the process: by the end of its input, and if that does not help by force."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_LIMIT_S)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _state(self) -> TreeState:
        state = read_tree([self._process.pid])
        if state is None:
            raise WayFailedError(f"{self.name}: its process is gone")
        return state

    async def _receive(self, kind: str, limit_s: float) -> Any:
        """The value of the next line that tells no progress."""
        assert self._process.stdout is not None
        end_s = self._clock.now_s() + limit_s
        while True:
            try:
                line = await asyncio.wait_for(self._process.stdout.readline(), end_s - self._clock.now_s())
            except asyncio.TimeoutError:
                raise WayFailedError(f"{self.name}: no answer within {limit_s:g} s") from None
            if not line:
                raise WayFailedError(f"{self.name}: its process ended")
            message = json.loads(line)
            if PROGRESS in message:
                self._done_s = float(message[PROGRESS])
            elif kind in message:
                return message[kind]
            else:
                raise WayFailedError(f"{self.name}: {message.get(ERROR, 'an unexpected line')}")


@contextlib.asynccontextmanager
async def way_process(name: str, command: Sequence[str], options: WayOptions) -> AsyncIterator[WayProcess]:
    """Start a way (`command`: module and its own arguments) and wait for its model; stop it at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command, *options.arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MAX_LINE_BYTES,
        env=_environment(options.cpu_threads),
    )
    way = WayProcess(name, process)
    try:
        await way.wait_ready()
        yield way
    finally:
        await way.stop()


def _environment(cpu_threads: int) -> dict[str, str]:
    """The same for all; as many threads for each library as were asked for."""
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {name: str(cpu_threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(search)}
