"""Model names -> local directories: the embedded demo, a path, caches, volumes, images, a download.

Pure resolution over a file system and a `Hub`; imports no heavy library. Says where a model came
from, or in one line why it cannot be had. Never falls back to another model, least of all to the
demo: somebody who asked for a real model must not be served by a toy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.errors import ModelUnavailableError
from engine.model_files import find_problem
from engine.places import VOLUMES, hub_cache_dir, is_ours, model_cache, temporary_cache, temporary_folder, volume_cache

__all__ = [
    "DEMO_LANGUAGES",
    "DEMO_MODEL_DIR",
    "DEMO_NAME",
    "Hub",
    "HubError",
    "Places",
    "ResolvedModel",
    "hub_cache_dir",
    "is_english_only",
    "resolve_model",
]

DEMO_NAME = "demo"
DEMO_LANGUAGES = ("en", "es")
"""What the embedded model was trained on; its tokenizer knows more languages than its weights."""
DEMO_MODEL_DIR = Path(__file__).resolve().parent / "demo_model" / "model"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_TRUE = ("1", "on", "true", "yes")
_ADVICE = "put the model into one of these places, or set WHISPER_MODEL to a directory that contains its model.bin"


class HubError(Exception):
    """A download failed; `str(error)` is a short reason without addresses and secrets."""


class Hub(Protocol):
    """What is needed of a model hub."""

    def known_names(self) -> tuple[str, ...]:
        """Short names of models, such as `small.en`."""
        ...

    def repo_id(self, name: str) -> str | None:
        """`owner/name` of a short name; None if it is not known."""
        ...

    def cached(self, repo_id: str, cache_dir: Path) -> Path | None:
        """The newest snapshot of a repository in a Hugging Face cache, complete or not; no network."""
        ...

    def download(self, repo_id: str, cache_dir: Path) -> Path:
        """Fetch a repository into a Hugging Face cache, with progress; raises HubError."""
        ...


@dataclass(frozen=True)
class Places:
    """Where models are looked for besides the Hugging Face cache of the environment."""

    runpod_cache: Path = Path("/runpod-volume/huggingface-cache/hub")
    """Where RunPod's hosts keep the model that an endpoint names (docs, "Cached models")."""
    volumes: tuple[Path, ...] = VOLUMES
    baked: Path = Path("/models")
    """Models inside the image, one directory per name; BAKED_MODELS_DIR in the environment overrides it."""
    temporary: Path = field(default_factory=temporary_folder)
    """The last resort of a download."""


@dataclass(frozen=True)
class ResolvedModel:
    """A directory that holds a whole model, and where it was found."""

    name: str
    path: Path
    is_demo: bool
    origin: str

    @property
    def is_english_only(self) -> bool:
        """True if the model knows no other language."""
        return is_english_only(self.name)

    @property
    def revision(self) -> str | None:
        """The commit of a snapshot in a Hugging Face cache (models--OWNER--NAME/snapshots/COMMIT); None elsewhere."""
        parents = self.path.parent
        is_snapshot = parents.name == "snapshots" and parents.parent.name.startswith("models--")
        return self.path.name if is_snapshot else None


def is_english_only(name: str) -> bool:
    """True for the names that Whisper gives to models of English alone: they end in `.en`."""
    return name.endswith(".en")


def resolve_model(name: str, *, environ: Mapping[str, str], hub: Hub, places: Places | None = None) -> ResolvedModel:
    """Find the directory of a model; downloads it if it is nowhere and HF_HUB_OFFLINE does not forbid it.

    Order: `demo`; a directory; RunPod's model cache; the Hugging Face cache; network volumes; the
    image; the temporary cache of an earlier download; a download. Raises ModelUnavailableError.
    """
    if name == DEMO_NAME:
        return ResolvedModel(name, _whole(DEMO_MODEL_DIR), is_demo=True, origin="the package")
    directory = Path(name).expanduser()
    repo_id = hub.repo_id(name) or (name if _HUB_ID.fullmatch(name) else None)
    if directory.is_dir() and (repo_id is None or "/" in name):
        is_demo = directory.resolve() == DEMO_MODEL_DIR  # under another name it still needs its own geometry
        return ResolvedModel(name, _whole(directory), is_demo=is_demo, origin="the given directory")
    if repo_id is None:
        raise ModelUnavailableError(_unknown(name, hub))
    return _search(name, repo_id, environ, hub, places or Places())


def _unknown(name: str, hub: Hub) -> str:
    if "/" in name:
        return f"model {name!r} is no directory here, and no Hugging Face id (owner/name)"
    near = difflib.get_close_matches(name, [DEMO_NAME, *hub.known_names()], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join((DEMO_NAME, *hub.known_names()))
    return f"model {name!r} is no directory, no Hugging Face id and none of: {known}{hint}"


def _whole(path: Path) -> Path:
    problem = find_problem(path)
    if problem is not None:
        raise ModelUnavailableError(f"model directory {path}: {problem}")
    return path


@dataclass(frozen=True)
class _Place:
    """One place to look at: a directory of its own, or a Hugging Face cache."""

    origin: str
    path: Path
    is_cache: bool


def _search(name: str, repo_id: str, environ: Mapping[str, str], hub: Hub, places: Places) -> ResolvedModel:
    looked: list[str] = []
    for place in _local_places(name, repo_id, environ, places):
        try:
            found = hub.cached(repo_id, place.path) if place.is_cache else place.path
            is_there = found is not None and found.is_dir()
        except PermissionError as error:
            # A volume, or BAKED_MODELS_DIR, that belongs to somebody else.
            looked.append(f"{place.path} ({error.strerror})")
            continue
        if found is None or not is_there:
            looked.append(str(place.path))
            continue
        problem = find_problem(found)
        if problem is None:
            return ResolvedModel(name, found, is_demo=False, origin=place.origin)
        if not (place.is_cache and problem.is_missing):
            raise ModelUnavailableError(f"model {name!r} in {found}: {problem}")
        looked.append(f"{place.path} (incomplete: {problem})")
    called = repr(name) if name == repo_id else f"{name!r} ({repo_id})"
    absent = f"model {called} is not available: looked in {', '.join(looked)}"
    path, target = _download(repo_id, absent, environ, hub, places)
    return ResolvedModel(name, _whole(path), is_demo=False, origin=f"a download into {target}")


def _local_places(name: str, repo_id: str, environ: Mapping[str, str], places: Places) -> Iterator[_Place]:
    names = dict.fromkeys((name, repo_id))
    yield _Place("RunPod's model cache", places.runpod_cache, is_cache=True)
    yield _Place("the Hugging Face cache", hub_cache_dir(environ), is_cache=True)
    for volume in places.volumes:
        if volume.is_dir():
            for each in names:
                yield _Place("the network volume", volume / "models" / each, is_cache=False)
            yield _Place("the network volume", volume_cache(volume), is_cache=True)
    baked = Path(environ.get("BAKED_MODELS_DIR") or places.baked)
    for each in names:
        yield _Place("the image", baked / each, is_cache=False)
    temporary = temporary_cache(places.temporary)
    if is_ours(temporary):
        yield _Place("the temporary cache", temporary, is_cache=True)


def _download(repo_id: str, absent: str, environ: Mapping[str, str], hub: Hub, places: Places) -> tuple[Path, Path]:
    """Returns the model's directory and the cache that it is in; errors begin with `absent`."""
    offline = next((v for v in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(v, "").lower() in _TRUE), None)
    if offline is not None:
        raise ModelUnavailableError(f"{absent}; {offline}={environ[offline]} forbids the download; {_ADVICE}")
    place = model_cache(environ, volumes=places.volumes, temporary=places.temporary)
    target = place.hub
    if not (place.is_writable and place.make()):
        raise ModelUnavailableError(f"{absent}; nowhere to download to: {place.reason}")
    try:
        return hub.download(repo_id, target), target
    except HubError as error:
        raise ModelUnavailableError(f"{absent}; download into {target} failed: {error}; {_ADVICE}") from None
