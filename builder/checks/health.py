"""`test health`: do the health answers come, and do they say that the server is well?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.checks.checks import Check
from builder.errors import NetworkError

if TYPE_CHECKING:
    from builder.api.http import Answer
    from builder.checks.targets import Target

__all__ = ["check_health", "window_pad_s"]

TIMEOUT_S = 15.0
WELL = {"/health": ("healthy",), "/ready": ("ready",), "/status": ("healthy",)}
"""What `status` has to be in each answer."""


def check_health(target: Target) -> list[Check]:
    """A check for each answer, with its latency in seconds."""
    return [_check(target, path) for path in WELL]


def window_pad_s(target: Target) -> float | None:
    """To how many seconds the server pads live windows; None if it does not tell. Raises NetworkError."""
    from builder.api.http import get_once

    body = get_once(f"{target.health_url}/status", timeout_s=TIMEOUT_S, headers=target.headers).body
    engine = body.get("engine") if isinstance(body, dict) else None
    pad_s = engine.get("window_pad_s") if isinstance(engine, dict) else None
    return float(pad_s) if isinstance(pad_s, (int, float)) else None


def _check(target: Target, path: str) -> Check:
    from builder.api.http import get_once

    # The others answer everybody.
    headers = target.headers if path == "/status" else {}
    try:
        answer = get_once(f"{target.health_url}{path}", timeout_s=TIMEOUT_S, headers=headers)
    except NetworkError as error:
        return Check(path, False, str(error), {"status": None, "latency_s": None})
    body = answer.body if isinstance(answer.body, dict) else {}
    ok = answer.status == 200 and body.get("status") in WELL[path]
    figures = {"status": answer.status, "latency_s": round(answer.latency_s, 3)}
    told = _told(body) if ok else _wrong(answer, body)
    return Check(path, ok, f"{told} ({answer.latency_s * 1000:.0f} ms)", figures)


def _told(body: dict[str, Any]) -> str:
    parts = [str(body["status"])]
    engine, sessions, gpu = (_object(body, name) for name in ("engine", "sessions", "gpu"))
    if engine:
        parts.append(f"model {engine.get('model')}")
    if gpu.get("name"):
        parts.append(str(gpu["name"]))
    if sessions:
        parts.append(f"{sessions.get('active')} of {sessions.get('capacity')} streams")
    return ", ".join(parts)


def _wrong(answer: Answer, body: dict[str, Any]) -> str:
    said = body.get("reason") or body.get("error") or body.get("status") or "no answer of this server"
    return f"HTTP {answer.status}: {said}"


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    return value if isinstance(value, dict) else {}
