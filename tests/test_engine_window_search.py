"""engine/window_search.py over a model without weights: windows of recordings that bring their own search."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.batching import batch_key
from engine.errors import BadInputError, EngineFailedError
from engine.types import BatchResult, FloatArray, JobClass, SearchOptions, WindowJob, WindowResult
from engine.window_decode import check_job, decode_batch
from engine.window_model import DecodeOptions, DecodeRequest, DecodeResult
from engine.window_search import LADDER_S, MAX_SEARCH_WIDTH, MAX_TEMPERATURES, is_silence, n_rows
from tests.fakes.clock import ManualClock
from tests.fakes.model import COSTS_S, FAKE_MODEL_INFO, FakeEncoded, FakeModel, written

GOOD = written(2)
LOOP = written(3, compression_ratio=2.5)
UNSURE = written(4, avg_logprob=-1.5)
SILENT = written(5, avg_logprob=-1.5, no_speech_prob=0.9)
USUAL = SearchOptions()
ONCE = SearchOptions(temperatures=(0.0,))


def job(search: SearchOptions | None = USUAL, **more: Any) -> WindowJob:
    mel = np.zeros((80, 200), dtype=np.float32)
    return WindowJob(**{"stream": "a", "job_class": JobClass.FILE, "mel": mel, "language": "en", **more}, search=search)


def scripted(*rows: list[DecodeResult]) -> FakeModel:
    model = FakeModel()
    model.script = {row: deque(results) for row, results in enumerate(rows)}
    return model


def decode(model: FakeModel, *jobs: WindowJob) -> BatchResult:
    return decode_batch(model, FAKE_MODEL_INFO, jobs, ManualClock())


def decode_one(model: FakeModel, one: WindowJob) -> WindowResult:
    [result] = decode(model, one).results
    return result


def tried(model: FakeModel) -> list[tuple[float, int, int]]:
    """(temperature, beams or samples, forbidden repetition) of each call."""
    return [(how.temperature, how.beam_size, how.no_repeat_ngram) for _, how in model.arguments("decode")]


# Options


def test_the_search_of_a_window_reaches_the_decoder() -> None:
    model = FakeModel()
    search = SearchOptions(beam_size=3, patience=1.5, length_penalty=0.5, suppress_tokens=(-1, 7))
    decode(model, job(search), job(search))
    [(_, options)] = model.arguments("decode")
    assert options == DecodeOptions(3, 67, patience=1.5, length_penalty=0.5, suppress_tokens=(-1, 7))


def test_without_a_search_windows_of_recordings_are_searched_as_finals() -> None:
    tries = [LOOP, UNSURE, UNSURE]
    final, file = scripted(list(tries)), scripted(list(tries))
    assert decode_one(final, job(None, job_class=JobClass.FINAL)) == decode_one(file, job(None))
    assert final.arguments("decode") == file.arguments("decode")
    assert tried(file) == [(0.0, 5, 0), (0.0, 5, 4)]


def test_windows_of_different_searches_share_no_batch() -> None:
    greedy = replace(USUAL, beam_size=1)
    assert batch_key(job(), FAKE_MODEL_INFO) == batch_key(job(SearchOptions()), FAKE_MODEL_INFO)
    assert batch_key(job(), FAKE_MODEL_INFO) != batch_key(job(greedy), FAKE_MODEL_INFO)
    with pytest.raises(EngineFailedError, match="differ"):
        decode(FakeModel(), job(), job(greedy))


@pytest.mark.parametrize(
    ("search", "rows"),
    [(None, 5), (USUAL, 5), (replace(USUAL, beam_size=2), 2), (replace(USUAL, temperatures=(0.5,), best_of=7), 7)],
)
def test_what_a_window_takes_of_the_decoder(search: SearchOptions | None, rows: int) -> None:
    assert n_rows(JobClass.FILE, search) == rows


@pytest.mark.parametrize(
    "legal",
    [
        replace(USUAL, beam_size=MAX_SEARCH_WIDTH, best_of=1),
        replace(USUAL, beam_size=1, best_of=MAX_SEARCH_WIDTH),
        replace(USUAL, temperatures=(0.5,) * MAX_TEMPERATURES),
        replace(USUAL, patience=0.1, length_penalty=-1.0),
    ],
)
def test_a_search_within_its_limits_is_let_in(legal: SearchOptions) -> None:
    check_job(job(legal), FAKE_MODEL_INFO)


@pytest.mark.parametrize(
    ("illegal", "field"),
    [
        (replace(USUAL, beam_size=0), "beam_size"),
        (replace(USUAL, beam_size=MAX_SEARCH_WIDTH + 1), "beam_size"),
        (replace(USUAL, best_of=0), "best_of"),
        (replace(USUAL, best_of=MAX_SEARCH_WIDTH + 1), "best_of"),
        (replace(USUAL, patience=0.0), "patience"),
        (replace(USUAL, length_penalty=float("nan")), "length_penalty"),
        (replace(USUAL, temperatures=()), "temperature"),
        (replace(USUAL, temperatures=(0.5,) * (MAX_TEMPERATURES + 1)), "temperature"),
        (replace(USUAL, temperatures=(0.0, -0.1)), "temperature"),
        (replace(USUAL, temperatures=(float("nan"),)), "temperature"),
    ],
)
def test_a_search_beyond_its_limits_is_refused(illegal: SearchOptions, field: str) -> None:
    with pytest.raises(BadInputError, match=f"^{field}: "):
        check_job(job(illegal), FAKE_MODEL_INFO)


# What is tried again, and how often


@pytest.mark.parametrize(
    ("search", "tries", "calls"),
    [
        (USUAL, [GOOD], [(0.0, 5, 0)]),
        (USUAL, [UNSURE, GOOD], [(0.0, 5, 0), (0.2, 5, 0)]),
        (USUAL, [UNSURE, LOOP, UNSURE, GOOD], [(0.0, 5, 0), (0.2, 5, 0), (0.4, 5, 0), (0.6, 5, 0)]),
        (USUAL, [LOOP, GOOD], [(0.0, 5, 0), (0.0, 5, 4)]),
        (USUAL, [LOOP, LOOP, GOOD], [(0.0, 5, 0), (0.0, 5, 4), (0.2, 5, 0)]),
        (USUAL, [LOOP] * 6 + [GOOD], [(0.0, 5, 0), (0.0, 5, 4), *((t, 5, 0) for t in (0.2, 0.4, 0.6, 0.8, 1.0))]),
        (ONCE, [UNSURE], [(0.0, 5, 0)]),
        (ONCE, [LOOP, LOOP], [(0.0, 5, 0), (0.0, 5, 4)]),
        (replace(USUAL, temperatures=(0.0, 1.0), best_of=2), [UNSURE, GOOD], [(0.0, 5, 0), (1.0, 2, 0)]),
        (replace(USUAL, temperatures=(0.5,), best_of=2), [LOOP], [(0.5, 2, 0)]),
        (replace(USUAL, temperatures=(0.5, 0.9), best_of=2), [LOOP, GOOD], [(0.5, 2, 0), (0.9, 2, 0)]),
        (USUAL, [SILENT], [(0.0, 5, 0)]),
        (replace(USUAL, compression_ratio_threshold=None), [LOOP], [(0.0, 5, 0)]),
        (replace(USUAL, logprob_threshold=None), [UNSURE], [(0.0, 5, 0)]),
        (replace(USUAL, no_speech_threshold=None), [SILENT, GOOD], [(0.0, 5, 0), (0.2, 5, 0)]),
        (replace(USUAL, compression_ratio_threshold=2.6), [LOOP], [(0.0, 5, 0)]),
        (replace(USUAL, logprob_threshold=-1.6), [UNSURE], [(0.0, 5, 0)]),
    ],
)
def test_doubtful_texts_are_tried_in_this_order_until_one_is_beyond_doubt(
    search: SearchOptions, tries: list[DecodeResult], calls: list[tuple[float, int, int]]
) -> None:
    model = scripted(list(tries))
    result = decode_one(model, job(search))
    assert tried(model) == calls
    if tries[-1] is GOOD:
        assert (len(result.words), result.temperature) == (2, calls[-1][0])


def test_hints_are_left_out_before_anything_else_is_tried() -> None:
    model = scripted([LOOP, UNSURE, GOOD])
    decode(model, job(prompt="p", hotwords="h"))
    assert tried(model) == [(0.0, 5, 0), (0.0, 5, 0), (0.2, 5, 0)]
    asked = [requests for requests, _ in model.arguments("decode")]
    bare = [DecodeRequest(0, "en")]
    assert asked == [[DecodeRequest(0, "en", prompt="p", hotwords="h")], bare, bare]


def test_only_the_rows_that_fail_are_decoded_again_and_nothing_is_encoded_twice() -> None:
    model = scripted([GOOD], [LOOP, LOOP, GOOD], [UNSURE, UNSURE, GOOD], [GOOD])
    batch = decode(model, *[job()] * 4)
    rows = [[request.row for request in requests] for requests, _ in model.arguments("decode")]
    assert rows == [[0, 1, 2, 3], [1], [1, 2], [2]]
    assert [result.temperature for result in batch.results] == [0.0, 0.2, 0.4, 0.0]
    assert model.methods().count("encode") == 1


def test_if_all_tries_are_doubtful_the_best_is_kept_with_its_temperature() -> None:
    least_bad = written(6, avg_logprob=-1.1)
    model = scripted([LOOP, UNSURE, UNSURE, least_bad, LOOP, UNSURE, UNSURE])
    result = decode_one(model, job())
    assert (len(result.words), result.temperature, result.avg_logprob) == (6, 0.4, -1.1)


# How long it is tried


def late(monkeypatch: pytest.MonkeyPatch, first_try_ends_s: float, *rows: list[DecodeResult]) -> tuple[FakeModel, Any]:
    """A model whose first try ends so long after the batch began, and the clock that it moves."""
    clock = ManualClock()
    monkeypatch.setitem(COSTS_S, "encode", first_try_ends_s - COSTS_S["decode"])
    model = FakeModel(clock)
    model.script = {row: deque(results) for row, results in enumerate(rows)}
    return model, clock


@pytest.mark.parametrize(
    ("first_try_ends_s", "n_tries"),
    [(LADDER_S - 0.501, 3), (LADDER_S - 0.5, 2), (LADDER_S - 0.001, 2), (LADDER_S, 1), (10 * LADDER_S, 1)],
)
def test_no_further_try_begins_once_the_batch_has_taken_its_time(
    first_try_ends_s: float, n_tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COSTS_S["decode"] == 0.5
    model, clock = late(monkeypatch, first_try_ends_s, [UNSURE] * 7)
    [result] = decode_batch(model, FAKE_MODEL_INFO, [job()], clock).results
    assert len(tried(model)) == n_tries
    assert len(result.words) == 4


def test_a_search_that_runs_out_of_time_keeps_the_best_try_of_every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    better = written(6, avg_logprob=-1.1)
    rows = [[LOOP, LOOP, UNSURE, GOOD], [UNSURE, better, UNSURE, GOOD], [GOOD], [better, UNSURE, UNSURE], [LOOP] * 3]
    model, clock = late(monkeypatch, LADDER_S - 0.75, *rows)
    batch = decode_batch(model, FAKE_MODEL_INFO, [job()] * len(rows), clock)
    assert tried(model) == [(0.0, 5, 0), (0.0, 5, 4), (0.2, 5, 0)]
    assert [len(result.words) for result in batch.results] == [4, 6, 2, 6, 3]
    assert [result.temperature for result in batch.results] == [0.2, 0.2, 0.0, 0.0, 0.0]


def test_hints_that_mislead_are_kept_if_there_is_no_time_to_leave_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, clock = late(monkeypatch, LADDER_S, [LOOP, GOOD])
    [result] = decode_batch(model, FAKE_MODEL_INFO, [job(prompt="p")], clock).results
    assert (len(result.words), len(tried(model))) == (3, 1)


# Silence and length


@pytest.mark.parametrize(
    ("search", "heard", "n_words"),
    [
        (ONCE, SILENT, 0),
        (ONCE, replace(SILENT, no_speech_prob=0.6), 5),
        (ONCE, replace(SILENT, avg_logprob=-1.0), 5),
        (replace(ONCE, no_speech_threshold=None), SILENT, 5),
        (replace(ONCE, logprob_threshold=None), SILENT, 5),
        (replace(ONCE, no_speech_threshold=0.95), SILENT, 5),
        (None, SILENT, 5),
    ],
)
def test_what_is_judged_silence_has_no_words(search: SearchOptions | None, heard: DecodeResult, n_words: int) -> None:
    result = decode_one(scripted([heard]), job(search))
    assert len(result.words) == n_words
    assert (result.avg_logprob, result.no_speech_prob) == (heard.avg_logprob, heard.no_speech_prob)
    if search is not None:
        assert is_silence(heard, search) is (n_words == 0)


def test_a_text_that_its_budget_ended_is_told() -> None:
    batch = decode(scripted([replace(GOOD, is_cut=True)], [GOOD], [replace(SILENT, is_cut=True)]), *[job(ONCE)] * 3)
    assert [result.is_cut for result in batch.results] == [True, False, False]


# Language alone


def test_the_language_is_told_without_decoding() -> None:
    model = FakeModel()
    model.language_probs[1] = (("es", 0.7), ("en", 0.2), ("de", 0.1))
    batch = decode(model, *[job(language=None, languages=("en", "es"), wants_words=False)] * 2)
    assert model.methods() == ["encode", "detect"]
    assert [result.language for result in batch.results] == ["en", "es"]
    assert [sum(p for _, p in result.language_probs) for result in batch.results] == pytest.approx([1.0, 1.0])
    assert [(result.words, result.is_cut) for result in batch.results] == [((), False)] * 2
    assert (batch.tokens, batch.encode_s, batch.decode_s, batch.align_s) == (0, 0.0, 0.0, 0.0)


def test_windows_with_and_without_words_share_no_batch() -> None:
    with pytest.raises(EngineFailedError, match="differ"):
        decode(FakeModel(), job(language=None), job(language=None, wants_words=False))


# Memory


@pytest.mark.parametrize("wants_words", [True, False])
def test_nothing_of_a_batch_is_held_behind_its_result(wants_words: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    encode = FakeModel.encode

    def remembering(self: FakeModel, features: FloatArray) -> FakeEncoded:
        encoded = encode(self, features)
        alive.extend((weakref.ref(features), weakref.ref(encoded)))
        return encoded

    monkeypatch.setattr(FakeModel, "encode", remembering)
    model = scripted([LOOP, UNSURE, GOOD], [SILENT])
    jobs = [job(language=None, wants_words=wants_words) for _ in range(2)]
    alive += [weakref.ref(each.mel) for each in jobs]
    batch = decode(model, *jobs)
    jobs.clear()
    model.calls.clear()
    gc.collect()
    assert [reference() for reference in alive] == [None] * 4
    assert len(batch.results) == 2
