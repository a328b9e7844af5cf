"""The doctor's looks at the driver and the GPU.

What CTranslate2 was compiled for: machine code up to 8.9 runs on any CUDA 12 driver; Hopper (9.0) and Blackwell
(10.0, 12.0) get theirs from the driver at the first start, which understands it from CUDA 12.8 (driver 570) on.
`builder.deploy.gpus` has the same floors for renting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.doctor_check import Check, ChildFailedError, ask, ask_child, lines_of
from engine.places import cuda_cache

__all__ = ["Gpu", "gpu_demand", "has_gpu_device", "judge", "look_at_gpu"]

OLDEST, COMPILED_TO = (7, 0), (9, 0)
"""Compute capabilities: below the first nothing is promised, from the second on there is no machine code."""
CUDA_FLOOR, CUDA_FLOOR_NEW = 12_000, 12_080
"""As the driver counts: 12080 is CUDA 12.8."""
DRIVER_FLOOR_NEW = 570
SMI_LIMIT_S = 20.0
SMI_FIELDS = ("name", "compute_cap", "driver_version", "memory.total")
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""One of them is there wherever CUDA works."""
NEEDS_GPU = "start the container with --gpus all on a host with an NVIDIA driver"


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str
    capability: tuple[int, int]
    memory_mb: int


def gpu_demand(environ: Mapping[str, str]) -> str | None:
    """The setting that says that there should be a GPU; None if none does.

    NVIDIA_VISIBLE_DEVICES=all says nothing: the image itself sets it, also where there is no GPU.
    """
    if environ.get("WHISPER_DEVICE", "").strip().lower() == "cuda":
        return "WHISPER_DEVICE=cuda"
    visible = environ.get("NVIDIA_VISIBLE_DEVICES", "").strip()
    if visible not in ("", "all", "none", "void"):
        return f"NVIDIA_VISIBLE_DEVICES={visible[:80]}"
    count = environ.get("RUNPOD_GPU_COUNT", "").strip()
    if count.isascii() and count.isdecimal() and int(count) > 0:
        return f"RUNPOD_GPU_COUNT={count}"
    return None


def has_gpu_device() -> bool:
    """True if the container was given a GPU, whether or not it works."""
    return any(map(os.path.exists, GPU_DEVICES))


def look_at_gpu(environ: Mapping[str, str]) -> Iterator[Check]:
    """Driver, GPUs, and the cache of kernels."""
    if environ.get("WHISPER_DEVICE", "").strip().lower() == "cpu":
        yield Check("driver", "skip", "WHISPER_DEVICE=cpu")
        return
    smi, smi_problem = _ask_smi()
    try:
        cuda = ask_child("cuda")
    except ChildFailedError as error:
        cuda = {"problem": f"libcuda.so.1: {error}", "is_absent": False}
    demand = gpu_demand(environ)
    yield judge_driver(cuda, smi, smi_problem, demand)
    if cuda["problem"]:
        return
    gpus = [Gpu(each["name"], tuple(each["capability"]), each["bytes"] >> 20) for each in cuda["devices"]]
    if not gpus:
        yield _none(demand, bool(smi), environ)
    for gpu in gpus:
        yield judge(gpu, cuda["version"])
    if any(gpu.capability >= COMPILED_TO for gpu in gpus):
        yield _kernel_cache(environ)


def judge_driver(
    cuda: Mapping[str, Any], smi: list[dict[str, str]], smi_problem: str | None, demand: str | None
) -> Check:
    """What the driver is worth; `cuda` is the answer of engine.doctor_child, `smi` nvidia-smi's rows."""
    if cuda["problem"] and cuda["is_absent"] and not smi:
        says = f"no NVIDIA driver: {cuda['problem']}, {smi_problem}"
        if demand:
            return Check("driver", "fail", f"{says}; but {demand}", NEEDS_GPU)
        return Check("driver", "warn", f"CPU only ({says})", NEEDS_GPU)
    version = smi[0]["driver_version"] if smi else None
    if cuda["problem"]:
        seen = f"nvidia-smi shows driver {version}, but " if version else ""
        remedy = "NVIDIA_DRIVER_CAPABILITIES must hold compute, and the host's driver be whole"
        return Check("driver", "fail", f"{seen}CUDA does not work: {cuda['problem']}", remedy)
    number = int(cuda["version"])
    says = f"driver {version or '(version unknown)'}, CUDA {cuda_text(number)}"
    if number < CUDA_FLOOR:
        return Check("driver", "fail", f"{says} is too old; needed: CUDA 12.0", "rent a host with a newer driver")
    if smi_problem:
        remedy = "harmless for transcription; NVIDIA_DRIVER_CAPABILITIES=compute,utility brings nvidia-smi"
        return Check("driver", "warn", f"{says}; {smi_problem}, so /status has no figures of the GPU", remedy)
    return Check("driver", "ok", says)


def judge(gpu: Gpu, cuda_version: int) -> Check:
    """Whether the compiled kernels, or the driver's compiler, fit a GPU."""
    number = f"{gpu.capability[0]}.{gpu.capability[1]}"
    says = f"{gpu.name}, {gpu.memory_mb} MB, compute capability {number}"
    if gpu.capability < OLDEST:
        return Check("GPU", "fail", f"{says}: too old; legal: 7.0 and later", "rent a newer GPU")
    if gpu.capability < COMPILED_TO:
        return Check("GPU", "ok", f"{says}: its kernels are in the library")
    if cuda_version < CUDA_FLOOR_NEW:
        floor = f"needs CUDA {cuda_text(CUDA_FLOOR_NEW)} (driver {DRIVER_FLOOR_NEW}), the driver has "
        remedy = f"rent a host with driver {DRIVER_FLOOR_NEW} or later, or an Ampere or Ada GPU"
        return Check("GPU", "fail", f"{says}: {floor}{cuda_text(cuda_version)}", remedy)
    return Check("GPU", "ok", f"{says}: the driver compiles its kernels at the first start")


def cuda_text(version: int) -> str:
    """12080 as 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _none(demand: str | None, smi_sees: bool, environ: Mapping[str, str]) -> Check:
    says = "the driver shows no GPU"
    if smi_sees:
        hidden = environ.get("CUDA_VISIBLE_DEVICES")
        cause = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES={hidden!r})"
        says = f"nvidia-smi shows a GPU, CUDA none{cause}"
    if demand:
        return Check("GPU", "fail", f"{says}; but {demand}", NEEDS_GPU)
    return Check("GPU", "warn", f"{says}: CPU only", NEEDS_GPU)


def _kernel_cache(environ: Mapping[str, str]) -> Check:
    place = cuda_cache(environ)
    says = f"kernels are kept in {place.path} ({place.reason})"
    if not place.is_writable:
        return Check("kernels", "warn", f"nowhere to keep kernels: {place.reason}", "mount a writable volume")
    if not (place.path.is_dir() and any(place.path.iterdir())):
        says += "; none yet, so the first start takes longer"
    if not place.is_persistent:
        return Check("kernels", "warn", f"{says}; lost with the container", "mount a volume, or set CUDA_CACHE_PATH")
    return Check("kernels", "ok", says)


def _ask_smi() -> tuple[list[dict[str, str]], str | None]:
    """nvidia-smi's rows, or why there are none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        lines = lines_of(ask(command, limit_s=SMI_LIMIT_S))
    except FileNotFoundError:
        return [], "nvidia-smi is not there"
    except (OSError, ChildFailedError) as error:
        return [], f"nvidia-smi fails: {error}"
    rows = [re.split(r"\s*,\s*", line) for line in lines]
    found = [dict(zip(SMI_FIELDS, row, strict=True)) for row in rows if len(row) == len(SMI_FIELDS)]
    return found, None if found else "nvidia-smi shows no GPU"
