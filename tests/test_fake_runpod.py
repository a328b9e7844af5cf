"""The fake RunPod itself: what it answers fits the API's document, time moves its pods, and its faults do as told."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.runpod.clock import parse_time
from tests.fakes.runpod.contract import document_path
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.pods_answers import endpoint_document

GPU = "NVIDIA GeForce RTX 3090"
NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
needs_document = pytest.mark.skipif(document_path() is None, reason="RunPod's OpenAPI document is not here")


class Api:
    """A client without any manners: no retries, no models."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {plane.api_key}"

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, f"{self.plane.url}/v2{path}", json=body, timeout=5, **options)

    def get(self, path: str, **query: Any) -> Any:
        answer = self.ask("GET", path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, **changes: Any) -> Any:
        answer = self.ask("POST", "/pods", body(**changes))
        assert answer.status_code == 201, answer.text
        return answer.json()

    def refused(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, str]:
        answer = self.ask(method, path, body, **options)
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code >= 400
        return problem["status"], problem["detail"]

    def errors(self, body: Any) -> list[str]:
        with self.plane.malformed():
            answer = self.ask("POST", "/pods", body)
        assert answer.status_code == 422
        errors: list[str] = answer.json()["errors"]
        return errors


def body(**changes: Any) -> dict[str, Any]:
    full = {
        "name": "whisper",
        "image": "you/whisper:abc",
        "gpu": {"id": GPU, "count": 1, "minCudaVersion": "12.4"},
        "cloud": "COMMUNITY",
        "disk": 20,
        "ports": ["9090/http", "22/tcp"],
        "env": {"TOKEN": "s3cret"},
        "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
        **changes,
    }
    return {name: value for name, value in full.items() if value is not None}


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def api(running: ControlPlane) -> Iterator[Api]:
    running.reset()
    client = Api(running)
    with client.session:
        yield client
    running.assert_contract()


def statuses(api: Api, pod_id: str, seconds: int) -> list[str]:
    """The statuses in order over so many seconds of the plane's time."""
    seen: list[str] = []
    for _ in range(seconds + 1):
        status = api.get(f"/pods/{pod_id}")["status"]
        if status not in seen[-1:]:
            seen.append(status)
        api.plane.clock.sleep(1)
    return seen


# Life of a pod


def test_a_pod_goes_through_its_life(api: Api) -> None:
    pod = api.create()
    path = f"/pods/{pod['id']}"
    assert (pod["status"], pod["runtime"], pod["startedAt"]) == ("PROVISIONING", None, None)
    assert statuses(api, pod["id"], 14) == ["PROVISIONING", "STARTING", "RUNNING"]
    api.plane.pods.get(pod["id"]).gpu_util = 40
    shown = api.get(path)
    assert shown["runtime"]["uptime"] == 2
    assert shown["runtime"]["gpus"] == [{"util": 40, "memoryUtil": 0}]
    assert shown["actions"] == ["stop", "restart", "terminate"]
    assert api.ask("POST", f"{path}/action", {"action": "restart"}).json()["status"] == "STARTING"
    assert statuses(api, pod["id"], 6) == ["STARTING", "RUNNING"]
    stopped = api.ask("POST", f"{path}/action", {"action": "stop"}).json()
    assert (stopped["status"], stopped["cost"], stopped["mounts"]) == ("EXITED", 0.0, pod["mounts"])
    assert stopped["cudaVersion"] == pod["cudaVersion"]
    assert api.ask("POST", f"{path}/action", {"action": "start"}).status_code == 200
    assert statuses(api, pod["id"], 6) == ["STARTING", "RUNNING"]
    gone = api.ask("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    assert api.refused("DELETE", path) == (404, "pod not found")
    assert api.get("/pods") == {"pods": []}
    api.plane.assert_no_leaks()


def test_what_is_left_behind_is_named(api: Api) -> None:
    pod = api.create(name="forgotten")
    with pytest.raises(AssertionError, match=rf"forgotten \({pod['id']}, PROVISIONING"):
        api.plane.assert_no_leaks()
    api.plane.assert_no_leaks(allow=["forgotten"])
    api.plane.assert_no_leaks(allow=[pod["id"]])


def test_a_patch_replaces_the_environment_and_keeps_the_kind_of_disk(api: Api) -> None:
    path = f"/pods/{api.create()['id']}"
    shown = api.ask("PATCH", path, {"env": {"A": "1"}, "mounts": {"persistent": {"size": 50, "path": "/data"}}}).json()
    assert (shown["env"], shown["mounts"]["persistent"]["size"]) == ({"A": "1"}, 50)
    assert shown["image"] == "you/whisper:abc"
    assert api.refused("PATCH", path, {"mounts": {"network": [{"volumeId": "v", "path": "/w"}]}})[0] == 400


def test_a_locked_pod_stays(api: Api) -> None:
    path = f"/pods/{api.create()['id']}"
    assert api.ask("PATCH", path, {"locked": True}).json()["locked"] is True
    assert api.refused("DELETE", path)[0] == 409
    assert api.refused("POST", f"{path}/action", {"action": "stop"})[0] == 409
    api.ask("PATCH", path, {"locked": False})
    assert api.ask("POST", f"{path}/action", {"action": "terminate"}).status_code == 204


def test_an_action_out_of_turn_is_a_conflict(api: Api) -> None:
    path = f"/pods/{api.create()['id']}/action"
    assert api.refused("POST", path, {"action": "start"})[0] == 409
    assert api.refused("POST", path, {"action": "restart"})[0] == 409
    with api.plane.malformed():
        assert api.refused("POST", path, {"action": "explode"})[0] == 422
    assert api.refused("POST", "/pods/nobody/action", {"action": "stop"}) == (404, "pod not found")


def test_a_stopped_pod_may_find_its_host_full(api: Api) -> None:
    path = f"/pods/{api.create()['id']}/action"
    api.ask("POST", path, {"action": "stop"})
    api.plane.pods.refuse_starts()
    full = (400, "There are not enough free GPUs on the host machine to start this pod.")
    assert api.refused("POST", path, {"action": "start"}) == full
    assert api.ask("POST", path, {"action": "start"}).status_code == 200


@pytest.mark.parametrize(
    ("kind", "image", "ends", "text"),
    [
        (None, "you/missing:1", "ERROR", "manifest unknown"),
        (None, "you/private:1", "ERROR", "access denied"),
        ("pull_limit", "you/w:1", "ERROR", "toomanyrequests"),
        ("disk_full", "you/w:1", "ERROR", "no space left on device"),
        ("cuda", "you/w:1", "STARTING", "unsatisfied condition: cuda>="),
        ("stuck", "you/w:1", "STARTING", "create container"),
        ("unplaced", "you/w:1", "PROVISIONING", ""),
        ("exits", "you/w:1", "EXITED", "libcudnn_ops"),
    ],
)
def test_bad_starts(api: Api, kind: Any, image: str, ends: str, text: str) -> None:
    if kind is not None:
        api.plane.pods.script_boot(kind)
    pod = api.create(image=image)
    assert statuses(api, pod["id"], 30)[-1] == ends
    assert text in api.ask("GET", f"/pods/{pod['id']}/logs").text


def test_a_private_image_starts_with_a_credential(api: Api) -> None:
    registry = api.ask("POST", "/registries", {"name": "hub", "username": "you", "password": "pw-1234"}).json()
    assert set(registry) == {"id", "name"}
    pod = api.create(image="you/private:1", registry=registry["id"])
    assert statuses(api, pod["id"], 14)[-1] == "RUNNING"
    assert api.refused("DELETE", f"/registries/{registry['id']}")[0] == 400
    api.ask("DELETE", f"/pods/{pod['id']}")
    assert api.ask("DELETE", f"/registries/{registry['id']}").status_code == 204
    assert api.get("/registries") == {"registries": []}
    api.plane.assert_no_secret("pw-1234", "s3cret")
    with pytest.raises(AssertionError, match="secret 1"):
        api.plane.assert_no_secret("pw-1234", in_places=True)


def test_a_crash_loop_never_gets_old(api: Api) -> None:
    api.plane.pods.script_boot("crash_loop", line="ModuleNotFoundError: No module named 'x'")
    pod = api.create()
    api.plane.clock.sleep(13)
    uptimes = []
    for _ in range(30):
        shown = api.get(f"/pods/{pod['id']}")
        assert shown["status"] == "RUNNING"
        uptimes.append(shown["runtime"]["uptime"])
        api.plane.clock.sleep(2)
    assert sum(after < before for before, after in itertools.pairwise(uptimes)) >= 2
    assert api.ask("GET", f"/pods/{pod['id']}/logs?source=container").text.count("No module named") >= 2


def test_listeners_hear_of_every_change_in_order(api: Api) -> None:
    heard: list[tuple[str | None, str]] = []
    listener = api.plane.pods.on_change
    listener.append(lambda _pod, before, after: heard.append((before, after)))
    try:
        pod = api.create()
        api.plane.clock.sleep(60)
        api.ask("DELETE", f"/pods/{pod['id']}")
    finally:
        listener.clear()
    order = ["PROVISIONING", "STARTING", "RUNNING", "TERMINATED"]
    assert heard == list(zip([None, *order], order, strict=False))


def test_limits_on_the_server_end_a_pod_by_themselves(api: Api) -> None:
    now_s = api.plane.clock.unix_s()
    pod = api.plane.pods.create(body(), bid=0.2, stop_at_s=now_s + 60, terminate_at_s=now_s + 120)
    assert statuses(api, pod.id, 100)[-1] == "EXITED"
    api.plane.clock.sleep(30)
    assert api.refused("GET", f"/pods/{pod.id}")[0] == 404


# Requests that are refused


def test_bodies_that_break_the_contract_name_the_field(api: Api) -> None:
    assert api.errors(body(y=1)) == ["$: additional properties 'y' not allowed"]
    assert api.errors(body(name=None)) == ["$: missing property 'name'"]
    assert api.errors(body(image=None))[0] == "$: missing property 'image'"
    assert "additional properties" in api.errors(body(image=None))[-1]
    assert api.errors(body(disk=0)) == ["$.disk: minimum: got 0, want 1"]
    assert api.errors(body(env={"A": 1})) == ["$.env.A: got integer, want string"]
    assert api.errors(body(gpu={"id": GPU, "minCudaVersion": "12"}))[0].startswith("$.gpu.minCudaVersion")
    assert api.errors(body(gpu={"id": GPU, "typo": "12"})) == ["$.gpu: additional properties 'typo' not allowed"]
    assert api.errors(body(cloud="ALL"))[0].startswith("$.cloud: value must be one of")
    assert api.errors(body(mounts={"persistent": {"size": 5, "path": "/w"}}))[0].startswith("$.mounts.persistent.size")
    assert api.errors([]) == ["$: got array, want object"]


def test_rules_between_fields(api: Api) -> None:
    both = {"id": GPU, "minCudaVersion": "12.4", "allowedCudaVersions": ["12.8"]}
    two = {"persistent": {"size": 10, "path": "/w"}, "network": [{"volumeId": "v", "path": "/w"}]}
    cpu = {"id": "cpu3c", "vcpuCount": 2}
    for bad in (
        body(gpu=both),
        body(gpu=None),
        body(cpu=cpu),
        body(gpu=None, cpu=cpu),
        body(mounts=two),
        body(registry="nobody"),
        body(ports=["9090"]),
    ):
        assert api.refused("POST", "/pods", bad)[0] == 400
    assert api.refused("POST", "/pods", body(templateId="nobody")) == (404, "template not found")
    with api.plane.malformed():
        answer = api.session.post(f"{api.plane.url}/v2/pods", data="{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_keys(api: Api) -> None:
    pod, other = api.create(), api.create()
    path = f"{api.plane.url}/v2/pods/{pod['id']}"

    def status(method: str, key: str | None, url: str = path) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return requests.request(method, url, headers=headers, timeout=5).status_code

    assert status("GET", None) == status("GET", "wrong") == status("DELETE", "") == 401
    assert (status("GET", api.plane.read_only_key), status("DELETE", api.plane.read_only_key)) == (200, 403)
    own = api.plane.pod_key(pod["id"])
    assert (status("GET", own, path.replace(pod["id"], other["id"])), status("DELETE", own)) == (403, 204)
    api.plane.faults.expire_key(after=1)
    assert [api.ask("GET", "/pods").status_code for _ in range(2)] == [200, 401]


def test_unknown_paths_and_methods(api: Api) -> None:
    with api.plane.malformed():
        assert api.refused("GET", "/pod") == (404, "no such route")
        answer = api.ask("PUT", "/pods")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


# Stock


def test_no_stock_is_a_400_in_the_real_words(api: Api) -> None:
    api.plane.pods.set_stock(GPU, "NONE", cloud="COMMUNITY")
    assert api.refused("POST", "/pods", body()) == (400, NO_INSTANCES)
    assert api.create(cloud="SECURE")["cloud"] == "SECURE"
    for gpu in (
        {"id": "NVIDIA GeForce RTX 3070", "count": 9},
        {"id": "unknown"},
        {"id": GPU, "minCudaVersion": "14.0"},
    ):
        assert api.refused("POST", "/pods", body(gpu=gpu)) == (400, NO_INSTANCES)
    assert api.refused("POST", "/pods", body(dataCenterIds=["EU-RO-9"])) == (400, NO_INSTANCES)


def test_the_catalog_may_be_out_of_date(api: Api) -> None:
    asked = {"include": "AVAILABILITY", "product": "POD", "cloud": "COMMUNITY"}
    api.plane.pods.set_stock(GPU, "NONE", cloud="COMMUNITY", shown="HIGH")
    assert api.get(f"/catalog/gpus/{GPU}", **asked)["availability"] == "HIGH"
    assert api.refused("POST", "/pods", body()) == (400, NO_INSTANCES)
    api.plane.pods.set_stock(GPU, "LOW", in_s=30)
    api.plane.clock.sleep(29)
    assert api.refused("POST", "/pods", body()) == (400, NO_INSTANCES)
    api.plane.clock.sleep(1)
    assert api.get(f"/catalog/gpus/{GPU}", **asked)["availability"] == "LOW"
    api.create()


def test_blackwell_needs_a_new_driver_and_data_centers_are_enforced(api: Api) -> None:
    pod = api.create(gpu={"id": "NVIDIA GeForce RTX 5090", "minCudaVersion": "12.4"})
    assert pod["cudaVersion"] in ("12.8", "12.9", "13.0")
    places = api.get(f"/catalog/gpus/{GPU}", include="AVAILABILITY", product="POD")["dataCenters"]
    for place in places:
        pod = api.create(gpu={"id": GPU}, cloud="SECURE", dataCenterIds=[place["id"]])
        assert pod["dataCenterId"] == place["id"]


def test_the_catalog_asks_for_a_product_with_stock(api: Api) -> None:
    plain = api.get("/catalog/gpus")["gpus"]
    assert len(plain) >= 20 and all("availability" not in gpu for gpu in plain)
    assert api.refused("GET", "/catalog/gpus", params={"include": "AVAILABILITY"})[0] == 400
    assert api.refused("GET", "/catalog/gpus", params={"cloud": "SECURE"})[0] == 400
    narrow = {"include": "AVAILABILITY", "product": "POD", "minCudaVersion": "12.8", "count": "2"}
    for gpu in api.get("/catalog/gpus", **narrow)["gpus"]:
        assert all(parse(each["version"]) >= (12, 8) for each in gpu.get("cudaVersions", []))
    assert api.refused("GET", "/catalog/gpus/nothing")[0] == 404


def parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_a_network_volume_draws_its_pod_to_it(api: Api) -> None:
    center = api.get(f"/catalog/gpus/{GPU}", include="AVAILABILITY", product="POD")["dataCenters"][0]["id"]
    api.plane.pods.account.add_volume("vol1", "models", 100, center)
    assert api.get("/network-volumes")["networkVolumes"][0]["dataCenter"] == center
    mounts = {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    assert api.create(cloud="SECURE", gpu={"id": GPU}, mounts=mounts)["dataCenterId"] == center
    assert api.refused("POST", "/pods", body(mounts=mounts)) == (400, NO_INSTANCES)
    mounts = {"network": [{"volumeId": "nobody", "path": "/workspace"}]}
    assert api.refused("POST", "/pods", body(mounts=mounts))[0] == 404


# Money


def test_bills_and_balance_agree_to_the_cent(api: Api) -> None:
    first, second = api.create(), api.create(cloud="SECURE", mounts=None)
    api.plane.clock.sleep(5 * 3600 + 17)
    api.ask("POST", f"/pods/{first['id']}/action", {"action": "stop"})
    api.plane.clock.sleep(40 * 3600)
    api.ask("DELETE", f"/pods/{second['id']}")
    api.plane.clock.sleep(100)
    spent = 100.0 - api.plane.pods.balance
    for bucket in ("hour", "day", "week", "month", "year"):
        bill = api.get("/billing/pods", bucketSize=bucket)
        assert sum(record["totalAmount"] for record in bill["records"]) == pytest.approx(spent, abs=1e-6)
        assert bill["metadata"]["totals"]["totalAmount"] == pytest.approx(spent, abs=1e-6)
    everything = api.get("/billing", lastN=7)
    assert everything["metadata"]["totals"]["totalAmount"] == pytest.approx(spent, abs=1e-6)
    one = api.get("/billing/pods", podId=first["id"])
    assert {record["podId"] for record in one["records"]} == {first["id"]}
    gpu_usd, disk_usd = (5 * 3600 + 17) / 3600 * 0.23, 20 * (0.10 * (5 + 17 / 3600) + 0.20 * (40 + 100 / 3600)) / 730
    assert one["metadata"]["totals"]["gpuAmount"] == pytest.approx(gpu_usd)
    assert one["metadata"]["totals"]["diskAmount"] == pytest.approx(disk_usd)
    api.plane.assert_spend_below(spent + 0.01)
    with pytest.raises(AssertionError, match="spent"):
        api.plane.assert_spend_below(spent / 2)


def test_without_money_nothing_starts_and_what_runs_stops_when_it_is_gone(api: Api) -> None:
    api.plane.pods.balance = 0.24
    pod = api.create(mounts=None)
    assert api.refused("POST", "/pods", body(cloud="SECURE"))[0] == 402
    api.plane.clock.sleep(2 * 3600)
    assert api.get(f"/pods/{pod['id']}")["status"] == "EXITED"
    assert api.plane.pods.balance == pytest.approx(0.0, abs=1e-9)
    assert api.refused("POST", f"/pods/{pod['id']}/action", {"action": "start"})[0] == 402
    api.plane.pods.balance = 1000.0
    many = {"id": "NVIDIA B200", "count": 8}
    api.create(cloud="SECURE", gpu=many)
    assert api.refused("POST", "/pods", body(cloud="SECURE", gpu=many))[0] == 402


def test_billing_windows(api: Api) -> None:
    assert api.refused("GET", "/billing/pods", params={"lastN": 2, "startTime": "2026-01-01T00:00:00Z"})[0] == 400
    with api.plane.malformed():
        assert api.refused("GET", "/billing", params={"bucketSize": "eon"})[0] == 422
        assert api.refused("GET", "/billing/pods", params={"startTime": "yesterday"})[0] == 422
    query = api.get("/billing/pods", lastN=2, bucketSize="month")["metadata"]["query"]
    assert (query["startTime"], query["endTime"]) == ("2025-12-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z")


# Logs


def events(text: str) -> list[tuple[str, str]]:
    ids = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
    return list(zip(ids, [line for line in text.splitlines() if line.startswith("data: ")], strict=True))


def test_logs_by_tail_since_source_and_last_event(api: Api) -> None:
    pod_id = api.create()["id"]
    api.plane.clock.sleep(20)
    for number in range(10):
        api.plane.pods.log(pod_id, "container", f"line {number}")
        api.plane.clock.sleep(1)
    path = f"/pods/{pod_id}/logs"
    whole = events(api.ask("GET", path).text)
    assert len(whole) == 14 and len({each[0] for each in whole}) == 14
    assert events(api.ask("GET", f"{path}?tail=3").text) == whole[-3:]
    assert events(api.ask("GET", f"{path}?tail=0").text) == []
    assert events(api.ask("GET", f"{path}?source=system").text) == whole[:4]
    since = whole[10][0].partition("/")[0]
    assert events(api.ask("GET", f"{path}?since={since}&tail=1").text) == whole[10:]
    resumed = api.ask("GET", f"{path}?tail=1", headers={"Last-Event-ID": whole[5][0]}).text
    assert events(resumed) == whole[6:]
    assert parse_time(since) > 0
    with api.plane.malformed():
        assert api.refused("GET", f"{path}?tail=5001")[0] == 422
        assert api.refused("GET", f"{path}?source=all")[0] == 422
    assert api.refused("GET", "/pods/nobody/logs")[0] == 404


def test_logs_that_break_can_be_resumed_without_loss_or_repetition(api: Api) -> None:
    pod_id = api.create()["id"]
    api.plane.clock.sleep(20)
    whole = events(api.ask("GET", f"/pods/{pod_id}/logs").text)
    api.plane.faults.cut_logs(after_lines=2)
    got: list[tuple[str, str]] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        text = ""
        for piece in api.ask("GET", f"/pods/{pod_id}/logs", stream=True).iter_content(None, decode_unicode=True):
            text += piece
            got = events(text)
    assert got == whole[:2]
    headers = {"Last-Event-ID": got[-1][0]}
    assert got + events(api.ask("GET", f"/pods/{pod_id}/logs", headers=headers).text) == whole


def test_lines_that_come_later_are_sent_while_the_connection_lasts(api: Api) -> None:
    pod_id = api.create()["id"]
    api.plane.log_hold_s = 1.0
    try:
        answer = api.ask("GET", f"/pods/{pod_id}/logs?tail=0&source=container", stream=True)
        api.plane.pods.log(pod_id, "container", "late")
        assert next(answer.iter_lines(decode_unicode=True)).startswith("id: ")
        answer.close()
    finally:
        api.plane.log_hold_s = 0.05


# Limits and faults


def test_rate_limits_follow_the_clock(api: Api) -> None:
    api.plane.limits.set(minute=3, hour=100)
    answers = [api.ask("GET", "/pods") for _ in range(4)]
    assert [each.status_code for each in answers] == [200, 200, 200, 429]
    assert answers[0].headers["RateLimit"] == '"minute";r=2;t=60, "hour";r=99;t=3600'
    assert answers[0].headers["RateLimit-Policy"] == '"minute";q=3;w=60, "hour";q=100;w=3600'
    assert len({each.headers["x-request-id"] for each in answers}) == 4
    api.plane.clock.sleep(int(answers[3].headers["Retry-After"]))
    assert api.ask("GET", "/pods").status_code == 200


def test_faults_with_and_without_effect(api: Api) -> None:
    faults, alive = api.plane.faults, api.plane.pods.alive
    faults.fail("POST /v2/pods", status=503, times=2, headers={"Retry-After": "7"})
    for _ in range(2):
        answer = api.ask("POST", "/pods", body())
        assert (answer.status_code, answer.headers["Retry-After"], alive()) == (503, "7", [])
    faults.fail("createPod", 502, body="<html>bad gateway</html>", executed=True)
    assert api.ask("POST", "/pods", body()).text == "<html>bad gateway</html>"
    faults.garbage("POST /v2/pods")
    assert api.ask("POST", "/pods", body()).headers["Content-Type"] == "text/html"
    assert len(alive()) == 1
    for put in (faults.drop_before, faults.reset):
        put("POST /v2/pods")
        with pytest.raises(requests.exceptions.ConnectionError):
            api.ask("POST", "/pods", body())
    assert len(alive()) == 1
    for put in (faults.drop_after_commit, faults.half):
        put("POST /v2/pods")
        with pytest.raises((requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)):
            api.ask("POST", "/pods", body())
    assert len(alive()) == 3
    lost = [entry for entry in api.plane.requests("POST /v2/pods") if entry.status is None]
    assert [entry.executed for entry in lost] == [False, False, True, True]


def test_a_slow_route_holds_nobody_else_up(api: Api) -> None:
    api.plane.faults.slow("GET /v2/registries", 0.5)
    slow = threading.Thread(target=lambda: Api(api.plane).get("/registries"))
    began_s = time.monotonic()
    slow.start()
    while not api.plane.requests("GET /v2/registries"):
        assert time.monotonic() < began_s + 5
        time.sleep(0.005)
    api.get("/pods")
    assert api.plane.requests("GET /v2/registries")[0].status is None
    slow.join(5)
    assert time.monotonic() - began_s >= 0.5


def test_new_pods_may_be_missing_in_lists(api: Api) -> None:
    api.plane.faults.hide_new_pods(10)
    pod = api.create()
    assert api.get("/pods") == {"pods": []}
    assert api.get(f"/pods/{pod['id']}")["name"] == "whisper"
    with pytest.raises(AssertionError, match="whisper"):
        api.plane.assert_no_leaks()
    api.plane.clock.sleep(10)
    assert len(api.get("/pods")["pods"]) == 1


def test_the_same_seed_gives_the_same_run(api: Api) -> None:
    def run() -> list[Any]:
        api.plane.reset(seed=7)
        api.plane.faults.seed(7, 0.5)
        seen: list[Any] = []
        for _ in range(40):
            try:
                answer = api.ask("POST", "/pods", body())
                seen.append((answer.status_code, answer.text))
            except requests.exceptions.RequestException as error:
                seen.append(type(error).__name__)
        seen.append(sorted(pod.id for pod in api.plane.pods.alive()))
        return seen

    first = run()
    assert first == run()
    assert len({str(each)[:30] for each in first}) > 4
    api.plane.reset(seed=8)
    assert api.create()["id"] not in first[-1]


def test_the_journal_keeps_what_was_asked_but_not_the_key(api: Api) -> None:
    api.create()
    api.get("/pods")
    [entry] = api.plane.mutations()
    assert (entry["method"], entry.route, entry.status, entry.answer["name"]) == (
        "POST",
        "POST /v2/pods",
        201,
        "whisper",
    )
    assert entry.body["gpu"]["id"] == GPU
    api.plane.assert_no_secret("s3cret")
    api.ask("GET", f"/pods/{api.plane.api_key}")
    with pytest.raises(AssertionError, match="secret 0"):
        api.plane.assert_no_secret()


# The document


@needs_document
def test_what_breaks_the_document_is_found_unless_it_is_meant(api: Api) -> None:
    api.ask("GET", "/pods", params={"limit": 3})
    api.ask("GET", "/templates/x/y")
    api.ask("POST", "/pods", body(y=1, disk=None))
    found = "\n".join(api.plane.contract_violations())
    for text in ("unknown query parameter 'limit'", "not in the document", "'y' was unexpected"):
        assert text in found
    with pytest.raises(AssertionError, match="limit"):
        api.plane.assert_contract()
    api.plane.journal.clear()


@needs_document
def test_an_answer_that_breaks_the_document_is_found(api: Api) -> None:
    api.plane.pods.account.endpoints.append({"id": "e"})
    api.get("/serverless")
    assert any("answer: $.endpoints" in text for text in api.plane.contract_violations())
    api.plane.journal.clear()


def test_the_rest_of_the_account_has_the_shapes_of_the_document(api: Api) -> None:
    endpoint = endpoint_document("ep1", "batch", created_s=api.plane.clock.unix_s(), workers_min=1)
    api.plane.pods.account.endpoints.append(endpoint)
    assert api.get("/serverless")["endpoints"][0]["workers"]["min"] == 1
    assert api.get("/templates") == {"templates": []}
    assert api.get("/account/ssh-keys") == {"keys": []}
    centers = api.get("/catalog/datacenters", include="GPU_AVAILABILITY", regions="EUROPE")["dataCenters"]
    assert centers and all(center["region"] == "EUROPE" for center in centers)
    assert api.get("/catalog/datacenters/EU-RO-1")["id"] == "EU-RO-1"
    api.create(gpu=None, mounts=None, cpu={"id": "cpu3c", "vcpuCount": 4}, cloud="SECURE")
    api.create(globalNetworking=True)
    api.plane.clock.sleep(15)
    cpu, gpu = api.get("/pods")["pods"]
    assert cpu["cpu"]["memory"] == 8 and "gpu" not in cpu
    assert gpu["ssh"]["direct"]["port"] == gpu["runtime"]["ports"][1]["public"]


def test_a_template_fills_what_the_body_leaves_open(api: Api) -> None:
    api.plane.pods.account.templates.append({"id": "t1", "image": "you/t:1", "disk": 33, "env": {"A": "1", "B": "2"}})
    pod = api.create(image=None, disk=None, templateId="t1", env={"B": "3"})
    assert (pod["image"], pod["disk"], pod["env"], pod["template"]) == ("you/t:1", 33, {"A": "1", "B": "3"}, None)


def test_starting_and_stopping_is_quick_and_leaves_nothing() -> None:
    before = threading.active_count()
    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        with ControlPlane() as plane:
            port = plane.port
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.05
    assert threading.active_count() == before
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
