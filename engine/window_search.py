"""How the text of a window is searched for: what is tried, what is doubted, and which try is kept.

Two policies share the code: live windows have a fixed one per job class, windows of recordings bring their own
`SearchOptions`. Knows a model by its calls; the parent uses `check_search`, `is_loop` and `n_rows` alone.
Stateless.

Invariants: only doubtful rows are decoded again, from the same encoder output; the first try that is beyond
doubt is the last; a window has at most as many tries as its temperatures and two more, and none of them but the first
begins once the batch has taken LADDER_S; what has been tried by then is kept like any other try.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.clock import Clock
from engine.errors import BadInputError, EngineFailedError
from engine.types import FileSegment, JobClass, SearchOptions, WindowResult
from engine.window_model import DecodeOptions, DecodeRequest, DecodeResult, EncodedT, WindowModel

__all__ = [
    "LADDER_S",
    "MAX_SEARCH_WIDTH",
    "MAX_TEMPERATURES",
    "Policy",
    "best_of_tries",
    "check_search",
    "decode_rows",
    "is_doubtful",
    "is_loop",
    "is_silence",
    "n_rows",
    "policy_of",
]

MAX_SEARCH_WIDTH = 64
"""Beams, or samples, of one window: as many rows as a whole batch has on a GPU."""
MAX_TEMPERATURES = 16
"""Temperatures to be tried one after the other; the usual list has six."""
LADDER_S = 8.0
"""How long after a batch began its doubtful texts are tried again. All tries run in one call of the engine, whose
process is replaced after 30 s by default: a try that has begun by then has 22 s left. Where a try takes a second, as
many are begun as the usual list of temperatures has."""
FALLBACK_NGRAM = 4
"""A loop is tried again without repeating this many tokens: unlike sampling, the same every time. Measured on the
loops of the demo model (36 words): 19 errors, sampled 130, not tried again 87."""


@dataclass(frozen=True)
class Policy:
    """A search, and what live windows do differently.

    `samples_loops`: a loop that cannot be undone by forbidding repetition is sampled like any doubtful text.
    `drops_silence`: a text that is judged silence is dropped; live text has its own rules for that.
    """

    search: SearchOptions
    samples_loops: bool = True
    drops_silence: bool = True


_KEPT = Policy(SearchOptions(beam_size=5, temperatures=(0.0, 0.4)), samples_loops=False, drops_silence=False)
"""Whisper's own thresholds (OpenAI's transcribe.py). What stays is worth a beam (measured: three times the time
to decode), and a second try."""
_LIVE = {
    JobClass.PARTIAL: replace(
        _KEPT,
        search=SearchOptions(
            beam_size=1, temperatures=(0.0,), compression_ratio_threshold=None, logprob_threshold=None
        ),
    ),
    JobClass.FINAL: _KEPT,
    JobClass.FILE: _KEPT,
}
"""A partial is decoded again soon: greedy, and never doubted."""


def policy_of(job_class: JobClass, search: SearchOptions | None) -> Policy:
    """The policy of a window; `search` None: as live windows are searched."""
    return _LIVE[job_class] if search is None else Policy(search)


def n_rows(job_class: JobClass, search: SearchOptions | None) -> int:
    """Rows of the decoder that one window takes in its first try."""
    wanted = policy_of(job_class, search).search
    return wanted.beam_size if wanted.temperatures[0] == 0 else wanted.best_of


def check_search(search: SearchOptions) -> None:
    """Refuse what no model can take; raises BadInputError."""
    for field, width in (("beam_size", search.beam_size), ("best_of", search.best_of)):
        if not 1 <= width <= MAX_SEARCH_WIDTH:
            raise BadInputError(field, width, f"1 to {MAX_SEARCH_WIDTH}")
    if not 0 < search.patience < math.inf:
        raise BadInputError("patience", search.patience, "a number above 0")
    if not math.isfinite(search.length_penalty):
        raise BadInputError("length_penalty", search.length_penalty, "a number")
    if not 1 <= len(search.temperatures) <= MAX_TEMPERATURES:
        raise BadInputError("temperature", search.temperatures, f"1 to {MAX_TEMPERATURES} temperatures")
    for temperature in search.temperatures:
        if not 0 <= temperature < math.inf:
            raise BadInputError("temperature", temperature, "numbers from 0 on")


def is_loop(result: DecodeResult | WindowResult | FileSegment, search: SearchOptions = _KEPT.search) -> bool:
    """True if the model repeated itself."""
    threshold = search.compression_ratio_threshold
    return threshold is not None and result.compression_ratio > threshold


def _is_unsure(result: DecodeResult, search: SearchOptions) -> bool:
    return search.logprob_threshold is not None and result.avg_logprob < search.logprob_threshold


def is_silence(result: DecodeResult, search: SearchOptions) -> bool:
    """True if the model neither believes its text nor that anybody spoke; False unless both have a threshold."""
    threshold = search.no_speech_threshold
    return threshold is not None and result.no_speech_prob > threshold and _is_unsure(result, search)


def is_doubtful(result: DecodeResult, search: SearchOptions = _KEPT.search) -> bool:
    """True for a loop or for a text that the model does not believe; silence is not worth a second try."""
    return (_is_unsure(result, search) or is_loop(result, search)) and not is_silence(result, search)


def best_of_tries(tries: Sequence[DecodeResult], search: SearchOptions) -> DecodeResult:
    """The last try if it is beyond doubt (others would have followed), else the least bad of all."""
    if not is_doubtful(tries[-1], search):
        return tries[-1]
    return max(tries, key=lambda each: (not is_loop(each, search), each.avg_logprob))


def decode_rows(
    model: WindowModel[EncodedT],
    encoded: EncodedT,
    requests: Sequence[DecodeRequest],
    policy: Policy,
    max_new_tokens: int,
    clock: Clock,
    began_s: float,
) -> list[list[DecodeResult]]:
    """All tries per request, in order: doubtful texts are tried without context, then in other ways.

    `began_s` is when, by the clock, the batch began: its first try is made in any case, others within LADDER_S.
    Raises EngineFailedError if a score is no number.
    """
    search = policy.search
    first, *others = search.temperatures
    options = _options(search, first, max_new_tokens)
    tries = [[result] for result in _decode_once(model, encoded, requests, options)]

    def again(rows: Iterable[int], how: DecodeOptions) -> None:
        doubtful = [row for row in rows if is_doubtful(tries[row][-1], search)]
        if doubtful and clock.now_s() - began_s < LADDER_S:
            results = _decode_once(model, encoded, [alone[row] for row in doubtful], how)
            for row, result in zip(doubtful, results, strict=True):
                tries[row].append(result)

    # A loop is most often copied from the previous text.
    alone = [replace(request, context=(), prompt="", hotwords="") for request in requests]
    again((row for row, request in enumerate(requests) if request != alone[row]), options)
    loops = [row for row, results in enumerate(tries) if is_loop(results[-1], search)]
    if first == 0:
        again(loops, replace(options, no_repeat_ngram=FALLBACK_NGRAM))
    sampled = [row for row in range(len(tries)) if policy.samples_loops or row not in loops]
    for temperature in others:
        again(sampled, _options(search, temperature, max_new_tokens))
    return tries


def _options(search: SearchOptions, temperature: float, max_new_tokens: int) -> DecodeOptions:
    return DecodeOptions(
        beam_size=search.best_of if temperature > 0 else search.beam_size,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        patience=search.patience,
        length_penalty=search.length_penalty,
        suppress_tokens=search.suppress_tokens,
    )


def _decode_once(
    model: WindowModel[EncodedT], encoded: EncodedT, requests: Sequence[DecodeRequest], options: DecodeOptions
) -> list[DecodeResult]:
    results = model.decode(encoded, requests, options)
    if not all(math.isfinite(result.avg_logprob) for result in results):
        # From values that are no numbers in the spectrogram; the text is as many exclamation marks as fit.
        raise EngineFailedError("the model's scores are no numbers")
    return [replace(result, temperature=options.temperature) for result in results]
