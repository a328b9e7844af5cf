"""Latencies of utterances: from their first word, and from the end of speech.

Pure. An utterance is a run of gold words without a pause of at least so many seconds. All times are
from the labels, mapped to the client's clock, so no detector's delay hides in them:

* First partial: from the *start* of an utterance's first word to the first message that shows this
  word. Utterances are divided at pauses of FIRST_PARTIAL_PAUSE_S; the stream's first word always begins
  one. A first word that was never shown right has no latency.
* End of speech to final: from the *end* of an utterance's last word to the message that completes this
  word. Utterances end at pauses of END_PAUSE_S or with the audio. A last word that was never
  completed right has no latency.
* TTFS, as pipecat's stt-benchmark defines it (docs/measuring-ttfs.md there): "time to final segment" is
  the receipt of the last segment of the final transcript less the end of speech, which there is the
  stop event of Silero's detector less its 0.2 s of waiting. There as here the words need not be
  right. Ours differs in three ways: the end of speech is the label's; the utterances are those
  above, inside one continuous stream, instead of separate clips followed by silence; and the last segment is the one
  that completes the last word aligned with any word of the utterance. Utterances of which nothing was
  completed have no TTFS (there: samples without a transcript have none). A final that came before the
  label's end counts as negative (there it is left out).

Invariant: every utterance has exactly one entry, a latency or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from realtime.client.latency import GoldWord, WordTimes

__all__ = ["END_PAUSE_S", "FIRST_PARTIAL_PAUSE_S", "UtteranceTimes", "utterance_times", "utterances"]

FIRST_PARTIAL_PAUSE_S = 0.5
"""A pause after which a listener waits for new text to begin."""
END_PAUSE_S = 0.8
"""A pause that ends a turn: longer than those within sentences."""


@dataclass(frozen=True)
class UtteranceTimes:
    """Seconds, one entry per utterance; None where the word in question never came."""

    first_partial_s: tuple[float | None, ...]
    end_to_final_s: tuple[float | None, ...]
    ttfs_s: tuple[float | None, ...]


def utterances(gold: Sequence[GoldWord], pause_s: float) -> tuple[range, ...]:
    """Places of the words of each utterance; a pause of exactly `pause_s` divides."""
    begins = [place for place in range(len(gold)) if place == 0 or _gap_s(gold, place) >= pause_s]
    return tuple(map(range, begins, [*begins[1:], len(gold)]))


def utterance_times(words: Sequence[WordTimes], due_s: Callable[[float], float]) -> UtteranceTimes:
    """The latencies of one stream; `due_s` maps seconds of audio to the client's clock."""
    gold = [item.word for item in words]
    first_partial, end_to_final, ttfs = [], list[float | None](), list[float | None]()
    for places in utterances(gold, FIRST_PARTIAL_PAUSE_S):
        first = words[places[0]]
        first_partial.append(_since(due_s(first.word.start_s), first.shown_s))
    for places in utterances(gold, END_PAUSE_S):
        last = words[places[-1]]
        end_s = due_s(last.word.end_s)
        settled = [words[place].settled_s for place in places]
        end_to_final.append(_since(end_s, last.committed_s))
        ttfs.append(_since(end_s, max((at_s for at_s in settled if at_s is not None), default=None)))
    return UtteranceTimes(tuple(first_partial), tuple(end_to_final), tuple(ttfs))


def _gap_s(gold: Sequence[GoldWord], place: int) -> float:
    # Labels are milliseconds; sums of them carry rounding errors.
    return round(gold[place].start_s - gold[place - 1].end_s, 6)


def _since(begin_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else at_s - begin_s
