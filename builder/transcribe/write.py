"""Where transcripts go, and what is in them: beside each recording, or in one folder.

A file that was not written here, or was changed since, or is another recording's transcript, is never replaced unless
the user says so; that, and a folder that cannot be written, is found out before anything is paid for. Files appear
whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, DiskFullError, UsageError

if TYPE_CHECKING:
    from builder.transcribe.inputs import Source
    from builder.transcribe.ledger import Written
    from builder.transcribe.merge import Transcript

__all__ = ["check_folders", "check_targets", "digest_of", "render", "target_bases", "write_all"]

MAX_NAME_BYTES = 250
"""Of a transcript without its suffix: file systems take 255."""
MAX_SHOWN = 5


def target_bases(sources: Sequence[Source], out: Path | None) -> list[Path]:
    """For each source the path of its transcripts without the format's suffix.

    `talk.mp3` gives `talk`; two that would meet give `talk.mp3` and `talk.wav`, and if that is not enough (the same
    name in two folders, or URLs), a few letters more that depend on the source alone. So do names that are too long.
    """
    choices = [_choices(each, out) for each in sources]
    levels = [0] * len(choices)
    while True:
        bases = [each[level] for each, level in zip(choices, levels, strict=True)]
        counts = Counter(map(_folded, bases))
        # One that has to give way may meet a third: until nothing moves.
        again = [n for n, base in enumerate(bases) if counts[_folded(base)] > 1 and levels[n] < len(choices[n]) - 1]
        if not again:
            return bases
        for n in again:
            levels[n] += 1


def check_targets(
    bases: Sequence[Path], marks: Sequence[str], formats: Sequence[str], written: Mapping[str, Written]
) -> None:
    """Raises UsageError if a file that is not ours, or not of the source of that mark, is where one belongs."""
    foreign = [
        path
        for base, mark in zip(bases, marks, strict=True)
        for path in (_path(base, name) for name in formats)
        if _is_foreign(path, mark, written)
    ]
    if foreign:
        shown = ", ".join(str(path) for path in foreign[:MAX_SHOWN])
        more = f" and {len(foreign) - MAX_SHOWN} more" if len(foreign) > MAX_SHOWN else ""
        raise UsageError(
            f"{shown}{more}: there already, and not written here for this recording; nothing was sent",
            hint="replace with --force, or choose a folder: --out DIR",
        )


def check_folders(bases: Sequence[Path]) -> None:
    """Raises UsageError if transcripts could not be written where they belong."""
    for folder in dict.fromkeys(base.parent for base in bases):
        there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
        if not there.is_dir():
            raise UsageError(f"{folder}: {there} is no folder", hint="choose another: --out DIR")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"{folder}: transcripts cannot be written there", hint="choose a folder: --out DIR")


def write_all(
    base: Path,
    mark: str,
    formats: Sequence[str],
    transcript: Transcript,
    written: Mapping[str, Written],
    remember: Callable[[str, Mapping[str, str]], None],
    *,
    force: bool,
) -> list[str]:
    """Write a transcript in all formats; returns the paths. `remember` gets the source's mark, paths and digests first.

    Raises UsageError for a file that came in between and is not ours, DiskFullError, BuilderError.
    """
    if not force:
        check_targets([base], [mark], formats, written)
    contents = {_path(base, name): render(transcript, name).encode("utf-8", "replace") for name in formats}
    remember(mark, {str(path): digest_of(data) for path, data in contents.items()})
    for path, data in contents.items():
        if not _holds(path, data):
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


def _choices(source: Source, out: Path | None) -> list[Path]:
    """Where its transcripts may go, the best first."""
    base = source.home / source.under.name if out is None else out.joinpath(*source.under.parts)
    names = [base.name, base.name + source.suffix]
    short = next(name for name in _shortened(names[1]) if len(os.fsencode(f"{name}-{source.mark}")) <= MAX_NAME_BYTES)
    fitting = [name for name in names if len(os.fsencode(name)) <= MAX_NAME_BYTES]
    return [base.with_name(name) for name in (*fitting, f"{short}-{source.mark}")]


def _shortened(name: str) -> Iterator[str]:
    return (name[:n] for n in range(len(name), -1, -1))


def _folded(path: Path) -> str:
    """Paths that some file systems take for the same are the same."""
    return os.path.normcase(str(path)).casefold()


def _path(base: Path, name: str) -> Path:
    return base.with_name(f"{base.name}.{name}")


def _is_foreign(path: Path, mark: str, written: Mapping[str, Written]) -> bool:
    if not os.path.lexists(path):
        return False
    ours = written.get(str(path))
    try:
        return ours is None or ours.mark != mark or digest_of(path.read_bytes()) not in ours.digests
    except OSError:
        return True


def _holds(path: Path, data: bytes) -> bool:
    """Tools that watch a folder need not hear of what is as it was."""
    try:
        return not path.is_symlink() and path.read_bytes() == data
    except OSError:
        return False


def _write(path: Path, data: bytes) -> None:
    # Not longer than the path's own name, which may be as long as names can be.
    temporary = path.with_name(f".{digest_of(os.fsencode(path.name))[:16]}.{os.getpid()}")
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
        kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else BuilderError
        raise kind(
            f"{path} cannot be written: {error.strerror}; its result is kept",
            hint="free some space, then run the same command again: nothing is paid for twice",
        ) from None
