"""What a load test says: figures per stream, figures of the run, and whether it counts at all.

Pure: knows no socket, no clock and no file. Invariant: a run counts only if the driver was on time and
every stream came to its end; otherwise its latencies are those of the driver, or of the survivors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.wer import WordErrors
from realtime.client.latency import GoldWord, percentile, word_times
from realtime.client.measured import Streamed

__all__ = [
    "LATE_S",
    "MAX_OWN_LATENESS_S",
    "SCHEMA",
    "Spread",
    "StreamFigures",
    "Summary",
    "as_json",
    "failed_stream",
    "measure_stream",
    "spread",
    "summarise",
]

MAX_OWN_LATENESS_S = 0.050
"""A driver later than this measures itself: a twentieth of the latencies that matter here."""
LATE_S = 3.0
"""A word that takes longer than this to appear is late: the speaker is a sentence ahead."""
SCHEMA = 1
"""Version of the JSON shape."""


@dataclass(frozen=True)
class Spread:
    """Percentiles of `n` latencies in seconds; None if there are none."""

    n: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None


@dataclass(frozen=True)
class StreamFigures:
    """One client. Lateness counts from the end of a word's sound to the moment it was shown or final.

    `coverage` is the share of the words said that are final and right; `missing_tail` counts the words
    missing at the very end.
    """

    name: str
    audio_s: float
    words: int
    coverage: float
    errors: WordErrors
    missing_tail: int
    shown_after_s: tuple[float, ...]
    final_after_s: tuple[float, ...]
    finish_s: float
    blocked_s: float
    own_lateness_s: float
    violations: int
    error: str | None


@dataclass(frozen=True)
class Summary:
    """The whole run; `void_because` is empty if it counts."""

    streams: int
    audio_s: float
    words: int
    coverage: float
    wer: float
    missing_tail: int
    violations: int
    shown: Spread
    final: Spread
    shown_late: int
    final_late: int
    finish_max_s: float
    own_lateness_s: float
    void_because: tuple[str, ...]

    @property
    def is_valid(self) -> bool:
        """True if the run counts."""
        return not self.void_because


def measure_stream(name: str, gold: Sequence[GoldWord], streamed: Streamed, audio_s: float) -> StreamFigures:
    """The figures of one stream of which `gold` was said."""
    matched = word_times(gold, streamed.updates, streamed.due_s)
    is_final = [item.committed_s is not None for item in matched.words]
    tail = next((place for place, final in enumerate(reversed(is_final)) if final), len(is_final))
    return StreamFigures(
        name=name,
        audio_s=audio_s,
        words=len(gold),
        coverage=sum(is_final) / len(gold) if gold else 1.0,
        errors=matched.errors,
        missing_tail=tail,
        shown_after_s=matched.shown_after_s,
        final_after_s=matched.final_after_s,
        finish_s=streamed.finish_s,
        blocked_s=streamed.blocked_s,
        own_lateness_s=streamed.own_lateness_s,
        violations=streamed.violations,
        error=streamed.error,
    )


def failed_stream(name: str, gold: Sequence[GoldWord], audio_s: float, error: str) -> StreamFigures:
    """The figures of a stream that never began."""
    nothing = WordErrors(deletions=len(gold), reference_words=len(gold))
    return StreamFigures(name, audio_s, len(gold), 0.0, nothing, len(gold), (), (), 0.0, 0.0, 0.0, 0, error)


def spread(values_s: Sequence[float]) -> Spread:
    """Percentiles of latencies."""
    return Spread(len(values_s), percentile(values_s, 0.5), percentile(values_s, 0.95), max(values_s, default=None))


def summarise(streams: Sequence[StreamFigures]) -> Summary:
    """All streams together: latencies pooled over words, errors added up."""
    errors = sum((stream.errors for stream in streams), WordErrors())
    words = sum(stream.words for stream in streams)
    covered = sum(stream.coverage * stream.words for stream in streams)
    shown_s = [value for stream in streams for value in stream.shown_after_s]
    final_s = [value for stream in streams for value in stream.final_after_s]
    own_lateness_s = max((stream.own_lateness_s for stream in streams), default=0.0)
    return Summary(
        streams=len(streams),
        audio_s=sum(stream.audio_s for stream in streams),
        words=words,
        coverage=covered / words if words else 1.0,
        wer=errors.rate,
        missing_tail=sum(stream.missing_tail for stream in streams),
        violations=sum(stream.violations for stream in streams),
        shown=spread(shown_s),
        final=spread(final_s),
        shown_late=sum(value > LATE_S for value in shown_s),
        final_late=sum(value > LATE_S for value in final_s),
        finish_max_s=max((stream.finish_s for stream in streams), default=0.0),
        own_lateness_s=own_lateness_s,
        void_because=tuple(_faults(streams, own_lateness_s)),
    )


def as_json(summary: Summary, streams: Sequence[StreamFigures], conditions: dict[str, Any]) -> dict[str, Any]:
    """A JSON document: how the run was made, its summary, each stream with its spreads."""
    return {
        "schema": SCHEMA,
        "conditions": conditions,
        "summary": {**asdict(summary), "is_valid": summary.is_valid},
        "streams": [
            {
                **asdict(stream),
                "wer": stream.errors.rate,
                "shown_after_s": asdict(spread(stream.shown_after_s)),
                "final_after_s": asdict(spread(stream.final_after_s)),
            }
            for stream in streams
        ],
    }


def _faults(streams: Sequence[StreamFigures], own_lateness_s: float) -> list[str]:
    faults = [f"{stream.name}: {stream.error}" for stream in streams if stream.error is not None]
    if not streams:
        faults.append("no stream was run")
    if own_lateness_s > MAX_OWN_LATENESS_S:
        faults.append(
            f"the driver itself was {1_000 * own_lateness_s:.0f} ms late (limit {1_000 * MAX_OWN_LATENESS_S:.0f} ms)"
        )
    return faults
