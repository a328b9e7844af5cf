"""References of container images: checked, taken apart and put together. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import UsageError
from builder.settings import Settings

__all__ = ["MAX_REFERENCE_CHARS", "Reference", "compose", "parse_reference", "repository", "sha_tag"]

MAX_REFERENCE_CHARS = 255
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?")
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """`registry/path:tag@digest`; the registry None is Docker Hub."""

    registry: str | None
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def repository(self) -> str:
        """The reference without tag and digest."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.repository + tag + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """Take a reference apart. Raises UsageError that says which part is not allowed."""
    if not text or len(text) > MAX_REFERENCE_CHARS:
        raise UsageError(f"an image reference has 1 to {MAX_REFERENCE_CHARS} characters", hint="like user/name:tag")
    rest, _, digest = text.partition("@")
    if digest and not _DIGEST.fullmatch(digest):
        raise _illegal(text, "digest", "sha256: and 64 hexadecimal digits")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    if rest.endswith(":") or (tag and not _TAG.fullmatch(tag)):
        raise _illegal(text, "tag", "letters, digits, _ . -, at most 128")
    first, slash, path = head.partition("/")
    registry: str | None = first
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        registry, path = None, head
    if registry is not None and not _HOST.fullmatch(registry):
        raise _illegal(text, "registry", "a host name, perhaps with :port")
    if not _PATH.fullmatch(path):
        raise _illegal(text, "name", "lower-case letters, digits and single . _ - between them, parts divided by /")
    return Reference(registry, path, tag or None, digest or None)


def repository(settings: Settings) -> str:
    """Where images of these settings go: registry, account and name. Raises UsageError."""
    given = parse_reference(settings.docker_image)
    registry, path = given.registry or _registry(settings), given.path
    if settings.docker_username and given.registry is None and "/" not in path:
        path = f"{settings.docker_username.lower()}/{path}"
    return parse_reference(f"{registry}/{path}" if registry else path).repository


def compose(settings: Settings, pushed: Mapping[str, Any] | None = None) -> str | None:
    """The image that the settings mean: name and DOCKER_TAG, else the one last pushed; None if neither tells.

    `pushed` is artifacts/push.json. Raises UsageError for an illegal name.
    """
    given = parse_reference(settings.docker_image)
    tag = settings.docker_tag or given.tag
    if tag or given.digest:
        ending = (f":{tag}" if tag else "") + (f"@{given.digest}" if given.digest else "")
        return str(parse_reference(repository(settings) + ending))
    image = (pushed or {}).get("image")
    return str(image) if image else None


def sha_tag(commit: str, *, dirty: bool = False, slim: bool = False) -> str:
    """The tag of an image built from a commit: `abc1234`, `abc1234-dirty`, `abc1234-slim`."""
    return commit[:7] + ("-dirty" if dirty else "") + ("-slim" if slim else "")


def _registry(settings: Settings) -> str | None:
    # Docker Hub by any of its names is the default, and left out.
    registry = settings.docker_registry
    return None if registry in (None, "docker.io", "index.docker.io", "registry-1.docker.io") else registry


def _illegal(text: str, part: str, legal: str) -> UsageError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return UsageError(
        f"image {shown!r}: the {part} is not allowed; legal: {legal}", hint="see DOCKER_IMAGE, DOCKER_TAG"
    )
