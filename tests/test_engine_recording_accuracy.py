"""Whole recordings through a real engine process and a real decoder: against the labels, and other ways to do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from engine.clock import MonotonicClock
from engine.decode import MediaDecoder
from engine.owner import EngineOwner
from engine.recording import transcribe_recording
from engine.recording_types import Recording, RecordingOptions
from engine.service import EngineService
from engine.settings import load_settings
from engine.types import SAMPLE_RATE_HZ, FileOptions, FloatArray
from engine.wer import WordErrors, word_errors
from tests.fakes.media import encoded
from tests.fakes.tones import silence
from tests.serving import labels, recording

MARGIN = 0.005
"""Fast may be worse than the better of the two sequential ways by half a point of word error rate."""

Transcribe = Callable[..., Awaitable[Recording]]


def session(language: str, *folders: str) -> tuple[FloatArray, str]:
    """The shipped recordings of a language, one after the other, and what is said in them."""
    chosen = [entry for entry in labels() if entry["language"] == language and entry["file"].endswith(folders)]
    audio = [part for entry in chosen for part in (recording(entry["file"]), silence(0.5))]
    return np.concatenate(audio), " ".join(entry["text"] for entry in chosen)


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[EngineService, Transcribe]]:
    """A started engine with the demo model, and a function that transcribes samples with it."""
    owner = EngineOwner(load_settings({"model": "demo"}, env_file=None), MonotonicClock())
    service = EngineService(owner, MonotonicClock())
    owner.start()
    service.start()
    try:
        await owner.wait_ready()
        with MediaDecoder() as decoder:

            async def transcribe(audio: FloatArray, **options: Any) -> Recording:
                data = encoded(audio, SAMPLE_RATE_HZ, "FLAC")
                return await transcribe_recording(
                    service, decoder, data, RecordingOptions(**options), max_audio_s=3_600
                )

            yield service, transcribe
    finally:
        await service.stop()
        await owner.stop()


def text(found: Recording) -> str:
    return "".join(segment.text for segment in found.segments["transcribe"])


def check_times(found: Recording) -> None:
    """Every segment stands behind the one before it, and inside of the recording."""
    segments = found.segments["transcribe"]
    assert all(before.end_s <= after.start_s for before, after in pairwise(segments))
    assert all(0 <= each.start_s <= each.end_s <= found.duration_s for each in segments)


def test_fast_and_accurate_against_the_labels() -> None:
    """A minute of Spanish; the error rates of all ways are printed."""

    async def run() -> tuple[dict[str, WordErrors], Recording]:
        audio, said = session("es", "brisk_0.flac", "nonstop.flac")
        async with engine() as (service, transcribe):
            fast = await transcribe(audio, language="es")
            heard = {"fast": text(fast)}
            for is_conditioned in (False, True):
                name = "with text before" if is_conditioned else "without"
                options = FileOptions(language="es", condition_on_previous_text=is_conditioned)
                parts = [segment.text async for segment in service.transcribe_file(audio, options)]
                heard[f"sequential, {name}"] = "".join(parts)
            heard["accurate, without"] = text(
                await transcribe(audio, language="es", mode="accurate", condition_on_previous_text=False)
            )
        return {name: word_errors(said, found) for name, found in heard.items()}, fast

    errors, fast = asyncio.run(run())
    print()
    for name, found in errors.items():
        print(f"  {name:30} {100 * found.rate:6.2f} % of {found.reference_words} words")
    best = min(found.rate for name, found in errors.items() if name.startswith("sequential"))
    assert errors["fast"].reference_words > 150
    assert errors["fast"].rate <= best + MARGIN
    assert errors["accurate, without"].rate <= best + 2 * MARGIN
    check_times(fast)
    assert fast.warnings == ()
    words = [word for segment in fast.segments["transcribe"] for word in segment.words]
    assert all(word.tokens for word in words)


def test_a_recording_in_two_languages_is_in_that_of_most_of_it() -> None:
    async def run() -> Recording:
        spanish, _ = session("es", "a_es.wav")
        english, _ = session("en", ".wav")
        async with engine() as (_, transcribe):
            return await transcribe(np.concatenate([spanish, english]))

    found = asyncio.run(run())
    _, said = session("en", ".wav")
    assert found.language == "en"
    assert 0.8 < found.language_probability < 0.98
    assert word_errors(said, text(found)).deletions == 0
    check_times(found)
