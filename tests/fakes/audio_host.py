"""The server as file requests see it, with a script instead of an engine, and OpenAI's client for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

from engine.clock import Clock, MonotonicClock
from engine.errors import SttError
from engine.recording_types import OnSegment, Recording, RecordingOptions
from engine.types import FileSegment, Word
from realtime.audio_api import AudioApi
from realtime.audio_fields import AudioRules
from realtime.audio_form import FormLimits
from realtime.auth import Authenticator, Gate
from realtime.transport import Limits
from tests.fakes.loopback import listening

SECRET = "canary-3f9a7c51d2"
RULES = AudioRules(("small", "/models/small"), ("en", "es", "de"), ("transcribe", "translate"))
MAX_FILE_BYTES = 100_000
HELLO = FileSegment(
    0.5, 1.25, " Hello there.", "en", (Word(" Hello", 0.5, 0.9, 0.9), Word(" there.", 0.9, 1.25, 0.8)), (5, 6), 0.2,
    -0.25, 1.5, 0.01,
)  # fmt: skip
NICE = FileSegment(
    2.0, 3.0, " Nice & <easy>.", "en", (Word(" Nice", 2.0, 2.2, 0.9), Word(" & <easy>.", 2.2, 3.0, 0.8)), (7,)
)
TEXT = "Hello there. Nice & <easy>."


@dataclass
class ScriptedHost:
    """Tells `segments` of whatever file it is given, `pause_s` before each; `stays`: and then never ends."""

    segments: Sequence[FileSegment] = (HELLO, NICE)
    pause_s: float = 0.0
    stays: bool = False
    error: SttError | Exception | None = None
    refusal: SttError | None = None
    warnings: tuple[str, ...] = ()
    rules: AudioRules = RULES
    clock: Clock = field(default_factory=MonotonicClock)
    files: list[bytes] = field(default_factory=list)
    asked: list[RecordingOptions] = field(default_factory=list)
    n_working: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def unready(self) -> SttError | None:
        return self.refusal

    def audio_rules(self) -> AudioRules:
        return self.rules

    async def transcribe(self, path: Path, options: RecordingOptions, on_segment: OnSegment) -> Recording:
        self.files.append(await asyncio.to_thread(path.read_bytes))
        self.asked.append(options)
        self.n_working += 1
        self.began.set()
        try:
            for segment in self.segments:
                await asyncio.sleep(self.pause_s)
                on_segment(options.tasks[0], segment)
            await asyncio.sleep(60.0 if self.stays else 0.0)
            if self.error is not None:
                raise self.error
        finally:
            self.n_working -= 1
            self.ended.set()
        language = options.language or "es"
        segments = {options.tasks[0]: tuple(self.segments)}
        return Recording(segments, language, 0.9, ((language, 0.9),), 3.25, 2.0, "wav", "pcm_s16le", self.warnings)


@dataclass
class Served:
    """A listening interface: its port, and clients of it."""

    port: int
    api: AudioApi
    client: openai.AsyncOpenAI

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def sync(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=SECRET, max_retries=0)


@contextlib.asynccontextmanager
async def served(
    host: ScriptedHost, *, form: FormLimits | None = None, limits: Limits | None = None, **options: Any
) -> AsyncIterator[Served]:
    """The interface on a free port, with OpenAI's client, which does not try again by itself."""
    api = AudioApi(host, Gate(Authenticator(SECRET)), form or FormLimits(MAX_FILE_BYTES), **options)
    async with (
        listening(api, limits) as listener,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{listener.port}/v1", api_key=SECRET, max_retries=0) as client,
    ):
        yield Served(listener.port, api, client)
