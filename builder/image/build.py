"""Builds the image and pushes it; remembers both in `artifacts/build.json` and `push.json`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import AmbiguousError, DiskFullError, DockerError, NotFoundError, ServerFaultError, UsageError
from builder.image.reference import parse_reference, repository, sha_tag
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.image.docker import Docker
    from builder.runtime import Runtime

__all__ = ["MIN_FREE_GB", "PLATFORM", "BuildPlan", "build_image", "plan_build", "push_image", "save_credential"]

PLATFORM = "linux/amd64"
"""What RunPod's hosts run; an image for a laptop's arm64 would never start there."""
MIN_FREE_GB = 10.0
"""A build with CUDA libraries needs this much for its layers."""
CHECK = "import engine.service, handler.worker, realtime.server"
"""What an image must be able to do before anyone waits for a pod with it."""


@dataclass(frozen=True)
class BuildPlan:
    """What a build would do; `images` are full references, the first is the one that is recorded."""

    context: Path
    dockerfile: Path
    images: tuple[str, ...]
    variant: str
    no_cache: bool
    git_sha: str | None
    warnings: tuple[str, ...]

    def command(self) -> list[str]:
        """The docker client's arguments."""
        from builder.image.docker import Docker

        args = {"GIT_SHA": self.git_sha} if self.git_sha else {}
        labels = {"org.opencontainers.image.revision": self.git_sha} if self.git_sha else {}
        return Docker.build_command(self.context, self.dockerfile, self.images, PLATFORM, self.no_cache, args, labels)


def plan_build(
    run: Runtime, *, slim: bool = False, no_cache: bool = False, tag: str | None = None, file: Path | None = None
) -> BuildPlan:
    """Decide file and names. Raises NotFoundError without a Dockerfile, UsageError for an illegal or missing tag."""
    from builder.image.git import git_state

    dockerfile = run.folder / (file or ("Dockerfile.slim" if slim else "Dockerfile"))
    if not dockerfile.is_file():
        raise NotFoundError(f"there is no {dockerfile}", hint="run it in the project's folder, or name it by --file")
    state = git_state(run.folder, run.environ)
    if tag is None and state is None:
        raise UsageError("no git commit names this image", hint="name it: --tag NAME")
    name = repository(run.settings)
    first = tag or sha_tag(state.commit if state else "", dirty=bool(state and state.is_dirty), slim=slim)
    tags = dict.fromkeys([first, *([run.settings.docker_tag] if run.settings.docker_tag else [])])
    images = tuple(str(parse_reference(f"{name}:{each}")) for each in tags)
    sha = state.commit if state else None
    return BuildPlan(
        run.folder, dockerfile, images, "slim" if slim else "full", no_cache, sha, tuple(_warnings(run, images, sha))
    )


def build_image(
    run: Runtime, plan: BuildPlan, *, check: bool = True, min_free_gb: float = MIN_FREE_GB
) -> dict[str, Any]:
    """Build, try out and record. Raises DockerError, DiskFullError, NetworkError."""
    docker = _docker(run)
    docker.versions()
    _check_disk(docker.data_folder() or plan.context, min_free_gb)
    began_s = run.clock.monotonic_s()
    with run.console.task(f"building {plan.images[0]}"):
        docker.build(plan.command())
    facts = docker.inspect(plan.images[0])
    if facts.architecture not in ("amd64", ""):
        raise DockerError(f"the image is for {facts.architecture}, and RunPod's hosts are amd64")
    if check:
        with run.console.task("trying the image") as task:
            task.update(CHECK)
            docker.check(plan.images[0], PLATFORM, "python", "-c", CHECK)
    record = {
        "image": plan.images[0],
        "images": list(plan.images),
        "tag": parse_reference(plan.images[0]).tag,
        "digest": facts.id,
        "size_bytes": facts.size_bytes,
        "variant": plan.variant,
        "created_at": iso_time(run.clock.unix_s()),
        "git_sha": plan.git_sha,
        "took_s": round(run.clock.monotonic_s() - began_s, 1),
        "checked": check,
    }
    run.state.write("build", record)
    run.state.event(run.clock.unix_s(), "built", "image", plan.images[0], size_bytes=facts.size_bytes)
    return record


def push_image(run: Runtime, *, registry: str | None = None) -> dict[str, Any]:
    """Push what was built last, to the account of the settings. Raises NotFoundError, UsageError, AuthError, ..."""
    built = run.state.read("build")
    if not built or not built.get("image"):
        raise NotFoundError("no image was built here", hint="build it first: python -m builder build")
    settings = replace(run.settings, docker_registry=registry) if registry else run.settings
    if not settings.docker_username:
        raise UsageError("DOCKER_HUB_USERNAME is not set: whose image is it?", hint="run: python -m builder setup")
    name, docker = repository(settings), _docker(run)
    if not settings.docker_password:
        run.console.note("DOCKER_PASSWORD is not set: pushing with the docker client's own login")
    sources = [str(each) for each in built.get("images") or [built["image"]]]
    pushed = [f"{name}:{parse_reference(source).tag}" for source in sources]
    digest = None
    for source, target in reversed(list(zip(sources, pushed, strict=True))):
        if source != target:
            docker.tag(source, target)
        with run.console.task(f"pushing {target}"):
            digest = docker.push(
                target,
                registry=parse_reference(target).registry,
                username=settings.docker_username,
                password=settings.docker_password,
            )
    record = {"image": pushed[0], "images": pushed, "digest": digest, "pushed_at": iso_time(run.clock.unix_s())}
    record |= {key: built.get(key) for key in ("size_bytes", "variant", "git_sha")}
    run.state.write("push", record)
    run.state.event(run.clock.unix_s(), "pushed", "image", pushed[0], digest=digest)
    return record


def save_credential(run: Runtime, *, registry: str | None = None) -> str:
    """Store the registry's credential at RunPod, once, and its id in `.env`; returns the id.

    Raises UsageError without account and password, and what the API raises.
    """
    from builder.env_file import update_env_file

    settings = run.settings
    if not (settings.docker_username and settings.docker_password):
        raise UsageError(
            "a credential needs DOCKER_HUB_USERNAME and DOCKER_PASSWORD", hint="set them: python -m builder setup"
        )
    host = registry or settings.docker_registry or "docker.io"
    name = f"builder-{host}-{settings.docker_username}"
    known = next((each for each in run.api.registries() if each.name == name), None)
    if known is not None:
        run.console.note(f"RunPod has a credential {name} already; if its password changed, delete it in the console")
    else:
        try:
            known = run.api.create_registry(name, settings.docker_username, settings.docker_password)
        except (AmbiguousError, ServerFaultError):
            # No answer, or a bad one: it may be there all the same, and a second one would stay for ever.
            known = next((each for each in run.api.registries() if each.name == name), None)
            if known is None:
                raise
    update_env_file(run.env_path, {"RUNPOD_REGISTRY_ID": known.id})
    run.state.event(run.clock.unix_s(), "stored", "registry", known.id, name=name)
    return known.id


def _docker(run: Runtime) -> Docker:
    from builder.image.docker import Docker

    return Docker(run.environ, run.console.note, run.redactor.clean)


def _warnings(run: Runtime, images: tuple[str, ...], sha: str | None) -> Iterator[str]:
    if sha is not None and "-dirty" in images[0]:
        yield "files differ from the last commit: the tag ends in -dirty, and nobody can build this image again"
    if not run.settings.docker_username and "/" not in images[0]:
        yield "DOCKER_HUB_USERNAME is not set: push will need it"


def _check_disk(folder: Path, min_free_gb: float) -> None:
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < min_free_gb:
        raise DiskFullError(f"{folder} has {free_gb:.1f} GB free, and a build needs {min_free_gb:g} GB")
