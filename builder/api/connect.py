"""Which RunPod API a command talks to, and with which key.

REST v2, or v1 behind its rollback switch RUNPOD_API_V1. The key comes from RUNPOD_API_KEY, or else from the file
that runpodctl keeps; it goes to https addresses only, or to this machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from builder.clock import Clock
from builder.errors import AuthError, UsageError
from builder.redact import Redactor
from builder.settings import Settings

if TYPE_CHECKING:
    from builder.api.control_plane import ControlPlane
    from builder.api.graphql import GraphQl
    from builder.api.http import Http
    from builder.api.jobs import JobApi

__all__ = ["checked_base", "connect", "connect_graphql", "connect_jobs", "find_key"]

MAX_CONFIG_BYTES = 65_536
_CONFIG_KEY = re.compile(r"^\s*api_?key\s*=\s*(?:\"([^\"\n]*)\"|'([^'\n]*)')", re.IGNORECASE | re.MULTILINE)
_KEY = re.compile(r"[!-~]{1,500}")


def connect(
    settings: Settings,
    clock: Clock,
    redactor: Redactor,
    note: Callable[[str], None],
    environ: Mapping[str, str],
) -> ControlPlane:
    """RunPod's REST API, as the settings choose. Raises AuthError without a key, UsageError for a bad address."""
    if settings.use_v1:
        from builder.api.rest_v1 import RestV1

        base = checked_base("RUNPOD_REST_V1_BASE", settings.v1_base)
        return RestV1(_http(base, find_key(settings, environ), clock, redactor, note))
    from builder.api.rest_v2 import RestV2

    base = checked_base("RUNPOD_API_BASE", settings.api_base)
    return RestV2(_http(base, find_key(settings, environ), clock, redactor, note))


def connect_graphql(
    settings: Settings,
    clock: Clock,
    redactor: Redactor,
    note: Callable[[str], None],
    environ: Mapping[str, str],
) -> GraphQl:
    """RunPod's GraphQL API. Raises AuthError without a key, UsageError for a bad address."""
    from builder.api.graphql import GraphQl

    base = checked_base("RUNPOD_GRAPHQL_URL", settings.graphql_url)
    return GraphQl(_http(base, find_key(settings, environ), clock, redactor, note))


def connect_jobs(
    settings: Settings,
    clock: Clock,
    redactor: Redactor,
    note: Callable[[str], None],
    environ: Mapping[str, str],
) -> JobApi:
    """The job API of endpoints. Raises AuthError without a key, UsageError for a bad address."""
    from builder.api.jobs import JobApi

    base = checked_base("RUNPOD_JOB_BASE", settings.job_base)
    return JobApi(_http(base, find_key(settings, environ), clock, redactor, note))


def find_key(settings: Settings, environ: Mapping[str, str]) -> str:
    """The API key: that of the settings, else that of `~/.runpod/config.toml`. Raises AuthError if there is none."""
    key = settings.api_key or _key_of_runpodctl(environ.get("HOME"))
    if key is None:
        raise AuthError("no RunPod API key: RUNPOD_API_KEY is not set, and ~/.runpod/config.toml has none")
    if not _KEY.fullmatch(key):
        raise AuthError("the RunPod API key has spaces or characters that no key has; it is not shown here")
    return key


def checked_base(variable: str, url: str) -> str:
    """`url` without a slash at the end. Raises UsageError that names `variable` unless the key is safe there."""
    from builder.api.http import is_safe_for_keys

    if not is_safe_for_keys(url):
        # Not even the address is shown: one with a password in it is refused as well.
        raise UsageError(
            f"{variable}: legal: https://HOST/PATH, or http:// to this machine: the API key goes there",
            hint=f"correct {variable}, or remove it for the default",
        )
    return url.rstrip("/")


def _http(base: str, key: str, clock: Clock, redactor: Redactor, note: Callable[[str], None]) -> Http:
    from builder.api.http import Http

    return Http(base, key=key, clock=clock, redactor=redactor, note=note)


def _key_of_runpodctl(home: str | None) -> str | None:
    if not home:
        return None
    try:
        with (Path(home) / ".runpod" / "config.toml").open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return None
    match = _CONFIG_KEY.search(text)
    key = (match[1] or match[2] or "").strip() if match else ""
    return key or None
