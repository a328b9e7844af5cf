"""What the docker client says when it fails, as errors with a remedy. Pure."""

from __future__ import annotations

import re

from builder.child import Finished
from builder.errors import AuthError, BuilderError, DiskFullError, DockerError, NetworkError, RateLimitedError

__all__ = ["docker_error", "no_client"]

LAST_LINES = 12
"""A build's output may quote anything; only its end says why it ended."""
_MAX_SHOWN = 300
_NO_ENGINE = re.compile(
    r"(?i)cannot connect to the docker daemon|is the docker daemon running|error during connect|"
    r"failed to connect to the docker api"
)
_NO_ACCESS = re.compile(r"(?i)permission denied while trying to connect")
_FULL = re.compile(r"(?i)no space left on device|disk quota exceeded")
_DENIED = re.compile(
    r"(?i)\bdenied: |access denied|unauthorized: |authentication required|incorrect username or password|"
    r"401 unauthorized|insufficient_scope|no basic auth credentials"
)
_LIMITED = re.compile(r"(?i)toomanyrequests|pull rate limit|429 too many requests")
_NETWORK = re.compile(
    r"(?i)tls handshake timeout|i/o timeout|no such host|connection refused|network is unreachable|"
    r"connection reset|client\.timeout|temporary failure in name resolution"
)


def no_client() -> DockerError:
    """The error for a machine without docker."""
    return DockerError("docker is not installed", hint="install it: https://docs.docker.com/get-started/get-docker/")


def docker_error(verb: str, done: Finished) -> BuilderError:
    """The error for a docker command that failed."""
    text = "\n".join(done.lines[-LAST_LINES:])
    if _NO_ACCESS.search(text):
        return DockerError("the docker engine refuses this user", hint="add the user to the group docker, or use sudo")
    if _NO_ENGINE.search(text):
        return DockerError("no docker engine answers", hint="start it (systemctl start docker), or set DOCKER_HOST")
    if _FULL.search(text):
        return DiskFullError(f"docker {verb}: no space left on the device")
    if _DENIED.search(text):
        return AuthError(
            f"docker {verb}: the registry refuses: {_last(done)}",
            hint="check DOCKER_HUB_USERNAME and DOCKER_PASSWORD (an access token with write access does), and the "
            "image's name",
        )
    if _LIMITED.search(text):
        return RateLimitedError(f"docker {verb}: the registry limits pulls", hint="log in (docker login), or wait")
    if _NETWORK.search(text):
        return NetworkError(f"docker {verb}: {_last(done)}", hint="check the network and the registry's name")
    return DockerError(f"docker {verb} failed with exit code {done.code}: {_last(done)}", hint="see its output above")


def _last(done: Finished) -> str:
    line = done.lines[-1].strip() if done.lines else "it says nothing"
    return line if len(line) <= _MAX_SHOWN else line[: _MAX_SHOWN - 3] + "..."
