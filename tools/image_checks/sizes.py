"""How large an image is, layer by layer, and what each megabyte is for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tools.image_checks.commands import check
from tools.image_checks.containers import Engine
from tools.image_checks.scan import Inside
from tools.image_checks.served import Target

__all__ = ["GB", "Layer", "Size", "check_size", "group_of", "measure", "parts", "read_layers"]

MB, GB = 1_000_000, 1_000_000_000
WEIGHTS = "weights baked in"
OTHERS = "everything smaller"
PURPOSES = {
    "nvidia/cublas": "matrix products on NVIDIA GPUs; the engine loads it by itself",
    "nvidia/cuda_nvrtc": "onnxruntime-gpu",
    "nvidia/cudnn": "onnxruntime-gpu",
    "nvidia/cufft": "onnxruntime-gpu",
    "nvidia/curand": "onnxruntime-gpu",
    "nvidia/cuda_runtime": "onnxruntime-gpu",
    "nvidia/nvjitlink": "onnxruntime-gpu",
    "ctranslate2": "the engine, with its CUDA kernels",
    "onnxruntime": "voice activity",
    "av": "media files: FFmpeg's libraries",
    "numpy": "arrays",
    "hf_xet": "download of weights",
    "huggingface_hub": "download of weights",
    "tokenizers": "text of tokens",
    "faster_whisper": "model code, voice activity model",
    "runpod": "serverless worker",
    "boto3": "serverless worker: object stores",
    "botocore": "serverless worker: object stores",
    "s3transfer": "serverless worker: object stores",
    "cryptography": "serverless worker: SSH, which the SDK imports",
    "aiohttp": "serverless worker: HTTP",
    "soxr": "resampling",
    "soundfile": "WAV and FLAC",
    "_soundfile_data": "WAV and FLAC",
    "pydantic_core": "settings and job schema",
    "uvicorn": "HTTP and WebSocket server",
    "starlette": "HTTP and WebSocket server",
    "pygments": "what rich depends on",
    "rich": "tables of commands",
    "google": "protobuf, what onnxruntime depends on",
    "yaml": "what ctranslate2 depends on",
    "pydantic": "settings and job schema",
    "filelock": "download of weights",
    "nacl": "serverless worker: SSH, which the SDK imports",
    "_brotli": "serverless worker: HTTP",
    "the interpreter": "Python and its standard library",
    "Debian": "the base: C library, shell, certificates",
    "our code": "engine, realtime, handler",
    "demo model": "weights and samples of the demo",
    WEIGHTS: "WHISPER_MODELS",
    OTHERS: "",
}
SMALLEST_SHOWN_BYTES = 2 * MB
PACKAGE = re.compile(r"^/opt/venv/lib/python[\d.]+/site-packages/([^/]+)(?:/([^/]+))?")
INTERPRETER = re.compile(r"^/usr/(?:local/)?(?:lib/(?:python3|libpython3|x86_64-linux-gnu/libpython3)|bin/python3)")
DISTRIBUTION = re.compile(r"-[\w.]+\.dist-info$|\.libs$|(?:\.[\w-]+)?\.so$|\.py$")


@dataclass(frozen=True)
class Layer:
    """A step of the history that takes room."""

    size_bytes: int
    made_by: str


@dataclass(frozen=True)
class Size:
    """An image's size on disk; `parts` says what for."""

    total_bytes: int
    layers: Sequence[Layer]
    parts: Sequence[tuple[str, int]]

    @property
    def weights_bytes(self) -> int:
        """Of baked models."""
        return dict(self.parts).get(WEIGHTS, 0)


def group_of(path: str) -> str:
    """What a file is counted under."""
    package = PACKAGE.match(path)
    if package:
        top, below = package.groups()
        if top == "nvidia" and below:
            return f"nvidia/{below}"
        name = DISTRIBUTION.sub("", top)
        return f"nvidia/{name.removeprefix('nvidia_').removesuffix('_cu12')}" if name.startswith("nvidia_") else name
    if path.startswith("/app/models/"):
        return WEIGHTS
    if path.startswith("/app/engine/demo_model/"):
        return "demo model"
    if path.startswith("/app/"):
        return "our code"
    return "the interpreter" if INTERPRETER.match(path) else "Debian"


def parts(files: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Bytes by what they are for, the largest first; small ones together at the end."""
    sums: Counter[str] = Counter()
    for path, size in files:
        sums[group_of(path)] += size
    shown = [(name, size) for name, size in sums.most_common() if size >= SMALLEST_SHOWN_BYTES or name == WEIGHTS]
    rest = sum(sums.values()) - sum(size for _, size in shown)
    return [*shown, (OTHERS, rest)]


def read_layers(text: str) -> list[Layer]:
    """From `history --no-trunc --format json` (podman: a list) or `{{json .}}` (docker: a line each)."""
    entries = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    layers = [
        Layer(int(each.get("size", each.get("Size", 0))), str(each.get("CreatedBy", "")).strip()) for each in entries
    ]
    return [layer for layer in reversed(layers) if layer.size_bytes > 0]


def measure(target: Target, inside: Inside) -> Size:
    """Measure the image."""
    counted = sum(size for _, size in inside.files)
    # Some engines tell the size of the compressed layers.
    total = max(counted, int(target.engine.inspect("image", target.image)["Size"]))
    return Size(total, _layers(target.engine, target.image), parts(inside.files))


def _layers(engine: Engine, image: str) -> list[Layer]:
    words = ("--format", "json") if engine.name == "podman" else ("--human=false", "--format", "{{json .}}")
    return read_layers(engine.must("history", "--no-trunc", *words, image))


def check_size(size: Size, limit_bytes: int) -> str:
    """Raises CheckFailedError if the image is larger than it may be; baked weights do not count."""
    counted = size.total_bytes - size.weights_bytes
    check(counted <= limit_bytes, f"{counted / GB:.2f} GB without weights; at most {limit_bytes / GB:.1f} GB")
    largest = ", ".join(f"{name} {amount / MB:.0f} MB" for name, amount in size.parts[:3])
    nameless = [name for name, _ in size.parts if name not in PURPOSES]
    check(not nameless, f"nobody says what it is for: {', '.join(nameless)}")
    return f"{counted / GB:.2f} GB of at most {limit_bytes / GB:.1f} GB; most of it: {largest}"
