"""The fake RunPod's older interfaces: REST v1 and GraphQL over the same pods, as they really answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.runpod.clock import iso_time
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.graphql_query import QueryError, read_operation, selected

GPU = "NVIDIA GeForce RTX 4090"
V1_POD = {
    "name": "w",
    "imageName": "me/whisper:1",
    "gpuTypeIds": ["NVIDIA L4", GPU],
    "ports": ["9090/http"],
    "env": {"A": "1"},
    "volumeInGb": 0,
}
POD = {
    "name": "w",
    "imageName": "me/whisper:1",
    "gpuTypeId": GPU,
    "cloudType": "COMMUNITY",
    "ports": "9090/http,22/tcp",
}
DEPLOY = "mutation($in:PodFindAndDeployOnDemandInput!){podFindAndDeployOnDemand(input:$in){id costPerHr desiredStatus}}"
RENT = "mutation($in:PodRentInterruptableInput!){podRentInterruptable(input:$in){id costPerHr desiredStatus}}"
RESUME = "mutation($in:PodBidResumeInput!){podBidResume(input:$in){id}}"
STOP = "mutation($id:String!){podStop(input:{podId:$id}){id desiredStatus}}"
TERMINATE = "mutation($id:String!){podTerminate(input:{podId:$id})}"
READ = """
query($id:String!) {  # as old clients ask
  pod(input: {podId: $id}) {
    id, name, desiredStatus, costPerHr, lastStatusChange
    runtime { uptimeInSeconds ports { ip isIpPublic privatePort publicPort type } gpus { id gpuUtilPercent } }
    machine { gpuDisplayName location }
  }
}"""


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def plane(running: ControlPlane) -> ControlPlane:
    running.reset()
    return running


def ask(plane: ControlPlane, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key or plane.api_key}", "User-Agent": "test/1"}
    answer = requests.request(method, plane.url + path, json=body, headers=headers, timeout=5)
    return answer.status_code, answer.json() if answer.content.startswith((b"{", b"[")) else answer.text


def graphql(plane: ControlPlane, query: str, variables: dict[str, Any] | None = None) -> Any:
    """The data of an answer without errors."""
    status, answer = ask(plane, "POST", "/graphql", {"query": query, "variables": variables or {}})
    assert status == 200 and "errors" not in answer, answer
    return answer["data"]


def failure(plane: ControlPlane, query: str, variables: dict[str, Any] | None = None) -> tuple[int, str]:
    status, answer = ask(plane, "POST", "/graphql", {"query": query, "variables": variables or {}})
    return status, answer["errors"][0]["message"]


# REST v1


def test_v1_pods_have_the_desired_status_and_the_same_store(plane: ControlPlane) -> None:
    status, made = ask(plane, "POST", "/v1/pods", V1_POD)
    pod_id = made["id"]
    assert (status, made["desiredStatus"], made["gpu"]["id"]) == (201, "RUNNING", "NVIDIA L4")
    assert ask(plane, "GET", f"/v2/pods/{pod_id}")[1]["status"] == "PROVISIONING"
    assert made["machine"] == {} and made["volumeInGb"] == 0 and made["costPerHr"] == 0.43
    shown = ask(plane, "GET", f"/v1/pods/{pod_id}?includeMachine=true")[1]
    assert shown["machine"]["secureCloud"] is True and "lastStartedAt" not in shown
    plane.clock.advance(30)
    assert ask(plane, "POST", f"/v1/pods/{pod_id}/stop")[1]["desiredStatus"] == "EXITED"
    assert [pod["id"] for pod in ask(plane, "GET", "/v1/pods?desiredStatus=EXITED")[1]] == [pod_id]
    assert ask(plane, "POST", f"/v1/pods/{pod_id}/start")[1]["desiredStatus"] == "RUNNING"
    assert ask(plane, "DELETE", f"/v1/pods/{pod_id}") == (204, "")
    assert ask(plane, "DELETE", f"/v1/pods/{pod_id}") == (404, {"error": "pod not found", "status": 404})
    plane.assert_no_leaks()


def test_v1_updates_reset_a_running_pod(plane: ControlPlane) -> None:
    pod_id = ask(plane, "POST", "/v1/pods", V1_POD)[1]["id"]
    plane.clock.advance(30)
    ask(plane, "PATCH", f"/v1/pods/{pod_id}", {"name": "other"})
    assert plane.pods.get(pod_id).status == "RUNNING"
    changed = ask(plane, "POST", f"/v1/pods/{pod_id}/update", {"env": {"B": "2"}, "volumeInGb": 30})[1]
    assert (changed["name"], changed["env"], changed["volumeInGb"]) == ("other", {"B": "2"}, 30)
    assert plane.pods.get(pod_id).status == "STARTING"
    plane.clock.advance(30)
    ask(plane, "POST", f"/v1/pods/{pod_id}/reset")
    assert plane.pods.get(pod_id).starts == 3


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"idleTimeout": 5}, 400, "idleTimeout"),
        ({"gpuTypeIds": ["RTX 4090"]}, 400, "RTX 4090"),
        ({"ports": "9090/http"}, 400, "ports"),
        ({"imageName": ""}, 400, "imageName"),
        ({"cloudType": "COMMUNITY", "gpuTypeIds": ["NVIDIA L4"]}, 500, "create pod: There are no longer any instances"),
        ({"networkVolumeId": "none"}, 500, "create pod: network volume not found"),
    ],
)
def test_v1_refuses_in_its_own_words(plane: ControlPlane, change: dict[str, Any], status: int, words: str) -> None:
    got, answer = ask(plane, "POST", "/v1/pods", V1_POD | change)
    assert (got, answer["status"], set(answer)) == (status, status, {"error", "status"})
    assert words in answer["error"]
    plane.assert_no_leaks()


def test_v1_falls_back_to_the_next_gpu(plane: ControlPlane) -> None:
    plane.pods.set_stock("NVIDIA L4", "NONE")
    assert ask(plane, "POST", "/v1/pods", V1_POD)[1]["gpu"]["id"] == GPU


def test_v1_states_faults_keys_and_retirement(plane: ControlPlane) -> None:
    pod_id = ask(plane, "POST", "/v1/pods", V1_POD)[1]["id"]
    plane.pods.update(pod_id, {"locked": True})
    status, answer = ask(plane, "DELETE", f"/v1/pods/{pod_id}")
    assert status == 500 and "locked" in answer["error"]
    assert ask(plane, "GET", "/v1/pods", key="wrong") == (401, {"error": "missing or invalid API key", "status": 401})
    assert ask(plane, "POST", "/v1/pods", V1_POD, plane.read_only_key)[0] == 403
    plane.faults.fail("POST /v1/pods", status=503)
    assert ask(plane, "POST", "/v1/pods", V1_POD)[0] == 503
    plane.pods.balance = 0
    assert ask(plane, "POST", "/v1/pods", V1_POD)[0] == 500
    assert ask(plane, "GET", "/v1/nothing")[0] == 404
    plane.retire_v1()
    assert ask(plane, "GET", "/v1/pods")[0] == ask(plane, "GET", "/v1/nothing")[0] == 410
    assert ask(plane, "GET", "/v2/pods")[0] == 200


def test_v1_account_and_bills(plane: ControlPlane) -> None:
    plane.pods.account.add_volume("v1", "data", 50, "EU-RO-1")
    volumes = ask(plane, "GET", "/v1/networkvolumes")[1]
    assert volumes == [{"id": "v1", "name": "data", "size": 50, "dataCenterId": "EU-RO-1"}]
    made = ask(plane, "POST", "/v1/containerregistryauth", {"name": "n", "username": "u", "password": "p"})[1]
    assert ask(plane, "GET", "/v1/containerregistryauth")[1] == [made] == [{"id": made["id"], "name": "n"}]
    assert ask(plane, "DELETE", f"/v1/containerregistryauth/{made['id']}")[0] == 204
    start_s = plane.clock.unix_s()
    ask(plane, "POST", "/v1/pods", V1_POD)
    plane.clock.advance(36 * 3600)
    rows = ask(plane, "GET", f"/v1/billing/pods?startTime={iso_time(start_s)}")[1]
    assert [round(row["amount"], 2) for row in rows] == [round(24 * 0.43, 2), round(12 * 0.43, 2)]


# GraphQL


def test_graphql_reads_what_was_asked_for(plane: ControlPlane) -> None:
    pod_id = graphql(plane, DEPLOY, {"in": POD})["podFindAndDeployOnDemand"]["id"]
    assert graphql(plane, READ, {"id": pod_id})["pod"]["runtime"] is None
    plane.clock.advance(20)
    pod = graphql(plane, READ, {"id": pod_id})["pod"]
    assert set(pod) == {"id", "name", "desiredStatus", "costPerHr", "lastStatusChange", "runtime", "machine"}
    assert (pod["desiredStatus"], pod["costPerHr"], pod["machine"]["gpuDisplayName"]) == ("RUNNING", 0.36, "RTX 4090")
    assert pod["runtime"]["uptimeInSeconds"] == 7
    assert [port["privatePort"] for port in pod["runtime"]["ports"]] == [9090, 22]
    assert graphql(plane, READ, {"id": "gone"}) == {"pod": None}
    myself = graphql(plane, "{ myself { clientBalance currentSpendPerHr pods { id } } }")["myself"]
    assert myself["clientBalance"] < 100 and myself["currentSpendPerHr"] == 0.36 and myself["pods"] == [{"id": pod_id}]
    assert graphql(plane, STOP, {"id": pod_id})["podStop"] == {"id": pod_id, "desiredStatus": "EXITED"}
    assert graphql(plane, TERMINATE, {"id": pod_id}) == {"podTerminate": None}
    assert failure(plane, TERMINATE, {"id": pod_id}) == (200, "pod not found to terminate")
    assert len(plane.mutations()) == 4
    plane.assert_no_leaks()


def test_graphql_prices_and_stock(plane: ControlPlane) -> None:
    query = """query($g:String!,$in:GpuLowestPriceInput){gpuTypes(input:{id:$g}){id secureCloud communityCloud
        lowestPrice(input:$in){minimumBidPrice uninterruptablePrice stockStatus}}}"""

    def price(gpu: str = GPU, **wanted: Any) -> Any:
        return graphql(plane, query, {"g": gpu, "in": wanted})["gpuTypes"][0]["lowestPrice"]

    assert price() == {"minimumBidPrice": 0.18, "uninterruptablePrice": 0.36, "stockStatus": "High"}
    assert price(secureCloud=True)["uninterruptablePrice"] == 0.69
    assert price("NVIDIA L4", secureCloud=False)["stockStatus"] is None
    plane.pods.set_stock(GPU, "LOW", cloud="COMMUNITY")
    assert price(secureCloud=False)["stockStatus"] == "Low"
    plane.pods.set_stock(GPU, "NONE")
    assert price()["minimumBidPrice"] is None
    assert graphql(plane, query, {"g": "RTX 4090"}) == {"gpuTypes": []}


def test_graphql_stops_and_ends_pods_by_itself(plane: ControlPlane) -> None:
    now_s = plane.clock.unix_s()
    limits = {"stopAfter": iso_time(now_s + 600), "terminateAfter": iso_time(now_s + 3600)}
    pod_id = graphql(plane, DEPLOY, {"in": POD | limits})["podFindAndDeployOnDemand"]["id"]
    plane.clock.advance(599)
    assert plane.pods.get(pod_id).status == "RUNNING"
    plane.clock.advance(2)
    assert plane.pods.get(pod_id).status == "EXITED"
    plane.clock.advance(3000)
    plane.assert_no_leaks()
    assert failure(plane, DEPLOY, {"in": POD | {"stopAfter": "tomorrow"}})[0] == 200


def test_spot_pods_are_bid_for_interrupted_and_resumed(plane: ControlPlane) -> None:
    assert failure(plane, RENT, {"in": POD}) == (
        400,
        'Variable "$input" got invalid value; Field "bidPerGpu" of required type was not provided.',
    )
    assert failure(plane, RENT, {"in": POD | {"bidPerGpu": 0.1}})[0] == 200
    made = graphql(plane, RENT, {"in": POD | {"bidPerGpu": 0.2, "gpuCount": 2}})["podRentInterruptable"]
    assert made["costPerHr"] == 0.4
    plane.clock.advance(30)
    plane.interrupt_spot(made["id"])
    assert plane.pods.get(made["id"]).status == "EXITED"
    low, high = ({"podId": made["id"], "bidPerGpu": bid, "gpuCount": 2} for bid in (0.1, 0.3))
    assert "bid" in failure(plane, RESUME, {"in": low})[1]
    graphql(plane, RESUME, {"in": high})
    assert (plane.pods.get(made["id"]).status, plane.pods.get(made["id"]).cost) == ("STARTING", 0.6)


def test_secrets_come_back_by_name_only(plane: ControlPlane) -> None:
    create = "mutation($input:SecretCreateInput!){secretCreate(input:$input){id name}}"
    made = graphql(plane, create, {"input": {"name": "token", "value": "s3cr3t"}})["secretCreate"]
    assert failure(plane, create, {"input": {"name": "token", "value": "x"}})[0] == 200
    assert graphql(plane, "{myself{secrets{id name}}}")["myself"]["secrets"] == [made]
    assert failure(plane, "{myself{secrets{value}}}")[0] == 400
    plane.assert_no_secret("s3cr3t")
    graphql(plane, "mutation($id:String!){secretDelete(id:$id)}", {"id": made["id"]})
    assert graphql(plane, "{myself{secrets{name}}}")["myself"]["secrets"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("{ nothing { id } }", 'Cannot query field "nothing" on type "Query"'),
        ('{ podTerminate(input:{podId:"x"}) }', 'Cannot query field "podTerminate"'),
        ("{ myself { password } }", 'Cannot query field "password"'),
        ("{ myself }", "must have a selection of subfields"),
        ("{ gpuTypes(input:{}) { secureCloud { count } } }", "must not have a selection"),
        ("{ myself { id }", "Syntax Error"),
        ("query($id: String!) { pod(input:{podId:$id}) { id } }", "was not provided"),
        ("mutation($in: PodInput) { podStop(input:$in) { id } }", 'argument "input" is required'),
        ("{ pod(input:{id: 1}) { id } }", 'Field "id" is not defined by type "PodFilter"'),
        ("{ __schema { types { name } } }", "Cannot query field"),
    ],
)
def test_graphql_refuses_what_it_cannot_run(plane: ControlPlane, query: str, words: str) -> None:
    status, message = failure(plane, query)
    assert status == 400 and words in message


def test_graphql_checks_declared_types(plane: ControlPlane) -> None:
    query = "mutation($in: PodInput!) { podStop(input: $in) { id } }"
    status, message = failure(plane, query, {"in": {"podId": "x"}})
    assert status == 400 and 'of type "PodInput" used in position expecting "PodStopInput"' in message


def test_graphql_keys_agents_and_retirement(plane: ControlPlane) -> None:
    url, key = f"{plane.url}/graphql", {"Authorization": f"Bearer {plane.api_key}"}
    query = {"query": "{ myself { id } }"}
    for agent in ("python-requests/2.32.0", "Python-urllib/3.11"):
        assert requests.post(url, json=query, headers=key | {"User-Agent": agent}, timeout=5).status_code == 403
    status, answer = ask(plane, "POST", "/graphql", query, "wrong")
    assert status == 401 and answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert ask(plane, "POST", "/graphql", query, plane.read_only_key)[0] == 200
    stop = {"query": STOP, "variables": {"id": "x"}}
    assert ask(plane, "POST", "/graphql", stop, plane.read_only_key)[0] == 403
    plane.retire_graphql()
    assert ask(plane, "POST", "/graphql", query)[0] == 410


def test_the_query_reader_keeps_literals_apart_from_names() -> None:
    query = 'query Q($a: [String!]!) { f(x: "a, {b}", y: [1, -2.5], z: {k: null, l: $a, m: true}, e: HIGH) { g } }'
    operation = read_operation(query, {"a": ["v"]})
    assert operation.fields[0].args == {
        "x": "a, {b}",
        "y": [1, -2.5],
        "z": {"k": None, "l": ["v"], "m": True},
        "e": "HIGH",
    }
    assert selected([{"g": 1, "h": 2}], operation.fields[0].fields, "f") == [{"g": 1}]
    with pytest.raises(QueryError, match="not defined"):
        read_operation("{ f(x: $y) }", {})
