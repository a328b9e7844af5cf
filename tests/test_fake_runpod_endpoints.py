"""Endpoints of the fake RunPod: what it answers fits the API's document, and time moves its workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.endpoint import FakeEndpoint, FakeWorker

L4_PER_H = 0.68


class Api:
    """A client without any manners."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {plane.api_key}"

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, f"{self.plane.url}/v2{path}", json=body, timeout=5, **options)

    def done(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        answer = self.ask(method, path, body, params=query)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def refused(self, method: str, path: str, body: Any = None, *, malformed: bool = False) -> tuple[int, str]:
        if malformed:
            with self.plane.malformed():
                answer = self.ask(method, path, body)
        else:
            answer = self.ask(method, path, body)
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        return answer.status_code, " ".join([problem["detail"], *problem.get("errors", [])])

    def workers(self, endpoint_id: str) -> list[str]:
        found = self.done("GET", f"/serverless/{endpoint_id}/workers")
        states = [each["status"] for each in found["workers"]]
        assert found["summary"]["total"] == len(states)
        return states

    def run(self, endpoint_id: str, job_input: Any) -> str:
        url = self.plane.environ()["RUNPOD_JOB_BASE"]
        answer = self.session.post(f"{url}/{endpoint_id}/run", json={"input": job_input}, timeout=5)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def job(self, endpoint_id: str, job_id: str) -> Any:
        url = self.plane.environ()["RUNPOD_JOB_BASE"]
        return self.session.get(f"{url}/{endpoint_id}/status/{job_id}", timeout=5).json()

    def create(self, **changes: Any) -> Any:
        return self.done("POST", "/serverless", body(**changes))


def body(**changes: Any) -> dict[str, Any]:
    full = {
        "name": "whisper",
        "type": "QUEUE",
        "image": "you/whisper:abc",
        "env": {"A": "1"},
        "gpu": {"pools": ["AMPERE_24"]},
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        **changes,
    }
    return {name: value for name, value in full.items() if value is not None}


def template(**changes: Any) -> dict[str, Any]:
    return {"name": "t", "image": "you/whisper:abc", "serverless": True, "env": {"A": "1", "B": "2"}, **changes}


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


# Creating


def test_an_endpoint_of_a_template(api: Api) -> None:
    made = api.done("POST", "/templates", template(disk=30, startSsh=False))
    assert (made["startSsh"], made["startJupyter"], made["category"]) == (False, True, "NVIDIA")
    endpoint = api.create(templateId=made["id"], image=None, env={"B": "3"}, workers=None)
    assert (endpoint["image"], endpoint["disk"], endpoint["env"]) == ("you/whisper:abc", 30, {"A": "1", "B": "3"})
    assert (endpoint["flashboot"], endpoint["timeout"]) == ("OFF", 300_000)
    assert endpoint["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert endpoint["gpu"]["minCudaVersion"] is None
    assert endpoint["requestUrls"]["run"] == f"{api.plane.url}/jobs/v2/{endpoint['id']}/run"
    assert [each["id"] for each in api.done("GET", "/serverless")["endpoints"]] == [endpoint["id"]]
    # The template was used once: later changes and its end do not touch the endpoint.
    api.done("PATCH", f"/templates/{made['id']}", {"image": "you/other:1"})
    assert api.done("GET", f"/templates/{made['id']}")["image"] == "you/other:1"
    assert api.done("GET", f"/serverless/{endpoint['id']}")["image"] == "you/whisper:abc"
    with pytest.raises(AssertionError, match=r"whisper.*endpoint.*t .*template"):
        api.plane.assert_no_leaks()
    api.plane.assert_no_leaks(allow=["whisper", "t"])
    api.done("DELETE", f"/templates/{made['id']}")
    api.done("DELETE", f"/serverless/{endpoint['id']}")
    api.plane.assert_no_leaks()
    assert api.refused("DELETE", f"/serverless/{endpoint['id']}")[0] == 404
    assert api.refused("DELETE", f"/templates/{made['id']}")[0] == 404


def test_a_load_balancer_has_addresses_of_its_own(api: Api) -> None:
    endpoint = api.create(
        type="LOAD_BALANCER",
        scaling={"type": "REQUEST_COUNT", "requestCount": 2},
        ports=["9090/http"],
        workers={"min": 1, "max": 2, "idleTimeout": 5},
    )
    assert endpoint["requestUrls"]["base"] == f"{api.plane.url}/lb/{endpoint['id']}"
    assert endpoint["id"] not in api.plane.endpoints.queues
    api.plane.clock.sleep(25)
    assert api.workers(endpoint["id"]) == ["IDLE"]
    store = api.plane.endpoints
    worker = store.ready_workers(endpoint["id"])[0]
    for _ in range(3):
        store.begin_request(endpoint["id"], worker.id)
    assert sorted(api.workers(endpoint["id"])) == ["INITIALIZING", "RUNNING"]
    for _ in range(3):
        store.end_request(endpoint["id"], worker.id)
    api.plane.clock.sleep(60)
    assert api.workers(endpoint["id"]) == ["IDLE"]


def test_cpu_endpoints(api: Api) -> None:
    endpoint = api.create(gpu=None, cpu=[{"id": "cpu5c", "vcpuCount": 4}], workers={"min": 1, "max": 1})
    assert (endpoint["cpu"][0]["memory"], endpoint["gpu"]) == (8, None)
    api.plane.clock.sleep(25)
    assert api.done("GET", f"/serverless/{endpoint['id']}/workers")["workers"][0]["gpuCount"] == 0
    assert api.refused("PATCH", f"/serverless/{endpoint['id']}", {"gpu": {"pools": ["ADA_24"]}})[0] == 400


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"cpu": [{"id": "cpu5c", "vcpuCount": 4}]}, 400, "exactly one of gpu or cpu"),
        ({"gpu": None}, 400, "exactly one of gpu or cpu"),
        ({"gpu": {"pools": ["AMPERE_25"]}}, 400, "unknown GPU pool 'AMPERE_25'"),
        ({"gpu": {"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L40S"]}}, 400, "not in one of the pools"),
        ({"gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA GeForce RTX 4090"]}}, 400, "leaves no GPU type"),
        (
            {"gpu": {"pools": ["ADA_24"], "minCudaVersion": "12.4", "allowedCudaVersions": ["12.8"]}},
            400,
            "mutually exclusive",
        ),
        ({"workers": {"min": 4}}, 400, "must not be above workers.max (3)"),
        ({"workers": {"min": 2, "max": 1}}, 400, "must not be above"),
        ({"scaling": {"type": "REQUEST_COUNT", "requestCount": 1}}, 422, "idleTimeout: not applicable"),
        ({"templateId": "t0", "image": None}, 404, "template not found"),
        ({"dataCenterIds": ["XX-1"]}, 400, "unknown data center"),
        ({"networkVolumes": ["v0"]}, 404, "network volume not found"),
        ({"ports": ["80"]}, 400, "port '80'"),
        ({"registry": "r0"}, 400, "credential not found"),
    ],
)
def test_rules_between_fields(api: Api, changes: dict[str, Any], status: int, text: str) -> None:
    found = api.refused("POST", "/serverless", body(**changes))
    assert (found[0], text in found[1]) == (status, True), found


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image": None}, "missing property 'image'"),
        ({"type": "LOAD_BALANCER"}, "$.scaling.type"),
        ({"type": "BATCH"}, "$.type: value must be one of"),
        ({"scaling": {"type": "QUEUE_DELAY", "queueDelay": 0.4}}, "minimum: got 0.4, want 0.5"),
        ({"scaling": {"type": "QUEUE_DELAY", "requestCount": 1}}, "missing property 'queueDelay'"),
        ({"workers": {"idleTimeout": 3601}}, "maximum: got 3601, want 3600"),
        ({"workers": {"idleTimeout": 0}}, "minimum: got 0, want 1"),
        ({"gpu": {"pools": []}}, "minItems"),
        ({"gpu": {"pools": ["ADA_24"], "id": "NVIDIA L4"}}, "additional properties 'id'"),
        ({"flashboot": True}, "$.flashboot"),
        ({"timeout": "1"}, "got string, want integer"),
    ],
)
def test_shapes(api: Api, changes: dict[str, Any], text: str) -> None:
    status, detail = api.refused("POST", "/serverless", body(**changes), malformed=True)
    assert status == 422 and text in detail, detail


def test_limits_are_allowed(api: Api) -> None:
    for changes in (
        {"workers": {"min": 0, "max": 0, "idleTimeout": 3600}},
        {"workers": {"min": 1, "max": 1, "idleTimeout": 1}},
        {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 0.5}},
        {"gpu": {"pools": ["ADA_24"], "minCudaVersion": "12.4", "allowedCudaVersions": []}},
    ):
        api.create(**changes)


def test_templates_have_rules_too(api: Api) -> None:
    made = api.done("POST", "/templates", template())
    assert api.refused("POST", "/templates", template())[0] == 400
    assert api.refused("POST", "/templates", {"name": "x"}, malformed=True)[0] == 422
    of_pods = api.done("POST", "/templates", template(name="pods", serverless=False))
    assert api.refused("POST", "/serverless", body(templateId=of_pods["id"], image=None))[0] == 422
    assert api.refused("PATCH", f"/templates/{made['id']}", {"name": "pods"})[0] == 400
    assert api.done("PATCH", f"/templates/{made['id']}", {"name": "t", "env": {}, "mounts": {}})["env"] == {}
    api.plane.endpoints.templates_are_bound = True
    endpoint = api.create(templateId=made["id"], image=None)
    assert api.refused("DELETE", f"/templates/{made['id']}")[0] == 400
    api.done("DELETE", f"/serverless/{endpoint['id']}")
    assert [each["name"] for each in api.done("GET", "/templates")["templates"]] == ["pods"]


def test_network_volumes(api: Api) -> None:
    made = api.done("POST", "/network-volumes", {"name": "models", "dataCenter": "EU-RO-1", "size": 10})
    assert made["type"] == "STANDARD"
    assert api.done("GET", f"/network-volumes/{made['id']}") == made
    assert api.create(networkVolumes=[made["id"]])["networkVolumes"] == [made["id"]]
    other = {"name": "m", "dataCenter": "US-GA-1", "size": 10}
    assert api.refused("POST", "/network-volumes", other)[0] == 400
    assert api.refused("POST", "/network-volumes", {**other, "size": 4097}, malformed=True)[0] == 422
    api.done("DELETE", f"/network-volumes/{made['id']}")
    assert api.refused("GET", f"/network-volumes/{made['id']}")[0] == 404


# Workers


def test_a_worker_comes_for_a_job_and_goes_when_it_is_idle(api: Api) -> None:
    endpoint_id = api.create()["id"]
    assert api.workers(endpoint_id) == []
    job_id = api.run(endpoint_id, {"n": 1})
    assert api.workers(endpoint_id) == ["INITIALIZING"]
    api.plane.clock.sleep(21)
    assert api.workers(endpoint_id) == ["RUNNING"]
    assert api.job(endpoint_id, job_id)["status"] == "IN_PROGRESS"
    api.plane.clock.sleep(60)  # nobody looks meanwhile: everything happened in its time
    job = api.job(endpoint_id, job_id)
    assert (job["status"], job["output"]) == ("COMPLETED", {"echo": {"n": 1}})
    assert (job["delayTime"], job["executionTime"]) == (20_000, 2_000)
    assert api.workers(endpoint_id) == []
    start, end = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"
    bill = api.done("GET", "/billing/serverless", startTime=start, endTime=end, bucketSize="hour")
    assert bill["metadata"]["uniqueServerlessCount"] == 1
    assert bill["records"][0]["totalAmount"] == pytest.approx(L4_PER_H * 12 / 3600)  # 2 s of work, 10 s idle
    everything = api.done("GET", "/billing", startTime=start, endTime=end)["metadata"]["totals"]
    assert everything["serverlessGpuAmount"] == everything["totalAmount"] == bill["records"][0]["totalAmount"]
    assert api.done("GET", "/billing/pods", startTime=start, endTime=end)["records"] == []
    assert api.plane.pods.balance == pytest.approx(100 - L4_PER_H * 12 / 3600)


def test_answers_are_the_tests_own(api: Api) -> None:
    store = api.plane.endpoints
    endpoint_id = api.create(workers={"min": 1, "max": 1})["id"]
    store.answer = lambda job_input: {"error": "no speech"} if "bad" in job_input else {"stream": [1, 2], "output": 3}
    good, bad = api.run(endpoint_id, {}), api.run(endpoint_id, {"bad": 1})
    api.plane.clock.sleep(30)
    assert api.job(endpoint_id, bad)["error"] == "no speech"
    url = f"{api.plane.environ()['RUNPOD_JOB_BASE']}/{endpoint_id}/stream/{good}"
    assert [each["output"] for each in api.session.get(url, timeout=5).json()["stream"]] == [1, 2]


def test_a_long_queue_brings_more_workers_up_to_the_limit(api: Api) -> None:
    endpoint_id = api.create()["id"]
    api.plane.endpoints.job_s = 100.0
    jobs = [api.run(endpoint_id, n) for n in range(5)]
    assert len(api.workers(endpoint_id)) == 1
    api.plane.clock.sleep(4)
    assert api.workers(endpoint_id) == ["INITIALIZING"] * 3
    api.plane.clock.sleep(20)
    assert api.workers(endpoint_id) == ["RUNNING"] * 3
    url = f"{api.plane.environ()['RUNPOD_JOB_BASE']}/{endpoint_id}/health"
    health = api.session.get(url, timeout=5).json()
    assert (health["jobs"]["inQueue"], health["workers"]["running"]) == (2, 3)
    api.plane.clock.sleep(300)
    assert {api.job(endpoint_id, job)["status"] for job in jobs} == {"COMPLETED"}
    assert api.workers(endpoint_id) == []


def test_limits_of_workers_can_be_changed(api: Api) -> None:
    endpoint_id = api.create()["id"]
    path = f"/serverless/{endpoint_id}"
    api.done("PATCH", path, {"workers": {"min": 2}})
    api.plane.clock.sleep(200)
    assert api.workers(endpoint_id) == ["IDLE", "IDLE"]
    assert api.done("GET", f"{path}/releases")["endpointVersion"] == 1
    assert api.refused("PATCH", path, {"workers": {"max": 1}})[0] == 400
    api.done("PATCH", path, {"workers": {"min": 1, "max": 1}})
    assert api.workers(endpoint_id) == ["IDLE"]
    api.done("PATCH", path, {"workers": {"min": 0, "max": 0}})
    assert api.workers(endpoint_id) == []
    api.run(endpoint_id, 1)
    api.plane.clock.sleep(100)
    assert api.workers(endpoint_id) == []


def test_a_running_worker_ends_its_job_before_it_is_scaled_down(api: Api) -> None:
    endpoint_id = api.create()["id"]
    api.plane.endpoints.job_s = 50.0
    job_id = api.run(endpoint_id, 1)
    api.plane.clock.sleep(25)
    api.done("PATCH", f"/serverless/{endpoint_id}", {"workers": {"min": 0, "max": 0}})
    assert api.workers(endpoint_id) == ["RUNNING"]
    api.plane.clock.sleep(50)
    assert (api.workers(endpoint_id), api.job(endpoint_id, job_id)["status"]) == ([], "COMPLETED")


def test_throttled_workers_wait_for_a_machine(api: Api) -> None:
    api.plane.endpoints.throttle(1)
    endpoint_id = api.create(workers={"min": 2, "max": 2})["id"]
    api.plane.clock.sleep(30)
    assert api.workers(endpoint_id) == ["THROTTLED", "IDLE"]
    api.plane.endpoints.throttle(0)
    assert api.workers(endpoint_id) == ["INITIALIZING", "IDLE"]
    for gpu in ("NVIDIA L4", "NVIDIA RTX A5000", "NVIDIA GeForce RTX 3090"):
        api.plane.pods.set_stock(gpu, "NONE")
    other = api.create(workers={"min": 1, "max": 1})["id"]
    assert api.workers(other) == ["THROTTLED"]
    spent = api.plane.pods.spend_per_h
    api.plane.clock.sleep(30)
    assert api.plane.pods.spend_per_h == pytest.approx(spent + L4_PER_H)  # that of the endpoint before
    api.plane.pods.set_stock("NVIDIA RTX A5000", "LOW")
    api.plane.clock.sleep(20)
    assert api.workers(other) == ["INITIALIZING"]
    stock = api.done("GET", "/catalog/gpus", include="AVAILABILITY", product="SERVERLESS")["gpus"]
    levels = {each["id"]: each["availability"] for each in stock}
    assert (levels["NVIDIA L4"], levels["NVIDIA RTX A5000"], levels["NVIDIA GeForce RTX 3070"]) == (
        "NONE",
        "LOW",
        "NONE",
    )


def test_an_image_that_is_missing_makes_unhealthy_workers_whose_log_tells(api: Api) -> None:
    api.plane.endpoints.fail_boots("missing")
    endpoint_id = api.create(image="you/missing:1", workers={"min": 1, "max": 1})["id"]
    api.plane.clock.sleep(25)
    worker = api.done("GET", f"/serverless/{endpoint_id}/workers")["workers"][0]
    assert (worker["status"], worker["startedAt"]) == ("UNHEALTHY", None)
    path = f"/serverless/{endpoint_id}/workers/{worker['id']}/logs"
    api.plane.log_hold_s = 0.05
    assert "manifest unknown" in api.ask("GET", path, params={"source": "system"}).text
    assert api.refused("GET", f"/serverless/{endpoint_id}/workers/w0/logs")[0] == 404
    api.done("PATCH", f"/serverless/{endpoint_id}", {"image": "you/whisper:2"})
    api.plane.clock.sleep(25)
    assert api.workers(endpoint_id) == ["IDLE"]


def test_jobs_of_a_killed_worker_are_done_by_another(api: Api) -> None:
    endpoint_id = api.create()["id"]
    api.plane.endpoints.job_s = 10.0
    job_id = api.run(endpoint_id, 1)
    api.plane.clock.sleep(25)
    worker = api.job(endpoint_id, job_id)["workerId"]
    api.plane.endpoints.kill_worker(endpoint_id, worker)
    api.plane.clock.sleep(120)
    job = api.job(endpoint_id, job_id)
    assert (job["status"], job["retries"]) == ("COMPLETED", 1)
    assert job["workerId"] != worker


def test_a_job_that_takes_too_long_is_timed_out(api: Api) -> None:
    endpoint_id = api.create(timeout=5_000)["id"]
    api.plane.endpoints.job_s = 60.0
    job_id = api.run(endpoint_id, 1)
    api.plane.clock.sleep(200)
    assert api.job(endpoint_id, job_id)["status"] == "TIMED_OUT"
    assert api.workers(endpoint_id) == []


# Releases


def test_a_new_image_rolls_out_worker_by_worker(api: Api) -> None:
    endpoint_id = api.create(workers={"min": 3, "max": 3})["id"]
    path = f"/serverless/{endpoint_id}"
    api.plane.clock.sleep(25)
    api.done("PATCH", path, {"image": "you/whisper:new", "env": {"A": "2"}})
    seen = []
    for _ in range(12):
        found = api.done("GET", f"{path}/releases")
        workers = api.done("GET", f"{path}/workers")["workers"]
        assert sum(each["isStale"] for each in workers) == sum(each["version"] == 1 for each in workers)
        assert sum(each["status"] == "IDLE" for each in workers) == 3  # never fewer that work
        figures = found["rollout"]
        if figures not in seen:
            seen.append(figures)
        api.plane.clock.sleep(10)
    assert [each["workersOnLatest"] for each in seen] == [1, 2, 3, 3]
    assert [each["inProgress"] for each in seen] == [True, True, True, False]
    assert seen[-1]["percentOnLatest"] == 100
    assert [each["version"] for each in found["releases"]] == [2, 1]
    assert {each["field"] for each in found["releases"][0]["diff"]} == {"template.imageName", "template.env"}
    assert found["releases"][0]["workerCount"] == 3
    same = api.done("PATCH", path, {"image": "you/whisper:new", "name": "other", "timeout": 1000})
    assert (same["name"], api.done("GET", f"{path}/releases")["endpointVersion"]) == ("other", 2)


def test_a_rollout_of_a_broken_image_stalls_and_can_be_taken_back(api: Api) -> None:
    api.plane.endpoints.fail_boots("broken", "RuntimeError: no CUDA", source="container")
    endpoint_id = api.create(workers={"min": 1, "max": 2})["id"]
    path = f"/serverless/{endpoint_id}"
    api.plane.clock.sleep(25)
    api.done("PATCH", path, {"image": "you/broken:1"})
    api.plane.clock.sleep(200)
    assert sorted(api.workers(endpoint_id)) == ["IDLE", "UNHEALTHY"]
    assert api.done("GET", f"{path}/releases")["rollout"]["inProgress"] is True
    api.done("PATCH", path, {"image": "you/whisper:abc"})
    api.plane.clock.sleep(100)
    rollout = api.done("GET", f"{path}/releases")["rollout"]
    assert (api.workers(endpoint_id), rollout["percentOnLatest"]) == (["IDLE"], 100)


def test_gpus_make_a_release_and_new_pools_clear_exclusions(api: Api) -> None:
    endpoint_id = api.create(gpu={"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L4"]})["id"]
    path = f"/serverless/{endpoint_id}"
    assert api.done("PATCH", path, {"gpu": {"minCudaVersion": "12.4"}})["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    gpu = api.done("PATCH", path, {"gpu": {"pools": ["ADA_24"], "minCudaVersion": ""}})["gpu"]
    assert (gpu["pools"], gpu.get("excludedTypes"), gpu["minCudaVersion"]) == (["ADA_24"], None, None)
    assert api.done("GET", f"{path}/releases")["endpointVersion"] == 3
    with api.plane.malformed():
        assert api.ask("PATCH", path, {"gpu": {"excludedTypes": []}}).status_code == 422
        assert api.ask("PATCH", path, {"type": "QUEUE"}).status_code == 422


# What goes wrong


def test_without_money_workers_are_stopped(api: Api) -> None:
    api.plane.pods.balance = L4_PER_H * 30 / 3600
    endpoint_id = api.create(workers={"min": 1, "max": 1})["id"]
    api.plane.clock.sleep(100)
    assert api.workers(endpoint_id) == []
    assert api.plane.pods.balance == pytest.approx(0.0, abs=1e-9)
    api.plane.pods.balance = 10
    api.plane.clock.sleep(21)
    assert api.workers(endpoint_id) in (["INITIALIZING"], ["IDLE"])


def test_lists_may_show_new_ones_late(api: Api) -> None:
    api.plane.faults.hide_new_pods(5)
    made = api.done("POST", "/templates", template())
    endpoint = api.create(templateId=made["id"], image=None)
    assert api.done("GET", "/serverless")["endpoints"] == api.done("GET", "/templates")["templates"] == []
    assert api.done("GET", f"/serverless/{endpoint['id']}")["id"] == endpoint["id"]
    api.plane.clock.sleep(5)
    assert len(api.done("GET", "/serverless")["endpoints"]) == len(api.done("GET", "/templates")["templates"]) == 1


def test_faults_hit_these_routes_too(api: Api) -> None:
    api.plane.faults.drop_after_commit("POST /v2/serverless")
    with pytest.raises(requests.ConnectionError):
        api.create()
    assert len(api.done("GET", "/serverless")["endpoints"]) == 1
    api.plane.faults.fail("DELETE /v2/serverless/{id}", 503)
    endpoint_id = api.plane.endpoints.alive()[0].id
    assert api.refused("DELETE", f"/serverless/{endpoint_id}")[0] == 503
    api.session.headers["Authorization"] = f"Bearer {api.plane.read_only_key}"
    assert api.refused("DELETE", f"/serverless/{endpoint_id}")[0] == 403
    assert api.done("GET", "/serverless")["endpoints"][0]["id"] == endpoint_id


def test_deleting_takes_workers_and_jobs_along(api: Api) -> None:
    gone: list[tuple[FakeEndpoint, FakeWorker]] = []
    api.plane.endpoints.on_worker.append(
        lambda endpoint, worker, _old, new: gone.append((endpoint, worker)) if new is None else None
    )
    endpoint_id = api.create(workers={"min": 2, "max": 2})["id"]
    api.plane.clock.sleep(30)
    api.run(endpoint_id, 1)
    answer = api.ask("DELETE", f"/serverless/{endpoint_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [worker.is_gone for _endpoint, worker in gone] == [True, True]
    api.plane.endpoints.on_worker.clear()
    assert api.plane.pods.spend_per_h == 0
    assert api.refused("GET", f"/serverless/{endpoint_id}")[0] == 404
    url = f"{api.plane.environ()['RUNPOD_JOB_BASE']}/{endpoint_id}/run"
    assert api.session.post(url, data=json.dumps({"input": 1}), timeout=5).status_code == 404


def test_rest_v1_and_graphql_see_them_too(api: Api) -> None:
    api.create()
    v1 = api.session.get(f"{api.plane.url}/v1/endpoints", timeout=5).json()
    assert [each["name"] for each in v1] == ["whisper"]


def test_without_simulation_workers_follow_the_jobs_that_are_held(api: Api) -> None:
    store = api.plane.endpoints
    store.simulate, store.boot_s = False, 1e9
    endpoint_id = api.create(workers={"min": 1, "max": 1})["id"]
    worker = store.get(endpoint_id).workers[0]
    store.mark_ready(endpoint_id, worker.id)
    assert api.workers(endpoint_id) == ["IDLE"]
    job_id = api.run(endpoint_id, 1)
    queue = store.queue(endpoint_id)
    assert queue is not None
    with queue.lock:
        queue.store.take(worker.id, 1)
    assert api.workers(endpoint_id) == ["RUNNING"]
    with queue.lock:
        queue.store.done(worker.id, job_id, {"output": 1})
    assert api.workers(endpoint_id) == ["IDLE"]
    store.mark_unhealthy(endpoint_id, worker.id, "failed its checks")
    assert api.workers(endpoint_id) == ["UNHEALTHY"]
    store.park(endpoint_id)
    assert (api.workers(endpoint_id), store.get(endpoint_id).is_parked) == ([], True)
