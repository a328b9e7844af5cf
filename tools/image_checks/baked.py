"""Weights in an image: the baked model serves, and one that nobody can vouch for is not baked."""

from __future__ import annotations

from pathlib import Path

from tools.image_checks.building import Base, build
from tools.image_checks.commands import CheckFailedError, check
from tools.image_checks.served import Target, served, transcript

__all__ = ["BAKED", "check_baked"]

BAKED = "demo"
PLACE = f"/app/models/{BAKED}"
UNKNOWN = "tiny.en=nobody/tiny.en"
"""Without a revision and without checksums."""
REFUSAL = "has no revision; legal: a commit"


def check_baked(target: Target, dockerfile: Path, base: Base) -> str:
    """The baked model is found and right; the build of one without revision and checksum fails."""
    with served(target, env={"WHISPER_MODEL": PLACE}) as server:
        server.wait_ready()
        heard = transcript(server.url)
    refused_tag = f"{target.image}-refused"
    try:
        build(target.engine, dockerfile, refused_tag, base, {"WHISPER_MODELS": UNKNOWN}, "models")
    except CheckFailedError as error:
        check(REFUSAL in str(error), f"the refusal does not say what is missing: {error}")
    else:
        target.engine("rmi", "-f", refused_tag)
        raise CheckFailedError(f"WHISPER_MODELS={UNKNOWN} was baked, without revision and checksum")
    return f"{PLACE} serves: {heard!r}; {UNKNOWN} is refused"
