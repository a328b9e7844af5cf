"""REST v2's operations over the pods' store: one small function each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.fakes.runpod.account import StoredRegistry
from tests.fakes.runpod.billing import all_billing, pod_billing
from tests.fakes.runpod.bodies import checked_action, checked_create, checked_patch, checked_registry
from tests.fakes.runpod.calls import Answer, Call, Handler, Operation, problem
from tests.fakes.runpod.catalog import DATA_CENTERS
from tests.fakes.runpod.catalog_answers import data_center_document, data_centers, gpu_document, stock_query
from tests.fakes.runpod.logs import log_stream
from tests.fakes.runpod.pod import Pod, PodRefusedError
from tests.fakes.runpod.pods import PodStore
from tests.fakes.runpod.pods_answers import pod_document, registry_document, volume_document

__all__ = ["ControlRoutes", "unknown_route"]


class ControlRoutes:
    """The operations; each takes a call and returns an answer or raises PodRefusedError."""

    def __init__(self, store: PodStore) -> None:
        self._store = store

    def operations(self) -> list[Operation]:
        """All of them, by the document's names."""
        rows: list[tuple[str, str, str, Handler]] = [
            ("GET", "/pods", "listPods", self._list_pods),
            ("POST", "/pods", "createPod", self._create_pod),
            ("GET", "/pods/{id}", "getPod", self._get_pod),
            ("PATCH", "/pods/{id}", "updatePod", self._update_pod),
            ("DELETE", "/pods/{id}", "deletePod", self._delete_pod),
            ("GET", "/pods/{id}/logs", "getPodLogs", self._logs),
            ("POST", "/pods/{id}/action", "podAction", self._act),
            ("GET", "/catalog/gpus", "listGpuTypes", self._list_gpus),
            ("GET", "/catalog/gpus/{id}", "getGpuType", self._get_gpu),
            ("GET", "/catalog/datacenters", "listDataCenters", self._list_data_centers),
            ("GET", "/catalog/datacenters/{id}", "getDataCenter", self._get_data_center),
            ("GET", "/billing", "listBilling", self._billing),
            ("GET", "/billing/pods", "listPodBilling", self._pod_billing),
            ("GET", "/network-volumes", "listNetworkVolumes", self._list_volumes),
            ("GET", "/registries", "listRegistries", self._list_registries),
            ("POST", "/registries", "createRegistry", self._create_registry),
            ("GET", "/registries/{id}", "getRegistry", self._get_registry),
            ("DELETE", "/registries/{id}", "deleteRegistry", self._delete_registry),
            ("GET", "/account/ssh-keys", "getSshKeys", self._ssh_keys),
        ]
        return [Operation(method, f"/v2{path}", handler, name, method == "GET") for method, path, name, handler in rows]

    # Pods

    def _shown(self, pod: Pod, status: int = 200) -> Answer:
        with self._store.turn() as now_s:
            return Answer(status, pod_document(pod, now_s))

    def _list_pods(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            return Answer(200, {"pods": [pod_document(pod, now_s) for pod in self._store.list()]})

    def _create_pod(self, call: Call) -> Answer:
        return self._shown(self._store.create(checked_create(call.json(), self._store.account)), 201)

    def _get_pod(self, call: Call) -> Answer:
        return self._shown(self._store.get(call.params["id"]))

    def _update_pod(self, call: Call) -> Answer:
        body, pod = call.json(), self._store.get(call.params["id"])
        return self._shown(self._store.update(pod.id, checked_patch(body, pod, self._store.account)))

    def _delete_pod(self, call: Call) -> Answer:
        self._store.delete(call.params["id"])
        return Answer(204)

    def _act(self, call: Call) -> Answer:
        pod = self._store.get(call.params["id"])
        action = checked_action(call.json())
        self._store.act(pod.id, action)
        return Answer(204) if action == "terminate" else self._shown(pod)

    def _logs(self, call: Call) -> Answer:
        with self._store.turn():
            pod = self._store.get(call.params["id"])
            stream = log_stream(pod, call.query, call.headers.get("Last-Event-ID"))
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Answer(200, content_type="text/event-stream", headers=headers, stream=stream)

    # Catalog and money

    def _list_gpus(self, call: Call) -> Answer:
        stock_query(call.query)
        with self._store.turn():
            catalog = self._store.catalog
            return Answer(200, {"gpus": [gpu_document(catalog, gpu, call.query) for gpu in catalog.gpus.values()]})

    def _get_gpu(self, call: Call) -> Answer:
        with self._store.turn():
            gpu = self._store.catalog.gpus.get(call.params["id"])
            if gpu is None:
                raise PodRefusedError(404, "GPU type not found")
            return Answer(200, gpu_document(self._store.catalog, gpu, call.query))

    def _list_data_centers(self, call: Call) -> Answer:
        with self._store.turn():
            return Answer(200, {"dataCenters": data_centers(self._store.catalog, call.query)})

    def _get_data_center(self, call: Call) -> Answer:
        found = next((center for center in DATA_CENTERS if center.id == call.params["id"]), None)
        if found is None:
            raise PodRefusedError(404, "data center not found")
        with self._store.turn():
            return Answer(200, data_center_document(self._store.catalog, found, call.query))

    def _billing(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            return Answer(200, all_billing(self._store.ledger, call.query, now_s))

    def _pod_billing(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            return Answer(200, pod_billing(self._store.ledger, call.query, now_s))

    # The rest of the account

    def _list_volumes(self, call: Call) -> Answer:
        volumes = list(self._store.account.volumes.values())
        return Answer(200, {"networkVolumes": [volume_document(volume) for volume in volumes]})

    def _list_registries(self, call: Call) -> Answer:
        registries = list(self._store.account.registries.values())
        return Answer(200, {"registries": [registry_document(each) for each in registries]})

    def _create_registry(self, call: Call) -> Answer:
        body = checked_registry(call.json())
        with self._store.turn():
            registry = StoredRegistry(self._store.new_id(), body["name"], body["username"], body["password"])
            self._store.account.registries[registry.id] = registry
        return Answer(201, registry_document(registry))

    def _registry(self, call: Call) -> StoredRegistry:
        registry = self._store.account.registries.get(call.params["id"])
        if registry is None:
            raise PodRefusedError(404, "registry not found")
        return registry

    def _get_registry(self, call: Call) -> Answer:
        return Answer(200, registry_document(self._registry(call)))

    def _delete_registry(self, call: Call) -> Answer:
        registry = self._registry(call)
        if any(pod.registry == registry.id for pod in self._store.alive()):
            raise PodRefusedError(400, "registry credential is in use")
        del self._store.account.registries[registry.id]
        return Answer(204)

    def _ssh_keys(self, call: Call) -> Answer:
        return Answer(200, {"keys": list(self._store.account.ssh_keys)})


def unknown_route(known: Sequence[Operation], call: Call) -> Answer:
    """Nobody serves this path (raises PodRefusedError 404), or not with this method (405, and which ones there are)."""
    methods = [
        each.method
        for each in known
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each.path), call.path) and each.method != call.method
    ]
    if not methods:
        raise PodRefusedError(404, "no such route")
    answer = problem(PodRefusedError(405, f"{call.method} is not supported here"))
    answer.headers["Allow"] = ", ".join(methods)
    return answer
