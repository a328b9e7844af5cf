"""What `doctor` finds on this machine."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from builder.errors import AuthError, DockerError, NetworkError, NotFoundError, RateLimitedError
from builder.image.build import MIN_FREE_GB
from builder.image.reference import compose
from builder.setup.config import check_settings
from builder.setup.doctor import Check

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["CHECKS"]

PACKAGES = ("typer", "rich", "requests", "pydantic", "python-dotenv")
OLDEST_PYTHON = (3, 10)
LEAST_FREE_GB = 0.5
"""Less than this, and not even state can be written for long."""


def _python(run: Runtime) -> Iterator[Check]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < OLDEST_PYTHON:
        yield Check("python", "fail", f"Python {version} is too old", "install Python 3.10 or newer")
    missing = [name for name in PACKAGES if not _version(name)]
    if missing:
        yield Check("packages", "fail", f"missing: {', '.join(missing)}", 'pip install ".[builder]"')
    else:
        yield Check("packages", "ok", ", ".join([f"Python {version}", *(f"{n} {_version(n)}" for n in PACKAGES)]))


def _env_file(run: Runtime) -> Iterator[Check]:
    from builder.image.git import is_tracked

    path = run.env_path
    if not path.exists():
        yield Check("env file", "warn", f"there is no {path}", "make it: python -m builder setup")
        return
    count = len(run.env_file)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Check("env file", "warn", f"others can read {path} (mode {mode:o})", f"chmod 600 {path}")
    else:
        yield Check("env file", "ok", f"{count} variables, readable by you alone")
    if is_tracked(path, run.environ):
        remedy = f"git rm --cached {path.name}, add it to .gitignore, and replace the keys in it"
        yield Check("env file", "fail", f"{path} is in the git repository, with its keys", remedy)


def _settings(run: Runtime) -> Iterator[Check]:
    problems = check_settings(run.environ, run.env_file)
    for problem in problems:
        if problem.variable == "WHISPER_AUTH_TOKEN" and not problem.is_error:
            # Not under "settings": they are valid, and RunPod can be asked.
            yield Check("token", "fail", f"{problem.variable}: {problem.says}", "python -m builder setup")
            continue
        is_made = problem.variable in ("RUNPOD_API_KEY", "WHISPER_AUTH_TOKEN")
        remedy = "python -m builder setup" if is_made else "python -m builder config set NAME=VALUE"
        yield Check("settings", "fail" if problem.is_error else "warn", f"{problem.variable}: {problem.says}", remedy)
    if not any(problem.is_error for problem in problems):
        yield Check("settings", "ok", f"valid; token for pods: {'yes' if run.settings.auth_token else 'no'}")


def _disk(run: Runtime) -> Iterator[Check]:
    free_gb = shutil.disk_usage(run.folder).free / 1e9
    says = f"{free_gb:.1f} GB free at {run.folder}"
    if free_gb < LEAST_FREE_GB:
        yield Check("disk", "fail", says, "free some space")
    elif free_gb < MIN_FREE_GB:
        yield Check("disk", "warn", f"{says}; a build needs {MIN_FREE_GB:g}", "docker system prune")
    else:
        yield Check("disk", "ok", says)


def _git(run: Runtime) -> Iterator[Check]:
    from builder.image.git import git_state

    state = git_state(run.folder, run.environ)
    if state is None:
        yield Check("git", "warn", "no commit here: builds need --tag", "git init, then commit")
    elif state.is_dirty:
        yield Check("git", "warn", f"at {state.commit[:7]}, with changes: builds get a tag -dirty", "commit them")
    else:
        yield Check("git", "ok", f"at {state.commit[:7]}, no changes")


def _docker(run: Runtime) -> Iterator[Check]:
    from builder.image.docker import Docker

    try:
        docker = Docker(run.environ, run.console.note, run.redactor.clean)
        client = docker.client_version()
    except DockerError as error:
        yield Check("docker", "warn", f"{error}; build and push need it", error.hint)
        return
    yield Check("docker", "ok", f"client {client}")
    try:
        yield Check("docker engine", "ok", f"engine {docker.versions().engine}")
    except DockerError as error:
        yield Check("docker engine", "warn", f"{error}; build and push need it", error.hint)


def _image(run: Runtime) -> Iterator[Check]:
    from builder.image.docker import Docker

    image = compose(run.settings, run.state.read("push"))
    if image is None:
        yield Check("image", "warn", "none is named or pushed yet", "build and push one, or set DOCKER_TAG")
        return
    try:
        docker = Docker(run.environ, run.console.note, run.redactor.clean)
    except DockerError:
        yield Check("image", "skip", f"{image}: only docker can ask its registry")
        return
    try:
        docker.is_pullable(image)
    except NotFoundError as error:
        yield Check("image", "fail", str(error), error.hint)
    except AuthError:
        remedy = "if it is private, docker login here, and push --save-credential for RunPod"
        state = "private" if run.settings.registry_id else "private or absent"
        yield Check("image", "warn", f"{image} is {state}", remedy)
    except (DockerError, NetworkError, RateLimitedError) as error:
        yield Check("image", "warn", f"{image} could not be looked up: {error}", error.hint)
    else:
        yield Check("image", "ok", f"{image} can be pulled")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


CHECKS: tuple[tuple[str, Callable[[Runtime], Iterator[Check]]], ...] = (
    ("packages", _python),
    ("env file", _env_file),
    ("settings", _settings),
    ("disk", _disk),
    ("git", _git),
    ("docker", _docker),
    ("image", _image),
)
"""Name and look; settings are a prerequisite of what `builder.setup.doctor_remote` does."""
