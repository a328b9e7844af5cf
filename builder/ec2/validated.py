"""Which images ran on a GPU before they are paid for at RunPod: `validated.json`, by digest.

A tag may be pushed again, so only a digest tells that it is the same image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.errors import NotValidatedError, UsageError
from builder.image.reference import parse_reference
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["STATE", "check_validated", "digest_of", "record_validated", "validation_of"]

STATE = "validated"
"""The document's name: {"digests": {"sha256:...": {"image", "at", "instance_type", "checks"}}}."""
MAX_DIGESTS = 200
"""The oldest beyond these are forgotten."""


def check_validated(run: Runtime, image: str, *, required: bool) -> str | None:
    """The digest of `image` if it ran on a GPU; else None, after a warning.

    Says when and on what it ran. Raises NotValidatedError instead of warning if `required`, UsageError for an image
    that is no reference.
    """
    digest = digest_of(run, image)
    found = None if digest is None else validation_of(run, digest)
    if digest is not None and found is not None:
        checks = ", ".join(_texts(found.get("checks"))) or "no check that is recorded"
        run.console.note(
            f"{image} was tried on a GPU ({found.get('instance_type', '?')}) at {found.get('at', '?')}: {checks}"
        )
        return digest
    text, hint = _why_not(run, image, digest)
    if required:
        raise NotValidatedError(text, hint=hint)
    run.console.warn(f"{text}; {hint}")
    return None


def _why_not(run: Runtime, image: str, digest: str | None) -> tuple[str, str]:
    """That it was not tried, and what to do: a tag that was tried may lead elsewhere by now, its digest cannot."""
    tried = [
        name
        for name, each in _digests(run).items()
        if isinstance(each, Mapping) and each.get("image") == image and _is_digest(name)
    ]
    if tried and digest != tried[-1]:
        moved = "the last push from here has another digest" if digest else "no push from here says that it is the same"
        repository = parse_reference(image).repository
        return (
            f"whether {image} was tried on a GPU is not certain: {tried[-1][:19]}... was, and {moved}",
            f"deploy what was tried: --image {repository}@{tried[-1]}; or try it again: python -m builder ec2 run",
        )
    why = "its digest is not known here: it was not pushed from here" if digest is None else f"digest {digest[:19]}..."
    return f"{image} was never tried on a GPU ({why})", NotValidatedError.default_hint


def _is_digest(text: str) -> bool:
    try:
        return parse_reference(f"x@{text}").digest is not None
    except UsageError:
        return False


def digest_of(run: Runtime, image: str) -> str | None:
    """The digest that `image` names, or that of the last push if that was this image; None if neither tells.

    Raises UsageError for an image that is no reference.
    """
    reference = parse_reference(image)
    if reference.digest is not None:
        return reference.digest
    pushed = run.state.read("push") or {}
    digest = pushed.get("digest")
    try:
        is_same = str(parse_reference(str(pushed.get("image") or ""))) == str(reference)
        return str(digest) if is_same and _is_digest(str(digest)) else None
    except UsageError:
        # Written by hand, or damaged.
        return None


def validation_of(run: Runtime, digest: str) -> Mapping[str, Any] | None:
    """What is recorded of `digest`."""
    found = _digests(run).get(digest)
    return found if isinstance(found, Mapping) else None


def record_validated(run: Runtime, digest: str, *, image: str, instance_type: str, checks: Sequence[str]) -> None:
    """Remember that an image passed `checks` on a machine. Raises DiskFullError, BuilderError."""
    now_s = run.clock.unix_s()
    before = validation_of(run, digest) or {}
    # What it passed another time, in the other mode, it still has.
    passed = list(dict.fromkeys([*_texts(before.get("checks")), *checks]))
    entry = {"image": image, "at": iso_time(now_s), "instance_type": instance_type, "checks": passed}
    kept = {name: each for name, each in _digests(run).items() if name != digest}
    newest = [*kept.items(), (digest, entry)][-MAX_DIGESTS:]
    run.state.write(STATE, {"digests": dict(newest)})
    run.state.event(now_s, "validated", "image", digest, provider="aws", image=image, instance_type=instance_type)


def _digests(run: Runtime) -> dict[str, Any]:
    digests = (run.state.read(STATE) or {}).get("digests")
    return dict(digests) if isinstance(digests, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
