"""A media file -> a transcribed recording, in memory that does not depend on its length.

    file ─ decoder child ─ blocks ─ voice activity ─ stretches cut in pauses ─ engine ─ words ─ segments

The parts: `recording_reader` and `recording_audio` (worker thread), `recording_cut`, `recording_spans`
(where to cut, what is speech), `recording_decode` (windows through the engine), `recording_fast` and
`recording_accurate` (the two modes), `recording_segments`, `recording_result`. Runs on an event loop that it
shares with live streams. Invariant: when `transcribe_recording` ends, however it ends, nothing of it runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.clock import Clock, MonotonicClock
from engine.decode import MediaSource
from engine.errors import BadInputError
from engine.recording_accurate import transcribe_accurate
from engine.recording_decode import Stopwatch
from engine.recording_fast import transcribe_fast
from engine.recording_reader import BlockDecoder
from engine.recording_result import Collector
from engine.recording_run import RecordingRun
from engine.recording_types import OnProgress, OnSegment, Recording, RecordingOptions
from engine.types import Engine
from engine.vad import SileroDetector, SpeechDetector

__all__ = ["NO_SPEECH", "transcribe_recording"]

NO_SPEECH = "no speech was found"


async def transcribe_recording(
    engine: Engine,
    decoder: BlockDecoder,
    source: MediaSource,
    options: RecordingOptions,
    *,
    max_audio_s: float,
    on_segment: OnSegment | None = None,
    on_progress: OnProgress | None = None,
    clock: Clock | None = None,
    make_detector: Callable[[], SpeechDetector] = SileroDetector,
) -> Recording:
    """Transcribe a file of at most `max_audio_s` seconds.

    `decoder` is an `engine.decode.MediaDecoder`. Where the language has to be found, all of the speech
    decides; with `on_segment` in mode "fast" the first `recording_fast.SETTLE_S` do, so that segments can be told.
    Cancelling ends it at once.

    Raises BadInputError, BadAudioError (DecodeLimitError at a cap), EngineFailedError, DrainingError, and
    AtCapacityError if decoder or engine stay busy with others.
    """
    _check(options)
    clock = clock or MonotonicClock()
    began_s = clock.now_s()
    collector = Collector(options, on_segment, on_progress)
    watch = Stopwatch(clock)
    run = RecordingRun(engine, decoder, source, options, max_audio_s, clock, make_detector, collector, watch)
    outcome = await (transcribe_fast if options.mode == "fast" else transcribe_accurate)(run)
    summary = outcome.reader.summary
    collector.progress(summary.duration_s)
    warnings = (*summary.warnings, *collector.warnings())
    if not outcome.analysis.kept_samples:
        warnings += (NO_SPEECH,)
    probabilities = outcome.vote.probabilities
    return Recording(
        segments={task: tuple(segments) for task, segments in collector.segments.items()},
        language=probabilities[0][0],
        language_probability=probabilities[0][1],
        language_probs=probabilities,
        duration_s=summary.duration_s,
        speech_s=outcome.analysis.kept_s,
        container=summary.container,
        codec=summary.codec,
        warnings=warnings,
        timings_s={
            "decode": outcome.decode_s,
            "vad": outcome.listen_s,
            "model": watch.total_s,
            "total": clock.now_s() - began_s,
        },
    )


def _check(options: RecordingOptions) -> None:
    if options.mode not in ("fast", "accurate"):
        raise BadInputError("mode", options.mode, "fast, accurate")
    if not options.tasks or not set(options.tasks) <= {"transcribe", "translate"}:
        raise BadInputError("tasks", options.tasks, "one or both of transcribe, translate")
    if len(set(options.tasks)) < len(options.tasks):
        raise BadInputError("tasks", options.tasks, "each task once")
    if options.batch_size is not None and options.batch_size < 1:
        raise BadInputError("batch_size", options.batch_size, "1 or more")
    _check_clips(options.clips)


def _check_clips(clips: Sequence[tuple[float, float]]) -> None:
    before_s = 0.0
    for start_s, end_s in clips:
        if not before_s <= start_s < end_s:
            raise BadInputError("clips", (start_s, end_s), "pairs (start, end) in seconds, ascending and apart")
        before_s = end_s
