"""Which pools of GPUs workers may come from: by name, by GPU, or the cheapest that hold the model.

RunPod places a worker on any GPU of any pool that was named, less the types that were excluded. So a worker's price
is that of the dearest of them, and the CUDA floor that of the most demanding. Types with too little memory are
excluded unless they were asked for.

Pure. Source: RunPod REST API v2 (`GpuType.pool`, `CreateEndpointGpuConfig`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.gpus import UNKNOWN_STOCK, architecture, cuda_floor, resolve
from builder.errors import BudgetError, CapacityError, UsageError

if TYPE_CHECKING:
    from builder.api.models import GpuType
    from builder.api.models_serverless import EndpointGpu

__all__ = ["Choice", "Pool", "PoolGpu", "Wanted", "choose_pools", "kept_choice", "pools_of"]

MAX_POOLS = 3
"""Pools that are taken if the user names none: enough to find a GPU, too few to end at the dearest."""


@dataclass(frozen=True)
class PoolGpu:
    """One GPU type of a pool; `price_per_h` in $/h of one worker, None if not known."""

    gpu_id: str
    name: str
    memory_gb: int
    price_per_h: float | None
    stock: str
    min_cuda: str
    cuda_versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """A pool with the types that workers may get, and the ids of those that they may not."""

    name: str
    gpus: tuple[PoolGpu, ...]
    excluded: tuple[str, ...] = ()

    @property
    def price_per_h(self) -> float | None:
        """The dearest type's; None if that of a type is not known."""
        return _dearest(gpu.price_per_h for gpu in self.gpus)

    @property
    def memory_gb(self) -> int:
        """The smallest type's."""
        return min(gpu.memory_gb for gpu in self.gpus)

    @property
    def is_in_stock(self) -> bool:
        """True unless the catalog says that there is none of any type."""
        return any(gpu.stock != "NONE" for gpu in self.gpus)

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "pool": self.name,
            "gpus": [gpu.gpu_id for gpu in self.gpus],
            "excluded": list(self.excluded),
            "memory_gb": self.memory_gb,
            "price_per_worker_h": self.price_per_h,
            "stock": {gpu.gpu_id: gpu.stock for gpu in self.gpus},
        }


@dataclass(frozen=True)
class Wanted:
    """What the user asks of a worker's GPU. At most one of `gpu_names` and `pool_names` is given."""

    gpu_names: tuple[str, ...] = ()
    pool_names: tuple[str, ...] = ()
    min_memory_gb: int = 0
    max_price: float | None = None
    data_centers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The pools that workers come from."""

    pools: tuple[Pool, ...]

    @property
    def price_per_h(self) -> float | None:
        """Of one worker, in $/h: that of the dearest pool; None if that of a pool is not known."""
        return _dearest(pool.price_per_h for pool in self.pools)

    @property
    def min_cuda(self) -> str | None:
        """The CUDA version that all of the GPUs run the engine with; None if no GPU is known."""
        floors = {gpu.min_cuda for pool in self.pools for gpu in pool.gpus}
        return max(floors, key=_version, default=None)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pools."""
        return tuple(pool.name for pool in self.pools)

    def request(self) -> EndpointGpu:
        """What the API takes."""
        from builder.api.models_serverless import EndpointGpu

        excluded = tuple(sorted(gpu_id for pool in self.pools for gpu_id in pool.excluded))
        return EndpointGpu(pools=self.names, excluded_types=excluded or None, min_cuda_version=self.min_cuda)


def pools_of(catalog: Iterable[GpuType], data_centers: Sequence[str] = ()) -> dict[str, Pool]:
    """All pools of the catalog, by name."""
    found: dict[str, list[PoolGpu]] = {}
    for gpu in catalog:
        if gpu.pool:
            found.setdefault(gpu.pool, []).append(_pool_gpu(gpu, data_centers))
    return {name: Pool(name, tuple(gpus)) for name, gpus in found.items()}


def choose_pools(catalog: Sequence[GpuType], wanted: Wanted) -> Choice:
    """The pools that do: by GPU names, by pool names, or the cheapest in stock that hold the model.

    Raises UsageError for a name that fits none or several, CapacityError if nothing does, BudgetError if all that
    does costs more than `wanted.max_price`.
    """
    pools = pools_of(catalog, wanted.data_centers)
    if wanted.gpu_names:
        found = _by_gpus(pools, catalog, wanted.gpu_names)
    elif wanted.pool_names:
        found = _by_names(pools, wanted)
    else:
        found = _that_do(pools, wanted.min_memory_gb)
    kept = _affordable(found, wanted)
    if wanted.gpu_names or wanted.pool_names:
        return Choice(tuple(kept))
    return Choice(tuple(sorted(kept, key=_price)[:MAX_POOLS]))


def kept_choice(catalog: Iterable[GpuType], present: Mapping[str, Any], wanted: Wanted) -> Choice | None:
    """The pools that an endpoint has (`gpu` as the API shows it), if they still do; None if they do not.

    They do if the catalog knows them, and if the model and the price guard are content with them.
    """
    pools = pools_of(catalog, wanted.data_centers)
    names = [str(name) for name in present.get("pools") or ()]
    excluded = set(present.get("excludedTypes") or ())
    if not names or any(name not in pools for name in names):
        return None
    kept = [_without(pools[name], lambda gpu: gpu.gpu_id in excluded) for name in names]
    if any(not pool.gpus or pool.memory_gb < wanted.min_memory_gb for pool in kept):
        return None
    choice = Choice(tuple(kept))
    if wanted.max_price is not None and (choice.price_per_h is None or choice.price_per_h > wanted.max_price):
        return None
    return choice


def _by_gpus(pools: dict[str, Pool], catalog: Sequence[GpuType], names: Sequence[str]) -> list[Pool]:
    """The pools of these GPUs, without the others."""
    wanted = resolve(names, catalog)
    members = {gpu.gpu_id: pool.name for pool in pools.values() for gpu in pool.gpus}
    for gpu_id in wanted:
        if gpu_id not in members:
            raise UsageError(
                f"GPU {gpu_id} is in no pool: endpoints do not get it", hint=f"pools: {', '.join(sorted(pools))}"
            )
    order = dict.fromkeys(members[gpu_id] for gpu_id in wanted)
    return [_without(pools[name], lambda gpu: gpu.gpu_id not in wanted) for name in order]


def _by_names(pools: dict[str, Pool], wanted: Wanted) -> list[Pool]:
    """These pools, less what is too small; whole if all of it is."""
    found: dict[str, Pool] = {}
    for given in wanted.pool_names:
        name = given.strip().upper()
        if name not in pools:
            raise UsageError(
                f"--pool: {given[:60]!r} is not allowed; legal: {', '.join(sorted(pools)) or 'none, says the catalog'}",
                hint="see the GPUs: python -m builder gpus --all",
            )
        fitting = _without(pools[name], lambda gpu: gpu.memory_gb < wanted.min_memory_gb)
        found[name] = fitting if fitting.gpus else pools[name]
    return list(found.values())


def _that_do(pools: dict[str, Pool], min_memory_gb: int) -> list[Pool]:
    """Pools in stock with types that hold the model and that the engine is known to run on."""

    def is_unfit(gpu: PoolGpu) -> bool:
        return gpu.memory_gb < min_memory_gb or architecture(gpu.gpu_id) is None or gpu.price_per_h is None

    fitting = [_without(pool, is_unfit) for pool in pools.values()]
    found = [pool for pool in fitting if pool.gpus and pool.is_in_stock]
    if not found:
        raise CapacityError(f"no pool with {min_memory_gb} GB of GPU memory is in stock")
    return found


def _affordable(pools: Sequence[Pool], wanted: Wanted) -> list[Pool]:
    """The pools without the types that cost too much, or nobody knows what; those of which nothing is left are out."""
    if wanted.max_price is None:
        return list(pools)
    limit = wanted.max_price
    within = [_without(pool, lambda gpu: gpu.price_per_h is None or gpu.price_per_h > limit) for pool in pools]
    kept = [pool for pool in within if pool.gpus]
    if kept:
        return kept
    prices = [(gpu.price_per_h, pool.name) for pool in pools for gpu in pool.gpus if gpu.price_per_h is not None]
    if not prices:
        raise BudgetError(f"no price is known, and --max-price is ${limit:g}/h", hint="leave --max-price out")
    price, name = min(prices)
    raise BudgetError(
        f"the cheapest pool, {name}, costs ${price:.2f}/h for a worker; --max-price is ${limit:g}/h",
        hint="raise --max-price (BUILDER_MAX_PRICE), or choose a cheaper pool or GPU",
    )


def _without(pool: Pool, is_out: Callable[[PoolGpu], bool]) -> Pool:
    out = [gpu for gpu in pool.gpus if is_out(gpu)]
    kept = tuple(gpu for gpu in pool.gpus if gpu not in out)
    return Pool(pool.name, kept, (*pool.excluded, *(gpu.gpu_id for gpu in out)) if kept else ())


def _dearest(prices: Iterable[float | None]) -> float | None:
    known = list(prices)
    return None if None in known else max((price for price in known if price is not None), default=None)


def _pool_gpu(gpu: GpuType, data_centers: Sequence[str]) -> PoolGpu:
    return PoolGpu(
        gpu_id=gpu.id,
        name=gpu.name,
        memory_gb=gpu.memory,
        price_per_h=gpu.price.serverless or None,
        stock=_stock(gpu, data_centers),
        min_cuda=cuda_floor(gpu.id),
        cuda_versions=tuple(str(each["version"]) for each in gpu.cuda_versions if "version" in each),
    )


def _stock(gpu: GpuType, data_centers: Sequence[str]) -> str:
    if not data_centers or gpu.availability is None:
        return gpu.availability or UNKNOWN_STOCK
    levels = [each.availability for each in gpu.data_centers if each.id in data_centers]
    return next((level for level in ("HIGH", "MEDIUM", "LOW") if level in levels), "NONE")


def _price(pool: Pool) -> float:
    return float("inf") if pool.price_per_h is None else pool.price_per_h


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
