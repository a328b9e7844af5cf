"""What must not be in an image: secrets, files of whoever built it, tools of the build."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tools.image_checks.commands import CheckFailedError, check
from tools.image_checks.containers import PYTHON
from tools.image_checks.layers import look_into_layers
from tools.image_checks.served import Target

__all__ = ["KEY_PATTERNS", "Inside", "check_scan", "key_names", "look_inside", "unwanted_files"]

KEY_PATTERNS = {
    "RunPod key": r"\brpa?_[A-Za-z0-9]{30,}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}",
    "secret key": r"\bsk-[A-Za-z0-9_-]{32,}",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "address with a password": r"\bhttps?://[^/\s:@'\"]+:[^/\s:@'\"{}$]+@[A-Za-z0-9]",
}
SECRET_FILES = {"credentials", "id_rsa", "id_ed25519", ".netrc", ".pypirc", ".git-credentials"}
BUILDERS_FILES = {"pip.conf", "uv.toml", ".npmrc"}
"""Where whoever built the image says from where, and through which proxy, packages come."""
READ = ("/app/", "/etc/", "/root/", "/home/", "/opt/venv/bin/", "/opt/venv/pyvenv.cfg", "/build/", "/tmp/", "/srv/")  # noqa: S108
"""Folders whose files are read; the packages themselves come from their registry by checksum."""
SECRET_VARIABLE = re.compile(r"(?i)\b\w*(?:TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL)\w*=(?!\s|$|[\"']{2})")
BUILD_TOOLS = {"gcc", "g++", "cc", "c++", "clang", "make", "cmake", "ld", "ld.bfd", "as"}
BUILD_TOOLS |= {"git", "curl", "wget", "uv", "pip"}
"""Names in the folders of commands."""
COMMAND_FOLDERS = ("/bin", "/usr/bin", "/usr/local/bin", "/opt/venv/bin", "/root/.cargo/bin", "/root/.local/bin")
LEFTOVERS = ("/root/.cache/", "/home/app/.cache/", "/var/lib/apt/lists/", "/var/cache/apt/archives/", "/build/")
HARMLESS_LEFTOVERS = {"lock", "partial"}
MAX_SHOWN = 8


@dataclass(frozen=True)
class Inside:
    """What is in an image: files with their sizes, patterns found and where, checksum of its certificates."""

    files: Sequence[tuple[str, int]]
    found: Sequence[tuple[str, str]]
    bundle: str


def look_inside(target: Target, patterns: Mapping[str, str] = KEY_PATTERNS, image: str | None = None) -> Inside:
    """List the image's files. Raises CheckFailedError."""
    program = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
    asked = json.dumps({"patterns": patterns, "read": READ})
    # Root with root's usual capabilities: everything is to be seen.
    flags = ("--network", "none", "--user", "0")
    ended = target.engine.once(
        image or target.image, "-", asked, entrypoint=PYTHON, flags=flags, given=program, limit_s=180.0
    )
    check(ended.code == 0, f"listing the files failed: {ended.tail}")
    answer: dict[str, Any] = json.loads(ended.out)
    return Inside(
        [(path, size) for path, size in answer["files"]],
        [(name, path) for name, path in answer["found"]],
        answer["bundle"],
    )


def unwanted_files(paths: Iterable[str], base_paths: Iterable[str] = ()) -> list[str]:
    """The build's tools and leftovers, environment files and credentials among `paths`; the base's tools may be."""
    base = set(base_paths)
    found = []
    for path in paths:
        pure = PurePosixPath(path)
        is_tool = str(pure.parent) in COMMAND_FOLDERS and pure.name in BUILD_TOOLS and path not in base
        is_left = path.startswith(LEFTOVERS) and pure.name not in HARMLESS_LEFTOVERS
        is_setting = pure.name == ".env" or pure.name.startswith(".env.") or pure.suffix == ".env"
        is_secret = pure.name in SECRET_FILES | BUILDERS_FILES
        is_ours = path.startswith("/app/") and pure.parts[2] in {".git", "tests", "bench", "builder", ".venv"}
        if is_tool or is_left or is_setting or is_secret or is_ours:
            found.append(path)
    return found


def key_names(text: str) -> list[str]:
    """Which key-like strings, or settings with a secret's name, are in a text."""
    names = [name for name, pattern in KEY_PATTERNS.items() if re.search(pattern, text)]
    return [*names, *(match[0] for match in SECRET_VARIABLE.finditer(text))]


def check_scan(target: Target, inside: Inside, base: str) -> str:
    """No environment file, no key, no certificate of this machine, no tool of the build, a clean history."""
    base_paths = _base_files(target, base)
    check(inside.files, "no file was seen")
    hidden = look_into_layers(target, base, KEY_PATTERNS, READ)
    paths = {path for path, _ in inside.files}
    unwanted = unwanted_files(sorted(paths.union(path for path, _ in hidden)), base_paths)
    check(not unwanted, f"{len(unwanted)} files that do not belong into it: {', '.join(unwanted[:MAX_SHOWN])}")
    found = [f"{name} in {path}" for name, path in inside.found]
    found += [f"{name} in {path} of a layer" for path, names in hidden for name in names]
    check(not found, f"key-like strings: {', '.join(found[:MAX_SHOWN])}")
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and hashlib.sha256(Path(bundle).read_bytes()).hexdigest() == inside.bundle:
        raise CheckFailedError("the image holds this machine's own CA bundle (SSL_CERT_FILE)")
    history = target.engine.must("history", "--no-trunc", "--format", "{{.CreatedBy}}", target.image)
    check("COPY" in history, f"the history does not tell how the image was made: {history[:200]!r}")
    config = target.engine.inspect("image", target.image)["Config"]
    named = key_names(history + "\n" + "\n".join([*config.get("Env", []), json.dumps(config.get("Labels") or {})]))
    check(not named, f"history or settings of the image hold {', '.join(named)}")
    counts = f"{len(inside.files)} files, {len(hidden)} in the layers"
    return f"{counts}, history and settings of the image: nothing that does not belong there"


def _base_files(target: Target, base: str) -> list[str]:
    """The base's commands: python:slim brings pip along."""
    places = " ".join(f"{folder}/{tool}" for folder in COMMAND_FOLDERS for tool in sorted(BUILD_TOOLS))
    words = ("-c", f"ls -d {places} 2>/dev/null; true")
    ended = target.engine.once(base, *words, entrypoint="/bin/sh", flags=("--network", "none"))
    check(ended.code == 0, f"the base cannot be looked at: {ended.tail}")
    return ended.out.split()
