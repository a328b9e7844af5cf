"""`python -m engine.doctor_child QUESTION`: what only native libraries know, as one line of JSON.

A process of its own, since a library of the wrong kind takes its process with it. The libraries are loaded by
the modules of the engine that use them, and in the same way: what works here works there.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.clock import MonotonicClock

__all__ = ["main"]

MAJOR, MINOR = 75, 76
"""cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""
NO_DEVICE = 100
"""cuda.h: CUDA_ERROR_NO_DEVICE."""


def ask_cuda() -> dict[str, Any]:
    """The driver's own view: `problem`, or its CUDA version (12080 is 12.8) and its devices."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"problem": "libcuda.so.1 is not there", "is_absent": True}
    code = cuda.cuInit(0)
    if code not in (0, NO_DEVICE):
        return {"problem": f"cuInit fails with error {code}", "is_absent": False}
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    if code == 0:
        cuda.cuDeviceGetCount(ctypes.byref(count))
    devices = []
    for index in range(count.value):
        name, size, device = ctypes.create_string_buffer(128), ctypes.c_size_t(), ctypes.c_int()
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
        capability = [major.value, minor.value]
        devices.append({"name": name.value.decode(errors="replace"), "capability": capability, "bytes": size.value})
    return {"problem": None, "version": version.value, "devices": devices}


def ask_cublas() -> dict[str, Any]:
    """Whether cuBLAS can be loaded as the engine loads it."""
    from engine.accelerator import CUBLAS_LIBRARIES, preload_cublas

    return {"problem": preload_cublas(), "libraries": list(CUBLAS_LIBRARIES)}


def ask_ctranslate2(device: str, compute_type: str) -> dict[str, Any]:
    """What CTranslate2 sees, and where a model would be put."""
    import engine.whisper  # noqa: F401 - the one place that loads the library
    from engine.accelerator import choose_placement, preload_cublas
    from engine.errors import ConfigError

    library: Any = sys.modules["ctranslate2"]
    n_gpus = library.get_cuda_device_count()
    problem = preload_cublas() if n_gpus else "no NVIDIA GPU can be seen"
    types = {"cpu": sorted(library.get_supported_compute_types("cpu"))}
    if n_gpus:
        types["cuda"] = sorted(library.get_supported_compute_types("cuda"))
    answer: dict[str, Any] = {"version": library.__version__, "n_gpus": n_gpus, "types": types, "problem": problem}
    if device == "cpu":
        problem = "not asked for"
    try:
        place = choose_placement(device, compute_type, problem, lambda each: set(types.get(each, ())))
    except ConfigError as error:
        return {**answer, "refusal": str(error)}
    return {**answer, "device": place.device, "compute_type": place.compute_type}


def ask_decode(device: str, compute_type: str) -> dict[str, Any]:
    """Load the demo model and decode with it: kernels, cuBLAS and arithmetic in earnest."""
    from engine.models import DEMO_MODEL_DIR, DEMO_NAME
    from engine.places import cache_variables
    from engine.whisper import WhisperBackend

    if device == "cuda":
        # What is compiled here need not be compiled by the server again.
        os.environ.update(cache_variables(os.environ))
    clock = MonotonicClock()
    start_s = clock.now_s()
    backend = WhisperBackend(
        DEMO_MODEL_DIR, name=DEMO_NAME, is_demo=True, device=device, compute_type=compute_type, cpu_threads=1
    )
    loaded_s = clock.now_s()
    backend.warm_up()
    return {"load_s": loaded_s - start_s, "decode_s": clock.now_s() - loaded_s}


def ask_onnxruntime() -> dict[str, Any]:
    """The providers that onnxruntime was built with, and whether voice activity runs."""
    import numpy as np

    from engine.vad import VAD_FRAME_SAMPLES, SileroDetector

    probabilities = SileroDetector().push(np.zeros(VAD_FRAME_SAMPLES, dtype=np.float32))
    library: Any = sys.modules["onnxruntime"]
    providers = list(library.get_available_providers())
    return {"version": library.__version__, "providers": providers, "works": len(probabilities) == 1}


def ask_model(name: str) -> dict[str, Any]:
    """Where the engine would find a model; downloads nothing."""
    from engine.errors import ModelUnavailableError
    from engine.hub import HuggingFaceHub
    from engine.models import HubError, resolve_model
    from engine.places import cache_variables

    wanted: list[str] = []

    class LocalHub(HuggingFaceHub):
        def download(self, repo_id: str, cache_dir: Path) -> Path:
            wanted.append(str(cache_dir))
            raise HubError("the doctor downloads nothing")

    # In the image the entry point sets what is unset.
    environ = {**os.environ, **cache_variables(os.environ, make=False)}
    try:
        found = resolve_model(name, environ=environ, hub=LocalHub())
    except ModelUnavailableError as error:
        return {"problem": str(error), "would_download_to": wanted[0] if wanted else None}
    return {"problem": None, "path": str(found.path), "origin": found.origin, "is_demo": found.is_demo}


QUESTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "cuda": ask_cuda,
    "cublas": ask_cublas,
    "ctranslate2": ask_ctranslate2,
    "decode": ask_decode,
    "onnxruntime": ask_onnxruntime,
    "model": ask_model,
}


def main(question: str, *arguments: str) -> int:
    """Answer one question."""
    sys.stdout.write(json.dumps(QUESTIONS[question](*arguments)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
