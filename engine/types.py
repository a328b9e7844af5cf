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
    "AlignRequest",
    "Backend",
    "DecodeRequest",
    "DecodeResult",
    "DetectResult",
    "Engine",
    "FileOptions",
    "FileSegment",
    "FloatArray",
    "Handle",
    "JobClass",
    "ModelInfo",
    "WindowJob",
    "WindowResult",
    "Word",
]

FloatArray: TypeAlias = npt.NDArray[np.float32]
Handle: TypeAlias = int
"""Names one encoder output that lives in the engine child."""

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

    @property
    def is_multilingual(self) -> bool:
        """True if the language of a stream has to be given or detected."""
        return len(self.languages) > 1


@dataclass(frozen=True)
class DecodeRequest:
    """Decode one encoder output without timestamps (`<|notimestamps|>`).

    `context` are token ids of committed text, put before `<|startoftranscript|>`, where they cost
    one parallel forward; `prompt` and `hotwords` are text, put before them.
    """

    handle: Handle
    language: str
    task: str = "transcribe"
    context: tuple[int, ...] = ()
    prompt: str = ""
    hotwords: str = ""
    beam_size: int = 1
    max_new_tokens: int = 224
    temperature: float = 0.0


@dataclass(frozen=True)
class DecodeResult:
    """Text tokens (no specials) and what is needed to judge them."""

    tokens: tuple[int, ...]
    text: str
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


@dataclass(frozen=True)
class AlignRequest:
    """Word times for `tokens` as decoded from `handle`; `n_frames` counts mel frames with content."""

    handle: Handle
    language: str
    task: str
    tokens: tuple[int, ...]
    n_frames: int


DetectResult: TypeAlias = tuple[tuple[str, float], ...]
"""(language code, probability), best first, over all languages of the model."""


@dataclass(frozen=True)
class FileOptions:
    """Options of faster-whisper's own pipeline, for whole recordings."""

    language: str | None = None
    task: str = "transcribe"
    beam_size: int = 5
    vad_filter: bool = False
    condition_on_previous_text: bool = False
    word_timestamps: bool = False
    initial_prompt: str | None = None


@dataclass(frozen=True)
class FileSegment:
    """One segment of a whole recording; times in seconds from its start."""

    start_s: float
    end_s: float
    text: str
    language: str
    words: tuple[Word, ...] = ()


class Backend(Protocol):
    """The message-shaped interface to a model: what the engine child executes.

    Lists in, lists of the same length out, so that jobs of several streams can share one call.
    Raises EngineRestartError when the process behind it is gone (all handles are void then) and
    EngineFailedError when the call itself failed.
    """

    async def encode(self, mels: Sequence[FloatArray]) -> list[Handle]:
        """Encode normalised log-mel windows, float32 [n_mels, frames], all of equal shape."""
        ...

    async def decode(self, requests: Sequence[DecodeRequest]) -> list[DecodeResult]:
        """Decode encoder outputs."""
        ...

    async def align(self, requests: Sequence[AlignRequest]) -> list[tuple[Word, ...]]:
        """Find word times."""
        ...

    async def detect(self, handles: Sequence[Handle]) -> list[DetectResult]:
        """Tell the language of encoder outputs."""
        ...

    async def release(self, handles: Sequence[Handle]) -> None:
        """Forget encoder outputs."""
        ...

    async def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin faster-whisper's own pipeline on mono 16 kHz float32 samples."""
        ...

    async def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """Decode one more window of a file; None after the last one."""
        ...


@dataclass(frozen=True)
class WindowJob:
    """One window of a live stream to be decoded.

    `mel` is raw log10-mel, float32 [n_mels, frames <= MAX_FRAMES], as `engine.mel` makes it.
    `language` None asks for detection among `languages` (empty: all that the model knows).
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


@dataclass(frozen=True)
class WindowResult:
    """What was heard in a window; `language_probs` only when detection was asked for."""

    words: tuple[Word, ...]
    language: str
    language_probs: DetectResult
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float


class Engine(Protocol):
    """What sessions and file jobs see: submit a window, await its words."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model; valid once the engine has been ready."""
        ...

    async def transcribe_window(self, job: WindowJob) -> WindowResult:
        """Decode one window; survives restarts of the engine child.

        Raises EngineFailedError if this window cannot be decoded.
        """
        ...

    def transcribe_file(self, samples: FloatArray, options: FileOptions) -> AsyncIterator[FileSegment]:
        """Decode a whole recording, float32 mono 16 kHz, at the lowest priority."""
        ...
