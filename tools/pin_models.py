"""Fills in requirements/models.json, `python -m tools.pin_models`: revisions and checksums of the weights.

For each model without a revision the hub is asked for the commit of `main` and its files; a file's
SHA-256 is the hub's own for large files, which images check again when they fetch them, and is computed
from the file for small ones. Checksums of this repository's own model are computed from its files.
Nothing is invented: what cannot be had stays as it is, and one line says why.

Exit codes: 0 all are pinned; 1 some are not; 2 wrong usage or table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bake_models import DEFAULT_HUB, FetchError, TableError, Web, is_sha256, manifest, parse_models, read_table

__all__ = ["main"]


def pin(entry: dict[str, Any], web: Web, root: Path) -> dict[str, Any]:
    """An entry of the table with revision and checksums; raises FetchError."""
    if "folder" in entry:
        return entry | {"files": _folder_checksums(root / str(entry["folder"]))}
    revision, files = _look_up(str(entry.get("repo")), web)
    return entry | {"revision": revision, "files": files}


def _folder_checksums(folder: Path) -> dict[str, str]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    except OSError as error:
        raise FetchError(f"{folder} cannot be read ({error.strerror})") from None


def _look_up(repo: str, web: Web) -> tuple[str, dict[str, str]]:
    answer = web.info(repo, "main")
    revision = answer.get("sha")
    if not isinstance(revision, str) or len(revision) != 40:
        raise FetchError(f"the hub names no commit of {repo}")
    # What belongs to that commit, should `main` move on meanwhile.
    large = _large_checksums(web.info(repo, revision))
    names = web.model_files(repo, revision)
    if "model.bin" not in names:
        raise FetchError(f"{repo} has no model.bin: it is no CTranslate2 model")
    return revision, {name: large.get(name) or web.file_sha256(repo, revision, name) for name in names}


def _large_checksums(answer: dict[str, Any]) -> dict[str, str]:
    """The hub's own SHA-256 of files that it keeps outside git."""
    found = {}
    for each in answer["siblings"]:
        lfs = each.get("lfs") if isinstance(each, dict) else None
        checksum = lfs.get("sha256") if isinstance(lfs, dict) else None
        if is_sha256(checksum):
            found[str(each["rfilename"])] = str(checksum)
    return found


def _is_pinned(name: str, table: dict[str, Any]) -> bool:
    try:
        parse_models(name, table)
    except TableError:
        return False
    return True


def _pin_table(path: Path, names: Sequence[str], web: Web, *, update: bool) -> int:
    """Pin the named models, or all; returns the exit code. Writes the file only if something changed."""
    table = read_table(path)
    unknown = [name for name in names if name not in table]
    if unknown:
        raise TableError(f"{path} has no {unknown[0]!r}; legal: {', '.join(table)}")
    before, failed = json.dumps(table), 0
    for name in names or list(table):
        if _is_pinned(name, table) and not update and "folder" not in table[name]:
            continue
        try:
            table[name] = pin(table[name], web, path.resolve().parent.parent)
        except FetchError as error:
            failed += 1
            sys.stderr.write(f"pin_models.py: {name} stays as it is: {error}\n")
    if json.dumps(table) != before:
        scratch = path.with_name(path.name + ".part")
        scratch.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
        scratch.replace(path)
    pinned = sum(_is_pinned(name, table) for name in table)
    sys.stdout.write(f"{path}: {pinned} of {len(table)} models are pinned\n")
    return 1 if failed else 0


def _print_item(spec: str, web: Web) -> int:
    """Print an item for WHISPER_MODELS of a model that is not in the table."""
    name, _, repo = spec.partition("=")
    if not name or repo.count("/") != 1:
        raise TableError(f"--item: {spec!r} is no model; legal: NAME=OWNER/REPOSITORY")
    revision, files = _look_up(repo, web)
    sys.stdout.write(f"{name}={repo}@{revision}:{manifest(files)}\n")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Pin; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="pin_models.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the table (default: all)")
    parser.add_argument("--table", type=Path, default=Path("requirements/models.json"), help="default: %(default)s")
    parser.add_argument("--update", action="store_true", help="also move models that are pinned to today's commit")
    parser.add_argument("--item", metavar="NAME=OWNER/REPOSITORY", help="print an item for WHISPER_MODELS instead")
    parser.add_argument("--hub", default=os.environ.get("HF_ENDPOINT") or DEFAULT_HUB, help="default: HF_ENDPOINT")
    parser.add_argument("--tries", type=int, default=3, help="per question (default: 3)")
    given = parser.parse_args(arguments)
    try:
        web = Web(given.hub, tries=max(1, given.tries))
        if given.item:
            return _print_item(given.item, web)
        return _pin_table(given.table, given.names, web, update=given.update)
    except TableError as error:
        sys.stderr.write(f"pin_models.py: {error}\n")
        return 2
    except FetchError as error:
        sys.stderr.write(f"pin_models.py: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
