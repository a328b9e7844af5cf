"""REST v2 over real HTTP: requests as its document wants them, deletes and actions that survive lost answers."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from builder.api.connect import connect, find_key
from builder.api.models import GpuRequest, PodSpec
from builder.api.rest_v2 import RestV2
from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BadRequestError,
    CapacityError,
    ConflictError,
    NotFoundError,
    ServerFaultError,
    UsageError,
)
from builder.settings import read_settings
from tests.builder_scripted import KEY, Step, Wire, scripted

SPEC = PodSpec(
    name="whisper-1",
    image="user/image:tag",
    gpu=GpuRequest(id="NVIDIA L4", min_cuda_version="12.4"),
    cloud="SECURE",
    disk=20,
    ports=("9090/http",),
    env={"A": "b"},
    mounts={"persistent": {"size": 20, "path": "/workspace"}},
)
POD: dict[str, Any] = {
    "id": "pod1",
    "name": "whisper-1",
    "status": "RUNNING",
    "actions": ["stop", "restart", "terminate"],
    "image": "user/image:tag",
    "args": "",
    "disk": 20,
    "env": {},
    "ports": ["9090/http"],
    "registry": None,
    "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
    "gpu": {"id": "NVIDIA L4", "count": 1},
    "cloud": "SECURE",
    "dataCenterId": "EU-RO-1",
    "cudaVersion": "12.8",
    "cost": 0.4,
    "locked": False,
    "runtime": {"uptime": 60, "gpus": [{"util": 1, "memoryUtil": 2}], "ports": []},
    "createdAt": "2026-01-01T00:00:00Z",
    "startedAt": None,
    "somethingNew": {"of": "tomorrow"},
}
CUT = Step(cut="close")
FAULT = Step(503, {"detail": "not now"})


def pod(**changes: Any) -> dict[str, Any]:
    return POD | changes


def api(wire: Wire) -> RestV2:
    return RestV2(wire.http())


def test_a_pod_is_read_with_fields_of_tomorrow() -> None:
    with scripted(Step(200, {"pods": [POD]}), Step(200, POD)) as wire:
        (listed,) = api(wire).list_pods()
        read = api(wire).get_pod("pod1")
    assert listed == read
    assert (read.volume_gb, read.cost, read.data_center_id) == (20, 0.4, "EU-RO-1")
    assert read.runtime is not None and read.runtime.uptime_s == 60
    assert wire.script.calls == ["GET /pods", "GET /pods/pod1"]


def test_a_pod_without_a_needed_field_names_it() -> None:
    broken = {name: value for name, value in POD.items() if name != "status"}
    with scripted(Step(200, {"pods": [broken]})) as wire, pytest.raises(BadAnswerError, match=r"list pods.*'status'"):
        api(wire).list_pods()


@pytest.mark.parametrize("pod_id", ["..", "a/b", "", "p?x=1", "p\n", "x" * 101])
def test_what_is_no_id_never_gets_into_a_path(pod_id: str) -> None:
    with scripted() as wire:
        for call in (api(wire).get_pod, api(wire).delete_pod, lambda each: list(api(wire).logs(each))):
            with pytest.raises(NotFoundError):
                call(pod_id)
        assert wire.script.asked == []


def test_create_sends_the_document_s_fields_once() -> None:
    with scripted(Step(201, pod(status="PROVISIONING", runtime=None))) as wire:
        assert api(wire).create_pod(SPEC).status == "PROVISIONING"
        (asked,) = wire.script.asked
    assert asked.json == {
        "name": "whisper-1",
        "image": "user/image:tag",
        "gpu": {"id": "NVIDIA L4", "count": 1, "minCudaVersion": "12.4"},
        "cloud": "SECURE",
        "disk": 20,
        "ports": ["9090/http"],
        "env": {"A": "b"},
        "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
    }


@pytest.mark.parametrize("step", [CUT, Step(201, {"id": "pod1"}), Step(201), Step(201, "<html>")])
def test_a_create_whose_answer_cannot_be_used_may_have_happened(step: Step) -> None:
    with scripted(step) as wire:
        with pytest.raises(AmbiguousError):
            api(wire).create_pod(SPEC)
        assert len(wire.script.asked) == 1


def test_no_capacity_says_where_was_searched() -> None:
    refusal = Step(400, {"detail": "There are no longer any instances available with the requested specifications."})
    with scripted(refusal, refusal) as wire:
        with pytest.raises(CapacityError) as anywhere:
            api(wire).create_pod(SPEC)
        with pytest.raises(CapacityError) as there:
            api(wire).create_pod(SPEC.model_copy(update={"data_center_ids": ("EU-RO-1",)}))
    assert "EU-RO-1" in there.value.hint
    assert "EU-RO-1" not in anywhere.value.hint


def test_update_is_repeated() -> None:
    with scripted(FAULT, CUT, Step(200, pod(locked=True))) as wire:
        assert api(wire).update_pod("pod1", {"locked": True}).locked
        assert wire.script.calls == ["PATCH /pods/pod1"] * 3
        assert wire.script.asked[2].json == {"locked": True}


# Deletes


def test_a_delete_answers_nothing_and_that_is_fine() -> None:
    with scripted(Step(204)) as wire:
        api(wire).delete_pod("pod1")


def test_a_delete_whose_answer_is_lost_is_sent_again_and_finds_nothing() -> None:
    gone = Step(404, {"detail": "pod not found"})
    with scripted(CUT, gone, Step(200, {"pods": []})) as wire:
        api(wire).delete_pod("pod1")
        assert wire.script.calls == ["DELETE /pods/pod1", "DELETE /pods/pod1", "GET /pods"]


def test_an_api_that_moved_does_not_pass_for_one_that_deleted() -> None:
    gone = Step(404, {"detail": "no such page"})
    with scripted(gone, gone) as wire, pytest.raises(NotFoundError):
        api(wire).delete_pod("pod1")
    with scripted(gone, Step(200, {"pods": [POD]})) as wire, pytest.raises(BadAnswerError, match="and lists it"):
        api(wire).delete_pod("pod1")
    with scripted(gone, Step(200, {"pods": [pod(status="TERMINATED")]})) as wire:
        api(wire).delete_pod("pod1")


# Actions


def test_an_action_returns_the_pod() -> None:
    with scripted(Step(200, pod(status="EXITED", runtime=None))) as wire:
        assert api(wire).act("pod1", "stop").status == "EXITED"
        assert wire.script.asked[0].json == {"action": "stop"}


@pytest.mark.parametrize("step", [CUT, FAULT, Step(200, "<html>"), Step(200)])
def test_an_action_with_a_lost_answer_is_looked_up(step: Step) -> None:
    with scripted(step, Step(200, pod(status="EXITED"))) as wire:
        assert api(wire).act("pod1", "stop").status == "EXITED"
        assert wire.script.calls == ["POST /pods/pod1/action", "GET /pods/pod1"]


def test_an_action_that_did_not_happen_is_sent_again() -> None:
    with scripted(CUT, Step(200, pod(status="EXITED")), Step(200, pod(status="STARTING"))) as wire:
        assert api(wire).act("pod1", "start").status == "STARTING"
        assert wire.script.calls == ["POST /pods/pod1/action", "GET /pods/pod1", "POST /pods/pod1/action"]
    assert wire.notes and wire.clock.monotonic_s() > 0


def test_a_second_send_that_is_out_of_turn_means_that_the_first_worked() -> None:
    conflict = Step(409, {"detail": "not valid for EXITED"})
    with scripted(CUT, Step(200, POD), conflict, Step(200, pod(status="EXITED"))) as wire:
        assert api(wire).act("pod1", "stop").status == "EXITED"
    with scripted(conflict) as wire, pytest.raises(ConflictError):
        api(wire).act("pod1", "stop")


def test_a_restart_shows_by_its_uptime() -> None:
    fresh = pod(runtime={"uptime": 0, "gpus": []})
    with scripted(CUT, Step(200, POD), CUT, Step(200, fresh)) as wire:
        restarted = api(wire).act("pod1", "restart")
    assert restarted.runtime is not None and restarted.runtime.uptime_s == 0


def test_an_action_gives_up_after_a_few_sends() -> None:
    with scripted(*[FAULT, Step(200, POD)] * 3) as wire:
        with pytest.raises(ServerFaultError):
            api(wire).act("pod1", "stop")
        assert wire.script.calls.count("POST /pods/pod1/action") == 3


def test_an_action_that_cannot_be_looked_up_may_have_happened() -> None:
    with scripted(*[CUT] * 6) as wire, pytest.raises(AmbiguousError, match="stop pod pod1"):
        api(wire).act("pod1", "stop")


def test_a_start_without_a_free_gpu_is_no_capacity() -> None:
    refusal = Step(400, {"detail": "There are not enough free GPUs on the host machine to start this pod."})
    with scripted(refusal) as wire, pytest.raises(CapacityError):
        api(wire).act("pod1", "start")


# Lists


def test_the_catalog_is_asked_for_the_stock_of_pods() -> None:
    row = {"id": "NVIDIA L4", "name": "L4", "pool": "ADA_24", "manufacturer": "NVIDIA", "memory": 24, "secure": True}
    row |= {"community": False, "price": {"secure": 0.43, "community": 0}, "maxCount": {"secure": 8, "community": 0}}
    row |= {"availability": "LOW", "dataCenters": [{"id": "EU-RO-1", "name": "Romania", "availability": "LOW"}]}
    with scripted(Step(200, {"gpus": [row]}), Step(200, {"gpus": []})) as wire:
        (gpu,) = api(wire).gpu_types(cloud="COMMUNITY", count=2, min_cuda="12.4")
        api(wire).gpu_types()
    assert (gpu.memory, gpu.price.secure, gpu.data_centers[0].id) == (24, 0.43, "EU-RO-1")
    query = "include=AVAILABILITY&product=POD"
    assert wire.script.calls == [
        f"GET /catalog/gpus?{query}&count=2&cloud=COMMUNITY&minCudaVersion=12.4",
        f"GET /catalog/gpus?{query}&count=1",
    ]


def test_logs_come_as_events_and_resume() -> None:
    chunks = [
        b'id: 2026-01-01T00:00:01Z/1\ndata: {"ts":"2026-01-01T00:00:01Z","source":"container","line":"a"}\n\n',
        b": ping\n\ndata: junk\n\n",
        b'id: x2\ndata: {"ts":"t2","source":"system","line":"b"}\n\n',
    ]
    with scripted(Step(chunks=chunks)) as wire:
        first, second = api(wire).logs("pod1", source="container", tail=5, last_event_id="x0", idle_s=2.0)
        (asked,) = wire.script.asked
    assert (first.id, first.line, second.id, second.source) == ("2026-01-01T00:00:01Z/1", "a", "x2", "system")
    assert asked.path == "/pods/pod1/logs?source=container&tail=5"
    assert asked.headers["last-event-id"] == "x0"


def test_money_endpoints_volumes_registries() -> None:
    start = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    record = {"startTime": "2026-01-01T00:00:00Z", "endTime": "2026-01-02T00:00:00Z", "podId": "pod1"}
    record |= {"totalAmount": 1.5, "gpuAmount": 1.25, "cpuAmount": 0, "diskAmount": 0.25}  # type: ignore[dict-item]
    volume = {"id": "v", "name": "n", "size": 50, "dataCenter": "EU-RO-1", "type": "STANDARD"}
    endpoint = {"id": "e", "name": "n", "workers": {"min": 1, "max": 3}, "createdAt": "2026-01-01T00:00:00Z"}
    steps = [{"records": [record]}, {"endpoints": [endpoint]}, {"networkVolumes": [volume]}, {"registries": []}]
    with scripted(*[Step(200, body) for body in steps], Step(201, {"id": "r", "name": "hub"})) as wire:
        client = api(wire)
        (billed,) = client.pod_billing(start=start, end=start + timedelta(days=1), pod_id="pod1")
        assert client.endpoints()[0].workers["min"] == 1
        assert client.network_volumes()[0].size == 50
        assert client.registries() == []
        assert client.create_registry("hub", "user", "pass-word-1").id == "r"
        assert wire.script.asked[4].json == {"name": "hub", "username": "user", "password": "pass-word-1"}
    assert (billed.total_amount, billed.disk_amount) == (1.5, 0.25)
    span = "startTime=2026-01-01T00%3A00%3A00Z&endTime=2026-01-02T00%3A00%3A00Z"
    assert wire.script.calls[:4] == [
        f"GET /billing/pods?{span}&bucketSize=day&podId=pod1",
        "GET /serverless",
        "GET /network-volumes",
        "GET /registries",
    ]


def test_a_rejected_registry_does_not_tell_its_password() -> None:
    refusal = Step(422, {"detail": "x", "errors": ["$.password: 'pass-word-1' is too weak"]})
    with scripted(refusal) as wire, pytest.raises(BadRequestError, match="hidden") as caught:
        api(wire).create_registry("hub", "user", "pass-word-1")
    assert "pass-word-1" not in str(caught.value)


# Connecting


def connected(environ: dict[str, str]) -> Any:
    wire = Wire(None)  # type: ignore[arg-type]
    return connect(read_settings(environ, {}), wire.clock, wire.redactor, wire.notes.append, environ)


def test_a_key_is_checked_by_a_read() -> None:
    with scripted(Step(200, {"pods": []}), Step(401, {"detail": "no"})) as wire:
        client = connected({"RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE": wire.script.url + "/v2/"})
        client.check_key()
        with pytest.raises(AuthError):
            client.check_key()
        assert wire.script.calls[0] == "GET /v2/pods"


@pytest.mark.parametrize("variable", ["RUNPOD_API_BASE", "RUNPOD_REST_V1_BASE"])
@pytest.mark.parametrize(
    "base", ["http://api.runpod.io", "https://user:pass-word@host", "host", "https://", "file:///x"]
)
def test_unsafe_addresses_name_their_variable(variable: str, base: str) -> None:
    environ = {"RUNPOD_API_KEY": KEY, variable: base, "RUNPOD_API_V1": "1" if "V1" in variable else "0"}
    with pytest.raises(UsageError, match=variable) as caught:
        connected(environ)
    assert "pass-word" not in str(caught.value)


def test_addresses_of_this_machine_may_be_plain() -> None:
    for host in ("localhost", "127.0.0.1:8080", "[::1]:80"):
        connected({"RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE": f"http://{host}/v2"})


CONFIGS = {
    'apikey = "rpa_FROMFILE"': "rpa_FROMFILE",
    "apiurl = 'https://x'\napi_key='rpa_FROMFILE'\n": "rpa_FROMFILE",
    '  apiKey="rpa_FROMFILE"  # mine': "rpa_FROMFILE",
    "[other]\nx = 1\n": None,
    'apikey = ""': None,
    '# apikey = "rpa_OLD"': None,
}


@pytest.mark.parametrize("text", CONFIGS)
def test_the_key_of_runpodctl_is_used_if_there_is_no_other(text: str, tmp_path: Path) -> None:
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod" / "config.toml").write_text(text)
    environ = {"HOME": str(tmp_path)}
    assert find_key(read_settings({"RUNPOD_API_KEY": KEY}, {}), environ) == KEY
    if CONFIGS[text] is None:
        with pytest.raises(AuthError, match="no RunPod API key"):
            find_key(read_settings({}, {}), environ)
    else:
        assert find_key(read_settings({}, {}), environ) == CONFIGS[text]


@pytest.mark.parametrize("home", [None, "", "/nowhere"])
def test_no_key_at_all(home: str | None) -> None:
    with pytest.raises(AuthError, match="RUNPOD_API_KEY"):
        find_key(read_settings({}, {}), {} if home is None else {"HOME": home})


@pytest.mark.parametrize("key", ["rpa_with space", "rpa_with\nline", "rpa_ümlaut"])
def test_a_key_that_no_header_could_hold_is_refused_unseen(key: str) -> None:
    with pytest.raises(AuthError) as caught:
        find_key(read_settings({"RUNPOD_API_KEY": key}, {}), {})
    assert key not in str(caught.value)
