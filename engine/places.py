"""Where caches go: the first folder that can be written to of a RunPod volume, the Hugging Face home, temp.

A volume is often owned by root while the image runs as somebody else, and a root file system may be read-only. So
a folder counts only if a file can be made in it; for those that do not count it is said why. Nothing is left behind
by looking. The compiled kernels of CUDA go to the same place as models: what outlives the container for one does for
the other.

Imports nothing that is slow: the image's entrypoint asks here first.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = [
    "VOLUMES",
    "Place",
    "cache_variables",
    "cuda_cache",
    "hub_cache_dir",
    "is_ours",
    "is_persistent",
    "model_cache",
    "temporary_cache",
    "temporary_folder",
    "volume_cache",
]

VOLUMES = (Path("/runpod-volume"), Path("/workspace"))
"""Network volumes of serverless workers and of pods."""
CUDA_CACHE = "cuda-cache"
PROBE = bytes(4096)
MOUNTS_FILE = Path("/proc/self/mountinfo")
"""Linux, proc_pid_mountinfo(5): field 5 is where, the one behind the dash of what kind."""
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that docker and podman put into a container."""
VOLATILE_KINDS = frozenset({"overlay", "aufs", "fuse-overlayfs", "fuse.fuse-overlayfs", "tmpfs", "ramfs", "devtmpfs"})
"""File systems that end with the container, or with the machine's next start."""


@dataclass(frozen=True)
class Place:
    """A folder for a cache; it need not be there yet. `reason` says why it is this one, and why not an earlier one.

    `is_persistent`: what is in it outlives the container. `is_writable` is False only if no place is.
    """

    path: Path
    reason: str
    is_persistent: bool
    is_writable: bool = True
    is_flat: bool = False
    """Of a model cache: snapshots are in `path` itself."""
    is_private: bool = False
    """It is in a folder that is everybody's, so it must be closed to others."""

    @property
    def hub(self) -> Path:
        """Of a model cache: where its snapshots are, as HF_HUB_CACHE names it."""
        return self.path if self.is_flat else self.path / "hub"

    def make(self) -> bool:
        """Make the folder; False if it cannot be had, or others could have filled it."""
        try:
            self.path.mkdir(mode=0o700 if self.is_private else 0o777, parents=True, exist_ok=True)
        except OSError:
            return False
        return not self.is_private or is_ours(self.path)


def model_cache(
    environ: Mapping[str, str], *, volumes: Sequence[Path] = VOLUMES, temporary: Path | None = None
) -> Place:
    """Where models are downloaded to. `path` is a value for HF_HOME. `volumes` and `temporary` are for tests."""
    passed: list[str] = []
    for place in _candidates(environ, volumes, temporary or temporary_folder()):
        problem = _problem(place)
        if problem is None:
            reason = f"{place.reason}; passed over: {', '.join(passed)}" if passed else place.reason
            return replace(place, reason=reason, is_persistent=place.is_persistent and is_persistent(place.path))
        passed.append(f"{place.path if place.reason != _VOLUME else place.path.parent} ({problem})")
    return replace(place, reason=f"no place is writable: {', '.join(passed)}", is_persistent=False, is_writable=False)


def cuda_cache(
    environ: Mapping[str, str], *, volumes: Sequence[Path] = VOLUMES, temporary: Path | None = None
) -> Place:
    """Where CUDA keeps kernels that it compiled for this GPU: CUDA_CACHE_PATH, or beside the models."""
    given = environ.get("CUDA_CACHE_PATH")
    if given:
        path = Path(given)
        problem = unwritable(path)
        if problem is None:
            return Place(path, "CUDA_CACHE_PATH", is_persistent(path))
        return Place(path, f"CUDA_CACHE_PATH ({problem})", is_persistent=False, is_writable=False)
    place = model_cache(environ, volumes=volumes, temporary=temporary)
    path = place.path / CUDA_CACHE
    problem = unwritable(path) if place.is_writable else None
    if problem is not None:
        # Models were written here by one user, kernels by another.
        return Place(path, f"{place.reason}; {path.name} is {problem}", is_persistent=False, is_writable=False)
    return replace(place, path=path, is_flat=False, is_private=False)


def cache_variables(
    environ: Mapping[str, str], *, volumes: Sequence[Path] = VOLUMES, temporary: Path | None = None, make: bool = True
) -> dict[str, str]:
    """HF_HOME and CUDA_CACHE_PATH where they are not set; makes the folders if told to.

    HF_HOME stays unset where HF_HUB_CACHE or another variable already says where models are, and both do where no
    place can be had: a temporary folder that others have filled must not become a trusted one by its name.
    """
    found: dict[str, str] = {}
    models = model_cache(environ, volumes=volumes, temporary=temporary)
    if not models.is_writable or (make and not models.make()):
        return found
    if not any(environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")):
        found["HF_HOME"] = str(models.path)
    if not environ.get("CUDA_CACHE_PATH"):
        found["CUDA_CACHE_PATH"] = str(cuda_cache(environ, volumes=volumes, temporary=temporary).path)
    if make and "CUDA_CACHE_PATH" in found:
        with contextlib.suppress(OSError):
            # Compiled code: nobody else is to write here.
            Path(found["CUDA_CACHE_PATH"]).mkdir(mode=0o755, exist_ok=True)
    return found


def hub_cache_dir(environ: Mapping[str, str]) -> Path:
    """The Hugging Face cache that an environment asks for (their docs, "Environment variables")."""
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        if environ.get(variable):
            return _expanded(environ[variable]) / below
    return _expanded(environ.get("HOME") or "~") / ".cache/huggingface/hub"


def _expanded(text: str) -> Path:
    # Not Path.expanduser, which raises where a user is unknown; Hugging Face's own library leaves the text alone.
    return Path(os.path.expanduser(text))  # noqa: PTH111


def volume_cache(volume: Path) -> Path:
    """The Hugging Face cache on a volume."""
    return volume / "huggingface" / "hub"


def temporary_folder() -> Path:
    """The folder for temporary files; unlike Python's it is named even if it cannot be written to."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path("/tmp")  # noqa: S108 - only named here: nothing can be made in it


def temporary_cache(temporary: Path) -> Path:
    """The cache in a folder for temporary files."""
    return temporary / f"whisper-models-{os.getuid()}"


def is_ours(path: Path) -> bool:
    """True for a directory that nobody else can have filled: the temporary directory is everybody's."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and found.st_uid == os.getuid() and not found.st_mode & 0o022


def unwritable(path: Path) -> str | None:
    """Why nothing can be written in `path`, or in its nearest parent that is there; None if something can."""
    nearest = path
    while not os.path.lexists(nearest) and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as file:
            # An empty file can be made on a full disk, too.
            file.write(PROBE)
            return None
    except OSError as error:
        return f"not writable: {error.strerror or error}"


def is_persistent(path: Path, mounts: str | None = None, *, in_container: bool | None = None) -> bool:
    """True if files in `path` outlive the container (or, outside of one, the machine's next start).

    `mounts` is the text of MOUNTS_FILE. A container's own root ends with it, whatever its kind.
    """
    if in_container is None:
        in_container = any(mark.exists() for mark in CONTAINER_MARKS)
    if mounts is None:
        try:
            mounts = MOUNTS_FILE.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return not in_container
    best, kind = "", ""
    real = os.path.realpath(path)
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = _unescaped(fields.split()[4]) if len(fields.split()) > 4 else ""
        is_parent = point == "/" or real == point or real.startswith(point + "/")
        # Of two mounts on one point the later one counts.
        if point and is_parent and len(point) >= len(best):
            best, kind = point, rest.split(" ", 1)[0]
    return kind not in VOLATILE_KINDS and not (in_container and best in ("/", ""))


_VOLUME = "the network volume"


def _candidates(environ: Mapping[str, str], volumes: Sequence[Path], temporary: Path) -> Iterator[Place]:
    for volume in volumes:
        yield Place(volume_cache(volume).parent, _VOLUME, is_persistent=True)
    hub = hub_cache_dir(environ)
    is_flat = hub.name != "hub"
    yield Place(hub if is_flat else hub.parent, _asked_by(environ), is_persistent=True, is_flat=is_flat)
    yield Place(temporary_cache(temporary), "the temporary folder", is_persistent=False, is_flat=True, is_private=True)


def _asked_by(environ: Mapping[str, str]) -> str:
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    return next((name for name in names if environ.get(name)), "the home directory")


def _problem(place: Place) -> str | None:
    if place.reason == _VOLUME and not place.path.parent.is_dir():
        return "is not there"
    problem = unwritable(place.hub)
    if problem is None and place.is_private and os.path.lexists(place.path) and not is_ours(place.path):
        return "not writable: others can write to it too"
    return problem


def _unescaped(text: str) -> str:
    """Blanks and the like are written as octal numbers in the file."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
