"""REST v2's operations on endpoints, templates and network volumes: one small function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fakes.runpod.account import Volume
from tests.fakes.runpod.billing import serverless_billing
from tests.fakes.runpod.calls import Answer, Call, Handler, Operation
from tests.fakes.runpod.endpoint_answers import Bases, endpoint_body, releases_body, workers_body
from tests.fakes.runpod.endpoint_bodies import (
    checked_endpoint,
    checked_endpoint_patch,
    checked_template,
    checked_template_patch,
    checked_volume,
)
from tests.fakes.runpod.endpoints import EndpointStore, FakeEndpoint, FakeTemplate
from tests.fakes.runpod.logs import log_stream
from tests.fakes.runpod.pod import PodRefusedError
from tests.fakes.runpod.pods_answers import volume_document

__all__ = ["EndpointRoutes"]


class EndpointRoutes:
    """The operations; `bases` gives the addresses for requests, known once the server is up."""

    def __init__(self, store: EndpointStore, bases: Callable[[], Bases]) -> None:
        self._store = store
        self._bases = bases
        store.pods.more_endpoints = self._made

    def operations(self) -> list[Operation]:
        """All of them, by the document's names."""
        rows: list[tuple[str, str, str, Handler]] = [
            ("GET", "/serverless", "listEndpoints", self._list_endpoints),
            ("POST", "/serverless", "createEndpoint", self._create_endpoint),
            ("GET", "/serverless/{id}", "getEndpoint", self._get_endpoint),
            ("PATCH", "/serverless/{id}", "updateEndpoint", self._update_endpoint),
            ("DELETE", "/serverless/{id}", "deleteEndpoint", self._delete_endpoint),
            ("GET", "/serverless/{id}/workers", "listEndpointWorkers", self._list_workers),
            ("GET", "/serverless/{id}/releases", "listEndpointReleases", self._list_releases),
            ("GET", "/serverless/{id}/workers/{workerId}/logs", "getWorkerLogs", self._logs),
            ("GET", "/templates", "listTemplates", self._list_templates),
            ("POST", "/templates", "createTemplate", self._create_template),
            ("GET", "/templates/{id}", "getTemplate", self._get_template),
            ("PATCH", "/templates/{id}", "updateTemplate", self._update_template),
            ("DELETE", "/templates/{id}", "deleteTemplate", self._delete_template),
            ("POST", "/network-volumes", "createNetworkVolume", self._create_volume),
            ("GET", "/network-volumes/{id}", "getNetworkVolume", self._get_volume),
            ("DELETE", "/network-volumes/{id}", "deleteNetworkVolume", self._delete_volume),
            ("GET", "/billing/serverless", "listServerlessBilling", self._billing),
        ]
        return [Operation(method, f"/v2{path}", handler, name, method == "GET") for method, path, name, handler in rows]

    # Endpoints

    def _shown(self, endpoint: FakeEndpoint, status: int = 200) -> Answer:
        return Answer(status, endpoint_body(endpoint, self._bases()))

    def _list_endpoints(self, call: Call) -> Answer:
        with self._store.turn():
            return Answer(200, {"endpoints": self._store.pods.shown_endpoints()})

    def _made(self) -> list[dict[str, Any]]:
        return [endpoint_body(each, self._bases()) for each in self._store.list()]

    def _create_endpoint(self, call: Call) -> Answer:
        with self._store.turn():
            body = checked_endpoint(call.json(), self._store.pods.account, self._store.pods.catalog)
            endpoint = self._store.create(body)
        return self._shown(endpoint, 201)

    def _get_endpoint(self, call: Call) -> Answer:
        given = [each for each in self._store.pods.account.endpoints if each["id"] == call.params["id"]]
        return Answer(200, given[0]) if given else self._shown(self._store.get(call.params["id"]))

    def _update_endpoint(self, call: Call) -> Answer:
        with self._store.turn():
            endpoint = self._store.get(call.params["id"])
            pods = self._store.pods
            changes = checked_endpoint_patch(call.json(), endpoint, pods.account, pods.catalog)
            self._store.update(endpoint.id, changes)
        return self._shown(endpoint)

    def _delete_endpoint(self, call: Call) -> Answer:
        self._store.delete(call.params["id"])
        return Answer(204)

    def _list_workers(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            return Answer(200, workers_body(self._store.get(call.params["id"]), now_s))

    def _list_releases(self, call: Call) -> Answer:
        with self._store.turn():
            return Answer(200, releases_body(self._store.get(call.params["id"])))

    def _logs(self, call: Call) -> Answer:
        with self._store.turn():
            worker = self._store.worker(call.params["id"], call.params["workerId"])
            stream = log_stream(worker, call.query, call.headers.get("Last-Event-ID"))
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Answer(200, content_type="text/event-stream", headers=headers, stream=stream)

    def _billing(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            return Answer(200, serverless_billing(self._store.pods.ledger, call.query, now_s))

    # Templates

    def _list_templates(self, call: Call) -> Answer:
        with self._store.turn() as now_s:
            hidden = {each.id for each in self._store.templates.values() if each.shown_from_s > now_s}
            shown = [each for each in self._store.pods.account.templates if each["id"] not in hidden]
            return Answer(200, {"templates": shown})

    def _create_template(self, call: Call) -> Answer:
        with self._store.turn():
            template = self._store.add_template(checked_template(call.json(), self._store.pods.account))
        return Answer(201, dict(template.document))

    def _template(self, call: Call) -> FakeTemplate:
        with self._store.turn():
            template = self._store.templates.get(call.params["id"])
            if template is None:
                raise PodRefusedError(404, "template not found")
            return template

    def _get_template(self, call: Call) -> Answer:
        given = [each for each in self._store.pods.account.templates if each["id"] == call.params["id"]]
        return Answer(200, dict(given[0] if given else self._template(call).document))

    def _update_template(self, call: Call) -> Answer:
        with self._store.turn():
            template = self._template(call)
            template.document.update(checked_template_patch(call.json(), self._store.pods.account, template.id))
            template.name = template.document["name"]
        return Answer(200, dict(template.document))

    def _delete_template(self, call: Call) -> Answer:
        self._store.drop_template(self._template(call).id)
        return Answer(204)

    # Network volumes

    def _create_volume(self, call: Call) -> Answer:
        body = checked_volume(call.json())
        with self._store.turn():
            volume = Volume(
                self._store.pods.new_id()[:10], body["name"], body["size"], body["dataCenter"], body["type"]
            )
            self._store.pods.account.volumes[volume.id] = volume
        return Answer(201, volume_document(volume))

    def _volume(self, call: Call) -> Volume:
        volume = self._store.pods.account.volumes.get(call.params["id"])
        if volume is None:
            raise PodRefusedError(404, "network volume not found")
        return volume

    def _get_volume(self, call: Call) -> Answer:
        return Answer(200, volume_document(self._volume(call)))

    def _delete_volume(self, call: Call) -> Answer:
        del self._store.pods.account.volumes[self._volume(call).id]
        return Answer(204)
