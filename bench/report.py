"""The documents that benchmarks write: one JSON shape for all, and what a machine is.

    {"schema", "kind", "made", "command", "machine", "conditions", "results"}

`kind` names the benchmark and with it the shape of `results`; everything else is the same for all.
Invariants: no path, no host name and no secret goes into a document; numbers are finite or null.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.load import LoadResult
from bench.measure import StreamFigures, spread

__all__ = ["RESULTS", "SCHEMA", "document", "load_section", "machine_facts", "result_path", "write_document"]

SCHEMA = 2
"""Version of the JSON shape."""
RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
PACKAGES = ("ctranslate2", "faster-whisper", "onnxruntime", "numpy", "websockets", "uvicorn")
LISTS = ("shown_after_s", "final_after_s", "first_partial_s", "end_to_final_s", "ttfs_s")
"""Figures of a stream that a document holds as spreads, not one by one."""


def document(
    kind: str, conditions: Mapping[str, Any], results: Mapping[str, Any], *, command: str, made: datetime | None = None
) -> dict[str, Any]:
    """The document of a benchmark; `command` as a reader would type it."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "made": (made or datetime.now(timezone.utc)).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine_facts(),
        "conditions": dict(conditions),
        "results": _finite(results),
    }


def load_section(result: LoadResult, *, with_streams: bool = True) -> dict[str, Any]:
    """One load run as part of a document."""
    summary = result.summary
    section: dict[str, Any] = {
        "summary": {
            **asdict(summary),
            "is_valid": summary.is_valid,
            "upwr": summary.stability.normalised.upwr,
            "upwr_raw": summary.stability.raw.upwr,
            "normalised_erasure": summary.stability.normalised.erasure,
            "normalised_erasure_raw": summary.stability.raw.erasure,
        },
        "wall_s": result.wall_s,
        "driver_cores": result.driver_cores,
        "server": result.resources
        and {**asdict(result.resources), "cores": result.resources.cores, "cpu_per_audio_s": result.cpu_per_audio_s},
        "queue": result.queue and asdict(result.queue),
        "ledger": result.ledger and {**asdict(result.ledger), "unaccounted": result.ledger.unaccounted},
    }
    if with_streams:
        section["streams"] = [_stream(stream) for stream in result.streams]
    return section


def machine_facts() -> dict[str, Any]:
    """Processor, memory and versions of this machine, and the commit of this code (None: unknown)."""
    commit = _git("rev-parse", "HEAD")
    return {
        "cpu": _first_match(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "is_modified": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def result_path(kind: str, suffix: str, folder: Path = RESULTS, made: datetime | None = None) -> Path:
    """Where a result is kept: its kind and its day (UTC)."""
    return folder / f"{kind}-{(made or datetime.now(timezone.utc)):%Y-%m-%d}{suffix}"


def write_document(path: Path, made: Mapping[str, Any]) -> None:
    """Write a document as it is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _stream(stream: StreamFigures) -> dict[str, Any]:
    return {
        **asdict(stream),
        "wer": stream.errors.rate,
        "upwr": stream.stability.normalised.upwr,
        **{name: asdict(spread(getattr(stream, name))) for name in LISTS},
    }


def _finite(value: Any) -> Any:
    """The same without infinities, floats cut to what a reader needs."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    try:
        # Fixed words; git is looked up as any user's shell does.
        done = subprocess.run(("git", "-C", str(ROOT), *words), capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _memory_gib() -> float | None:
    found = _first_match(Path("/proc/meminfo"), "MemTotal")
    return round(int(found.split()[0]) / 2**20, 1) if found else None


def _first_match(path: Path, key: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)
