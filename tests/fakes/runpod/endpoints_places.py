"""Where a worker runs: a GPU type of the endpoint's pools with stock, or a CPU; and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.fakes.runpod.catalog import Catalog, GpuType
from tests.fakes.runpod.endpoint import FakeEndpoint

__all__ = ["Place", "find_place", "pool_types", "pools"]

VCPU_PRICE_PER_H = 0.04
"""Invented."""


@dataclass(frozen=True)
class Place:
    """A machine; `price` in $/h of all its GPUs."""

    gpu_id: str | None
    gpu_count: int
    price: float
    data_center: str | None


def pools(catalog: Catalog) -> set[str]:
    """All serverless pools."""
    return {gpu.pool for gpu in catalog.gpus.values() if gpu.pool is not None}


def pool_types(catalog: Catalog, pool: str) -> list[GpuType]:
    """The GPU types of a pool."""
    return [gpu for gpu in catalog.gpus.values() if gpu.pool == pool]


def find_place(catalog: Catalog, endpoint: FakeEndpoint) -> Place | None:
    """The first machine in stock, in the order of the endpoint's pools; None if there is none."""
    if endpoint.cpu:
        return Place(None, 0, VCPU_PRICE_PER_H * int(endpoint.cpu[0]["vcpuCount"]), "EU-RO-1")
    gpu = endpoint.gpu or {}
    count = int(gpu.get("count", 1))
    for kind in _eligible(catalog, endpoint):
        for cloud in ("SECURE", "COMMUNITY"):
            offers = catalog.matching(
                kind.id,
                cloud,
                count=count,
                data_centers=endpoint.data_center_ids,
                min_cuda=gpu.get("minCudaVersion") or None,
                allowed_cuda=gpu.get("allowedCudaVersions") or (),
            )
            if offers and offers[0].level != "NONE":
                return Place(kind.id, count, (kind.serverless or 0.0) * count, offers[0].data_center)
    return None


def _eligible(catalog: Catalog, endpoint: FakeEndpoint) -> Iterator[GpuType]:
    gpu = endpoint.gpu or {}
    excluded = set(gpu.get("excludedTypes") or [])
    for pool in gpu.get("pools") or []:
        yield from (kind for kind in pool_types(catalog, pool) if kind.id not in excluded)
