"""GraphQL over real HTTP: variables only, queries again and mutations once, polite when it is retired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from builder.api.connect import connect_graphql
from builder.api.graphql import OPERATIONS, GraphQl
from builder.api.models import GpuRequest, PodSpec
from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BalanceError,
    BuilderError,
    CapacityError,
    NetworkError,
    NotAvailableError,
    NotFoundError,
    ServerFaultError,
    UsageError,
)
from builder.settings import read_settings
from tests.builder_scripted import KEY, Step, Wire, scripted

SPEC = PodSpec(
    name="whisper-1",
    image="user/image:tag",
    gpu=GpuRequest(id="NVIDIA L4", count=2, min_cuda_version="12.9"),
    cloud="COMMUNITY",
    disk=20,
    ports=("9090/http", "9999/http"),
    env={"A": 'b"}){evil', "TOKEN": "x"},
    mounts={"persistent": {"size": 30, "path": "/workspace"}},
    data_center_ids=("EU-RO-1",),
    registry="reg1",
)


def answer(field: str, value: Any) -> Step:
    return Step(200, {"data": {field: value}})


def refusal(message: str, **extensions: str) -> Step:
    return Step(200, {"data": None, "errors": [{"message": message, "extensions": extensions}]})


def graphql(wire: Wire) -> GraphQl:
    return GraphQl(wire.http())


MUTATIONS: dict[str, Callable[[GraphQl], Any]] = {
    "rent": lambda api: api.rent_spot(SPEC, 0.2),
    "deploy": lambda api: api.deploy_with_limits(SPEC, stop_after=None, terminate_after="2026-01-01T01:00:00Z"),
    "resume": lambda api: api.resume_spot("pod1", 0.2, 1),
    "create_secret": lambda api: api.create_secret("token", "secret-value"),
}
QUERIES: dict[str, Callable[[GraphQl], Any]] = {
    "balance": lambda api: api.balance(),
    "price": lambda api: api.spot_price("NVIDIA L4", "SECURE", 1),
    "secrets": lambda api: api.secrets(),
}


def test_no_value_is_ever_built_into_a_text() -> None:
    for operation in OPERATIONS.values():
        assert '"' not in operation.text
        assert operation.field in operation.text


def test_balance() -> None:
    with scripted(answer("myself", {"clientBalance": 12.5, "currentSpendPerHr": 0.44})) as wire:
        balance = graphql(wire).balance()
        (asked,) = wire.script.asked
    assert (balance.credit, balance.spend_per_h) == (12.5, 0.44)
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert "builder" in asked.headers["user-agent"]
    assert asked.json["variables"] == {}


def test_renting_a_spot_pod() -> None:
    with scripted(answer("podRentInterruptable", {"id": "pod1", "costPerHr": 0.2, "desiredStatus": "RUNNING"})) as wire:
        assert graphql(wire).rent_spot(SPEC, 0.21) == "pod1"
        (asked,) = wire.script.asked
    assert "evil" not in asked.json["query"]
    assert asked.json["variables"]["input"] == {
        "name": "whisper-1",
        "imageName": "user/image:tag",
        "dockerArgs": "",
        "gpuTypeId": "NVIDIA L4",
        "gpuCount": 2,
        "cloudType": "COMMUNITY",
        "containerDiskInGb": 20,
        "volumeInGb": 30,
        "volumeMountPath": "/workspace",
        "ports": "9090/http,9999/http",
        "env": [{"key": "A", "value": 'b"}){evil'}, {"key": "TOKEN", "value": "x"}],
        "allowedCudaVersions": ["13.0", "12.9"],
        "dataCenterId": "EU-RO-1",
        "containerRegistryAuthId": "reg1",
        "bidPerGpu": 0.21,
    }


def test_limits_on_the_server() -> None:
    network = SPEC.model_copy(update={"mounts": {"network": [{"volumeId": "v", "path": "/n"}]}})
    with scripted(answer("podFindAndDeployOnDemand", {"id": "pod2"})) as wire:
        api = graphql(wire)
        assert api.deploy_with_limits(network, stop_after=None, terminate_after="2026-01-01T01:00:00Z") == "pod2"
        sent = wire.script.asked[0].json["variables"]["input"]
    assert sent["terminateAfter"] == "2026-01-01T01:00:00Z"
    assert "stopAfter" not in sent and "bidPerGpu" not in sent
    assert (sent["networkVolumeId"], sent["volumeInGb"]) == ("v", 0)


def test_only_one_data_center() -> None:
    two = SPEC.model_copy(update={"data_center_ids": ("EU-RO-1", "EU-SE-1")})
    with scripted() as wire, pytest.raises(UsageError, match="RUNPOD_DATA_CENTERS"):
        graphql(wire).rent_spot(two, 0.2)


@pytest.mark.parametrize(
    ("found", "price"),
    [
        ([{"lowestPrice": {"minimumBidPrice": 0.18}}], 0.18),
        ([{"lowestPrice": {"minimumBidPrice": None}}], None),
        ([{"lowestPrice": {"minimumBidPrice": 0}}], None),
        ([{"lowestPrice": None}], None),
        ([], None),
        ([7], None),
    ],
)
def test_spot_price(found: Any, price: float | None) -> None:
    with scripted(answer("gpuTypes", found), answer("gpuTypes", found)) as wire:
        assert graphql(wire).spot_price("NVIDIA L4", "COMMUNITY", 2) == price
        assert graphql(wire).spot_price("NVIDIA L4", None) == price
        first, second = (asked.json["variables"] for asked in wire.script.asked)
    assert first == {"filter": {"id": "NVIDIA L4"}, "lowest": {"gpuCount": 2, "secureCloud": False}}
    assert second["lowest"] == {"gpuCount": 1}


def test_secrets_by_name() -> None:
    listed = answer("myself", {"secrets": [{"id": "s1", "name": "token"}, {"id": "s2", "name": "other"}]})
    steps = [listed, answer("secretCreate", {"id": "s3", "name": "n"}), listed, answer("secretDelete", None), listed]
    with scripted(*steps) as wire:
        api = graphql(wire)
        assert api.secrets() == ["token", "other"]
        api.create_secret("n", "secret-value")
        api.delete_secret("other")
        assert wire.script.asked[3].json["variables"] == {"id": "s2"}
        with pytest.raises(NotFoundError, match="'gone'"):
            api.delete_secret("gone")


def test_resuming() -> None:
    with scripted(answer("podBidResume", {"id": "pod1"})) as wire:
        graphql(wire).resume_spot("pod1", 0.3, 2)
        assert wire.script.asked[0].json["variables"]["input"] == {"podId": "pod1", "bidPerGpu": 0.3, "gpuCount": 2}


# Failures


@pytest.mark.parametrize("name", QUERIES)
def test_queries_are_repeated(name: str) -> None:
    value = [] if name == "price" else {"clientBalance": 1, "currentSpendPerHr": 0, "secrets": []}
    with scripted(Step(502, "<html>"), Step(cut="close"), answer(OPERATIONS[name].field, value)) as wire:
        QUERIES[name](graphql(wire))
        assert len(wire.script.asked) == 3


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_are_sent_once_and_a_lost_answer_is_ambiguous(name: str) -> None:
    for step in (Step(cut="close"), Step(200, "<html>"), Step(200, {"data": {}}), Step(200, {"data": None})):
        with scripted(step) as wire:
            with pytest.raises(AmbiguousError, match=OPERATIONS[name].what):
                MUTATIONS[name](graphql(wire))
            assert len(wire.script.asked) == 1


def test_a_mutation_that_certainly_was_not_sent_is_not_ambiguous() -> None:
    with scripted() as wire:
        api = graphql(wire)
    with pytest.raises(NetworkError) as caught:
        api.rent_spot(SPEC, 0.2)
    assert not isinstance(caught.value, AmbiguousError)


def test_a_rented_pod_beside_an_error_is_rented() -> None:
    body = {"data": {"podRentInterruptable": {"id": "pod1"}}, "errors": [{"message": "cannot read a field"}]}
    with scripted(Step(200, body)) as wire:
        assert graphql(wire).rent_spot(SPEC, 0.2) == "pod1"
    with scripted(answer("podRentInterruptable", {})) as wire, pytest.raises(AmbiguousError, match="names no pod"):
        graphql(wire).rent_spot(SPEC, 0.2)


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (refusal("There are no longer any instances available with the requested specifications."), CapacityError),
        (refusal("insufficient funds"), BalanceError),
        (refusal("Something went wrong. Please try again later or contact support."), ServerFaultError),
        (refusal("x", code="UNAUTHENTICATED"), AuthError),
        (Step(401, {"errors": [{"message": "no"}]}), AuthError),
        (refusal("This API is deprecated"), NotAvailableError),
        (Step(404, "<html>"), NotAvailableError),
        (Step(410, {"errors": [{"message": "gone"}]}), NotAvailableError),
        (Step(403, "<title>Access denied | error 1010</title>"), AuthError),
        (Step(400, {"errors": [{"message": 'Unknown type "X"'}]}), BuilderError),
    ],
)
def test_refusals(step: Step, kind: type[BuilderError]) -> None:
    with scripted(step) as wire:
        with pytest.raises(kind) as caught:
            graphql(wire).rent_spot(SPEC, 0.2)
        assert len(wire.script.asked) == 1
    assert KEY not in str(caught.value)


def test_retired_says_what_is_not_available() -> None:
    with scripted(Step(404, "")) as wire, pytest.raises(NotAvailableError) as caught:
        graphql(wire).balance()
    assert str(caught.value) == (
        "RunPod's GraphQL API no longer answers; to read the account's balance is not available"
    )


@pytest.mark.parametrize("value", [None, {}, {"clientBalance": "much"}, [], {"clientBalance": 1}])
def test_a_balance_that_is_none_is_a_bad_answer(value: Any) -> None:
    with scripted(answer("myself", value)) as wire, pytest.raises(BadAnswerError):
        graphql(wire).balance()


def test_no_failure_tells_the_key_or_the_secret() -> None:
    steps = [refusal(f"bad {KEY} secret-value"), Step(400, {"errors": [{"message": f"{KEY} secret-value"}]})]
    for step in steps:
        with scripted(step) as wire:
            with pytest.raises(BuilderError) as caught:
                graphql(wire).create_secret("n", "secret-value")
            assert KEY not in str(caught.value)
            assert "secret-value" not in str(caught.value)


def test_connecting_checks_the_address() -> None:
    wire = Wire(None)  # type: ignore[arg-type]
    environ = {"RUNPOD_API_KEY": KEY, "RUNPOD_GRAPHQL_URL": "http://api.runpod.io/graphql"}
    with pytest.raises(UsageError, match="RUNPOD_GRAPHQL_URL"):
        connect_graphql(read_settings(environ, {}), wire.clock, wire.redactor, wire.notes.append, environ)
