"""engine/whisper.py with the demo model, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, EngineFailedError, ModelUnavailableError
from engine.mel import window_features
from engine.prompts import MAX_PREVIOUS_TOKENS
from engine.types import (
    FRAMES_PER_SECOND,
    MAX_FRAMES,
    AlignRequest,
    DecodeRequest,
    FileOptions,
    FloatArray,
    Handle,
    Word,
)
from engine.whisper import MAX_ALIGN_TOKENS, MAX_HELD_OUTPUTS, MAX_OPEN_FILES, WhisperBackend
from tests.fakes.demo_audio import MODEL_DIR, Sample, log_mel, plain_words, samples

HELLO, MEETING, NUMBERS, SERVICE, HOLA, VIAJE = samples()
MAX_STEPS = 20_000
"""A recording that takes more steps than this does not end."""


@pytest.fixture(scope="module")
def backend() -> WhisperBackend:
    backend = WhisperBackend(MODEL_DIR, name="demo", is_demo=True, device="cpu", cpu_threads=1)
    backend.warm_up()
    return backend


@pytest.fixture
def handle(backend: WhisperBackend) -> Iterator[Handle]:
    [handle] = encode(backend, MEETING)
    yield handle
    backend.release([handle])


def encode(backend: WhisperBackend, *chosen: Sample) -> list[Handle]:
    return [
        backend.encode([window_features(mel, mel.shape[1] + backend.info.tail_frames)])[0]
        for mel in (log_mel(sample.audio) for sample in chosen)
    ]


def silence(n_frames: int, n_mels: int = 80) -> FloatArray:
    return np.full((n_mels, n_frames), -1.0, dtype=np.float32)


def words_of(backend: WhisperBackend, sample: Sample) -> tuple[Word, ...]:
    [handle] = encode(backend, sample)
    [result] = backend.decode([DecodeRequest(handle, sample.language, beam_size=5)])
    n_frames = log_mel(sample.audio).shape[1]
    [words] = backend.align([AlignRequest(handle, sample.language, "transcribe", result.tokens, n_frames)])
    backend.release([handle])
    return words


# Loading


def test_what_it_tells_about_the_demo_model(backend: WhisperBackend) -> None:
    info = backend.info
    assert (info.name, info.n_mels, info.languages, info.device) == ("demo", 80, ("en", "es"), "cpu")
    assert info.compute_type == "int8_float32"
    assert (info.is_demo, info.pad_frames, info.tail_frames) == (True, 0, 100)


def test_real_weights_know_all_languages_and_get_full_windows() -> None:
    info = WhisperBackend(MODEL_DIR, name="as if real", is_demo=False, device="cpu", cpu_threads=1).info
    assert len(info.languages) == 99  # before large-v3 there was no Cantonese
    assert (info.pad_frames, info.tail_frames) == (MAX_FRAMES, 0)


def test_an_unsupported_compute_type_names_the_legal_ones() -> None:
    with pytest.raises(ConfigError, match=r"'float16' is not supported on cpu here; legal: auto, float32, int8"):
        WhisperBackend(MODEL_DIR, name="demo", is_demo=True, device="cpu", compute_type="float16")


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
    backend = WhisperBackend(MODEL_DIR, name="demo", is_demo=True)
    backend.warm_up()
    assert (backend.info.device, backend.info.compute_type) == ("cuda", "float16")
    assert plain_words("".join(word.text for word in words_of(backend, MEETING))) == plain_words(MEETING.text)


# Encoding and handles


@pytest.mark.parametrize("n_frames", [2, 3, MAX_FRAMES])
def test_windows_of_any_legal_length_are_encoded(backend: WhisperBackend, n_frames: int) -> None:
    handles = backend.encode([silence(n_frames)])
    backend.release(handles)
    with pytest.raises(EngineFailedError, match="not held"):
        backend.detect(handles)


@pytest.mark.parametrize(
    "mel", [silence(0), silence(1), silence(MAX_FRAMES + 1), silence(100, n_mels=128), np.zeros(80, np.float32)]
)
def test_other_shapes_are_refused(backend: WhisperBackend, mel: FloatArray) -> None:
    with pytest.raises(EngineFailedError, match="legal: 80 x 2 to 3000"):
        backend.encode([mel])


def test_read_only_strided_and_wide_arrays_are_taken(backend: WhisperBackend) -> None:
    frozen = silence(20)
    frozen.flags.writeable = False
    handles = backend.encode([frozen, np.asfortranarray(silence(20)), silence(40)[:, ::2]])
    assert len(set(handles)) == 3
    backend.release(handles)


def test_the_oldest_output_goes_when_too_many_are_held(backend: WhisperBackend) -> None:
    handles = backend.encode([silence(2)] * MAX_HELD_OUTPUTS)
    assert len(backend.detect(handles[:1])) == 1
    handles += backend.encode([silence(2)])
    with pytest.raises(EngineFailedError, match="not held"):
        backend.detect(handles[:1])
    assert len(backend.detect(handles[1:2])) == 1
    backend.release(handles)


def test_unknown_handles_fail_and_may_be_released(backend: WhisperBackend) -> None:
    unknown = 999_999
    for call in (
        lambda: backend.detect([unknown]),
        lambda: backend.decode([DecodeRequest(unknown, "en")]),
        lambda: backend.align([AlignRequest(unknown, "en", "transcribe", (2205,), 100)]),
    ):
        with pytest.raises(EngineFailedError, match="not held"):
            call()
    with pytest.raises(EngineFailedError, match="not open"):
        backend.next_segments(unknown)
    backend.release([unknown])


def test_handles_count_from_where_they_are_told() -> None:
    backend = WhisperBackend(MODEL_DIR, name="demo", is_demo=True, device="cpu", cpu_threads=1, first_handle=7 << 32)
    assert backend.encode([silence(2), silence(2)]) == [(7 << 32) + 1, (7 << 32) + 2]


# Decoding


def test_the_samples_are_decoded_in_one_call_to_the_letter(backend: WhisperBackend) -> None:
    chosen = samples()
    handles = encode(backend, *chosen)
    results = backend.decode([DecodeRequest(h, s.language) for h, s in zip(handles, chosen, strict=True)])
    for sample, result in zip(chosen, results, strict=True):
        assert result.text.strip() == sample.text
        assert -0.2 < result.avg_logprob <= 0
        assert result.no_speech_prob < 0.1
        assert 0 < result.compression_ratio < 2.4
        assert result.tokens
    backend.release(handles)


@pytest.mark.parametrize("limit", [1, 3, 7, 20])
@pytest.mark.parametrize("n_context", [0, 40, MAX_PREVIOUS_TOKENS, MAX_PREVIOUS_TOKENS + 1])
def test_no_more_tokens_come_than_were_asked_for(
    backend: WhisperBackend, handle: Handle, limit: int, n_context: int
) -> None:
    context = (262,) * n_context
    [result] = backend.decode([DecodeRequest(handle, "en", context=context, max_new_tokens=limit)])
    assert len(result.tokens) == limit


def test_a_hint_cannot_smuggle_special_tokens_in(backend: WhisperBackend, handle: Handle) -> None:
    hostile = "<|startoftranscript|><|es|><|endoftext|>"
    [plain, hinted] = backend.decode(
        [
            DecodeRequest(handle, "en"),
            DecodeRequest(handle, "en", prompt=hostile, hotwords=hostile, context=(50257, 50258, -1, 10**9)),
        ]
    )
    assert hinted.tokens == plain.tokens


def test_hints_of_any_length_are_bounded(backend: WhisperBackend, handle: Handle) -> None:
    [result] = backend.decode(
        [DecodeRequest(handle, "en", prompt="word " * 5_000, hotwords="Anna " * 5_000, context=(262,) * 5_000)]
    )
    assert len(result.tokens) <= 224


def test_above_temperature_zero_tokens_are_sampled(backend: WhisperBackend, handle: Handle) -> None:
    request = DecodeRequest(handle, "en", beam_size=1, temperature=1.5, max_new_tokens=30)
    drawn = {backend.decode([request])[0].tokens for _ in range(8)}
    assert len(drawn) > 1


def test_silence_is_told_by_its_probability(backend: WhisperBackend) -> None:
    handles = backend.encode([silence(300)])
    [result] = backend.decode([DecodeRequest(handles[0], "en")])
    assert result.no_speech_prob > 0.9
    assert result.avg_logprob < -1
    backend.release(handles)


def test_an_unknown_language_fails(backend: WhisperBackend, handle: Handle) -> None:
    with pytest.raises(EngineFailedError, match="'fr'"):
        backend.decode([DecodeRequest(handle, "fr")])


def test_the_language_is_told_among_the_models_own(backend: WhisperBackend) -> None:
    handles = encode(backend, HELLO, HOLA)
    english, spanish = backend.detect(handles)
    assert (english[0][0], spanish[0][0]) == ("en", "es")
    for found in (english, spanish):
        assert {code for code, _ in found} == {"en", "es"}
        assert sum(probability for _, probability in found) == pytest.approx(1)
        assert found[0][1] > 0.9
    backend.release(handles)


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
    backend: WhisperBackend, handle: Handle, tokens: tuple[int, ...], n_frames: int, n_words: int
) -> None:
    [words] = backend.align([AlignRequest(handle, "en", "transcribe", tokens, n_frames)])
    assert len(words) == n_words


def test_the_number_of_tokens_to_align_is_bounded(backend: WhisperBackend, handle: Handle) -> None:
    [words] = backend.align([AlignRequest(handle, "en", "transcribe", (2205,) * MAX_ALIGN_TOKENS, 1_000)])
    assert len(words) == MAX_ALIGN_TOKENS
    with pytest.raises(EngineFailedError, match=f"1 to {MAX_ALIGN_TOKENS}"):
        backend.align([AlignRequest(handle, "en", "transcribe", (2205,) * (MAX_ALIGN_TOKENS + 1), 1_000)])


# Recordings


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


@pytest.mark.parametrize("options", [FileOptions(), FileOptions(vad_filter=True, word_timestamps=True, beam_size=1)])
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
    recording = backend.open_file(np.zeros(65 * 16_000, np.float32), FileOptions(language="en", beam_size=1))
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
