"""What is remembered of each recording, so that no interruption loses or repeats what was paid for.

`artifacts/transcribe/KEY.json` is a recording: how it goes, its parts, their jobs; written before and after each step.
`artifacts/transcribe/KEY/` holds pieces (NNNN.flac) and results (NNNN.result.json). KEY stands for the endpoint, the
file (path, size, time) or URL, and the options of its jobs. `written.json` tells which transcripts were written here.
What was of no use for KEPT_S is removed: results are transcripts, and pieces are large.

Nothing secret is in these files: of a URL only what `inputs.shown_url` leaves, of stored objects their key alone.
Files are replaced, never half written, and readable by their owner alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from builder.errors import ConflictError
from builder.state import write_private

__all__ = ["KEPT_S", "Ledger", "Ledgers", "Part", "PartState", "WorkerTime", "Written", "key_of"]

VERSION = 1
KEPT_S = 30 * 86_400.0
KEY_CHARS = 24
PartState = Literal["new", "submitting", "submitted", "done", "failed"]
"""`submitting` is written before a job is sent: found later, nobody knows whether it was."""
_STATES = ("new", "submitting", "submitted", "done", "failed")
_WAYS = ("url", "inline", "upload", "pieces")
_KEPT = ("lock", "written.json")


@dataclass(frozen=True)
class WorkerTime:
    """What a job took, which is what is billed: on which worker, on which GPU (None: not known)."""

    worker_id: str | None
    gpu: str | None
    ms: int


@dataclass(frozen=True)
class Written:
    """A transcript: the mark of its source, and digests of its last contents."""

    mark: str
    digests: tuple[str, ...]


@dataclass
class Part:
    """A job's share of a recording, from `start_s` to `end_s` (None: to its end); `file` is a piece's name."""

    index: int
    start_s: float = 0.0
    end_s: float | None = None
    file: str | None = None
    state: PartState = "new"
    job_id: str | None = None
    sent_at: float | None = None
    submits: int = 0
    lost: int = 0
    """Submissions whose answer was lost: such a job may run, and be paid for, beside the one that counts."""
    retried: bool = False
    error: str | None = None
    times: list[WorkerTime] = field(default_factory=list)


@dataclass
class Ledger:
    """One recording."""

    key: str
    shown: str
    endpoint_id: str
    way: str | None = None
    duration_s: float | None = None
    parts: list[Part] = field(default_factory=list)
    object_key: str | None = None
    """The object that was uploaded and is to be removed."""

    @property
    def is_complete(self) -> bool:
        """True if nothing is left to be asked."""
        return bool(self.parts) and all(part.state == "done" for part in self.parts)

    @property
    def left_s(self) -> float | None:
        """Seconds of sound that no job was sent for yet; None: not known."""
        unsent = [part for part in self.parts if part.state not in ("done", "submitted")]
        if not self.parts or len(unsent) == len(self.parts):
            return self.duration_s
        ends = [(part.start_s, self.duration_s if part.end_s is None else part.end_s) for part in unsent]
        return None if any(end is None for _, end in ends) else sum((end or 0.0) - start for start, end in ends)


def key_of(identity: list[object], endpoint_id: str, options: Mapping[str, Any]) -> str:
    """A name for a recording with these options at this endpoint."""
    text = json.dumps([endpoint_id, identity, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_CHARS]


class Ledgers:
    """All that is remembered, in `folder`; `warn` tells what could not be read."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn
        self._written: dict[str, Written] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works in this folder. Raises ConflictError if somebody does."""
        try:
            import fcntl
        except ImportError:
            # No such locks on this system: two at once are the user's business.
            yield
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConflictError(
                    f"another transcribe works in {self.folder}; two would pay for the same jobs twice",
                    hint="wait for its end, or use another --env-file's folder",
                ) from None
            yield
        finally:
            os.close(descriptor)

    def load(self, key: str, shown: str, endpoint_id: str) -> Ledger:
        """What is remembered under `key`, or a fresh one; a damaged one is set aside with a warning."""
        path = self._path(key)
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return Ledger(key, shown, endpoint_id)
        except (OSError, ValueError) as error:
            text = f"unreadable: {type(error).__name__}"
        # It is of use: see `drop_old`.
        with suppress(OSError):
            os.utime(path)
        try:
            return _ledger(json.loads(text), key, shown, endpoint_id)
        except (ValueError, TypeError, KeyError, RecursionError):
            aside = path.with_name(f"{path.name}.damaged")
            with suppress(OSError):
                path.replace(aside)
            self._warn(
                f"{shown}: what was remembered of it is damaged and was set aside as {aside.name}; it begins again, "
                "and jobs that still run for it are paid for twice"
            )
            return Ledger(key, shown, endpoint_id)

    def save(self, ledger: Ledger) -> None:
        """Remember it as it is now. Raises DiskFullError, BuilderError."""
        document = {"version": VERSION, **dataclasses.asdict(ledger)}
        write_private(self._path(ledger.key), json.dumps(document, indent=1) + "\n")

    def pieces_folder(self, ledger: Ledger) -> Path:
        """Where its pieces and results are."""
        folder = self.folder / ledger.key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def put_result(self, ledger: Ledger, part: Part, output: Mapping[str, Any]) -> None:
        """Keep what a job gave, before the part is said to be done."""
        write_private(self.pieces_folder(ledger) / _result_name(part), json.dumps(output))

    def result(self, ledger: Ledger, part: Part) -> dict[str, Any] | None:
        """What a job gave; None if it is not there any more."""
        try:
            output = json.loads((self.folder / ledger.key / _result_name(part)).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return output if isinstance(output, dict) else None

    def forget_pieces(self, ledger: Ledger) -> None:
        """Remove the sound, which is not needed any more; results stay."""
        for part in ledger.parts:
            if part.file is not None:
                with suppress(OSError):
                    (self.folder / ledger.key / part.file).unlink()

    def drop_old(self, now_s: float) -> None:
        """Remove what no run asked for in the last KEPT_S; jobs and their results at RunPod are gone for long."""
        with suppress(OSError):
            for path in list(self.folder.iterdir()):
                # The folder of a ledger goes with it.
                is_beside = path.is_dir() and self._path(path.name).exists()
                if path.name in _KEPT or is_beside or now_s - path.lstat().st_mtime < KEPT_S:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()
                    shutil.rmtree(self.folder / path.stem, ignore_errors=True)

    def written(self) -> Mapping[str, Written]:
        """Transcripts that were, or were about to be, written here, by their paths."""
        if self._written is None:
            try:
                document = json.loads((self.folder / "written.json").read_text(encoding="utf-8"))
                self._written = {
                    str(path): Written(str(each["mark"]), tuple(map(str, each["digests"])))
                    for path, each in document.items()
                    if os.path.lexists(path)
                }
            except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self._written = {}
        return self._written

    def add_written(self, mark: str, more: Mapping[str, str]) -> None:
        """Remember transcripts of a source, before they are written: what stands there already is ours as well."""
        written = dict(self.written())
        for path, digest in more.items():
            before = written.get(path)
            kept = [] if before is None or before.mark != mark else [each for each in before.digests if each != digest]
            written[path] = Written(mark, (*kept[-1:], digest))
        document = {path: dataclasses.asdict(each) for path, each in written.items()}
        write_private(self.folder / "written.json", json.dumps(document, indent=0) + "\n")
        self._written = written

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _result_name(part: Part) -> str:
    return f"{part.index:04d}.result.json"


def _ledger(document: Any, key: str, shown: str, endpoint_id: str) -> Ledger:
    """Raises ValueError, TypeError or KeyError for what no ledger looks like."""
    if document["version"] != VERSION or document["key"] != key or document["way"] not in (None, *_WAYS):
        raise ValueError("another ledger")
    parts = []
    for number, given in enumerate(document["parts"]):
        times = [WorkerTime(**each) for each in given.pop("times")]
        part = Part(**given, times=times)
        file_is_plain = part.file is None or part.file == Path(part.file).name
        if part.index != number or part.state not in _STATES or not file_is_plain:
            raise ValueError("no part")
        if part.state == "submitted" and not isinstance(part.job_id, str):
            raise ValueError("no job")
        parts.append(part)
    duration_s = document["duration_s"]
    return Ledger(
        key,
        shown,
        endpoint_id,
        document["way"],
        None if duration_s is None else float(duration_s),
        parts,
        document["object_key"],
    )
