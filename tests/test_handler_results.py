"""A result's way out through a bad network, and what the worker's logs say of it: nothing that was said."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from handler.sdk_post import SUSPECT_BYTES
from tests.fakes.runpod import Job, LocalWorker, PlaneRules, QueuePlane, worker_environ

SCRIPTED = (sys.executable, "-m", "tests.handlers.scripted")
SPOKEN = "canary words that somebody said"
SIGNED = "https://store.example/a.wav?X-Amz-Signature=canary0signature"
KEY = "canary-worker-key"
SECRETS = (SPOKEN, "canary0signature", KEY)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[QueuePlane, LocalWorker]]:
    """A worker whose every line of debugging is on."""
    with QueuePlane(worker_key=KEY, rules=PlaneRules(done_bytes=6_000_000)) as plane:
        loud = worker_environ(plane, RUNPOD_DEBUG_LEVEL="DEBUG", RUNPOD_LOG_LEVEL="DEBUG", LOG_LEVEL="debug")
        with LocalWorker(SCRIPTED, loud) as worker:
            yield plane, worker
            assert [secret for secret in SECRETS if secret in worker.log()] == []
            assert worker.process.poll() is None


@pytest.fixture
def plane(both: tuple[QueuePlane, LocalWorker]) -> Iterator[QueuePlane]:
    yield both[0]
    both[0].faults.clear()
    assert both[0].store.late_progress == []


def do(plane: QueuePlane, limit_s: float = 10.0, **script: Any) -> Job:
    return plane.wait(plane.submit({"echo": SPOKEN, "audio": SIGNED, **script}), limit_s)


def test_a_good_result_is_posted_once(plane: QueuePlane) -> None:
    job = do(plane)
    assert (job.status, job.output, len(plane.requests("job-done", job.id))) == ("COMPLETED", {"echo": SPOKEN}, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_a_cut_connection_is_tried_again(plane: QueuePlane, times: int) -> None:
    plane.faults.cut("job-done", times)
    job = do(plane)
    assert (job.output, len(job.results)) == ({"echo": SPOKEN}, 1)
    assert len(plane.requests("job-done", job.id)) == times + 1


def test_a_connection_cut_after_the_result_was_taken_changes_nothing(plane: QueuePlane) -> None:
    plane.faults.cut("job-done", after_commit=True)
    job = do(plane)
    plane.wait_until(lambda: len(job.results) == 2, "posted again")
    assert job.results[0] == job.results[1] and (job.status, job.output) == ("COMPLETED", {"echo": SPOKEN})


@pytest.mark.parametrize(("status", "times"), [(502, 1), (503, 3), (429, 1)])
def test_trouble_of_the_platform_is_waited_out(plane: QueuePlane, status: int, times: int) -> None:
    plane.faults.status("job-done", status, times)
    job = do(plane)
    posts = plane.requests("job-done", job.id)
    assert job.output == {"echo": SPOKEN} and len(posts) == times + 1
    pauses = [later["at_s"] - earlier["at_s"] for earlier, later in itertools.pairwise(posts)]
    assert all(pause >= 0.12 * 2**number for number, pause in enumerate(pauses))


@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_a_refused_result_is_replaced_by_an_error(plane: QueuePlane, status: int) -> None:
    plane.faults.status("job-done", status)
    job = do(plane)
    assert (job.status, job.output) == ("FAILED", {"error_code": "result_refused", "retryable": False})
    assert str(status) in job.error and len(plane.requests("job-done", job.id)) == 2


def test_large_results_arrive_and_those_over_the_platforms_limit_say_so(plane: QueuePlane) -> None:
    assert SUSPECT_BYTES < 5_000_000 < plane.rules.done_bytes < 7_000_000
    assert len(do(plane, big_bytes=5_000_000).output["text"]) == 5_000_000
    job = do(plane, big_bytes=7_000_000)
    assert (job.status, job.output) == ("FAILED", {"error_code": "result_too_large", "retryable": False})


def test_progress_is_rare_and_even_a_slow_one_stays_well_before_the_result(plane: QueuePlane) -> None:
    plane.faults.delay("job-done", 0.3)
    job = do(plane, progress=50, every_s=0.043)
    progress, result = plane.requests("job-done", job.id)
    assert json.loads(progress["body"])["status"] == "IN_PROGRESS" and "status" not in json.loads(result["body"])
    assert job.progress[0]["text"] == SPOKEN and 35 <= job.progress[0]["number"] <= 50
    assert result["at_s"] - progress["at_s"] >= 1.25 and (job.status, job.output) == ("COMPLETED", {"echo": SPOKEN})


def test_an_outage_of_job_take_is_survived_without_a_flood(plane: QueuePlane) -> None:
    n_before = len(plane.requests("job-take"))
    plane.faults.always("job-take", 502)
    time.sleep(1.0)
    assert len(plane.requests("job-take")) - n_before <= 5
    plane.faults.clear()
    assert do(plane).status == "COMPLETED"


def test_jobs_that_raise_or_fail_are_silent_in_the_log_too(plane: QueuePlane) -> None:
    assert do(plane, fail=SPOKEN).status == "FAILED"
    assert do(plane, answer={"error": SPOKEN, "error_code": "bad_input"}).error == SPOKEN
    assert do(plane, special="bytes").status == "FAILED"
