"""The job API over real HTTP: what is sent once, what is repeated, and what is refused before it is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from builder.api.connect import connect_jobs
from builder.api.http import Http
from builder.api.jobs import MAX_RUN_BYTES, JobApi, run_bytes
from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BadRequestError,
    BuilderError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    UsageError,
)
from builder.redact import Redactor
from builder.settings import read_settings
from tests.builder_scripted import KEY, Step, Wire, free_port, scripted
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.jobs import PlaneRules
from tests.fakes.runpod.queue_plane import QueuePlane

BODY = {"input": {"audio": "https://host/a.mp3"}}
CUT = Step(cut="close")


@pytest.fixture
def plane() -> Iterator[QueuePlane]:
    with QueuePlane(rules=PlaneRules(hold_s=0.05)) as queue:
        yield queue


def client(base: str, key: str = "client-key") -> JobApi:
    clock = PlaneClock()
    return JobApi(Http(base, key=key, clock=clock, redactor=Redactor(), note=lambda text: None, draw=lambda: 0.5))


def work(plane: QueuePlane, job_id: str, result: dict[str, Any], *chunks: Any) -> None:
    """What a worker does with one job."""
    assert [job["id"] for job in plane.store.take("w1", 1)] == [job_id]
    for chunk in chunks:
        plane.store.chunk("w1", job_id, {"output": chunk})
    plane.store.done("w1", job_id, result)


def test_a_job_from_its_submission_to_its_result(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    job = api.run("ep", {**BODY, "policy": {"ttl": 60_000}})
    assert (job.status, job.is_over) == ("IN_QUEUE", False)
    assert json.loads(plane.requests("run")[0]["body"]) == {**BODY, "policy": {"ttl": 60_000}}
    assert api.health("ep").jobs["inQueue"] == 1
    work(plane, job.id, {"output": {"text": "a"}}, {"piece": 1}, {"piece": 2})
    first, second = api.stream("ep", job.id), api.stream("ep", job.id)
    assert [each["output"] for each in first.stream] == [{"piece": 1}, {"piece": 2}]
    assert (second.status, second.stream) == ("COMPLETED", ())
    done = api.status("ep", job.id)
    assert (done.status, done.output, done.worker_id, done.is_over) == ("COMPLETED", {"text": "a"}, "w1", True)
    assert done.delay_ms is not None and done.execution_ms is not None
    assert api.health("ep").jobs["completed"] == 1


def test_cancel_retry_and_purge(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    failed, waiting, third = (api.run("ep", BODY).id for _ in range(3))
    work(plane, failed, {"error": "out of memory"})
    assert api.status("ep", failed).error == "out of memory"
    assert api.cancel("ep", waiting).status == "CANCELLED"
    assert api.cancel("ep", waiting).status == "CANCELLED"
    with pytest.raises(BadRequestError, match=f"retry job {waiting}"):
        api.retry("ep", waiting)
    again = api.retry("ep", failed)
    assert (again.id, again.status) == (failed, "IN_QUEUE")
    assert api.purge("ep") == 2
    assert api.purge("ep") == 0
    assert api.status("ep", third).is_over


def test_what_is_not_known_is_not_found_and_a_wrong_key_is_refused(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    for call in (api.status, api.stream, api.cancel, api.retry):
        with pytest.raises(NotFoundError, match="no-job"):
            call("ep", "no-job")
    with pytest.raises(NotFoundError, match="endpoint other"):
        api.run("other", BODY)
    with pytest.raises(AuthError) as caught:
        client(plane.base_url, "wrong-key-1234").run("ep", BODY)
    assert "wrong-key" not in str(caught.value)
    assert not plane.store.jobs


@pytest.mark.parametrize("bad", ["..", "a/b", "", "p?x=1", "j\n", "x" * 101])
def test_what_is_no_id_never_gets_into_a_path(bad: str) -> None:
    with scripted() as wire:
        api = JobApi(wire.http())
        of_endpoint: list[Callable[[], Any]] = [
            lambda: api.run(bad, BODY),
            lambda: api.purge(bad),
            lambda: api.health(bad),
            lambda: api.status(bad, "j"),
        ]
        for call in of_endpoint:
            with pytest.raises(NotFoundError, match="no endpoint "):
                call()
        for job_call in (api.status, api.stream, api.cancel, api.retry):
            with pytest.raises(NotFoundError, match="no job "):
                job_call("ep", bad)
        assert wire.script.asked == []


# Sizes


def sized(n_bytes: int) -> dict[str, Any]:
    frame = run_bytes({"input": {"audio_base64": ""}})
    return {"input": {"audio_base64": "A" * (n_bytes - frame)}}


def test_the_largest_body_is_taken_and_one_more_byte_is_not_sent(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    assert api.run("ep", sized(MAX_RUN_BYTES)).status == "IN_QUEUE"
    assert len(plane.requests("run")) == 1
    with pytest.raises(UsageError, match="10,000,001 bytes; legal: up to 10,000,000"):
        api.run("ep", sized(MAX_RUN_BYTES + 1))
    assert len(plane.requests("run")) == 1


def test_text_counts_as_it_is_sent() -> None:
    with scripted(Step(200, {"id": "j", "status": "IN_QUEUE"})) as wire:
        body = {"input": {"initial_prompt": "naïve 中文 \U0001f600"}}
        JobApi(wire.http()).run("ep", body)
        assert len(wire.script.asked[0].body) == run_bytes(body)
        assert wire.script.asked[0].json == body
        assert wire.script.asked[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("value", [float("nan"), b"bytes", object()])
def test_what_is_no_json_is_not_sent(value: object) -> None:
    with scripted() as wire:
        with pytest.raises(UsageError, match="JSON"):
            JobApi(wire.http()).run("ep", {"input": value})
        assert wire.script.asked == []


def test_a_platform_that_takes_less_says_so() -> None:
    with QueuePlane(rules=PlaneRules(run_bytes=100)) as plane, pytest.raises(BadRequestError, match="over 100 bytes"):
        client(plane.base_url).run("ep", sized(101))


# Faults


def test_a_run_whose_answer_is_lost_is_not_repeated(plane: QueuePlane) -> None:
    plane.faults.cut("run", after_commit=True)
    with pytest.raises(AmbiguousError, match="submit a job to endpoint ep"):
        client(plane.base_url).run("ep", BODY)
    assert len(plane.store.jobs) == 1


@pytest.mark.parametrize("step", [CUT, Step(200, "<html>busy</html>"), Step(200, {"status": "IN_QUEUE"}), Step(200)])
def test_a_run_whose_answer_cannot_be_used_may_have_happened(step: Step) -> None:
    with scripted(step) as wire:
        with pytest.raises(AmbiguousError):
            JobApi(wire.http()).run("ep", BODY)
        assert len(wire.script.asked) == 1


def test_a_run_waits_out_a_limit_and_nothing_else() -> None:
    busy = Step(429, {"error": "too many requests"}, {"Retry-After": "2"})
    with scripted(busy, Step(200, {"id": "j", "status": "IN_QUEUE"}), Step(502, "<html>Bad Gateway</html>")) as wire:
        api = JobApi(wire.http())
        assert api.run("ep", BODY).id == "j"
        assert wire.clock.monotonic_s() >= 2
        with pytest.raises(ServerFaultError, match="502"):
            api.run("ep", BODY)
    with pytest.raises(NetworkError) as caught:
        client(f"http://127.0.0.1:{free_port()}/v2").run("ep", BODY)
    assert not isinstance(caught.value, AmbiguousError)


def test_an_id_that_no_path_takes_is_not_taken_from_an_answer() -> None:
    with (
        scripted(Step(200, {"id": "../j", "status": "IN_QUEUE"})) as wire,
        pytest.raises(AmbiguousError, match="no id"),
    ):
        JobApi(wire.http()).run("ep", BODY)


def test_a_status_comes_through_lost_answers_and_pages(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    job_id = api.run("ep", BODY).id
    plane.faults.cut("status")
    plane.faults.status("status", 502)
    plane.faults.status("status", 200)
    assert api.status("ep", job_id).status == "IN_QUEUE"
    assert len(plane.requests("status")) == 4


def test_a_stream_whose_answer_is_lost_is_not_asked_for_again(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    job_id = api.run("ep", BODY).id
    work(plane, job_id, {"output": {"text": "a"}}, {"piece": 1})
    plane.faults.status("stream", 429)
    plane.faults.cut("stream", after_commit=True)
    with pytest.raises(NetworkError) as caught:
        api.stream("ep", job_id)
    assert not isinstance(caught.value, AmbiguousError)
    assert len(plane.requests("stream")) == 2
    assert api.stream("ep", job_id).stream == ()
    plane.faults.status("stream", 200)
    with pytest.raises(BadAnswerError, match="not JSON"):
        api.stream("ep", job_id)


def test_a_cancel_whose_answer_is_lost_is_sent_again(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    job_id = api.run("ep", BODY).id
    plane.faults.cut("cancel", after_commit=True)
    assert api.cancel("ep", job_id).status == "CANCELLED"
    assert len(plane.requests("cancel")) == 2


def test_a_retry_or_purge_whose_answer_is_lost_may_have_happened(plane: QueuePlane) -> None:
    api = client(plane.base_url)
    job_id = api.run("ep", BODY).id
    work(plane, job_id, {"error": "x"})
    plane.faults.cut("retry", after_commit=True)
    plane.faults.cut("purge-queue", after_commit=True)
    with pytest.raises(AmbiguousError, match="retry job"):
        api.retry("ep", job_id)
    assert api.status("ep", job_id).status == "IN_QUEUE"
    with pytest.raises(AmbiguousError, match="purge the queue"):
        api.purge("ep")
    assert (len(plane.requests("retry")), len(plane.requests("purge-queue"))) == (1, 1)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step(200, {"status": "IN_QUEUE"}), BadAnswerError),
        (Step(200, [1]), BadAnswerError),
        (Step(200), BadAnswerError),
        (Step(302, "", {"Location": "https://elsewhere/"}), BadAnswerError),
        (Step(429, "", {"Retry-After": "3600"}), RateLimitedError),
    ],
)
def test_answers_of_no_use_have_an_error(step: Step, error: type[BuilderError]) -> None:
    with scripted(step) as wire, pytest.raises(error, match="read job j1"):
        JobApi(wire.http()).status("ep", "j1")


def test_the_settings_say_where_the_jobs_go() -> None:
    with scripted(Step(200, {"jobs": {}, "workers": {"idle": 1}})) as wire:
        environ = {"RUNPOD_API_KEY": KEY, "RUNPOD_JOB_BASE": f"{wire.script.url}/jobs/v2/"}
        made = Wire(wire.script)
        api = connect_jobs(read_settings(environ, {}), made.clock, made.redactor, made.notes.append, environ)
        assert api.health("ep").workers == {"idle": 1}
        assert wire.script.calls == ["GET /jobs/v2/ep/health"]
