"""Docker, or podman with buildah: containers that are started, asked, stopped and always removed.

Knows no check and nothing of what is in an image. Invariants: settings go in by a file that only we can read,
never as arguments; only containers started here are stopped or removed; the host's network is used, so that no
bridge is left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.image_checks.commands import CheckFailedError, Ended, check, ran, until

__all__ = ["CONFINED", "PYTHON", "Container", "Engine", "find_engine"]

PYTHON = "/opt/venv/bin/python"
CONFINED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")  # noqa: S108
"""How a careful operator runs it."""
START_LIMIT_S = 180.0
KILL_GRACE_S = 15
LINGER_S = 5.0


def find_engine(wanted: str | None) -> str:
    """`docker` if its engine answers, else `podman`; or the one that is wanted. Raises CheckFailedError."""
    if wanted in (None, "docker") and shutil.which("docker"):
        if ran(["docker", "info"], limit_s=20).code == 0:
            return "docker"
        check(wanted is None, "--engine docker: no Docker engine answers; start it, or take --engine podman")
    for tool in ("podman", "buildah"):
        check(
            wanted != "docker" and shutil.which(tool),
            f"no container engine: neither a Docker engine nor {tool} is there. "
            "Debian: apt-get install podman buildah runc conmon mmdebstrap",
        )
    return "podman"


class Engine:
    """One of the two; `environ` is what its commands run with, `work` a folder for files of ours."""

    def __init__(self, name: str, work: Path, environ: Mapping[str, str], *, keep: bool = False) -> None:
        self.name, self.work, self.environ, self.keep = name, work, dict(environ), keep
        self._numbers = itertools.count(1)

    @property
    def owns_storage(self) -> bool:
        """Whether images and containers lie in the work folder, where nobody else has any."""
        storage = self.environ.get("CONTAINERS_STORAGE_CONF", "")
        return self.name == "podman" and Path(storage).parent == self.work

    def __call__(self, *words: str, limit_s: float = 180.0, given: str | None = None) -> Ended:
        """Run a command of the engine, whatever its exit code."""
        return ran([self.name, *words], limit_s=limit_s, env=self.environ, given=given)

    def must(self, *words: str, limit_s: float = 180.0) -> str:
        """Its standard output. Raises CheckFailedError if it fails."""
        ended = self(*words, limit_s=limit_s)
        check(ended.code == 0, f"{self.name} {words[0]} failed: {ended.tail}")
        return ended.out.strip()

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        """What the engine knows of an `image` or `container`."""
        found: list[dict[str, Any]] = json.loads(self.must(kind, "inspect", name))
        return found[0]

    def has_image(self, name: str) -> bool:
        """Whether it is in the local storage."""
        return self("image", "inspect", name).code == 0

    def once(
        self,
        image: str,
        *arguments: str,
        flags: Sequence[str] = ("--network", "host", *CONFINED),
        env: Mapping[str, str] | None = None,
        entrypoint: str | None = None,
        given: str | None = None,
        limit_s: float = 180.0,
    ) -> Ended:
        """Run a container to its end. Raises CheckFailedError if it does not end within `limit_s`."""
        name, words = self._prepare(image, flags, env, entrypoint)
        try:
            extra = ("-i",) if given is not None else ()
            return self("run", *extra, *words, *arguments, limit_s=limit_s, given=given)
        finally:
            self._remove(name)

    @contextlib.contextmanager
    def running(
        self,
        image: str,
        *arguments: str,
        flags: Sequence[str] = ("--network", "host", *CONFINED),
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Container]:
        """A container in the background, gone afterwards."""
        name, words = self._prepare(image, flags, env, None)
        try:
            began_unix_s = time.time()
            self.must("run", "-d", *words, *arguments, limit_s=START_LIMIT_S)
            yield Container(self, name, began_unix_s)
        finally:
            self._remove(name)

    def _prepare(
        self, image: str, flags: Sequence[str], env: Mapping[str, str] | None, entrypoint: str | None
    ) -> tuple[str, list[str]]:
        name = f"image-check-{os.getpid()}-{next(self._numbers)}"
        path = self.work / f"{name}.env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{key}={value}\n" for key, value in (env or {}).items()), encoding="utf-8")
        words = ["--name", name, "--env-file", str(path), *flags]
        if entrypoint:
            words += ["--entrypoint", entrypoint]
        return name, [*words, image]

    def _remove(self, name: str) -> None:
        (self.work / f"{name}.env").unlink(missing_ok=True)
        if not self.keep:
            self("rm", "-f", "-v", name)
        elif self.running_state(name):
            self("stop", "-t", "2", name)

    def running_state(self, name: str) -> bool:
        """Whether that container runs."""
        ended = self("container", "inspect", "--format", "{{.State.Running}}", name)
        return ended.code == 0 and ended.out.strip() == "true"


@dataclass(frozen=True)
class Container:
    """A container that was started; `began_unix_s` is when we asked for it."""

    engine: Engine
    name: str
    began_unix_s: float

    def is_running(self) -> bool:
        """Whether its first process lives."""
        return self.engine.running_state(self.name)

    def log(self) -> str:
        """Both its streams so far."""
        return self.engine("logs", self.name).text

    def python(self, *arguments: str, given: str | None = None) -> Ended:
        """Run the image's interpreter in it."""
        extra = ("-i",) if given is not None else ()
        return self.engine("exec", *extra, self.name, PYTHON, *arguments, given=given)

    def terminate(self) -> tuple[int, float, set[int]]:
        """SIGTERM to its first process: exit code, seconds it took, and its processes that live on."""
        first = int(self.engine.inspect("container", self.name)["State"]["Pid"])
        pids = _family(first)
        began_s = time.monotonic()
        self.engine.must("kill", "--signal", "TERM", self.name)
        # Not by the engine's own `wait`, which looks only now and then.
        until(lambda: not _lives(first), "SIGTERM: the end of the container's first process", KILL_GRACE_S)
        seconds = time.monotonic() - began_s
        # The kernel ends the others with it, which is not the same instant.
        with contextlib.suppress(CheckFailedError):
            until(lambda: not any(map(_lives, pids)), "all of them", LINGER_S)
        left = {pid for pid in pids if _lives(pid)}
        ended = self.engine("wait", self.name)
        check(ended.code == 0, f"wait failed: {ended.tail}")
        return int(ended.out.strip()), seconds, left

    def up(self, what: str, ended: object) -> None:
        """Raises CheckFailedError with its last words if it has ended while we wait for `what`."""
        if ended or not self.is_running():
            raise CheckFailedError(f"{what}: the container has ended; its last words: {self.log().strip()[-1_500:]}")


def _family(first: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, new = {first}, [first]
    while new:
        new = [child for each in new for child in children.get(each, [])]
        found.update(new)
    return found


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
