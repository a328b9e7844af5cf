"""Model directories as small as they can be and still be whole, and a hub that hands them out."""

from __future__ import annotations

import struct
from pathlib import Path

from engine.models import HubError

__all__ = ["FakeHub", "make_cache", "make_model", "weights"]


def weights(variables: int = 3, data_bytes: int = 40) -> bytes:
    """A model.bin with variables of zeros and one alias."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, variables)]
    for number in range(variables):
        parts += [text(f"decoder/weight_{number}"), struct.pack("<BIBI", 1, data_bytes // 4, 0, data_bytes)]
        parts.append(bytes(data_bytes))
    parts += [struct.pack("<I", 1), text("decoder/projection"), text("decoder/weight_0")]
    return b"".join(parts)


def make_model(path: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Fill a directory with the files of a model, except those in `without`."""
    path.mkdir(parents=True, exist_ok=True)
    files = {
        "model.bin": weights(),
        "tokenizer.json": b"{}",
        "vocabulary.json": b"[]",
        "config.json": b"{}",
        "preprocessor_config.json": b"{}",
    }
    for name, data in files.items():
        if name not in without:
            (path / name).write_bytes(data)
    return path


def make_cache(
    cache: Path, repo_id: str, commit: str = "a" * 40, *, main: bool = True, without: tuple[str, ...] = ()
) -> Path:
    """Put a snapshot into a Hugging Face cache; returns its directory."""
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    if main:
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    return make_model(repository / "snapshots" / commit, without=without)


class FakeHub:
    """Knows two sizes; its caches have one snapshot; downloads what `offers` says, or fails with `fault`."""

    def __init__(self, offers: tuple[str, ...] = (), fault: str = "the hub cannot be reached") -> None:
        self.offers = offers
        self.fault = fault
        self.downloads: list[tuple[str, Path]] = []

    def known_names(self) -> tuple[str, ...]:
        return ("small.en", "turbo")

    def repo_id(self, name: str) -> str | None:
        return {"small.en": "Systran/faster-whisper-small.en", "turbo": "someone/turbo"}.get(name)

    def cached(self, repo_id: str, cache_dir: Path) -> Path | None:
        snapshots = sorted(cache_dir.glob(f"models--{repo_id.replace('/', '--')}/snapshots/*"))
        return snapshots[0] if snapshots else None

    def download(self, repo_id: str, cache_dir: Path) -> Path:
        self.downloads.append((repo_id, cache_dir))
        if repo_id not in self.offers:
            raise HubError(self.fault)
        return make_cache(cache_dir, repo_id)
