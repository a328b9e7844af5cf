"""Mode "accurate": faster-whisper's sequential pipeline, block after block.

The pipeline wants a whole recording in memory, with its spectrogram; so it gets blocks, cut in pauses, and the end
of each block's text as prompt of the next. One language for all of it: where none is given, windows from all over
the recording are listened to first.

Invariant: one block per recording is in the engine at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from engine.errors import AtCapacityError
from engine.in_order import run_in_order
from engine.recording_audio import log_mel
from engine.recording_cut import Stretch
from engine.recording_decode import CAPACITY_TRIES, CAPACITY_WAIT_S, WindowDecoder
from engine.recording_language import LanguageVote
from engine.recording_result import placed_segment
from engine.recording_run import Outcome, RecordingRun
from engine.recording_types import Task
from engine.types import DetectResult, FileOptions, FileSegment, FloatArray

__all__ = ["BLOCK_S", "MAX_LANGUAGE_WINDOWS", "transcribe_accurate"]

Item = tuple[Stretch, FloatArray]

BLOCK_S = 120.0
"""Longest block: its spectrogram takes the engine 100 MB. At each of its ends some context is lost."""
READY_BLOCKS = 2
"""One in the engine, one ready for it."""
MAX_LANGUAGE_WINDOWS = 8
"""Windows that are listened to for the language, evenly spread over the recording."""
MAX_PROMPT_CHARS = 200
"""How much of the text before goes along: about 50 tokens of the 223 that fit."""
MAX_PROMPT_TEMPERATURE = 0.5
"""Text that came out at a higher temperature is no good example; faster-whisper has the same limit."""


async def transcribe_accurate(run: RecordingRun) -> Outcome:
    """Transcribe into `run.collector`. Raises what decoder and engine raise."""
    vote = LanguageVote(run.languages())
    decode_s = listen_s = 0.0
    if len(run.languages()) > 1:
        decode_s, listen_s = await _vote(run, vote)
    analysis = run.analysis(BLOCK_S)
    reader = run.reader(analysis, lambda _, samples: samples)
    blocks = _Blocks(run, vote.leader)
    await run_in_order(
        reader.stretches(), blocks.decode, lambda item, _: run.collector.progress(item[0].end_s), READY_BLOCKS
    )
    return Outcome(vote, reader, analysis, decode_s + reader.decode_s, listen_s + reader.listen_s)


async def _vote(run: RecordingRun, vote: LanguageVote) -> tuple[float, float]:
    """Find the language; returns the seconds it took to decode and to prepare."""
    info = run.engine.info
    reader = run.reader(run.analysis(info.file_window_s), lambda _, samples: samples)
    chosen: list[Item] = []
    step, index = 1, 0
    async for item in reader.stretches():
        if index % step == 0 and item[0].speech_s:
            chosen.append(item)
        index += 1
        if len(chosen) > 2 * MAX_LANGUAGE_WINDOWS:
            # Half as many, twice as far apart: how long the recording is, nobody knows yet.
            chosen, step = chosen[::2], 2 * step
    decoder = WindowDecoder(run.engine, run.options, run.languages(), run.n_windows(), run.watch)

    async def detect(item: Item) -> DetectResult:
        return await decoder.detect(await asyncio.to_thread(log_mel, item[1], info.n_mels))

    def deliver(item: Item, found: DetectResult) -> None:
        vote.add(found, item[0].speech_s)

    spread = chosen[:: -(-len(chosen) // MAX_LANGUAGE_WINDOWS) or 1]
    await run_in_order(_each(spread), detect, deliver, MAX_LANGUAGE_WINDOWS)
    return reader.decode_s, reader.listen_s


async def _each(items: list[Item]) -> AsyncGenerator[Item, None]:
    for item in items:
        yield item


class _Blocks:
    """Blocks of one recording, decoded one after the other in the order in which they come."""

    def __init__(self, run: RecordingRun, language: str) -> None:
        self._run = run
        self._language = language
        self._turn = asyncio.Lock()
        self._prompts: dict[Task, str] = dict.fromkeys(run.options.tasks, run.options.prompt)

    async def decode(self, item: Item) -> None:
        """Decode a block for all tasks, and hand its segments on as they come."""
        stretch, samples = item
        async with self._turn:
            for task in self._run.options.tasks:
                await self._decode(stretch, samples, task)
            self._run.collector.look(stretch)

    async def _decode(self, stretch: Stretch, samples: FloatArray, task: Task) -> None:
        text, temperature = "", 0.0
        with self._run.watch:
            segments = self._patient(samples, task)
            try:
                async for segment in segments:
                    self._run.collector.add_segment(task, placed_segment(segment, stretch, self._language))
                    text, temperature = (text + segment.text)[-MAX_PROMPT_CHARS:], segment.temperature
            finally:
                await segments.aclose()
        if self._run.takes_previous_text:
            self._prompts[task] = text if temperature <= MAX_PROMPT_TEMPERATURE else ""

    async def _patient(self, samples: FloatArray, task: Task) -> AsyncGenerator[FileSegment, None]:
        """The segments of a block; waits its turn while the engine has too many recordings open."""
        options = self._run.options
        how = FileOptions(
            language=self._language,
            task=task,
            search=options.search,
            condition_on_previous_text=self._run.takes_previous_text,
            word_timestamps=options.word_timestamps,
            prompt=self._prompts[task],
            hotwords=options.hotwords,
        )
        for left in range(CAPACITY_TRIES - 1, -1, -1):
            segments = self._run.engine.transcribe_file(samples, how)
            try:
                async for segment in segments:
                    left = 0  # what has begun is not begun again
                    yield segment
                return
            except AtCapacityError:
                if not left:
                    raise
            finally:
                await _close(segments)
            await asyncio.sleep(CAPACITY_WAIT_S)


async def _close(segments: AsyncIterator[FileSegment]) -> None:
    close = getattr(segments, "aclose", None)
    if close is not None:
        await close()
