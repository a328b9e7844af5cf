"""The fake queue plane answers as the platform does: states, times, sizes, keys, faults."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.runpod import PlaneRules, QueuePlane


class Caller:
    """Plain HTTP to the plane, as a client or as worker `w1`."""

    def __init__(self, plane: QueuePlane, key: str) -> None:
        self.plane, self.key = plane, key

    def __call__(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.plane.port, timeout=10)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            headers = {"Authorization": self.key if key is None else key}
            connection.request(method, f"/v2/{self.plane.endpoint}{path}", body=data, headers=headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(raw) if is_json and raw else raw


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def plane(clock: ManualClock) -> Iterator[QueuePlane]:
    rules = PlaneRules(hold_s=0.0, run_bytes=2_000, runsync_bytes=3_000, done_bytes=1_000, heartbeat_limit_s=30.0)
    with QueuePlane(rules=rules, clock=clock) as plane:
        yield plane


@pytest.fixture
def client(plane: QueuePlane) -> Caller:
    return Caller(plane, f"Bearer {plane.api_key}")


@pytest.fixture
def worker(plane: QueuePlane) -> Caller:
    return Caller(plane, plane.worker_key)


def run(client: Caller, **extra: Any) -> str:
    status, body = client("POST", "/run", {"input": {"a": 1}, **extra})
    assert (status, body["status"]) == (200, "IN_QUEUE")
    return str(body["id"])


def test_a_job_from_run_to_result(client: Caller, worker: Caller, clock: ManualClock) -> None:
    job_id = run(client, webhook="http://127.0.0.1:1/", policy={"executionTimeout": 5_000})
    assert client("GET", f"/status/{job_id}")[1] == {"id": job_id, "status": "IN_QUEUE"}
    clock.advance(1.0)
    taken = worker("GET", "/job-take/w1?gpu=x&job_in_progress=0")[1]
    assert taken["id"] == job_id and taken["input"] == {"a": 1} and taken["policy"] == {"executionTimeout": 5_000}
    clock.advance(2.0)
    progress = {"status": "IN_PROGRESS", "output": {"percent": 50}}
    assert worker("POST", f"/job-done/w1/{job_id}?isStream=false", progress)[0] == 200
    assert client("GET", f"/status/{job_id}")[1]["output"] == {"percent": 50}
    assert worker("POST", f"/job-done/w1/{job_id}?isStream=false", {"output": {"text": "hi"}})[0] == 200
    assert client("GET", f"/status/{job_id}", key=client.plane.api_key)[1] == {
        "id": job_id,
        "status": "COMPLETED",
        "delayTime": 1_000,
        "executionTime": 2_000,
        "workerId": "w1",
        "output": {"text": "hi"},
    }


def test_batches_stops_streams_and_failures(client: Caller, worker: Caller) -> None:
    first, second, third = (run(client) for _ in range(3))
    batch = worker("GET", "/job-take-batch/w1?gpu=x&batch_size=2")[1]
    assert [job["id"] for job in batch] == [first, second]
    assert worker("GET", "/job-stop/w1")[0] == 204
    assert client("POST", f"/cancel/{first}")[1] == {"id": first, "status": "CANCELLED"}
    assert worker("GET", "/job-stop/w1")[1] == {"jobsToStop": [first]}
    assert worker("GET", "/job-stop/w1")[0] == 204
    assert worker("POST", f"/job-stream/w1/{second}", {"output": 1})[0] == 200
    assert client("GET", f"/stream/{second}")[1] == {"status": "IN_PROGRESS", "stream": [{"output": 1}]}
    assert client("GET", f"/stream/{second}")[1]["stream"] == []
    worker("POST", f"/job-done/w1/{second}", {"error": "no", "output": {"error_code": "bad_input"}})
    shown = client("GET", f"/status/{second}")[1]
    assert (shown["status"], shown["error"], shown["output"]) == ("FAILED", "no", {"error_code": "bad_input"})
    assert client("POST", f"/retry/{second}")[1] == {"id": second, "status": "IN_QUEUE"}
    assert client("POST", f"/retry/{first}")[0] == 400
    assert client("POST", "/purge-queue")[1] == {"removed": 2, "status": "completed"}
    assert client("GET", "/requests")[1]["requests"][2] == {"id": third, "status": "CANCELLED"}
    assert client("GET", "/health")[1]["jobs"]["inQueue"] == 0
    assert worker("GET", "/job-take/w1")[0] == 204


def test_runsync_waits_and_names_its_jobs(client: Caller, worker: Caller, clock: ManualClock) -> None:
    body = client("POST", "/runsync?wait=1000", {"input": {}})[1]
    assert body["status"] == "IN_QUEUE" and body["id"].startswith("sync-")
    assert client("POST", "/runsync?wait=999", {"input": {}})[0] == 400
    worker("GET", "/job-take/w1")
    worker("POST", f"/job-done/w1/{body['id']}", {"output": 1})
    assert client("GET", f"/status/{body['id']}")[1]["status"] == "COMPLETED"
    clock.advance(61)
    assert client("GET", f"/status/{body['id']}")[0] == 404


def test_keys_may_be_raw_or_bearer_and_must_be_right(client: Caller, worker: Caller) -> None:
    for key in ("", "Bearer nobody", "worker-key"):
        assert client("POST", "/run", {"input": 1}, key=key)[0] == 401
    assert worker("GET", "/job-take/w1", key="client-key")[0] == 401
    assert worker("GET", "/job-take/w1", key="Bearer worker-key")[0] == 204
    assert "client-key" not in json.dumps(client.plane.journal)


def test_sizes_at_the_limit_and_one_past_it(client: Caller, worker: Caller) -> None:
    def sized(n_bytes: int, head: str) -> bytes:
        return (head + "x" * (n_bytes - len(head) - 2) + '"}').encode()

    assert client("POST", "/run", sized(2_000, '{"input": "'))[0] == 200
    assert client("POST", "/run", sized(2_001, '{"input": "'))[0] == 413
    assert client("POST", "/runsync?wait=1000", sized(3_001, '{"input": "'))[0] == 413
    job_id = worker("GET", "/job-take/w1")[1]["id"]
    status, body = worker("POST", f"/job-done/w1/{job_id}", sized(1_001, '{"output": "'))
    assert status == 400 and body.startswith(b"<html>")
    assert client("GET", f"/status/{job_id}")[1]["status"] == "IN_PROGRESS"
    assert worker("POST", f"/job-done/w1/{job_id}", sized(1_000, '{"output": "'))[0] == 200


@pytest.mark.parametrize("body", [b'{"output": NaN}', b'{"output": "\xed\xa0\x80"}', b"[]", b"", b"{"])
def test_a_result_that_is_no_json_is_refused(client: Caller, worker: Caller, body: bytes) -> None:
    job_id = run(client)
    worker("GET", "/job-take/w1")
    assert worker("POST", f"/job-done/w1/{job_id}", body)[0] == 400
    assert client("POST", "/run", body)[0] == 400
    assert client("POST", "/run", {"no": "input"})[0] == 400


def test_time_ends_jobs(client: Caller, worker: Caller, clock: ManualClock) -> None:
    slow = run(client, policy={"executionTimeout": 5_000})
    gone = run(client, policy={"ttl": 10_000})
    worker("GET", "/job-take-batch/w1?batch_size=2")
    clock.advance(6)
    worker("GET", f"/ping/w1?job_id={slow},{gone}")
    assert client("GET", f"/status/{slow}")[1]["status"] == "TIMED_OUT"
    clock.advance(5)
    assert client("GET", f"/status/{gone}")[0] == 404
    assert set(worker("GET", "/job-stop/w1")[1]["jobsToStop"]) == {slow, gone}
    clock.advance(1_801)
    assert client("GET", f"/status/{slow}")[0] == 404


def test_a_job_whose_worker_falls_silent_goes_to_another_once(
    client: Caller, worker: Caller, clock: ManualClock
) -> None:
    job_id = run(client)
    worker("GET", "/job-take/w1")
    clock.advance(29)
    assert worker("GET", f"/ping/w1?job_id={job_id}&runpod_version=1")[0] == 200
    clock.advance(29)
    assert client("GET", f"/status/{job_id}")[1]["status"] == "IN_PROGRESS"
    clock.advance(2)
    assert client("GET", f"/status/{job_id}")[1] == {"id": job_id, "status": "IN_QUEUE", "retries": 1}
    assert worker("GET", "/job-take/w2")[1]["id"] == job_id
    # What the first worker still says does not count any more.
    worker("POST", f"/job-done/w1/{job_id}", {"output": "late"})
    clock.advance(31)
    assert client("GET", f"/status/{job_id}")[1]["error"] == "job timed out after 1 retries"


def test_progress_behind_the_result_spoils_the_job(client: Caller, worker: Caller) -> None:
    job_id = run(client)
    worker("GET", "/job-take/w1")
    worker("POST", f"/job-done/w1/{job_id}", {"output": 1})
    worker("POST", f"/job-done/w1/{job_id}", {"status": "IN_PROGRESS", "output": 0.5})
    assert client("GET", f"/status/{job_id}")[1]["status"] == "IN_PROGRESS"
    assert client.plane.store.late_progress == [job_id]


def test_unhealthy_workers_are_heard(plane: QueuePlane, worker: Caller) -> None:
    worker("GET", "/ping/w1?status=unhealthy&check=c&reason=r")
    assert plane.store.unhealthy == [{"worker": "w1", "status": "unhealthy", "check": "c", "reason": "r"}]


def test_faults_come_in_their_order_and_then_stop(plane: QueuePlane, client: Caller) -> None:
    plane.faults.status("run", 503)
    plane.faults.cut("run")
    plane.faults.cut("run", after_commit=True)
    plane.faults.delay("run", 0.05)
    plane.faults.late("run", 0.05)
    assert client("POST", "/run", {"input": 1})[0] == 503
    for n_jobs in (0, 1):
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            client("POST", "/run", {"input": 1})
        assert len(plane.store.jobs) == n_jobs
    assert [client("POST", "/run", {"input": 1})[0] for _ in range(2)] == [200, 200]
    plane.faults.always("run", 429)
    assert [client("POST", "/run", {"input": 1})[0] for _ in range(2)] == [429, 429]
    plane.faults.clear()
    assert client("POST", "/run", {"input": 1})[0] == 200
    assert [entry["status"] for entry in plane.requests("run")] == [503, 500, 500, 200, 200, 429, 429, 200]


def test_a_poll_that_hung_up_is_given_no_job(clock: ManualClock) -> None:
    with QueuePlane(rules=PlaneRules(hold_s=90.0), clock=clock) as plane:
        connection = http.client.HTTPConnection("127.0.0.1", plane.port)
        connection.request("GET", f"/v2/{plane.endpoint}/job-take/w1", headers={"Authorization": plane.worker_key})
        plane.wait_until(lambda: plane.requests("job-take"), "polled")
        connection.close()
        taker = http.client.HTTPConnection("127.0.0.1", plane.port)
        taker.request("GET", f"/v2/{plane.endpoint}/job-take/w2", headers={"Authorization": plane.worker_key})
        plane.wait_until(lambda: len(plane.requests("job-take")) == 2, "polled again")
        job_id = plane.submit({})
        assert json.loads(taker.getresponse().read())["id"] == job_id
        taker.close()
        assert plane.job(job_id).worker == "w2"
