"""The doctor's looks at models and the places for them: found and whole, checksums, caches, disk."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.doctor_check import Check, ChildFailedError, ask_child
from engine.errors import ConfigError
from engine.places import Place, cuda_cache, model_cache, temporary_folder, unwritable

__all__ = [
    "CHECKSUMS",
    "SHARED_MEMORY",
    "VERIFY_LIMIT_S",
    "look_at_disk",
    "look_at_models",
    "look_at_places",
    "sum_problems",
]

CHECKSUMS = "SHA256SUMS"
"""In a model's directory, as sha256sum writes it: the image's build puts it beside baked weights."""
VERIFY_LIMIT_S = 300.0
"""3 GB from a network volume."""
READ_BYTES = 1 << 20
WORKER_DEFAULT = "base"
"""What a worker on RunPod runs if nothing else is asked for, as worker-faster_whisper does."""
LEAST_FREE_GB, GOOD_FREE_GB = 0.2, 5.0
"""Nothing works for long with less than the first; the largest models have 3.1 GB."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - writable where the root file system is read-only
TEMPORARY_GB = 1.0
"""An upload of the largest size that is taken by default, and what is made of it."""
_SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


def look_at_models(environ: Mapping[str, str]) -> Iterator[Check]:
    """Each model that is configured: where it is and whether it is whole; nothing is downloaded."""
    from engine.settings import load_settings

    try:
        settings = load_settings({"no_auth": True})
        is_worker = _is_worker(environ)
    except ConfigError:
        yield Check("model", "skip", "needs valid settings")
        return
    wanted = [entry.partition("=")[2] or entry for entry in _entries(settings.models)] if is_worker else []
    if settings.model or not wanted:
        default = WORKER_DEFAULT if is_worker and settings.in_pod else settings.effective_model
        wanted.insert(0, settings.model or default)
    for name in dict.fromkeys(wanted):
        yield from _model(name)


def _is_worker(environ: Mapping[str, str]) -> bool:
    from engine.modes import choose_mode

    return choose_mode(environ).mode == "serverless"


def _entries(models: str | None) -> list[str]:
    return [entry.strip() for entry in (models or "").split(",") if entry.strip()]


def _model(name: str) -> Iterator[Check]:
    try:
        answer = ask_child("model", name)
    except ChildFailedError as error:
        yield Check("model", "fail", f"{name} cannot be looked for: {error}")
        return
    if answer["problem"]:
        target = answer["would_download_to"]
        if target and _free_gb(Path(target)) < LEAST_FREE_GB:
            yield Check("model", "fail", f"{name} is not here, and {target} has no room for it", "mount a larger disk")
        elif target:
            remedy = "for a quick start, and without a network, bake it into the image or put it on a volume"
            yield Check("model", "warn", f"{name} is not here; the start downloads it into {target}", remedy)
        else:
            yield Check("model", "fail", answer["problem"], "set WHISPER_MODEL, or bake the model into the image")
        return
    path = Path(answer["path"])
    yield Check("model", "ok", f"{name} is whole: {path}, from {answer['origin']}")
    if not (path / CHECKSUMS).is_file():
        yield Check("checksums", "skip", f"{name} comes without {CHECKSUMS}")
        return
    problems = sum_problems(path)
    if problems:
        yield Check("checksums", "fail", f"{name}: {'; '.join(problems[:5])}", "build or pull the image again")
    else:
        yield Check("checksums", "ok", f"{name}: every file is as {CHECKSUMS} says")


def sum_problems(path: Path) -> list[str]:
    """What differs from the checksums in a model's directory."""
    try:
        lines = (path / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return [f"{CHECKSUMS} cannot be read"]
    problems, names = [], set()
    for line in filter(None, lines):
        found = _SUM_LINE.fullmatch(line.rstrip())
        # Only files of this directory: the list may be anybody's.
        if found is None or ".." in Path(found[2]).parts or Path(found[2]).is_absolute():
            problems.append(f"{CHECKSUMS} holds a line that is no checksum of a file here")
            continue
        name = found[2].removeprefix("./")
        names.add(name)
        try:
            if _sha256(path / name) != found[1]:
                problems.append(f"{name} differs")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
    return problems if "model.bin" in names else [*problems, "model.bin is not listed"]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def look_at_places(environ: Mapping[str, str]) -> Iterator[Check]:
    """Where downloads and compiled kernels go, and whether that outlives the container."""
    yield _place("model cache", model_cache(environ))
    yield _place("kernel cache", cuda_cache(environ))


def _place(name: str, place: Place) -> Check:
    if not place.is_writable:
        return Check(name, "warn", place.reason, "mount a volume, or --tmpfs /tmp; or set HF_HOME to a writable folder")
    kept = "outlives the container" if place.is_persistent else "lost with the container"
    return Check(name, "ok", f"{place.path} ({place.reason}); {kept}")


def look_at_disk(environ: Mapping[str, str]) -> Iterator[Check]:
    """Room for a model, and for temporary files."""
    place = model_cache(environ)
    if place.is_writable:
        # No failure: whether something must be downloaded is for `look_at_models` to say.
        yield _room("disk", place.path, 0.0, GOOD_FREE_GB, "enough for a large model")
    temporary = temporary_folder()
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError:
        problem = unwritable(temporary)
        yield Check("temporary files", "fail", f"{temporary}: {problem or 'no room'}", "add --tmpfs /tmp")
        return
    if temporary == SHARED_MEMORY:
        yield Check("temporary files", "warn", f"only {temporary} is writable, which is small", "add --tmpfs /tmp")
        return
    yield _room("temporary files", temporary, LEAST_FREE_GB, TEMPORARY_GB, "enough for the largest upload")


def _free_gb(path: Path) -> float:
    nearest = next(each for each in (path, *path.parents) if each.exists())
    return shutil.disk_usage(nearest).free / 1e9


def _room(name: str, path: Path, least_gb: float, good_gb: float, enough: str) -> Check:
    free_gb = _free_gb(path)
    says = f"{free_gb:.1f} GB free at {path}"
    if free_gb < least_gb:
        return Check(name, "fail", says, "free some space, or give the container a larger disk")
    if free_gb < good_gb:
        return Check(name, "warn", f"{says}; {good_gb:g} GB are {enough}", "a larger disk, if one is needed")
    return Check(name, "ok", says)
