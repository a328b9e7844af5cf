"""engine/whisper.py and engine/file_run.py with the demo model: what the options of a search do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.file_run import transcribe_samples
from engine.prompts import MAX_HINT_TOKENS
from engine.types import FileOptions, FileSegment, FloatArray, JobClass, SearchOptions, WindowJob
from engine.whisper import EncodedBatch, WhisperBackend
from engine.window_model import DecodeOptions, DecodeRequest
from tests.fakes.demo_audio import log_mel, plain_words, samples
from tests.fakes.demo_model import GREEDY, batch, encode, load

HELLO, MEETING, NUMBERS, SERVICE, HOLA, VIAJE = samples()
USUAL = SearchOptions()
ONE = [DecodeRequest(0, "en")]


@pytest.fixture(scope="module")
def backend() -> WhisperBackend:
    return load()


@pytest.fixture(scope="module")
def hello(backend: WhisperBackend) -> EncodedBatch:
    return encode(backend, HELLO)


def window(search: SearchOptions | None = USUAL, **more: Any) -> WindowJob:
    return WindowJob("a", JobClass.FILE, log_mel(HELLO.audio), "en", **more, search=search)


# Windows


@pytest.mark.parametrize(
    "search",
    [
        None,
        USUAL,
        replace(USUAL, beam_size=1),
        replace(USUAL, patience=2.0, length_penalty=0.0),
        replace(USUAL, temperatures=(0.1,)),
        replace(USUAL, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None),
    ],
)
def test_clear_speech_is_understood_however_it_is_searched_for(
    backend: WhisperBackend, search: SearchOptions | None
) -> None:
    [result] = batch(backend, window(search)).results
    assert plain_words("".join(word.text for word in result.words)) == plain_words(HELLO.text)
    assert result.temperature == (search.temperatures[0] if search else 0.0)
    assert not result.is_cut


def test_suppressed_tokens_are_not_written(backend: WhisperBackend, hello: EncodedBatch) -> None:
    [usual] = backend.decode(hello, ONE, GREEDY)
    [other] = backend.decode(hello, ONE, replace(GREEDY, suppress_tokens=(-1, usual.tokens[0])))
    assert usual.tokens[0] not in other.tokens


@pytest.mark.parametrize("tokens", [(-1, -2, 10**9), (-1, 51_865), ()])
def test_token_ids_that_the_model_does_not_have_do_no_harm(
    backend: WhisperBackend, hello: EncodedBatch, tokens: tuple[int, ...]
) -> None:
    [usual] = backend.decode(hello, ONE, GREEDY)
    [same] = backend.decode(hello, ONE, replace(GREEDY, suppress_tokens=tokens))
    assert same.text == usual.text


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 2.0])
def test_the_mean_probability_does_not_depend_on_the_length_penalty(
    backend: WhisperBackend, hello: EncodedBatch, length_penalty: float
) -> None:
    [usual] = backend.decode(hello, ONE, GREEDY)
    [other] = backend.decode(hello, ONE, replace(GREEDY, length_penalty=length_penalty))
    assert other.avg_logprob == pytest.approx(usual.avg_logprob, rel=1e-3)


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize(("more", "is_cut"), [(-3, True), (0, True), (1, False)])
def test_a_text_without_room_for_its_end_is_cut(
    backend: WhisperBackend, hello: EncodedBatch, beam_size: int, more: int, is_cut: bool
) -> None:
    [usual] = backend.decode(hello, ONE, GREEDY)
    [result] = backend.decode(hello, ONE, DecodeOptions(beam_size, len(usual.tokens) + more))
    assert result.is_cut is is_cut
    assert result.tokens == usual.tokens[: len(usual.tokens) + min(more, 0)]


def test_the_language_alone_is_as_with_words(backend: WhisperBackend) -> None:
    jobs = [replace(window(), language=None, mel=log_mel(sample.audio)[:, :200]) for sample in (HELLO, HOLA)]
    found = batch(backend, *(replace(job, wants_words=False) for job in jobs)).results
    assert [result.language for result in found] == ["en", "es"]
    assert [result.language_probs for result in found] == [
        result.language_probs for result in batch(backend, *jobs).results
    ]


# Whole recordings


class Pipeline:
    """`faster_whisper.WhisperModel` as far as it is used: notes what it is asked for, and finds one segment."""

    def __init__(self, tokenizer: Any) -> None:
        self.hf_tokenizer = tokenizer
        self.asked: dict[str, Any] = {}

    def transcribe(self, audio: FloatArray, **asked: Any) -> tuple[list[SimpleNamespace], SimpleNamespace]:
        """One segment for all of it."""
        self.asked = asked
        end = self.hf_tokenizer.token_to_id("<|endoftext|>")
        found = SimpleNamespace(
            start=0.5, end=len(audio) / 16_000, text=" Hi.", tokens=[end + 200, 7, 8, end, end + 300], words=None,
            temperature=0.4, avg_logprob=-0.5, compression_ratio=1.5, no_speech_prob=0.25,
        )  # fmt: skip
        return [found], SimpleNamespace(language="de")


@pytest.fixture
def pipeline(backend: WhisperBackend) -> Pipeline:
    return Pipeline(backend._whisper.hf_tokenizer)


def ask(pipeline: Pipeline, options: FileOptions) -> dict[str, Any]:
    list(transcribe_samples(pipeline, np.zeros(32_000, np.float32), options))
    return pipeline.asked


def test_every_option_reaches_the_pipeline(pipeline: Pipeline) -> None:
    search = SearchOptions(2, 3, 1.5, 0.5, (0.0, 0.7), None, None, None, (-1, 9))
    options = FileOptions("es", "translate", search, True, True, True, "Dear Anna,", "Lisbon Vienna")
    assert ask(pipeline, options) == {
        "language": "es",
        "task": "translate",
        "beam_size": 2,
        "best_of": 3,
        "patience": 1.5,
        "length_penalty": 0.5,
        "temperature": [0.0, 0.7],
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
        "suppress_tokens": [-1, 9],
        "condition_on_previous_text": True,
        "initial_prompt": "Dear Anna,",
        "hotwords": "Lisbon Vienna",
        "word_timestamps": True,
        "vad_filter": True,
    }


def test_hints_that_are_not_given_are_none(pipeline: Pipeline) -> None:
    asked = ask(pipeline, FileOptions(prompt=" ", hotwords=""))
    assert (asked["initial_prompt"], asked["hotwords"]) == (None, None)
    assert asked["temperature"] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("hint", ["<|startoftranscript|> Anna", "<<||startoftranscript|> Anna", "a<|<|en|>en|>"])
def test_hints_bring_no_special_token(pipeline: Pipeline, hint: str) -> None:
    asked = ask(pipeline, FileOptions(prompt=hint, hotwords=hint))
    end = pipeline.hf_tokenizer.token_to_id("<|endoftext|>")
    for text in (asked["initial_prompt"], asked["hotwords"]):
        assert max(pipeline.hf_tokenizer.encode(text, add_special_tokens=False).ids) < end


@pytest.mark.parametrize("n_words", [MAX_HINT_TOKENS, MAX_HINT_TOKENS + 1])
def test_hot_words_leave_room_for_text(pipeline: Pipeline, n_words: int) -> None:
    def count(text: str) -> int:
        return len(pipeline.hf_tokenizer.encode(" " + text, add_special_tokens=False).ids)

    word = next(word for word in ("the", "one", "two") if count(word) == 1)
    hotwords = ask(pipeline, FileOptions(hotwords=" ".join([word] * n_words)))["hotwords"]
    assert (count(hotwords), len(hotwords.split())) == (MAX_HINT_TOKENS, MAX_HINT_TOKENS)


def test_a_segment_tells_all_that_the_pipeline_found(pipeline: Pipeline) -> None:
    [segment] = transcribe_samples(pipeline, np.zeros(32_000, np.float32), FileOptions())
    assert segment == FileSegment(0.5, 2.0, " Hi.", "de", (), (7, 8), 0.4, -0.5, 1.5, 0.25)


@pytest.mark.parametrize("suppressed", [(-1, -5, 10**9), ()])
def test_segments_of_a_recording_carry_their_tokens_and_scores(
    backend: WhisperBackend, suppressed: tuple[int, ...]
) -> None:
    search = replace(USUAL, suppress_tokens=suppressed)
    recording = backend.open_file(MEETING.audio, FileOptions("en", search=search, prompt="Peter.", hotwords="Anna"))
    found: list[FileSegment] = []
    for _ in range(1_000):
        segments = backend.next_segments(recording)
        if segments is None:
            break
        found += segments
    backend.release([recording])
    assert plain_words("".join(segment.text for segment in found)) == plain_words(MEETING.text)
    for segment in found:
        assert backend._whisper.hf_tokenizer.decode(list(segment.tokens)).strip() == segment.text.strip()
        assert segment.avg_logprob < 0 < segment.compression_ratio
        assert segment.temperature == 0.0
