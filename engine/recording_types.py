"""What is asked about a whole recording, and what comes back.

Plain frozen dataclasses: they know no file, no model and no clock. Times are seconds from the start of the
recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from engine.types import DetectResult, FileSegment, SearchOptions

__all__ = ["OnProgress", "OnSegment", "Recording", "RecordingOptions", "Task", "VadOptions"]

Task: TypeAlias = Literal["transcribe", "translate"]


@dataclass(frozen=True)
class VadOptions:
    """What counts as speech; names, meanings and defaults are those of faster-whisper's `vad_parameters`."""

    threshold: float = 0.5
    neg_threshold: float | None = None
    min_speech_duration_ms: int = 0
    max_speech_duration_s: float = float("inf")
    min_silence_duration_ms: int = 2_000
    speech_pad_ms: int = 400


@dataclass(frozen=True)
class RecordingOptions:
    """How a recording is to be transcribed.

    `mode` "fast" decodes stretches between pauses side by side, with word times always; "accurate" decodes one
    window after the other, each with the text before it (`condition_on_previous_text`), as faster-whisper's
    sequential pipeline does. `language` None: the language that most of the speech is in, among `languages`
    (empty: all of the model's). `tasks` are done in one pass. `vad` None: only long silences are left out.
    `clips` are (start, end) in seconds, ascending; empty: everything. `batch_size` bounds how many windows of
    the recording are in the engine's queue at once (None: what suits the device).
    """

    mode: Literal["fast", "accurate"] = "fast"
    language: str | None = None
    languages: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ("transcribe",)
    search: SearchOptions = field(default_factory=SearchOptions)
    prompt: str = ""
    hotwords: str = ""
    condition_on_previous_text: bool = True
    word_timestamps: bool = False
    vad: VadOptions | None = None
    clips: tuple[tuple[float, float], ...] = ()
    batch_size: int | None = None


@dataclass(frozen=True)
class Recording:
    """A transcribed recording: segments per task, in order of time.

    `speech_s` is what was decoded, after silences were left out; `timings_s` has wall seconds by step
    (`decode`, `vad`, `model`, `total`); `warnings` name damaged places, speech without text and doubt.
    """

    segments: dict[Task, tuple[FileSegment, ...]]
    language: str
    language_probability: float
    language_probs: DetectResult
    duration_s: float
    speech_s: float
    container: str
    codec: str
    warnings: tuple[str, ...] = ()
    timings_s: dict[str, float] = field(default_factory=dict)


OnSegment: TypeAlias = Callable[[Task, FileSegment], None]
"""Told about each segment as soon as it and all before it are known."""
OnProgress: TypeAlias = Callable[[float], None]
"""Told how many seconds of the recording are done."""
