"""What RunPod's GraphQL API takes: types of arguments and their fields, in one place.

The type names are those that clients in use confirm, or follow from the operation's name; introspection is off.
"""

from __future__ import annotations

from typing import Any

from tests.fakes.runpod.clock import parse_time
from tests.fakes.runpod.graphql_query import Operation, QueryError
from tests.fakes.runpod.pod import PodRefusedError

__all__ = ["QUERIES", "check_arguments", "moment", "v2_body"]

QUERIES = ("pod", "myself", "gpuTypes")
ARGUMENT_TYPES = {
    ("pod", "input"): "PodFilter",
    ("gpuTypes", "input"): "GpuTypeFilter",
    ("lowestPrice", "input"): "GpuLowestPriceInput",
    ("podFindAndDeployOnDemand", "input"): "PodFindAndDeployOnDemandInput",
    ("podRentInterruptable", "input"): "PodRentInterruptableInput",
    ("podResume", "input"): "PodResumeInput",
    ("podBidResume", "input"): "PodBidResumeInput",
    ("podStop", "input"): "PodStopInput",
    ("podTerminate", "input"): "PodTerminateInput",
    ("secretCreate", "input"): "SecretCreateInput",
    ("secretDelete", "id"): "String",
}
POD_FIELDS = frozenset(
    (
        *("name", "imageName", "dockerArgs", "gpuTypeId", "gpuCount", "cloudType", "containerDiskInGb", "volumeInGb"),
        *("volumeMountPath", "ports", "env", "dataCenterId", "countryCode", "networkVolumeId", "templateId"),
        *("allowedCudaVersions", "minCudaVersion", "containerRegistryAuthId", "startSsh", "startJupyter"),
        *("minVcpuCount", "minMemoryInGb", "supportPublicIp", "globalNetwork", "stopAfter", "terminateAfter"),
    )
)
INPUT_FIELDS: dict[str, frozenset[str]] = {
    "pod": frozenset({"podId"}),
    "gpuTypes": frozenset({"id"}),
    "podFindAndDeployOnDemand": POD_FIELDS,
    "podRentInterruptable": POD_FIELDS | {"bidPerGpu"},
    "podResume": frozenset({"podId", "gpuCount"}),
    "podBidResume": frozenset({"podId", "gpuCount", "bidPerGpu"}),
    "podStop": frozenset({"podId"}),
    "podTerminate": frozenset({"podId"}),
    "secretCreate": frozenset({"name", "value", "description"}),
}
REQUIRED = ("podId", "bidPerGpu", "value")
"""Wherever they are fields."""


def check_arguments(operation: Operation) -> None:
    """Raises QueryError for an input or a variable that has not the type that is wanted."""
    for each in operation.fields:
        if each.name in INPUT_FIELDS:
            _check_input(each.name, each.args.get("input"))
    for where, variable in operation.uses.items():
        declared, wanted = operation.types.get(variable), ARGUMENT_TYPES.get(where)
        if declared != wanted:
            raise QueryError(f'Variable "${variable}" of type "{declared}" used in position expecting "{wanted}".')


def moment(given: dict[str, Any], name: str) -> float | None:
    """Seconds since 1970 of an input's time. Raises PodRefusedError."""
    if not given.get(name):
        return None
    try:
        return parse_time(given[name])
    except ValueError:
        raise PodRefusedError(400, f"{name} must be a date and time by ISO 8601") from None


def v2_body(given: dict[str, Any], cloud: str) -> dict[str, Any]:
    """What REST v2 would call the input of a new pod."""
    gpu: dict[str, Any] = {"id": given.get("gpuTypeId"), "count": given.get("gpuCount", 1)}
    for name in ("allowedCudaVersions", "minCudaVersion"):
        if given.get(name):
            gpu[name] = given[name]
    path, size = given.get("volumeMountPath") or "/workspace", given.get("volumeInGb")
    mounts: dict[str, Any] = {"persistent": {"size": size, "path": path}} if size else {}
    if given.get("networkVolumeId"):
        mounts = {"network": [{"volumeId": given["networkVolumeId"], "path": path}]}
    return {
        "name": given.get("name") or "my pod",
        "image": given.get("imageName") or "",
        "gpu": gpu,
        "cloud": cloud,
        "disk": given.get("containerDiskInGb", 20),
        "ports": [port for port in (given.get("ports") or "").split(",") if port],
        "env": {each["key"]: each["value"] for each in given.get("env") or ()},
        "mounts": mounts,
        "dataCenterIds": [given["dataCenterId"]] if given.get("dataCenterId") else [],
        "registry": given.get("containerRegistryAuthId"),
    }


def _check_input(name: str, given: Any) -> None:
    if not isinstance(given, dict):
        raise QueryError(f'Field "{name}" argument "input" is required.')
    wrong = 'Variable "$input" got invalid value; '
    for key in given:
        if key not in INPUT_FIELDS[name]:
            raise QueryError(f'{wrong}Field "{key}" is not defined by type "{ARGUMENT_TYPES[name, "input"]}".')
    for key in REQUIRED:
        if key in INPUT_FIELDS[name] and given.get(key) is None:
            raise QueryError(f'{wrong}Field "{key}" of required type was not provided.')
    if not isinstance(given.get("ports", ""), str):
        raise QueryError(f"{wrong}String cannot represent ports: {given['ports']!r}")
    for pair in given.get("env") or ():
        if not isinstance(pair, dict) or set(pair) != {"key", "value"}:
            raise QueryError(f'{wrong}env takes objects with "key" and "value".')
