"""Runs the doctor that an image brings along, in a container of its own, and reads its findings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from builder.errors import DockerError
from builder.image.docker import CHECK_LIMIT_S, Docker
from builder.image.docker_errors import docker_error
from builder.image.reference import parse_reference
from builder.setup.doctor import Check, State

if TYPE_CHECKING:
    from builder.child import Finished
    from builder.runtime import Runtime

__all__ = ["examine_image", "read_findings"]

BEGIN = '{"checks"'
"""The doctor's document; the client may say before it what it pulls."""
MAX_CHECKS = 200


class _Client(Docker):
    """The docker client, with one verb more."""

    def doctor(self, image: str, gpus: bool) -> Finished:
        """The output of `docker run --rm [--gpus all] IMAGE doctor --json`, whatever its exit code."""
        options = ("--gpus", "all") if gpus else ()
        command = ("run", "--rm", *options, image, "doctor", "--json")
        return self._run("run", *command, limit_s=CHECK_LIMIT_S, tolerate=True)


def examine_image(run: Runtime, image: str, *, gpus: bool) -> list[Check]:
    """What the doctor finds inside `image`. Raises UsageError, DockerError and what the docker client raises."""
    parse_reference(image)
    docker = _Client(run.environ, run.console.note, run.redactor.clean)
    docker.versions()  # raises if no engine answers
    with run.console.task(f"checking {image}"):
        done = docker.doctor(image, gpus)
    checks = read_findings(done.text)
    if checks is not None:
        return checks
    if done.code:
        raise docker_error("run", done)
    raise DockerError(f"{image} answers without findings", hint="has it a doctor? build it: python -m builder build")


def read_findings(text: str) -> list[Check] | None:
    """The findings in a container's output; None if it holds none."""
    start = text.find(BEGIN)
    if start < 0:
        return None
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start)
        return [_check(each) for each in document["checks"][:MAX_CHECKS]] or None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _check(entry: dict[str, Any]) -> Check:
    state = entry["state"]
    if state not in get_args(State):
        raise ValueError
    return Check(str(entry["name"]), state, str(entry["says"]), str(entry.get("remedy", "")))
