"""Mode "fast": the stretches of a recording are decoded side by side.

Where the language is not given, each stretch is first decoded in the language that it sounds like; what most of
the speech is in is known at the end, and the stretches that were taken for something else are decoded again.
Their audio is kept for that as far as MAX_HELD_WINDOWS goes; beyond, the file is read a second time. Whoever
wants segments as they come does not wait for the end: then what SETTLE_S of speech are in decides.

Invariant: results are used in the order of the recording.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engine.in_order import run_in_order
from engine.recording_audio import Rereading, log_mel
from engine.recording_cut import Stretch
from engine.recording_decode import Heard, WindowDecoder
from engine.recording_language import LanguageVote
from engine.recording_reader import Reader
from engine.recording_run import Outcome, RecordingRun
from engine.types import FRAMES_PER_SECOND, MAX_FRAMES, FloatArray

__all__ = ["MAX_HELD_WINDOWS", "transcribe_fast"]

Item = tuple[Stretch, FloatArray]

MAX_HELD_WINDOWS = 32
"""Windows whose spectrogram is kept until the language is known: 48 MB at 128 mel bands, 16 minutes of speech."""
SETTLE_S = 30.0
"""Speech after which a recording's language is settled for those who are told segments as they come."""
UNSETTLED_AHEAD = 4
"""Windows in work until then: more would only delay the first segment."""
PREPARED = 2
"""Windows that are ready or in the engine, per window in the engine."""


async def transcribe_fast(run: RecordingRun) -> Outcome:
    """Transcribe into `run.collector`. Raises what decoder and engine raise."""
    languages = run.languages()
    info = run.engine.info
    analysis = run.analysis(min(info.file_window_s, MAX_FRAMES / FRAMES_PER_SECOND))
    reader = run.reader(analysis, lambda _, samples: log_mel(samples, info.n_mels))
    outcome = Outcome(LanguageVote(languages), reader, analysis)
    decoder = WindowDecoder(run.engine, run.options, languages, run.n_windows(), run.watch)
    if len(languages) == 1:
        await _decode_known(run, decoder, reader.stretches(), languages[0])
    else:
        await _decode_unknown(run, decoder, outcome, reader)
    outcome.decode_s += reader.decode_s
    outcome.listen_s += reader.listen_s
    return outcome


async def _decode_known(
    run: RecordingRun, decoder: WindowDecoder, items: AsyncGenerator[Item, None], language: str
) -> None:
    def deliver(item: Item, heard: Heard) -> None:
        run.collector.add_heard(heard, language)
        run.collector.progress(item[0].end_s)

    await run_in_order(items, lambda item: decoder.decode(*item, language), deliver, PREPARED * run.n_windows())


class _Undecided:
    """Results whose language may turn out to be another one than the recording's."""

    def __init__(self, vote: LanguageVote) -> None:
        self.heard: list[Heard] = []
        self.held: dict[int, FloatArray] = {}
        self._vote = vote

    def add(self, heard: Heard, mel: FloatArray) -> None:
        """Take the next result, and the spectrogram that it comes from."""
        index = len(self.heard)
        self.heard.append(heard)
        if not heard.has_words:
            if heard.stretch.speech_s:
                self._hold(index, mel)
            return
        self._vote.add(heard.language_probs, heard.stretch.speech_s)
        self._hold(index, mel)

    def _hold(self, index: int, mel: FloatArray) -> None:
        self.held[index] = mel
        if len(self.held) > MAX_HELD_WINDOWS:
            # What is in the leading language will hardly be decoded again.
            leader = self._vote.leader
            likely = (each for each in self.held if self.heard[each].language == leader)
            del self.held[next(likely, index)]

    def wrong(self) -> list[int]:
        """Those that were decoded in another language than the recording's, and hold speech."""
        leader = self._vote.leader
        return [
            index
            for index, heard in enumerate(self.heard)
            if heard.language != leader and (heard.has_words or heard.stretch.speech_s)
        ]


async def _decode_unknown(
    run: RecordingRun, decoder: WindowDecoder, outcome: Outcome, reader: Reader[FloatArray]
) -> None:
    undecided = _Undecided(outcome.vote)
    settle_s = SETTLE_S if run.collector.is_told else math.inf

    max_items = MAX_HELD_WINDOWS if run.collector.is_told else math.inf  # so that all of them are still held

    async def until_settled(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
        n_items = 0
        while outcome.vote.speech_s < settle_s and n_items < max_items:
            if (item := await anext(items, None)) is None:
                return
            n_items += 1
            yield item

    def deliver(item: Item, heard: Heard) -> None:
        undecided.add(heard, item[1])
        run.collector.progress(item[0].end_s)

    # Whoever is told waits for all that were begun before the decision.
    n_ahead = UNSETTLED_AHEAD if run.collector.is_told else PREPARED * run.n_windows()
    async with aclosing(reader.stretches()) as stretches:
        await run_in_order(until_settled(stretches), lambda item: decoder.decode(*item, None), deliver, n_ahead)
        await _decode_again(run, decoder, outcome, undecided)
        for heard in undecided.heard:
            run.collector.add_heard(heard, outcome.vote.leader)
            await asyncio.sleep(0)  # hours of segments at once would hold up live streams
        await _decode_known(run, decoder, stretches, outcome.vote.leader)


async def _decode_again(run: RecordingRun, decoder: WindowDecoder, outcome: Outcome, undecided: _Undecided) -> None:
    language = outcome.vote.leader
    wrong = undecided.wrong()
    held = [index for index in wrong if index in undecided.held]
    gone = [index for index in wrong if index not in undecided.held]
    order = iter([*held, *gone])

    def deliver(item: Item, heard: Heard) -> None:
        undecided.heard[next(order)] = heard

    items = [(undecided.heard[index].stretch, undecided.held[index]) for index in held]
    missing = [undecided.heard[index].stretch for index in gone]
    undecided.held.clear()
    await run_in_order(
        _again(run, outcome, items, missing),
        lambda item: decoder.decode(*item, language),
        deliver,
        PREPARED * run.n_windows(),
    )


async def _again(
    run: RecordingRun, outcome: Outcome, items: Sequence[Item], missing: Sequence[Stretch]
) -> AsyncGenerator[Item, None]:
    """What is held, then what has to be read again."""
    for item in items:
        yield item
    if not missing:
        return
    n_mels = run.engine.info.n_mels
    reader = run.reader(Rereading(missing), lambda _, samples: log_mel(samples, n_mels))
    async with aclosing(reader.stretches()) as stretches:
        async for item in stretches:
            yield item
    outcome.decode_s += reader.decode_s
    outcome.listen_s += reader.listen_s
