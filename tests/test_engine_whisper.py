"""engine/whisper.py with the demo model, in this process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.alignment import MAX_ALIGN_TOKENS
from engine.errors import ConfigError, EngineFailedError, ModelUnavailableError
from engine.prompts import MAX_PREVIOUS_TOKENS
from engine.types import (
    FRAMES_PER_SECOND,
    MAX_FRAMES,
    FileOptions,
    FloatArray,
    Handle,
    SearchOptions,
    Word,
)
from engine.whisper import MAX_OPEN_FILES, EncodedBatch, WhisperBackend
from engine.window_model import AlignRequest, DecodeOptions, DecodeRequest
from tests.fakes.demo_audio import MODEL_DIR, Sample, log_mel, plain_words, samples
from tests.fakes.demo_model import GREEDY, CountingModel, batch, encode, load, window

HELLO, MEETING, NUMBERS, SERVICE, HOLA, VIAJE = samples()
GREEDY_SEARCH = SearchOptions(beam_size=1)
MAX_STEPS = 20_000
"""A recording that takes more steps than this does not end."""


@pytest.fixture(scope="module")
def backend() -> WhisperBackend:
    backend = load()
    backend.warm_up()
    return backend


@pytest.fixture(scope="module")
def meeting(backend: WhisperBackend) -> EncodedBatch:
    return encode(backend, MEETING)


def silence(n_frames: int, n_windows: int = 1, n_mels: int = 80) -> FloatArray:
    return np.full((n_windows, n_mels, n_frames), -1.0, dtype=np.float32)


def words_of(backend: WhisperBackend, sample: Sample) -> tuple[Word, ...]:
    return batch(backend, window(log_mel(sample.audio), sample.language)).results[0].words


@pytest.fixture
def counted(backend: WhisperBackend, monkeypatch: pytest.MonkeyPatch) -> CountingModel:
    counting = CountingModel(backend._model)
    monkeypatch.setattr(backend, "_model", counting)
    return counting


# Loading


def test_what_it_tells_about_the_demo_model(backend: WhisperBackend) -> None:
    info = backend.info
    assert (info.name, info.n_mels, info.languages, info.device) == ("demo", 80, ("en", "es"), "cpu")
    assert info.compute_type == "int8_float32"
    assert info.is_demo
    assert (info.pad_frames, info.tail_frames, info.bucket_frames, info.context_lengths) == (0, 100, 100, (0,))


def test_real_weights_know_all_languages_and_get_the_windows_asked_for() -> None:
    info = load(name="as if real", is_demo=False, window_pad_s=10.0, revision="abc").info
    assert info.revision == "abc"
    assert len(info.languages) == 99  # before large-v3 there was no Cantonese
    assert (info.pad_frames, info.tail_frames, info.bucket_frames) == (1_000, 300, 200)


def test_an_unsupported_compute_type_names_the_legal_ones() -> None:
    with pytest.raises(ConfigError, match=r"'float16' is not supported on cpu here; legal: auto, float32, int8"):
        load(compute_type="float16")


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json"])
def test_an_incomplete_directory_is_named(tmp_path: Path, missing: str) -> None:
    for name in {"model.bin", "tokenizer.json"} - {missing}:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelUnavailableError, match=f"{missing} is missing"):
        WhisperBackend(tmp_path, name="x", is_demo=False, device="cpu")


def test_a_damaged_model_is_an_error_and_no_crash(tmp_path: Path) -> None:
    shutil.copytree(MODEL_DIR, tmp_path / "model")
    weights = tmp_path / "model" / "model.bin"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(ModelUnavailableError, match="cannot be loaded"):
        WhisperBackend(tmp_path / "model", name="x", is_demo=False, device="cpu")


@pytest.mark.gpu
def test_a_gpu_is_used_in_half_precision() -> None:
    if not Path("/dev/nvidia0").exists():
        pytest.skip("needs an NVIDIA GPU")
    backend = load(device="auto")
    backend.warm_up()
    assert (backend.info.device, backend.info.compute_type) == ("cuda", "float16")
    jobs = [
        window(log_mel(sample.audio), language) for sample in (MEETING, VIAJE) for language in (None, sample.language)
    ]
    for job, sample in zip(jobs, (MEETING, MEETING, VIAJE, VIAJE), strict=True):
        [alone] = batch(backend, job).results
        assert plain_words("".join(word.text for word in alone.words)) == plain_words(sample.text)
    cut = [replace(job, mel=job.mel[:, :200]) for job in jobs]
    together = batch(backend, *cut).results
    for job, one in zip(cut, together, strict=True):
        [alone] = batch(backend, job).results
        assert [word.text for word in alone.words] == [word.text for word in one.words]


def test_a_model_that_computes_no_numbers_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = load()
    monkeypatch.setattr(broken, "encode", lambda features: WhisperBackend.encode(broken, features * np.nan))
    with pytest.raises(ModelUnavailableError, match="no numbers"):
        broken.warm_up()


def test_the_warm_up_makes_each_call_alone_and_in_a_batch(backend: WhisperBackend, counted: CountingModel) -> None:
    backend.warm_up()
    assert {("encode", 1), ("encode", 2), ("generate", 1), ("generate", 2), ("detect", 1), ("detect", 2)} <= set(
        counted.calls
    )


# Encoding and rows


@pytest.mark.parametrize("n_frames", [2, 3, MAX_FRAMES])
def test_windows_of_any_legal_length_are_encoded(backend: WhisperBackend, n_frames: int) -> None:
    encoded = backend.encode(silence(n_frames))
    assert encoded.rows([0]).shape == [1, -(-n_frames // 2), 160]


@pytest.mark.parametrize(
    "wrong",
    [
        silence(0),
        silence(1),
        silence(MAX_FRAMES + 1),
        silence(100, n_mels=128),
        silence(100, n_windows=0),
        silence(100)[0],
    ],
)
def test_other_shapes_are_refused(backend: WhisperBackend, wrong: FloatArray) -> None:
    with pytest.raises(EngineFailedError, match="legal: 1 or more x 80 x 2 to 3000"):
        backend.encode(wrong)


def test_read_only_strided_and_wide_arrays_are_taken(backend: WhisperBackend) -> None:
    frozen = silence(20)
    frozen.flags.writeable = False
    expected = np.asarray(backend.encode(silence(20)).rows([0]))
    wide: Any = silence(20).astype(np.float64)
    for odd in (frozen, np.asfortranarray(silence(20)), silence(40)[:, :, ::2], wide):
        assert np.array_equal(np.asarray(backend.encode(odd).rows([0])), expected)


@pytest.mark.parametrize("wanted", [[0], [2], [1, 2], [0, 2], [2, 0], [1, 1], [0, 1, 2], [2, 1, 0]])
def test_any_rows_of_a_batch_can_be_had(backend: WhisperBackend, wanted: list[int]) -> None:
    encoded = encode(backend, HELLO, MEETING, HOLA)
    whole = np.array(encoded.rows([0, 1, 2]))
    picked = np.array(encoded.rows(wanted))
    assert np.array_equal(picked, whole[wanted])
    assert not np.array_equal(whole[0], whole[1])


class HalfOutput:
    """What an encoder on a GPU in half precision gives: its rows can only be picked on the host."""

    device = "cuda"

    def __init__(self, view: Any, dtype: Any) -> None:
        self._view = view.to(dtype)
        self.shape = view.shape

    def to_device(self, device: Any) -> Any:
        assert device.name == "cpu"
        return self._view


@pytest.mark.parametrize(("kind", "tolerance"), [("float16", 0.005), ("bfloat16", 0.05)])
def test_rows_in_half_precision_go_through_the_host(backend: WhisperBackend, kind: str, tolerance: float) -> None:
    import ctranslate2

    whole = encode(backend, HELLO, MEETING, HOLA).rows([0, 1, 2])
    half = HalfOutput(whole, getattr(ctranslate2.DataType, kind))
    encoded = EncodedBatch(half)
    assert encoded.rows([0, 1, 2]) is half
    for wanted in ([1, 2], [2, 0]):
        picked = np.asarray(encoded.rows(wanted).to(ctranslate2.DataType.float32))
        assert np.abs(picked - np.asarray(whole)[wanted]).max() < tolerance


# Decoding


def test_the_samples_are_decoded_in_one_call_to_the_letter(backend: WhisperBackend, counted: CountingModel) -> None:
    chosen = samples()
    encoded = encode(backend, *chosen)
    requests = [DecodeRequest(row, sample.language) for row, sample in enumerate(chosen)]
    for sample, result in zip(chosen, backend.decode(encoded, requests, GREEDY), strict=True):
        assert result.text.strip() == sample.text
        assert -0.2 < result.avg_logprob <= 0
        assert result.no_speech_prob < 0.1
        assert 0 < result.compression_ratio < 2.4
        assert result.tokens
    assert counted.calls == [("encode", 6), ("generate", 6)]


def test_rows_are_decoded_in_the_order_in_which_they_are_asked_for(backend: WhisperBackend) -> None:
    encoded = encode(backend, HELLO, MEETING, HOLA)
    results = backend.decode(encoded, [DecodeRequest(2, "es"), DecodeRequest(0, "en")], GREEDY)
    assert [result.text.strip() for result in results] == [HOLA.text, HELLO.text]


def test_prompts_of_unequal_length_take_a_call_each(backend: WhisperBackend, counted: CountingModel) -> None:
    """A context may hold ids that are dropped, so equally long ones need not stay so."""
    encoded = encode(backend, HELLO, HELLO, HELLO, HELLO)
    contexts = [(262, 262), (262, 50257), (262, 262), ()]
    requests = [DecodeRequest(row, "en", context=context) for row, context in enumerate(contexts)]
    results = backend.decode(encoded, requests, GREEDY)
    assert counted.calls[1:] == [("generate", 2), ("generate", 1), ("generate", 1)]
    assert results[0] == results[2]
    for request, result in zip(requests, results, strict=True):
        assert [result] == backend.decode(encoded, [request], GREEDY)


@pytest.mark.parametrize("limit", [1, 3, 7, 20])
@pytest.mark.parametrize("n_context", [0, 40, MAX_PREVIOUS_TOKENS, MAX_PREVIOUS_TOKENS + 1])
def test_no_more_tokens_come_than_were_asked_for(
    backend: WhisperBackend, meeting: EncodedBatch, limit: int, n_context: int
) -> None:
    request = DecodeRequest(0, "en", context=(262,) * n_context)
    [result] = backend.decode(meeting, [request], DecodeOptions(1, limit))
    assert len(result.tokens) == limit


def test_a_hint_cannot_smuggle_special_tokens_in(backend: WhisperBackend, meeting: EncodedBatch) -> None:
    hostile = "<|startoftranscript|><|es|><|endoftext|>"
    plain = DecodeRequest(0, "en")
    hinted = replace(plain, prompt=hostile, hotwords=hostile, context=(50257, 50258, -1, 10**9))
    results = [backend.decode(meeting, [request], GREEDY)[0] for request in (plain, hinted)]
    assert results[0].tokens == results[1].tokens


def test_hints_of_any_length_are_bounded(backend: WhisperBackend, meeting: EncodedBatch) -> None:
    request = DecodeRequest(0, "en", prompt="word " * 5_000, hotwords="Anna " * 5_000, context=(262,) * 5_000)
    [result] = backend.decode(meeting, [request], GREEDY)
    assert len(result.tokens) <= 224


def test_above_temperature_zero_tokens_are_sampled(backend: WhisperBackend) -> None:
    encoded = encode(backend, *[MEETING] * 4)
    requests = [DecodeRequest(row, "en") for row in range(4)]
    results = backend.decode(encoded, requests, DecodeOptions(1, 30, temperature=1.5))
    assert len({result.tokens for result in results}) > 1
    best_of = backend.decode(encoded, requests, DecodeOptions(5, 30, temperature=0.4))
    assert [len(result.text) > 0 for result in best_of] == [True] * 4


def test_silence_is_told_by_its_probability(backend: WhisperBackend) -> None:
    encoded = backend.encode(silence(300))
    [result] = backend.decode(encoded, [DecodeRequest(0, "en")], GREEDY)
    assert result.no_speech_prob > 0.9
    assert result.avg_logprob < -1


def test_an_unknown_language_fails(backend: WhisperBackend, meeting: EncodedBatch) -> None:
    with pytest.raises(EngineFailedError, match="'fr'"):
        backend.decode(meeting, [DecodeRequest(0, "fr")], GREEDY)


def test_the_language_is_told_among_the_models_own(backend: WhisperBackend, counted: CountingModel) -> None:
    encoded = encode(backend, HELLO, MEETING, HOLA)
    english, spanish = backend.detect(encoded, [0, 2])
    assert counted.calls[1:] == [("detect", 2)]
    assert (english[0][0], spanish[0][0]) == ("en", "es")
    for found in (english, spanish):
        assert {code for code, _ in found} == {"en", "es"}
        assert sum(probability for _, probability in found) == pytest.approx(1)
        assert found[0][1] > 0.9


# Word times


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_word_times_are_those_of_the_labels(backend: WhisperBackend, sample: Sample) -> None:
    words = words_of(backend, sample)
    assert "".join(word.text for word in words).strip() == sample.text
    assert [word.text.strip() for word in words] == [text for text, _, _ in sample.words]
    starts = [abs(word.start_s - start_s) for word, (_, start_s, _) in zip(words, sample.words, strict=True)]
    ends = [abs(word.end_s - end_s) for word, (_, _, end_s) in zip(words, sample.words, strict=True)]
    assert np.median(starts) < 0.08
    assert np.median(ends) < 0.12
    assert max(starts + ends) < 0.6
    assert all(0 < word.probability <= 1 and word.tokens for word in words)


def test_word_times_are_monotone_and_inside_the_content(backend: WhisperBackend) -> None:
    words = words_of(backend, SERVICE)
    times = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= log_mel(SERVICE.audio).shape[1] / FRAMES_PER_SECOND


@pytest.mark.parametrize(
    ("tokens", "n_frames", "n_words"),
    [((), 100, 0), ((2205,), 0, 0), ((2205,), 1, 0), ((2205,), 2, 1), ((50257,), 9, 0)],
)
def test_nothing_to_align_has_no_words(
    backend: WhisperBackend, meeting: EncodedBatch, tokens: tuple[int, ...], n_frames: int, n_words: int
) -> None:
    [words] = backend.align(meeting, "en", "transcribe", [AlignRequest(0, tokens, n_frames)])
    assert len(words) == n_words


def test_the_number_of_tokens_to_align_is_bounded(backend: WhisperBackend, meeting: EncodedBatch) -> None:
    most = AlignRequest(0, (2205,) * MAX_ALIGN_TOKENS, 1_000)
    [words] = backend.align(meeting, "en", "transcribe", [most])
    assert len(words) == MAX_ALIGN_TOKENS
    with pytest.raises(EngineFailedError, match=f"1 to {MAX_ALIGN_TOKENS}"):
        backend.align(meeting, "en", "transcribe", [replace(most, tokens=(2205, *most.tokens))])


# Recordings


def test_handles_count_from_where_they_are_told() -> None:
    backend = load(first_handle=7 << 32)
    silent = np.zeros(16_000, np.float32)
    handles = [backend.open_file(silent, FileOptions(language="en")) for _ in range(2)]
    assert handles == [(7 << 32) + 1, (7 << 32) + 2]
    backend.release(handles)


def test_unknown_handles_fail_and_may_be_released(backend: WhisperBackend) -> None:
    with pytest.raises(EngineFailedError, match="not open"):
        backend.next_segments(999_999)
    backend.release([999_999])


def finish(backend: WhisperBackend, handle: Handle) -> tuple[list[str], int]:
    """Texts of the segments, and how many steps brought nothing."""
    texts: list[str] = []
    n_empty = 0
    for _ in range(MAX_STEPS):
        segments = backend.next_segments(handle)
        if segments is None:
            return texts, n_empty
        n_empty += not segments
        texts += [segment.text for segment in segments]
    raise AssertionError("the recording does not end")


def test_a_recording_is_transcribed_while_windows_are_decoded(backend: WhisperBackend) -> None:
    recording = backend.open_file(MEETING.audio, FileOptions(language="en"))
    assert backend.next_segments(recording) == []  # a model call, or 0.05 s, and no text yet
    assert plain_words("".join(word.text for word in words_of(backend, HELLO))) == plain_words(HELLO.text)
    texts, _ = finish(backend, recording)
    assert plain_words("".join(texts)) == plain_words(MEETING.text)
    assert backend.next_segments(recording) is None
    backend.release([recording])
    with pytest.raises(EngineFailedError, match="not open"):
        backend.next_segments(recording)


@pytest.mark.parametrize(
    "options", [FileOptions(), FileOptions(vad_filter=True, word_timestamps=True, search=GREEDY_SEARCH)]
)
def test_options_of_the_pipeline_reach_it(backend: WhisperBackend, options: FileOptions) -> None:
    recording = backend.open_file(VIAJE.audio, options)
    found = []
    for _ in range(MAX_STEPS):
        segments = backend.next_segments(recording)
        if segments is None:
            break
        found += segments
    assert plain_words("".join(segment.text for segment in found)) == plain_words(VIAJE.text)
    for segment in found:
        assert segment.language == "es"
        assert bool(segment.words) is options.word_timestamps
    backend.release([recording])


def test_long_silence_goes_by_in_single_calls(backend: WhisperBackend) -> None:
    recording = backend.open_file(np.zeros(65 * 16_000, np.float32), FileOptions(language="en", search=GREEDY_SEARCH))
    texts, n_empty = finish(backend, recording)
    assert texts == []
    assert n_empty >= 6  # three windows, each encoded and decoded in a step of its own
    backend.release([recording])


@pytest.mark.parametrize("n_samples", [0, 1, 1_599])
def test_recordings_too_short_for_a_word_have_none(backend: WhisperBackend, n_samples: int) -> None:
    recording = backend.open_file(np.zeros(n_samples, np.float32), FileOptions())
    assert finish(backend, recording)[0] == []
    backend.release([recording])


def test_the_number_of_open_recordings_is_bounded(backend: WhisperBackend) -> None:
    silent = np.zeros(16_000, np.float32)
    handles = [backend.open_file(silent, FileOptions(language="en")) for _ in range(MAX_OPEN_FILES)]
    with pytest.raises(EngineFailedError, match=str(MAX_OPEN_FILES)):
        backend.open_file(silent, FileOptions(language="en"))
    backend.release(handles[:1])
    handles.append(backend.open_file(silent, FileOptions(language="en")))
    backend.release(handles)


def test_a_recording_in_an_unknown_language_is_refused(backend: WhisperBackend) -> None:
    with pytest.raises(EngineFailedError, match="'fr'"):
        backend.open_file(HELLO.audio, FileOptions(language="fr"))
