"""What the fake can rent out: GPU types with invented pod prices, data centers, and stock that tests change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["DATA_CENTERS", "LEVELS", "Catalog", "Cloud", "DataCenter", "GpuType", "Level", "Offer", "cuda_key"]

Cloud = Literal["SECURE", "COMMUNITY"]
Level = Literal["NONE", "LOW", "MEDIUM", "HIGH"]
LEVELS: tuple[Level, ...] = ("NONE", "LOW", "MEDIUM", "HIGH")
"""Ascending."""


@dataclass(frozen=True)
class DataCenter:
    """One location."""

    id: str
    region: str
    country: str
    volumes: tuple[str, ...] = ("STANDARD",)
    compliance: tuple[str, ...] = ("SOC_2_TYPE_2",)
    global_network: bool = True


DATA_CENTERS: tuple[DataCenter, ...] = (
    DataCenter("EU-RO-1", "EUROPE", "RO", ("STANDARD", "HIGH_PERFORMANCE"), ("GDPR", "SOC_2_TYPE_2")),
    DataCenter("EU-CZ-1", "EUROPE", "CZ", compliance=("GDPR",)),
    DataCenter("EU-SE-1", "EUROPE", "SE", compliance=("GDPR", "ISO_IEC_27001")),
    DataCenter("EU-NL-1", "EUROPE", "NL", compliance=("GDPR",), global_network=False),
    DataCenter("EUR-IS-1", "EUROPE", "IS", ("STANDARD",), ("GDPR", "RENEWABLE")),
    DataCenter("CA-MTL-1", "NORTH_AMERICA", "CA"),
    DataCenter("US-TX-3", "NORTH_AMERICA", "US", compliance=("SOC_2_TYPE_2", "HIPAA")),
    DataCenter("US-KS-2", "NORTH_AMERICA", "US", ("STANDARD", "HIGH_PERFORMANCE")),
    DataCenter("US-GA-1", "NORTH_AMERICA", "US", volumes=(), compliance=(), global_network=False),
    DataCenter("AP-JP-1", "ASIA", "JP"),
    DataCenter("OC-AU-1", "OCEANIA", "AU", volumes=(), compliance=()),
)


@dataclass
class Offer:
    """Machines of one kind in one place. `shown` is what the catalog says where it is out of date."""

    cloud: Cloud
    data_center: str
    cuda_version: str
    level: Level
    shown: Level | None = None

    @property
    def listed(self) -> Level:
        """The level in the catalog."""
        return self.level if self.shown is None else self.shown


@dataclass
class GpuType:
    """One GPU; prices in $/h, memory in GB; price None: not rented out there."""

    id: str
    name: str
    memory_gb: int
    pool: str | None
    secure: float | None
    community: float | None
    serverless: float | None
    is_blackwell: bool = False
    max_secure: int = 8
    max_community: int = 4
    offers: list[Offer] = field(default_factory=list)

    def price(self, cloud: str) -> float | None:
        """$/h of one GPU on demand."""
        return self.secure if cloud == "SECURE" else self.community

    def spot_price(self, cloud: str) -> float | None:
        """The lowest bid, $/h of one GPU."""
        price = self.price(cloud)
        return None if price is None else round(price * 0.5, 3)

    def max_count(self, cloud: str) -> int:
        """GPUs of the largest machine; 0 where there is none."""
        if self.price(cloud) is None:
            return 0
        return self.max_secure if cloud == "SECURE" else self.max_community


# id, name, GB, pool, $/h secure, community, serverless
_GPUS: tuple[tuple[str, str, int, str | None, float | None, float | None, float | None], ...] = (
    ("NVIDIA RTX 2000 Ada Generation", "RTX 2000 Ada", 16, "AMPERE_16", 0.24, None, 0.58),
    ("NVIDIA RTX A4000", "RTX A4000", 16, "AMPERE_16", 0.25, 0.17, 0.58),
    ("NVIDIA RTX A4500", "RTX A4500", 20, "AMPERE_16", 0.26, 0.19, 0.58),
    ("NVIDIA RTX 4000 Ada Generation", "RTX 4000 Ada", 20, "AMPERE_16", 0.28, 0.20, 0.58),
    ("NVIDIA L4", "L4", 24, "AMPERE_24", 0.43, None, 0.68),
    ("NVIDIA RTX A5000", "RTX A5000", 24, "AMPERE_24", 0.29, 0.22, 0.68),
    ("NVIDIA GeForce RTX 3090", "RTX 3090", 24, "AMPERE_24", 0.46, 0.23, 0.68),
    ("NVIDIA GeForce RTX 4090", "RTX 4090", 24, "ADA_24", 0.69, 0.36, 1.12),
    ("NVIDIA GeForce RTX 5090", "RTX 5090", 32, "ADA_32_PRO", 0.94, 0.71, 1.58),
    ("NVIDIA A40", "A40", 48, "AMPERE_48", 0.42, None, 1.22),
    ("NVIDIA RTX A6000", "RTX A6000", 48, "AMPERE_48", 0.51, 0.35, 1.22),
    ("NVIDIA L40S", "L40S", 48, "ADA_48_PRO", 0.88, 0.81, 1.91),
    ("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, "AMPERE_80", 1.41, 1.21, 2.74),
    ("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, "AMPERE_80", 1.51, None, 2.74),
    ("NVIDIA H100 80GB HBM3", "H100 SXM", 80, "ADA_80_PRO", 2.71, 2.51, 4.18),
    ("NVIDIA H100 PCIe", "H100 PCIe", 80, "ADA_80_PRO", 2.41, 2.01, 4.18),
    ("NVIDIA H200", "H200 SXM", 141, "HOPPER_141", 3.61, None, 5.58),
    ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000", 96, "BLACKWELL_96", 1.71, None, 4.00),
    ("NVIDIA B200", "B200", 180, "BLACKWELL_180", 5.01, None, 8.64),
    ("NVIDIA GeForce RTX 3070", "RTX 3070", 8, None, None, 0.13, None),
    ("NVIDIA GeForce RTX 3080", "RTX 3080", 10, None, None, 0.17, None),
    ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080 Ti", 12, None, None, 0.18, None),
)
_BLACKWELL = ("RTX 5090", "RTX PRO 6000", "B200")
_OLD_CUDA = ("12.8", "12.4", "12.6", "13.0", "12.2")
_BLACKWELL_CUDA = ("12.8", "13.0", "12.9")


def cuda_key(version: str) -> tuple[int, int]:
    """For comparing: 12.11 is above 12.2. A bare major means any release of it."""
    major, _dot, minor = version.partition(".")
    return int(major), int(minor or "0")


class Catalog:
    """All GPU types. A fresh one has every type in stock in three places of each of its clouds."""

    def __init__(self) -> None:
        self.gpus: dict[str, GpuType] = {}
        for number, (gpu_id, name, memory, pool, secure, community, serverless) in enumerate(_GPUS):
            gpu = GpuType(gpu_id, name, memory, pool, secure, community, serverless, name in _BLACKWELL)
            gpu.offers = list(_offers(gpu, number))
            self.gpus[gpu_id] = gpu

    def set_stock(
        self,
        gpu_id: str,
        level: Level,
        *,
        cloud: Cloud | None = None,
        data_center: str | None = None,
        shown: Level | None = None,
    ) -> None:
        """Set the stock (None: everywhere); `shown` is what the catalog goes on to say (None: the truth)."""
        changed = [
            offer
            for offer in self.gpus[gpu_id].offers
            if cloud in (None, offer.cloud) and data_center in (None, offer.data_center)
        ]
        if not changed:
            raise KeyError(f"{gpu_id} is not offered in {cloud} {data_center}")
        for offer in changed:
            offer.level, offer.shown = level, shown

    def matching(
        self,
        gpu_id: str,
        cloud: str,
        *,
        count: int = 1,
        data_centers: Sequence[str] = (),
        min_cuda: str | None = None,
        allowed_cuda: Sequence[str] = (),
    ) -> list[Offer]:
        """Offers that fit, in stock or not; best stock first."""
        gpu = self.gpus.get(gpu_id)
        if gpu is None or count > gpu.max_count(cloud):
            return []
        fit = [
            offer
            for offer in gpu.offers
            if offer.cloud == cloud
            and (not data_centers or offer.data_center in data_centers)
            and (min_cuda is None or cuda_key(offer.cuda_version) >= cuda_key(min_cuda))
            and (not allowed_cuda or offer.cuda_version in allowed_cuda)
        ]
        return sorted(fit, key=lambda offer: -LEVELS.index(offer.level))


def _offers(gpu: GpuType, number: int) -> Sequence[Offer]:
    cudas = _BLACKWELL_CUDA if gpu.is_blackwell else _OLD_CUDA
    levels: tuple[Level, ...] = ("HIGH", "MEDIUM", "LOW")
    clouds: tuple[Cloud, ...] = ("SECURE", "COMMUNITY")
    return [
        Offer(
            cloud,
            DATA_CENTERS[(number * 3 + shift * 5 + 2 * clouds.index(cloud)) % len(DATA_CENTERS)].id,
            cudas[shift % len(cudas)],
            levels[shift % len(levels)],
        )
        for cloud in clouds
        if gpu.price(cloud) is not None
        for shift in range(3)
    ]
