"""From the API's bodies to an endpoint's fields, and what of a change makes a new release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.runpod.endpoint import FakeEndpoint

__all__ = ["apply_changes", "fields_of", "merged_gpu"]

PLAIN = ("image", "args", "disk", "env", "ports", "registry", "cpu", "scaling", "flashboot", "timeout")
RENAMED = {
    "dataCenterIds": "data_center_ids",
    "networkVolumes": "network_volumes",
    "templateId": "template_id",
}
WORKERS = {"min": "workers_min", "max": "workers_max", "idleTimeout": "idle_timeout_s"}
DIFF_NAMES = {
    "image": "template.imageName",
    "args": "template.dockerArgs",
    "disk": "template.containerDiskInGb",
    "env": "template.env",
    "ports": "template.ports",
    "registry": "template.containerRegistryAuthId",
    "gpu": "gpuIds",
    "cpu": "instanceIds",
    "data_center_ids": "locations",
    "network_volumes": "networkVolumeIds",
}
"""What makes a new release, and how the release calls it."""


def fields_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `FakeEndpoint` that the body names."""
    fields = {name: body[name] for name in PLAIN if name in body}
    fields |= {field: body[name] for name, field in RENAMED.items() if name in body}
    fields |= {field: body["workers"][name] for name, field in WORKERS.items() if name in body.get("workers", {})}
    if "gpu" in body:
        fields["gpu"] = merged_gpu(None, body["gpu"])
    return fields


def merged_gpu(before: Mapping[str, Any] | None, change: Mapping[str, Any]) -> dict[str, Any]:
    """The GPU selection after a change: new pools clear the excluded types."""
    gpu: dict[str, Any] = dict(before or {"count": 1, "allowedCudaVersions": [], "minCudaVersion": None})
    if "pools" in change:
        gpu.pop("excludedTypes", None)
    gpu.update(change)
    gpu["minCudaVersion"] = gpu["minCudaVersion"] or None
    if "excludedTypes" in gpu:
        gpu["excludedTypes"] = [each.strip() for each in gpu["excludedTypes"]]
    return gpu


def apply_changes(endpoint: FakeEndpoint, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Change the fields; what a new release is to tell, empty if there is none."""
    fields = {name: value for name, value in fields_of(changes).items() if name not in ("gpu", "template_id")}
    if "gpu" in changes:
        fields["gpu"] = merged_gpu(endpoint.gpu, changes["gpu"])
    if "name" in changes:
        fields["name"] = changes["name"]
    diff = []
    for name, value in fields.items():
        old = getattr(endpoint, name)
        setattr(endpoint, name, value)
        if name in DIFF_NAMES and old != value:
            diff.append({"field": DIFF_NAMES[name], "old": old, "new": value})
    return diff
