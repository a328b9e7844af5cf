"""The catalog as REST v2 shows it: GPU types with stock, and data centers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.fakes.runpod.catalog import DATA_CENTERS, LEVELS, Catalog, DataCenter, GpuType, Level, Offer
from tests.fakes.runpod.pod import PodRefusedError

__all__ = ["data_center_document", "data_centers", "gpu_document", "stock_query"]

STOCK_ONLY = ("product", "count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion")
_COUNTRY = {center.id: center.country for center in DATA_CENTERS}


def stock_query(query: Mapping[str, str]) -> bool:
    """Whether stock is asked for. Raises PodRefusedError 400 or 422 where the query breaks a rule."""
    include = query.get("include")
    if include not in (None, "", "AVAILABILITY"):
        raise PodRefusedError(422, "invalid query", ("include: must be one of AVAILABILITY",))
    if not include:
        misplaced = [name for name in STOCK_ONLY if name in query]
        if misplaced:
            raise PodRefusedError(400, f"{misplaced[0]} is valid only with include=AVAILABILITY")
        return False
    if not query.get("product"):
        raise PodRefusedError(400, "include=AVAILABILITY requires product")
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise PodRefusedError(400, "cudaVersions and minCudaVersion are mutually exclusive")
    errors = tuple(_query_errors(query))
    if errors:
        raise PodRefusedError(422, "invalid query", errors)
    return True


def _query_errors(query: Mapping[str, str]) -> list[str]:
    rules = {
        "product": r"(POD|CLUSTER|SERVERLESS)(,(POD|CLUSTER|SERVERLESS))*",
        "count": r"[1-9]\d*",
        "cloud": "SECURE|COMMUNITY",
        "countryCodes": "[A-Z]{2}(,[A-Z]{2})*",
        "cudaVersions": r"\d+\.\d+(,\d+\.\d+)*",
        "minCudaVersion": r"\d+(\.\d+)?",
    }
    return [
        f"{name}: {query[name]!r} is not valid"
        for name, rule in rules.items()
        if name in query and not re.fullmatch(rule, query[name])
    ]


def gpu_document(catalog: Catalog, gpu: GpuType, query: Mapping[str, str]) -> dict[str, Any]:
    """One GPU type; with stock if the (checked) query asks for it."""
    price: dict[str, float] = {"secure": gpu.secure or 0.0, "community": gpu.community or 0.0}
    if gpu.serverless is not None:
        price["serverless"] = gpu.serverless
    document: dict[str, Any] = {
        "id": gpu.id,
        "name": gpu.name,
        "pool": gpu.pool,
        "manufacturer": "NVIDIA",
        "memory": gpu.memory_gb,
        "secure": gpu.secure is not None,
        "community": gpu.community is not None,
        "price": price,
        "maxCount": {"secure": gpu.max_count("SECURE"), "community": gpu.max_count("COMMUNITY")},
    }
    return {**document, **_stock(catalog, gpu, query)} if stock_query(query) else document


def _stock(catalog: Catalog, gpu: GpuType, query: Mapping[str, str]) -> dict[str, Any]:
    countries = query["countryCodes"].split(",") if "countryCodes" in query else []
    offers = [
        offer
        for cloud in _clouds(gpu, query)
        for offer in catalog.matching(
            gpu.id,
            cloud,
            count=int(query.get("count", "1")),
            min_cuda=query.get("minCudaVersion"),
            allowed_cuda=query["cudaVersions"].split(",") if "cudaVersions" in query else (),
        )
        if not countries or _COUNTRY[offer.data_center] in countries
    ]
    stock: dict[str, Any] = {"availability": _best(offers)}
    places = {offer.data_center: offer for offer in reversed(offers) if offer.listed != "NONE"}
    if places:
        stock["dataCenters"] = [
            {"id": name, "name": name, "availability": offer.listed} for name, offer in sorted(places.items())
        ]
    versions = sorted({offer.cuda_version for offer in offers})
    if versions:
        free = {offer.cuda_version for offer in offers if offer.listed != "NONE"}
        stock["cudaVersions"] = [{"version": version, "available": version in free} for version in versions]
    return stock


def _clouds(gpu: GpuType, query: Mapping[str, str]) -> tuple[str, ...]:
    """Where a product's machines stand: workers run in both clouds, if the type is for workers at all."""
    if query["product"] == "SERVERLESS" and "cloud" not in query:
        return () if gpu.serverless is None else ("SECURE", "COMMUNITY")
    return (query.get("cloud") or "SECURE",)


def _best(offers: list[Offer]) -> Level:
    return LEVELS[max((LEVELS.index(offer.listed) for offer in offers), default=0)]


def data_centers(catalog: Catalog, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those that the query's filters let through."""

    def asked(name: str) -> set[str]:
        return set(filter(None, query.get(name, "").split(",")))

    shown = [
        center
        for center in DATA_CENTERS
        if (not asked("regions") or center.region in asked("regions"))
        and asked("networkVolumeTypes") <= set(center.volumes)
        and asked("compliance") <= set(center.compliance)
        and query.get("globalNetwork") in (None, str(center.global_network).lower())
    ]
    return [data_center_document(catalog, center, query) for center in shown]


def data_center_document(catalog: Catalog, center: DataCenter, query: Mapping[str, str]) -> dict[str, Any]:
    """One location; with its GPUs' stock if asked for."""
    document: dict[str, Any] = {
        "id": center.id,
        "name": center.id,
        "region": center.region,
        "globalNetwork": center.global_network,
        "networkVolumeTypes": list(center.volumes),
        "compliance": list(center.compliance),
    }
    if "GPU_AVAILABILITY" in query.get("include", "").split(","):
        here = [
            (gpu, [offer for offer in gpu.offers if offer.data_center == center.id]) for gpu in catalog.gpus.values()
        ]
        found = [{"id": gpu.id, "name": gpu.name, "availability": _best(offers)} for gpu, offers in here if offers]
        if found:
            document["gpuAvailability"] = found
    return document
