"""RunPod's REST API v1 to v2 and back: the shapes of requests and answers. Pure.

A v1 pod tells only its *desired* status: RUNNING from the moment of its creation, whether or not anything runs. There
is no observed status and no `runtime`, so nothing here can tell a pod that starts from one that serves; only its
health port can. Its cost is that of a running pod, so one that is desired to be EXITED is shown at 0.

Source: RunPod REST API v1 (document version 0.1.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from builder.api.models import PodSpec
from builder.errors import NotAvailableError

__all__ = ["billing_from_v1", "changes_to_v1", "cuda_versions", "endpoint_from_v1", "pod_from_v1", "spec_to_v1"]

CUDA_VERSIONS = ("13.0", "12.9", "12.8", "12.7", "12.6", "12.5", "12.4", "12.3", "12.2", "12.1", "12.0", "11.8")
"""All that v1 accepts; it has no way to name a lowest one."""
_ACTIONS = {"RUNNING": ("stop", "restart", "terminate"), "EXITED": ("start", "terminate"), "TERMINATED": ()}
_NAMES = {"name": "name", "image": "imageName", "env": "env", "disk": "containerDiskInGb", "locked": "locked"}
_NAMES |= {"registry": "containerRegistryAuthId", "ports": "ports"}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)")


def spec_to_v1(spec: PodSpec) -> dict[str, Any]:
    """Body of a v1 create. Without `volumeInGb` v1 would add 20 GB that nobody asked for, hence the explicit 0."""
    body: dict[str, Any] = {
        "name": spec.name,
        "imageName": spec.image,
        "computeType": "GPU",
        "gpuTypeIds": [spec.gpu.id],
        "gpuTypePriority": "custom",
        "gpuCount": spec.gpu.count,
        "cloudType": spec.cloud,
        "containerDiskInGb": spec.disk,
        "volumeInGb": 0,
        "ports": list(spec.ports),
        "env": dict(spec.env),
        "interruptible": False,
    }
    body |= _mounts_to_v1(spec.mounts or {})
    if spec.gpu.min_cuda_version:
        body["allowedCudaVersions"] = cuda_versions(spec.gpu.min_cuda_version)
    if spec.data_center_ids:
        body["dataCenterIds"] = list(spec.data_center_ids)
    if spec.registry:
        body["containerRegistryAuthId"] = spec.registry
    return body


def changes_to_v1(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Body of a v1 update from v2's names. Raises NotAvailableError for what v1 cannot change."""
    body: dict[str, Any] = {}
    for name, value in changes.items():
        if name == "mounts":
            body |= _mounts_to_v1(value or {})
        elif name in _NAMES:
            body[_NAMES[name]] = value
        else:
            raise NotAvailableError(f"REST v1 cannot change {name!r} of a pod", hint="unset RUNPOD_API_V1")
    return body


def pod_from_v1(answer: Any) -> Any:
    """A v1 pod in v2's shape; what is no object stays as it is, for the model to reject."""
    if not isinstance(answer, dict):
        return answer
    machine = _object(answer.get("machine"))
    status = answer.get("desiredStatus")
    gpu = _object(answer.get("gpu"))
    gpu_id = gpu.get("id") or machine.get("gpuTypeId")
    pod: dict[str, Any] = {name: answer[name] for name in ("id", "name") if name in answer}
    pod |= {
        "status": status,
        "actions": _ACTIONS.get(str(status), ()),
        "image": answer.get("image") or answer.get("imageName") or "",
        "env": _env_from_v1(answer.get("env")),
        "ports": _ports_from_v1(answer.get("ports")),
        "disk": answer.get("containerDiskInGb") or 0,
        "mounts": _mounts_from_v1(answer),
        "gpu": {"id": gpu_id, "count": gpu.get("count") or answer.get("gpuCount") or 1} if gpu_id else None,
        "dataCenterId": machine.get("dataCenterId"),
        "cost": _cost(answer) if status == "RUNNING" else 0.0,
        "locked": bool(answer.get("locked")),
        "createdAt": _moment(answer.get("createdAt")),
        "startedAt": _moment(answer.get("lastStartedAt")),
    }
    if isinstance(machine.get("secureCloud"), bool):
        pod["cloud"] = "SECURE" if machine["secureCloud"] else "COMMUNITY"
    return pod


def endpoint_from_v1(answer: Any) -> Any:
    """A v1 endpoint in v2's shape."""
    if not isinstance(answer, dict):
        return answer
    workers = {"min": answer.get("workersMin", 0), "max": answer.get("workersMax", 0)}
    gpu = {"types": answer.get("gpuTypeIds") or [], "count": answer.get("gpuCount") or 1}
    endpoint = {"id": answer.get("id"), "name": answer.get("name") or "", "workers": workers, "gpu": gpu}
    return endpoint | {"createdAt": _moment(answer.get("createdAt"))}


def billing_from_v1(record: Any) -> Any:
    """A v1 billing record of one pod and day in v2's shape; v1 does not tell GPU from disk."""
    if not isinstance(record, dict):
        return record
    start = _moment(record.get("time"))
    end = (datetime.fromisoformat(start.replace("Z", "+00:00")) + timedelta(days=1)).isoformat() if start else None
    moved = {"podId": record.get("podId"), "startTime": start, "endTime": end}
    return moved | {"totalAmount": record.get("amount")}


def cuda_versions(lowest: str) -> list[str]:
    """All known CUDA versions from `lowest` on."""
    floor = _version(lowest)
    return [version for version in CUDA_VERSIONS if _version(version) >= floor]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _mounts_to_v1(mounts: Mapping[str, Any]) -> dict[str, Any]:
    if mounts.get("persistent"):
        persistent = mounts["persistent"]
        return {"volumeInGb": persistent["size"], "volumeMountPath": persistent["path"]}
    if mounts.get("network"):
        volume = mounts["network"][0]
        return {"networkVolumeId": volume["volumeId"], "volumeMountPath": volume["path"]}
    return {}


def _mounts_from_v1(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    path = answer.get("volumeMountPath") or "/workspace"
    volume_id = _object(answer.get("networkVolume")).get("id") or answer.get("networkVolumeId")
    if volume_id:
        return {"network": [{"volumeId": volume_id, "path": path}]}
    size_gb = answer.get("volumeInGb") or 0
    return {"persistent": {"size": size_gb, "path": path}} if size_gb else None


def _env_from_v1(env: Any) -> Any:
    if isinstance(env, list):
        return {str(_object(each).get("key")): str(_object(each).get("value", "")) for each in env}
    return env or {}


def _ports_from_v1(ports: Any) -> Any:
    if isinstance(ports, str):
        return [port.strip() for port in ports.split(",") if port.strip()]
    return ports or []


def _cost(answer: Mapping[str, Any]) -> Any:
    adjusted = answer.get("adjustedCostPerHr")
    return answer.get("costPerHr") or 0.0 if adjusted is None else adjusted


def _moment(text: Any) -> str | None:
    """v1 writes moments in several ways, all in UTC."""
    match = _MOMENT.match(text) if isinstance(text, str) else None
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
