"""The worker under the real SDK, over HTTP: every kind of answer ends in a terminal status with the right body."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.runpod import Job, LocalWorker, QueuePlane, worker_environ

ROOT = Path(__file__).parent.parent
SCRIPTED = (sys.executable, "-m", "tests.handlers.scripted")
CANARY = "canary-sentence-never-logged"


@dataclass
class Scene:
    """One plane with its worker, plain or streaming."""

    plane: QueuePlane
    worker: LocalWorker

    def do(self, limit_s: float = 10.0, **script: Any) -> Job:
        return self.plane.wait(self.plane.submit(script), limit_s)

    def begin(self, **script: Any) -> str:
        """Submit; returns when the job is running."""
        job_id = self.plane.submit(script)
        self.plane.wait_until(lambda: self.plane.job(job_id).status == "IN_PROGRESS", "in progress")
        return job_id


@pytest.fixture(scope="module")
def scenes() -> Iterator[tuple[Scene, Scene]]:
    with ExitStack() as stack:
        found = []
        for name, is_stream in (("plain", "0"), ("streaming", "1")):
            plane = stack.enter_context(QueuePlane(worker_key=f"secret-key-of-{name}"))
            environ = worker_environ(plane, HANDLER_STREAM=is_stream)
            found.append(Scene(plane, stack.enter_context(LocalWorker(SCRIPTED, environ))))
        yield found[0], found[1]
        for scene in found:
            # Whatever the tests did: nothing that was said, and no key, is in the logs.
            assert CANARY not in scene.worker.log() and scene.plane.worker_key not in scene.worker.log()
            assert scene.worker.process.poll() is None and scene.plane.store.late_progress == []


@pytest.fixture
def scene(scenes: tuple[Scene, Scene]) -> Scene:
    return scenes[0]


@pytest.fixture
def streaming(scenes: tuple[Scene, Scene]) -> Scene:
    return scenes[1]


@pytest.mark.parametrize(
    ("answer", "status", "output", "error"),
    [
        ({"a": 1}, "COMPLETED", {"a": 1}, None),
        ({"text": CANARY}, "COMPLETED", {"text": CANARY}, None),
        ({"error": "x"}, "FAILED", None, "x"),
        ({"error": "x", "error_code": "bad_input"}, "FAILED", {"error_code": "bad_input"}, "x"),
        ({"error": ["a", "b"], "partial": 1}, "FAILED", {"partial": 1}, ["a", "b"]),
        ({"error": {"code": "c"}, "partial": 1}, "FAILED", {"partial": 1}, {"code": "c"}),
        ({"error": ""}, "COMPLETED", None, None),
        ({}, "COMPLETED", None, None),
    ],
)
def test_answers_become_what_clients_expect(
    scene: Scene, answer: dict[str, Any], status: str, output: Any, error: Any
) -> None:
    job = scene.do(answer=answer)
    assert (job.status, job.output, job.error, job.stops_pod) == (status, output, error, False)


@pytest.mark.parametrize(
    ("special", "value"),
    [
        ("nan", None),
        ("infinity", None),
        ("float32", 1.5),
        ("array", [0.0, 0.0, 0.0]),
        ("surrogate", "a?b"),
        ("emoji", "zażółć \U0001f600 \u2028"),
    ],
)
def test_odd_values_arrive(scene: Scene, special: str, value: object) -> None:
    job = scene.do(special=special)
    assert (job.status, job.output) == ("COMPLETED", {"value": value})


@pytest.mark.parametrize("special", ["decimal", "bytes", "set"])
def test_values_without_json_are_errors(scene: Scene, special: str) -> None:
    job = scene.do(special=special)
    assert (job.status, job.output["error_code"]) == ("FAILED", "result_not_json")


def test_a_runner_that_raises_tells_neither_text_nor_traceback(scene: Scene) -> None:
    job = scene.do(fail=f"secret {CANARY}")
    assert job.status == "FAILED" and job.output == {"error_code": "internal", "retryable": True}
    assert "RuntimeError" in job.error and CANARY not in json.dumps(job.results) and "Traceback" not in job.error


def test_a_job_that_would_end_the_process_ends_alone(scene: Scene, streaming: Scene) -> None:
    for each in (scene, streaming):
        neighbour = each.begin(sleep_s=0.3)
        job = each.do(exits=True, answer={"error": CANARY})
        assert (job.status, job.output) == ("FAILED", {"error_code": "internal", "retryable": True})
        assert "SystemExit" in job.error and each.plane.wait(neighbour).status == "COMPLETED"


def test_input_that_is_no_object_ends_too(scene: Scene) -> None:
    inputs: list[object] = [None, "text", 5, []]
    for job_input in inputs:
        assert scene.plane.wait(scene.plane.submit(job_input)).output == {"error_code": "bad_input"}


def test_jobs_run_side_by_side_and_more_follow_without_a_pause(scene: Scene) -> None:
    ids = [scene.plane.submit({"sleep_s": 0.4, "echo": number}) for number in range(8)]
    began_s = time.monotonic()
    assert [scene.plane.wait(job_id).output for job_id in ids] == [{"echo": number} for number in range(8)]
    assert time.monotonic() - began_s < 2.4
    batches = [entry["query"].get("batch_size") for entry in scene.plane.requests("job-take")]
    assert "4" in batches and not {"5", "0"} & set(batches)


def test_a_loop_that_stands_still_keeps_neither_heartbeat_nor_polls_from_going_on(scene: Scene) -> None:
    job_id = scene.begin(block_s=1.3)
    n_pings = len(scene.plane.requests("ping"))
    other = scene.plane.submit({"echo": 1})
    scene.plane.wait_until(lambda: scene.plane.job(other).status == "IN_PROGRESS", "taken", 1.0)
    assert scene.plane.wait(job_id).status == scene.plane.wait(other).status == "COMPLETED"
    pings = scene.plane.requests("ping")[n_pings:]
    assert any(job_id in entry["query"].get("job_id", "") for entry in pings)


def test_a_cancelled_job_stops_within_a_second_and_its_neighbour_goes_on(scene: Scene) -> None:
    job_id, neighbour = scene.begin(sleep_s=60), scene.begin(sleep_s=0.8)
    scene.plane.wait_until(lambda: f"running {job_id}" in scene.worker.log(), "begun", 1.0)
    scene.plane.cancel(job_id)
    scene.plane.wait_until(lambda: f"cancelled {job_id}" in scene.worker.log(), "cancelled", 1.0)
    assert scene.plane.job(job_id).results == [] and scene.plane.job(job_id).status == "CANCELLED"
    assert scene.plane.wait(neighbour).status == "COMPLETED"


def test_a_job_whose_time_is_over_is_stopped_and_frees_its_slot(scene: Scene) -> None:
    job_id = scene.plane.submit({"sleep_s": 60}, policy={"executionTimeout": 300})
    assert scene.plane.wait(job_id, 2.0).status == "TIMED_OUT"
    scene.plane.wait_until(lambda: f"cancelled {job_id}" in scene.worker.log(), "stopped", 1.0)
    ids = [scene.plane.submit({"sleep_s": 0.2}) for _ in range(4)]
    scene.plane.wait_until(lambda: all(scene.plane.job(each).runs for each in ids), "four at a time", 1.0)
    assert [scene.plane.wait(each).status for each in ids] == ["COMPLETED"] * 4
    assert scene.plane.job(job_id).results == []


def test_a_job_cancelled_before_it_begins_never_begins(scene: Scene) -> None:
    """Between the answer to a poll and the job's begin lie up to 0.1 s, in which the SDK does not know the job."""
    ids = [scene.begin(sleep_s=60) for _ in range(2)]
    for job_id in ids:
        scene.plane.cancel(job_id)

    def is_over(job_id: str) -> bool:
        log = scene.worker.log()
        return f"job {job_id} was stopped before it began" in log or f"cancelled {job_id}" in log

    scene.plane.wait_until(lambda: all(is_over(job_id) for job_id in ids), "stopped", 1.5)
    assert [scene.do(echo=number).output for number in range(4)] == [{"echo": number} for number in range(4)]


def test_results_are_taken_up_as_a_client_of_the_sdk_sees_them(scene: Scene) -> None:
    """`runpod.Endpoint`, the one independent client at hand; in a process of its own, as it sets up loggers."""
    code = (
        "import sys, handler.worker; handler.worker.load_sdk(); import runpod\n"
        "runpod.endpoint_url_base, runpod.api_key = sys.argv[1], sys.argv[2]; endpoint = runpod.Endpoint('ep')\n"
        "print(endpoint.run_sync({'input': {'echo': 1}}, timeout=20))\n"
        "job = endpoint.run({'echo': 2}); print(job.output(timeout=20), job.status())\n"
        "print(sorted(endpoint.health()['jobs']))"
    )
    command = [sys.executable, "-c", code, scene.plane.base_url, scene.plane.api_key]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == [
        "{'echo': 1}",
        "{'echo': 2} COMPLETED",
        "['completed', 'failed', 'inProgress', 'inQueue', 'retried']",
    ], result.stderr


# Streaming


def test_segments_stream_and_the_last_element_is_the_result(streaming: Scene) -> None:
    job = streaming.do(segments=5, every_s=0.05, echo=CANARY)
    assert job.status == "COMPLETED"
    *chunks, last = job.output
    assert last == {"echo": CANARY}
    assert [segment["number"] for chunk in chunks for segment in chunk["segments"]] == [0, 1, 2, 3, 4]
    assert [entry["output"] for entry in job.chunks] == job.output
    (done,) = streaming.plane.requests("job-done", job.id)
    assert done["query"]["isStream"] == "true"


def test_segments_that_come_together_go_together_in_chunks_of_bounded_size(streaming: Scene) -> None:
    streaming.plane.faults.delay("job-stream", 0.2)
    job = streaming.do(segments=150)
    sizes = [len(chunk["segments"]) for chunk in job.output[:-1]]
    assert sum(sizes) == 150 and max(sizes) <= 64 and len(sizes) <= 5


def test_a_lost_chunk_is_in_the_result_all_the_same(streaming: Scene) -> None:
    streaming.plane.faults.status("job-stream", 400, 2)
    job = streaming.do(segments=1)
    assert job.chunks == [] and job.output == [{"segments": [{"number": 0, "text": None}]}, {"echo": None}]


def test_a_streamed_job_that_fails_keeps_its_code(streaming: Scene) -> None:
    job = streaming.do(segments=1, answer={"error": "no", "error_code": "bad_input"})
    assert (job.status, job.error, job.output) == ("FAILED", "no", {"error_code": "bad_input"})
    assert job.chunks[0]["output"]["segments"]
    assert streaming.do(fail="x").output == {"error_code": "internal", "retryable": True}


def test_a_streamed_job_is_cancelled_like_any_other(streaming: Scene) -> None:
    job_id = streaming.begin(segments=1_000, every_s=0.1)
    streaming.plane.wait_until(lambda: streaming.plane.job(job_id).chunks, "streaming")
    streaming.plane.cancel(job_id)
    streaming.plane.wait_until(lambda: f"cancelled {job_id}" in streaming.worker.log(), "cancelled", 1.5)
    assert streaming.do(echo=1).output == [{"echo": 1}]


# Local modes


LOCAL_RUNS: tuple[tuple[list[str], str | None, int, str], ...] = (
    (['--test_input={"input": {"echo": "shown"}}'], None, 0, "shown"),
    (['--test_input={"input": {"answer": {"error": "broken"}}}'], None, 1, "broken"),
    ([], '{"input": {"echo": "from the file"}}', 0, "from the file"),
    (['--test_input={"input'], None, 1, "not JSON"),
    ([], None, 1, "test_input.json not found"),
)
"""Arguments, test_input.json, exit status, what is said."""


def test_local_runs_show_their_result_and_end_with_its_status(tmp_path: Path) -> None:
    with ExitStack() as stack:
        workers = []
        for number, (arguments, file, _, _) in enumerate(LOCAL_RUNS):
            folder = tmp_path / str(number)
            folder.mkdir()
            if file is not None:
                (folder / "test_input.json").write_text(file)
            environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HANDLER_STREAM": "1"}
            workers.append(stack.enter_context(LocalWorker([*SCRIPTED, *arguments], environ, folder)))
        for worker, (_, _, status, said) in zip(workers, LOCAL_RUNS, strict=True):
            assert worker.process.wait(60) == status, worker.log()
            assert said in worker.log() and "Traceback" not in worker.log()


def test_the_local_server_answers(tmp_path: Path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    command = [*SCRIPTED, "--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)]
    with LocalWorker(command, environ, tmp_path) as server:
        ends_s = time.monotonic() + 20
        while "Uvicorn running" not in server.log():
            assert time.monotonic() < ends_s and server.process.poll() is None, server.log()
            time.sleep(0.02)
        body = json.dumps({"input": {"echo": 7}}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/runsync", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answer = json.loads(response.read())
        assert (answer["status"], answer["output"]) == ("COMPLETED", {"echo": 7})
