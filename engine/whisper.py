"""The speech model: CTranslate2's Whisper with faster-whisper's tokenizer and file pipeline.

Runs in the engine child only; apart from `engine.hub` this is the one import of ctranslate2 and
faster_whisper. Knows no process, no pipe and no stream. Live windows are decoded without
timestamps (`<|notimestamps|>`); their word times come from the cross-attention.

Invariants: an encoder output is held until it is released or MAX_HELD_OUTPUTS newer ones exist;
a handle is never given twice.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from engine.accelerator import Placement, choose_placement, preload_cublas
from engine.errors import EngineFailedError, ModelUnavailableError
from engine.file_run import FileRun, GatedModel, transcribe_samples
from engine.models import DEMO_LANGUAGES
from engine.prompts import MAX_HINT_CHARS, compression_ratio, hint_tokens, join_previous, length_limit
from engine.types import (
    MAX_FRAMES,
    AlignRequest,
    DecodeRequest,
    DecodeResult,
    DetectResult,
    FileOptions,
    FileSegment,
    FloatArray,
    Handle,
    ModelInfo,
    Word,
)
from engine.words import build_words, pieces_of

__all__ = ["MAX_HELD_OUTPUTS", "MAX_OPEN_FILES", "WhisperBackend"]

MAX_HELD_OUTPUTS = 64
"""Encoder outputs held at once: 3.8 MB each for the large models, and a job releases its own."""
MAX_OPEN_FILES = 8
"""Recordings in the pipeline at once; each holds its samples and its mel, 0.1 MB per second."""
MAX_ALIGN_TOKENS = 440
"""Text positions (448) less the start sequence: the library does not check this itself."""
DEMO_TAIL_FRAMES = 100
"""Silence behind a window for the demo model. Measured on its labelled speech, beam 1: one-sentence
windows 2.3 -> 0.1 % word errors, windows cut in a word 112 -> 8 %; padding to 10 s or 30 s gains
nothing more (0.2 %, 3.6 %) and costs up to 6 times the work."""
WARM_UP_FRAMES = 300
UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Written without blanks; faster-whisper splits these at characters."""

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


class WhisperBackend:
    """`engine.types.Backend`, synchronous; one thread calls it."""

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
    ) -> None:
        """Load a CTranslate2 directory; raises ConfigError or ModelUnavailableError."""
        placement = _place(device, compute_type)
        self._whisper = _load(path, placement, cpu_threads)
        self._model: Any = self._whisper.model
        self._tokenizers: dict[tuple[str, str], Any] = {}
        self._outputs: OrderedDict[Handle, Any] = OrderedDict()
        self._files: dict[Handle, FileRun] = {}
        self._last_handle = first_handle
        self.info = self._describe(name, is_demo)
        self._suppressed = list(get_suppressed_tokens(self._tokenizer(self.info.languages[0], "transcribe"), [-1]))

    def _describe(self, name: str, is_demo: bool) -> ModelInfo:
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
            pad_frames=0 if is_demo else MAX_FRAMES,
            tail_frames=DEMO_TAIL_FRAMES if is_demo else 0,
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
        """Make one call of each kind, so that a GPU's missing library or kernel shows now.

        Raises ModelUnavailableError.
        """
        frames = max(self.info.pad_frames, WARM_UP_FRAMES)
        noise = np.random.default_rng(0).normal(0.0, 0.1, (self.info.n_mels, frames)).astype(np.float32)
        language = self.info.languages[0]
        tokens = tuple(self._tokenizer(language, "transcribe").encode(" one two"))
        try:
            handles = self.encode([noise])
            self.detect(handles)
            [result] = self.decode([DecodeRequest(handles[0], language, max_new_tokens=8, beam_size=5)])
            self.align([AlignRequest(handles[0], language, "transcribe", tokens, WARM_UP_FRAMES)])
            self.release(handles)
        except Exception as error:  # an edge: whatever the libraries raise ends the start
            raise ModelUnavailableError(f"the model does not work ({type(error).__name__}: {error})") from error
        if not np.isfinite(result.avg_logprob):
            raise ModelUnavailableError("the model does not work (its scores are no numbers)")

    def _next_handle(self) -> Handle:
        self._last_handle += 1
        return self._last_handle

    def _output(self, handle: Handle) -> Any:
        if handle not in self._outputs:
            raise EngineFailedError("the encoder output is not held any more")
        return self._outputs[handle]

    def encode(self, mels: Sequence[FloatArray]) -> list[Handle]:
        """Encode normalised float32 [n_mels, 2..MAX_FRAMES] windows; raises EngineFailedError."""
        outputs = [self._encode_one(mel) for mel in mels]
        handles = [self._next_handle() for _ in outputs]
        self._outputs.update(zip(handles, outputs, strict=True))
        while len(self._outputs) > MAX_HELD_OUTPUTS:
            self._outputs.popitem(last=False)
        return handles

    def _encode_one(self, mel: FloatArray) -> Any:
        # The library computes garbage for no frames, and refuses read-only or strided arrays.
        if mel.ndim != 2 or mel.shape[0] != self.info.n_mels or not 2 <= mel.shape[1] <= MAX_FRAMES:
            raise EngineFailedError(f"mel of shape {mel.shape}; legal: {self.info.n_mels} x 2 to {MAX_FRAMES}")
        features = np.require(mel[np.newaxis], np.float32, ["C", "W"])
        return self._model.encode(ctranslate2.StorageView.from_array(features))

    def decode(self, requests: Sequence[DecodeRequest]) -> list[DecodeResult]:
        """Decode encoder outputs; above temperature 0 `beam_size` is the number of samples to choose from."""
        return [self._decode_one(request) for request in requests]

    def _decode_one(self, request: DecodeRequest) -> DecodeResult:
        tokenizer = self._tokenizer(request.language, request.task)
        prompt = self._prompt(tokenizer, request)
        how: dict[str, Any] = {"beam_size": request.beam_size}
        if request.temperature > 0:
            # The default of sampling_topk, 1, is the best token whatever the temperature.
            how = {
                "beam_size": 1,
                "num_hypotheses": request.beam_size,
                "sampling_topk": 0,
                "sampling_temperature": request.temperature,
            }
        [result] = self._model.generate(
            self._output(request.handle),
            [prompt],
            max_length=length_limit(len(prompt), request.max_new_tokens),
            suppress_tokens=self._suppressed,
            return_scores=True,
            return_no_speech_prob=True,
            **how,
        )
        found = result.sequences_ids[0]
        tokens = tuple(token for token in found if token < tokenizer.eot)
        text = tokenizer.decode(list(tokens))
        return DecodeResult(
            tokens=tokens,
            text=text,
            # The library's score is the mean per token; Whisper's threshold counts the end of text too.
            avg_logprob=float(result.scores[0]) * len(found) / (len(found) + 1),
            no_speech_prob=float(result.no_speech_prob),
            compression_ratio=compression_ratio(text),
        )

    def _prompt(self, tokenizer: Any, request: DecodeRequest) -> list[int]:
        previous = join_previous(
            hint_tokens(request.hotwords[:MAX_HINT_CHARS], tokenizer.encode, tokenizer.eot),
            hint_tokens(request.prompt[-MAX_HINT_CHARS:], tokenizer.encode, tokenizer.eot),
            [token for token in request.context if 0 <= token < tokenizer.eot],
        )
        start = [tokenizer.sot_prev, *previous] if previous else []
        return [*start, *tokenizer.sot_sequence, tokenizer.no_timestamps]

    def align(self, requests: Sequence[AlignRequest]) -> list[tuple[Word, ...]]:
        """Find word times; no tokens, or fewer than 2 frames, have no words."""
        return [self._align_one(request) for request in requests]

    def _align_one(self, request: AlignRequest) -> tuple[Word, ...]:
        tokenizer = self._tokenizer(request.language, request.task)
        tokens = [token for token in request.tokens if 0 <= token < tokenizer.eot]
        output = self._output(request.handle)
        # With fewer than 2 frames older versions of the library divide by zero and take the process along.
        if not tokens or request.n_frames < 2:
            return ()
        if len(tokens) > MAX_ALIGN_TOKENS:
            raise EngineFailedError(f"{len(tokens)} tokens to align; legal: 1 to {MAX_ALIGN_TOKENS}")
        n_frames = min(request.n_frames, MAX_FRAMES)
        [result] = self._model.align(output, tokenizer.sot_sequence, [tokens], n_frames)
        # The end of text goes along: where the alignment enters it, the last word ends.
        texts, groups = tokenizer.split_to_word_tokens([*tokens, tokenizer.eot])
        pieces = pieces_of(texts[:-1], groups[:-1], result.alignments, result.text_token_probs)
        return build_words(pieces, n_frames, is_spaced=request.language not in UNSPACED_LANGUAGES)

    def detect(self, handles: Sequence[Handle]) -> list[DetectResult]:
        """Probabilities of the model's languages, best first, summing to 1."""
        return [self._detect_one(handle) for handle in handles]

    def _detect_one(self, handle: Handle) -> DetectResult:
        output = self._output(handle)
        if not self.info.is_multilingual:
            return ((self.info.languages[0], 1.0),)
        [found] = self._model.detect_language(output)
        ranked = [(token[2:-2], probability) for token, probability in found if token[2:-2] in self.info.languages]
        total = sum(probability for _, probability in ranked) or 1.0
        return tuple((code, probability / total) for code, probability in ranked)

    def release(self, handles: Sequence[Handle]) -> None:
        """Forget encoder outputs and recordings; unknown handles are forgotten already."""
        for handle in handles:
            self._outputs.pop(handle, None)
            run = self._files.pop(handle, None)
            if run is not None:
                run.close()

    def open_file(self, samples: FloatArray, options: FileOptions) -> Handle:
        """Begin the pipeline on float32 mono 16 kHz samples; raises EngineFailedError."""
        if len(self._files) >= MAX_OPEN_FILES:
            raise EngineFailedError(f"more than {MAX_OPEN_FILES} recordings at once")
        if options.language is not None:
            self._tokenizer(options.language, options.task)

        def transcribe(gated: GatedModel) -> Iterator[FileSegment]:
            whisper = copy.copy(self._whisper)
            whisper.model = gated
            return transcribe_samples(whisper, samples, options)

        handle = self._next_handle()
        self._files[handle] = FileRun(self._model, transcribe)
        return handle

    def next_segments(self, handle: Handle) -> list[FileSegment] | None:
        """Go on with a recording by at most one model call; None after its end."""
        if handle not in self._files:
            raise EngineFailedError("the recording is not open")
        return self._files[handle].step()
