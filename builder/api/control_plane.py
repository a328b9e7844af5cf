"""What the verbs ask of RunPod, whichever REST API answers; and the choice among them.

`connect` gives REST v2, or v1 behind its rollback switch, with v1's answers put into v2's shape. GraphQL, for the few
things that only it can do, is separate: `builder.api.graphql`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
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

__all__ = ["ControlPlane"]


class ControlPlane(Protocol):
    """RunPod's REST API. Every method may raise a BuilderError of `builder.errors`.

    Reading, deleting and changing are retried on faults that pass; `create_pod` never is: a lost answer raises
    AmbiguousError, and `builder.deploy.create` finds out what happened.
    """

    def list_pods(self) -> list[Pod]:
        """All pods of the account."""
        ...

    def get_pod(self, pod_id: str) -> Pod:
        """One pod. Raises NotFoundError."""
        ...

    def create_pod(self, spec: PodSpec) -> Pod:
        """One attempt. Raises CapacityError, BalanceError, ForbiddenError, BadRequestError, ServerFaultError
        (refused with 5xx: may have happened all the same), AmbiguousError (no answer), RateLimitedError."""
        ...

    def update_pod(self, pod_id: str, changes: Mapping[str, Any]) -> Pod:
        """Change fields, by REST v2's names; `env` replaces the pod's whole environment."""
        ...

    def act(self, pod_id: str, action: PodAction) -> Pod:
        """Start, stop or restart. Raises CapacityError if the host has no GPU left, ConflictError out of turn."""
        ...

    def delete_pod(self, pod_id: str) -> None:
        """End a pod for good; one that is gone already is fine. Raises ConflictError if it is locked."""
        ...

    def gpu_types(
        self,
        *,
        cloud: Cloud | None = None,
        count: int = 1,
        min_cuda: str | None = None,
        product: Literal["POD", "SERVERLESS"] = "POD",
    ) -> list[GpuType]:
        """The catalog with stock for `product` (pods: in `cloud`; None: the API's default, SECURE)."""
        ...

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
        """One connection's log lines (source: container or system; None: both), as they come.

        Ends when the server ends it, or after `idle_s` real seconds without a line; raises NetworkError when it
        breaks.
        """
        ...

    def pod_billing(self, *, start: datetime, end: datetime, pod_id: str | None = None) -> list[BillingRecord]:
        """What pods cost, by day."""
        ...

    def endpoints(self) -> list[Endpoint]:
        """Serverless endpoints of the account."""
        ...

    def get_endpoint(self, endpoint_id: str) -> Endpoint:
        """One endpoint. Raises NotFoundError."""
        ...

    def create_endpoint(self, spec: EndpointSpec) -> Endpoint:
        """One attempt, with the errors of `create_pod`."""
        ...

    def update_endpoint(self, endpoint_id: str, changes: Mapping[str, Any]) -> Endpoint:
        """Change fields, by REST v2's names (PATCH); `env` replaces the whole environment. What changes the container
        or the GPUs makes a new release, which workers come to one after the other."""
        ...

    def delete_endpoint(self, endpoint_id: str) -> None:
        """End an endpoint and its workers for good; one that is gone already is fine."""
        ...

    def endpoint_workers(self, endpoint_id: str) -> Workers:
        """Its workers now."""
        ...

    def endpoint_releases(self, endpoint_id: str) -> Releases:
        """What was changed, and how many workers run the newest release."""
        ...

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
        """A worker's log, like `logs`."""
        ...

    def templates(self) -> list[Template]:
        """Templates of the account, pods' and workers'."""
        ...

    def create_template(self, spec: TemplateSpec) -> Template:
        """One attempt, with the errors of `create_pod`; names are unique."""
        ...

    def update_template(self, template_id: str, changes: Mapping[str, Any]) -> Template:
        """Change fields, by REST v2's names; endpoints made from it stay as they are."""
        ...

    def delete_template(self, template_id: str) -> None:
        """Remove a template; one that is gone already is fine."""
        ...

    def network_volumes(self) -> list[NetworkVolume]:
        """Network volumes of the account."""
        ...

    def registries(self) -> list[Registry]:
        """Stored registry credentials."""
        ...

    def create_registry(self, name: str, username: str, password: str) -> Registry:
        """Store a credential for private images."""
        ...

    def check_key(self) -> None:
        """One cheap read. Raises AuthError if the key is refused, NetworkError if nobody answers."""
        ...
