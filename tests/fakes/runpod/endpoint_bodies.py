"""Bodies of endpoints, templates and network volumes: what REST v2 allows in them, in its own words.

422 for what breaks the shape, 400 for what breaks a rule between fields, 404 for what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.runpod.account import Account
from tests.fakes.runpod.bodies import CUDA, check_ports, check_registry
from tests.fakes.runpod.body_checks import (
    Check,
    additional,
    choice,
    closed,
    env,
    flag,
    list_of,
    number,
    refuse,
    text,
    text_or_null,
    whole,
)
from tests.fakes.runpod.catalog import DATA_CENTERS, Catalog
from tests.fakes.runpod.endpoint import FakeEndpoint
from tests.fakes.runpod.endpoints_changes import merged_gpu
from tests.fakes.runpod.endpoints_places import pool_types, pools
from tests.fakes.runpod.pod import PodRefusedError

__all__ = [
    "checked_endpoint",
    "checked_endpoint_patch",
    "checked_template",
    "checked_template_patch",
    "checked_volume",
]

_CONTAINER: dict[str, Check] = {
    "image": text(),
    "args": text(),
    "disk": whole(1),
    "env": env,
    "ports": list_of(text()),
    "registry": text_or_null,
}
_POOLS: dict[str, Check] = {
    "pools": list_of(text(), at_least=1),
    "excludedTypes": list_of(text(pattern=r"\s*[^-\s][\s\S]*"), is_unique=True),
    "count": whole(1),
    "allowedCudaVersions": list_of(text(pattern=CUDA)),
}
_CPU = list_of(closed({"id": text(1), "vcpuCount": whole(2)}, ("id", "vcpuCount")), at_least=1, is_unique=True)
_DELAY = closed({"type": choice("QUEUE_DELAY"), "queueDelay": number(0.5)}, ("type", "queueDelay"))
_COUNT = closed({"type": choice("REQUEST_COUNT"), "requestCount": whole(1)}, ("type", "requestCount"))


def _scaling(value: Any, path: str) -> list[str]:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("QUEUE_DELAY", "REQUEST_COUNT"):
        return [f"{path}: value must be one of 'QUEUE_DELAY', 'REQUEST_COUNT' by property 'type'"]
    return (_DELAY if kind == "QUEUE_DELAY" else _COUNT)(value, path)


_SHARED: dict[str, Check] = {
    **_CONTAINER,
    "name": text(1),
    "scaling": _scaling,
    "cpu": _CPU,
    "dataCenterIds": list_of(text()),
    "flashboot": choice("OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"),
    "networkVolumes": list_of(text()),
    "timeout": whole(),
    "workers": closed({"min": whole(0), "max": whole(0), "idleTimeout": whole(1, 3600)}),
}
_CREATE = closed(
    {
        **_SHARED,
        "gpu": closed({**_POOLS, "minCudaVersion": text(pattern=CUDA)}, ("pools",)),
        "type": choice("QUEUE", "LOAD_BALANCER"),
        "templateId": text(1),
    },
    ("name", "type", "scaling"),
)
_PATCH = closed(
    {**_SHARED, "gpu": closed({**_POOLS, "minCudaVersion": text(pattern=f"|{CUDA}")}), "templateId": text()}
)
_MOUNT = closed({"size": whole(10), "path": text()}, ("size", "path"))
_TEMPLATE: dict[str, Check] = {
    **_CONTAINER,
    "name": text(1),
    "allowedCudaVersions": list_of(text(pattern=CUDA)),
    "category": choice("CPU", "NVIDIA", "AMD"),
    "mounts": closed({"persistent": _MOUNT}),
    "public": flag,
    "serverless": flag,
    "startJupyter": flag,
    "startSsh": flag,
}
_VOLUME = closed(
    {
        "name": text(1),
        "dataCenter": text(1),
        "size": whole(10, 4096),
        "type": choice("STANDARD", "HIGH_PERFORMANCE"),
    },
    ("name", "size", "dataCenter"),
)
_TEMPLATED = ("image", "args", "disk", "ports", "registry")
_IDLE_REFUSED = "$.workers.idleTimeout: not applicable to queue-based endpoints scaling on requestCount"


def checked_endpoint(body: Any, account: Account, catalog: Catalog) -> dict[str, Any]:
    """A create body with its template's settings filled in. Raises PodRefusedError 400, 404 or 422."""
    errors = _CREATE(body, "$")
    if isinstance(body, dict):
        if not {"image", "templateId"} & set(body):
            # As the API does: one rule that fails makes every field look as if it were not allowed.
            errors = ["$: missing property 'image'", *errors, additional("$", list(body))]
        if body.get("type") == "LOAD_BALANCER" and _kind_of_scaling(body) == "QUEUE_DELAY":
            errors.append("$.scaling.type: value must be 'REQUEST_COUNT'")
        errors += _idle_errors(body, str(body.get("type")), _kind_of_scaling(body))
    refuse(errors)
    if ("gpu" in body) == ("cpu" in body):
        raise PodRefusedError(400, "exactly one of gpu or cpu must be set")
    full = _with_template(body, account)
    if "gpu" in full:
        _check_gpu(merged_gpu(None, full["gpu"]), catalog)
    limits = full.get("workers", {})
    _check_workers(limits.get("min", 0), limits.get("max", 3))
    _check_places(full, account)
    check_ports(full)
    check_registry(full, account)
    return full


def checked_endpoint_patch(body: Any, endpoint: FakeEndpoint, account: Account, catalog: Catalog) -> dict[str, Any]:
    """A patch body for this endpoint. Raises PodRefusedError 400, 404 or 422."""
    errors = _PATCH(body, "$")
    if isinstance(body, dict):
        gpu = body.get("gpu")
        if isinstance(gpu, dict) and "excludedTypes" in gpu and "pools" not in gpu:
            errors.append("$.gpu: properties 'pools' required, if 'excludedTypes' exists")
        scaling = _kind_of_scaling(body) or endpoint.scaling["type"]
        errors += _idle_errors(body, endpoint.type, scaling)
    refuse(errors)
    if ("gpu" in body and endpoint.gpu is None) or ("cpu" in body and endpoint.cpu is None):
        raise PodRefusedError(400, "the compute family of an endpoint cannot be changed")
    if not endpoint.is_queue and _kind_of_scaling(body) == "QUEUE_DELAY":
        raise PodRefusedError(400, "load-balancing endpoints require REQUEST_COUNT scaling")
    if "gpu" in body:
        _check_gpu(merged_gpu(endpoint.gpu, body["gpu"]), catalog)
    limits = body.get("workers", {})
    _check_workers(limits.get("min", endpoint.workers_min), limits.get("max", endpoint.workers_max))
    full = _with_template(body, account)
    _check_places(full, account)
    check_ports(full)
    check_registry(full, account)
    return full


def checked_template(body: Any, account: Account) -> dict[str, Any]:
    """A template to store, defaults filled in. Raises PodRefusedError 400 or 422."""
    refuse(closed(_TEMPLATE, ("name", "image"))(body, "$"))
    _check_template(body, account, None)
    return {
        **{"args": "", "disk": 20, "env": {}, "ports": [], "registry": None, "mounts": {}},
        **{"serverless": False, "public": False, "category": "NVIDIA", "allowedCudaVersions": []},
        **{"startSsh": True, "startJupyter": True},
        **body,
    }


def checked_template_patch(body: Any, account: Account, template_id: str) -> dict[str, Any]:
    """Changes of a template. Raises PodRefusedError 400 or 422."""
    refuse(closed(_TEMPLATE)(body, "$"))
    _check_template(body, account, template_id)
    return {name: value for name, value in body.items() if not (name == "mounts" and value == {})}


def checked_volume(body: Any) -> dict[str, Any]:
    """A network volume to make. Raises PodRefusedError 400 or 422."""
    refuse(_VOLUME(body, "$"))
    center = next((each for each in DATA_CENTERS if each.id == body["dataCenter"]), None)
    if center is None or not center.volumes:
        raise PodRefusedError(400, f"data center {body['dataCenter']!r} offers no network volumes")
    kind = body.get("type", center.volumes[0])
    if kind not in center.volumes:
        raise PodRefusedError(400, f"data center {center.id} offers no {kind} volumes")
    return {**body, "type": kind}


# Rules between fields


def _kind_of_scaling(body: Mapping[str, Any]) -> str | None:
    scaling = body.get("scaling")
    return scaling.get("type") if isinstance(scaling, dict) else None


def _idle_errors(body: Mapping[str, Any], kind: str, scaling: str | None) -> list[str]:
    workers = body.get("workers")
    has_idle = isinstance(workers, dict) and "idleTimeout" in workers
    return [_IDLE_REFUSED] if has_idle and kind == "QUEUE" and scaling == "REQUEST_COUNT" else []


def _check_gpu(gpu: Mapping[str, Any], catalog: Catalog) -> None:
    if gpu["allowedCudaVersions"] and gpu["minCudaVersion"]:
        raise PodRefusedError(400, "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive")
    unknown = [each for each in gpu["pools"] if each not in pools(catalog)]
    if unknown:
        raise PodRefusedError(400, f"unknown GPU pool {unknown[0]!r}")
    types = {kind.id for each in gpu["pools"] for kind in pool_types(catalog, each)}
    excluded = set(gpu.get("excludedTypes") or [])
    if excluded - types:
        raise PodRefusedError(400, f"excludedTypes: {min(excluded - types)!r} is not in one of the pools")
    if not types - excluded:
        raise PodRefusedError(400, "the selection leaves no GPU type")


def _check_workers(at_least: int, at_most: int) -> None:
    if at_least > at_most:
        raise PodRefusedError(400, f"workers.min ({at_least}) must not be above workers.max ({at_most})")


def _check_places(body: Mapping[str, Any], account: Account) -> None:
    known = {each.id for each in DATA_CENTERS}
    unknown = [each for each in body.get("dataCenterIds") or [] if each not in known]
    if unknown:
        raise PodRefusedError(400, f"unknown data center {unknown[0]!r}")
    places = []
    for volume_id in body.get("networkVolumes") or []:
        if volume_id not in account.volumes:
            raise PodRefusedError(404, "network volume not found")
        places.append(account.volumes[volume_id].data_center)
    if len(set(places)) < len(places):
        raise PodRefusedError(400, "networkVolumes: only one volume per data center")


def _check_template(body: Mapping[str, Any], account: Account, template_id: str | None) -> None:
    names = {each.get("name") for each in account.templates if each["id"] != template_id}
    if body.get("name") in names:
        raise PodRefusedError(400, f"a template named {body['name']!r} exists already")
    check_ports(body)
    check_registry(body, account)


def _with_template(body: Mapping[str, Any], account: Account) -> dict[str, Any]:
    if "templateId" not in body:
        return dict(body)
    template = next((each for each in account.templates if each["id"] == body["templateId"]), None)
    if template is None:
        raise PodRefusedError(404, "template not found")
    if not template.get("serverless"):
        raise PodRefusedError(422, "request body does not match the contract", ("$.templateId: not a serverless one",))
    full = {name: template[name] for name in _TEMPLATED if template.get(name) is not None} | dict(body)
    full["env"] = {**(template.get("env") or {}), **(body.get("env") or {})}
    seeds = template.get("allowedCudaVersions")
    if seeds and "gpu" in body and not {"allowedCudaVersions", "minCudaVersion"} & set(body["gpu"]):
        full["gpu"] = {**body["gpu"], "allowedCudaVersions": list(seeds)}
    return full
