"""Which machine a new pod gets, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.runpod.account import Account
from tests.fakes.runpod.catalog import Catalog
from tests.fakes.runpod.pod import PodRefusedError

__all__ = ["NO_INSTANCES", "Placement", "place"]

NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
LOW_BID = "The bid is below the lowest one accepted for this GPU."
VCPU_USD_PER_H = 0.03


@dataclass(frozen=True)
class Placement:
    """A machine; `price` in $/h for all of the pod's GPUs."""

    cloud: str
    price: float
    data_center: str | None
    cuda_version: str | None = None
    gpu_id: str | None = None
    gpu_count: int = 1
    cpu: dict[str, Any] | None = None


def place(catalog: Catalog, account: Account, body: Mapping[str, Any], bid: float | None = None) -> Placement:
    """Find a machine for a create body. Raises PodRefusedError 400 (none free, low bid) or 404 (no such volume)."""
    cloud = body.get("cloud") or "SECURE"
    wanted = list(body.get("dataCenterIds") or [])
    for mount in (body.get("mounts") or {}).get("network") or []:
        volume = account.volumes.get(mount["volumeId"])
        if volume is None:
            raise PodRefusedError(404, "network volume not found")
        # A volume lies in one of RunPod's own data centers; the pod has to go there.
        if cloud != "SECURE" or (wanted and volume.data_center not in wanted):
            raise PodRefusedError(400, NO_INSTANCES)
        wanted = [volume.data_center]
    if "cpu" in body:
        vcpus = body["cpu"]["vcpuCount"]
        shown = {**body["cpu"], "memory": 2 * vcpus}
        return Placement(cloud, VCPU_USD_PER_H * vcpus, wanted[0] if wanted else "EU-RO-1", cpu=shown)
    return _with_gpu(catalog, body["gpu"], cloud, wanted, bid)


def _with_gpu(
    catalog: Catalog, request: Mapping[str, Any], cloud: str, data_centers: list[str], bid: float | None
) -> Placement:
    gpu_id, count = request["id"], request.get("count", 1)
    offers = catalog.matching(
        gpu_id,
        cloud,
        count=count,
        data_centers=data_centers,
        min_cuda=request.get("minCudaVersion"),
        allowed_cuda=request.get("allowedCudaVersions") or (),
    )
    free = [offer for offer in offers if offer.level != "NONE"]
    if not free:
        raise PodRefusedError(400, NO_INSTANCES)
    gpu = catalog.gpus[gpu_id]
    price, lowest = gpu.price(cloud), gpu.spot_price(cloud)
    assert price is not None and lowest is not None
    if bid is not None and bid < lowest:
        raise PodRefusedError(400, LOW_BID)
    total = round(count * (price if bid is None else bid), 6)
    return Placement(cloud, total, free[0].data_center, free[0].cuda_version, gpu_id, count)
