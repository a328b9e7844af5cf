"""Which GPUs could be rented: names to ids of the catalog, the CUDA that each needs, and the order to try them in.

A candidate is one GPU type in one cloud with its price and stock. The catalog is asked once per cloud, since stock
differs; its prices are list prices for one GPU. Stock is what the catalog said a moment ago, not a promise: what seems
sold out is tried last, not left out, if the user named it.

Pure. Source of what the architectures need: CTranslate2's compiled code (8.0 to 8.9 run on any CUDA 12 driver; 9.0
and later are compiled at the first start, which needs a driver of CUDA 12.8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from builder.deploy.throughput import price_per_audio_hour, speed
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.api.models import Cloud, GpuType

__all__ = [
    "MAX_CANDIDATES",
    "Candidate",
    "Wanted",
    "architecture",
    "clouds_of",
    "cuda_floor",
    "find_candidates",
    "fits_name",
    "has_cuda",
    "list_candidates",
    "pick",
    "resolve",
    "with_bid",
]

MAX_CANDIDATES = 8
"""Candidates tried if the user names no GPU: enough to find one, too few to end at the dearest."""
MAX_LISTED = 8
STOCK_LEVELS = ("NONE", "LOW", "MEDIUM", "HIGH")
UNKNOWN_STOCK = "?"
_NOISE = {"nvidia", "geforce", "rtx", "generation", "gb"}
_ARCHITECTURES = (
    ("blackwell", re.compile(r"blackwell|\bB[23]00\b|\bGB[23]00\b|\bRTX 50\d\d\b|\bRTX PRO\b", re.I)),
    ("hopper", re.compile(r"\bG?H[12]00\b|\bH20\b", re.I)),
    ("ada", re.compile(r"\bAda\b|\bRTX 40\d\d\b|\bL4\b|\bL40S?\b|\bL20\b", re.I)),
    ("ampere", re.compile(r"\bA(10|16|30|40|100|800)\b|\bA100-|\bRTX 30\d\d|\bRTX A\d{4}\b", re.I)),
    ("turing", re.compile(r"\bT4\b|\bRTX 20\d\d\b|\bQuadro RTX\b|\bTITAN RTX\b", re.I)),
    ("volta", re.compile(r"\bV100\b", re.I)),
)
_FLOORS = {"volta": "12.0", "turing": "12.0", "ampere": "12.0", "ada": "12.0", "hopper": "12.8", "blackwell": "12.8"}
NEWEST_FLOOR = "12.8"
"""For a card that is newer than this table."""


@dataclass(frozen=True)
class Candidate:
    """One GPU type in one cloud. Prices are for all GPUs of the pod in $/h; None: not known."""

    gpu_id: str
    name: str
    memory_gb: int
    cloud: Cloud
    price_per_h: float | None
    stock: str
    min_cuda: str
    audio_s_per_s: float | None = None
    cuda_versions: tuple[str, ...] = ()
    bid_per_gpu: float | None = None

    @property
    def is_in_stock(self) -> bool:
        """True unless the catalog says that there is none."""
        return self.stock != "NONE"

    @property
    def price_per_audio_h(self) -> float | None:
        """$ per hour of recordings: an estimate from data sheets."""
        return price_per_audio_hour(self.price_per_h, self.audio_s_per_s)

    @property
    def label(self) -> str:
        """Its name in a sentence."""
        return f"{self.name} ({self.cloud})"

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "gpu": self.gpu_id,
            "name": self.name,
            "memory_gb": self.memory_gb,
            "cloud": self.cloud,
            "stock": self.stock,
            "price_per_h": self.price_per_h,
            "price_per_audio_h_estimate": self.price_per_audio_h,
            "audio_s_per_s_estimate": self.audio_s_per_s,
            "min_cuda": self.min_cuda,
            "bid_per_gpu": self.bid_per_gpu,
        }


@dataclass(frozen=True)
class Wanted:
    """What the user asks of a GPU. `gpu_names` in order of preference; empty: the cheapest that do."""

    clouds: tuple[Cloud, ...]
    gpu_names: tuple[str, ...] = ()
    count: int = 1
    data_centers: tuple[str, ...] = ()
    min_memory_gb: int = 0
    model: str = ""


def clouds_of(choice: str) -> tuple[Cloud, ...]:
    """The clouds that SECURE, COMMUNITY or ANY, in any case, stands for. Raises UsageError."""
    known: dict[str, tuple[Cloud, ...]] = {
        "SECURE": ("SECURE",),
        "COMMUNITY": ("COMMUNITY",),
        "ANY": ("COMMUNITY", "SECURE"),
    }
    if choice.upper() not in known:
        raise UsageError(f"--cloud: {choice!r} is not allowed; legal: any, secure, community")
    return known[choice.upper()]


def architecture(gpu_id: str) -> str | None:
    """volta, turing, ampere, ada, hopper or blackwell; None if the id tells none of them."""
    return next((name for name, pattern in _ARCHITECTURES if pattern.search(gpu_id)), None)


def cuda_floor(gpu_id: str) -> str:
    """The lowest CUDA version, as a host's driver reports it, with which this GPU runs the engine."""
    return _FLOORS.get(architecture(gpu_id) or "", NEWEST_FLOOR)


def has_cuda(versions: Iterable[str], floor: str) -> bool:
    """True if one of `versions` is at least `floor`; compared by numbers, 12.11 is above 12.2."""
    return any(_version(version) >= _version(floor) for version in versions)


def resolve(names: Sequence[str], catalog: Iterable[GpuType]) -> list[str]:
    """Ids for names such as "4090", "RTX 4090", "a5000" or an id, in the order given, each once.

    Raises UsageError: unknown, or more than one GPU fits (they are listed).
    """
    types = list({gpu.id: gpu for gpu in catalog}.values())
    ids: dict[str, None] = {}
    for name in names:
        ids[_resolve(name, types)] = None
    return list(ids)


def fits_name(gpu_id: str, name: str) -> bool:
    """True if `name` may mean this GPU."""
    return name.strip().lower() == gpu_id.lower() or (bool(_words(name)) and _words(name) <= _words(gpu_id))


def list_candidates(catalogs: Mapping[Cloud, Sequence[GpuType]], wanted: Wanted) -> list[Candidate]:
    """Everything offered that the names, clouds and number of GPUs allow, the cheapest first.

    Raises UsageError for a name that fits none or several.
    """
    order = resolve(wanted.gpu_names, [gpu for cloud in wanted.clouds for gpu in catalogs.get(cloud, ())])
    found = [
        candidate
        for cloud in wanted.clouds
        for gpu in catalogs.get(cloud, ())
        if (not order or gpu.id in order) and (candidate := _candidate(gpu, cloud, wanted)) is not None
    ]
    return sorted(found, key=_price)


def find_candidates(catalogs: Mapping[Cloud, Sequence[GpuType]], wanted: Wanted) -> list[Candidate]:
    """What could be tried, the best first.

    With names: in their order, each in the cheaper cloud first, what is out of stock at the end. Without: the cheapest
    in stock with enough memory, at most MAX_CANDIDATES. Raises UsageError as `list_candidates`.
    """
    found = list_candidates(catalogs, wanted)
    if wanted.gpu_names:
        order = resolve(wanted.gpu_names, [gpu for gpus in catalogs.values() for gpu in gpus])
        return sorted(found, key=lambda each: (not each.is_in_stock, order.index(each.gpu_id)))
    fitting = [
        each
        for each in found
        if each.is_in_stock and each.memory_gb >= wanted.min_memory_gb and architecture(each.gpu_id) is not None
    ]
    return fitting[:MAX_CANDIDATES]


def pick(candidates: Sequence[Candidate], min_memory_gb: int) -> Candidate | None:
    """The cheapest that is in stock, has the memory and finds a host with its CUDA; None if there is none."""
    good = [
        each
        for each in candidates
        if each.is_in_stock
        and each.stock != UNKNOWN_STOCK
        and each.memory_gb >= min_memory_gb
        and architecture(each.gpu_id) is not None
        and (not each.cuda_versions or has_cuda(each.cuda_versions, each.min_cuda))
    ]
    return min(good, key=_price, default=None)


def with_bid(candidate: Candidate, bid_per_gpu: float, count: int) -> Candidate:
    """The same as a spot pod: it costs what is bid."""
    return replace(candidate, bid_per_gpu=bid_per_gpu, price_per_h=round(bid_per_gpu * count, 4))


def _price(candidate: Candidate) -> float:
    return float("inf") if candidate.price_per_h is None else candidate.price_per_h


def _candidate(gpu: GpuType, cloud: Cloud, wanted: Wanted) -> Candidate | None:
    """`gpu` in `cloud`; None if it is not rented out there, or not so many on one machine."""
    is_offered, price = (gpu.secure, gpu.price.secure) if cloud == "SECURE" else (gpu.community, gpu.price.community)
    if not is_offered or not price or gpu.max_count.get(cloud.lower(), wanted.count) < wanted.count:
        return None
    return Candidate(
        gpu_id=gpu.id,
        name=gpu.name,
        memory_gb=gpu.memory,
        cloud=cloud,
        price_per_h=round(price * wanted.count, 4),
        stock=_stock(gpu, wanted.data_centers),
        min_cuda=cuda_floor(gpu.id),
        audio_s_per_s=speed(gpu.id, wanted.model),
        cuda_versions=tuple(str(each["version"]) for each in gpu.cuda_versions if "version" in each),
    )


def _stock(gpu: GpuType, data_centers: Sequence[str]) -> str:
    if not data_centers or gpu.availability is None:
        return gpu.availability or UNKNOWN_STOCK
    levels = [each.availability for each in gpu.data_centers if each.id in data_centers]
    return max(levels, key=lambda level: STOCK_LEVELS.index(level) if level in STOCK_LEVELS else 0, default="NONE")


def _resolve(name: str, types: Sequence[GpuType]) -> str:
    exact = [gpu.id for gpu in types if name.strip().lower() in (gpu.id.lower(), gpu.name.lower())]
    if len(exact) == 1:
        return exact[0]
    asked = _words(name)
    same = [gpu.id for gpu in types if asked and asked in (_words(gpu.id), _words(gpu.name))]
    part = [gpu.id for gpu in types if asked and (asked <= _words(gpu.id) or asked <= _words(gpu.name))]
    matches = exact or same or part
    if len(matches) == 1:
        return matches[0]
    if not matches:
        known = ", ".join(sorted(gpu.name for gpu in types)[:MAX_LISTED]) or "none"
        raise UsageError(
            f"GPU {name!r} is not in RunPod's catalog; known: {known}, ...",
            hint="see all: python -m builder gpus --all",
        )
    listed = ", ".join(sorted(matches)[:MAX_LISTED])
    raise UsageError(f"GPU {name!r} may be any of: {listed}", hint="give the whole name")


def _words(text: str) -> frozenset[str]:
    """The telling parts of a GPU's name: "NVIDIA GeForce RTX 3080TI" and "3080 Ti" have the same."""
    plain = re.sub(r"nvidia|geforce|rtx", " ", text.lower())
    return frozenset(re.findall(r"[a-z]*\d+|[a-z]+", plain)) - _NOISE


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
