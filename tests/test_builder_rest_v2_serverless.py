"""Endpoints, workers and templates of REST v2 over real HTTP: bodies, lost answers, deletes that are believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from builder.api.models_serverless import Endpoint, EndpointGpu, EndpointSpec, TemplateSpec, WorkersSpec
from builder.api.rest_v2 import RestV2
from builder.api.spec_use import USED
from builder.endpoints.options import Scale
from builder.endpoints.spec import Change, EndpointOptions, patch_of, template_patch
from builder.errors import (
    AmbiguousError,
    BadAnswerError,
    BadRequestError,
    CapacityError,
    NotFoundError,
    ServerFaultError,
)
from tests.builder_scripted import Step, Wire, scripted

TEMPLATE = TemplateSpec(name="whisper-1", image="user/image:tag", env={"A": "b"}, disk=20)
SPEC = EndpointSpec(
    name="whisper-1",
    type="QUEUE",
    template_id="tpl1",
    gpu=EndpointGpu(pools=("AMPERE_16", "ADA_24"), min_cuda_version="12.4"),
    workers=WorkersSpec(min=0, max=3, idle_timeout=10),
    scaling={"type": "QUEUE_DELAY", "queueDelay": 4},
    flashboot="FLASHBOOT",
    timeout=3_600_000,
)
ENDPOINT: dict[str, Any] = {
    "id": "ep1",
    "name": "whisper-1",
    "type": "QUEUE",
    "image": "user/image:tag",
    "env": {"A": "b"},
    "ports": [],
    "disk": 20,
    "registry": None,
    "workers": {"min": 0, "max": 3, "idleTimeout": 10},
    "gpu": {"pools": ["AMPERE_16"], "count": 1},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    "flashboot": "FLASHBOOT",
    "timeout": 3600000,
    "createdAt": "2026-01-01T00:00:00Z",
    "somethingNew": {"of": "tomorrow"},
}
STORED: dict[str, Any] = {"id": "tpl1", "name": "whisper-1", "image": "user/image:tag", "serverless": True}
SUMMARY = {"running": 0, "idle": 1, "initializing": 0, "throttled": 0, "unhealthy": 0, "total": 1}
WORKER = {"id": "w1", "status": "IDLE", "isStale": True, "version": 3, "uptimeSeconds": 7, "gpuTypeId": "NVIDIA L4"}
GONE = Step(404, {"detail": "not found"})
CUT = Step(cut="close")
FAULT = Step(503, {"detail": "not now"})


def api(wire: Wire) -> RestV2:
    return RestV2(wire.http())


def test_an_endpoint_is_read_with_fields_of_tomorrow() -> None:
    with scripted(Step(200, {"endpoints": [ENDPOINT]}), FAULT, Step(200, ENDPOINT)) as wire:
        (listed,) = api(wire).endpoints()
        read = api(wire).get_endpoint("ep1")
        assert wire.script.calls == ["GET /serverless", "GET /serverless/ep1", "GET /serverless/ep1"]
    assert listed == read
    assert (read.min_workers, read.max_workers, read.timeout) == (0, 3, 3_600_000)


@pytest.mark.parametrize("bad", ["..", "a/b", "", "p?x=1", "p\n", "x" * 101])
def test_what_is_no_id_never_gets_into_a_path(bad: str) -> None:
    with scripted() as wire:
        client = api(wire)
        calls: list[tuple[str, Callable[[], Any]]] = [
            ("endpoint", lambda: client.get_endpoint(bad)),
            ("endpoint", lambda: client.update_endpoint(bad, {})),
            ("endpoint", lambda: client.delete_endpoint(bad)),
            ("endpoint", lambda: client.endpoint_workers(bad)),
            ("endpoint", lambda: client.endpoint_releases(bad)),
            ("endpoint", lambda: list(client.worker_logs(bad, "w"))),
            ("worker", lambda: list(client.worker_logs("ep1", bad))),
            ("template", lambda: client.update_template(bad, {})),
            ("template", lambda: client.delete_template(bad)),
        ]
        for what, call in calls:
            with pytest.raises(NotFoundError, match=f"no {what} "):
                call()
        assert wire.script.asked == []


def test_creates_send_the_document_s_fields_once() -> None:
    with scripted(Step(201, STORED), Step(201, ENDPOINT)) as wire:
        assert api(wire).create_template(TEMPLATE).id == "tpl1"
        assert api(wire).create_endpoint(SPEC).id == "ep1"
        template, endpoint = wire.script.asked
        assert wire.script.calls == ["POST /templates", "POST /serverless"]
    assert template.json == {
        "name": "whisper-1",
        "image": "user/image:tag",
        "env": {"A": "b"},
        "disk": 20,
        "serverless": True,
        "public": False,
        "startSsh": False,
        "startJupyter": False,
    }
    assert endpoint.json == {
        "name": "whisper-1",
        "type": "QUEUE",
        "templateId": "tpl1",
        "gpu": {"pools": ["AMPERE_16", "ADA_24"], "count": 1, "minCudaVersion": "12.4"},
        "workers": {"min": 0, "max": 3, "idleTimeout": 10},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
        "flashboot": "FLASHBOOT",
        "timeout": 3600000,
    }


@pytest.mark.parametrize(
    "step",
    [CUT, Step(201), Step(201, "<html>"), Step(201, {"id": "ep1"}), Step(201, {"id": "../x", "name": "n"})],
)
def test_a_create_whose_answer_cannot_be_used_may_have_happened(step: Step) -> None:
    with scripted(step, step) as wire:
        with pytest.raises(AmbiguousError, match="create endpoint"):
            api(wire).create_endpoint(SPEC)
        with pytest.raises(AmbiguousError, match="create template"):
            api(wire).create_template(TEMPLATE)
        assert len(wire.script.asked) == 2


def test_a_create_is_repeated_for_a_limit_alone() -> None:
    limit = Step(429, {"detail": "slow down"}, {"Retry-After": "1"})
    with scripted(limit, Step(201, ENDPOINT), FAULT, FAULT) as wire:
        assert api(wire).create_endpoint(SPEC).id == "ep1"
        with pytest.raises(ServerFaultError):
            api(wire).create_endpoint(SPEC)
        with pytest.raises(ServerFaultError):
            api(wire).create_template(TEMPLATE)
        assert wire.script.calls == ["POST /serverless"] * 3 + ["POST /templates"]


def test_refusals_say_why() -> None:
    rules = Step(422, {"detail": "x", "errors": ["$.workers.idleTimeout: not with REQUEST_COUNT"]})
    full = Step(400, {"detail": "There are no longer any instances available with the requested specifications."})
    with scripted(rules, full) as wire:
        with pytest.raises(BadRequestError, match="idleTimeout"):
            api(wire).create_endpoint(SPEC)
        with pytest.raises(CapacityError) as caught:
            api(wire).create_endpoint(SPEC.model_copy(update={"data_center_ids": ("EU-RO-1",)}))
    assert "EU-RO-1" in caught.value.hint


def test_a_change_whose_answer_cannot_be_read_may_have_happened() -> None:
    with scripted(Step(200, {"name": "whisper-1"}), Step(200, {"id": "../x", "name": "n"})) as wire:
        with pytest.raises(AmbiguousError):
            api(wire).update_endpoint("ep1", {"workers": {"min": 0, "max": 5}})
        with pytest.raises(AmbiguousError, match="no id"):
            api(wire).update_template("tpl1", {"image": "i"})
        assert len(wire.script.calls) == 2


def test_every_field_that_a_change_may_send_is_watched_in_the_document() -> None:
    scale = Scale(min=0, max=3, idle_s=10, queue_delay_s=4, requests_per_worker=None, job_timeout_s=600)
    options = EndpointOptions("endpoint", "i:1", {}, SPEC.gpu, scale, data_centers=("EU-RO-1",))
    fields = ("image", "disk", "ports", "registry", "env", "gpu", "workers", "scaling", "timeout", "flashboot")
    changes = [Change(name, "-", "x") for name in (*fields, "dataCenterIds")]
    patch = patch_of(Endpoint(id="e1", name="n"), options, changes, "b-1")
    watched = USED["updateEndpoint"].body, USED["updateTemplate"].body
    assert sorted(patch) == sorted(watched[0]) if isinstance(watched[0], tuple) else False
    assert isinstance(watched[1], tuple) and {f"{name}*" for name in template_patch(options, "b-1")} == set(watched[1])


def test_updates_are_repeated() -> None:
    with scripted(FAULT, CUT, Step(200, ENDPOINT), CUT, Step(200, STORED)) as wire:
        assert api(wire).update_endpoint("ep1", {"workers": {"min": 0, "max": 5}}).id == "ep1"
        assert api(wire).update_template("tpl1", {"image": "i"}).id == "tpl1"
        assert wire.script.calls == ["PATCH /serverless/ep1"] * 3 + ["PATCH /templates/tpl1"] * 2
        assert (wire.script.asked[2].json, wire.script.asked[4].json) == (
            {"workers": {"min": 0, "max": 5}},
            {"image": "i"},
        )


# Deletes


def test_deletes_answer_nothing_or_find_nothing_after_a_lost_answer() -> None:
    steps = [Step(204), Step(204), CUT, GONE, Step(200, {"endpoints": []}), CUT, GONE, Step(200, {"templates": []})]
    with scripted(*steps) as wire:
        for delete_one, thing_id in [(api(wire).delete_endpoint, "ep1"), (api(wire).delete_template, "tpl1")] * 2:
            delete_one(thing_id)
        assert wire.script.calls[2:] == [
            *["DELETE /serverless/ep1"] * 2,
            "GET /serverless",
            *["DELETE /templates/tpl1"] * 2,
            "GET /templates",
        ]


def test_an_api_that_moved_does_not_pass_for_one_that_deleted() -> None:
    with scripted(GONE, GONE, GONE, GONE) as wire:
        with pytest.raises(NotFoundError, match="list endpoints"):
            api(wire).delete_endpoint("ep1")
        with pytest.raises(NotFoundError, match="list templates"):
            api(wire).delete_template("tpl1")
    with scripted(GONE, Step(200, {"endpoints": [ENDPOINT]})) as wire:
        with pytest.raises(BadAnswerError, match="no such endpoint, and lists it") as caught:
            api(wire).delete_endpoint("ep1")
        assert "billed" in caught.value.hint
    with (
        scripted(GONE, Step(200, {"templates": [STORED]})) as wire,
        pytest.raises(BadAnswerError, match="no such template, and lists it"),
    ):
        api(wire).delete_template("tpl1")


# Reading


def test_workers_and_releases() -> None:
    release = {"id": "r2", "version": 3, "createdAt": "2026-01-01T00:00:00Z", "workerCount": 0, "diff": [{"a": 1}]}
    rollout = {"inProgress": True, "workersOnLatest": 0, "workersTotal": 1, "percentOnLatest": 0}
    workers = {"workers": [WORKER], "summary": SUMMARY, "endpointVersion": 4}
    releases = {"endpointVersion": 4, "rollout": rollout, "releases": [release]}
    with scripted(Step(200, workers), Step(200, releases), Step(200, {"workers": []})) as wire:
        seen = api(wire).endpoint_workers("ep1")
        history = api(wire).endpoint_releases("ep1")
        with pytest.raises(BadAnswerError, match="'summary'"):
            api(wire).endpoint_workers("ep1")
        assert wire.script.calls[:2] == ["GET /serverless/ep1/workers", "GET /serverless/ep1/releases"]
    (worker,) = seen.workers
    assert (worker.status, worker.is_stale, worker.uptime_s, worker.gpu_type_id) == ("IDLE", True, 7, "NVIDIA L4")
    assert (seen.summary.idle, seen.summary.total, seen.endpoint_version) == (1, 1, 4)
    assert history.rollout.in_progress and history.releases[0].version == 3


def test_a_worker_s_log_comes_as_events_and_resumes() -> None:
    chunks = [
        b'id: x1\ndata: {"ts":"t1","source":"container","line":"a"}\n\n: ping\n\ndata: junk\n\n',
        b'id: x2\ndata: {"ts":"t2","source":"system","line":"b"}\n\n',
    ]
    with scripted(Step(chunks=chunks)) as wire:
        lines = list(api(wire).worker_logs("ep1", "w1", source="system", tail=5, last_event_id="x0", idle_s=2.0))
        (asked,) = wire.script.asked
    assert [(each.id, each.line) for each in lines] == [("x1", "a"), ("x2", "b")]
    assert asked.path == "/serverless/ep1/workers/w1/logs?source=system&tail=5"
    assert asked.headers["last-event-id"] == "x0"


def test_templates_and_the_catalog_of_workers() -> None:
    bodies = [{"templates": [STORED]}, {"gpus": []}]
    with scripted(*[Step(200, body) for body in bodies]) as wire:
        client = api(wire)
        assert client.templates()[0].serverless
        client.gpu_types(product="SERVERLESS")
        assert wire.script.calls[0] == "GET /templates"
        assert wire.script.calls[1] == "GET /catalog/gpus?include=AVAILABILITY&product=SERVERLESS&count=1"
