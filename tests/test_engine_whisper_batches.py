"""engine/whisper.py, engine/alignment.py and engine/window_decode.py with the demo model: what a window brings
does not depend on the others in its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.alignment import align_calls
from engine.errors import EngineFailedError
from engine.types import JobClass, WindowJob
from engine.whisper import WhisperBackend
from engine.window_model import AlignRequest, DecodeOptions, DecodeRequest
from tests.fakes.demo_audio import log_mel, samples
from tests.fakes.demo_model import CountingModel, batch, encode, features, load, window

HELLO, MEETING, NUMBERS, SERVICE, HOLA, VIAJE = samples()


@pytest.fixture(scope="module")
def backend() -> WhisperBackend:
    return load()


@pytest.fixture
def counted(backend: WhisperBackend, monkeypatch: pytest.MonkeyPatch) -> CountingModel:
    counting = CountingModel(backend._model)
    monkeypatch.setattr(backend, "_model", counting)
    return counting


# Word times


@pytest.mark.parametrize(
    ("frames", "n_rows", "calls"),
    [
        ({}, 2, []),
        ({0: 100}, 1, [([0], [0])]),
        ({0: 100, 1: 200}, 2, [([0, 1], [0, 1])]),
        ({0: 100, 1: 101}, 2, [([0], [0, 1]), ([1], [0, 1])]),  # 50 positions each
        ({0: 100, 1: 102}, 2, [([0, 1], [0, 1])]),
        ({0: 100, 1: 100, 2: 100}, 3, [([0], [0, 1, 2]), ([1, 2], [0, 1, 2])]),
        ({0: 100, 2: 100}, 3, [([0, 2], [0, 1, 2])]),
        ({1: 100}, 3, [([1], [0, 1, 2])]),
    ],
)
def test_on_a_gpu_the_whole_batch_is_aligned_unless_it_is_uniform(
    frames: dict[int, int], n_rows: int, calls: list[Any]
) -> None:
    assert align_calls(frames, n_rows, "cuda") == calls
    assert align_calls(frames, n_rows, "cpu") == [([row], [row]) for row in frames]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("frames", [(400, 400, 400, 400), (400, 300, 250, 350), (400, 400, 0, 400), (2, 3, 2, 2)])
def test_word_times_do_not_depend_on_the_rest_of_the_batch(
    backend: WhisperBackend, monkeypatch: pytest.MonkeyPatch, device: str, frames: Sequence[int]
) -> None:
    encoded = encode(backend, MEETING, HELLO, SERVICE, NUMBERS)
    decoded = backend.decode(encoded, [DecodeRequest(row, "en") for row in range(4)], DecodeOptions(1, 12))
    requests = [
        AlignRequest(row, result.tokens[: 12 - 3 * row], n_frames)
        for row, (result, n_frames) in enumerate(zip(decoded, frames, strict=True))
    ]
    alone = [backend.align(encoded, "en", "transcribe", [request])[0] for request in requests]
    # The way of a GPU is open to a CPU too, only slower.
    monkeypatch.setattr(backend, "info", replace(backend.info, device=device))
    assert backend.align(encoded, "en", "transcribe", requests) == alone
    assert backend.align(encoded, "en", "transcribe", requests[2:0:-1]) == alone[2:0:-1]


# Batches


def speech_windows(n_per_recording: int, frames: tuple[int, int], job_class: JobClass) -> list[WindowJob]:
    """Windows from anywhere in the longer recordings, every third of unknown language."""
    random = np.random.default_rng(len(job_class.name))
    found: list[WindowJob] = []
    for sample in samples("speech"):
        mel = log_mel(sample.audio[: 30 * 16_000])
        for _ in range(n_per_recording):
            n_frames = int(random.integers(*frames))
            first = int(random.integers(0, mel.shape[1] - n_frames))
            language = None if len(found) % 3 == 0 else sample.language
            found.append(window(mel[:, first : first + n_frames], language, job_class))
    return [found[index] for index in random.permutation(len(found))]


@pytest.mark.parametrize(
    ("job_class", "frames", "hotwords"),
    [
        (JobClass.PARTIAL, (201, 301), ""),
        (JobClass.PARTIAL, (401, 501), "Anna"),
        (JobClass.FINAL, (301, 401), ""),
    ],
)
def test_windows_bring_the_same_alone_and_in_mixed_batches(
    backend: WhisperBackend, job_class: JobClass, frames: tuple[int, int], hotwords: str
) -> None:
    jobs = [replace(job, hotwords=hotwords) for job in speech_windows(2, frames, job_class)]
    n_words = n_different = 0
    for first in range(0, len(jobs), 9):
        part = jobs[first : first + 9]
        assert {job.language for job in part} >= {None, "en"}
        for job, together in zip(part, batch(backend, *part).results, strict=True):
            [alone] = batch(backend, job).results
            assert together.language == alone.language
            n_words += len(alone.words)
            pairs = zip(alone.words, together.words, strict=False)
            n_different += sum(
                one.text != other.text or abs(one.start_s - other.start_s) > 0.04 for one, other in pairs
            )
            n_different += abs(len(alone.words) - len(together.words))
    assert n_words > 100
    assert n_different <= n_words / 1_000


def test_a_batch_makes_one_call_of_each_kind_for_all(backend: WhisperBackend, counted: CountingModel) -> None:
    mels = [log_mel(sample.audio)[:, :250] for sample in (HELLO, HOLA, MEETING, VIAJE)]
    jobs = [
        window(mel, language, JobClass.PARTIAL) for mel, language in zip(mels, ("en", None, None, "es"), strict=True)
    ]
    results = batch(backend, *jobs).results
    assert [result.language for result in results] == ["en", "es", "en", "es"]
    assert counted.calls == [("encode", 4), ("detect", 2), ("generate", 4), *[("align", 1)] * 4]


@pytest.mark.parametrize(
    ("poison", "options"),
    [
        (np.nan, DecodeOptions(1, 30)),
        (-np.inf, DecodeOptions(1, 30)),
        (3e38, DecodeOptions(1, 30)),
        (np.nan, DecodeOptions(5, 30)),
    ],
)
def test_values_that_are_no_numbers_stay_in_their_row(
    backend: WhisperBackend, poison: float, options: DecodeOptions
) -> None:
    clean = features(HELLO, MEETING, HOLA)[:, :, :300]
    poisoned = clean.copy()
    poisoned[1, :, 100] = poison
    requests = [DecodeRequest(row, language) for row, language in enumerate(("en", "en", "es"))]
    expected = backend.decode(backend.encode(clean), requests, options)
    encoded = backend.encode(poisoned)
    results = backend.decode(encoded, requests, options)
    assert (results[0], results[2]) == (expected[0], expected[2])
    assert not np.isfinite(results[1].avg_logprob)
    languages = backend.detect(encoded, [0, 1, 2])
    assert [languages[0][0][0], languages[2][0][0]] == ["en", "es"]
    aligned = [AlignRequest(row, expected[row].tokens, 200 + row) for row in (0, 1, 2)]
    words = backend.align(encoded, "en", "transcribe", aligned)
    assert [len(each) > 0 for each in words] == [True] * 3


def test_a_window_of_no_numbers_fails_its_batch_and_the_others_go_on_without_it(backend: WhisperBackend) -> None:
    mels = [log_mel(sample.audio)[:, :250] for sample in (HELLO, MEETING)]
    poison = mels[1].copy()
    poison[3, 3] = np.nan
    with pytest.raises(EngineFailedError, match="no numbers"):
        batch(backend, window(mels[0], "en"), window(poison, "en"))
    assert len(batch(backend, *(window(mel, "en") for mel in mels)).results) == 2
