"""Which server a test is about: a pod through RunPod's proxy, or any address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from builder.errors import BuilderError, UsageError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["Target", "choose_target"]

SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
MAX_TOKEN_CHARS = 512
"""The server's own limit."""


@dataclass(frozen=True)
class Target:
    """Addresses without a slash at the end; `pod_id` None: no pod; `token` is the secret that may be shown there."""

    ws_url: str
    health_url: str
    token: str | None
    pod_id: str | None = None

    @property
    def http_url(self) -> str:
        """Where files are taken: the same port, another scheme."""
        return _as_http(self.ws_url)

    @property
    def headers(self) -> dict[str, str]:
        """What shows the secret."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def choose_target(
    run: Runtime,
    pod: str | None,
    *,
    url: str | None = None,
    host: str | None = None,
    health_url: str | None = None,
    token_file: Path | None = None,
) -> Target:
    """The pod (default: the one deployed last), or the server at `url` or on `host`.

    The configured secret goes to a pod that has it or is ours, and to other servers over TLS or on this machine;
    one in `token_file` goes to whatever server is named with it.
    Raises UsageError for options that do not go together, NotFoundError if there is no pod.
    """
    if (pod is not None) + (url is not None) + (host is not None) > 1:
        raise UsageError("give one server: a pod, --url or --host")
    if url is None and host is None:
        target = _pod_target(run, pod, health_url)
    else:
        address = _address("--url", url) if url is not None else f"ws://{_bracketed(host or '')}:{run.settings.ws_port}"
        target = Target(address, _health_address(run, address, health_url), None)
    token = _own_token(run, target) if token_file is None else _read_token(token_file)
    run.redactor.add(token)
    return replace(target, token=token)


def _own_token(run: Runtime, target: Target) -> str | None:
    """The configured secret, unless it must not go there."""
    from builder.api.http import is_safe_for_keys

    token = run.settings.auth_token if target.pod_id is None else _pod_token(run, target.pod_id)
    if token is None:
        return None
    for address in (target.http_url, target.health_url):
        if not is_safe_for_keys(_as_http(address)):
            run.console.warn(f"no secret is sent: {address} has no TLS and is not this machine; --token-file sends one")
            return None
    return token


def _pod_token(run: Runtime, pod_id: str) -> str | None:
    from builder.pods.pods import recorded, token_for

    try:
        token = token_for(run, run.api.get_pod(pod_id))
        why = "it was not made by the builder"
    except BuilderError as error:
        # A pod that was deployed from here is ours, whether RunPod can be asked or not.
        token = run.settings.auth_token if recorded(run, pod_id) else None
        why = f"whose it is cannot be seen ({error})"
    if token is None and run.settings.auth_token is not None:
        run.console.warn(f"no secret is sent to pod {pod_id}: {why}; --token-file sends one")
    return token


def _pod_target(run: Runtime, pod: str | None, health_url: str | None) -> Target:
    from builder.pods import addresses
    from builder.pods.pods import chosen_pod_id, port_number, recorded

    settings, pod_id = run.settings, chosen_pod_id(run, pod)
    # A pod keeps the ports it was deployed with, whatever .env says by now.
    known = recorded(run, pod_id) or {}
    ws_port = port_number(known.get("ws_port"), settings.ws_port)
    health_port = port_number(known.get("health_port"), settings.health_port)
    address = addresses.ws_url(settings.proxy_template, pod_id, ws_port).rstrip("/")
    health = addresses.port_url(settings.proxy_template, pod_id, health_port)
    return Target(address, _address("--health-url", health_url) if health_url else health, None, pod_id)


def _health_address(run: Runtime, address: str, health_url: str | None) -> str:
    if health_url is not None:
        return _address("--health-url", health_url)
    parts, settings = urlsplit(address), run.settings
    label, dot, domain = (parts.hostname or "").partition(".")
    if parts.port is None and label.endswith(f"-{settings.ws_port}"):
        # RunPod's proxy: the port is part of the name.
        return (
            f"{SCHEMES[parts.scheme]}://{label.removesuffix(str(settings.ws_port))}{settings.health_port}{dot}{domain}"
        )
    return f"{SCHEMES[parts.scheme]}://{_bracketed(parts.hostname or '')}:{settings.health_port}"


def _address(option: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        legal = parts.scheme in SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        legal = False
    if not legal:
        raise UsageError(f"{option}: {url[:80]!r} is no address; legal: ws://HOST:PORT, wss:// or http(s)://")
    if parts.username is not None or parts.query:
        raise UsageError(f"{option}: an address must not hold a secret; use --token-file")
    if option == "--url" and parts.scheme.startswith("http"):
        url = ("wss" if parts.scheme == "https" else "ws") + url[len(parts.scheme) :]
    return url.rstrip("/")


def _as_http(address: str) -> str:
    scheme, rest = address.split("://", 1)
    return f"{SCHEMES[scheme]}://{rest}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _read_token(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(MAX_TOKEN_CHARS + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--token-file {path}: {reason}") from None
    if not 1 <= len(token) <= MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UsageError(f"--token-file {path}: legal: 1 to {MAX_TOKEN_CHARS} printable ASCII characters")
    return token
