"""bench.startup: the queue that hands out one job, the measure of a start, and its goal."""

from __future__ import annotations

import http.client
import json
import os
import queue
from urllib.parse import urlsplit

import pytest

from bench.startup import MAX_SHARE, Start, StartFailedError, first_result, main, verdict
from bench.startup_queue import MAX_RESULT_BYTES, QueuePlane

WORKER = """
import json, os, urllib.request
job = json.load(urllib.request.urlopen(os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", "w")))
assert job["input"]["audio_base64"] and job["input"]["language"] == "en"
print("worker's log")
body = json.dumps({"output": RESULT}).encode()
url = os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", "w").replace("$ID", job["id"])
urllib.request.urlopen(url, data=body).read()
"""


def ask(plane: QueuePlane, method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=5)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_job_is_handed_out_once_and_its_result_kept() -> None:
    with QueuePlane({"id": "j", "input": {}}) as plane:
        take, done = plane.environment["RUNPOD_WEBHOOK_GET_JOB"], plane.environment["RUNPOD_WEBHOOK_POST_OUTPUT"]
        assert plane.first_take_s is None
        batch = take.replace("/job-take/", "/job-take-batch/")
        assert ask(plane, "GET", batch) == (200, b'[{"id": "j", "input": {}}]')
        assert ask(plane, "GET", take) == (204, b"")
        assert ask(plane, "GET", plane.environment["RUNPOD_WEBHOOK_PING"])[0] == 200
        assert ask(plane, "POST", done, json.dumps({"status": "IN_PROGRESS", "output": 1}).encode())[0] == 200
        with pytest.raises(queue.Empty):
            plane.result(0.01)
        assert ask(plane, "POST", done, b'{"output": {"a": 1}}')[0] == 200
        result_s, body = plane.result(1.0)
        assert body == {"output": {"a": 1}}
        assert plane.first_take_s is not None and plane.first_take_s < result_s


def test_a_result_that_is_too_large_is_refused() -> None:
    with QueuePlane({"id": "j", "input": {}}) as plane:
        connection = http.client.HTTPConnection(urlsplit(plane.environment["RUNPOD_WEBHOOK_PING"]).netloc, timeout=5)
        connection.putrequest("POST", "/v2/bench/job-done/w/j")
        connection.putheader("Content-Length", str(MAX_RESULT_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 413
        connection.close()


def test_a_start_is_measured_up_to_its_result() -> None:
    start = first_result("fake", ("-c", WORKER.replace("RESULT", '{"transcription": "hello"}')), os.environ)
    assert 0 < start.asked_s < start.result_s < 30
    assert 0 <= start.cpu_s < 5


def test_a_result_without_text_is_no_start() -> None:
    with pytest.raises(StartFailedError, match="fake: its result has no text; end of its log: worker's log"):
        first_result("fake", ("-c", WORKER.replace("RESULT", '{"transcription": ""}')), os.environ)


def test_a_worker_that_ends_is_not_waited_for() -> None:
    with pytest.raises(StartFailedError, match=r"fake: it ended, .* end of its log: no model"):
        first_result("fake", ("-c", "print('no model')"), os.environ)


@pytest.mark.parametrize(("ours_s", "is_met"), [(MAX_SHARE, True), (MAX_SHARE + 0.01, False)])
def test_the_goal_at_its_limit(ours_s: float, is_met: bool) -> None:
    def starts(seconds: float) -> list[Start]:
        return [Start(0.1, value, 0.1) for value in (seconds, 50.0, 0.01)]

    judged = verdict({"ours": starts(ours_s), "worker-faster_whisper": starts(1.0)})
    assert judged.is_met is is_met


@pytest.mark.parametrize("rounds", ["0", "101"])
def test_rounds_out_of_range_are_refused(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rounds", rounds]) == 2
    assert "--rounds" in capsys.readouterr().err
