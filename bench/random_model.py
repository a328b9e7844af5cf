"""`python -m bench.random_model SIZE FOLDER`: a Whisper model in true shapes with random weights, to measure speed.

Nothing is downloaded: the shapes are published, the weights random, the vocabulary made up (as many entries, the
special tokens at their places). What such a model costs per window, per step and per token is what the real
one costs; what it says means nothing.

Left alone, random weights never end a text and are never sure of a word, which would measure decoding as it
never happens. So the decoder's position embeddings point at chosen words: from the prompt
`<|startoftranscript|>`, language, task, `<|notimestamps|>` every window has the same `n_script` tokens and
ends, whatever the audio, in greedy and in beam search.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bench.roofline import SHAPES, Shape
from engine.types import MAX_FRAMES, FloatArray

__all__ = ["NANO", "RANDOM_SIZES", "RandomSize", "count_gpus", "make_model"]

NANO = "nano"
"""No real Whisper: small enough for a test."""
N_WHISPER_TEXT = 50_257
MAX_POSITIONS = 448
PROMPT_TOKENS = 4
"""startoftranscript, language, task, notimestamps."""
N_STAMPS = 1_501
LANGUAGE_CODES = (
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
)
"""In the order of Whisper's vocabulary; the large-v3 family has the last one, too."""
LARGE_MELS = 128
BYTE_TOKENS = 256
WORDS_ALIGNED_BY = 3
"""Every third head of the upper half of the decoder: as many as OpenAI's models align words with."""
SCRIPT_SCALE = 6.0
"""How far a position embedding points at its word, in norms of the residual stream: enough for certainty."""
EMBEDDING_NORM = 26.0
"""A word's logit, once the decoder's last norm points at it; the others are noise of a few units."""


@dataclass(frozen=True)
class RandomSize:
    """Shape and vocabulary of a model to be made."""

    shape: Shape
    n_text: int = N_WHISPER_TEXT

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that the real model knows."""
        codes = tuple(LANGUAGE_CODES.split())
        return codes if self.shape.mels == LARGE_MELS else codes[:-1]


RANDOM_SIZES = {
    NANO: RandomSize(Shape(64, 2, 2, 2, 80), n_text=1_000),
    **{name: RandomSize(shape) for name, shape in SHAPES.items()},
}


def count_gpus() -> int:
    """How many NVIDIA GPUs the library sees."""
    return int(ctranslate2.get_cuda_device_count())


def make_model(
    folder: Path, size: RandomSize, *, n_script: int, quantization: str | None = None, seed: int = 0
) -> None:
    """Write a CTranslate2 model directory whose windows all have `n_script` tokens.

    `quantization` is CTranslate2's name of a weight type; None: float32.
    """
    text = _text_tokens(size.n_text)
    specials = _special_tokens(size.languages)
    stamps = [f"<|{n * 0.02:.2f}|>" for n in range(N_STAMPS)]
    vocabulary = [*text, *specials, *stamps]
    source = np.random.default_rng(seed)
    script = source.choice(np.arange(BYTE_TOKENS, size.n_text - 1), size=n_script, replace=False)
    spec = _spec(size.shape, len(vocabulary), [*map(int, script), size.n_text], source)
    spec.register_vocabulary(vocabulary)
    _configure(spec, size, {token: size.n_text + n for n, token in enumerate(specials)})
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    _tokenizer(text, specials, stamps).save(str(folder / "tokenizer.json"))
    features = {
        "chunk_length": 30,
        "feature_size": size.shape.mels,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480_000,
        "nb_max_frames": MAX_FRAMES,
        "sampling_rate": 16_000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(features), encoding="utf-8")


def _text_tokens(n_text: int) -> list[str]:
    """256 bytes, made-up words, and the empty token, by which CTranslate2 knows a multilingual vocabulary."""
    n_words = n_text - BYTE_TOKENS - 1
    return [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(f"Ġ{_name(n)}" for n in range(n_words)), ""]


def _name(number: int) -> str:
    letters = "abcdefghij"
    return "w" + "".join(letters[int(digit)] for digit in str(number))


def _special_tokens(languages: Sequence[str]) -> list[str]:
    names = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    return [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *languages, *names)]


def _tokenizer(text: Sequence[str], specials: Sequence[str], stamps: Sequence[str]) -> Any:
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(text)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in stamps])
    return tokenizer


def _configure(spec: Any, size: RandomSize, ids: dict[str, int]) -> None:
    shape, config = size.shape, spec.config
    never = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "startoftranscript")
    config.suppress_ids = sorted(ids[f"<|{name}|>"] for name in never)
    config.suppress_ids_begin = [ids["<|endoftext|>"]]
    config.lang_ids = [ids[f"<|{code}|>"] for code in size.languages]
    upper_half = range(shape.decoder_layers // 2, shape.decoder_layers)
    config.alignment_heads = [(layer, head) for layer in upper_half for head in range(0, shape.heads, WORDS_ALIGNED_BY)]


class _Weights:
    """Fills layer specs with normally distributed weights."""

    def __init__(self, shape: Shape, source: np.random.Generator) -> None:
        self._width = shape.width
        self._source = source
        # As transformers do: what is added to the residual stream shrinks with the number of layers.
        self._residual_std = 0.02 / np.sqrt(3 * max(shape.encoder_layers, shape.decoder_layers))

    def normal(self, *size: int, std: float) -> FloatArray:
        drawn: FloatArray = self._source.standard_normal(size, dtype=np.float32) * np.float32(std)
        return drawn

    def norm(self, spec: Any) -> None:
        spec.gamma, spec.beta = np.ones(self._width, np.float32), np.zeros(self._width, np.float32)

    def linear(self, spec: Any, n_out: int, n_in: int, std: float = 0.02) -> None:
        spec.weight, spec.bias = self.normal(n_out, n_in, std=std), np.zeros(n_out, np.float32)

    def self_attention(self, spec: Any) -> None:
        width = self._width
        self.norm(spec.layer_norm)
        self.linear(spec.linear[0], 3 * width, width)
        self.linear(spec.linear[1], width, width, self._residual_std)

    def cross_attention(self, spec: Any) -> None:
        width = self._width
        self.norm(spec.layer_norm)
        self.linear(spec.linear[0], width, width)
        self.linear(spec.linear[1], 2 * width, width)
        self.linear(spec.linear[2], width, width, self._residual_std)

    def feed_forward(self, spec: Any) -> None:
        width = self._width
        self.norm(spec.layer_norm)
        self.linear(spec.linear_0, 4 * width, width)
        self.linear(spec.linear_1, width, 4 * width, self._residual_std)


def _spec(shape: Shape, n_vocabulary: int, script: Sequence[int], source: np.random.Generator) -> Any:
    spec = whisper_spec.WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    weights = _Weights(shape, source)
    _fill_encoder(spec.encoder, shape, weights)
    _fill_decoder(spec.decoder, shape, weights, n_vocabulary, script)
    return spec


def _fill_encoder(encoder: Any, shape: Shape, weights: _Weights) -> None:
    width, zeros = shape.width, np.zeros(shape.width, np.float32)
    encoder.conv1.weight, encoder.conv1.bias = weights.normal(width, shape.mels, 3, std=0.06), zeros
    encoder.conv2.weight, encoder.conv2.bias = weights.normal(width, width, 3, std=0.03), zeros.copy()
    encoder.position_encodings.encodings = _sinusoids(MAX_FRAMES // 2, width)
    weights.norm(encoder.layer_norm)
    for layer in encoder.layer:
        weights.self_attention(layer.self_attention)
        weights.feed_forward(layer.ffn)


def _fill_decoder(decoder: Any, shape: Shape, weights: _Weights, n_vocabulary: int, script: Sequence[int]) -> None:
    embeddings = weights.normal(n_vocabulary, shape.width, std=EMBEDDING_NORM / shape.width)
    decoder.embeddings.weight = embeddings
    decoder.projection.weight = embeddings.copy()
    decoder.position_encodings.encodings = _scripted_positions(shape.width, weights, embeddings, script)
    weights.norm(decoder.layer_norm)
    for layer in decoder.layer:
        weights.self_attention(layer.self_attention)
        weights.cross_attention(layer.attention)
        weights.feed_forward(layer.ffn)


def _scripted_positions(width: int, weights: _Weights, embeddings: FloatArray, script: Sequence[int]) -> FloatArray:
    """The last token of the prompt calls for the first of the script, and so on; then the script again."""
    positions = weights.normal(MAX_POSITIONS, width, std=0.01)
    for place in range(MAX_POSITIONS - PROMPT_TOKENS + 1):
        word = embeddings[script[place % len(script)]]
        positions[PROMPT_TOKENS - 1 + place] += word / np.linalg.norm(word) * np.float32(SCRIPT_SCALE * np.sqrt(width))
    return positions


def _sinusoids(length: int, width: int) -> FloatArray:
    """Whisper's position encodings of the encoder, float32 [length, width]."""
    scale = np.exp(-np.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angles: npt.NDArray[np.float64] = np.arange(length)[:, None] * scale[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def main(argv: Sequence[str] | None = None) -> int:
    """Write a model directory."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.random_model", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("size", choices=RANDOM_SIZES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=25, help="length of every text (default %(default)s)")
    parser.add_argument("--quantization", help="weight type of CTranslate2, such as float16 (default: float32)")
    args = parser.parse_args(argv)
    make_model(args.folder, RANDOM_SIZES[args.size], n_script=args.tokens, quantization=args.quantization)
    return 0


if __name__ == "__main__":
    sys.exit(main())
