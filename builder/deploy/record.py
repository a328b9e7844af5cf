"""`artifacts/pod.json`: the seed project's keys, and what the other verbs need. Holds no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.deploy.pod_spec import SPEC_SHA
from builder.pods.addresses import health_url, ws_url
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import Pod
    from builder.deploy.gpus import Candidate
    from builder.deploy.prepare import Prepared
    from builder.runtime import Runtime
    from builder.settings import Settings

__all__ = ["pod_record", "update_status"]


def pod_record(settings: Settings, prepared: Prepared, candidate: Candidate, pod: Pod, now_s: float) -> dict[str, Any]:
    """What is remembered of a pod that was just created."""
    options, limits = prepared.options, prepared.plan.limits
    return {
        "pod_id": pod.id,
        "status": pod.status,
        "public_ip": None,
        "ws_port": options.ws_port,
        "health_port": options.health_port,
        "last_updated": iso_time(now_s),
        "pod_name": prepared.plan.name,
        "gpu_type": pod.gpu.id if pod.gpu else candidate.gpu_id,
        "cloud": pod.cloud or candidate.cloud,
        "data_center": pod.data_center_id,
        "cost_per_hour": pod.cost or candidate.price_per_h,
        "image": options.image,
        "ws_url": ws_url(settings.proxy_template, pod.id, options.ws_port),
        "health_url": health_url(settings.proxy_template, pod.id, options.health_port),
        "created_at": iso_time(pod.created_at.timestamp() if pod.created_at else now_s),
        "deadline": limits.deadline,
        "idle_stop_min": limits.idle_stop_min,
        "spec_sha": prepared.spec(candidate).env[SPEC_SHA],
        "builder_id": prepared.builder_id,
        "volume_gb": options.volume_gb,
        "is_spot": prepared.plan.is_spot,
    }


def update_status(run: Runtime, record: dict[str, Any], status: str) -> dict[str, Any]:
    """Write the record again with what is known now."""
    record = {**record, "status": status, "last_updated": iso_time(run.clock.unix_s())}
    run.state.write("pod", record)
    return record
