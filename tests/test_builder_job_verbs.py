"""The group `job` against the fake plane: what is sent, what is waited for, what is never sent twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.api.jobs import MAX_RUN_BYTES
from builder.api.models_serverless import Job
from builder.errors import UsageError
from builder.jobs.submit import JobOptions, hide_secrets, job_body
from builder.jobs.wait import failure_of, progress_text
from builder.redact import HIDDEN, Redactor
from tests.builder_endpoints import AUDIO, Bench
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane

SECRET = "canary-s3-secret-0123"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ControlPlane() as plane:
        plane.endpoints.answer = lambda asked: {"output": {"transcription": "hello", "asked": asked}}
        yield Bench(plane, tmp_path)


# The body


def test_a_bare_input_and_a_whole_body_are_told_apart() -> None:
    assert job_body(AUDIO, JobOptions()) == {"input": AUDIO}
    whole = {"input": AUDIO, "webhook": "https://hook/x", "policy": {"ttl": 10_000}, "s3Config": {"bucketName": "b"}}
    assert job_body(whole, JobOptions()) == whole


def test_options_win_over_the_document() -> None:
    whole = {"input": AUDIO, "webhook": "https://hook/x", "policy": {"ttl": 20_000, "lowPriority": False}}
    options = JobOptions(ttl_s=60, execution_timeout_s=30, webhook="https://hook/y", low_priority=True)
    body = job_body(whole, options)
    assert body["policy"] == {"ttl": 60_000, "executionTimeout": 30_000, "lowPriority": True}
    assert body["webhook"] == "https://hook/y"


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"input": {}}, "not empty"),
        ({}, "not empty"),
        ({"input": "x"}, "must be an object"),
        ({"input": AUDIO, "extra": 1}, "'extra' beside"),
        ({"input": AUDIO, "policy": []}, '"policy" must be an object'),
        ({"input": AUDIO, "policy": {"ttl": 9_999}}, "10,000 to 604,800,000"),
        ({"input": AUDIO, "policy": {"ttl": 604_800_001}}, "10,000 to 604,800,000"),
        ({"input": AUDIO, "policy": {"executionTimeout": 4_999}}, "5,000 to 604,800,000"),
        ({"input": AUDIO, "policy": {"executionTimeout": True}}, "5,000 to"),
        ({"input": AUDIO, "policy": {"ttl": float("inf")}}, "10,000 to"),
        ({"input": AUDIO, "policy": {"lowPriority": 1}}, "true or false"),
        ({"input": AUDIO, "policy": {"other": 1}}, "legal: ttl, executionTimeout, lowPriority"),
        ({"input": AUDIO, "policy": {"ttl": 10_000, "executionTimeout": 10_001}}, "up to ttl"),
        ({"input": AUDIO, "webhook": "ftp://x/y"}, "--webhook"),
        ({"input": AUDIO, "webhook": 5}, "--webhook"),
        ({"input": AUDIO, "webhook": "https://"}, "--webhook"),
        ({"input": AUDIO, "webhook": "https://h/a b"}, "--webhook"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_legal(document: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        job_body(document, JobOptions())


def test_limits_of_the_policy_are_legal_themselves() -> None:
    policy = {"ttl": 604_800_000, "executionTimeout": 5_000}
    assert job_body({"input": AUDIO, "policy": policy}, JobOptions())["policy"] == policy


def test_secrets_of_an_input_are_hidden_and_the_rest_is_not() -> None:
    redactor = Redactor()
    s3 = {"accessId": "AKIACANARY", "accessSecret": SECRET, "bucketName": "my-bucket", "endpointUrl": "https://s3.host"}
    hide_secrets(
        redactor, {"input": {"items": [{"hf_token": "hf-canary-1"}], "language": "en-US-long"}, "s3Config": s3}
    )
    shown = redactor.clean(f"AKIACANARY {SECRET} my-bucket https://s3.host hf-canary-1 en-US-long")
    assert shown == f"{HIDDEN} {HIDDEN} my-bucket https://s3.host {HIDDEN} en-US-long"


def test_of_an_answer_only_an_s3_config_is_hidden_and_a_webhook_of_a_job_is() -> None:
    redactor = Redactor()
    hide_secrets(redactor, {"webhook": "https://host/hook-canary-1"})
    answer = {"echo": {"s3Config": {"accessId": "AKIACANARY"}}, "words": [{"token": "because"}]}
    hide_secrets(redactor, (answer, None), is_answer=True)
    assert redactor.clean("https://host/hook-canary-1 AKIACANARY because") == f"{HIDDEN} {HIDDEN} because"


# What became of it


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("boom", "failed: boom"),
        ({"message": "no audio", "error_code": "bad_input"}, "failed: no audio (bad_input)"),
        (json.dumps({"error_type": "<class 'KeyError'>", "error_message": "'x'"}), "failed: 'x' (<class 'KeyError'>)"),
        (["a is bad", "b is bad"], "failed: a is bad; b is bad"),
        ("{not json", "failed: {not json"),
        ("two\nlines", "failed: two lines"),
        (None, "failed"),
    ],
)
def test_the_workers_words_are_one_line(error: Any, words: str) -> None:
    failure = failure_of(Job(id="j1", status="FAILED", error=error), "e1")
    assert failure is not None and str(failure) == f"job j1 {words}"


def test_only_what_ended_without_completing_is_a_failure() -> None:
    for status in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED"):
        assert failure_of(Job(id="j1", status=status), "e1") is None
    late = failure_of(Job(id="j1", status="TIMED_OUT"), "e1")
    assert late is not None and "ran out of time" in str(late) and "--execution-timeout" in late.hint
    gone = failure_of(Job(id="j1", status="CANCELLED"), "e1")
    assert gone is not None and "was cancelled" in str(gone)


def test_progress_shows_what_the_worker_says() -> None:
    assert progress_text(Job(id="j", status="IN_QUEUE"), 3) == "IN_QUEUE 3s"
    assert progress_text(Job(id="j", status="IN_PROGRESS", output={"progress": 0.5}), 70) == "IN_PROGRESS 1m10s 50 %"
    assert progress_text(Job(id="j", status="IN_PROGRESS", output="loading"), 1) == "IN_PROGRESS 1s loading"
    assert progress_text(Job(id="j", status="IN_PROGRESS", output={"x": 1}), 1) == "IN_PROGRESS 1s"


# Verbs


def test_run_prints_the_id_and_remembers_the_job(bench: Bench) -> None:
    (bench.cli.folder / "job.json").write_text(json.dumps({"input": AUDIO}), encoding="utf-8")
    outcome = bench.cli.run("job", "run", "job.json", "--ttl", "10", "--execution-timeout", "5", "--low-priority")
    assert outcome.code == 0, outcome.err
    job_id = outcome.out.strip()
    assert bench.job(job_id).request["policy"] == {"ttl": 10_000, "executionTimeout": 5_000, "lowPriority": True}
    (event,) = bench.events()
    assert (event["action"], event["type"], event["resource_id"]) == ("submitted", "job", job_id)
    assert event["details"] == {"endpoint": bench.endpoint.id}


def test_run_with_wait_prints_the_output_and_how_it_goes(bench: Bench) -> None:
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == {"transcription": "hello", "asked": AUDIO}
    assert "IN_QUEUE" in outcome.err
    document = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json").document
    assert document["status"] == "COMPLETED" and document["endpoint_id"] == bench.endpoint.id
    assert document["execution_ms"] is not None and len(bench.sent()) == 2


def test_run_reads_standard_input_from_a_pipe(bench: Bench) -> None:
    outcome = bench.cli.run("job", "run", "-", "--json", answers=json.dumps({"input": AUDIO}))
    assert outcome.code == 0 and bench.job(outcome.document["job_id"]).request == {"input": AUDIO}


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["run"], 2, "give the job once"),
        (["run", "a.json", "--input", "{}"], 2, "give the job once"),
        (["run", "none.json"], 3, "there is no file none.json"),
        (["run", "--input", "{"], 2, "--input is no JSON"),
        (["run", "--input", '{"a": NaN}'], 2, "NaN is no JSON"),
        (["run", "--input", "[1]"], 2, "must hold a JSON object"),
        (["run", "."], 2, "cannot be read"),
        (["run", "--input", '{"a": 1}', "--ttl", "9"], 2, "legal: 10 to 604800"),
        (["run", "--input", '{"a": 1}', "--execution-timeout", "604801"], 2, "legal: 5 to 604800"),
        (["run", "--input", '{"a": 1}', "--webhook", "nonsense"], 2, "--webhook: legal"),
        (["run", "--input", '{"a": 1}', "--endpoint", "../pods"], 2, "1 to 100 letters"),
        (["run", "--input", '{"a": 1}', "--endpoint", "nobody"], 3, "takes no jobs"),
    ],
)
def test_bad_jobs_are_refused_before_anything_is_sent(bench: Bench, argv: list[str], code: int, words: str) -> None:
    outcome = bench.cli.run("job", *argv, "--json")
    assert outcome.code == code, outcome.err
    assert words in outcome.problem["error"]
    assert bench.sent() == []


def test_a_job_that_is_too_large_is_refused_here(bench: Bench) -> None:
    path = bench.cli.folder / "large.json"
    path.write_text(json.dumps({"input": {"audio_base64": "x" * MAX_RUN_BYTES}}), encoding="utf-8")
    outcome = bench.cli.run("job", "run", "large.json", "--json")
    assert outcome.code == 2 and f"{MAX_RUN_BYTES:,}" in outcome.problem["error"] and bench.sent() == []
    path.write_text(" " * (2 * MAX_RUN_BYTES + 1), encoding="utf-8")
    assert "more than 20,000,000 characters" in bench.cli.run("job", "run", "large.json", "--json").problem["error"]


def test_a_lost_answer_says_that_the_job_may_run_and_sends_no_second(bench: Bench) -> None:
    bench.queue.faults.cut("run", after_commit=True)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--json")
    assert outcome.code == 9 and outcome.problem["code"] == "answer_lost"
    assert "may be queued all the same" in outcome.problem["error"] and "twice" in outcome.problem["hint"]
    assert len(bench.sent()) == 1 and len(bench.queue.store.jobs) == 1


def test_an_error_of_the_server_may_have_queued_it_too(bench: Bench) -> None:
    bench.queue.faults.status("run", 502)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--json")
    assert outcome.code == 9 and "may be queued all the same" in outcome.problem["error"] and len(bench.sent()) == 1


def test_odd_inputs_are_sent_or_refused_without_a_trace_of_python(bench: Bench) -> None:
    deep = '{"a":' + "[" * 900 + "]" * 900 + "}"
    assert bench.cli.run("job", "run", "--input", deep).code == 0
    (bench.cli.folder / "bom.json").write_text(json.dumps(AUDIO), encoding="utf-8-sig")
    assert bench.cli.run("job", "run", "bom.json").code == 0
    endless = bench.cli.run("job", "run", "--input", '{"a": 1e999}', "--json")
    assert endless.code == 2 and "cannot be written as JSON" in endless.problem["error"] and len(bench.sent()) == 2


def test_what_no_job_id_looks_like_is_not_called_forgotten(bench: Bench) -> None:
    for verb in ("status", "stream", "cancel", "retry"):
        outcome = bench.cli.run("job", verb, "a/../b", "--json")
        assert outcome.code == 3 and "an id has letters" in outcome.problem["error"], verb
        assert "forgotten" not in outcome.problem["error"]


def test_secrets_of_a_job_show_nowhere(bench: Bench) -> None:
    bench.plane.endpoints.answer = lambda asked: {"error": f"cannot upload with {SECRET}"}
    body = {"input": AUDIO, "s3Config": {"accessId": "AKIACANARY99", "accessSecret": SECRET, "bucketName": "b"}}
    (bench.cli.folder / "job.json").write_text(json.dumps(body), encoding="utf-8")
    outcome = bench.cli.run("job", "run", "job.json", "--wait")
    assert outcome.code == 1 and "cannot upload with [hidden]" in outcome.err
    diary = (bench.cli.folder / "artifacts" / "events.jsonl").read_text(encoding="utf-8")
    for text in (outcome.out, outcome.err, diary):
        assert SECRET not in text and "AKIACANARY99" not in text


def test_a_failed_job_ends_with_the_workers_words(bench: Bench) -> None:
    bench.plane.endpoints.answer = lambda asked: {"error": "no speech model called x"}
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "job_failed"
    assert (
        "no speech model called x" in outcome.problem["error"]
        and f"--endpoint {bench.endpoint.id}" in outcome.problem["hint"]
    )
    job_id = outcome.problem["error"].split()[1]
    status = bench.cli.run("job", "status", job_id, "--json")
    assert status.code == 1 and status.document["status"] == "FAILED"


def test_a_wait_that_takes_too_long_keeps_the_job_and_says_why(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--timeout", "120", "--json")
    assert outcome.code == 7, outcome.err
    (job_id,) = bench.queue.store.jobs
    problem = outcome.problem
    assert job_id in problem["error"] and "is kept" in problem["error"] and "no machine" in problem["error"]
    assert f"job cancel {job_id} --endpoint {bench.endpoint.id}" in problem["hint"]
    assert outcome.err.count("warning: job") == 1
    assert bench.job(job_id).status == "IN_QUEUE"


def test_a_job_at_a_parked_endpoint_fails_at_once_with_the_cause(bench: Bench) -> None:
    bench.plane.endpoints.park(bench.endpoint.id)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "endpoint_failed", outcome.err
    assert "was parked" in outcome.problem["error"] and "endpoint scale" in outcome.problem["hint"]
    assert bench.plane.clock.monotonic_s() < 120


def test_a_job_whose_workers_crash_shows_their_last_words(bench: Bench) -> None:
    bench.plane.endpoints.fail_boots("you/whisper", "RuntimeError: CUDA out of memory", source="container")
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "endpoint_failed", outcome.err
    assert "does not fit into the GPU's memory" in outcome.problem["error"]


def test_a_pull_that_never_ends_is_named_while_the_job_waits(bench: Bench) -> None:
    bench.plane.endpoints.boot_s = 5_000.0
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--timeout", "900", "--json")
    assert outcome.code == 7 and "its image is pulled slowly" in outcome.problem["error"], outcome.err
    assert "warning: job" in outcome.err


def test_workers_that_idle_beside_the_job_fail_the_wait(bench: Bench) -> None:
    bench.plane.endpoints.simulate = False
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--timeout", "900", "--json")
    assert outcome.code == 1 and outcome.problem["code"] == "endpoint_failed", outcome.err
    assert "does not take them" in outcome.problem["error"]
    # The job is kept: a sound worker may have it yet.
    assert [job.status for job in bench.queue.store.jobs.values()] == ["IN_QUEUE"]


def test_a_wait_that_hears_nothing_any_more_names_the_job(bench: Bench) -> None:
    bench.queue.faults.always("status", 502)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    (job_id,) = bench.queue.store.jobs
    assert outcome.code == 1 and f"job {job_id} goes on" in outcome.problem["error"], outcome.err
    assert f"job status {job_id}" in outcome.problem["hint"]


def test_an_interrupted_wait_says_that_the_job_goes_on(bench: Bench) -> None:
    class Ending(PlaneClock):
        def sleep(self, seconds: float) -> None:
            raise KeyboardInterrupt

    bench.cli.clock = Ending()
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    (job_id,) = bench.queue.store.jobs
    assert outcome.code == 130 and f"job {job_id} goes on" in outcome.problem["error"]
    assert bench.job(job_id).status == "IN_QUEUE"


def test_a_job_is_lost_with_its_endpoint(bench: Bench) -> None:
    job_id = bench.cli.run("job", "run", "--input", json.dumps(AUDIO)).out.strip()
    bench.plane.endpoints.delete(bench.endpoint.id)
    outcome = bench.cli.run("job", "status", job_id, "--json")
    assert outcome.code == 3 and job_id in outcome.problem["error"]


def test_a_forgotten_job_is_said_to_be_forgotten(bench: Bench) -> None:
    job_id = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json").document["job_id"]
    assert bench.cli.run("job", "status", job_id, "--json").document["output"]["transcription"] == "hello"
    bench.plane.clock.advance(1_801)
    for verb in ("status", "stream", "cancel", "retry"):
        outcome = bench.cli.run("job", verb, job_id, "--json")
        assert outcome.code == 3 and "kept 30 minutes" in outcome.problem["error"], (verb, outcome.err)


def test_a_job_is_looked_for_where_it_was_sent(bench: Bench) -> None:
    other = bench.add(name="other-0101-abc123")
    job_id = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--endpoint", other.id, "--json").document[
        "job_id"
    ]
    outcome = bench.cli.run("job", "status", job_id, "--json")
    assert outcome.code == 0 and outcome.document["endpoint_id"] == other.id
    assert bench.cli.run("job", "status", job_id, "--endpoint", bench.endpoint.id).code == 3


def test_faults_that_pass_do_not_end_a_wait(bench: Bench) -> None:
    job_id = bench.cli.run("job", "run", "--input", json.dumps(AUDIO)).out.strip()
    bench.queue.faults.status("status", 502, times=7)
    bench.queue.faults.cut("status", times=2)
    assert bench.cli.run("job", "status", job_id).code in (0, 1, 9)
    outcome = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait")
    assert outcome.code == 0, outcome.err


def test_cancel_tries_all_and_says_what_was_over(bench: Bench) -> None:
    done = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json").document["job_id"]
    bench.plane.endpoints.throttle(99)
    bench.plane.clock.advance(60)
    waits = bench.cli.run("job", "run", "--input", json.dumps(AUDIO)).out.strip()
    outcome = bench.cli.run("job", "cancel", done, "unknown-u1", waits)
    assert outcome.code == 3 and "unknown-u1" in outcome.err
    assert f"{done} COMPLETED: it was over already" in outcome.out and f"{waits} CANCELLED" in outcome.out
    assert bench.job(waits).status == "CANCELLED"


def test_retry_runs_a_failed_job_again_under_its_id_and_no_other(bench: Bench) -> None:
    bench.plane.endpoints.answer = lambda asked: {"error": "first time"}
    failed = bench.cli.run("job", "run", "--input", json.dumps(AUDIO), "--wait", "--json")
    (job_id,) = bench.queue.store.jobs
    assert failed.code == 1
    bench.plane.endpoints.answer = lambda asked: {"output": "second time"}
    bench.queue.faults.cut("retry", after_commit=True)
    again = bench.cli.run("job", "retry", job_id, "--json")
    assert again.code == 0 and again.document["job_id"] == job_id, again.err
    bench.plane.clock.advance(120)
    assert bench.cli.run("job", "status", job_id, "--json").document["output"] == "second time"
    refused = bench.cli.run("job", "retry", job_id, "--json")
    assert refused.code == 1 and refused.problem["code"] == "conflict" and "is COMPLETED" in refused.problem["error"]


def test_stream_prints_pieces_until_the_job_is_over(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    job_id = bench.submit()
    with bench.queue.lock:
        job = bench.queue.store.job(job_id)
        job.chunks += [{"output": "first"}, {"output": {"text": "second"}}]
        job.status, job.ended_s = "COMPLETED", bench.plane.clock.unix_s()
    outcome = bench.cli.run("job", "stream", job_id, "--json")
    assert outcome.code == 0, outcome.err
    assert [json.loads(line) for line in outcome.out.splitlines()] == [{"output": "first"}, {"text": "second"}]
    # Each piece comes once.
    again = bench.cli.run("job", "stream", job_id)
    assert again.code == 0 and again.out == "" and "gave no pieces" in again.err


def test_a_stream_that_hears_nothing_any_more_names_the_job(bench: Bench) -> None:
    job_id = bench.submit()
    bench.queue.faults.always("stream", 502)
    outcome = bench.cli.run("job", "stream", job_id, "--json")
    assert outcome.code == 1 and f"job {job_id} goes on" in outcome.problem["error"], outcome.err
    assert f"job cancel {job_id} --endpoint {bench.endpoint.id}" in outcome.problem["hint"]


def test_stream_warns_of_pieces_that_a_lost_answer_took_with_it(bench: Bench) -> None:
    bench.plane.endpoints.throttle(99)
    job_id = bench.submit()
    with bench.queue.lock:
        job = bench.queue.store.job(job_id)
        job.chunks += [{"output": "lost"}]
        job.status, job.error, job.ended_s = "FAILED", "it broke", bench.plane.clock.unix_s()
    bench.queue.faults.cut("stream", after_commit=True)
    outcome = bench.cli.run("job", "stream", job_id)
    assert outcome.code == 1 and "it broke" in outcome.err and "pieces may be missing" in outcome.err
