"""What the two ways to transcribe a recording have in common. Knows no more than its parts do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.clock import Clock
from engine.decode import MediaSource
from engine.recording_audio import Analysis
from engine.recording_cut import Stretch
from engine.recording_decode import MAX_WINDOWS, Stopwatch, default_windows
from engine.recording_language import LanguageVote, allowed_languages
from engine.recording_reader import BlockDecoder, Listener, PreparedT, Reader
from engine.recording_result import Collector
from engine.recording_types import RecordingOptions
from engine.types import Engine, FloatArray
from engine.vad import SpeechDetector

__all__ = ["Outcome", "RecordingRun"]


@dataclass
class Outcome:
    """What was found on the way; the segments are in the collector."""

    vote: LanguageVote
    reader: Reader[FloatArray]
    analysis: Analysis
    decode_s: float = 0.0
    listen_s: float = 0.0


@dataclass
class RecordingRun:
    """One recording on its way through the engine."""

    engine: Engine
    decoder: BlockDecoder
    source: MediaSource
    options: RecordingOptions
    max_audio_s: float
    clock: Clock
    make_detector: Callable[[], SpeechDetector]
    collector: Collector
    watch: Stopwatch

    def languages(self) -> tuple[str, ...]:
        """Among which languages the choice is. Raises BadInputError."""
        return allowed_languages(self.engine.info, self.options.language, self.options.languages)

    @property
    def takes_previous_text(self) -> bool:
        """True if the text before a window goes along with it: asked for, and of use to this model."""
        return self.options.condition_on_previous_text and any(self.engine.info.context_lengths)

    def n_windows(self) -> int:
        """How many windows are in the engine at once."""
        return min(self.options.batch_size or default_windows(self.engine.info.device), MAX_WINDOWS)

    def analysis(self, max_stretch_s: float) -> Analysis:
        """A fresh one."""
        return Analysis(self.options.vad, self.options.clips, self.make_detector, max_stretch_s)

    def reader(self, listener: Listener, prepare: Callable[[Stretch, FloatArray], PreparedT]) -> Reader[PreparedT]:
        """Read the file, once more if it was read before."""
        blocks = self.decoder.iter_blocks(self.source, max_duration_s=self.max_audio_s)
        return Reader(blocks, listener, prepare, self.clock)
