"""What the layers of an image hold beyond what is seen in it: a file that a later step deletes is still there.

The image is saved into the work folder for that, as either engine does it, and removed again.
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.image_checks.commands import check
from tools.image_checks.served import Target

__all__ = ["Hidden", "look_into_layers", "read_layer"]

SAVE_LIMIT_S = 900.0
MAX_READ_BYTES = 1 << 20
Hidden = tuple[str, Sequence[str]]
"""A file of a layer, and the names of the patterns that are found in it."""


def look_into_layers(target: Target, base: str, patterns: dict[str, str], read: tuple[str, ...]) -> list[Hidden]:
    """The files of all layers but the base's. Raises CheckFailedError."""
    n_base = _count(target, base)
    check(n_base < _count(target, target.image), "the image has no layer beyond its base")
    archive = target.engine.work / "image.tar"
    archive.unlink(missing_ok=True)
    try:
        target.engine.must("save", "-o", str(archive), target.image, limit_s=SAVE_LIMIT_S)
        return [hidden for name in _layer_names(archive)[n_base:] for hidden in _layer(archive, name, patterns, read)]
    finally:
        archive.unlink(missing_ok=True)


def _count(target: Target, image: str) -> int:
    return len(target.engine.inspect("image", image)["RootFS"]["Layers"])


def _layer_names(archive: Path) -> list[str]:
    with tarfile.open(archive) as saved:
        manifest = saved.extractfile("manifest.json")
        check(manifest, "the saved image has no manifest")
        return [str(name) for name in json.loads(manifest.read() if manifest else b"")[0]["Layers"]]


def _layer(archive: Path, name: str, patterns: dict[str, str], read: tuple[str, ...]) -> list[Hidden]:
    with tarfile.open(archive) as saved:
        member = saved.getmember(name)
        while member.issym() or member.islnk():
            # The same layer twice is saved once.
            folder = "" if member.islnk() else posixpath.dirname(member.name)
            member = saved.getmember(posixpath.normpath(posixpath.join(folder, member.linkname)))
        layer = saved.extractfile(member)
        check(layer, f"the saved image has no layer {name}")
        assert layer is not None
        with tarfile.open(fileobj=layer, mode="r|*") as files:
            return list(read_layer(files, patterns, read))


def read_layer(files: tarfile.TarFile, patterns: dict[str, str], read: tuple[str, ...]) -> Iterator[Hidden]:
    """The files of one layer."""
    compiled = {name: re.compile(text.encode()) for name, text in patterns.items()}
    for member in files:
        path = "/" + member.name.removeprefix("./").lstrip("/")
        if member.isdir() or path.rpartition("/")[2].startswith(".wh."):
            continue
        data = b""
        if member.isfile() and member.size <= MAX_READ_BYTES and path.startswith(read):
            content = files.extractfile(member)
            data = content.read() if content else b""
        yield path, [name for name, pattern in compiled.items() if pattern.search(data)]
