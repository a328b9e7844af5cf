"""Endpoints, their workers and templates by RunPod's REST API v2: a part of `builder.api.rest_v2.RestV2`.

Source: RunPod REST API v2 (document version 2.0.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.api.http import Http
from builder.api.models import LogEvent
from builder.api.models_serverless import (
    Endpoint,
    EndpointSpec,
    Releases,
    Template,
    TemplateSpec,
    Workers,
)
from builder.api.problems import parsed, parsed_list
from builder.api.rest_shared import checked_id, given, log_event, made, placement_hint, surely_gone
from builder.api.sse import events
from builder.errors import CapacityError, NotFoundError

__all__ = ["ServerlessV2"]


class ServerlessV2:
    """See `builder.api.control_plane.ControlPlane` for what each method promises."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def endpoints(self) -> list[Endpoint]:
        """See `ControlPlane`."""
        what = "list endpoints"
        return parsed_list(Endpoint, self._get("/serverless", what), "endpoints", what)

    def get_endpoint(self, endpoint_id: str) -> Endpoint:
        """See `ControlPlane`."""
        what = f"read endpoint {endpoint_id}"
        return parsed(Endpoint, self._get(_endpoint(endpoint_id), what), what)

    def create_endpoint(self, spec: EndpointSpec) -> Endpoint:
        """See `ControlPlane`."""
        what = "create endpoint"
        try:
            reply = self._http.request("POST", "/serverless", body=spec.body(), retry="limits", what=what)
        except CapacityError as error:
            raise placement_hint(error, spec) from None
        return made(Endpoint, reply.json, what)

    def update_endpoint(self, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """See `ControlPlane`."""
        what = f"change endpoint {endpoint_id}"
        reply = self._http.request("PATCH", _endpoint(endpoint_id), body=dict(changes), retry="any", what=what)
        return made(Endpoint, reply.json, what)

    def delete_endpoint(self, endpoint_id: str) -> None:
        """See `ControlPlane`."""
        what = f"delete endpoint {endpoint_id}"
        path = _endpoint(endpoint_id)
        try:
            self._http.request("DELETE", path, retry="any", what=what)
        except NotFoundError:
            surely_gone(endpoint_id, self.endpoints(), what, "endpoint")

    def endpoint_workers(self, endpoint_id: str) -> Workers:
        """See `ControlPlane`."""
        what = f"list the workers of endpoint {endpoint_id}"
        return parsed(Workers, self._get(f"{_endpoint(endpoint_id)}/workers", what), what)

    def endpoint_releases(self, endpoint_id: str) -> Releases:
        """See `ControlPlane`."""
        what = f"list the releases of endpoint {endpoint_id}"
        return parsed(Releases, self._get(f"{_endpoint(endpoint_id)}/releases", what), what)

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
        """See `ControlPlane`; events that cannot be read are skipped."""
        what = f"read the log of worker {worker_id}"
        path = f"{_endpoint(endpoint_id)}/workers/{checked_id(worker_id, 'worker')}/logs"
        query = {"source": source, "tail": tail, "since": since}
        yield from self._log(path, query, last_event_id, idle_s, what)

    def templates(self) -> list[Template]:
        """See `ControlPlane`."""
        what = "list templates"
        return parsed_list(Template, self._get("/templates", what), "templates", what)

    def create_template(self, spec: TemplateSpec) -> Template:
        """See `ControlPlane`."""
        what = "create template"
        reply = self._http.request("POST", "/templates", body=spec.body(), retry="limits", what=what)
        return made(Template, reply.json, what)

    def update_template(self, template_id: str, changes: Mapping[str, Any]) -> Template:
        """See `ControlPlane`."""
        what = f"change template {template_id}"
        reply = self._http.request("PATCH", _template(template_id), body=dict(changes), retry="any", what=what)
        return made(Template, reply.json, what)

    def delete_template(self, template_id: str) -> None:
        """See `ControlPlane`."""
        what = f"delete template {template_id}"
        path = _template(template_id)
        try:
            self._http.request("DELETE", path, retry="any", what=what)
        except NotFoundError:
            surely_gone(template_id, self.templates(), what, "template", "be there")

    def _get(self, path: str, what: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._http.request("GET", path, query=given(query or {}), retry="any", what=what).json

    def _log(
        self, path: str, query: Mapping[str, Any], last_event_id: str | None, idle_s: float | None, what: str
    ) -> Iterator[LogEvent]:
        headers = given({"Last-Event-ID": last_event_id})
        for event in events(self._http.stream_lines(path, given(query), headers, idle_s, what)):
            entry = log_event(event.id, event.data)
            if entry is not None:
                yield entry


def _endpoint(endpoint_id: str) -> str:
    return f"/serverless/{checked_id(endpoint_id, 'endpoint')}"


def _template(template_id: str) -> str:
    return f"/templates/{checked_id(template_id, 'template')}"
