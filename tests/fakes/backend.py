"""A backend with behaviour and no model: deterministic words, scripted crashes, failures, lack of memory.

It "hears" one word per WORD_FRAMES mel frames of a window: " w0", " w1", ... The first value of the mel is
the speaker: windows of speaker 3 have " w300", " w301", ..., so that a result given to the wrong job shows.
Token ids are the numbers of the words, offset by FIRST_TOKEN.

Scripts count calls of all methods but `release`, from 1:

    backend.crash_at(3)              call 3 raises EngineRestartError, voids all handles, counts a restart
    backend.fail_at(3)               call 3 raises EngineFailedError; others are not concerned
    backend.kills(predicate)         a batch with such a job crashes the child
    backend.poison(predicate)        a batch with such a job raises EngineFailedError
    backend.out_of_memory_above(4)   a batch of more than 4 jobs raises EngineMemoryError
    with backend.hold("transcribe"):     calls of that method wait until the block ends
    await backend.entered("transcribe")  until such a call has begun and waits

Handles of before a crash raise EngineRestartError, unknown ones EngineFailedError, as the real one's; so
does a batch of unequal keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from engine.batching import batch_key, padded_frames
from engine.errors import EngineFailedError, EngineMemoryError, EngineRestartError
from engine.types import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    BatchResult,
    DetectResult,
    FileOptions,
    FileSegment,
    FloatArray,
    Handle,
    ModelInfo,
    WindowJob,
    WindowResult,
    Word,
)

__all__ = ["FAKE_INFO", "FILE_WINDOW_S", "FIRST_TOKEN", "SPEAKER_WORDS", "WORD_FRAMES", "FakeBackend"]

WORD_FRAMES = 50
"""A word every half second."""
FIRST_TOKEN = 1_000
SPEAKER_WORDS = 100
"""Words of one speaker."""
FILE_WINDOW_S = 2.0
"""`next_segments` goes through a recording in windows of this length, one segment each."""
STAGE_S = 0.01
"""What each stage of a batch is said to have taken; it takes no time here."""
_GENERATION_BITS = 32

JobTest = Callable[[WindowJob], bool]

FAKE_INFO = ModelInfo(
    name="fake",
    n_mels=80,
    languages=("en", "es", "de"),
    device="cuda",
    compute_type="float32",
    pad_frames=0,
)


class _File:
    def __init__(self, n_samples: int, options: FileOptions) -> None:
        self.n_samples = n_samples
        self.options = options
        self.position = 0


class FakeBackend:
    """`engine.service.SupervisedBackend` without a model."""

    def __init__(self, device: str = FAKE_INFO.device, language_probs: DetectResult | None = None) -> None:
        self.info = replace(FAKE_INFO, device=device)
        self.is_ready = True
        self.restarts = 0
        self.language_probs = language_probs or (("en", 0.6), ("de", 0.3), ("es", 0.1))
        self.calls: list[tuple[str, object]] = []
        self.batches: list[list[WindowJob]] = []
        self.open_files: dict[Handle, _File] = {}
        self._counter = 0
        self._crashes: set[int] = set()
        self._failures: set[int] = set()
        self._kills: JobTest = _never
        self._poison: JobTest = _never
        self._max_jobs = 0
        self._n_too_large = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    # Scripts

    def crash_at(self, *numbers: int) -> None:
        """Let the child die under these calls."""
        self._crashes.update(numbers)

    def fail_at(self, *numbers: int) -> None:
        """Let these calls fail alone."""
        self._failures.update(numbers)

    def kills(self, is_such: JobTest) -> None:
        """Let the child die under any batch with such a job."""
        self._kills = is_such

    def poison(self, is_such: JobTest) -> None:
        """Let any batch with such a job fail."""
        self._poison = is_such

    def out_of_memory_above(self, n_jobs: int, times: int = 1_000) -> None:
        """Let batches of more jobs not fit, so many times."""
        self._max_jobs, self._n_too_large = n_jobs, times

    @contextlib.contextmanager
    def hold(self, method: str) -> Iterator[None]:
        """Let calls of a method wait until the block ends."""
        gate = self._gates[method] = asyncio.Event()
        self._arrivals[method].clear()
        try:
            yield
        finally:
            del self._gates[method]
            gate.set()

    async def entered(self, method: str) -> None:
        """Wait until a held call of the method has begun."""
        await self._arrivals[method].wait()

    def crash(self) -> None:
        """Let the child die between two calls: all handles are void."""
        self.restarts += 1
        self._counter = 0
        self.open_files.clear()

    # What tests look at

    @property
    def held(self) -> int:
        """Recordings not released."""
        return len(self.open_files)

    def methods(self) -> list[str]:
        """Names of the calls so far, in order, without `release`."""
        return [method for method, _ in self.calls]

    def requests(self, method: str) -> list[object]:
        """Arguments of all calls of a method."""
        return [argument for name, argument in self.calls if name == method]

    def batch_streams(self) -> list[list[str]]:
        """The streams of every batch, in order, tried ones included."""
        return [[job.stream for job in batch] for batch in self.batches]

    def alone(self, job: WindowJob) -> WindowResult:
        """What a job gets, whatever else is in its batch."""
        length_s = job.mel.shape[1] / FRAMES_PER_SECOND
        speaker = int(job.mel[0, 0]) if job.mel.size else 0
        n_words = job.mel.shape[1] // WORD_FRAMES if job.wants_words else 0
        probabilities: DetectResult = ()
        if job.language is None:
            allowed = job.languages or self.info.languages
            probabilities = tuple((code, share) for code, share in self.language_probs if code in allowed)
        return WindowResult(
            words=_spread(speaker * SPEAKER_WORDS, n_words, length_s),
            language=job.language or probabilities[0][0],
            language_probs=probabilities,
            avg_logprob=-0.1,
            no_speech_prob=0.01,
            compression_ratio=1.0,
        )

    # The backend

    async def _enter(self, method: str, argument: object, handles: Sequence[Handle] = ()) -> None:
        self.calls.append((method, argument))
        number = len(self.calls)
        restarts = self.restarts
        gate = self._gates.get(method)
        if gate is not None:
            self._arrivals[method].set()
            await gate.wait()
        if number in self._crashes:
            self.crash()
        if self.restarts != restarts or any(handle >> _GENERATION_BITS != self.restarts for handle in handles):
            raise EngineRestartError("the engine process is gone (fake)")
        if number in self._failures:
            raise EngineFailedError("the call failed (fake)")
        if any(handle not in self.open_files for handle in handles):
            raise EngineFailedError("unknown handle (fake)")

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        """A word per WORD_FRAMES of each job; the scripts look at the batch first."""
        self.batches.append(list(jobs))
        await self._enter("transcribe", list(jobs))
        if any(map(self._kills, jobs)):
            self.crash()
            raise EngineRestartError("the engine process is gone (fake)")
        if self._n_too_large and len(jobs) > self._max_jobs:
            self._n_too_large -= 1
            raise EngineMemoryError("out of memory (fake)")
        if any(map(self._poison, jobs)):
            raise EngineFailedError("the batch failed (fake)")
        if len({batch_key(job, self.info) for job in jobs}) != 1:
            raise EngineFailedError("the batch has no or several keys (fake)")
        results = tuple(self.alone(job) for job in jobs)
        frames = sum(padded_frames(job.mel.shape[1], self.info) for job in jobs)
        return BatchResult(
            results=results,
            frames=frames,
            padding_frames=frames - sum(job.mel.shape[1] for job in jobs),
            tokens=sum(len(result.words) for result in results),
            encode_s=STAGE_S,
            decode_s=STAGE_S,
            align_s=STAGE_S,
        )

    async def release(self, handles: Sequence[Handle]) -> None:
        """Forget; not counted as a call."""
        if any(handle >> _GENERATION_BITS != self.restarts for handle in handles):
            raise EngineRestartError("the engine process is gone (fake)")
        for handle in handles:
            self.open_files.pop(handle, None)

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin a recording."""
        await self._enter("open_file", options)
        self._counter += 1
        handle = (self.restarts << _GENERATION_BITS) + self._counter
        self.open_files[handle] = _File(len(samples), options)
        return handle

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """One segment per FILE_WINDOW_S, " s0", " s1", ...; None behind the last."""
        await self._enter("next_segments", handle, [handle])
        file = self.open_files[handle]
        start_s, length_s = file.position * FILE_WINDOW_S, file.n_samples / SAMPLE_RATE_HZ
        if start_s >= length_s:
            return None
        end_s = min(start_s + FILE_WINDOW_S, length_s)
        text = f" s{file.position}"
        file.position += 1
        words = (Word(text, start_s, end_s, 0.9),) if file.options.word_timestamps else ()
        return [FileSegment(start_s, end_s, text, file.options.language or "en", words)]


def _never(job: WindowJob) -> bool:
    return False


def _spread(first: int, count: int, length_s: float) -> tuple[Word, ...]:
    step_s = length_s / max(1, count)
    return tuple(
        Word(f" w{first + index}", index * step_s, (index + 1) * step_s, 0.9, (FIRST_TOKEN + first + index,))
        for index in range(count)
    )
