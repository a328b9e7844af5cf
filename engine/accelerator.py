"""Which device and which arithmetic the model runs on.

CTranslate2's wheel opens `libcublas.so.12` by name at the first matrix product. The pip package
nvidia-cublas-cu12 puts it where the loader does not look, so it is loaded here by path, with global
symbols, before that. Runs in the engine child only; knows no model.

A GPU that was asked for and does not work stops the start: nobody who pays for a GPU wants to find
out from the latency that the CPU does the work.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError

__all__ = ["Placement", "choose_placement", "preload_cublas"]

CUBLAS_LIBRARIES = ("libcublasLt.so.12", "libcublas.so.12")
"""In order of loading: the second needs the first."""


@dataclass(frozen=True)
class Placement:
    """Where and with which arithmetic to run."""

    device: str
    compute_type: str


def preload_cublas() -> str | None:
    """Load cuBLAS 12 with global symbols; returns None, or why it cannot be loaded."""
    for name in CUBLAS_LIBRARIES:
        try:
            ctypes.CDLL(str(_find_library(name) or name), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            return f"{name} cannot be loaded ({error}); install nvidia-cublas-cu12"
    return None


def _find_library(name: str) -> Path | None:
    package = importlib.util.find_spec("nvidia")
    roots = package.submodule_search_locations if package else None
    for root in roots or ():
        path = Path(root) / "cublas" / "lib" / name
        if path.is_file():
            return path
    return None


def choose_placement(
    device: str,
    compute_type: str,
    cuda_problem: str | None,
    supported: Callable[[str], Set[str]],
) -> Placement:
    """Settle `auto`, and refuse what cannot be had.

    `cuda_problem` says why CUDA cannot be used (None: it can); `supported` tells the compute types
    of a device. Raises ConfigError with the legal values.
    """
    if device == "cuda" and cuda_problem:
        raise ConfigError(f"WHISPER_DEVICE: 'cuda' is not usable here: {cuda_problem}; legal: cpu, auto")
    chosen = device
    if device == "auto":
        chosen = "cpu" if cuda_problem else "cuda"
    legal = supported(chosen)
    if compute_type == "auto":
        return Placement(chosen, _best_type(chosen, legal))
    if compute_type not in legal:
        raise ConfigError(
            f"WHISPER_COMPUTE_TYPE: {compute_type!r} is not supported on {chosen} here; "
            f"legal: auto, {', '.join(sorted(legal))}"
        )
    return Placement(chosen, compute_type)


def _best_type(device: str, legal: Set[str]) -> str:
    # float16 fills the tensor cores of every GPU since Volta; int8 is the fastest on CPUs. float32,
    # which everything computes, is left for GPUs before Pascal.
    wanted = "float16" if device == "cuda" else "int8"
    return wanted if wanted in legal else "float32"
