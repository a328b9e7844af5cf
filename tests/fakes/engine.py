"""An engine that understands tone words instead of speech: without a model, without an error of its own.

`Hearing` is the synchronous half: it reads the words of a window, and can be told to behave like a real
model at its worst: late, failing, flickering, looping, hallucinating, imprecise about times.
`ScriptedEngine` puts it behind `engine.types.Engine` for an event loop.

Everything is a function of the seed and the sequence of calls. Unrealistic use to avoid: windows that
were normalised (the tones are found by their power).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from engine.errors import SttError
from engine.mel import LogMelStream
from engine.types import (
    FRAMES_PER_SECOND,
    SAMPLE_RATE_HZ,
    DetectResult,
    FileOptions,
    FileSegment,
    FloatArray,
    JobClass,
    ModelInfo,
    WindowJob,
    WindowResult,
    Word,
)
from engine.vad import VAD_FRAME_SAMPLES
from tests.fakes.tones import Cut, TextOf, read_words

__all__ = ["DEMO_INFO", "EnergyDetector", "Habits", "Hearing", "Looping", "ScriptedEngine"]

DEMO_INFO = ModelInfo("tones", 80, ("en", "es"), "cpu", "float32")
SURELY_ENGLISH: DetectResult = (("en", 0.97), ("es", 0.03))
LOUD_RMS = 0.004
"""A twentieth of a frame full of tone words."""
GARBAGE_PROBABILITY = 0.4
"""A model that hears nonsense is not sure of it."""
LOOPED_WORDS = 40
FILE_PAUSE_S = 0.5
PARTIAL_INTERVAL_S = 0.5
"""Between an idle engine and a busy one."""

Looping = Callable[[int, WindowJob], bool]
"""(call number from 0, job): does the model repeat itself at the end of this window?"""


def _never(call: int, job: WindowJob) -> bool:
    return False


def _english(window_s: float) -> DetectResult:
    return SURELY_ENGLISH


@dataclass(frozen=True)
class Habits:
    """How the engine misbehaves; calls are counted from 0.

    `cost_s` and `cost_per_s` (of the window) make a decode take its time, `delays_s` more so at chosen
    calls; `faults` fail chosen calls. `garbage` is the share of partials that are heard completely wrong,
    `jitter_s` how far word times may be off. Of a
    word at the window's edge the share `needed` must be there, or it is `cut`. `silence_says` is heard where
    there is no word, unlikely as it is, in windows without a search: with one, the engine drops it.
    """

    cost_s: float = 0.0
    cost_per_s: float = 0.0
    delays_s: Mapping[int, float] = field(default_factory=dict)
    faults: Mapping[int, SttError] = field(default_factory=dict)
    fails: Callable[[int, WindowJob], SttError | None] = lambda call, job: None
    cut: Cut = "skip"
    needed: float = 0.5
    text_of: TextOf = field(default_factory=dict)
    flicker: bool = False
    garbage: float = 0.0
    jitter_s: float = 0.0
    loops: Looping = _never
    silence_says: str = ""
    detect: Callable[[float], DetectResult] = _english
    seed: int = 0


class Hearing:
    """Reads tone words; `jobs` are those it has heard so far."""

    def __init__(self, habits: Habits | None = None) -> None:
        self.habits = habits or Habits()
        self.jobs: list[WindowJob] = []
        self._random = random.Random(self.habits.seed)

    def cost_s(self, job: WindowJob) -> float:
        """How long the next call of `hear` takes, which is to be about `job`."""
        window_s: float = job.mel.shape[1] / FRAMES_PER_SECOND
        extra_s: float = self.habits.delays_s.get(len(self.jobs), 0.0)
        return self.habits.cost_s + self.habits.cost_per_s * window_s + extra_s

    def hear(self, job: WindowJob) -> WindowResult:
        """The words of a window. Raises what `faults` or `fails` say."""
        habits, call = self.habits, len(self.jobs)
        self.jobs.append(job)
        fault = habits.faults.get(call) or habits.fails(call, job)
        if fault is not None:
            raise fault
        words = read_words(job.mel, cut=habits.cut, needed=habits.needed, text_of=habits.text_of)
        is_silent = not words
        if job.job_class is JobClass.PARTIAL and self._random.random() < habits.garbage:
            # Nonsense that never comes again: what two decodes agree on is no nonsense to anybody.
            words = tuple(
                replace(word, text=f" noise{call}x{index}", probability=GARBAGE_PROBABILITY)
                for index, word in enumerate(words)
            )
        if habits.flicker:
            words = tuple(_flickered(word, self._random) for word in words)
        if habits.jitter_s:
            words = self._jittered(words, job.mel.shape[1] / FRAMES_PER_SECOND)
        if habits.loops(call, job):
            words = _looping(words)
        if is_silent and habits.silence_says and job.search is None:
            words = (Word(habits.silence_says, 0.0, job.mel.shape[1] / FRAMES_PER_SECOND, 0.1),)
        return self._result(job, words, is_silent=is_silent)

    def _result(self, job: WindowJob, words: Sequence[Word], *, is_silent: bool) -> WindowResult:
        probs: DetectResult = ()
        if job.language is None:
            probs = self.habits.detect(job.mel.shape[1] / FRAMES_PER_SECOND)
            allowed = [pair for pair in probs if not job.languages or pair[0] in job.languages]
            language = allowed[0][0]
        else:
            language = job.language
        logprob, no_speech = (-1.5, 0.95) if is_silent else (-0.2, 0.01)
        return WindowResult(tuple(words) if job.wants_words else (), language, probs, logprob, no_speech, 1.0)

    def _jittered(self, words: Sequence[Word], window_s: float) -> tuple[Word, ...]:
        """Times off by up to `jitter_s`, but in order and within the window, as an alignment's are."""
        limit = self.habits.jitter_s
        moved = []
        at_s = 0.0
        for word in words:
            start_s = max(at_s, word.start_s + self._random.uniform(-limit, limit))
            end_s = min(window_s, max(start_s, word.end_s + self._random.uniform(-limit, limit)))
            moved.append(replace(word, start_s=min(start_s, end_s), end_s=end_s))
            at_s = end_s
        return tuple(moved)


def _flickered(word: Word, source: random.Random) -> Word:
    """The same word with another case, and with or without a comma."""
    text = source.choice((word.text, word.text.title(), word.text.upper()))
    return replace(word, text=text + source.choice(("", "", ",")))


def _looping(words: Sequence[Word]) -> tuple[Word, ...]:
    """The last word again and again, squeezed into the little time that is left at the end."""
    if not words:
        return ()
    last = words[-1]
    step_s = 0.2 / LOOPED_WORDS
    again = [
        replace(last, start_s=last.end_s + n * step_s, end_s=last.end_s + (n + 1) * step_s) for n in range(LOOPED_WORDS)
    ]
    return (*words, *again)


class ScriptedEngine:
    """`engine.types.Engine` over a `Hearing`, one window at a time like a real one.

    `sleep` spends the cost of a decode: on the real clock by default. What it says of its load, it says
    because a test wants it: `partial_interval_s` and `max_streams` can be set at any time.
    """

    def __init__(
        self,
        habits: Habits | None = None,
        *,
        info: ModelInfo = DEMO_INFO,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.hearing = Hearing(habits)
        self.partial_interval_s = PARTIAL_INTERVAL_S
        self.max_streams: int | None = None
        self._info = info
        self._sleep = sleep
        self._turn = asyncio.Lock()

    @property
    def info(self) -> ModelInfo:
        """What it pretends to be."""
        return self._info

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        """Decode one window. Raises what the habits say."""
        async with self._turn:
            cost_s = self.hearing.cost_s(job)
            result = self.hearing.hear(job) if job.mel.shape[1] else WindowResult((), "en", (), 0.0, 1.0, 0.0)
            await self._sleep(cost_s)
            return result

    async def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        """All words of a recording, one segment for each stretch without a pause."""
        stream = LogMelStream(self._info.n_mels)
        head = stream.push(samples)
        words = [*read_words(head, text_of=self.hearing.habits.text_of)]
        await self._sleep(self.hearing.habits.cost_s + self.hearing.habits.cost_per_s * len(samples) / SAMPLE_RATE_HZ)
        while words:
            end = 1
            while end < len(words) and words[end].start_s - words[end - 1].end_s < FILE_PAUSE_S:
                end += 1
            said, words = tuple(words[:end]), words[end:]
            text = "".join(word.text for word in said)
            kept = said if options.word_timestamps else ()
            yield FileSegment(said[0].start_s, said[-1].end_s, text, options.language or "en", kept)


class EnergyDetector:
    """`engine.vad.SpeechDetector` for tone words: a frame is speech if it is not quiet.

    `lag_frames`: speech is recognised only in its second, third, ... frame, as neural detectors do.
    """

    def __init__(self, lag_frames: int = 0) -> None:
        self._pending: list[FloatArray] = []
        self._n_pending = 0
        self._lag_frames = lag_frames
        self._loud_frames = 0

    def push(self, samples: FloatArray) -> list[float]:
        """One probability, 0 or 1, per completed frame of 512 samples."""
        self._pending.append(samples)
        self._n_pending += len(samples)
        if self._n_pending < VAD_FRAME_SAMPLES:
            return []
        audio = np.concatenate(self._pending)
        n_frames = len(audio) // VAD_FRAME_SAMPLES
        frames = audio[: n_frames * VAD_FRAME_SAMPLES].reshape(n_frames, VAD_FRAME_SAMPLES)
        self._pending = [audio[n_frames * VAD_FRAME_SAMPLES :]]
        self._n_pending = len(self._pending[0])
        loud = np.sqrt(np.mean(frames**2, axis=1)) > LOUD_RMS
        return [self._probability(bool(is_loud)) for is_loud in loud]

    def _probability(self, is_loud: bool) -> float:
        self._loud_frames = self._loud_frames + 1 if is_loud else 0
        return 1.0 if self._loud_frames > self._lag_frames else 0.0
