"""The import law of ARCHITECTURE.md, read from the syntax trees."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("engine", "realtime", "handler", "builder", "bench")
MAY_IMPORT = {
    "engine": {"engine"},
    "realtime": {"engine", "realtime"},
    "handler": {"engine", "handler"},
    "builder": {"builder"},
    "bench": {"engine", "realtime", "bench"},
}
IMPORT_SITES = {
    "faster_whisper": {"engine/whisper.py", "engine/hub.py", "bench/files_peers.py", "bench/worker_replica.py"},
    "ctranslate2": {"engine/whisper.py", "bench/random_model.py"},
    "onnxruntime": {"engine/vad.py"},
    "soxr": {"realtime/frames.py", "engine/decode_media.py"},
    "av": {"engine/decode_ffmpeg.py"},
    "soundfile": {"engine/decode_media.py", "engine/pieces.py"},
    "prometheus_client": {"engine/metrics.py"},
    "sounddevice": {"realtime/client/sources.py"},
    "matplotlib": {"bench/plot.py"},
    "runpod": {"handler/worker.py", "bench/worker_replica.py"},
    "boto3": {"handler/s3.py", "builder/aws/session.py"},
    "requests": {"builder/api/http.py"},
    "dotenv": {"builder/env_file.py", "realtime/client/cli.py"},
}
EXCEPTIONS = {"builder": {"engine.wer", "engine.formats"}}
"""Single modules beyond the law: word errors are counted, and subtitles written, in one place; both are pure."""
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.lineno, node.module))
    return found


def may_import(package: str, name: str) -> bool:
    return name.split(".")[0] in MAY_IMPORT[package] or name in EXCEPTIONS.get(package, set())


def test_packages_import_only_what_the_law_allows() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules()
        for line, name in imports(path)
        if name.split(".")[0] in PACKAGES and not may_import(path.relative_to(ROOT).parts[0], name)
    ]
    assert modules()
    assert broken == []


@pytest.mark.parametrize("library", sorted(IMPORT_SITES))
def test_heavy_libraries_have_one_place(library: str) -> None:
    sites = {
        str(path.relative_to(ROOT)) for path in modules() for _, name in imports(path) if name.split(".")[0] == library
    }
    assert sites == IMPORT_SITES[library]


def test_the_serving_process_loads_no_model_library() -> None:
    """Not even indirectly: a crash in native code must not take the sockets along."""
    code = "import realtime.server, sys; print(sorted({'ctranslate2', 'faster_whisper', 'av'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_modules_and_functions_stay_small() -> None:
    long = []
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        n_lines = path.read_text(encoding="utf-8").count("\n")
        if n_lines > MAX_MODULE_LINES:
            long.append(f"{path.relative_to(ROOT)}: {n_lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert long == []


def test_time_is_read_in_one_place() -> None:
    """Core modules take `now_s`; only clock.py and the skins that log wall time touch `time`."""
    live = ("session", "intake", "transcript", "stability", "display", "endpointing", "buffer", "outbox", "protocol")
    skins = ("admission", "departures", "load", "meter", "notices", "status")
    scheduling = ("scheduler", "batching", "batch_limits", "cadence", "cost_model", "retries")
    decoding = ("window_decode", "window_model", "window_search")
    pure = [f"realtime/{name}.py" for name in (*live, *skins)] + [
        f"engine/{name}.py" for name in (*scheduling, *decoding)
    ]
    touching = [name for name in pure for _, module in imports(ROOT / name) if module in ("time", "asyncio")]
    assert touching == []
