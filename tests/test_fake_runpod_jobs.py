"""The job API of the fake's endpoints: both sides of each queue, keys, sizes; endpoints know nothing of each other."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.job_routes import JobQueue

BODY: dict[str, Any] = {
    "type": "QUEUE",
    "image": "me/whisper:1",
    "gpu": {"pools": ["AMPERE_24"], "count": 1},
    "workers": {"min": 0, "max": 2, "idleTimeout": 5},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1},
}
PREFIX = "/jobs/v2"


class Caller:
    """Plain HTTP to one endpoint's queue, as a client unless `key` says otherwise."""

    def __init__(self, plane: ControlPlane, endpoint: str) -> None:
        self.plane, self.endpoint = plane, endpoint

    @property
    def queue(self) -> JobQueue:
        queue = self.plane.endpoints.queues[self.endpoint]
        assert isinstance(queue, JobQueue)
        return queue

    def __call__(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=10)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.plane.api_key}" if key is None else key}
        try:
            connection.request(method, f"{PREFIX}/{self.endpoint}{path}", body=data, headers=headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        return response.status, json.loads(raw) if raw else None

    def worker(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return self(method, path, body, key=self.queue.worker_key)

    def run(self, **extra: Any) -> str:
        status, body = self("POST", "/run", {"input": {"a": 1}, **extra})
        assert (status, body["status"]) == (200, "IN_QUEUE")
        return str(body["id"])

    def state(self, job_id: str) -> Any:
        return self("GET", f"/status/{job_id}")[1]["status"]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.endpoints.simulate = False
        yield plane


@pytest.fixture
def two(plane: ControlPlane) -> tuple[Caller, Caller]:
    first, second = (Caller(plane, plane.endpoints.create({"name": name, **BODY}).id) for name in ("one", "two"))
    return first, second


def test_a_job_from_run_to_result(plane: ControlPlane, two: tuple[Caller, Caller]) -> None:
    first, _second = two
    assert plane.environ()["RUNPOD_JOB_BASE"] == f"{plane.url}{PREFIX}"
    job_id = first.run()
    assert first.state(job_id) == "IN_QUEUE"
    plane.clock.advance(1.0)
    taken = first.worker("GET", "/job-take/w1?gpu=x&job_in_progress=0")[1]
    assert (taken["id"], taken["input"]) == (job_id, {"a": 1})
    plane.clock.advance(2.0)
    assert first.worker("POST", f"/job-stream/w1/{job_id}", {"output": "piece"})[0] == 200
    assert first("GET", f"/stream/{job_id}")[1] == {"status": "IN_PROGRESS", "stream": [{"output": "piece"}]}
    assert first.worker("POST", f"/job-done/w1/{job_id}", {"output": {"text": "hi"}})[0] == 200
    shown = first("GET", f"/status/{job_id}")[1]
    assert (shown["status"], shown["output"], shown["workerId"]) == ("COMPLETED", {"text": "hi"}, "w1")
    assert (shown["delayTime"], shown["executionTime"]) == (1_000, 2_000)


def test_cancel_retry_purge_and_what_workers_hear(two: tuple[Caller, Caller]) -> None:
    first, _second = two
    running, failing, queued = (first.run() for _ in range(3))
    batch = first.worker("GET", "/job-take-batch/w1?gpu=x&batch_size=2")[1]
    assert [each["id"] for each in batch] == [running, failing]
    assert first("POST", f"/cancel/{running}")[1] == {"id": running, "status": "CANCELLED"}
    assert first.worker("GET", "/job-stop/w1")[1] == {"jobsToStop": [running]}
    first.worker("POST", f"/job-done/w1/{failing}", {"error": "no"})
    assert first("POST", f"/retry/{running}")[0] == 400
    assert first("POST", f"/retry/{failing}")[1]["status"] == "IN_QUEUE"
    assert first("POST", "/purge-queue")[1] == {"removed": 2, "status": "completed"}
    assert first.state(queued) == "CANCELLED"
    assert first("GET", "/health")[1]["jobs"]["inQueue"] == 0
    assert len(first("GET", "/requests")[1]["requests"]) == 3
    assert first.worker("GET", "/job-take/w1")[0] == 204


@pytest.mark.parametrize("path", ["/job-take-batch/w1?batch_size=x", "/job-take-batch/w1?batch_size=-1"])
def test_numbers_that_are_none_are_refused(two: tuple[Caller, Caller], path: str) -> None:
    assert two[0].worker("GET", path)[0] == 400


def test_two_endpoints_know_nothing_of_each_other(two: tuple[Caller, Caller]) -> None:
    first, second = two
    job_id, other_id = first.run(), second.run()
    assert job_id != other_id
    assert second("GET", f"/status/{job_id}")[0] == 404
    assert second.worker("GET", "/job-take/w1")[1]["id"] == other_id
    assert second.worker("GET", "/job-take/w1")[0] == 204
    assert first("GET", "/job-take/w1", key=second.queue.worker_key)[0] == 401
    assert first.state(job_id) == "IN_QUEUE"
    assert {each["path"] for each in second.queue.journal} & {each["path"] for each in first.queue.journal} == set()


def test_keys_and_endpoints_must_be_known(plane: ControlPlane, two: tuple[Caller, Caller]) -> None:
    first, _second = two
    assert first("GET", "/health", key=plane.api_key)[0] == 200
    for key in ("", "Bearer nobody", first.queue.worker_key):
        assert first("POST", "/run", {"input": 1}, key=key)[0] == 401
    assert first("GET", "/job-take/w1", key=plane.api_key)[0] == 401
    unknown = Caller(plane, "nowhere")
    assert unknown("POST", "/run", {"input": 1})[0] == 404
    assert unknown("POST", "/run", {"input": 1}, key="Bearer nobody")[0] == 401
    assert unknown("GET", "/job-take/w1", key="any")[0] == 404
    for queue in (each.queue for each in two):
        text = json.dumps(queue.journal)
        assert "uthorization" not in text and plane.api_key not in text and queue.worker_key not in text
    assert [each["status"] for each in first.queue.requests("run")] == [401, 401, 401]


def test_bodies_up_to_the_platforms_own_limits(two: tuple[Caller, Caller]) -> None:
    def sized(n_bytes: int, head: str) -> bytes:
        return head.encode() + b"x" * (n_bytes - len(head) - 2) + b'"}'

    first, _second = two
    assert first("POST", "/run", sized(10_000_000, '{"input": "'))[0] == 200
    assert first("POST", "/run", sized(10_000_001, '{"input": "'))[0] == 413
    assert first("POST", "/runsync?wait=1000", sized(20_000_000, '{"input": "'))[0] == 200
    assert first("POST", "/runsync?wait=1000", sized(20_000_001, '{"input": "'))[0] == 413
    job_id = first.worker("GET", "/job-take/w1")[1]["id"]
    assert first.worker("POST", f"/job-done/w1/{job_id}", sized(20_000_000, '{"output": "'))[0] == 200
    for body in (b"[]", b"{", b'{"input": NaN}', {"no": "input"}):
        assert first("POST", "/run", body)[0] == 400


def test_holds_are_short_where_time_is_virtual(two: tuple[Caller, Caller]) -> None:
    first, _second = two
    began_s = time.monotonic()
    status, body = first("POST", "/runsync?wait=300000", {"input": 1})
    assert (status, body["status"]) == (200, "IN_QUEUE") and body["id"].startswith("sync-")
    assert first.worker("GET", "/job-take/w1")[0] == 200
    assert first.worker("GET", "/job-take/w1")[0] == 204
    assert time.monotonic() - began_s < 5.0


def test_a_poll_that_hung_up_is_given_no_job(plane: ControlPlane, two: tuple[Caller, Caller]) -> None:
    first, _second = two
    queue = first.queue
    queue.rules.hold_s = 30.0
    connection = http.client.HTTPConnection("127.0.0.1", plane.port)
    connection.request("GET", f"{PREFIX}/{first.endpoint}/job-take/w1", headers={"Authorization": queue.worker_key})
    queue.wait_until(lambda: queue.requests("job-take"), "polled")
    connection.close()
    queue.wait_until(lambda: queue.requests("job-take")[0]["status"] == 204, "noticed")
    job_id = queue.submit({})
    assert first.worker("GET", "/job-take/w2")[1]["id"] == job_id


def test_a_deleted_endpoint_ends_polls_and_knows_no_jobs(plane: ControlPlane, two: tuple[Caller, Caller]) -> None:
    first, second = two
    queue = first.queue
    queue.rules.hold_s = 30.0
    job_id = first.run()
    first.worker("GET", "/job-take/w1")
    connection = http.client.HTTPConnection("127.0.0.1", plane.port, timeout=10)
    connection.request("GET", f"{PREFIX}/{first.endpoint}/job-take/w1", headers={"Authorization": queue.worker_key})
    queue.wait_until(lambda: len(queue.requests("job-take")) == 2, "polled")
    plane.endpoints.delete(first.endpoint)
    assert connection.getresponse().status == 204
    connection.close()
    assert first("GET", f"/status/{job_id}")[0] == 404
    assert second("GET", "/health")[0] == 200


def test_faults_belong_to_one_queue(two: tuple[Caller, Caller]) -> None:
    first, second = two
    first.queue.faults.status("run", 503, body="{}")
    first.queue.faults.cut("run", after_commit=True)
    assert second("POST", "/run", {"input": 1})[0] == 200
    assert first("POST", "/run", {"input": 1})[0] == 503
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        first("POST", "/run", {"input": 1})
    assert len(first.queue.store.jobs) == 1


def test_a_lost_workers_job_goes_to_another_and_a_retired_one_gets_none(
    plane: ControlPlane, two: tuple[Caller, Caller]
) -> None:
    first, _second = two
    job_id = first.run()
    first.worker("GET", "/job-take/w1")
    plane.clock.advance(31)
    assert first("GET", f"/status/{job_id}")[1] == {"id": job_id, "status": "IN_QUEUE", "retries": 1}
    first.queue.store.retired.add("w1")
    assert first.worker("GET", "/job-take/w1")[0] == 204
    assert first.worker("GET", "/job-take/w2")[1]["id"] == job_id


def test_simulated_workers_answer_in_virtual_time(plane: ControlPlane, two: tuple[Caller, Caller]) -> None:
    first, _second = two
    plane.endpoints.simulate = True
    plane.endpoints.answer = lambda job_input: {"output": {"sum": job_input["a"] + 1}}
    job_id = first.run()
    for _ in range(100):
        if first.state(job_id) == "COMPLETED":
            break
        plane.clock.advance(1.0)
    assert first("GET", f"/status/{job_id}")[1]["output"] == {"sum": 2}
    workers = first("GET", "/health")[1]["workers"]
    assert workers["idle"] == 1 and workers["running"] == 0
