"""`artifacts/endpoint.json`: what is remembered of the endpoint that was deployed last. Holds no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.endpoints.spec import TYPES, spec_sha
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.endpoints.prepare import Prepared
    from builder.runtime import Runtime

__all__ = ["endpoint_record", "write_record"]


def endpoint_record(
    run: Runtime, prepared: Prepared, endpoint: Endpoint, *, template_id: str | None, image_digest: str | None
) -> dict[str, Any]:
    """What is remembered of an endpoint that is what `prepared` says."""
    options, now_s = prepared.options, run.clock.unix_s()
    return {
        "endpoint_id": endpoint.id,
        "name": prepared.name,
        "type": TYPES[options.kind],
        "template_id": template_id,
        "image": options.image,
        "image_digest": image_digest,
        "pools": list(options.gpu.pools),
        "workers_min": options.scale.min,
        "workers_max": options.scale.max,
        "price_per_worker_h": prepared.plan.price_per_worker_h,
        "created_at": iso_time(endpoint.created_at.timestamp() if endpoint.created_at else now_s),
        "builder_id": prepared.builder_id,
        "spec_sha": spec_sha(options),
        "last_updated": iso_time(now_s),
    }


def write_record(run: Runtime, record: dict[str, Any], action: str) -> None:
    """Remember the endpoint, and put what was done into the diary. Raises DiskFullError, BuilderError."""
    run.state.write("endpoint", record)
    details = {name: record[name] for name in ("name", "type", "image", "pools", "workers_min", "workers_max")}
    run.state.event(
        run.clock.unix_s(),
        action,
        "endpoint",
        record["endpoint_id"],
        price_per_worker_h=record["price_per_worker_h"],
        **details,
    )
