"""The docker client as a child process: build, log in, push, look at images.

The client gets none of our secrets by its environment or arguments; a password goes in by stdin, into a private
folder that is gone afterwards, so that no login stays behind in plain text in the user's own configuration.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.child import Finished, run_child
from builder.errors import DockerError, NotFoundError
from builder.image.docker_errors import docker_error, no_client
from builder.settings import ROWS

__all__ = ["Docker", "ImageFacts", "Versions"]

ASK_LIMIT_S = 60.0
"""For questions to the client, the engine or a registry."""
BUILD_LIMIT_S = 7200.0
PUSH_LIMIT_S = 7200.0
CHECK_LIMIT_S = 600.0
"""For running a command in an image, which may have to be unpacked first."""
_DIGEST_LINE = re.compile(r"digest: (sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Versions:
    """Versions of client and engine."""

    client: str
    engine: str


@dataclass(frozen=True)
class ImageFacts:
    """An image that the engine holds; `digests` are `repository@sha256:...` of registries that have it."""

    id: str
    size_bytes: int
    architecture: str
    digests: tuple[str, ...]


class Docker:
    """One docker client; `clean` takes secrets out of what it says.

    Every method may raise DockerError, DiskFullError, AuthError, NetworkError.
    """

    def __init__(
        self, environ: Mapping[str, str], say: Callable[[str], None], clean: Callable[[str], str] = str
    ) -> None:
        found = shutil.which("docker", path=environ.get("PATH", ""))
        if found is None:
            raise no_client()
        self.program = found
        self._say, self._clean = say, clean
        secret = {row.env for row in ROWS if row.is_secret}
        self._environ = {name: value for name, value in environ.items() if name not in secret}
        # One image per tag, not an index of image and attestation, which some registries and hosts do not take.
        self._environ.setdefault("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")

    def client_version(self) -> str:
        """The client's version, which needs no engine."""
        text = self._run("version", "version", "--format", "{{.Client.Version}}", tolerate=True).text
        version = next((line for line in text.splitlines() if re.match(r"\d+\.", line)), "")
        return version or "unknown"

    def versions(self) -> Versions:
        """Versions; raises DockerError if no engine answers."""
        text = self._run("version", "version", "--format", "{{.Client.Version}} {{.Server.Version}}").text
        client, _, engine = text.splitlines()[-1].partition(" ") if text else ("", "", "")
        return Versions(client, engine)

    def data_folder(self) -> Path | None:
        """Where the engine keeps images, if that is on this machine."""
        folder = self._run("info", "info", "--format", "{{.DockerRootDir}}").text.strip()
        return Path(folder) if folder.startswith("/") and Path(folder).is_dir() else None

    def build(self, command: Sequence[str]) -> None:
        """Run what `build_command` gives; the client's progress is passed on."""
        self._run("build", *command, limit_s=BUILD_LIMIT_S, aloud=True)

    @staticmethod
    def build_command(
        context: Path,
        dockerfile: Path,
        tags: Sequence[str],
        platform: str,
        no_cache: bool,
        build_args: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> list[str]:
        """The client's arguments that build `context` and tag it."""
        command = ["build", "--platform", platform, "--file", str(dockerfile)]
        for tag in tags:
            command += ["--tag", tag]
        for name, value in build_args.items():
            command += ["--build-arg", f"{name}={value}"]
        for name, value in labels.items():
            command += ["--label", f"{name}={value}"]
        return [*command, *(["--no-cache"] if no_cache else []), str(context)]

    def inspect(self, image: str) -> ImageFacts:
        """What the engine has under `image`. Raises NotFoundError."""
        done = self._run("inspect", "image", "inspect", image, tolerate=True)
        if done.code and "no such image" in done.text.lower():
            raise NotFoundError(f"there is no image {image} here", hint="build it: python -m builder build")
        if done.code:
            raise docker_error("inspect", done)
        document = _json(done.text)
        entry = document[0] if isinstance(document, list) and document else {}
        try:
            digests = tuple(str(each) for each in entry.get("RepoDigests") or ())
            return ImageFacts(str(entry["Id"]), int(entry["Size"]), str(entry.get("Architecture", "")), digests)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DockerError("docker image inspect answers no description of the image") from None

    def check(self, image: str, platform: str, program: str, *arguments: str) -> None:
        """Run `program` in `image`, without a network. Raises DockerError with its last words."""
        options = ("run", "--rm", "--network", "none", "--platform", platform, "--entrypoint", program)
        self._run("run", *options, image, *arguments, limit_s=CHECK_LIMIT_S)

    def tag(self, image: str, name: str) -> None:
        """Give `image` another name."""
        self._run("tag", "tag", image, name)

    def push(self, image: str, *, registry: str | None, username: str | None, password: str | None) -> str | None:
        """Push; returns the digest, None if the client names none. Without a password the user's own login counts."""
        if not (username and password):
            return self._push(image, {})
        with self._private_config() as folder:
            own = {"DOCKER_CONFIG": str(folder)}
            where = [registry] if registry else []
            login = ("login", "--username", username, "--password-stdin", *where)
            self._run("login", *login, stdin=password + "\n", extra=own)
            return self._push(image, own)

    def is_pullable(self, image: str) -> None:
        """Ask the registry for `image`, without an engine. Raises AuthError, NotFoundError, DockerError."""
        done = self._run("manifest", "manifest", "inspect", image, tolerate=True, limit_s=ASK_LIMIT_S / 2)
        if done.code and re.search(r"(?i)no such manifest|manifest unknown|not found", done.text):
            raise NotFoundError(f"the registry has no {image}", hint="push it: python -m builder push")
        if done.code:
            raise docker_error("manifest inspect", done)

    def _push(self, image: str, extra: Mapping[str, str]) -> str | None:
        done = self._run("push", "push", image, limit_s=PUSH_LIMIT_S, aloud=True, extra=extra)
        found = _DIGEST_LINE.findall(done.text)
        if found:
            return str(found[-1])
        repository = image.rpartition(":")[0] if ":" in image.rpartition("/")[2] else image
        return next((d.partition("@")[2] for d in self.inspect(image).digests if d.startswith(f"{repository}@")), None)

    @contextmanager
    def _private_config(self) -> Iterator[Path]:
        """A configuration of its own: the user's, less logins, with contexts and plugins, which find the engine."""
        own = Path(self._environ.get("DOCKER_CONFIG") or Path(self._environ.get("HOME", "~")).expanduser() / ".docker")
        with tempfile.TemporaryDirectory(prefix="builder-docker-") as name:
            folder = Path(name)
            for part in ("contexts", "cli-plugins"):
                if (own / part).is_dir():
                    (folder / part).symlink_to((own / part).resolve(), target_is_directory=True)
            config = _config(own / "config.json")
            kept = {key: config[key] for key in ("currentContext", "proxies", "cliPluginsExtraDirs") if key in config}
            (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")
            (folder / "config.json").chmod(0o600)
            yield folder

    def _run(
        self,
        verb: str,
        *arguments: str,
        limit_s: float = ASK_LIMIT_S,
        stdin: str | None = None,
        extra: Mapping[str, str] | None = None,
        aloud: bool = False,
        tolerate: bool = False,
    ) -> Finished:
        environ = {**self._environ, **(extra or {})}
        say = self._say if aloud else lambda line: None
        try:
            done = run_child(
                [self.program, *arguments], environ=environ, limit_s=limit_s, stdin=stdin, say=say, clean=self._clean
            )
        except OSError as error:
            raise DockerError(f"{self.program} cannot be started: {error.strerror}") from None
        if done.timed_out:
            raise DockerError(f"docker {verb} was not done in {limit_s:g} s", hint="is the engine overloaded or hung?")
        if done.code and not tolerate:
            raise docker_error(verb, done)
        return done


def _json(text: str) -> Any:
    try:
        return json.loads(text[text.index("[") :])
    except ValueError:
        return None


def _config(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
