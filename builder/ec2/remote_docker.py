"""Docker on the EC2 machine, over SSH. Secrets travel by standard input into files that only their owner can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.child import Finished
from builder.ec2.ssh import Ssh, SshLateError
from builder.errors import BuilderError, NotFoundError, SshError
from builder.image.docker_errors import docker_error
from builder.image.reference import Reference, parse_reference

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["ContainerState", "RemoteDocker"]

PULL_LIMIT_S = 3600.0
START_LIMIT_S = 300.0
REMOVE_LIMIT_S = 120.0
FOLDER = ".builder"
"""In the home of the machine's user; commands by SSH begin there."""
_PRIVATE = f"""umask 077
mkdir -p {FOLDER} && own=$(mktemp -d {FOLDER}/XXXXXX) || exit 1
trap 'rm -rf "$own"' EXIT
trap 'exit 129' HUP INT PIPE TERM
"""
"""Beginning of scripts that keep a secret in a file: there, and gone with the script, even if the connection breaks."""
_RUN = _PRIVATE + """cat >"$own/env" && docker run --env-file "$own/env" "$@" </dev/null"""
_PULL = (
    _PRIVATE
    + """image=$1 && shift
docker --config "$own" login --password-stdin "$@" && docker --config "$own" pull "$image" </dev/null"""
)
_HUB = (None, "docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class ContainerState:
    """Does it run, and if not, what did it exit with?"""

    is_running: bool
    exit_code: int | None = None


class RemoteDocker:
    """Docker there. Every method may raise SshError, and what `docker_error` makes of docker's own complaints."""

    def __init__(self, run: Runtime, ssh: Ssh) -> None:
        self._run, self.ssh = run, ssh

    def pull(self, image: str) -> None:
        """Pull `image`, logged in for just that if it is in the registry that the settings have a password for."""
        reference = parse_reference(image)
        settings, stdin = self._run.settings, None
        command = ["docker", "pull", image]
        if self._has_login(reference):
            where = [reference.registry] if reference.registry else []
            command = ["sh", "-c", _PULL, "sh", image, "--username", settings.docker_username or "", *where]
            stdin = f"{settings.docker_password}\n"
        with self._run.console.task(f"pulling {image}") as task:
            done = self.ssh.run(command, limit_s=PULL_LIMIT_S, stdin=stdin, say=task.update)
        if done.code:
            raise self._failed("pull", done)

    def digest(self, image: str) -> str | None:
        """The digest that the image's registry gave it; None if it came from none. Raises NotFoundError."""
        reference = parse_reference(image)
        done = self.ssh.run(("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", image))
        if done.code and "no such image" in done.text.lower():
            raise NotFoundError(
                f"there is no image {image} on the machine",
                hint="pull it, or push it: python -m builder push",
            )
        if done.code:
            raise self._failed("image inspect", done)
        if reference.digest is not None:
            return reference.digest
        try:
            found = json.loads(done.lines[-1]) or []
            pairs = [str(each).partition("@") for each in found]
        except (IndexError, ValueError, TypeError):
            raise SshError("docker image inspect answers no list of digests there") from None
        # The registry of the name that was asked for; others may have the same image under another digest.
        own = [digest for name, _, digest in pairs if _plain(name) == _plain(reference.repository)]
        return own[0] if own else None

    def start(self, name: str, image: str, env: Mapping[str, str], ports: Sequence[int]) -> None:
        """Start a container with the GPUs and `ports`; `env` is never on a command line."""
        options = ["--detach", "--name", name, "--gpus", "all"]
        for port in ports:
            options += ["--publish", f"{port}:{port}"]
        done = self._run_with(env, [*options, image], START_LIMIT_S)
        if done.code:
            raise self._failed("run", done)

    def run_once(
        self, name: str, image: str, env: Mapping[str, str], arguments: Sequence[str], limit_s: float
    ) -> Finished:
        """Run a container with the GPUs to its end, whatever its exit code. Raises SshLateError after ending it."""
        try:
            return self._run_with(env, ["--rm", "--name", name, "--gpus", "all", image, *arguments], limit_s)
        except SshLateError:
            # Only its client here has ended.
            self.remove(name)
            raise

    def remove(self, *names: str, grace_s: int = 0) -> bool:
        """Stop and remove containers; False if there was none."""
        if grace_s:
            # It may be on its own way out.
            self.ssh.run(("docker", "stop", "--time", str(grace_s), *names), limit_s=REMOVE_LIMIT_S)
        done = self.ssh.run(("docker", "rm", "--force", *names), limit_s=REMOVE_LIMIT_S)
        n_absent = done.text.lower().count("no such container")
        if done.code and not n_absent:
            raise self._failed("rm", done)
        return n_absent < len(names)

    def state(self, name: str) -> ContainerState:
        """What became of a container. Raises NotFoundError."""
        form = "{{.State.Running}} {{.State.ExitCode}}"
        done = self.ssh.run(("docker", "container", "inspect", "--format", form, name))
        if "no such container" in done.text.lower():
            raise NotFoundError(
                f"there is no container {name} on the machine", hint="start one: python -m builder ec2 run"
            )
        if done.code:
            raise self._failed("container inspect", done)
        running, _, code = (done.lines[-1] if done.lines else "").partition(" ")
        is_running = running == "true"
        return ContainerState(is_running, None if is_running or not code.lstrip("-").isdigit() else int(code))

    def _has_login(self, reference: Reference) -> bool:
        settings = self._run.settings
        if not (settings.docker_username and settings.docker_password):
            return False
        # The password goes to the registry that it is for, and to no other.
        return _host(reference.registry) == _host(settings.docker_registry)

    def _run_with(self, env: Mapping[str, str], arguments: Sequence[str], limit_s: float) -> Finished:
        text = "".join(f"{name}={value}\n" for name, value in env.items())
        return self.ssh.run(("sh", "-c", _RUN, "sh", *arguments), limit_s=limit_s, stdin=text)

    def _failed(self, verb: str, done: Finished) -> BuilderError:
        return docker_error(f"{verb} on {self.ssh.machine.instance_id}", done)


def _host(registry: str | None) -> str | None:
    return None if registry in _HUB else registry


def _plain(repository: str) -> str:
    """Docker Hub's names in their one short form."""
    for prefix in ("docker.io/", "index.docker.io/"):
        repository = repository.removeprefix(prefix)
    return repository.removeprefix("library/")
