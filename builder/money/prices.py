"""What things cost: prices of storage, and rates by hour, day and month.

Pure. Machines are priced by RunPod's API (`Pod.cost`, in $/h); storage is not, so its prices stand here. Sources are
RunPod's documentation, pages "Billing information" and "Network volumes", read in 2026; amounts are estimates until
they are compared with the bill (`cost --reconcile`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.api.models import GpuType, NetworkVolume, Pod

__all__ = [
    "DISK_RUNNING",
    "HOURS_PER_MONTH",
    "RUNNING_STATUSES",
    "VOLUME_STOPPED",
    "Rate",
    "dollars",
    "network_volume_rate",
    "pod_rate",
    "storage_rate",
    "worker_price_per_h",
]

HOURS_PER_MONTH = 730
"""A twelfth of 365 days: storage is priced by the month and billed by smaller units."""
HOURS_PER_DAY = 24
DISK_RUNNING = 0.10
"""$/GB/month for container disk and volume of a pod that runs."""
VOLUME_STOPPED = 0.20
"""$/GB/month for the volume of a stopped pod; its container disk is gone, and free."""
NETWORK_VOLUME = 0.07
"""$/GB/month for the first NETWORK_TIER_GB of a network volume."""
NETWORK_VOLUME_BEYOND = 0.05
"""$/GB/month for what is beyond them."""
NETWORK_TIER_GB = 1000
"""An assumption: the documentation says 1 TB, and not whether that is 1000 or 1024 GB."""
NETWORK_HIGH_PERFORMANCE = 0.14
"""$/GB/month. An assumption: on RunPod's price list, not in the documentation."""
RUNNING_STATUSES = ("PROVISIONING", "STARTING", "RUNNING")
"""A pod in one of these has a machine, and pays for it as far as its `cost` says."""


@dataclass(frozen=True)
class Rate:
    """$/h, split: `machine_per_h` for GPUs and CPUs, `storage_per_h` for disks. None: not known."""

    machine_per_h: float | None
    storage_per_h: float

    @property
    def per_hour(self) -> float:
        """Everything that is known."""
        return (self.machine_per_h or 0.0) + self.storage_per_h

    @property
    def per_day(self) -> float:
        """For 24 hours."""
        return self.per_hour * HOURS_PER_DAY

    @property
    def per_month(self) -> float:
        """For HOURS_PER_MONTH."""
        return self.per_hour * HOURS_PER_MONTH

    @property
    def is_known(self) -> bool:
        """False if the machine's price is not known, so that `per_hour` is too low."""
        return self.machine_per_h is not None


def storage_rate(*, disk_gb: float, volume_gb: float, is_running: bool) -> float:
    """$/h for a pod's container disk and volume."""
    per_month = (disk_gb + volume_gb) * DISK_RUNNING if is_running else volume_gb * VOLUME_STOPPED
    return per_month / HOURS_PER_MONTH


def pod_rate(pod: Pod) -> Rate:
    """What a pod costs as it is now."""
    if pod.status == "TERMINATED":
        return Rate(0.0, 0.0)
    is_running = pod.status in RUNNING_STATUSES
    # A pod in ERROR may or may not have its machine still: its `cost` says so.
    storage_per_h = storage_rate(
        disk_gb=pod.disk, volume_gb=pod.volume_gb, is_running=is_running or (pod.status == "ERROR" and pod.cost > 0)
    )
    return Rate(0.0 if pod.status == "EXITED" else pod.cost, storage_per_h)


def network_volume_rate(volume: NetworkVolume) -> Rate:
    """What a network volume costs, used or not."""
    if volume.type == "HIGH_PERFORMANCE":
        return Rate(0.0, volume.size * NETWORK_HIGH_PERFORMANCE / HOURS_PER_MONTH)
    beyond_gb = max(0, volume.size - NETWORK_TIER_GB)
    per_month = (volume.size - beyond_gb) * NETWORK_VOLUME + beyond_gb * NETWORK_VOLUME_BEYOND
    return Rate(0.0, per_month / HOURS_PER_MONTH)


def worker_price_per_h(gpu: Mapping[str, Any] | None, catalog: Iterable[GpuType]) -> float | None:
    """$/h of one worker of an endpoint, at the dearest GPU that it may get; None if the catalog has none.

    None as well if `gpu`, which RunPod answered, makes no sense.
    """
    gpu = gpu or {}
    pools, excluded, count = gpu.get("pools") or [], gpu.get("excludedTypes") or [], gpu.get("count") or 1
    if not (isinstance(pools, list) and isinstance(excluded, list) and isinstance(count, int)):
        return None
    prices = [
        each.price.serverless
        for each in catalog
        if each.pool in pools and each.id not in excluded and each.price.serverless
    ]
    return max(prices) * count if prices else None


def dollars(amount: float) -> str:
    """`$1.38`; small amounts, such as an hour of storage, keep four digits: `$0.0027`."""
    if amount < 0:
        return f"-{dollars(-amount)}"
    return f"${amount:.4f}" if 0 < amount < 0.1 else f"${amount:.2f}"
