"""Where transcripts go, and what is in them: beside each recording, or in one folder.

A file that was not written here, or was changed since, is never replaced unless the user says so; that is found out
before anything is paid for. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, DiskFullError, UsageError

if TYPE_CHECKING:
    from builder.transcribe.inputs import Source
    from builder.transcribe.merge import Transcript

__all__ = ["check_targets", "digest_of", "render", "target_bases", "write_all"]

HASH_CHARS = 6
MAX_SHOWN = 5


def target_bases(sources: Sequence[Source], out: Path | None) -> list[Path]:
    """For each source the path of its transcripts without the format's suffix.

    `talk.mp3` gives `talk`; two that would meet give `talk.mp3` and `talk.wav`, and if that is not enough (the same
    name in two folders, or URLs), a few letters more that depend on the source alone.
    """
    plain = [_base(each, out) for each in sources]
    whole = [base.with_name(base.name + each.suffix) for base, each in zip(plain, sources, strict=True)]
    n_plain, n_whole = Counter(map(_folded, plain)), Counter(map(_folded, whole))
    bases = []
    for each, base, full in zip(sources, plain, whole, strict=True):
        if n_plain[_folded(base)] == 1:
            bases.append(base)
        elif n_whole[_folded(full)] == 1:
            bases.append(full)
        else:
            mark = hashlib.sha256((each.url or str(each.path)).encode()).hexdigest()[:HASH_CHARS]
            bases.append(full.with_name(f"{full.name}-{mark}"))
    return bases


def check_targets(bases: Sequence[Path], formats: Sequence[str], written: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError if a file that is not ours stands where a transcript belongs."""
    foreign = [path for base in bases for path in (_path(base, name) for name in formats) if _is_foreign(path, written)]
    if foreign:
        shown = ", ".join(str(path) for path in foreign[:MAX_SHOWN])
        more = f" and {len(foreign) - MAX_SHOWN} more" if len(foreign) > MAX_SHOWN else ""
        raise UsageError(
            f"{shown}{more}: there already, and not written here; nothing was sent",
            hint="replace with --force, or choose a folder: --out DIR",
        )


def write_all(
    base: Path,
    formats: Sequence[str],
    transcript: Transcript,
    written: Mapping[str, Sequence[str]],
    remember: Callable[[Mapping[str, str]], None],
    *,
    force: bool,
) -> list[str]:
    """Write a transcript in all formats; returns the paths. `remember` gets paths and digests first.

    Raises UsageError for a file that came in between and is not ours, DiskFullError, BuilderError.
    """
    if not force:
        check_targets([base], formats, written)
    contents = {_path(base, name): render(transcript, name).encode("utf-8", "replace") for name in formats}
    remember({str(path): digest_of(data) for path, data in contents.items()})
    for path, data in contents.items():
        _write(path, data)
    return [str(path) for path in contents]


def render(transcript: Transcript, name: str) -> str:
    """The document in one format; `json` has the shape of OpenAI's verbose_json."""
    from engine.formats import Cue
    from engine.formats import render as render_cues

    cues = []
    for each in transcript.segments:
        # Words here have all that the formats look at.
        words: Any = tuple(each.words)
        cues.append(Cue(each.start_s, each.end_s, each.text, words))
    return render_cues(cues, name, language=transcript.language, duration_s=transcript.duration_s, task=transcript.task)


def digest_of(data: bytes) -> str:
    """Tells whether a file is as it was written."""
    return hashlib.sha256(data).hexdigest()


def _base(source: Source, out: Path | None) -> Path:
    if out is not None:
        return out.joinpath(*source.under.parts)
    return source.home / source.under.name


def _folded(path: Path) -> str:
    """Paths that some file systems take for the same are the same."""
    return os.path.normcase(str(path)).casefold()


def _path(base: Path, name: str) -> Path:
    return base.with_name(f"{base.name}.{name}")


def _is_foreign(path: Path, written: Mapping[str, Sequence[str]]) -> bool:
    if not os.path.lexists(path):
        return False
    digests = written.get(str(path))
    try:
        return not digests or digest_of(path.read_bytes()) not in digests
    except OSError:
        return True


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kind = DiskFullError if error.errno in (28, 122) else BuilderError
        raise kind(f"{path} cannot be written: {error.strerror}") from None
