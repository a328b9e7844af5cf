"""The doctor's looks at the native libraries: cuBLAS, no cuDNN, CTranslate2, one onnxruntime."""

from __future__ import annotations

import importlib.util
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from engine.doctor_check import Check, ChildFailedError, ask_child
from engine.doctor_gpu import gpu_demand, has_gpu_device
from engine.errors import ConfigError

__all__ = [
    "CUDA_PROVIDER",
    "DECODE_LIMIT_S",
    "judge_onnxruntime",
    "look_at_ctranslate2",
    "look_at_cublas",
    "look_at_cudnn",
    "look_at_vad",
]

CUDA_PROVIDER = "CUDAExecutionProvider"
DECODE_LIMIT_S = 240.0
"""On a GPU that is newer than the library the driver compiles all kernels first."""
_ONNXRUNTIME = re.compile(r"onnxruntime(-(gpu|openvino|directml|silicon|rocm|migraphx|training|azure|qnn))?")
"""Packages that own the folder onnxruntime/; the one installed last wins, and removing one breaks the other."""


def look_at_cublas(environ: Mapping[str, str]) -> Iterator[Check]:
    """cuBLAS 12 and cuBLASLt, loaded as the engine does."""
    if environ.get("WHISPER_DEVICE", "").strip().lower() == "cpu":
        yield Check("CUDA libraries", "skip", "WHISPER_DEVICE=cpu")
        return
    try:
        answer = ask_child("cublas")
    except ChildFailedError as error:
        answer = {"problem": f"loading cuBLAS: {error}"}
    if not answer["problem"]:
        yield Check("CUDA libraries", "ok", f"loaded: {', '.join(answer['libraries'])}")
        return
    is_needed = gpu_demand(environ) or has_gpu_device()
    needed = "" if is_needed else "; needed on a GPU only"
    remedy = 'pip install "nvidia-cublas-cu12>=12.4"'
    yield Check("CUDA libraries", "fail" if is_needed else "warn", f"{answer['problem']}{needed}", remedy)


def look_at_cudnn(environ: Mapping[str, str]) -> Iterator[Check]:
    """CTranslate2 since 4.7 does without cuDNN; an older one aborts in the middle of its first job."""
    files = list(_shared_objects("ctranslate2"))
    naming = [path.name for path in files if _contains(path, b"libcudnn")]
    if not files:
        yield Check("cuDNN", "skip", "no library of ctranslate2 is installed")
    elif naming:
        yield Check("cuDNN", "warn", f"{naming[0]} wants cuDNN", "pip install ctranslate2==4.8.5")
    elif "onnxruntime-gpu" in installed_onnxruntimes():
        yield Check("cuDNN", "ok", "not needed by ctranslate2; onnxruntime-gpu loads its own")
    else:
        yield Check("cuDNN", "ok", "not needed, no library names it")


def look_at_ctranslate2(environ: Mapping[str, str]) -> Iterator[Check]:
    """Devices and arithmetic as CTranslate2 reports them, and what the engine makes of it."""
    from engine.settings import load_settings

    try:
        settings = load_settings({"no_auth": True})
    except ConfigError:
        yield Check("CTranslate2", "skip", "needs valid settings")
        return
    try:
        answer = ask_child("ctranslate2", settings.device, settings.compute_type)
    except ChildFailedError as error:
        yield Check("CTranslate2", "fail", f"cannot be loaded: {error}", "install what the lock file has")
        return
    legal = "; ".join(f"{device}: {', '.join(types)}" for device, types in answer["types"].items())
    says = f"{answer['version']}, {answer['n_gpus']} GPUs ({legal})"
    demand = gpu_demand(environ)
    if "refusal" in answer:
        yield Check("CTranslate2", "fail", f"{says}; the start ends: {answer['refusal']}", "change that setting")
    elif answer["device"] == "cpu" and settings.device != "cpu" and (answer["n_gpus"] or demand):
        why = answer["problem"] if answer["n_gpus"] else f"{answer['problem']}; but {demand}"
        yield Check("CTranslate2", "fail", f"{says}; the CPU would do the work: {why}", "see driver and CUDA libraries")
    else:
        yield Check("CTranslate2", "ok", f"{says}; the engine uses {answer['device']}, {answer['compute_type']}")
        yield _decode(answer["device"], answer["compute_type"])


def _decode(device: str, compute_type: str) -> Check:
    try:
        answer = ask_child("decode", device, compute_type, limit_s=DECODE_LIMIT_S)
    except ChildFailedError as error:
        remedy = "see driver and CUDA libraries" if device == "cuda" else "install what the lock file has"
        return Check("decoding", "fail", f"the demo model does not run on {device}, {compute_type}: {error}", remedy)
    times = f"loaded in {answer['load_s']:.1f} s, first words after {answer['decode_s']:.1f} s"
    return Check("decoding", "ok", f"the demo model works on {device}, {compute_type}: {times}")


def look_at_vad(environ: Mapping[str, str]) -> Iterator[Check]:
    """onnxruntime, which voice activity runs on."""
    installed = installed_onnxruntimes()
    try:
        answer = ask_child("onnxruntime")
    except ChildFailedError as error:
        names = ", ".join(installed) or "none installed"
        yield Check("onnxruntime", "fail", f"cannot be used ({names}): {error}", "install exactly one onnxruntime")
        return
    yield judge_onnxruntime(installed, answer["providers"], answer["works"])


def judge_onnxruntime(installed: Mapping[str, str], providers: Iterable[str], works: bool) -> Check:
    """One distribution, and the providers that its name promises. `installed`: name -> version."""
    names = ", ".join(f"{name} {version}" for name, version in installed.items())
    listed = ", ".join(providers)
    says = f"{names or 'no package'}: {listed}"
    remedy = "uninstall all of them, then install one: onnxruntime or onnxruntime-gpu"
    if len(installed) > 1:
        return Check("onnxruntime", "fail", f"{says}; more than one is installed, they overwrite each other", remedy)
    if "onnxruntime-gpu" in installed and CUDA_PROVIDER not in listed:
        return Check("onnxruntime", "fail", f"{says}; {CUDA_PROVIDER} is missing", remedy)
    if not works:
        return Check("onnxruntime", "fail", f"{says}; voice activity gives no answer", remedy)
    return Check("onnxruntime", "ok", f"{says}; voice activity works")


def installed_onnxruntimes() -> dict[str, str]:
    """Name -> version of the installed distributions that own onnxruntime/."""
    found = {}
    for each in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "").lower()
        if _ONNXRUNTIME.fullmatch(name):
            found[name] = each.version
    return found


def _shared_objects(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    for root in (spec and spec.submodule_search_locations) or ():
        for folder in (Path(root), Path(root).parent / f"{package}.libs"):
            yield from sorted(folder.glob("*.so*"))


def _contains(path: Path, text: bytes) -> bool:
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0
