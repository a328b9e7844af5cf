"""REST v1 as the way back: v2's names in, v1's on the wire, v2's out; what v1 lacks; what is left when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from builder.api.connect import connect
from builder.api.models import GpuRequest, PodSpec
from builder.api.rest_v1 import RestV1
from builder.api.retries import ATTEMPTS
from builder.api.v1_shapes import cuda_versions, pod_from_v1
from builder.errors import AmbiguousError, BadAnswerError, CapacityError, NotAvailableError, NotFoundError
from builder.settings import read_settings
from tests.builder_scripted import KEY, Step, Wire, scripted

SPEC = PodSpec(
    name="whisper-1",
    image="user/image:tag",
    gpu=GpuRequest(id="NVIDIA L4", min_cuda_version="12.8"),
    cloud="COMMUNITY",
    disk=20,
    ports=("9090/http", "9999/http"),
    env={"A": "b"},
)
POD: dict[str, Any] = {
    "id": "pod1",
    "name": "whisper-1",
    "desiredStatus": "RUNNING",
    "image": "user/image:tag",
    "costPerHr": "0.74",
    "adjustedCostPerHr": 0.69,
    "containerDiskInGb": 20,
    "volumeInGb": 30,
    "volumeMountPath": "/data",
    "env": {"A": "b"},
    "ports": ["9090/http"],
    "gpu": {"id": "NVIDIA L4", "count": 2},
    "machine": {"dataCenterId": "EU-RO-1", "secureCloud": True, "gpuTypeId": "NVIDIA L4"},
    "lastStartedAt": "2024-07-12T19:14:40.144Z",
    "createdAt": "2024-07-12 19:14:30.1 +0000 UTC",
    "locked": False,
}


def api(wire: Wire) -> RestV1:
    return RestV1(wire.http())


def test_a_pod_looks_as_in_v2() -> None:
    with scripted(Step(200, [POD]), Step(200, POD)) as wire:
        (listed,) = api(wire).list_pods()
        pod = api(wire).get_pod("pod1")
        query = "includeMachine=true&includeNetworkVolume=true"
        assert wire.script.calls == [f"GET /pods?{query}", f"GET /pods/pod1?{query}"]
    assert listed == pod
    assert (pod.status, pod.actions, pod.cost) == ("RUNNING", ("stop", "restart", "terminate"), 0.69)
    assert (pod.disk, pod.volume_gb, pod.image, pod.env, pod.ports) == (
        20,
        30,
        "user/image:tag",
        {"A": "b"},
        ("9090/http",),
    )
    assert pod.gpu is not None and (pod.gpu.id, pod.gpu.count) == ("NVIDIA L4", 2)
    assert (pod.cloud, pod.data_center_id, pod.runtime) == ("SECURE", "EU-RO-1", None)
    assert pod.created_at == datetime(2024, 7, 12, 19, 14, 30, tzinfo=timezone.utc)
    assert pod.started_at == datetime(2024, 7, 12, 19, 14, 40, tzinfo=timezone.utc)


def test_a_stopped_pod_costs_nothing_an_hour_and_may_start() -> None:
    bare = {"id": "p", "name": "n", "desiredStatus": "EXITED", "costPerHr": 0.5}
    bare |= {"ports": "9090/http, 22/tcp", "env": [{"key": "A", "value": "b"}], "networkVolumeId": "v"}
    with scripted(Step(200, bare)) as wire:
        pod = api(wire).get_pod("p")
    assert (pod.cost, pod.actions, pod.gpu) == (0.0, ("start", "terminate"), None)
    assert (pod.ports, pod.env) == (("9090/http", "22/tcp"), {"A": "b"})
    assert pod.mounts == {"network": [{"volumeId": "v", "path": "/workspace"}]}


def test_a_status_nobody_has_heard_of_is_shown_as_it_is() -> None:
    with scripted(Step(200, {"id": "p", "name": "n", "desiredStatus": "PAUSED"})) as wire:
        assert api(wire).get_pod("p").status == "PAUSED"


@pytest.mark.parametrize("answer", [None, [], "x", {"id": "p"}])
def test_what_is_no_pod_is_a_bad_answer(answer: Any) -> None:
    with scripted(*[Step(200, answer)] * ATTEMPTS) as wire, pytest.raises(BadAnswerError, match="read pod p"):
        api(wire).get_pod("p")


@pytest.mark.parametrize(
    "junk", [{"machine": 3, "gpu": "x", "env": 0, "ports": None, "createdAt": "soon"}, {"env": [1]}]
)
def test_junk_in_optional_fields_does_not_hide_a_pod(junk: dict[str, Any]) -> None:
    assert pod_from_v1({"id": "p", "name": "n", "desiredStatus": "RUNNING", **junk})["id"] == "p"


def test_create_speaks_v1() -> None:
    with scripted(Step(201, {"id": "pod1", "costPerHr": 0.2})) as wire:
        pod = api(wire).create_pod(SPEC)
        (asked,) = wire.script.asked
    assert (pod.id, pod.name, pod.status, pod.cost) == ("pod1", "whisper-1", "RUNNING", 0.2)
    assert (asked.method, asked.path) == ("POST", "/pods")
    assert asked.json == {
        "name": "whisper-1",
        "imageName": "user/image:tag",
        "computeType": "GPU",
        "gpuTypeIds": ["NVIDIA L4"],
        "gpuTypePriority": "custom",
        "gpuCount": 1,
        "cloudType": "COMMUNITY",
        "containerDiskInGb": 20,
        "volumeInGb": 0,
        "ports": ["9090/http", "9999/http"],
        "env": {"A": "b"},
        "interruptible": False,
        "allowedCudaVersions": ["13.0", "12.9", "12.8"],
    }


def test_create_with_volumes_data_centers_and_a_registry() -> None:
    extras = {"data_center_ids": ("EU-RO-1",), "registry": "reg1"}
    persistent = {"persistent": {"size": 30, "path": "/w"}}
    network = {"network": [{"volumeId": "v1", "path": "/n"}]}
    with scripted(Step(201, POD), Step(201, POD)) as wire:
        api(wire).create_pod(SPEC.model_copy(update={"mounts": persistent, **extras}))
        api(wire).create_pod(SPEC.model_copy(update={"mounts": network}))
        first, second = (asked.json for asked in wire.script.asked)
    assert (first["volumeInGb"], first["volumeMountPath"]) == (30, "/w")
    assert (first["dataCenterIds"], first["containerRegistryAuthId"]) == (["EU-RO-1"], "reg1")
    assert (second["volumeInGb"], second["networkVolumeId"], second["volumeMountPath"]) == (0, "v1", "/n")


def test_v1_says_500_to_a_lack_of_machines() -> None:
    refusal = Step(500, {"error": "There are no longer any instances available", "status": 500})
    with scripted(refusal) as wire, pytest.raises(CapacityError):
        api(wire).create_pod(SPEC)


@pytest.mark.parametrize("step", [Step(cut="close"), Step(201, "junk"), Step(201), Step(201, {"costPerHr": 1})])
def test_a_create_without_a_usable_answer_may_have_happened(step: Step) -> None:
    with scripted(step) as wire:
        with pytest.raises(AmbiguousError):
            api(wire).create_pod(SPEC)
        assert len(wire.script.asked) == 1


def test_cuda_versions_are_compared_as_numbers() -> None:
    assert cuda_versions("12.10") == ["13.0"]
    assert cuda_versions("13.0") == ["13.0"]
    assert len(cuda_versions("11.8")) == 12


def test_changes_are_translated_or_refused() -> None:
    with scripted(Step(200, POD)) as wire:
        api(wire).update_pod("pod1", {"image": "i", "disk": 9, "mounts": {"persistent": {"size": 10, "path": "/w"}}})
        assert wire.script.asked[0].json == {
            "imageName": "i",
            "containerDiskInGb": 9,
            "volumeInGb": 10,
            "volumeMountPath": "/w",
        }
        with pytest.raises(NotAvailableError, match="'args'"):
            api(wire).update_pod("pod1", {"args": "x"})


def test_actions_have_paths_of_their_own_and_are_read_back() -> None:
    stopped = Step(200, POD | {"desiredStatus": "EXITED"})
    with scripted(Step(200), stopped, Step(cut="close"), stopped) as wire:
        assert api(wire).act("pod1", "stop").status == "EXITED"
        assert api(wire).act("pod1", "stop").status == "EXITED"
        assert [call.split("?")[0] for call in wire.script.calls] == ["POST /pods/pod1/stop", "GET /pods/pod1"] * 2
        assert wire.script.asked[0].body == b""


def test_deletes() -> None:
    with scripted(Step(204), Step(404, {"error": "pod not found"}), Step(200, [])) as wire:
        api(wire).delete_pod("pod1")
        api(wire).delete_pod("pod1")
    with scripted() as wire, pytest.raises(NotFoundError):
        api(wire).delete_pod("../pods")


def test_billing_has_days() -> None:
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    record = {"amount": 1.5, "podId": "pod1", "time": "2026-01-01 00:00:00", "timeBilledMs": 3600000}
    with scripted(Step(200, [record]), Step(200, [{"amount": 1}])) as wire:
        (billed,) = api(wire).pod_billing(start=start, end=start + timedelta(days=2), pod_id="pod1")
        with pytest.raises(BadAnswerError, match="podId"):
            api(wire).pod_billing(start=start, end=start)
        assert "bucketSize=day&grouping=podId&podId=pod1" in wire.script.calls[0]
    assert (billed.start_time, billed.end_time, billed.total_amount) == (start, start + timedelta(days=1), 1.5)


def test_endpoints_volumes_registries() -> None:
    endpoint = {"id": "e", "name": "n", "workersMin": 1, "workersMax": 3, "gpuTypeIds": ["NVIDIA L4"], "gpuCount": 1}
    volume = {"id": "v", "name": "n", "size": 50, "dataCenterId": "EU-RO-1"}
    answers = [[endpoint], [volume], [{"id": "r", "name": "hub"}]]
    with scripted(*[Step(200, body) for body in answers], Step(200, {"id": "r2", "name": "hub2"})) as wire:
        client = api(wire)
        assert client.endpoints()[0].workers == {"min": 1, "max": 3}
        assert client.network_volumes()[0].data_center == "EU-RO-1"
        assert client.registries()[0].name == "hub"
        assert client.create_registry("hub2", "u", "pass-word-1").id == "r2"
        assert wire.script.calls[1:] == [
            "GET /networkvolumes",
            "GET /containerregistryauth",
            "POST /containerregistryauth",
        ]


def test_what_v1_lacks_says_so_at_once() -> None:
    with scripted() as wire:
        for call in (lambda: api(wire).gpu_types(), lambda: api(wire).logs("pod1")):
            with pytest.raises(NotAvailableError, match="REST v1 has no") as caught:
                call()
            assert "RUNPOD_API_V1" in caught.value.hint
        assert wire.script.asked == []


def test_endpoints_and_templates_are_left_to_v2() -> None:
    with scripted() as wire:
        client = api(wire)
        calls: list[Callable[[], Any]] = [
            lambda: client.get_endpoint("e"),
            lambda: client.create_endpoint(None),  # type: ignore[arg-type]
            lambda: client.update_endpoint("e", {}),
            lambda: client.delete_endpoint("e"),
            lambda: client.endpoint_workers("e"),
            lambda: client.endpoint_releases("e"),
            lambda: client.worker_logs("e", "w"),
            client.templates,
            lambda: client.create_template(None),  # type: ignore[arg-type]
            lambda: client.update_template("t", {}),
            lambda: client.delete_template("t"),
        ]
        for call in calls:
            with pytest.raises(NotAvailableError, match="need REST v2") as caught:
                call()
            assert "RUNPOD_API_V1" in caught.value.hint
        with pytest.raises(NotAvailableError):
            client.gpu_types(product="SERVERLESS")
        assert wire.script.asked == []


@pytest.mark.parametrize("status", [404, 410])
def test_a_retired_v1_points_to_v2(status: int) -> None:
    gone = Step(status, {"message": "gone"})
    with scripted(gone, gone, gone, gone) as wire:
        calls: list[Callable[[], Any]] = [api(wire).list_pods, api(wire).check_key, lambda: api(wire).create_pod(SPEC)]
        # Of a single pod, 404 means that there is none.
        if status == 410:
            calls.append(lambda: api(wire).get_pod("p"))
        for call in calls:
            with pytest.raises(NotAvailableError, match="no longer answers") as caught:
                call()
            assert "REST v2" in caught.value.hint


def test_a_retired_v1_does_not_pass_for_one_that_deleted() -> None:
    gone = Step(404, {"message": "gone"})
    with scripted(gone, gone) as wire, pytest.raises(NotAvailableError):
        api(wire).delete_pod("pod1")


def test_the_switch_chooses_v1() -> None:
    with scripted(Step(200, [])) as wire:
        environ = {"RUNPOD_API_KEY": KEY, "RUNPOD_API_V1": "1", "RUNPOD_REST_V1_BASE": f"{wire.script.url}/v1"}
        client = connect(read_settings(environ, {}), wire.clock, wire.redactor, wire.notes.append, environ)
        client.check_key()
        assert wire.script.calls == ["GET /v1/pods"]
