"""One stretch of a recording through the engine: per task a window, or several where one was too much.

Knows the engine and no file. Invariants: at most `n_at_once` windows of the recording are in the engine; a text
that ended at its token budget, or went round in circles, is decoded again in halves, a bounded number of times.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.clock import Clock
from engine.errors import AtCapacityError
from engine.recording_cut import FRAME_S, Stretch
from engine.recording_types import RecordingOptions, Task
from engine.types import FRAMES_PER_SECOND, DetectResult, Engine, FloatArray, JobClass, WindowJob, WindowResult
from engine.window_search import is_loop

__all__ = [
    "CAPACITY_TRIES",
    "MAX_SPLITS",
    "MAX_WINDOWS",
    "Heard",
    "Stopwatch",
    "WindowDecoder",
    "default_windows",
    "patiently",
]

ResultT = TypeVar("ResultT")
Part = tuple[Stretch, WindowResult]

CPU_WINDOWS = 8
MAX_WINDOWS = 32
"""Windows of a recording in the engine at once: about two batches, so that one waits while another runs. With as many
prepared ones 32 hold 100 MB at 128 mel bands, and more gain nothing."""
MAX_SPLITS = 3
"""Times that a stretch is halved: of 30 s remain 4, in which nobody says 224 tokens."""
MIN_SPLIT_S = 4.0
"""Shorter stretches are not halved: a second of audio is too little for the model."""
CAPACITY_WAIT_S = 0.1
CAPACITY_TRIES = 600
"""A minute in all: the engine is full of other recordings, whose windows take seconds each."""

_numbers = itertools.count(1)


async def patiently(call: Callable[[], Awaitable[ResultT]]) -> ResultT:
    """Await `call()`, again and again while the engine is full. Raises AtCapacityError in the end."""
    for _ in range(CAPACITY_TRIES - 1):
        try:
            return await call()
        except AtCapacityError:
            await asyncio.sleep(CAPACITY_WAIT_S)
    return await call()


def default_windows(device: str) -> int:
    """How many windows of a recording are in the engine at once."""
    return CPU_WINDOWS if device == "cpu" else MAX_WINDOWS


class Stopwatch:
    """Adds up the seconds in which at least one of those who use it is at work."""

    def __init__(self, clock: Clock) -> None:
        self.total_s = 0.0
        self._clock = clock
        self._since_s = 0.0
        self._n_inside = 0

    def __enter__(self) -> None:
        if self._n_inside == 0:
            self._since_s = self._clock.now_s()
        self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        self._n_inside -= 1
        if self._n_inside == 0:
            self.total_s += self._clock.now_s() - self._since_s


@dataclass(frozen=True)
class Heard:
    """What one stretch brought: per task its parts, in order; `language_probs` if it was asked for."""

    stretch: Stretch
    language: str
    language_probs: DetectResult
    parts: dict[Task, tuple[Part, ...]]

    @property
    def has_words(self) -> bool:
        """True if there is any text."""
        return any(result.words for parts in self.parts.values() for _, result in parts)


class WindowDecoder:
    """Decodes the stretches of one recording."""

    def __init__(
        self, engine: Engine, options: RecordingOptions, languages: Sequence[str], n_at_once: int, watch: Stopwatch
    ) -> None:
        self._engine = engine
        self._options = options
        self._languages = tuple(languages)
        self._slots = asyncio.Semaphore(n_at_once)
        self._watch = watch
        self._stream = f"recording {next(_numbers)}"
        self._n_jobs = 0

    async def decode(self, stretch: Stretch, mel: FloatArray, language: str | None) -> Heard:
        """Decode for all tasks; `language` None: as what it is detected. Raises what the engine raises."""
        parts: dict[Task, tuple[Part, ...]] = {}
        probabilities: DetectResult = ()
        async with self._slots:
            for task in self._options.tasks:
                first = await self._submit(mel, task, language)
                language, probabilities = first.language, probabilities or first.language_probs
                parts[task] = tuple(await self._complete(stretch, mel, task, first, MAX_SPLITS))
        assert language is not None
        return Heard(stretch, language, probabilities, parts)

    async def detect(self, mel: FloatArray) -> DetectResult:
        """Only the language."""
        async with self._slots:
            return (await self._submit(mel, "transcribe", None, wants_words=False)).language_probs

    async def _complete(
        self, stretch: Stretch, mel: FloatArray, task: Task, result: WindowResult, splits_left: int
    ) -> list[Part]:
        """A result that may lack words is made anew from two halves."""
        is_whole = not result.is_cut and not is_loop(result, self._options.search)
        if is_whole or splits_left == 0 or len(stretch.probabilities) * FRAME_S < MIN_SPLIT_S:
            return [(stretch, result)]
        frame = stretch.best_split()
        column = round(frame * FRAME_S * FRAMES_PER_SECOND)
        parts: list[Part] = []
        for half, part in zip(stretch.split(frame), (mel[:, :column], mel[:, column:]), strict=True):
            again = await self._submit(part, task, result.language)
            parts += await self._complete(half, part, task, again, splits_left - 1)
        # A text that goes round in circles is still more than none.
        return parts if any(found.words for _, found in parts) else [(stretch, result)]

    async def _submit(
        self, mel: FloatArray, task: Task, language: str | None, *, wants_words: bool = True
    ) -> WindowResult:
        self._n_jobs += 1
        job = WindowJob(
            # Each window is a stream of its own: those of one stream do not share a batch.
            stream=f"{self._stream} window {self._n_jobs}",
            job_class=JobClass.FILE,
            mel=mel,
            language=language,
            languages=self._languages,
            task=task,
            prompt=self._options.prompt,
            hotwords=self._options.hotwords,
            search=self._options.search,
            wants_words=wants_words,
        )
        with self._watch:
            return await patiently(lambda: self._engine.transcribe_window(job))
