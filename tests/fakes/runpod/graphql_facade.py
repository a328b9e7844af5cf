"""RunPod's GraphQL API over the same pods: the operations that only it has, and those that everybody calls.

A query that cannot be run is answered 400, one that fails 200 with `errors`, and a client that does not say who it is
403, as Cloudflare does in front of the real one. There is no introspection.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.fakes.runpod.account import StoredSecret
from tests.fakes.runpod.calls import Answer, Call, Operation
from tests.fakes.runpod.catalog import LEVELS, GpuType, Offer
from tests.fakes.runpod.clock import iso_time
from tests.fakes.runpod.graphql_inputs import QUERIES, check_arguments, moment, v2_body
from tests.fakes.runpod.graphql_query import Operation as Query
from tests.fakes.runpod.graphql_query import QueryError, read_operation, selected
from tests.fakes.runpod.pod import Pod, PodRefusedError
from tests.fakes.runpod.pods import NO_INSTANCES, PodStore
from tests.fakes.runpod.v1_facade import desired_status

__all__ = ["GraphQlFacade"]

DEFAULT_AGENTS = re.compile(
    r"(python-requests|python-urllib|python-httpx|aiohttp|python/\S+ aiohttp|curl|go-http)\b", re.I
)


class GraphQlFacade:
    """Answers 410 to everything while `is_retired` says so; `may_write` judges the key of a call."""

    def __init__(self, store: PodStore, is_retired: Callable[[], bool], may_write: Callable[[Call], bool]) -> None:
        self._store = store
        self._is_retired = is_retired
        self._may_write = may_write
        self._resolvers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "pod": self._pod,
            "myself": self._myself,
            "gpuTypes": self._gpu_types,
            "podFindAndDeployOnDemand": lambda args: self._deploy(args["input"], None),
            "podRentInterruptable": lambda args: self._deploy(args["input"], args["input"]["bidPerGpu"]),
            "podResume": lambda args: self._resume(args["input"], None),
            "podBidResume": lambda args: self._resume(args["input"], args["input"]["bidPerGpu"]),
            "podStop": lambda args: self._shown(self._store.act(args["input"]["podId"], "stop")),
            "podTerminate": self._terminate,
            "secretCreate": self._create_secret,
            "secretDelete": self._delete_secret,
        }

    def operations(self) -> list[Operation]:
        """For the server that the plane runs in."""
        return [Operation("POST", "/graphql", self._answer, "graphql", True, refuse=_refused)]

    def _answer(self, call: Call) -> Answer:
        agent = call.headers.get("User-Agent", "")
        if not agent or DEFAULT_AGENTS.match(agent):
            return Answer(403, text="error code: 1010", content_type="text/plain")
        if self._is_retired():
            return Answer(410, text="the GraphQL API is no longer available", content_type="text/plain")
        body = call.json()
        if not isinstance(body, dict) or not isinstance(body.get("query"), str):
            raise PodRefusedError(400, "POST body missing, invalid Content-Type, or JSON object has no keys.")
        try:
            query = read_operation(body["query"], body.get("variables") or {})
            self._check(query)
            if query.kind == "mutation" and not self._may_write(call):
                raise PodRefusedError(403, "the API key does not grant write access")
            return Answer(200, self._run(query))
        except QueryError as error:
            return Answer(400, _failure(str(error), "GRAPHQL_VALIDATION_FAILED"))

    def _check(self, query: Query) -> None:
        for each in query.fields:
            if each.name not in self._resolvers or (each.name in QUERIES) != (query.kind == "query"):
                raise QueryError(f'Cannot query field "{each.name}" on type "{query.kind.title()}".')
        check_arguments(query)

    def _run(self, query: Query) -> dict[str, Any]:
        data: dict[str, Any] = {}
        errors = []
        for each in query.fields:
            try:
                data[each.name] = selected(self._resolvers[each.name](each.args), each.fields, each.name)
            except PodRefusedError as refusal:
                data[each.name] = None
                errors += _failure(refusal.detail, "INTERNAL_SERVER_ERROR", each.name)["errors"]
        return {"errors": errors, "data": data} if errors else {"data": data}

    # Queries

    def _pod(self, args: dict[str, Any]) -> Any:
        try:
            return self._shown(self._store.get(args["input"]["podId"]))
        except PodRefusedError:
            return None

    def _myself(self, args: dict[str, Any]) -> Any:
        secrets = self._store.account.secrets.values()
        return {
            "id": "user_fake",
            "email": "somebody@example.com",
            "clientBalance": self._store.balance,
            "currentSpendPerHr": self._store.spend_per_h,
            "spendLimit": self._store.spend_limit_per_h,
            "pods": [self._shown(pod) for pod in self._store.list()],
            "endpoints": [{"id": each["id"], "name": each["name"]} for each in self._store.shown_endpoints()],
            "secrets": [{"id": each.id, "name": each.name, "description": ""} for each in secrets],
        }

    def _gpu_types(self, args: dict[str, Any]) -> Any:
        wanted = args["input"].get("id")
        gpus = [gpu for gpu in self._store.catalog.gpus.values() if wanted in (None, gpu.id)]
        self._store.sweep()
        return [self._gpu(gpu) for gpu in gpus]

    def _gpu(self, gpu: GpuType) -> dict[str, Any]:
        return {
            "id": gpu.id,
            "displayName": gpu.name,
            "memoryInGb": gpu.memory_gb,
            "secureCloud": gpu.secure is not None,
            "communityCloud": gpu.community is not None,
            "securePrice": gpu.secure or 0,
            "communityPrice": gpu.community or 0,
            "secureSpotPrice": gpu.spot_price("SECURE"),
            "communitySpotPrice": gpu.spot_price("COMMUNITY"),
            "maxGpuCount": max(gpu.max_count("SECURE"), gpu.max_count("COMMUNITY")),
            "lowestPrice": lambda args: self._lowest(gpu, args.get("input") or {}),
        }

    def _lowest(self, gpu: GpuType, given: dict[str, Any]) -> dict[str, Any]:
        count, secure = given.get("gpuCount", 1), given.get("secureCloud")
        clouds = {True: ("SECURE",), False: ("COMMUNITY",), None: ("SECURE", "COMMUNITY")}[secure]
        centers = [given["dataCenterId"]] if given.get("dataCenterId") else []
        offers: list[tuple[float, Offer]] = []
        for cloud in clouds:
            price = gpu.price(cloud)
            if price is not None:
                found = self._store.catalog.matching(gpu.id, cloud, count=count, data_centers=centers)
                offers += [(price, offer) for offer in found if offer.listed != "NONE"]
        if not offers:
            empty = ("minimumBidPrice", "uninterruptablePrice", "stockStatus")
            return {**dict.fromkeys(empty), "availableGpuCounts": []}
        price, offer = min(offers, key=lambda each: each[0])
        level = max((each.listed for _price, each in offers), key=LEVELS.index)
        return {
            "minimumBidPrice": gpu.spot_price(offer.cloud),
            "uninterruptablePrice": price,
            "stockStatus": level.capitalize(),
            "availableGpuCounts": list(range(1, gpu.max_count(offer.cloud) + 1)),
        }

    # Mutations

    def _deploy(self, given: dict[str, Any], bid: float | None) -> dict[str, Any]:
        limits = {"stop_at_s": moment(given, "stopAfter"), "terminate_at_s": moment(given, "terminateAfter")}
        clouds = ("COMMUNITY", "SECURE") if given.get("cloudType", "ALL") == "ALL" else (given["cloudType"],)
        refusal = PodRefusedError(400, NO_INSTANCES)
        for cloud in clouds:
            try:
                return self._shown(self._store.create(v2_body(given, cloud), bid=bid, **limits))
            except PodRefusedError as error:
                refusal = error
        raise refusal

    def _resume(self, given: dict[str, Any], bid: float | None) -> dict[str, Any]:
        with self._store.turn():
            pod = self._store.get(given["podId"])
            if pod.is_spot != (bid is not None):
                raise PodRefusedError(400, "use podBidResume for interruptable pods, and podResume for the others")
            lowest = self._store.catalog.gpus[pod.gpu_id].spot_price(pod.cloud) if pod.gpu_id else None
            if bid is not None:
                if lowest is None or bid < lowest:
                    raise PodRefusedError(400, "The bid is below the lowest one accepted for this GPU.")
                pod.bid, pod.price = bid, round(bid * pod.gpu_count, 6)
            return self._shown(self._store.act(pod.id, "start"))

    def _terminate(self, args: dict[str, Any]) -> None:
        try:
            self._store.delete(args["input"]["podId"])
        except PodRefusedError as refusal:
            if refusal.status == 404:
                raise PodRefusedError(404, "pod not found to terminate") from None
            raise

    def _create_secret(self, args: dict[str, Any]) -> dict[str, Any]:
        given, secrets = args["input"], self._store.account.secrets
        if given["name"] in secrets:
            raise PodRefusedError(400, "a secret with this name already exists")
        secret = StoredSecret(self._store.new_id(), given["name"], given["value"])
        secrets[secret.name] = secret
        return {"id": secret.id, "name": secret.name, "description": ""}

    def _delete_secret(self, args: dict[str, Any]) -> None:
        secrets = self._store.account.secrets
        name = next((each.name for each in secrets.values() if each.id == args.get("id")), None)
        if name is None:
            raise PodRefusedError(404, "secret not found")
        del secrets[name]

    def _shown(self, pod: Pod) -> dict[str, Any]:
        gpu = self._store.catalog.gpus.get(pod.gpu_id or "")
        return {
            "id": pod.id,
            "name": pod.name,
            "imageName": pod.image,
            "desiredStatus": desired_status(pod),
            "costPerHr": pod.price,
            "podType": "INTERRUPTABLE" if pod.is_spot else "RESERVED",
            "gpuCount": pod.gpu_count,
            "containerDiskInGb": pod.disk,
            "volumeInGb": pod.volume_gb,
            "ports": ",".join(pod.ports),
            "env": [f"{name}={value}" for name, value in pod.env.items()],
            "lastStatusChange": f"Rented by User: {iso_time(pod.created_s)}",
            "lastStartedAt": None if pod.started_s is None else iso_time(pod.started_s),
            "machine": {
                "gpuDisplayName": gpu.name if gpu else None,
                "location": (pod.data_center_id or "")[:2],
                "dataCenterId": pod.data_center_id,
            },
            "runtime": self._runtime(pod),
        }

    def _runtime(self, pod: Pod) -> dict[str, Any] | None:
        if pod.up_since_s is None:
            return None
        ports = [port.partition("/") for port in pod.ports]
        return {
            "uptimeInSeconds": int(self._store.clock.unix_s() - pod.up_since_s),
            "ports": [
                {
                    "ip": "100.65.0.1",
                    "isIpPublic": False,
                    "privatePort": int(number),
                    "publicPort": 60_000,
                    "type": kind,
                }
                for number, _slash, kind in ports
            ],
            "gpus": [
                {"id": f"GPU-{n}", "gpuUtilPercent": pod.gpu_util, "memoryUtilPercent": pod.memory_util}
                for n in range(pod.gpu_count)
            ],
        }


def _refused(refusal: PodRefusedError) -> Answer:
    """Refused before the query ran."""
    return Answer(refusal.status, _failure(refusal.detail, "UNAUTHENTICATED" if refusal.status == 401 else "REFUSED"))


def _failure(message: str, code: str, path: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"message": message, "extensions": {"code": code}}
    return {"errors": [error | ({"path": [path]} if path else {})]}
