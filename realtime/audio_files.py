"""What the server needs to take files: the HTTP interface, its decoder, and the way from one to the engine.

Knows no request. Invariant: recordings go through the engine that serves the live streams, behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.clock import Clock
from engine.decode import DecodeLimits, MediaDecoder
from engine.decode_wire import LONGEST_S
from engine.errors import SttError
from engine.recording import transcribe_recording
from engine.recording_types import OnSegment, Recording, RecordingOptions
from engine.settings import Settings
from engine.types import Engine
from realtime.audio_api import MAX_FILES, MAX_UPLOADS, AudioApi
from realtime.audio_fields import AudioRules
from realtime.audio_form import FormLimits
from realtime.auth import Gate
from realtime.protocol import HandshakeRules

__all__ = ["FileDesk"]


class FileDesk:
    """`api` is the application; `close` ends the decoder after it."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        gate: Gate,
        clock: Clock,
        rules: Callable[[], HandshakeRules],
        unready: Callable[[], SttError | None],
    ) -> None:
        self.clock = clock
        self.unready = unready
        self._settings = settings
        self._engine = engine
        self._rules = rules
        # The decoder grants no more than a day, whatever the setting allows.
        self._max_audio_s = min(settings.max_audio_s, LONGEST_S)
        limits = DecodeLimits(max_duration_s=self._max_audio_s, max_input_bytes=settings.max_upload_bytes)
        self._decoder = MediaDecoder(limits, max_children=MAX_FILES, clock=clock)
        self.api = AudioApi(self, gate, FormLimits(settings.max_upload_bytes))

    def close(self) -> None:
        """End the decoder's processes."""
        self._decoder.close()

    def details(self) -> dict[str, int]:
        """What /status tells."""
        return {
            "active": self.api.n_recordings,
            "max": MAX_FILES,
            "uploads": self.api.n_uploads,
            "max_uploads": MAX_UPLOADS,
        }

    def audio_rules(self) -> AudioRules:
        """What is offered to files is what is offered to streams."""
        rules = self._rules()
        models = tuple(dict.fromkeys((rules.model, self._settings.effective_model)))
        return AudioRules(models, rules.languages, rules.tasks, rules.default_language)

    def transcribe(self, path: Path, options: RecordingOptions, on_segment: OnSegment) -> Awaitable[Recording]:
        """Transcribe a file; cancelling ends it at once. Raises SttErrors."""
        return transcribe_recording(
            self._engine,
            self._decoder,
            path,
            options,
            max_audio_s=self._max_audio_s,
            on_segment=on_segment,
            clock=self.clock,
        )
