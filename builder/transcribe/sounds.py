"""The sound of recordings on its way to jobs: as it is, cut into pieces, through storage, or by its URL."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from builder.errors import BuilderError, JobFailedError
from builder.transcribe.ledger import Ledger, Ledgers, Part
from builder.transcribe.plan import policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.runtime import Runtime
    from builder.transcribe.inputs import Source
    from builder.transcribe.upload import Store

__all__ = ["Sounds"]


class Sounds:
    """Makes parts and bodies of jobs; `options` are the jobs' input without the sound. `store` None: made if needed."""

    def __init__(
        self,
        run: Runtime,
        ledgers: Ledgers,
        options: Mapping[str, Any],
        *,
        room_bytes: int,
        timeout_s: float,
        store: Store | None = None,
    ) -> None:
        self._run = run
        self._ledgers = ledgers
        self._options = options
        self._room_bytes = room_bytes
        self._timeout_s = timeout_s
        self._made = store

    def prepare(self, ledger: Ledger, source: Source) -> None:
        """Give a recording its parts, cut or uploaded if they must be. Raises BuilderError."""
        path = source.path
        parts = [Part(0, 0.0, ledger.duration_s)]
        if ledger.way == "pieces" and path is not None:
            parts = self._cut(ledger, path)
        elif ledger.way == "upload" and path is not None:
            self._upload(ledger, path)
        _check_unchanged(source)
        ledger.parts = parts

    def body(self, ledger: Ledger, source: Source, part: Part) -> dict[str, Any]:
        """A part's job. Raises BuilderError."""
        if source.url is not None:
            audio = {"audio": source.url}
        elif ledger.way == "upload":
            if ledger.object_key is None:
                self._upload(ledger, _path_of(source))
            audio = {"audio": self._store.link(str(ledger.object_key))}
        else:
            audio = {"audio_base64": base64.b64encode(self._sound(ledger, source, part)).decode()}
        length_s = None if part.end_s is None else part.end_s - part.start_s
        return {"input": {**self._options, **audio}, "policy": policy(self._timeout_s, length_s)}

    def forget(self, ledger: Ledger) -> None:
        """Remove what is not needed once there is a transcript: pieces, and the object in the bucket."""
        self._ledgers.forget_pieces(ledger)
        if ledger.object_key is None:
            return
        try:
            self._store.remove(ledger.object_key)
        except BuilderError as error:
            self._run.console.warn(f"{ledger.shown}: object {ledger.object_key} is left in the bucket: {error}")
            return
        ledger.object_key = None
        self._ledgers.save(ledger)

    @property
    def _store(self) -> Store:
        if self._made is None:
            from builder.transcribe.upload import Store

            self._made = Store(self._run)
        return self._made

    def _upload(self, ledger: Ledger, path: Path) -> None:
        from builder.transcribe.upload import FOLDER

        # Its name is remembered before it can exist.
        ledger.object_key = ledger.object_key or f"{FOLDER}/{ledger.key}-{uuid4().hex}"
        self._ledgers.save(ledger)
        self._store.put(path, ledger.object_key)

    def _cut(self, ledger: Ledger, path: Path) -> list[Part]:
        from builder.transcribe.prepare import cut_file

        folder = self._ledgers.pieces_folder(ledger)
        found = cut_file(path, folder, self._room_bytes, self._run.environ, ledger.duration_s or 0.0)
        return [Part(number, each.start_s, each.end_s, each.file) for number, each in enumerate(found.slices)]

    def _sound(self, ledger: Ledger, source: Source, part: Part) -> bytes:
        path = _path_of(source)
        if part.file is not None:
            path = self._ledgers.pieces_folder(ledger) / part.file
            if not path.exists():
                self._cut_again(ledger, source)
        try:
            sound = path.read_bytes()
        except OSError as error:
            raise JobFailedError(f"{path}: {error.strerror}") from None
        if part.file is None:
            _check_unchanged(source)
        return sound

    def _cut_again(self, ledger: Ledger, source: Source) -> None:
        """Pieces that were removed come back as they were: the same file gives the same pieces."""
        found = [(part.file, part.start_s, part.end_s) for part in self._cut(ledger, _path_of(source))]
        if found != [(part.file, part.start_s, part.end_s) for part in ledger.parts]:
            path = self._ledgers.folder / f"{ledger.key}.json"
            raise JobFailedError(f"its pieces are gone, and now it is cut elsewhere; remove {path} to begin again")


def _check_unchanged(source: Source) -> None:
    """Raises JobFailedError if the file is not what was looked at: what is remembered would be of another."""
    if source.path is None:
        return
    try:
        info = source.path.stat()
    except OSError as error:
        raise JobFailedError(f"{source.path}: {error.strerror}") from None
    if (info.st_size, info.st_mtime_ns) != (source.n_bytes, source.modified_ns):
        raise JobFailedError("the file was changed meanwhile; run the same command again once it is complete")


def _path_of(source: Source) -> Path:
    if source.path is None:
        raise JobFailedError(f"{source.shown}: is no file")
    return source.path
