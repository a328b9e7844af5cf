"""Looks into recordings, and cuts them: by a child process, which decodes what may be anything within limits."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.child import Finished, run_child
from builder.errors import BuilderError, DiskFullError, JobFailedError

__all__ = ["Recording", "Slice", "cut_file", "probe_files"]

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""Of the environment: the child needs no keys."""
START_S = 120.0
SECONDS_PER_MB = 10.0
"""The decoder's own limit on work is a twentieth of the sound; this ends a child that forgot it."""
MOST_S = 4 * 3600.0
FULL_SHARE = 1.2
PCM_BYTES_PER_S = 32_000
PROBED_AT_ONCE = 100
"""Files to a child: its start takes as long as decoding minutes of sound."""

Line = dict[str, Any]


@dataclass(frozen=True)
class Slice:
    """A piece that was cut: its file's name, and its place in the recording."""

    file: str
    start_s: float
    end_s: float
    n_bytes: int


@dataclass
class Recording:
    """What the child told."""

    duration_s: float
    slices: list[Slice] = field(default_factory=list)
    warnings: tuple[str, ...] = ()


def probe_files(paths: Sequence[Path], environ: Mapping[str, str]) -> list[Recording | JobFailedError]:
    """How long files are, by decoding them; an error for each that is no recording. Raises BuilderError."""
    found: list[Recording | JobFailedError] = []
    for begin in range(0, len(paths), PROBED_AT_ONCE):
        some = paths[begin : begin + PROBED_AT_ONCE]
        lines, finished = _run(some, ["--probe"], environ)
        # A child that did not come to its end leaves the rest untold.
        found += [_recording(line) if "duration_s" in line else _refusal(line) for line in lines[: len(some)]]
        if len(lines) < len(some) and finished.timed_out:
            found += [JobFailedError("decoding takes too long")] * (len(some) - len(lines))
        elif len(lines) < len(some):
            raise _ended(lines, finished)
    return found


def cut_file(path: Path, folder: Path, max_bytes: int, environ: Mapping[str, str], duration_s: float) -> Recording:
    """Cut a file into pieces of at most `max_bytes` in `folder`.

    Raises JobFailedError if it is no recording, DiskFullError if there is no room, BuilderError.
    """
    needed = duration_s * PCM_BYTES_PER_S * FULL_SHARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(f"{folder}: {needed / 1e6:.0f} MB are needed for pieces, {free / 1e6:.0f} MB are free")
    options = ["--folder", str(folder), "--max-bytes", str(max_bytes)]
    lines, finished = _run([path], options, environ)
    if finished.timed_out:
        raise JobFailedError("decoding takes too long")
    if finished.code != 0 or not lines or "n_pieces" not in lines[-1]:
        raise _ended(lines, finished)
    found = _recording(lines[-1])
    found.slices += [
        Slice(str(each["path"]), float(each["start_s"]), float(each["end_s"]), int(each["bytes"]))
        for each in lines[:-1]
    ]
    return found


def _run(paths: Sequence[Path], options: list[str], environ: Mapping[str, str]) -> tuple[list[Line], Finished]:
    lines: list[Line] = []
    command = [sys.executable, "-m", "engine.pieces", *options, "--", *map(str, paths)]
    kept = {name: environ[name] for name in KEPT if name in environ} or {"PATH": os.defpath}
    n_bytes = sum(path.stat().st_size for path in paths if path.exists())
    limit_s = min(MOST_S, START_S + SECONDS_PER_MB * n_bytes / 1e6)
    try:
        return lines, run_child(command, environ=kept, limit_s=limit_s, say=_collector(lines), folder=ROOT)
    except OSError as error:
        raise BuilderError(f"the decoder did not start: {error.strerror}") from None


def _recording(line: Line) -> Recording:
    warnings = line.get("warnings")
    return Recording(
        float(line["duration_s"]), warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else ()
    )


def _refusal(line: Line) -> JobFailedError:
    return JobFailedError(str(line.get("error") or "it cannot be decoded"))


def _collector(lines: list[Line]) -> Callable[[str], None]:
    def take(line: str) -> None:
        try:
            document = json.loads(line)
        except ValueError:
            return
        if isinstance(document, dict):
            lines.append(document)

    return take


def _ended(lines: Sequence[Line], finished: Finished) -> BuilderError:
    """What a child ended by."""
    said = lines[-1] if lines else {}
    if said.get("code") == "no_space":
        return DiskFullError(str(said["error"]), hint="free some space, then run the same command again")
    if "error" in said:
        return _refusal(said)
    last = finished.lines[-1] if finished.lines else "no word"
    return BuilderError(f"the decoder ended with exit code {finished.code}: {last}")
