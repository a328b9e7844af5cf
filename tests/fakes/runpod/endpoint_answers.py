"""Endpoints, their workers and their releases as REST v2 shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.fakes.runpod.clock import iso_time
from tests.fakes.runpod.endpoint import FakeEndpoint, FakeWorker, Release

__all__ = ["Bases", "endpoint_body", "releases_body", "workers_body"]

GB_PER_VCPU = 2
STATES = ("running", "idle", "initializing", "throttled", "unhealthy")


@dataclass(frozen=True)
class Bases:
    """Where jobs are sent, and the address of a load balancer (`{endpoint}` stands for its id)."""

    jobs: str
    balancer: str


def endpoint_body(endpoint: FakeEndpoint, bases: Bases) -> dict[str, Any]:
    """All fields; `gpu` or `cpu`, and no idle timeout where there is none."""
    workers: dict[str, Any] = {"min": endpoint.workers_min, "max": endpoint.workers_max}
    if endpoint.has_idle_timeout:
        workers["idleTimeout"] = int(endpoint.kept_idle_s)
    body: dict[str, Any] = {
        "id": endpoint.id,
        "name": endpoint.name,
        "type": endpoint.type,
        "requestUrls": _urls(endpoint, bases),
        "image": endpoint.image,
        "args": endpoint.args,
        "disk": endpoint.disk,
        "env": dict(endpoint.env),
        "ports": list(endpoint.ports),
        "registry": endpoint.registry,
        "gpu": None if endpoint.gpu is None else dict(endpoint.gpu),
        "workers": workers,
        "scaling": dict(endpoint.scaling),
        "dataCenterIds": list(endpoint.data_center_ids),
        "networkVolumes": list(endpoint.network_volumes),
        "timeout": endpoint.timeout,
        "flashboot": endpoint.flashboot,
        "createdAt": iso_time(endpoint.created_s),
    }
    if endpoint.cpu is not None:
        body["cpu"] = [{**each, "memory": GB_PER_VCPU * each["vcpuCount"]} for each in endpoint.cpu]
    return body


def workers_body(endpoint: FakeEndpoint, now_s: float) -> dict[str, Any]:
    """Its workers now, and how many are in which state."""
    states = [each.status.lower() for each in endpoint.workers]
    return {
        "workers": [_worker(endpoint, each, now_s) for each in endpoint.workers],
        "summary": {**{name: states.count(name) for name in STATES}, "total": len(states)},
        "endpointVersion": endpoint.version,
    }


def releases_body(endpoint: FakeEndpoint) -> dict[str, Any]:
    """History, newest first, and how far the newest version has come."""
    total = len(endpoint.workers)
    latest = sum(not endpoint.is_stale(each) for each in endpoint.workers)
    return {
        "endpointVersion": endpoint.version,
        "rollout": {
            "inProgress": latest < total,
            "workersOnLatest": latest,
            "workersTotal": total,
            "percentOnLatest": 100 * latest // total if total else 0,
        },
        "releases": [_release(endpoint, each) for each in reversed(endpoint.releases)],
    }


def _urls(endpoint: FakeEndpoint, bases: Bases) -> dict[str, str]:
    if not endpoint.is_queue:
        base = bases.balancer.replace("{endpoint}", endpoint.id)
        return {"base": base, "health": base + endpoint.env.get("HEALTH_CHECK_PATH", "/ping")}
    base = f"{bases.jobs}/{endpoint.id}"
    urls = {name: f"{base}/{name}/{{job_id}}" for name in ("status", "stream", "cancel", "retry")}
    return {
        "run": f"{base}/run",
        "runSync": f"{base}/runsync",
        "purgeQueue": f"{base}/purge-queue",
        "health": f"{base}/health",
        **urls,
    }


def _worker(endpoint: FakeEndpoint, worker: FakeWorker, now_s: float) -> dict[str, Any]:
    started_s = worker.started_s
    return {
        "id": worker.id,
        "status": worker.status,
        "isStale": endpoint.is_stale(worker),
        "version": worker.version,
        "gpuCount": worker.gpu_count,
        "image": worker.image,
        "uptimeSeconds": None if started_s is None else int(now_s - started_s),
        "gpuTypeId": worker.gpu_id,
        "dataCenterId": worker.data_center_id,
        "startedAt": None if started_s is None else iso_time(started_s),
    }


def _release(endpoint: FakeEndpoint, release: Release) -> dict[str, Any]:
    return {
        "id": release.id,
        "version": release.version,
        "source": "MANUAL",
        "buildId": None,
        "createdByUserId": None,
        "workerCount": sum(each.version == release.version for each in endpoint.workers),
        "createdAt": iso_time(release.created_s),
        "diff": [dict(each) for each in release.diff],
    }
