"""What a load test says: figures per stream, figures of the run, and whether it counts at all.

Pure: knows no socket, no clock and no file. Definitions of latencies stand in `realtime.client.latency` (words)
and `bench.utterances`, those of flicker in `bench.stability`. A word is *right* if the alignment finds it; it is
*covered* if anything stands in its place in the final text, right or wrong, and covered on the screen if it
is that or was ever shown right. Coverage tells what a server loses, which is not what its model misunderstands:
it is a share of the words for which the same model hears anything offline (`bench.offline`; without that, of
all words), and the word error rate, live less offline, tells the rest. Invariant: a run counts only if the
driver was on time and every stream came to its end; otherwise its latencies are those of the driver, or of the
survivors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.clients import ClientPlan, RawStream
from bench.collect import collect
from bench.expect import Expected
from bench.stability import Stability, stability
from bench.utterances import utterance_times
from engine.types import SAMPLE_RATE_HZ
from engine.wer import WordErrors
from realtime.client.latency import percentile, word_times

__all__ = [
    "LATE_S",
    "MAX_OWN_LATENESS_S",
    "Spread",
    "StreamFigures",
    "Summary",
    "measure_stream",
    "spread",
    "summarise",
]

MAX_OWN_LATENESS_S = 0.050
"""A driver later than this measures itself: a twentieth of the latencies that matter here."""
LATE_S = 3.0
"""A word that takes longer than this to appear is late: the speaker is a sentence ahead."""


@dataclass(frozen=True)
class Spread:
    """Percentiles of `n` latencies in seconds (None if there are none); `absent`: how many never came."""

    n: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    absent: int = 0


@dataclass(frozen=True)
class StreamFigures:
    """One client.

    `shown_after_s` and `final_after_s` count from the end of a word's sound to the moment it was shown or
    final; those of the utterances are None where the word never came. `shown` and `final` are how many of
    the words said were ever shown right, and are right in the final text; `missing_tail` how many are not right at
    the very end. Of the `expected` words, `covered_shown` and `covered_final` are covered on the screen and in the
    final text. `offline_errors` is None without an offline transcript. `mutated` and `overlapping` count
    completed segments (`bench.collect`).
    """

    name: str
    language: str
    chunk_ms: float
    audio_s: float
    sent_samples: int
    words: int
    shown: int
    final: int
    expected: int
    covered_shown: int
    covered_final: int
    errors: WordErrors
    offline_errors: int | None
    missing_tail: int
    shown_after_s: tuple[float, ...]
    final_after_s: tuple[float, ...]
    first_partial_s: tuple[float | None, ...]
    end_to_final_s: tuple[float | None, ...]
    ttfs_s: tuple[float | None, ...]
    stability: Stability
    finish_s: float
    blocked_s: float
    own_lateness_s: float
    mutated: int
    overlapping: int
    error: str | None


@dataclass(frozen=True)
class Summary:
    """The whole run, latencies pooled over words and utterances; it counts if `void_because` is empty.

    `right_shown` and `right_final` are shares of the words, the coverages of the expected words; `offline_wer` and
    `wer_gap` (live minus offline) are None without offline transcripts. `broken` streams did not come to their end.
    """

    streams: int
    audio_s: float
    sent_samples: int
    words: int
    right_shown: float
    right_final: float
    coverage_shown: float
    coverage_final: float
    wer: float
    offline_wer: float | None
    wer_gap: float | None
    missing_tail: int
    shown: Spread
    final: Spread
    first_partial: Spread
    end_to_final: Spread
    ttfs: Spread
    shown_late: int
    final_late: int
    stability: Stability
    mutated: int
    overlapping: int
    finish_max_s: float
    blocked_max_s: float
    own_lateness_s: float
    broken: int
    void_because: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """True if the run counts."""
        return not self.void_because

    @property
    def is_driver_late(self) -> bool:
        """True if the latencies are the driver's own."""
        return self.own_lateness_s > MAX_OWN_LATENESS_S


def measure_stream(plan: ClientPlan, raw: RawStream, offline: Expected | None = None) -> StreamFigures:
    """The figures of one stream."""
    gold = plan.playlist.words
    seen = collect(raw.frames)
    matched = word_times(gold, seen.updates, raw.due_s)
    times = utterance_times(matched.words, raw.due_s)
    is_shown = [word.shown_s is not None for word in matched.words]
    is_final = [word.committed_s is not None for word in matched.words]
    is_settled = [word.settled_s is not None for word in matched.words]
    is_expected = offline.heard if offline else (True,) * len(gold)
    tail = next((place for place, final in enumerate(reversed(is_final)) if final), len(is_final))
    return StreamFigures(
        name=raw.name,
        language=plan.playlist.language,
        chunk_ms=1_000 * plan.chunk_samples / SAMPLE_RATE_HZ,
        audio_s=plan.playlist.audio_s,
        sent_samples=raw.sent_samples,
        words=len(gold),
        shown=sum(is_shown),
        final=sum(is_final),
        expected=sum(is_expected),
        covered_shown=_both(
            is_expected, [shown or settled for shown, settled in zip(is_shown, is_settled, strict=True)]
        ),
        covered_final=_both(is_expected, is_settled),
        errors=matched.errors,
        offline_errors=offline.errors if offline else None,
        missing_tail=tail,
        shown_after_s=matched.shown_after_s,
        final_after_s=matched.final_after_s,
        first_partial_s=times.first_partial_s,
        end_to_final_s=times.end_to_final_s,
        ttfs_s=times.ttfs_s,
        stability=stability(seen.updates),
        finish_s=raw.finish_s,
        blocked_s=raw.blocked_s,
        own_lateness_s=raw.own_lateness_s,
        mutated=seen.mutated,
        overlapping=seen.overlapping,
        error=raw.error and (seen.refusal or raw.error),
    )


def spread(values_s: Iterable[float | None]) -> Spread:
    """Percentiles of latencies."""
    values = list(values_s)
    known = [value for value in values if value is not None]
    return Spread(
        len(known),
        percentile(known, 0.5),
        percentile(known, 0.95),
        max(known, default=None),
        len(values) - len(known),
    )


def summarise(streams: Sequence[StreamFigures]) -> Summary:
    """All streams together: latencies pooled over words, errors added up."""
    errors = sum((stream.errors for stream in streams), WordErrors())
    words = sum(stream.words for stream in streams)
    offline_errors = _sum(stream.offline_errors for stream in streams)
    offline_wer = None if offline_errors is None else offline_errors / max(1, words)
    expected = sum(stream.expected for stream in streams)
    shown_s = [value for stream in streams for value in stream.shown_after_s]
    final_s = [value for stream in streams for value in stream.final_after_s]
    own_lateness_s = max((stream.own_lateness_s for stream in streams), default=0.0)
    return Summary(
        streams=len(streams),
        audio_s=sum(stream.audio_s for stream in streams),
        sent_samples=sum(stream.sent_samples for stream in streams),
        words=words,
        right_shown=_share(sum(stream.shown for stream in streams), words),
        right_final=_share(sum(stream.final for stream in streams), words),
        coverage_shown=_share(sum(stream.covered_shown for stream in streams), expected),
        coverage_final=_share(sum(stream.covered_final for stream in streams), expected),
        wer=errors.rate,
        offline_wer=offline_wer,
        wer_gap=None if offline_wer is None else errors.rate - offline_wer,
        missing_tail=sum(stream.missing_tail for stream in streams),
        shown=spread(shown_s),
        final=spread(final_s),
        first_partial=spread(value for stream in streams for value in stream.first_partial_s),
        end_to_final=spread(value for stream in streams for value in stream.end_to_final_s),
        ttfs=spread(value for stream in streams for value in stream.ttfs_s),
        shown_late=sum(value > LATE_S for value in shown_s),
        final_late=sum(value > LATE_S for value in final_s),
        stability=sum((stream.stability for stream in streams), Stability()),
        mutated=sum(stream.mutated for stream in streams),
        overlapping=sum(stream.overlapping for stream in streams),
        finish_max_s=max((stream.finish_s for stream in streams), default=0.0),
        blocked_max_s=max((stream.blocked_s for stream in streams), default=0.0),
        own_lateness_s=own_lateness_s,
        broken=sum(stream.error is not None for stream in streams),
        void_because=tuple(_faults(streams, own_lateness_s)),
    )


def _faults(streams: Sequence[StreamFigures], own_lateness_s: float) -> list[str]:
    faults = [f"{stream.name}: {stream.error}" for stream in streams if stream.error is not None]
    if not streams:
        faults.append("no stream was run")
    if own_lateness_s > MAX_OWN_LATENESS_S:
        faults.append(
            f"the driver itself was {1_000 * own_lateness_s:.0f} ms late (limit {1_000 * MAX_OWN_LATENESS_S:.0f} ms)"
        )
    return faults


def _both(one: Sequence[bool], other: Sequence[bool]) -> int:
    return sum(a and b for a, b in zip(one, other, strict=True))


def _sum(values: Iterable[int | None]) -> int | None:
    """The sum; None if any is."""
    known = list(values)
    return None if not known or None in known else sum(value for value in known if value is not None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
