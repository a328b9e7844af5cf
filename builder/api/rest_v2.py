"""RunPod's REST API v2 as a `builder.api.control_plane.ControlPlane`.

Source: RunPod REST API v2 (document version 2.0.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from builder.api.actions import act_surely
from builder.api.models import (
    BillingRecord,
    Cloud,
    GpuType,
    LogEvent,
    NetworkVolume,
    Pod,
    PodAction,
    PodSpec,
    Registry,
)
from builder.api.problems import parsed, parsed_list
from builder.api.rest_shared import checked_id, made, placement_hint, rfc3339, surely_gone
from builder.api.rest_v2_serverless import ServerlessV2
from builder.errors import CapacityError, NotFoundError

__all__ = ["RestV2"]


class RestV2(ServerlessV2):
    """See `builder.api.control_plane.ControlPlane` for what each method promises."""

    def list_pods(self) -> list[Pod]:
        """See `ControlPlane`."""
        what = "list pods"
        return parsed_list(Pod, self._get("/pods", what), "pods", what)

    def get_pod(self, pod_id: str) -> Pod:
        """See `ControlPlane`."""
        what = f"read pod {pod_id}"
        return parsed(Pod, self._get(f"/pods/{checked_id(pod_id)}", what), what)

    def create_pod(self, spec: PodSpec) -> Pod:
        """See `ControlPlane`."""
        what = "create pod"
        try:
            reply = self._http.request("POST", "/pods", body=spec.body(), retry="limits", what=what)
        except CapacityError as error:
            raise placement_hint(error, spec) from None
        return made(Pod, reply.json, what)

    def update_pod(self, pod_id: str, changes: Mapping[str, Any]) -> Pod:
        """See `ControlPlane`."""
        what = f"change pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}"
        return parsed(Pod, self._http.request("PATCH", path, body=dict(changes), retry="any", what=what).json, what)

    def act(self, pod_id: str, action: PodAction) -> Pod:
        """See `ControlPlane`."""
        what = f"{action} pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}/action"

        def send() -> Pod:
            reply = self._http.request("POST", path, body={"action": action}, retry="unsent", what=what)
            return made(Pod, reply.json, what)

        return act_surely(action, send, lambda: self.get_pod(pod_id), self._http.pause, self._http.now_s)

    def delete_pod(self, pod_id: str) -> None:
        """See `ControlPlane`."""
        what = f"terminate pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}"
        try:
            self._http.request("DELETE", path, retry="any", what=what)
        except NotFoundError:
            surely_gone(pod_id, self.list_pods(), what)

    def gpu_types(
        self,
        *,
        cloud: Cloud | None = None,
        count: int = 1,
        min_cuda: str | None = None,
        product: Literal["POD", "SERVERLESS"] = "POD",
    ) -> list[GpuType]:
        """See `ControlPlane`."""
        what = "read the catalog of GPUs"
        query: dict[str, Any] = {"include": "AVAILABILITY", "product": product, "count": count}
        query |= {"cloud": cloud, "minCudaVersion": min_cuda}
        return parsed_list(GpuType, self._get("/catalog/gpus", what, query), "gpus", what)

    def logs(
        self,
        pod_id: str,
        *,
        source: str | None = None,
        tail: int | None = None,
        since: str | None = None,
        last_event_id: str | None = None,
        idle_s: float | None = None,
    ) -> Iterator[LogEvent]:
        """See `ControlPlane`; events that cannot be read are skipped."""
        what = f"read the log of pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}/logs"
        query = {"source": source, "tail": tail, "since": since}
        yield from self._log(path, query, last_event_id, idle_s, what)

    def pod_billing(self, *, start: datetime, end: datetime, pod_id: str | None = None) -> list[BillingRecord]:
        """See `ControlPlane`."""
        what = "read the billing of pods"
        query = {"startTime": rfc3339(start), "endTime": rfc3339(end), "bucketSize": "day", "podId": pod_id}
        return parsed_list(BillingRecord, self._get("/billing/pods", what, query), "records", what)

    def network_volumes(self) -> list[NetworkVolume]:
        """See `ControlPlane`."""
        what = "list network volumes"
        return parsed_list(NetworkVolume, self._get("/network-volumes", what), "networkVolumes", what)

    def registries(self) -> list[Registry]:
        """See `ControlPlane`."""
        what = "list registry credentials"
        return parsed_list(Registry, self._get("/registries", what), "registries", what)

    def create_registry(self, name: str, username: str, password: str) -> Registry:
        """See `ControlPlane`."""
        what = "store a registry credential"
        self._http.hide(password)
        body = {"name": name, "username": username, "password": password}
        reply = self._http.request("POST", "/registries", body=body, retry="limits", what=what)
        return made(Registry, reply.json, what)

    def check_key(self) -> None:
        """See `ControlPlane`."""
        self._get("/pods", "check the API key")
