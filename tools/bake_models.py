"""Puts model weights into an image: `python bake_models.py --models LIST --to FOLDER`, while it is built.

Each item of the comma-separated list is a NAME of the table (requirements/models.json), or
NAME=OWNER/REPOSITORY@REVISION:MANIFEST, where REVISION is a commit of 40 hex digits and MANIFEST the
SHA-256 of the files' checksums as `sha256sum` prints them, sorted by name. A model without revision or
checksums is refused, and so is a file that is not what its checksum says: nobody could tell later what
is in the image. Needs Python alone, no package.

Exit codes: 0 all are in FOLDER; 1 one could not be had; 2 the list or the table is wrong.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["MODEL_FILES", "FetchError", "Model", "TableError", "Web", "is_sha256", "main", "manifest", "parse_models"]

MODEL_FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
"""The files of a repository that faster-whisper reads; `engine.hub` fetches the same."""
DEFAULT_HUB = "https://huggingface.co"
TRIES = 3
PAUSE_S = 2.0
TIMEOUT_S = 60.0
BLOCK_BYTES = 1 << 20
MAX_ANSWER_BYTES = 8 << 20
"""A list of files is far smaller."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILE = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_HINT = "`make pin-models` fills it in where the hub can be reached"


class TableError(Exception):
    """The list of models, or the table, says something that cannot be baked."""


class FetchError(Exception):
    """A model's file could not be had, or is not what its checksum says."""


@dataclass(frozen=True)
class Model:
    """What to bake: of a hub's repository at a commit, or a folder of this repository.

    `files` maps names to SHA-256; None: the files are the repository's, and `manifest` covers them.
    """

    name: str
    repo: str | None
    revision: str | None
    folder: str | None
    files: Mapping[str, str] | None
    manifest: str | None = None


def is_sha256(text: object) -> bool:
    """True for 64 hex digits in small letters."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def manifest(files: Mapping[str, str]) -> str:
    """SHA-256 of the checksums of files, as `sha256sum` prints them, sorted by name."""
    text = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_models(wanted: str, table: Mapping[str, Any]) -> list[Model]:
    """Read WHISPER_MODELS; raises TableError for what is unknown, or has no revision or checksum."""
    items = [item.strip() for item in wanted.split(",") if item.strip()]
    models = [_inline(item) if "=" in item else _from_table(item, table) for item in items]
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TableError(f"WHISPER_MODELS: {twice!r} is there twice; legal: each name once")
    inner = next((name for name in names if name.partition("/")[0] in names and "/" in name), None)
    if inner is not None:
        # Baking the outer one would remove it.
        raise TableError(f"WHISPER_MODELS: {inner!r} lies in the folder of another model; legal: names apart")
    return models


def _inline(item: str) -> Model:
    name, _, source = item.partition("=")
    repo, _, pins = source.partition("@")
    revision, _, checksum = pins.partition(":")
    if not (_NAME.fullmatch(name) and _REPO.fullmatch(repo)):
        raise TableError(f"WHISPER_MODELS: {item!r} is no model; legal: NAME=OWNER/REPOSITORY@REVISION:MANIFEST")
    hint = f"`python -m tools.pin_models --item {name}={repo}` prints both"
    _require_revision(name, revision, hint)
    if not is_sha256(checksum):
        said = repr(checksum) if checksum else "no checksum"
        raise TableError(f"WHISPER_MODELS: {name!r} has {said}; legal: 64 hex digits after the revision; {hint}")
    return Model(name, repo, revision, None, None, checksum)


def _from_table(name: str, table: Mapping[str, Any]) -> Model:
    entry = table.get(name)
    if not isinstance(entry, dict) or not _NAME.fullmatch(name):
        raise TableError(f"WHISPER_MODELS: {name!r} is unknown; legal: {', '.join(sorted(table))}, or NAME=OWNER/...")
    files = entry.get("files")
    if "folder" not in entry:
        if not _REPO.fullmatch(str(entry.get("repo"))):
            raise TableError(f"models.json: {name!r}: repo is {entry.get('repo')!r}; legal: OWNER/REPOSITORY")
        _require_revision(name, entry.get("revision"), _HINT)
    if not isinstance(files, dict) or not files:
        raise TableError(f"WHISPER_MODELS: {name!r} has no files with checksums in models.json; {_HINT}")
    for file, checksum in files.items():
        if not _FILE.fullmatch(file):
            raise TableError(f"models.json: {name!r}: {file!r} is no file name; legal: letters, digits, '.', '_', '-'")
        if not is_sha256(checksum):
            raise TableError(f"WHISPER_MODELS: {name!r}: {file} has no checksum in models.json; {_HINT}")
    if "model.bin" not in files:
        raise TableError(f"models.json: {name!r} lists no model.bin")
    return Model(name, entry.get("repo"), entry.get("revision"), entry.get("folder"), files)


def _require_revision(name: str, revision: object, hint: str) -> None:
    if not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        said = repr(revision) if revision else "no revision"
        raise TableError(f"WHISPER_MODELS: {name!r} has {said}; legal: a commit of 40 hex digits; {hint}")


class Web:
    """A model hub, asked over HTTP with a few tries. Errors name files, never an address."""

    def __init__(self, hub: str, *, tries: int = TRIES, pause_s: float = PAUSE_S) -> None:
        if not hub.startswith(("https://", "http://")):
            raise TableError(f"HF_ENDPOINT: {hub!r} is no address; legal: https://HOST")
        self._hub, self._tries, self._pause_s = hub.rstrip("/"), tries, pause_s

    def info(self, repo: str, revision: str) -> dict[str, Any]:
        """What the hub tells about a repository: `sha`, and `siblings` with `rfilename` and `lfs`."""
        path = f"/api/models/{repo}/revision/{revision}?blobs=true"
        body = b"".join(self._stream(path, f"the list of files of {repo}", MAX_ANSWER_BYTES))
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("siblings"), list):
            raise FetchError(f"the list of files of {repo} is no list")
        return answer

    def model_files(self, repo: str, revision: str) -> list[str]:
        """Names of the files that a model needs."""
        names = [str(each.get("rfilename")) for each in self.info(repo, revision)["siblings"] if isinstance(each, dict)]
        return sorted(n for n in names if _FILE.fullmatch(n) and any(fnmatch.fnmatchcase(n, p) for p in MODEL_FILES))

    def file_sha256(self, repo: str, revision: str, file: str, target: Path | None = None) -> str:
        """Fetch a file and return its SHA-256; with `target`, keep it there."""
        for attempt in range(self._tries):
            digest = hashlib.sha256()
            try:
                with (target or Path(os.devnull)).open("wb") as out:
                    for block in self._once(f"/{repo}/resolve/{revision}/{file}"):
                        digest.update(block)
                        out.write(block)
                return digest.hexdigest()
            except (OSError, http.client.HTTPException) as error:
                self._give_up(error, attempt, f"{repo}: {file}")
        raise AssertionError("unreachable")

    def _stream(self, path: str, what: str, limit_bytes: int) -> list[bytes]:
        for attempt in range(self._tries):
            blocks: list[bytes] = []
            try:
                for block in self._once(path):
                    blocks.append(block)
                    if sum(map(len, blocks)) > limit_bytes:
                        raise FetchError(f"{what} is longer than {limit_bytes} bytes")
                return blocks
            except (OSError, http.client.HTTPException) as error:
                self._give_up(error, attempt, what)
        raise AssertionError("unreachable")

    def _once(self, path: str) -> Iterator[bytes]:
        request = urllib.request.Request(self._hub + path, headers={"User-Agent": "whisper-runpod"})  # noqa: S310 - https or http, see __init__
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
            length = answer.headers.get("Content-Length")
            received = 0
            while block := answer.read(BLOCK_BYTES):
                received += len(block)
                yield block
            if length is not None and received != int(length):
                raise http.client.IncompleteRead(b"", int(length) - received)

    def _give_up(self, error: Exception, attempt: int, what: str) -> None:
        """Sleep before the next try; raises FetchError if there is none or it would end the same way."""
        if isinstance(error, urllib.error.HTTPError):
            reason, is_final = f"the hub answered {error.code}", error.code < 500 and error.code not in (408, 429)
        else:
            reason, is_final = str(getattr(error, "reason", None) or type(error).__name__), False
        if is_final or attempt + 1 == self._tries:
            raise FetchError(f"{what} cannot be had: {reason}") from None
        time.sleep(self._pause_s * 2**attempt)


def bake(model: Model, folder: Path, web: Web, root: Path) -> None:
    """Put one model into `folder`/NAME; raises FetchError and leaves nothing of it there."""
    target = folder / model.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        _fill(model, target, web, root)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _fill(model: Model, target: Path, web: Web, root: Path) -> None:
    names = sorted(model.files) if model.files is not None else web.model_files(str(model.repo), str(model.revision))
    found: dict[str, str] = {}
    for name in names:
        if model.folder is not None:
            found[name] = _copy(root / model.folder / name, target / name)
        else:
            found[name] = web.file_sha256(str(model.repo), str(model.revision), name, target / name)
        wanted = found[name] if model.files is None else model.files[name]
        if found[name] != wanted:
            raise FetchError(f"{model.name}: {name} has the SHA-256 {found[name]}, and {wanted} is wanted")
    if model.manifest is not None and manifest(found) != model.manifest:
        raise FetchError(
            f"{model.name}: the files have the manifest SHA-256 {manifest(found)}, and {model.manifest} is wanted"
        )


def _copy(source: Path, target: Path) -> str:
    try:
        shutil.copyfile(source, target)
        return hashlib.sha256(target.read_bytes()).hexdigest()  # the demo model is small
    except OSError as error:
        raise FetchError(f"{source} cannot be copied ({error.strerror})") from None


def read_table(path: Path) -> dict[str, Any]:
    """Read models.json; raises TableError."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise TableError(f"the table {path} cannot be read ({reason})") from None
    if not isinstance(table, dict):
        raise TableError(f"the table {path} is no object of models")
    return table


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise TableError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bake what is wanted; returns the exit code."""
    parser = _Parser(description=(__doc__ or "").partition("\n")[0], prog="bake_models.py")
    parser.add_argument("--models", default=os.environ.get("WHISPER_MODELS", ""), help="the list (WHISPER_MODELS)")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="one folder per model goes here")
    parser.add_argument("--table", type=Path, default=Path("requirements/models.json"), help="default: %(default)s")
    parser.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="where the table's folders lie")
    parser.add_argument("--hub", default=os.environ.get("HF_ENDPOINT") or DEFAULT_HUB, help="default: HF_ENDPOINT")
    try:
        given = parser.parse_args(arguments)
        models, web = parse_models(given.models, read_table(given.table)), Web(given.hub)
        given.to.mkdir(parents=True, exist_ok=True)
        for model in models:
            bake(model, given.to, web, given.root)
            sys.stdout.write(f"baked {model.name} ({model.revision or model.folder})\n")
    except (TableError, FetchError) as error:
        sys.stderr.write(f"bake_models.py: {error}\n")
        return 2 if isinstance(error, TableError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
