"""engine/window_decode.py over a model without weights: rows, fallback, detection, budgets, costs."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.errors import BadInputError, EngineFailedError
from engine.types import MAX_FRAMES, BatchResult, FloatArray, JobClass, ModelInfo, WindowJob, WindowResult
from engine.window_decode import check_job, decode_batch, restrict
from engine.window_model import DecodeRequest, DecodeResult, group_indexes
from engine.window_search import is_doubtful
from tests.fakes.clock import ManualClock
from tests.fakes.model import FAKE_MODEL_INFO, FakeEncoded, FakeModel, written

MONOLINGUAL = replace(FAKE_MODEL_INFO, languages=("en",))


def job(n_frames: int = 200, job_class: JobClass = JobClass.FINAL, **more: Any) -> WindowJob:
    mel = np.zeros((80, n_frames), dtype=np.float32)
    return WindowJob(**{"stream": "a", "job_class": job_class, "mel": mel, "language": "en", **more})


def decode(model: FakeModel, *jobs: WindowJob, info: ModelInfo = FAKE_MODEL_INFO) -> BatchResult:
    return decode_batch(model, info, jobs, ManualClock())


def decode_one(model: FakeModel, one: WindowJob) -> WindowResult:
    [result] = decode(model, one).results
    return result


def texts(batch: BatchResult) -> list[str]:
    return ["".join(word.text for word in result.words) for result in batch.results]


def requests(model: FakeModel) -> list[list[DecodeRequest]]:
    return [each for each, _ in model.arguments("decode")]


# What is let in


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (job(MAX_FRAMES + 1), "mel"),
        (replace(job(), mel=np.zeros((128, 10), dtype=np.float32)), "mel"),
        (replace(job(), mel=np.zeros(80, dtype=np.float32)), "mel"),
        (job(language="fr"), "language"),
        (job(language=None, languages=("fr", "it")), "languages"),
    ],
)
def test_what_the_model_cannot_take_is_refused_on_both_sides(bad: WindowJob, message: str) -> None:
    model = FakeModel()
    for refuse in (lambda: check_job(bad, FAKE_MODEL_INFO), lambda: decode(model, bad)):
        with pytest.raises(BadInputError, match=f"^{message}: "):
            refuse()
    assert model.calls == []


@pytest.mark.parametrize(
    "good", [job(MAX_FRAMES), job(0), job(language=None), job(language=None, languages=("fr", "es"))]
)
def test_what_it_can_take_is_let_in(good: WindowJob) -> None:
    check_job(good, FAKE_MODEL_INFO)


@pytest.mark.parametrize("other", [job(201), job(job_class=JobClass.PARTIAL), job(context=(1,)), job(prompt="p")])
def test_windows_that_cannot_share_a_call_are_refused(other: WindowJob) -> None:
    model = FakeModel()
    with pytest.raises(EngineFailedError, match="differ"):
        decode(model, job(), other)
    assert model.calls == []
    assert len(decode(model, other).results) == 1


def test_no_windows_have_no_results() -> None:
    assert decode(FakeModel()) == BatchResult((), 0, 0, 0, 0.0, 0.0, 0.0)


def test_the_parent_can_import_it_without_a_model_library() -> None:
    code = "import engine.window_decode, sys; print({'ctranslate2', 'faster_whisper'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


# Rows


def test_a_batch_is_encoded_once_and_its_results_come_in_order() -> None:
    model = FakeModel()
    batch = decode(model, job(150), job(200), job(101))
    assert model.methods() == ["encode", "decode", "align"]
    assert [features.shape for features in model.arguments("encode")] == [(3, 80, 300)]
    assert texts(batch) == [" w0", " w0 w1", " w0 w1 w2"]
    [(_, _, aligned)] = model.arguments("align")
    assert [(each.row, each.n_frames, len(each.tokens)) for each in aligned] == [(0, 150, 1), (1, 200, 2), (2, 101, 3)]
    assert [result.words[-1].end_s for result in batch.results] == pytest.approx([1.5, 2.0, 1.01])


def test_features_are_normalised_padded_and_fit_for_the_library() -> None:
    model = FakeModel()
    mel = np.repeat(np.linspace(-9, 3, 80, dtype=np.float32)[:, np.newaxis], 120, axis=1)
    decode(model, job(mel=mel), job(mel=np.asfortranarray(mel[:, :110])))
    [features] = model.arguments("encode")
    assert (features.dtype, features.shape) == (np.dtype(np.float32), (2, 80, 300))
    assert features.flags.c_contiguous
    assert features.flags.writeable
    assert (features.max(), features.min()) == (1.75, -0.25)  # 3 and, 8 decades lower, -5
    assert (features[0, :, 120:] == -0.25).all()
    assert np.array_equal(features[1, :, :110], features[0, :, :110])


@pytest.mark.parametrize(
    ("n_frames", "pad", "tail", "expected"),
    [
        (200, 0, 0, 200),
        (200, 0, 100, 300),
        (200, MAX_FRAMES, 0, MAX_FRAMES),
        (2950, 0, 100, MAX_FRAMES),
        (2, 0, 0, 100),
    ],
)
def test_windows_are_padded_as_the_model_wants(n_frames: int, pad: int, tail: int, expected: int) -> None:
    model = FakeModel()
    batch = decode(model, job(n_frames), info=replace(FAKE_MODEL_INFO, pad_frames=pad, tail_frames=tail))
    assert model.arguments("encode")[0].shape == (1, 80, expected)
    assert (batch.frames, batch.padding_frames) == (expected, expected - n_frames)


@pytest.mark.parametrize("n_frames", [0, 1])
def test_a_window_too_short_for_a_word_has_none_and_costs_nothing(n_frames: int) -> None:
    model = FakeModel()
    batch = decode(model, job(n_frames, language=None, languages=("fr", "es")), job(n_frames, language="de"))
    assert [(result.words, result.language) for result in batch.results] == [((), "es"), ((), "de")]
    assert [result.no_speech_prob for result in batch.results] == [1.0, 1.0]
    assert batch == BatchResult(batch.results, 0, 0, 0, 0.0, 0.0, 0.0)
    assert model.calls == []


def test_windows_too_short_for_a_word_take_no_row() -> None:
    model = FakeModel()
    batch = decode(model, job(1), job(2), job(1), job(60))
    assert model.arguments("encode")[0].shape == (2, 80, 200)
    assert texts(batch) == ["", " w0", "", " w0 w1"]
    assert (batch.frames, batch.padding_frames) == (400, 338)


def test_each_language_and_task_is_aligned_in_a_call_of_its_own() -> None:
    model = FakeModel()
    batch = decode(model, job(), job(language="es"), job(), job(task="translate"), job(language="es"))
    assert [(each[0], each[1], [one.row for one in each[2]]) for each in model.arguments("align")] == [
        ("en", "transcribe", [0, 2]),
        ("es", "transcribe", [1, 4]),
        ("en", "translate", [3]),
    ]
    assert model.methods().count("decode") == 1
    assert [len(result.words) for result in batch.results] == [1, 2, 3, 4, 5]


def test_indexes_are_grouped_in_order_of_appearance() -> None:
    assert group_indexes("abcab") == [[0, 3], [1, 4], [2]]
    assert group_indexes([]) == []


# Language


def test_only_windows_of_unknown_language_are_asked_for_it() -> None:
    model = FakeModel()
    model.language_probs[3] = (("es", 0.7), ("en", 0.2), ("de", 0.1))
    batch = decode(model, job(language="de"), job(language=None), job(language="es"), job(language=None))
    assert model.arguments("detect") == [[1, 3]]
    assert model.methods() == ["encode", "detect", "decode", "align", "align", "align"]
    assert [result.language for result in batch.results] == ["de", "en", "es", "es"]
    assert [request.language for request in requests(model)[0]] == ["de", "en", "es", "es"]
    assert [bool(result.language_probs) for result in batch.results] == [False, True, False, True]


def test_the_language_is_detected_among_the_streams_own() -> None:
    result = decode_one(FakeModel(), job(language=None, languages=("de", "es", "xx")))
    assert result.language == "de"
    assert dict(result.language_probs) == pytest.approx({"de": 0.75, "es": 0.25})


def test_a_model_of_one_language_needs_no_detection() -> None:
    model = FakeModel()
    batch = decode(model, job(language=None), job(), info=MONOLINGUAL)
    assert [result.language_probs for result in batch.results] == [(("en", 1.0),), ()]
    assert "detect" not in model.methods()


def test_restrict_shares_out_evenly_what_has_no_probability() -> None:
    assert restrict((("en", 1.0), ("de", 0.0), ("es", 0.0)), ("de", "es")) == (("de", 0.5), ("es", 0.5))


# Options


@pytest.mark.parametrize(("job_class", "beam_size"), [(JobClass.PARTIAL, 1), (JobClass.FINAL, 5)])
def test_partials_are_greedy_and_finals_use_a_beam(job_class: JobClass, beam_size: int) -> None:
    model = FakeModel()
    decode(model, job(400, job_class), job(350, job_class))
    [(_, options)] = model.arguments("decode")
    assert (options.beam_size, options.temperature) == (beam_size, 0.0)
    assert options.max_new_tokens == 112  # 500 frames at 22.5 tokens a second


def test_hints_and_context_reach_the_decoder() -> None:
    model = FakeModel()
    decode(model, job(context=(1, 2), prompt="p", hotwords="h", task="translate"))
    assert requests(model) == [[DecodeRequest(0, "en", "translate", (1, 2), "p", "h")]]


# Quality fallback

GOOD = written(2)
LOOP = written(3, compression_ratio=2.5)
UNSURE = written(4, avg_logprob=-1.5)
SILENT = written(1, avg_logprob=-1.5, no_speech_prob=0.9)


def scripted(**rows: list[DecodeResult]) -> FakeModel:
    """A model whose rows (r0, r1, ...) answer these."""
    model = FakeModel()
    model.script = {int(name[1:]): deque(results) for name, results in rows.items()}
    return model


def test_a_loop_is_tried_again_without_context_then_without_repeating_itself() -> None:
    model = scripted(r0=[LOOP, LOOP, GOOD])
    assert (
        decode_one(model, job(context=(1, 2), prompt="p", hotwords="h")).words
        == decode_one(scripted(r0=[GOOD]), job()).words
    )
    [(first, plain), (second, again), (third, unlooped)] = model.arguments("decode")
    assert first == [DecodeRequest(0, "en", context=(1, 2), prompt="p", hotwords="h")]
    assert second == third == [DecodeRequest(0, "en")]
    assert plain == again
    assert unlooped == replace(plain, no_repeat_ngram=4)
    assert model.methods() == ["encode", "decode", "decode", "decode", "align"]


def test_without_context_what_the_model_is_unsure_of_is_sampled_at_once() -> None:
    model = scripted(r0=[UNSURE, GOOD])
    assert len(decode_one(model, job()).words) == 2
    [(_, plain), (_, sampled)] = model.arguments("decode")
    assert sampled == replace(plain, beam_size=5, temperature=0.4)


def test_only_doubtful_rows_are_tried_again() -> None:
    model = scripted(r1=[LOOP, GOOD], r3=[UNSURE, LOOP, UNSURE], r4=[LOOP, UNSURE, written(7)])
    batch = decode(model, *(job(context=(9,)) for _ in range(6)))
    rows = [[request.row for request in each] for each in requests(model)]
    assert rows == [[0, 1, 2, 3, 4, 5], [1, 3, 4], [3], [4]]
    assert [len(result.words) for result in batch.results] == [1, 2, 3, 4, 7, 6]
    assert model.methods().count("encode") == 1
    first = 1 + 3 + 3 + 4 + 3 + 6
    assert batch.tokens == first + (2 + 3 + 4) + (4 + 7)


@pytest.mark.parametrize(
    ("tries", "best"),
    [
        ([LOOP, UNSURE], UNSURE),
        ([UNSURE, LOOP], UNSURE),
        ([UNSURE, replace(GOOD, avg_logprob=-1.2)], GOOD),
        ([LOOP, replace(GOOD, compression_ratio=9.0, avg_logprob=-0.05)], GOOD),
    ],
)
def test_if_all_tries_are_doubtful_the_best_is_kept(tries: list[DecodeResult], best: DecodeResult) -> None:
    assert len(decode_one(scripted(r0=tries), job()).words) == len(best.tokens)


@pytest.mark.parametrize(
    ("result", "doubtful"),
    [
        (replace(GOOD, compression_ratio=2.4), False),
        (replace(GOOD, compression_ratio=2.41), True),
        (replace(GOOD, avg_logprob=-1.0), False),
        (replace(GOOD, avg_logprob=-1.01), True),
        (SILENT, False),
        (replace(SILENT, no_speech_prob=0.6), True),
        (replace(LOOP, no_speech_prob=0.9), True),
    ],
)
def test_thresholds_of_doubt(result: DecodeResult, doubtful: bool) -> None:
    assert is_doubtful(result) is doubtful
    model = scripted(r0=[result, GOOD])
    decode(model, job())
    assert len(requests(model)) == 1 + doubtful


def test_a_doubtful_partial_is_not_worth_a_second_try() -> None:
    model = scripted(r0=[LOOP])
    assert len(decode_one(model, job(job_class=JobClass.PARTIAL)).words) == 3
    assert len(requests(model)) == 1


# Costs and failures


def test_what_a_batch_costs_is_told_step_by_step() -> None:
    clock = ManualClock()
    model = FakeModel(clock)
    model.script = {1: deque([UNSURE, GOOD])}
    batch = decode_batch(model, FAKE_MODEL_INFO, [job(language=None), job(language="es"), job()], clock)
    assert (batch.encode_s, batch.decode_s, batch.align_s) == (1.0, 0.25 + 2 * 0.5, 2 * 0.125)
    assert (batch.frames, batch.padding_frames, batch.tokens) == (900, 300, 1 + 4 + 3 + 2)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("n_good_tries", [0, 1])
def test_scores_that_are_no_numbers_fail_the_call(score: float, n_good_tries: int) -> None:
    model = scripted(r1=[*[UNSURE] * n_good_tries, replace(GOOD, avg_logprob=score)])
    with pytest.raises(EngineFailedError, match="no numbers"):
        decode(model, job(), job())


@pytest.mark.parametrize("method", ["encode", "detect", "decode", "align"])
def test_nothing_of_a_batch_that_failed_is_held(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    encode = FakeModel.encode

    def remembering(self: FakeModel, features: FloatArray) -> FakeEncoded:
        alive.append(weakref.ref(features))
        encoded = encode(self, features)
        alive.append(weakref.ref(encoded))
        return encoded

    monkeypatch.setattr(FakeModel, "encode", remembering)
    model = FakeModel()
    model.errors[method] = RuntimeError("CUDA failed with error out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        decode(model, job(language=None), job())
    model.calls.clear()
    model.errors.clear()
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)
    assert len(decode(model, job(language=None), job()).results) == 2
