"""The rules for `.runpod/hub.json` and `.runpod/tests.json`. Pure: documents in, problems out.

Source: RunPod Hub publishing guide; GPU pools from RunPod's list of GPU types.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from builder.hub.findings import CUDA_VERSION, Document, at, is_integer, shown
from builder.hub.variables import check_env, check_known, check_presets, is_name

__all__ = [
    "CATEGORIES",
    "MAX_TIMEOUT_MS",
    "MIN_TIMEOUT_MS",
    "POOLS",
    "check_hub",
    "check_tests",
    "inputs_of",
    "runs_on",
]

CATEGORIES = ("audio", "embedding", "image", "language", "video")
POOLS = (
    *("ADA_24", "ADA_32_PRO", "ADA_48_PRO", "ADA_80_PRO"),
    *("AMPERE_16", "AMPERE_24", "AMPERE_48", "AMPERE_80"),
    *("BLACKWELL_180", "BLACKWELL_96", "HOPPER_141"),
)
"""Pools of GPUs that workers may be put on."""
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1_000, 3_600_000
MAX_DISK_GB = 4_000
MAX_GPUS = 10
_HUB_KEYS = ("title", "description", "type", "category", "iconUrl", "config")
_CONFIG_KEYS = (
    *("runsOn", "containerDiskInGb", "gpuCount", "gpuIds", "cpuFlavor", "endpointType"),
    *("allowedCudaVersions", "env", "presets"),
)
_OTHERS = {"GPU": ("cpuFlavor",), "CPU": ("gpuCount", "gpuIds", "allowedCudaVersions")}
_TEST_KEYS = ("gpuTypeId", "gpuCount", "cpuFlavor", "env", "allowedCudaVersions")


def check_hub(document: Document, data: Any, known: Collection[str] | None) -> None:
    """Check `hub.json`; `known` is the variables that the code reads (None: nobody knows)."""
    hub = document.mapping(data, "", _HUB_KEYS)
    if hub is None:
        return
    document.text(hub, "title", "")
    document.text(hub, "description", "")
    document.choice(hub, "type", "", ("serverless",))
    document.choice(hub, "category", "", CATEGORIES)
    icon = document.text(hub, "iconUrl", "", needed=False)
    if icon is not None and not re.fullmatch(r"https://[!-~]+", icon):
        document.error("iconUrl", "legal: https://...")
    if "config" not in hub:
        document.error("config", "missing; legal: an object")
        return
    config = document.mapping(hub["config"], "config", _CONFIG_KEYS)
    if config is None:
        return
    _check_machine(document, config)
    fields = check_env(document, config, "config", known)
    check_presets(document, config, "config", fields)


def check_tests(document: Document, data: Any, machine: str | None, known: Collection[str] | None) -> None:
    """Check `tests.json`, but for what the jobs' inputs mean; `machine`: what hub.json runs on (None: not told)."""
    root = document.mapping(data, "", ("tests", "config"))
    if root is None:
        return
    tests = document.items(root, "tests", "")
    if not tests:
        document.error("tests", "legal: one or more tests")
    names: set[str] = set()
    for number, entry in enumerate(tests):
        _check_test(document, entry, at("tests", number), names)
    if "config" not in root:
        document.error("config", "missing; legal: an object")
        return
    config = document.mapping(root["config"], "config", _TEST_KEYS)
    if config is None:
        return
    if machine == "CPU":
        document.text(config, "cpuFlavor", "config")
    elif machine == "GPU" or "gpuTypeId" in config or "cpuFlavor" not in config:
        document.text(config, "gpuTypeId", "config")
        document.integer(config, "gpuCount", "config", 1, MAX_GPUS)
    _check_cuda(document, config)
    _check_fixed_env(document, config, known)


def runs_on(hub: Any) -> str | None:
    """GPU or CPU, as `hub.json` says; None if it says neither."""
    config = hub.get("config") if isinstance(hub, dict) else None
    machine = config.get("runsOn") if isinstance(config, dict) else None
    return machine if machine in ("GPU", "CPU") else None


def inputs_of(tests: Any) -> dict[str, Any]:
    """The jobs' inputs of `tests.json`, by their JSON path."""
    entries = tests.get("tests") if isinstance(tests, dict) else None
    found = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and isinstance(entry.get("input"), dict):
            found[f"tests[{number}].input"] = entry["input"]
    return found


def _check_machine(document: Document, config: Mapping[str, Any]) -> None:
    machine = document.choice(config, "runsOn", "config", ("GPU", "CPU"))
    document.integer(config, "containerDiskInGb", "config", 1, MAX_DISK_GB)
    if "endpointType" in config:
        document.choice(config, "endpointType", "config", ("LB",))
    _check_cuda(document, config)
    if machine == "GPU":
        document.integer(config, "gpuCount", "config", 1, MAX_GPUS)
        ids = document.text(config, "gpuIds", "config")
        if ids is not None:
            _check_pools(document, ids)
    elif machine == "CPU":
        document.text(config, "cpuFlavor", "config")
    for key in _OTHERS.get(machine or "", ()):
        if key in config:
            document.warning(f"config.{key}", f"no effect on a {machine}")


def _check_pools(document: Document, ids: str) -> None:
    pools = []
    for part in (each.strip() for each in ids.split(",")):
        if part.startswith("-"):
            if not part[1:].strip():
                document.error("config.gpuIds", "'-' without the GPU to leave out; legal: as in -NVIDIA RTX 4090")
        elif part not in POOLS:
            document.error("config.gpuIds", f"{shown(part)} is no pool; legal: {', '.join(POOLS)}")
        elif part in pools:
            document.warning("config.gpuIds", f"{part} is there twice")
        pools.append(part)
    if all(part.startswith("-") for part in pools):
        document.error("config.gpuIds", "legal: one pool or more, and then GPUs to leave out")


def _check_cuda(document: Document, config: Mapping[str, Any]) -> None:
    seen: list[Any] = []
    versions = document.items(config, "allowedCudaVersions", "config")
    if not versions and config.get("allowedCudaVersions") == []:
        document.error("config.allowedCudaVersions", "an empty list; legal: one version or more, or no such key")
    for number, version in enumerate(versions):
        path = f"config.allowedCudaVersions[{number}]"
        if not isinstance(version, str) or not re.fullmatch(CUDA_VERSION, version):
            document.error(path, f"{shown(version)}; legal: a text as '12.4'")
        elif version in seen:
            document.warning(path, f"{version} is there twice")
        seen.append(version)


def _check_test(document: Document, entry: Any, path: str, names: set[str]) -> None:
    test = document.mapping(entry, path, ("name", "input", "timeout"))
    if test is None:
        return
    name = document.text(test, "name", path)
    if name is not None:
        if name in names:
            document.error(f"{path}.name", f"{shown(name)} is there twice")
        names.add(name)
    if not isinstance(test.get("input"), dict):
        found = shown(test["input"]) if "input" in test else "missing"
        document.error(f"{path}.input", f"{found}; legal: an object, the job's input")
    timeout: Any = test.get("timeout")
    if "timeout" in test and not (is_integer(timeout) and MIN_TIMEOUT_MS <= timeout <= MAX_TIMEOUT_MS):
        document.error(
            f"{path}.timeout", f"{shown(timeout)}; legal: milliseconds, {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}"
        )


def _check_fixed_env(document: Document, config: Mapping[str, Any], known: Collection[str] | None) -> None:
    seen = set()
    for number, entry in enumerate(document.items(config, "env", "config")):
        path = f"config.env[{number}]"
        pair = document.mapping(entry, path, ("key", "value"))
        if pair is None:
            continue
        name: Any = pair.get("key")
        if not is_name(name):
            document.error(f"{path}.key", f"{shown(name)}; legal: a variable's name, of letters, digits and _")
        elif name in seen:
            document.error(f"{path}.key", f"{shown(name)} is there twice")
        else:
            seen.add(name)
            check_known(document, name, f"{path}.key", known)
        if not isinstance(pair.get("value"), str):
            found = shown(pair["value"]) if "value" in pair else "missing"
            document.error(f"{path}.value", f"{found}; legal: a text")
