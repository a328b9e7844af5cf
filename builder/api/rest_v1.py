"""RunPod's REST API v1 as a `builder.api.control_plane.ControlPlane`, for a way back while v2 is new to somebody.

Pods look as in v2, but their status is the *desired* one: see `builder.api.v1_shapes`. What v1 has not, such as the
catalog and logs, raises NotAvailableError.

Source: RunPod REST API v1 (document version 0.1.0), which RunPod retires.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from builder.api.actions import act_surely
from builder.api.http import Http, Reply
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
from builder.api.models_serverless import (
    Endpoint,
    EndpointSpec,
    Releases,
    Template,
    TemplateSpec,
    Workers,
)
from builder.api.problems import parsed, parsed_list
from builder.api.rest_shared import checked_id, given, made, placement_hint, rfc3339, surely_gone
from builder.api.retries import Retry
from builder.api.v1_shapes import billing_from_v1, changes_to_v1, endpoint_from_v1, pod_from_v1, spec_to_v1
from builder.errors import BuilderError, CapacityError, NotAvailableError, NotFoundError

__all__ = ["RestV1"]

_HINT = "unset RUNPOD_API_V1 to use REST v2"
_WITH_MACHINE = {"includeMachine": "true", "includeNetworkVolume": "true"}


class RestV1:
    """See `builder.api.control_plane.ControlPlane` for what each method promises."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list_pods(self) -> list[Pod]:
        """See `ControlPlane`."""
        what = "list pods"
        return parsed_list(Pod, self._list("/pods", what, _WITH_MACHINE, pod_from_v1), None, what)

    def get_pod(self, pod_id: str) -> Pod:
        """See `ControlPlane`."""
        what = f"read pod {pod_id}"
        answer = self._get(f"/pods/{checked_id(pod_id)}", what, _WITH_MACHINE)
        return parsed(Pod, pod_from_v1(answer), what)

    def create_pod(self, spec: PodSpec) -> Pod:
        """See `ControlPlane`."""
        what = "create pod"
        try:
            reply = self._request("POST", "/pods", body=spec_to_v1(spec), retry="limits", what=what)
        except CapacityError as error:
            raise placement_hint(error, spec) from None
        except NotFoundError as error:
            raise _retired(error) from None
        # v1 may leave out what it was just told.
        answer = {"name": spec.name, "desiredStatus": "RUNNING", **reply.json} if isinstance(reply.json, dict) else None
        return made(Pod, pod_from_v1(answer), what)

    def update_pod(self, pod_id: str, changes: Mapping[str, Any]) -> Pod:
        """See `ControlPlane`."""
        what = f"change pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}"
        reply = self._request("PATCH", path, body=changes_to_v1(changes), retry="any", what=what)
        return parsed(Pod, pod_from_v1(reply.json), what)

    def act(self, pod_id: str, action: PodAction) -> Pod:
        """See `ControlPlane`; v1's answer may be empty, so the pod is read afterwards."""
        what = f"{action} pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}/{action}"

        def send() -> Pod:
            self._request("POST", path, retry="unsent", what=what)
            return self.get_pod(pod_id)

        return act_surely(action, send, lambda: self.get_pod(pod_id), self._http.pause, self._http.now_s)

    def delete_pod(self, pod_id: str) -> None:
        """See `ControlPlane`."""
        what = f"terminate pod {pod_id}"
        path = f"/pods/{checked_id(pod_id)}"
        try:
            self._request("DELETE", path, retry="any", what=what)
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
        """Not in v1. Raises NotAvailableError."""
        raise _absent("no catalog of GPUs with prices and stock")

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
        """Not in v1. Raises NotAvailableError at once."""
        raise _absent("no logs of pods")

    def pod_billing(self, *, start: datetime, end: datetime, pod_id: str | None = None) -> list[BillingRecord]:
        """See `ControlPlane`."""
        what = "read the billing of pods"
        query = {"startTime": rfc3339(start), "endTime": rfc3339(end), "bucketSize": "day", "grouping": "podId"}
        records = self._list("/billing/pods", what, query | given({"podId": pod_id}), billing_from_v1)
        return parsed_list(BillingRecord, records, None, what)

    def endpoints(self) -> list[Endpoint]:
        """See `ControlPlane`."""
        what = "list endpoints"
        return parsed_list(Endpoint, self._list("/endpoints", what, {}, endpoint_from_v1), None, what)

    def get_endpoint(self, endpoint_id: str) -> Endpoint:
        """Not by v1. Raises NotAvailableError, as do all methods of endpoints and templates but `endpoints`."""
        raise _needs_v2()

    def create_endpoint(self, spec: EndpointSpec) -> Endpoint:
        """See `get_endpoint`."""
        raise _needs_v2()

    def update_endpoint(self, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """See `get_endpoint`."""
        raise _needs_v2()

    def delete_endpoint(self, endpoint_id: str) -> None:
        """See `get_endpoint`."""
        raise _needs_v2()

    def endpoint_workers(self, endpoint_id: str) -> Workers:
        """See `get_endpoint`."""
        raise _needs_v2()

    def endpoint_releases(self, endpoint_id: str) -> Releases:
        """See `get_endpoint`."""
        raise _needs_v2()

    def worker_logs(
        self,
        endpoint_id: str,
        worker_id: str,
        *,
        source: str | None = None,
        tail: int | None = None,
        since: str | None = None,
        last_event_id: str | None = None,
        idle_s: float | None = None,
    ) -> Iterator[LogEvent]:
        """See `get_endpoint`."""
        raise _needs_v2()

    def templates(self) -> list[Template]:
        """See `get_endpoint`."""
        raise _needs_v2()

    def create_template(self, spec: TemplateSpec) -> Template:
        """See `get_endpoint`."""
        raise _needs_v2()

    def update_template(self, template_id: str, changes: Mapping[str, Any]) -> Template:
        """See `get_endpoint`."""
        raise _needs_v2()

    def delete_template(self, template_id: str) -> None:
        """See `get_endpoint`."""
        raise _needs_v2()

    def network_volumes(self) -> list[NetworkVolume]:
        """See `ControlPlane`."""
        what = "list network volumes"
        volumes = self._list("/networkvolumes", what, {}, _volume_from_v1)
        return parsed_list(NetworkVolume, volumes, None, what)

    def registries(self) -> list[Registry]:
        """See `ControlPlane`."""
        what = "list registry credentials"
        return parsed_list(Registry, self._list("/containerregistryauth", what, {}, _same), None, what)

    def create_registry(self, name: str, username: str, password: str) -> Registry:
        """See `ControlPlane`."""
        what = "store a registry credential"
        self._http.hide(password)
        body = {"name": name, "username": username, "password": password}
        reply = self._request("POST", "/containerregistryauth", body=body, retry="limits", what=what)
        return made(Registry, reply.json, what)

    def check_key(self) -> None:
        """See `ControlPlane`."""
        self._list("/pods", "check the API key", {}, _same)

    def _get(self, path: str, what: str, query: Mapping[str, str]) -> Any:
        return self._request("GET", path, query=query, retry="any", what=what).json

    def _request(
        self, method: str, path: str, *, retry: Retry, what: str, query: Any = None, body: Any = None
    ) -> Reply:
        try:
            return self._http.request(method, path, query=query, body=body, retry=retry, what=what)
        except NotAvailableError as error:
            raise _retired(error) from None

    def _list(self, path: str, what: str, query: Mapping[str, str], shape: Any) -> Any:
        try:
            answer = self._get(path, what, query)
        except NotFoundError as error:
            # A list is always there, be it empty.
            raise _retired(error) from None
        return [shape(item) for item in answer] if isinstance(answer, list) else answer


def _volume_from_v1(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return answer
    return {**answer, "dataCenter": answer.get("dataCenterId") or ""}


def _same(answer: Any) -> Any:
    return answer


def _absent(text: str) -> NotAvailableError:
    return NotAvailableError(f"REST v1 has {text}", hint=_HINT)


def _needs_v2() -> NotAvailableError:
    return NotAvailableError("REST v1 is asked about pods only: endpoints and templates need REST v2", hint=_HINT)


def _retired(error: BuilderError) -> NotAvailableError:
    return NotAvailableError(f"RunPod's REST API v1 no longer answers ({error})", hint=_HINT, status=error.status)
