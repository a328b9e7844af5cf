"""REST API v1 over the same pods: other names, *desired* instead of observed status, and errors all its own.

Whatever the user did wrong beyond the shape of a request, v1 answers 500 and says why in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.runpod.account import StoredRegistry
from tests.fakes.runpod.calls import Answer, Call, Handler, Operation
from tests.fakes.runpod.clock import iso_time, parse_time
from tests.fakes.runpod.pod import Pod, PodRefusedError
from tests.fakes.runpod.pods import NO_INSTANCES, PodStore

__all__ = ["V1Facade", "desired_status"]

UPDATE_FIELDS = {
    "name": "name",
    "imageName": "image",
    "env": "env",
    "ports": "ports",
    "containerDiskInGb": "disk",
    "containerRegistryAuthId": "registry",
    "locked": "locked",
    "globalNetworking": "globalNetworking",
}
"""Of an update, and what v2 calls them."""
MOUNT_FIELDS = {"volumeInGb", "volumeMountPath"}
CREATE_FIELDS = set(UPDATE_FIELDS) | MOUNT_FIELDS
CREATE_FIELDS |= {"gpuTypeIds", "gpuTypePriority", "gpuCount", "cloudType", "computeType", "interruptible"}
CREATE_FIELDS |= {"networkVolumeId", "dataCenterIds", "dataCenterPriority", "countryCodes", "allowedCudaVersions"}
CREATE_FIELDS |= {"minVCPUPerGPU", "minRAMPerGPU", "minDiskBandwidthMBps", "minDownloadMbps", "minUploadMbps"}
CREATE_FIELDS |= {"supportPublicIp", "templateId", "cpuFlavorIds", "cpuFlavorPriority", "vcpuCount"}
CREATE_FIELDS |= {"dockerEntrypoint", "dockerStartCmd"}
WITHOUT_RESET = {"name", "locked"}
PORT = re.compile(r"\d{1,5}/(http|tcp)")
DAY_S = 86_400.0
KEPT = (401, 403, 404, 410, 429)
"""Statuses of refusals that mean the same here; all others become 500."""
RETIRED = "this version of the API is no longer available; use https://api.runpod.io/v2"


class _V1Error(PodRefusedError):
    """A refusal with v1's own status."""


def desired_status(pod: Pod) -> str:
    """What v1 and GraphQL show: what the user wanted last, whether or not the pod got there."""
    return "RUNNING" if pod.is_rented else pod.status


class V1Facade:
    """Answers 410 to everything while `is_retired` says so."""

    def __init__(self, store: PodStore, is_retired: Callable[[], bool]) -> None:
        self._store = store
        self._is_retired = is_retired

    def operations(self) -> list[Operation]:
        """For the server that the plane runs in."""
        pods, pod = "/v1/pods", "/v1/pods/{id}"
        registries = "/v1/containerregistryauth"
        rows: list[tuple[str, str, Handler, str]] = [
            ("GET", pods, self._list, "ListPods"),
            ("POST", pods, self._create, "CreatePod"),
            ("GET", pod, self._get, "GetPod"),
            ("PATCH", pod, self._update, "UpdatePod"),
            ("POST", f"{pod}/update", self._update, "UpdatePod"),
            ("DELETE", pod, self._delete, "DeletePod"),
            ("POST", f"{pod}/start", self._action("start"), "StartPod"),
            ("POST", f"{pod}/stop", self._action("stop"), "StopPod"),
            ("POST", f"{pod}/restart", self._action("restart"), "RestartPod"),
            ("POST", f"{pod}/reset", self._action("restart"), "ResetPod"),
            ("GET", "/v1/endpoints", self._endpoints, "ListEndpoints"),
            ("GET", "/v1/networkvolumes", self._volumes, "ListNetworkVolumes"),
            ("GET", registries, self._registries, "ListContainerRegistryAuths"),
            ("POST", registries, self._add_registry, "CreateContainerRegistryAuth"),
            ("DELETE", f"{registries}/{{id}}", self._delete_registry, "DeleteContainerRegistryAuth"),
            ("GET", "/v1/billing/pods", self._billing, "PodBilling"),
            ("*", "/v1{tail:.*}", self._unknown, "UnknownOfV1"),
        ]
        return [
            Operation(method, path, self._unless_retired(handler), name, method == "GET", refuse=_refused)
            for method, path, handler, name in rows
        ]

    def _unless_retired(self, handler: Handler) -> Handler:
        def serve(call: Call) -> Answer:
            if self._is_retired():
                raise _V1Error(410, RETIRED)
            return handler(call)

        return serve

    def _unknown(self, call: Call) -> Answer:
        raise _V1Error(404, "not found")

    # Pods

    def _list(self, call: Call) -> Answer:
        wanted = {"desiredStatus": "desiredStatus", "id": "id", "name": "name", "imageName": "image"}
        shown = [self._shown(pod, call.query) for pod in self._store.list()]
        for parameter, name in wanted.items():
            if parameter in call.query:
                shown = [pod for pod in shown if pod[name] == call.query[parameter]]
        return Answer(200, shown)

    def _get(self, call: Call) -> Answer:
        return Answer(200, self._shown(self._store.get(call.params["id"]), call.query))

    def _create(self, call: Call) -> Answer:
        given = _object(call, CREATE_FIELDS)
        if not given.get("imageName"):
            raise _V1Error(400, "imageName or templateId is required")
        if given.get("computeType", "GPU") != "GPU" or not given.get("gpuTypeIds"):
            raise _V1Error(400, "gpuTypeIds is required")
        refusal = PodRefusedError(400, NO_INSTANCES)
        # In the order given, whichever `gpuTypePriority` says: the stock of the fake has no tie to break.
        for gpu_id in given["gpuTypeIds"]:
            gpu = self._store.catalog.gpus.get(gpu_id)
            if gpu is None:
                raise _V1Error(400, f"gpuTypeIds: {gpu_id} is not one of the allowed values")
            spec = _v2_body(given, gpu_id)
            bid = gpu.spot_price(spec["cloud"]) if given.get("interruptible") else None
            try:
                return Answer(201, self._shown(self._store.create(spec, bid=bid), call.query))
            except PodRefusedError as error:
                refusal = error
                if error.detail != NO_INSTANCES:
                    break
        raise _V1Error(500, f"create pod: {refusal.detail}")

    def _update(self, call: Call) -> Answer:
        given = _object(call, set(UPDATE_FIELDS) | MOUNT_FIELDS)
        pod = self._store.get(call.params["id"])
        changes: dict[str, Any] = {UPDATE_FIELDS[name]: given[name] for name in given if name in UPDATE_FIELDS}
        if MOUNT_FIELDS & set(given):
            before = pod.mounts.get("persistent") or {"size": 20, "path": "/workspace"}
            size, path = given.get("volumeInGb", before["size"]), given.get("volumeMountPath", before["path"])
            changes["mounts"] = {"persistent": {"size": size, "path": path}}
        self._store.update(pod.id, changes)
        if set(given) - WITHOUT_RESET and "restart" in pod.actions:
            self._store.act(pod.id, "restart")
        return Answer(200, self._shown(pod, call.query))

    def _delete(self, call: Call) -> Answer:
        self._store.delete(call.params["id"])
        return Answer(204)

    def _action(self, action: str) -> Handler:
        def serve(call: Call) -> Answer:
            return Answer(200, self._shown(self._store.act(call.params["id"], action), call.query))

        return serve

    def _shown(self, pod: Pod, query: Mapping[str, str]) -> dict[str, Any]:
        gpu = self._store.catalog.gpus.get(pod.gpu_id or "")
        started = None if pod.started_s is None else iso_time(pod.started_s)
        mount = (pod.mounts.get("network") or [None])[0] or pod.mounts.get("persistent") or {}
        shown = {
            "id": pod.id,
            "name": pod.name,
            "image": pod.image,
            "desiredStatus": desired_status(pod),
            "costPerHr": pod.price,
            "adjustedCostPerHr": pod.price,
            "containerDiskInGb": pod.disk,
            "volumeInGb": pod.volume_gb,
            "volumeMountPath": mount.get("path", "/workspace"),
            "env": dict(pod.env),
            "ports": list(pod.ports),
            "locked": pod.locked,
            "interruptible": pod.is_spot,
            "publicIp": "",
            "portMappings": None,
            "machineId": f"machine{pod.host:03d}",
            "machine": {},
            "lastStatusChange": f"Rented by User: {iso_time(pod.created_s)}",
            "containerRegistryAuthId": pod.registry or "",
            "gpu": {"id": pod.gpu_id or "", "count": pod.gpu_count, "displayName": gpu.name if gpu else ""},
        }
        if started is not None:
            shown["lastStartedAt"] = started
        if query.get("includeMachine") == "true":
            place = {"dataCenterId": pod.data_center_id or "", "location": (pod.data_center_id or "")[:2]}
            names = {"gpuTypeId": pod.gpu_id or "", "gpuDisplayName": gpu.name if gpu else ""}
            shown["machine"] = {**place, **names, "secureCloud": pod.cloud == "SECURE"}
        volume = self._store.account.volumes.get(mount.get("volumeId", ""))
        if volume is not None and query.get("includeNetworkVolume") == "true":
            shown["networkVolume"] = _volume(volume.id, volume.name, volume.size, volume.data_center)
        return shown

    # The account

    def _endpoints(self, call: Call) -> Answer:
        return Answer(200, [_endpoint(each) for each in self._store.shown_endpoints()])

    def _volumes(self, call: Call) -> Answer:
        volumes = self._store.account.volumes.values()
        return Answer(200, [_volume(each.id, each.name, each.size, each.data_center) for each in volumes])

    def _registries(self, call: Call) -> Answer:
        registries = self._store.account.registries.values()
        return Answer(200, [{"id": each.id, "name": each.name} for each in registries])

    def _add_registry(self, call: Call) -> Answer:
        given = _object(call, {"name", "username", "password"})
        registries = self._store.account.registries
        if any(each.name == given["name"] for each in registries.values()):
            raise _V1Error(500, "create container registry auth: name already exists")
        made = StoredRegistry(self._store.new_id(), given["name"], given["username"], given["password"])
        registries[made.id] = made
        return Answer(200, {"id": made.id, "name": made.name})

    def _delete_registry(self, call: Call) -> Answer:
        if self._store.account.registries.pop(call.params["id"], None) is None:
            raise _V1Error(404, "container registry auth not found")
        return Answer(204)

    def _billing(self, call: Call) -> Answer:
        """One record for each pod and day (`bucketSize` day, `grouping` podId)."""
        with self._store.turn() as now_s:
            spans = list(self._store.ledger.spans(now_s, call.query.get("podId")))
        query = call.query
        start_s = parse_time(query["startTime"]) if "startTime" in query else now_s - 30 * DAY_S
        end_s = parse_time(query["endTime"]) if "endTime" in query else now_s
        amounts: dict[tuple[float, str], float] = {}
        for span in spans:
            day_s = max(span.start_s, start_s) // DAY_S * DAY_S
            while day_s < min(span.end_s, end_s):
                hours = span.hours_within(max(day_s, start_s), min(day_s + DAY_S, end_s))
                key = (day_s, span.pod_id)
                amounts[key] = amounts.get(key, 0.0) + hours * span.rates.total
                day_s += DAY_S
        rows = sorted(amounts.items())
        return Answer(
            200, [{"time": iso_time(day_s), "podId": pod_id, "amount": usd} for (day_s, pod_id), usd in rows if usd]
        )


def _refused(refusal: PodRefusedError) -> Answer:
    """v1's shape of an error."""
    is_kept = isinstance(refusal, _V1Error) or refusal.status in KEPT
    status = refusal.status if is_kept else 500
    return Answer(status, {"error": refusal.detail, "status": status})


def _object(call: Call, allowed: set[str]) -> dict[str, Any]:
    """A request's body. Raises _V1Error 400."""
    try:
        body = call.json()
    except PodRefusedError as refusal:
        raise _V1Error(400, refusal.detail) from None
    if not isinstance(body, dict):
        raise _V1Error(400, "body must be a JSON object")
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise _V1Error(400, f"property {unknown[0]!r} is not allowed")
    kinds = {"env": dict, "ports": list, "gpuTypeIds": list, "name": str, "imageName": str, "gpuCount": int}
    for name, kind in kinds.items():
        if name in body and not isinstance(body[name], kind):
            raise _V1Error(400, f"{name} must be {'an object' if kind is dict else kind.__name__}")
    for port in body.get("ports", ()):
        if not PORT.fullmatch(str(port)):
            raise _V1Error(400, f"ports: {port!r} is not [port number]/[protocol]")
    if not all(isinstance(value, str) for value in body.get("env", {}).values()):
        raise _V1Error(400, "env must hold strings")
    return body


def _v2_body(given: Mapping[str, Any], gpu_id: str) -> dict[str, Any]:
    """What REST v2 would call it, with v1's defaults."""
    gpu = {"id": gpu_id, "count": given.get("gpuCount", 1)}
    if given.get("allowedCudaVersions"):
        gpu["allowedCudaVersions"] = given["allowedCudaVersions"]
    path, size = given.get("volumeMountPath", "/workspace"), given.get("volumeInGb", 20)
    mounts: dict[str, Any] = {"persistent": {"size": size, "path": path}} if size else {}
    if given.get("networkVolumeId"):
        mounts = {"network": [{"volumeId": given["networkVolumeId"], "path": path}]}
    return {
        "name": given.get("name", "my pod"),
        "image": given["imageName"],
        "gpu": gpu,
        "cloud": given.get("cloudType", "SECURE"),
        "disk": given.get("containerDiskInGb", 50),
        "ports": given.get("ports", ["8888/http", "22/tcp"]),
        "env": given.get("env", {}),
        "mounts": mounts,
        "dataCenterIds": given.get("dataCenterIds") or [],
        "registry": given.get("containerRegistryAuthId"),
    }


def _volume(volume_id: str, name: str, size: int, data_center: str) -> dict[str, Any]:
    return {"id": volume_id, "name": name, "size": size, "dataCenterId": data_center}


def _endpoint(shown: Mapping[str, Any]) -> dict[str, Any]:
    """From REST v2's shape."""
    workers = shown.get("workers") or {}
    limits = {"workersMin": workers.get("min", 0), "workersMax": workers.get("max", 0)}
    return {"id": shown["id"], "name": shown["name"], "createdAt": shown.get("createdAt"), **limits}
