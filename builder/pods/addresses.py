"""Where a pod's ports are reached: RunPod's proxy gives each HTTP port of a pod a public address of its own.

Pure. The template holds `{pod}` and `{port}`: `https://{pod}-{port}.proxy.runpod.net` is RunPod's. It carries no
secret, and neither do the addresses: they end up in logs.
"""

from __future__ import annotations

import re

from builder.errors import UsageError
from builder.settings import check_proxy_template

__all__ = ["health_url", "port_url", "ws_url"]

_POD_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SOCKET_SCHEMES = {"https": "wss", "http": "ws"}


def port_url(template: str, pod_id: str, port: int) -> str:
    """HTTP address of a port, without a slash at the end.

    Raises UsageError if `template` is no safe address with both places in it, or `pod_id` cannot be an id.
    """
    if not _POD_ID.fullmatch(pod_id):
        raise UsageError(
            f"{pod_id[:80]!r} cannot be the id of a pod", hint="list your pods: python -m builder check-all"
        )
    check_proxy_template(template)
    return template.replace("{pod}", pod_id).replace("{port}", str(port)).rstrip("/")


def ws_url(template: str, pod_id: str, port: int) -> str:
    """WebSocket address of a port. Raises UsageError as `port_url`."""
    scheme, rest = port_url(template, pod_id, port).split("://", 1)
    return f"{_SOCKET_SCHEMES[scheme]}://{rest}"


def health_url(template: str, pod_id: str, port: int, path: str = "/health") -> str:
    """Address of a health answer (`/health`, `/ready`, `/status`). Raises UsageError as `port_url`."""
    return port_url(template, pod_id, port) + path
