"""Values that travel between the parent process, the engine child and their users.

Plain frozen dataclasses of numbers, strings, tuples and numpy arrays: all of them pickle, none
of them knows a socket, a model or a clock. Times in results are seconds from the start of the
window that was decoded; whoever cut the window adds its place on the sample clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "FRAMES_PER_SECOND",
    "HOP_SAMPLES",
    "MAX_FRAMES",
    "SAMPLE_RATE_HZ",
    "Backend",
    "BatchResult",
    "DetectResult",
    "Engine",
    "FileOptions",
    "FileSegment",
    "FloatArray",
    "Handle",
    "JobClass",
    "ModelInfo",
    "SearchOptions",
    "WindowJob",
    "WindowResult",
    "Word",
]

FloatArray: TypeAlias = npt.NDArray[np.float32]
Handle: TypeAlias = int
"""Names one recording that is open in the engine child."""

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
"""Samples between two mel frames (10 ms)."""
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
MAX_FRAMES = 3_000
"""Mel frames of the longest window Whisper's encoder takes: 30 s."""


class JobClass(IntEnum):
    """What a job is for; the smaller goes first."""

    FINAL = 0
    PARTIAL = 1
    FILE = 2


@dataclass(frozen=True)
class Word:
    """One word; `text` keeps its leading blank, times are seconds from the window's start."""

    text: str
    start_s: float
    end_s: float
    probability: float
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """What the engine child tells about the model it has loaded and warmed up."""

    name: str
    n_mels: int
    languages: tuple[str, ...]
    device: str
    compute_type: str
    is_demo: bool = False
    pad_frames: int = MAX_FRAMES
    """Windows are padded to at least this many mel frames; 0 = encode at their own length."""
    tail_frames: int = 0
    """Silent mel frames that follow the content in any case, within MAX_FRAMES."""
    bucket_frames: int = 200
    """Window lengths are rounded up to a multiple of this, so that windows of several streams can
    share a batch without one being padded because of another."""
    context_lengths: tuple[int, ...] = (0, 32, 96)
    """Lengths in tokens, ascending, to which the text before a window is cut; (0,): the model takes none.
    Prompts in one batch must be equally long."""
    file_window_s: float = 30.0
    """Longest stretch of a recording that is decoded in one window."""
    revision: str | None = None
    """Which commit of its repository the model is; None if that is not known."""

    @property
    def is_multilingual(self) -> bool:
        """True if the language of a stream has to be given or detected."""
        return len(self.languages) > 1


DetectResult: TypeAlias = tuple[tuple[str, float], ...]
"""(language code, probability), best first, over all languages of the model."""


@dataclass(frozen=True)
class SearchOptions:
    """How the decoder searches in a recording; names, meanings and defaults are faster-whisper's.

    `temperatures` are tried in this order while a text is a loop (`compression_ratio_threshold`) or is not
    believed (`logprob_threshold`); None turns a check off. -1 in `suppress_tokens` stands for the model's own
    list of symbols.
    """

    beam_size: int = 5
    best_of: int = 5
    patience: float = 1.0
    length_penalty: float = 1.0
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    suppress_tokens: tuple[int, ...] = (-1,)


@dataclass(frozen=True)
class FileOptions:
    """Options of faster-whisper's own pipeline, for whole recordings; `prompt` is text before the first word."""

    language: str | None = None
    task: str = "transcribe"
    search: SearchOptions = SearchOptions()
    vad_filter: bool = False
    condition_on_previous_text: bool = False
    word_timestamps: bool = False
    prompt: str = ""
    hotwords: str = ""


@dataclass(frozen=True)
class FileSegment:
    """One segment of a whole recording; times in seconds from its start, `tokens` without special tokens."""

    start_s: float
    end_s: float
    text: str
    language: str
    words: tuple[Word, ...] = ()
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0


@dataclass(frozen=True)
class WindowJob:
    """One window of a live stream or of a recording to be decoded.

    `mel` is raw log10-mel, float32 [n_mels, frames <= MAX_FRAMES], as `engine.mel` makes it.
    `language` None asks for detection among `languages` (empty: all that the model knows). `context` are
    token ids of the committed text before the window, cut to one of the model's `context_lengths`: they
    stand before `<|startoftranscript|>`, where they cost one parallel forward. `prompt` and `hotwords`
    are text, put before them. `search` None: as live windows are searched. Without `wants_words` the result is
    the language probabilities alone.
    """

    stream: str
    job_class: JobClass
    mel: FloatArray
    language: str | None
    languages: tuple[str, ...] = ()
    task: str = "transcribe"
    context: tuple[int, ...] = ()
    prompt: str = ""
    hotwords: str = ""
    search: SearchOptions | None = None
    wants_words: bool = True


@dataclass(frozen=True)
class WindowResult:
    """What was heard in a window; `language_probs` only when detection was asked for.

    `is_cut`: the text ended at its token budget, so words may be missing behind it.
    """

    words: tuple[Word, ...]
    language: str
    language_probs: DetectResult
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float = 0.0
    is_cut: bool = False


@dataclass(frozen=True)
class BatchResult:
    """What a batch of windows brought, in the order of its jobs, and what it cost the engine child.

    `tokens` counts new tokens over all windows; `frames` the mel frames encoded and `padding_frames` how
    many of them were padding.
    """

    results: tuple[WindowResult, ...]
    frames: int
    padding_frames: int
    tokens: int
    encode_s: float
    decode_s: float
    align_s: float


class Backend(Protocol):
    """The message-shaped interface to a model: what the engine child executes.

    Raises EngineRestartError when the process behind it is gone (handles of recordings are void then),
    EngineMemoryError when a batch does not fit, and EngineFailedError when the call itself failed; an
    error concerns the call as a whole, so whoever made the batch may try its parts.
    """

    async def transcribe(self, jobs: Sequence[WindowJob]) -> BatchResult:
        """Decode windows of equal `engine.batching.batch_key` in one batch: encode, detect, decode, align."""
        ...

    async def release(self, handles: Sequence[Handle]) -> None:
        """Forget recordings."""
        ...

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin faster-whisper's own pipeline on mono 16 kHz float32 samples."""
        ...

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """Decode one more window of a file; None after the last one."""
        ...


class Engine(Protocol):
    """What sessions and file jobs see: submit a window, await its words."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model; valid once the engine has been ready."""
        ...

    @property
    def partial_interval_s(self) -> float:
        """How much new audio is worth a partial decode now: little when idle, more under load."""
        ...

    @property
    def max_streams(self) -> int | None:
        """How many streams may talk at once within the latency goal, by what was measured so far.

        None: nothing was measured yet.
        """
        ...

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        """Decode one window; survives restarts of the engine child.

        Raises EngineFailedError if this window cannot be decoded.
        """
        ...

    def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        """Decode a whole recording, float32 mono 16 kHz, at the lowest priority."""
        ...
