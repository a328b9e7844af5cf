"""Health answers: /health, /ready, /status, /metrics on the health port, /ping on the main one.

The JSON shapes of /health, /ready and /status are those of davidbmar/whisperlive-runpod's health
check (runpod/healthcheck.py), plus further keys; unlike there, readiness is told from inside the
process, without a connection to the streaming port. /health, /ready and /ping are open to all; from
another machine /metrics and the details of /status need the secret.

Knows no session and no engine: `StatusSource` tells. Answers hold no uid, no text and no secret.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from engine.clock import Clock
from realtime.auth import Gate
from realtime.gpu import GpuProbe

__all__ = ["SHOWN_VARIABLES", "Snapshot", "StatusSource", "health_app", "ping_route"]

SEED_VARIABLES = ("WHISPER_MODEL", "WHISPER_COMPUTE_TYPE")
"""Always shown, null if unset, as the seed project's consumers expect."""
SHOWN_VARIABLES = (*SEED_VARIABLES, "MAX_CLIENTS", "MAX_CONNECTION_TIME", "LOG_FORMAT", "LOG_LEVEL", "RUNPOD_POD_ID")
"""An allow-list: whatever else is in the environment may be a secret."""
STARTING = ("loading", "restarting", "starting")
"""First words of reasons that pass by themselves."""
FULL = "full"
METHODS = ("GET", "HEAD")
NO_STORE = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Snapshot:
    """What /status tells beyond readiness; `details` become further keys of its answer."""

    started_unix_s: float
    uptime_s: float
    port: int
    details: Mapping[str, Any] = field(default_factory=dict)


class StatusSource(Protocol):
    """The server, as far as health answers need it."""

    clock: Clock

    def readiness(self) -> tuple[bool, str]:
        """True if a new stream would be served now; else why not.

        The reason's first word is its kind: loading, restarting, full, draining, failed, ...
        """
        ...

    def snapshot(self) -> Snapshot:
        """Facts for /status."""
        ...

    def render_metrics(self) -> tuple[bytes, str]:
        """Prometheus text and its content type."""
        ...


def ping_route(source: StatusSource) -> Route:
    """`/ping` as RunPod's load balancer asks it: 200 ready, 204 loading, 503 draining or failed.

    A server whose places are all taken is well: it answers 200, or it would be replaced.
    """

    async def ping(request: Request) -> Response:
        is_ready, reason = source.readiness()
        kind = _kind(reason)
        if is_ready or kind == FULL:
            return PlainTextResponse("ready\n", headers=NO_STORE)
        if kind in STARTING:
            return Response(status_code=204, headers=NO_STORE)
        return PlainTextResponse(reason + "\n", status_code=503, headers=NO_STORE)

    return Route("/ping", ping, methods=list(METHODS))


def health_app(source: StatusSource, gate: Gate, *, trusted: bool) -> Starlette:
    """The application of the health port; `trusted`: only this machine can connect."""
    gpu = GpuProbe(source.clock)

    async def health(request: Request) -> Response:
        return _json({"status": "healthy", "timestamp": _timestamp()})

    async def ready(request: Request) -> Response:
        return _ready_answer(source)

    async def status(request: Request) -> Response:
        body = _status(source)
        if trusted or gate.admit(request.scope).ok:
            body["gpu"] = await gpu.read()
            body["environment"] = _environment()
            body.update(source.snapshot().details)
        return _json(body)

    async def metrics(request: Request) -> Response:
        if not trusted:
            entry = gate.admit(request.scope)
            if not entry.ok:
                return _json({"error": entry.reason}, entry.status, entry.headers)
        body, content_type = source.render_metrics()
        return Response(body, headers={**NO_STORE, "Content-Type": content_type})

    async def not_found(request: Request, error: Exception) -> Response:
        return _json({"error": "Not found"}, 404)

    handlers = {"/health": health, "/ready": ready, "/status": status, "/metrics": metrics}
    routes = [Route(path, handler, methods=list(METHODS)) for path, handler in handlers.items()]
    app = Starlette(routes=[*routes, ping_route(source)], exception_handlers={404: not_found})
    app.router.redirect_slashes = False
    return app


def _ready_answer(source: StatusSource) -> Response:
    is_ready, reason = source.readiness()
    body = {
        "status": "ready" if is_ready else "not_ready",
        "reason": reason,
        "whisperlive_port": source.snapshot().port,
        "timestamp": _timestamp(),
    }
    return _json(body, 200 if is_ready else 503)


def _status(source: StatusSource) -> dict[str, Any]:
    is_ready, reason = source.readiness()
    kind = _kind(reason)
    snapshot = source.snapshot()
    # There "ready" means that the streaming port answers, and it does with all places taken, too.
    is_well = is_ready or kind == FULL
    return {
        "status": "healthy" if is_well else "starting" if kind in STARTING else kind,
        "uptime_seconds": int(snapshot.uptime_s),
        "startup_time": _timestamp(snapshot.started_unix_s),
        "whisperlive": {"ready": is_well, "port": snapshot.port},
        "timestamp": _timestamp(),
    }


def _kind(reason: str) -> str:
    words = reason.replace(":", " ").split()
    return words[0] if words else "failed"


def _environment() -> dict[str, str | None]:
    shown: dict[str, str | None] = dict.fromkeys(SEED_VARIABLES)
    shown.update({name: os.environ[name] for name in SHOWN_VARIABLES if name in os.environ})
    return shown


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(body, status_code=status, headers={**NO_STORE, **(headers or {})})


def _timestamp(unix_s: float | None = None) -> str:
    return datetime.fromtimestamp(time.time() if unix_s is None else unix_s, timezone.utc).isoformat()
