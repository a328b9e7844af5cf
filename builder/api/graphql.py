"""RunPod's GraphQL API, for the few things that only it can do: spot pods, limits on the server, balance, secrets.

RunPod retires it; then everything here raises NotAvailableError, and nothing else depends on it. Operations are kept
in one table, with variables only; introspection is switched off there, so types that clients in use confirm are
marked in the table, and the others rest on how they are called.

Source: RunPod GraphQL API.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builder.api.http import Http
from builder.api.models import Cloud, PodSpec
from builder.api.problems import graphql_error
from builder.api.retries import Retry
from builder.api.v1_shapes import cuda_versions
from builder.errors import AmbiguousError, BadAnswerError, BuilderError, NotAvailableError, NotFoundError, UsageError

__all__ = ["OPERATIONS", "Balance", "GraphQl", "Operation"]


@dataclass(frozen=True)
class Operation:
    """`text` for the API, `field` of its data that answers, `what` it does in words."""

    text: str
    field: str
    what: str

    @property
    def is_mutation(self) -> bool:
        """True if it changes something, and so must be sent once."""
        return self.text.startswith("mutation")


OPERATIONS = {
    "balance": Operation(
        "query Balance { myself { clientBalance currentSpendPerHr } }", "myself", "read the account's balance"
    ),
    # GpuTypeFilter, GpuLowestPriceInput: confirmed.
    "price": Operation(
        "query SpotPrice($filter: GpuTypeFilter!, $lowest: GpuLowestPriceInput!) { gpuTypes(input: $filter) "
        "{ id lowestPrice(input: $lowest) { minimumBidPrice uninterruptablePrice stockStatus } } }",
        "gpuTypes",
        "read spot prices",
    ),
    # PodRentInterruptableInput: confirmed.
    "rent": Operation(
        "mutation RentSpot($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) "
        "{ id costPerHr desiredStatus } }",
        "podRentInterruptable",
        "rent a spot pod",
    ),
    # PodFindAndDeployOnDemandInput: confirmed.
    "deploy": Operation(
        "mutation Deploy($input: PodFindAndDeployOnDemandInput!) { podFindAndDeployOnDemand(input: $input) "
        "{ id costPerHr desiredStatus } }",
        "podFindAndDeployOnDemand",
        "create a pod with limits",
    ),
    "resume": Operation(
        "mutation ResumeSpot($input: PodBidResumeInput!) { podBidResume(input: $input) { id } }",
        "podBidResume",
        "start a spot pod",
    ),
    "secrets": Operation("query Secrets { myself { secrets { id name } } }", "myself", "list secrets"),
    "create_secret": Operation(
        "mutation CreateSecret($input: SecretCreateInput!) { secretCreate(input: $input) { id name } }",
        "secretCreate",
        "store a secret",
    ),
    "delete_secret": Operation(
        "mutation DeleteSecret($id: String!) { secretDelete(id: $id) }", "secretDelete", "delete a secret"
    ),
}


@dataclass(frozen=True)
class Balance:
    """The account's `credit` in dollars, and what it spends in dollars an hour."""

    credit: float
    spend_per_h: float


class GraphQl:
    """Every method may raise NotAvailableError (retired), AuthError, NetworkError and others of `builder.errors`.

    Queries are retried, mutations never: an answer that is lost raises AmbiguousError.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def balance(self) -> Balance:
        """The account's credit and present spending."""
        myself = self._ask("balance", {})
        return Balance(_number(myself, "clientBalance"), _number(myself, "currentSpendPerHr"))

    def spot_price(self, gpu_id: str, cloud: Cloud | None, count: int = 1) -> float | None:
        """The lowest bid in dollars an hour for one GPU in `cloud` (None: any); None if there is none to be had."""
        lowest: dict[str, Any] = {"gpuCount": count}
        if cloud is not None:
            lowest["secureCloud"] = cloud == "SECURE"
        found = self._ask("price", {"filter": {"id": gpu_id}, "lowest": lowest})
        price = (
            found[0].get("lowestPrice") if isinstance(found, list) and found and isinstance(found[0], dict) else None
        )
        bid = price.get("minimumBidPrice") if isinstance(price, dict) else None
        return float(bid) if isinstance(bid, (int, float)) and bid > 0 else None

    def rent_spot(self, spec: PodSpec, bid_per_gpu: float) -> str:
        """Rent a spot pod at `bid_per_gpu` dollars an hour; returns its id. Raises like `create_pod`."""
        return self._create("rent", _pod_input(spec) | {"bidPerGpu": bid_per_gpu})

    def deploy_with_limits(self, spec: PodSpec, *, stop_after: str | None, terminate_after: str | None) -> str:
        """Create a pod that RunPod itself stops and ends at these moments (ISO 8601); returns its id.

        Raises like `create_pod`.
        """
        limits = {"stopAfter": stop_after, "terminateAfter": terminate_after}
        return self._create("deploy", _pod_input(spec) | {name: value for name, value in limits.items() if value})

    def resume_spot(self, pod_id: str, bid: float, count: int = 1) -> None:
        """Start a stopped spot pod at `bid` dollars an hour for each of its `count` GPUs."""
        self._ask("resume", {"input": {"podId": pod_id, "bidPerGpu": bid, "gpuCount": count}})

    def secrets(self) -> list[str]:
        """Names of the account's secrets."""
        return [name for name, _ in self._secrets()]

    def create_secret(self, name: str, value: str) -> None:
        """Store a secret, for pods to refer to as `{{ RUNPOD_SECRET_name }}`."""
        self._http.hide(value)
        self._ask("create_secret", {"input": {"name": name, "value": value}})

    def delete_secret(self, name: str) -> None:
        """Delete a secret. Raises NotFoundError if there is none of that name."""
        ids = [secret_id for each, secret_id in self._secrets() if each == name]
        if not ids:
            raise NotFoundError(f"no secret {name!r}", hint="")
        self._ask("delete_secret", {"id": ids[0]}, may_be_null=True)

    def _secrets(self) -> list[tuple[str, str]]:
        myself = self._ask("secrets", {})
        found = myself.get("secrets") if isinstance(myself, dict) else None
        items = [item for item in found or () if isinstance(item, dict)]
        return [(str(item.get("name", "")), str(item.get("id", ""))) for item in items]

    def _create(self, name: str, fields: dict[str, Any]) -> str:
        made = self._ask(name, {"input": fields})
        pod_id = made.get("id") if isinstance(made, dict) else None
        if not isinstance(pod_id, str) or not pod_id:
            raise AmbiguousError(f"{OPERATIONS[name].what}: the answer names no pod")
        return pod_id

    def _ask(self, name: str, variables: dict[str, Any], *, may_be_null: bool = False) -> Any:
        operation = OPERATIONS[name]
        body = {"query": operation.text, "variables": variables}
        retry: Retry = "limits" if operation.is_mutation else "any"
        try:
            reply = self._http.request("POST", "", body=body, retry=retry, what=operation.what)
            return _data(operation, reply.json, reply.headers.get("x-request-id"), may_be_null)
        except BuilderError as error:
            if isinstance(error, NotAvailableError) or error.status in (404, 410):
                raise _retired(operation, error) from None
            # The text of an error may quote a secret of the request.
            raise self._http.cleaned(error) from None


def _data(operation: Operation, answer: Any, request_id: str | None, may_be_null: bool) -> Any:
    data = answer.get("data") if isinstance(answer, dict) else None
    value = data.get(operation.field) if isinstance(data, dict) else None
    # An error beside an answer: what was asked for did happen.
    if value is None and isinstance(answer, dict) and answer.get("errors"):
        raise graphql_error(operation.what, answer["errors"], request_id)
    has_field = isinstance(data, dict) and operation.field in data
    if value is None and not (may_be_null and has_field):
        kind = AmbiguousError if operation.is_mutation else BadAnswerError
        raise kind(f"{operation.what}: the answer has no field {operation.field!r}", request_id=request_id)
    return value


def _retired(operation: Operation, error: BuilderError) -> NotAvailableError:
    message = f"RunPod's GraphQL API no longer answers; to {operation.what} is not available"
    return NotAvailableError(message, hint="", status=error.status, request_id=error.request_id)


def _number(value: Any, name: str) -> float:
    number = value.get(name) if isinstance(value, dict) else None
    if not isinstance(number, (int, float)):
        raise BadAnswerError(f"read the account's balance: field {name!r} of the answer is no number")
    return float(number)


def _pod_input(spec: PodSpec) -> dict[str, Any]:
    """A pod as GraphQL writes it. Raises UsageError for more than one data center."""
    if spec.data_center_ids and len(spec.data_center_ids) > 1:
        raise UsageError(
            "RUNPOD_DATA_CENTERS: GraphQL, which spot pods and limits on the server need, takes one data center",
            hint="name one, or none for all",
        )
    fields: dict[str, Any] = {
        "name": spec.name,
        "imageName": spec.image,
        "dockerArgs": "",
        "gpuTypeId": spec.gpu.id,
        "gpuCount": spec.gpu.count,
        "cloudType": spec.cloud,
        "containerDiskInGb": spec.disk,
        "volumeInGb": 0,
        "ports": ",".join(spec.ports),
        "env": [{"key": key, "value": value} for key, value in spec.env.items()],
    }
    mounts = spec.mounts or {}
    if mounts.get("persistent"):
        fields |= {"volumeInGb": mounts["persistent"]["size"], "volumeMountPath": mounts["persistent"]["path"]}
    if mounts.get("network"):
        volume = mounts["network"][0]
        fields |= {"networkVolumeId": volume["volumeId"], "volumeMountPath": volume["path"]}
    if spec.gpu.min_cuda_version:
        fields["allowedCudaVersions"] = cuda_versions(spec.gpu.min_cuda_version)
    if spec.data_center_ids:
        fields["dataCenterId"] = spec.data_center_ids[0]
    if spec.registry:
        fields["containerRegistryAuthId"] = spec.registry
    return fields
