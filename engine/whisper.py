"""The speech model: CTranslate2's Whisper with faster-whisper's tokenizer and file pipeline.

Runs in the engine child only; apart from `engine.hub` this is the one import of ctranslate2 and
faster_whisper. Knows no process, no pipe and no stream. Live windows are decoded without
timestamps (`<|notimestamps|>`); their word times come from the cross-attention.

Invariants: nothing of a batch is held here; what a row brings does not depend on the other rows; a handle of
a recording is never given twice.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from engine.accelerator import Placement, choose_placement, preload_cublas
from engine.alignment import align_rows
from engine.errors import EngineFailedError, ModelUnavailableError
from engine.file_run import FileRun, GatedModel, transcribe_samples
from engine.models import DEMO_LANGUAGES
from engine.prompts import MAX_HINT_CHARS, compression_ratio, hint_tokens, join_previous, length_limit, max_steps
from engine.types import (
    MAX_FRAMES,
    DetectResult,
    FileOptions,
    FileSegment,
    FloatArray,
    Handle,
    ModelInfo,
    Word,
)
from engine.window_geometry import window_geometry
from engine.window_model import AlignRequest, DecodeOptions, DecodeRequest, DecodeResult, group_indexes

__all__ = ["MAX_OPEN_FILES", "EncodedBatch", "WhisperBackend"]

MAX_OPEN_FILES = 8
"""Recordings in the pipeline at once; each holds its samples and its mel, 0.1 MB per second."""
WARM_UP_FRAMES = 300

_log = logging.getLogger(__name__)


def _place(device: str, compute_type: str) -> Placement:
    if device == "cpu":
        problem: str | None = "not asked for"
    elif ctranslate2.get_cuda_device_count() == 0:
        problem = "no NVIDIA GPU can be seen"
    else:
        problem = preload_cublas()
        if problem:
            _log.warning("the GPU is not usable: %s", problem)
    return choose_placement(device, compute_type, problem, ctranslate2.get_supported_compute_types)


def _load(path: Path, placement: Placement, cpu_threads: int) -> WhisperModel:
    for name in ("model.bin", "tokenizer.json"):
        # Without its tokenizer faster-whisper would go and fetch one from a hub.
        if not (path / name).is_file():
            raise ModelUnavailableError(f"{path}: {name} is missing; a CTranslate2 Whisper directory has it")
    try:
        return WhisperModel(
            str(path), device=placement.device, compute_type=placement.compute_type, cpu_threads=cpu_threads
        )
    except Exception as error:  # an edge: whatever a damaged directory raises ends the start
        raise ModelUnavailableError(f"{path}: cannot be loaded ({type(error).__name__}: {error})") from error


class EncodedBatch:
    """The encoder's output for one batch, on the model's device: float [n, frames / 2, d_model]."""

    def __init__(self, output: Any) -> None:
        self._output = output
        self._on_host: Any = None
        self.n_rows: int = output.shape[0]

    def rows(self, wanted: Sequence[int]) -> Any:
        """The output of some rows, in this order; all rows in order cost nothing.

        The library has no way to pick rows on a GPU: there, others go through the host (3.8 MB each for the
        large models at 30 s).
        """
        chosen = list(wanted)
        if chosen == list(range(self.n_rows)):
            return self._output
        if self._on_host is None:
            on_host = self._output
            if on_host.device != "cpu":
                on_host = on_host.to_device(ctranslate2.Device.cpu)
            if on_host.dtype == ctranslate2.DataType.bfloat16:
                on_host = on_host.to(ctranslate2.DataType.float32)  # numpy has no such type
            self._on_host = np.asarray(on_host)
        first = chosen[0]
        is_range = chosen == list(range(first, first + len(chosen)))
        picked = self._on_host[first : first + len(chosen)] if is_range else self._on_host[chosen]
        # The model brings it to its own device and type.
        return ctranslate2.StorageView.from_array(picked)


def _read(result: Any, tokenizer: Any, n_steps: int, length_penalty: float) -> DecodeResult:
    """`n_steps`: how many tokens could be written, the end of text among them."""
    found = result.sequences_ids[0]
    tokens = tuple(token for token in found if token < tokenizer.eot)
    text = tokenizer.decode(list(tokens))
    return DecodeResult(
        tokens=tokens,
        text=text,
        # The library divides the sum by length ** penalty; Whisper's mean counts the end of text too.
        avg_logprob=float(result.scores[0]) * len(found) ** length_penalty / (len(found) + 1),
        no_speech_prob=float(result.no_speech_prob),
        compression_ratio=compression_ratio(text),
        is_cut=len(found) >= n_steps,
    )


class WhisperBackend:
    """`engine.window_model.WindowModel` and the file calls of `engine.types.Backend`; one thread calls it."""

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        is_demo: bool,
        device: str = "auto",
        compute_type: str = "auto",
        cpu_threads: int = 0,
        first_handle: Handle = 0,
        window_pad_s: float | None = None,
        revision: str | None = None,
    ) -> None:
        """Load a CTranslate2 directory (`window_pad_s`: see `engine.window_geometry`; `revision`: for `info`).

        Raises ConfigError or ModelUnavailableError.
        """
        placement = _place(device, compute_type)
        self._whisper = _load(path, placement, cpu_threads)
        self._model: Any = self._whisper.model
        self._tokenizers: dict[tuple[str, str], Any] = {}
        self._files: dict[Handle, FileRun] = {}
        self._last_handle = first_handle
        self.info = replace(self._describe(name, is_demo, window_pad_s), revision=revision)
        self._n_tokens: int = self._whisper.hf_tokenizer.get_vocab_size()

    def _describe(self, name: str, is_demo: bool, window_pad_s: float | None) -> ModelInfo:
        known = [
            code
            for code in self._whisper.supported_languages
            if not self._model.is_multilingual or self._whisper.hf_tokenizer.token_to_id(f"<|{code}|>") is not None
        ]
        return ModelInfo(
            name=name,
            n_mels=self._model.n_mels,
            languages=tuple(DEMO_LANGUAGES) if is_demo else tuple(known),
            device=self._model.device,
            compute_type=self._model.compute_type,
            is_demo=is_demo,
            **window_geometry(is_demo=is_demo, window_pad_s=window_pad_s)._asdict(),
        )

    def _tokenizer(self, language: str, task: str) -> Any:
        """The tokenizer of a language and task; at most twice the number of languages exist."""
        if language not in self.info.languages:
            raise EngineFailedError(f"language {language!r} is not one of the model's")
        key = (language, task)
        if key not in self._tokenizers:
            self._tokenizers[key] = Tokenizer(
                self._whisper.hf_tokenizer, self._model.is_multilingual, task=task, language=language
            )
        return self._tokenizers[key]

    def warm_up(self) -> None:
        """Make each kind of call, alone and in a batch, so that a GPU's missing library or kernel shows now.

        Raises ModelUnavailableError.
        """
        try:
            is_sane = self._try_out(1, max(self.info.pad_frames, WARM_UP_FRAMES)) and self._try_out(2, WARM_UP_FRAMES)
        except Exception as error:  # an edge: whatever the libraries raise ends the start
            raise ModelUnavailableError(f"the model does not work ({type(error).__name__}: {error})") from error
        if not is_sane:
            raise ModelUnavailableError("the model does not work (its scores are no numbers)")

    def _try_out(self, n_windows: int, n_frames: int) -> bool:
        """Decode noise in every way; False if a score is no number."""
        noise = np.random.default_rng(0).normal(0.0, 0.1, (n_windows, self.info.n_mels, n_frames))
        language, rows = self.info.languages[0], range(n_windows)
        tokens = tuple(self._tokenizer(language, "transcribe").encode(" one two"))
        encoded = self.encode(noise.astype(np.float32))
        self.detect(encoded, rows)
        requests = [DecodeRequest(row, language) for row in rows]
        options = [DecodeOptions(1, 8), DecodeOptions(5, 8), DecodeOptions(5, 8, temperature=0.5)]
        results = [result for how in options for result in self.decode(encoded, requests, how)]
        results += self.decode(encoded, requests[-1:], options[0])
        self.align(encoded, language, "transcribe", [AlignRequest(row, tokens, WARM_UP_FRAMES) for row in rows])
        return all(np.isfinite(result.avg_logprob) for result in results)

    def encode(self, features: FloatArray) -> EncodedBatch:
        """Encode normalised windows, [n, n_mels, 2..MAX_FRAMES]; raises EngineFailedError."""
        n_mels, shape = self.info.n_mels, features.shape
        # The library computes garbage for no frames, and refuses read-only or strided arrays.
        if len(shape) != 3 or shape[0] < 1 or shape[1] != n_mels or not 2 <= shape[2] <= MAX_FRAMES:
            raise EngineFailedError(f"mels of shape {shape}; legal: 1 or more x {n_mels} x 2 to {MAX_FRAMES}")
        array = np.require(features, np.float32, ["C", "W"])
        return EncodedBatch(self._model.encode(ctranslate2.StorageView.from_array(array)))

    def decode(
        self, encoded: EncodedBatch, requests: Sequence[DecodeRequest], options: DecodeOptions
    ) -> list[DecodeResult]:
        """Decode rows, all in one call where their prompts are equally long: the library refuses others."""
        prompts = [self._prompt(request) for request in requests]
        results: dict[int, DecodeResult] = {}
        for alike in group_indexes(len(prompt) for prompt in prompts):
            chosen = encoded.rows([requests[index].row for index in alike])
            found = self._generate(chosen, [prompts[index] for index in alike], options)
            n_steps = max_steps(len(prompts[alike[0]]), options.max_new_tokens)
            for index, result in zip(alike, found, strict=True):
                tokenizer = self._tokenizer(requests[index].language, requests[index].task)
                results[index] = _read(result, tokenizer, n_steps, options.length_penalty)
        return [results[index] for index in range(len(requests))]

    def _generate(self, rows: Any, prompts: list[list[int]], options: DecodeOptions) -> Any:
        how: dict[str, Any] = {
            "beam_size": options.beam_size,
            "patience": options.patience,
            "no_repeat_ngram_size": options.no_repeat_ngram,
        }
        if options.temperature > 0:
            # The default of sampling_topk, 1, is the best token whatever the temperature.
            how = {
                "beam_size": 1,
                "num_hypotheses": options.beam_size,
                "sampling_topk": 0,
                "sampling_temperature": options.temperature,
            }
        return self._model.generate(
            rows,
            prompts,
            max_length=length_limit(len(prompts[0]), options.max_new_tokens),
            length_penalty=options.length_penalty,
            suppress_tokens=self._suppressed(options.suppress_tokens),
            return_scores=True,
            return_no_speech_prob=True,
            **how,
        )

    def _suppressed(self, tokens: Sequence[int]) -> list[int]:
        """Token ids that are never written: the given ones, those that -1 stands for, and the prompt's own."""
        tokenizer = self._tokenizer(self.info.languages[0], "transcribe")
        return list(get_suppressed_tokens(tokenizer, self._known(tokens)))

    def _known(self, tokens: Sequence[int]) -> list[int]:
        """-1 and the ids that the vocabulary has: for others the library writes beside its arrays."""
        return [token for token in tokens if -1 <= token < self._n_tokens]

    def _prompt(self, request: DecodeRequest) -> list[int]:
        tokenizer = self._tokenizer(request.language, request.task)
        previous = join_previous(
            hint_tokens(request.hotwords[:MAX_HINT_CHARS], tokenizer.encode, tokenizer.eot),
            hint_tokens(request.prompt[-MAX_HINT_CHARS:], tokenizer.encode, tokenizer.eot),
            [token for token in request.context if 0 <= token < tokenizer.eot],
        )
        start = [tokenizer.sot_prev, *previous] if previous else []
        return [*start, *tokenizer.sot_sequence, tokenizer.no_timestamps]

    def align(
        self, encoded: EncodedBatch, language: str, task: str, requests: Sequence[AlignRequest]
    ) -> list[tuple[Word, ...]]:
        """Find word times; no tokens, or fewer than 2 frames, have no words."""
        return align_rows(self._model, self._tokenizer(language, task), encoded, self.info.device, requests)

    def detect(self, encoded: EncodedBatch, rows: Sequence[int]) -> list[DetectResult]:
        """Probabilities of the model's languages per row, best first, summing to 1."""
        if not self.info.is_multilingual:
            return [((self.info.languages[0], 1.0),) for _ in rows]
        return [self._rank(found) for found in self._model.detect_language(encoded.rows(rows))]

    def _rank(self, found: Sequence[tuple[str, float]]) -> DetectResult:
        ranked = [(token[2:-2], probability) for token, probability in found if token[2:-2] in self.info.languages]
        total = sum(probability for _, probability in ranked) or 1.0
        return tuple((code, probability / total) for code, probability in ranked)

    def release(self, handles: Sequence[Handle]) -> None:
        """Forget recordings; unknown handles are forgotten already."""
        for handle in handles:
            run = self._files.pop(handle, None)
            if run is not None:
                run.close()

    def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin the pipeline on float32 mono 16 kHz samples; raises EngineFailedError."""
        if len(self._files) >= MAX_OPEN_FILES:
            raise EngineFailedError(f"more than {MAX_OPEN_FILES} recordings at once")
        if options.language is not None:
            self._tokenizer(options.language, options.task)
        # To an empty list the pipeline does not add the tokens of the prompt.
        suppressed = self._known(options.search.suppress_tokens) or [
            self._tokenizer(self.info.languages[0], "transcribe").sot
        ]
        options = replace(options, search=replace(options.search, suppress_tokens=tuple(suppressed)))

        def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
            whisper = copy.copy(self._whisper)
            whisper.model = gated
            return transcribe_samples(whisper, samples, options)

        self._last_handle += 1
        self._files[self._last_handle] = FileRun(self._model, transcribe)
        return self._last_handle

    def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """Go on with a recording by at most one model call; None after its end."""
        if handle not in self._files:
            raise EngineFailedError("the recording is not open")
        return self._files[handle].step()
