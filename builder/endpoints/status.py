"""The documents of `endpoint status` and `endpoint list`. Money in $, times in seconds; nothing secret is part of them:
an endpoint's environment is not shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from builder.deploy.pod_spec import BUILDER_ID
from builder.endpoints.look import Look, Watcher, cost_now, read_catalog
from builder.errors import BuilderError, NetworkError, RateLimitedError, ServerFaultError
from builder.money.prices import worker_price_per_h
from builder.pods.pods import account_document
from builder.state import iso_time

if TYPE_CHECKING:
    from datetime import datetime

    from builder.api.models import GpuType
    from builder.api.models_serverless import Endpoint
    from builder.runtime import Runtime

__all__ = ["addresses", "endpoint_status", "list_endpoints", "watch_endpoint"]

REFRESH_S = 5.0
FULL_EVERY = 12
"""Looks between two at the balance: it is told by the minute."""
MAX_FAULTS = 10
MAX_RELEASES = 5


def endpoint_status(run: Runtime, endpoint_id: str) -> dict[str, Any]:
    """One look. Raises NotFoundError if the endpoint is gone, and what reading it raises."""
    account = account_document(run)
    look = Watcher(run, endpoint_id).look(credit=account["balance"], spend_per_h=account["spend_per_hour"])
    return {**_document(run, look), **account}


def watch_endpoint(run: Runtime, endpoint_id: str, show: Callable[[Mapping[str, Any]], None]) -> None:
    """`show` the document every REFRESH_S seconds until Ctrl-C, which is its normal end.

    Raises NotFoundError once the endpoint is gone; errors that pass are noted, up to MAX_FAULTS in a row.
    """
    watcher = Watcher(run, endpoint_id)
    faults, looks = 0, 0
    account: dict[str, Any] = {"balance": None, "spend_per_hour": None}
    try:
        while True:
            try:
                if looks % FULL_EVERY == 0:
                    account = account_document(run)
                look = watcher.look(credit=account["balance"], spend_per_h=account["spend_per_hour"])
                looks, faults = looks + 1, 0
                show({**_document(run, look), **account})
            except (NetworkError, RateLimitedError, ServerFaultError) as error:
                faults += 1
                if faults >= MAX_FAULTS:
                    raise
                run.console.note(f"{error}; looking again")
            run.clock.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return


def list_endpoints(run: Runtime) -> dict[str, Any]:
    """All endpoints of the account, the dearest first. Raises what listing them raises; what a single one does not
    tell is None, and noted."""
    endpoints = run.api.endpoints()
    catalog: list[GpuType] = []
    if endpoints:
        try:
            catalog = read_catalog(run)
        except BuilderError as error:
            run.console.note(f"prices could not be read: {error}")
    present = (run.state.read("endpoint") or {}).get("endpoint_id")
    rows = [_row(run, each, catalog, is_present=each.id == present) for each in endpoints]
    rows.sort(key=lambda row: (-(row["cost_per_hour"] or 0.0), row["name"]))
    known = [row["cost_per_hour"] for row in rows]
    return {
        "endpoints": rows,
        "cost_per_hour": round(sum(each or 0.0 for each in known), 4),
        "cost_known": None not in known,
    }


def addresses(run: Runtime, endpoint: Endpoint) -> dict[str, str]:
    """Where clients reach the endpoint."""
    if endpoint.type == "QUEUE":
        base = f"{run.settings.job_base.rstrip('/')}/{endpoint.id}"
        return {"run": f"{base}/run", "status": f"{base}/status/JOB", "health": f"{base}/health"}
    base = run.settings.lb_template.replace("{endpoint}", endpoint.id).rstrip("/")
    return {"base": base, "ping": f"{base}/ping"}


def _row(run: Runtime, endpoint: Endpoint, catalog: list[GpuType], *, is_present: bool) -> dict[str, Any]:
    cost: float | None = None
    counts: dict[str, int] | None = None
    try:
        workers = run.api.endpoint_workers(endpoint.id)
        counts = workers.summary.model_dump()
        cost = cost_now(endpoint, workers.workers, catalog)
    except BuilderError as error:
        run.console.note(f"the workers of {endpoint.name} could not be read: {error}")
    return {
        "endpoint_id": endpoint.id,
        "name": endpoint.name,
        "type": endpoint.type,
        "is_ours": BUILDER_ID in endpoint.env,
        "is_present": is_present,
        "image": endpoint.image,
        "workers": counts,
        **_limits(endpoint),
        "cost_per_hour": _rounded(cost),
        **_range(endpoint, worker_price_per_h(endpoint.gpu, catalog)),
        "created_at": _iso(endpoint.created_at),
    }


def _document(run: Runtime, look: Look) -> dict[str, Any]:
    endpoint, workers, gpu = look.endpoint, look.workers, look.endpoint.gpu or {}
    now_s = run.clock.unix_s()
    return {
        "endpoint_id": endpoint.id,
        "name": endpoint.name,
        "type": endpoint.type,
        "is_ours": BUILDER_ID in endpoint.env,
        "image": endpoint.image,
        "gpu_pools": list(gpu.get("pools") or []),
        "gpu_count": int(gpu.get("count") or 1) if gpu else 0,
        **_limits(endpoint),
        "idle_timeout_s": endpoint.workers.get("idleTimeout"),
        "scaling": endpoint.scaling,
        "flashboot": endpoint.flashboot,
        "execution_timeout_s": endpoint.timeout / 1000,
        "workers": None if workers is None else workers.summary.model_dump(),
        "worker_list": [] if workers is None else [_worker(each.model_dump(mode="json")) for each in workers.workers],
        "jobs": None if look.health is None else dict(look.health.jobs),
        **_rollout(look),
        "cost_per_hour": _rounded(look.cost_per_h),
        **_range(endpoint, look.price_per_h),
        "age_s": None if endpoint.created_at is None else round(now_s - endpoint.created_at.timestamp()),
        "created_at": _iso(endpoint.created_at),
        "findings": [each.document() for each in look.findings],
        "addresses": addresses(run, endpoint),
        "unseen": look.unseen,
    }


def _limits(endpoint: Endpoint) -> dict[str, Any]:
    return {"workers_min": endpoint.min_workers, "workers_max": endpoint.max_workers}


def _range(endpoint: Endpoint, price_per_h: float | None) -> dict[str, Any]:
    """What it costs with the fewest and the most workers, all on the dearest GPU it may get."""
    return {
        "price_per_worker_h": _rounded(price_per_h),
        "cost_per_hour_min": _rounded(_times(price_per_h, endpoint.min_workers)),
        "cost_per_hour_max": _rounded(_times(price_per_h, endpoint.max_workers)),
    }


def _times(price_per_h: float | None, n_workers: int) -> float | None:
    # No worker costs nothing, whatever one would.
    return 0.0 if n_workers == 0 else None if price_per_h is None else price_per_h * n_workers


def _rollout(look: Look) -> dict[str, Any]:
    if look.releases is None:
        return {"version": None, "rollout": None, "releases": []}
    shown = look.releases.releases[:MAX_RELEASES]
    return {
        "version": look.releases.endpoint_version,
        "rollout": look.releases.rollout.model_dump(),
        "releases": [
            {"id": each.id, "version": each.version, "created_at": _iso(each.created_at), "workers": each.worker_count}
            for each in shown
        ],
    }


def _worker(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "status", "is_stale", "version", "gpu_type_id", "data_center_id", "uptime_s", "image")
    return {name: row[name] for name in names}


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 4)


def _iso(moment: datetime | None) -> str | None:
    """None, too, for instants that no calendar has, as the year 0."""
    try:
        return None if moment is None else iso_time(moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None
