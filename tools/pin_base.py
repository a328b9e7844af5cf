"""Pins the base image, `python tools/pin_base.py`: adds its digest to `ARG BASE_IMAGE` in both Dockerfiles.

The registry that the image's name means is asked what its tag stands for now; the digest is that of the
index of all platforms, and is compared with what was received. Where no registry can be reached nothing
is changed, and one line says so. Run it again to move to the tag's newest image.

Exit codes: 0 pinned; 1 the digest could not be had, nothing was changed; 2 wrong usage or no such line.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reference", "main", "parse_reference"]

DOCKERFILES = ("Dockerfile", "Dockerfile.slim")
DEFAULT_REGISTRY = "registry-1.docker.io"
TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 4 << 20
"""Registries refuse manifests beyond this themselves."""
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_LINE = re.compile(r"^(ARG BASE_IMAGE=)(\S+)$", re.MULTILINE)
_PART = re.compile(r'(\w+)="([^"]*)"')


class PinError(Exception):
    """The digest could not be had; the text is one line."""


class UsageError(Exception):
    """The Dockerfiles or an argument cannot be used."""


@dataclass(frozen=True)
class Reference:
    """An image's name, taken apart: `tagged` is what it was written as, without a digest."""

    tagged: str
    registry: str
    repository: str
    tag: str

    @property
    def origin(self) -> str:
        """The registry's address; without TLS on this machine alone."""
        host = self.registry.partition(":")[0]
        scheme = "http" if host in ("127.0.0.1", "localhost") else "https"
        return f"{scheme}://{self.registry}"


def parse_reference(text: str) -> Reference:
    """Take a name such as `python:3.12-slim` or `HOST:PORT/NAME:TAG@sha256:...` apart; raises UsageError."""
    tagged = text.partition("@")[0]
    first, slash, rest = tagged.partition("/")
    has_registry = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, rest) if has_registry else (DEFAULT_REGISTRY, tagged)
    repository, _, tag = path.partition(":")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._/-]*", repository) or not re.fullmatch(r"[\w][\w.-]{0,127}", tag, re.ASCII):
        raise UsageError(f"BASE_IMAGE: {text!r} is no image with a tag; legal: [REGISTRY/]NAME:TAG")
    return Reference(tagged, registry, repository, tag)


def ask_digest(image: Reference) -> str:
    """The digest of a tag in its registry, asked without an account; raises PinError."""
    url = f"{image.origin}/v2/{image.repository}/manifests/{image.tag}"
    headers = {"Accept": ", ".join(MANIFESTS)}
    try:
        try:
            told, body = _get(url, headers)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            token = _guest_token(error.headers.get("WWW-Authenticate", ""))
            told, body = _get(url, headers | {"Authorization": f"Bearer {token}"})
    except urllib.error.HTTPError as error:
        raise PinError(f"{image.registry} answered {error.code} for {image.repository}:{image.tag}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", None) or type(error).__name__)
        raise PinError(f"{image.registry} cannot be reached: {reason}") from None
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    if told is not None and told != digest:
        raise PinError(f"{image.registry} says {told}, and what it sent is {digest}")
    if not body.lstrip().startswith(b"{"):
        raise PinError(f"{image.registry} sent no manifest for {image.repository}:{image.tag}")
    return digest


def _guest_token(challenge: str) -> str:
    """What registries give to everybody who asks for a public image."""
    parts = dict(_PART.findall(challenge))
    realm = parts.pop("realm", "")
    host = urllib.parse.urlsplit(realm).hostname
    if not (realm.startswith("https://") or (realm.startswith("http://") and host in ("127.0.0.1", "localhost"))):
        raise PinError("the registry wants an account")
    _, body = _get(f"{realm}?{urllib.parse.urlencode(parts)}", {})
    try:
        answer = json.loads(body)
        return str(answer.get("token") or answer["access_token"])
    except (ValueError, KeyError, AttributeError):
        raise PinError("the registry gave no token to a guest") from None


def _get(url: str, headers: dict[str, str]) -> tuple[str | None, bytes]:
    """The digest that the answer names, and its body."""
    request = urllib.request.Request(url, headers={"User-Agent": "whisper-runpod"} | headers)  # noqa: S310 - see origin
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - likewise
        body: bytes = answer.read(MAX_ANSWER_BYTES + 1)
        if len(body) > MAX_ANSWER_BYTES:
            raise PinError(f"the registry's answer is longer than {MAX_ANSWER_BYTES} bytes")
        return answer.headers.get("Docker-Content-Digest"), body


def _pin(folder: Path, image: str | None) -> str:
    """Pin both files, or none; returns the reference that they hold now."""
    texts: dict[Path, str] = {}
    for name in DOCKERFILES:
        path = folder / name
        try:
            texts[path] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    found = {match.group(2) for text in texts.values() for match in _LINE.finditer(text)}
    if len(found) != 1 or not all(_LINE.search(text) for text in texts.values()):
        raise UsageError(f"{' and '.join(DOCKERFILES)} need the same line ARG BASE_IMAGE=NAME:TAG")
    reference = parse_reference(image or found.pop())
    pinned = f"{reference.tagged}@{ask_digest(reference)}"
    for path, text in texts.items():
        scratch = path.with_name(path.name + ".part")
        scratch.write_text(_LINE.sub(rf"\g<1>{pinned}", text), encoding="utf-8")
        scratch.replace(path)
    return pinned


def main(arguments: Sequence[str] | None = None) -> int:
    """Pin; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="pin_base.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", metavar="NAME:TAG", help="another base (default: the one that is written there)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the Dockerfiles lie (default: here)")
    given = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"BASE_IMAGE={_pin(given.folder, given.image)}\n")
    except UsageError as error:
        sys.stderr.write(f"pin_base.py: {error}\n")
        return 2
    except PinError as error:
        sys.stderr.write(f"pin_base.py: {error}; nothing was changed\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
