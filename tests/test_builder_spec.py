"""The comparison of API descriptions; and that no operation of RunPod's REST API v2 is overlooked."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from builder.api.connect import connect
from builder.api.control_plane import ControlPlane
from builder.api.models import GpuRequest, PodSpec
from builder.api.models_serverless import EndpointGpu, EndpointSpec, TemplateSpec, WorkersSpec
from builder.api.spec_diff import Difference, compare, known_summary
from builder.api.spec_summary import operations, summarise
from builder.api.spec_use import USED, WAIVED
from builder.clock import SystemClock
from builder.errors import BadAnswerError
from builder.redact import Redactor
from builder.settings import read_settings
from tests.builder_harness import Cli
from tests.fakes.runpod.contract import document_path
from tests.fakes.runpod.control_plane import ControlPlane as Plane


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def content(schema: dict[str, str], kind: str = "json") -> dict[str, Any]:
    return {"content": {f"application/{kind}": {"schema": schema}}}


TEXT, FLAG, SIZE = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 1}
HEADER = {"in": "header", "name": "Last-Event-ID", "schema": TEXT}
LOGS, TAIL = "/pods/{id}/logs", {"type": "integer", "maximum": 5000}
SMALL: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"version": "1"},
    "servers": [{"url": "https://host"}],
    "paths": {
        "/pods": {
            "get": {"operationId": "listPods", "responses": {"200": {"$ref": "#/components/responses/Pods"}}},
            "post": {
                "operationId": "createPod",
                "parameters": [{"in": "query", "name": "dry", "schema": FLAG}],
                "requestBody": content(ref("New")),
                "responses": {"201": content(ref("Pod")), "4XX": content(ref("Problem"), "problem+json")},
            },
        },
        LOGS: {
            "get": {
                "operationId": "getPodLogs",
                "parameters": [HEADER, {"in": "query", "name": "tail", "schema": TAIL}],
                "responses": {"200": {"content": {"text/event-stream": {"schema": TEXT}}}},
            }
        },
        "/clusters": {"get": {"operationId": "listClusters", "responses": {}}},
    },
    "components": {
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        "responses": {"Pods": content(ref("Pods"))},
        "schemas": {
            "Pods": {"properties": {"pods": {"type": "array", "items": ref("Pod")}}},
            "Pod": {
                "required": ["id"],
                "properties": {
                    "id": TEXT,
                    "status": {"enum": ["RUNNING", "EXITED"]},
                    "cost": {"type": "number"},
                    "ssh": TEXT,
                    "env": {"type": "object", "additionalProperties": TEXT},
                    "runtime": {"type": "object", "properties": {"uptime": {"type": ["integer", "null"]}}},
                },
            },
            "New": {"allOf": [ref("Base"), {"required": ["name"]}]},
            "Base": {"properties": {"name": TEXT, "image": TEXT, "disk": SIZE, "cloud": ref("Tier"), "startSsh": FLAG}},
            "Tier": {"enum": ["SECURE", "COMMUNITY"]},
            "Problem": {"properties": {"detail": TEXT}},
        },
    },
}
ONLY = ("listPods", "createPod", "getPodLogs")


@pytest.fixture
def document() -> Any:
    path = document_path()
    if path is None:
        pytest.skip("RunPod's OpenAPI document is not here (see RUNPOD_OPENAPI_SPEC)")
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_operation_is_used_or_waived_with_a_reason(document: Any) -> None:
    names = {name for name, *_ in operations(document)}
    assert len(names) > 50
    assert names == USED.keys() | WAIVED.keys()


def test_the_committed_summary_is_that_of_the_document(document: Any) -> None:
    assert summarise(document, USED) == known_summary()


def test_used_and_waived_are_told_apart_and_used_ones_exist() -> None:
    assert not USED.keys() & WAIVED.keys()
    assert all(len(reason) > 10 for reason in WAIVED.values())
    assert all(hasattr(ControlPlane, use.method) for use in USED.values())
    assert known_summary()["operations"].keys() == USED.keys()


def test_a_summary_follows_references_and_names_types() -> None:
    summary = summarise(SMALL, ONLY)
    assert summary["operations"]["createPod"] == {
        "call": "POST /pods",
        "parameters": {"?dry": "boolean"},
        "request": "New",
        "answers": {"201": "Pod"},
        "refusal": "Problem",
    }
    assert summary["api"] == {"server": "https://host", "security": "http bearer"}
    assert summary["others"] == {"listClusters": "GET /clusters"}
    assert summary["answers"]["Pod"] == {
        "cost": "number",
        "env": "{string}",
        "id": "string, required",
        "runtime": "object",
        "runtime.uptime": "integer|null",
        "ssh": "string",
        "status": "one of EXITED / RUNNING",
    }
    assert summary["answers"]["Pods"] == {"pods": "[Pod]"}
    assert summary["requests"]["New"]["name"] == "string, required"
    assert summary["requests"]["New"]["disk minimum"] == "1"


Edit = Callable[[dict[str, Any]], object]


def after(edit: Edit) -> Difference:
    document = copy.deepcopy(SMALL)
    edit(document)
    return compare(summarise(SMALL, ONLY), summarise(document, ONLY))


def schema(document: dict[str, Any], name: str) -> Any:
    return document["components"]["schemas"][name]


def fields(document: dict[str, Any], name: str) -> Any:
    return schema(document, name)["properties"]


def renamed(document: dict[str, Any], old: str, new: str) -> None:
    text = json.dumps(document).replace(f'schemas/{old}"', f'schemas/{new}"').replace(f'"{old}": ', f'"{new}": ')
    document.update(json.loads(text))


NEEDED = {"in": "query", "name": "team", "required": True, "schema": {"type": "string"}}
BREAKING: dict[str, Edit] = {
    "parameter of all operations of a path": lambda d: d["paths"]["/pods"].update(parameters=[NEEDED]),
    "header": lambda d: d["paths"]["/pods"]["get"].update(parameters=[{**NEEDED, "in": "header"}]),
    "header that is sent gone": lambda d: d["paths"][LOGS]["get"]["parameters"].pop(0),
    "lower maximum": lambda d: d["paths"][LOGS]["get"]["parameters"][1]["schema"].update(maximum=500),
    "higher minimum": lambda d: fields(d, "Base")["disk"].update(minimum=50),
    "first pattern": lambda d: fields(d, "Base")["image"].update(pattern="^a"),
    "never sent and asked for by another part": lambda d: schema(d, "New")["allOf"][1].update(required=["startSsh"]),
    "new and asked for": lambda d: (fields(d, "Base").update(a=TEXT), schema(d, "Base").update(required=["a"])),
    "read and gone": lambda d: fields(d, "Pod").pop("id"),
    "read and of another type": lambda d: fields(d, "Pod").update(id={"type": "integer"}),
    "sent and gone": lambda d: fields(d, "Base").pop("image"),
    "text of errors gone": lambda d: fields(d, "Problem").clear(),
    "address": lambda d: d.update(servers=[{"url": "https://elsewhere"}]),
    "security": lambda d: d["components"].update(securitySchemes={"k": {"type": "apiKey", "name": "X-Key"}}),
    "choice to send gone": lambda d: schema(d, "Tier")["enum"].remove("COMMUNITY"),
    "answer may be null": lambda d: fields(d, "Pod")["cost"].update(type=["number", "null"]),
    "answer sometimes without what is not done without": lambda d: schema(d, "Pod").update(required=[]),
}
HARMLESS: dict[str, Edit] = {
    "word in an answer": lambda d: fields(d, "Pod")["status"]["enum"].append("PAUSED"),
    "no such word in an answer": lambda d: fields(d, "Pod")["status"]["enum"].remove("EXITED"),
    "choice to send": lambda d: schema(d, "Tier")["enum"].append("ALL"),
    "new in an answer": lambda d: fields(d, "Pod").update(new=TEXT),
    "new to send": lambda d: fields(d, "Base").update(new=TEXT),
    "never read": lambda d: fields(d, "Pod").pop("ssh"),
    "never sent": lambda d: fields(d, "Base").pop("startSsh"),
    "always sent": lambda d: schema(d, "New")["allOf"][1].update(required=["name", "cloud"]),
    "never sent parameter": lambda d: d["paths"]["/pods"]["post"].pop("parameters"),
    "default": lambda d: fields(d, "Base")["disk"].update(default=5),
    "looser limit": lambda d: fields(d, "Base")["disk"].pop("minimum"),
    "old": lambda d: d["paths"]["/pods"]["get"].update(deprecated=True),
}
SAME: dict[str, Edit] = {
    "order of choices": lambda d: fields(d, "Pod")["status"]["enum"].reverse(),
    "name of a path's parameter": lambda d: d["paths"].update({"/pods/{p}/logs": d["paths"].pop(LOGS)}),
    "name of a schema": lambda d: renamed(d, "Pod", "PodV2"),
    "name of a choice": lambda d: renamed(d, "Tier", "Cloud"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_is_sent_or_read_and_gone_or_narrower_breaks(name: str) -> None:
    assert after(BREAKING[name]).breaks


@pytest.mark.parametrize("name", HARMLESS)
def test_what_cannot_hurt_is_told_and_does_not_break(name: str) -> None:
    found = after(HARMLESS[name])
    assert found.changes and not found.breaks


@pytest.mark.parametrize("name", SAME)
def test_what_means_the_same_is_no_change(name: str) -> None:
    assert after(SAME[name]).changes == ()


def test_each_method_calls_the_operation_it_stands_for(document: Any) -> None:
    routes = {name: (method, path) for name, method, path, _ in operations(document)}
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    spec = PodSpec(name="a", image="b:c", gpu=GpuRequest(id="NVIDIA L4"), cloud="SECURE", disk=20, ports=(), env={})
    with Plane() as plane:
        environ = plane.environ()
        api = connect(read_settings(environ, {}), plane.clock, Redactor(), lambda text: None, environ)
        pod_id = api.create_pod(spec).id
        template = TemplateSpec(name="t1", image="b:c", env={}, disk=20)
        template_id = api.create_template(template).id
        endpoint = EndpointSpec(
            name="e1",
            type="QUEUE",
            template_id=template_id,
            gpu=EndpointGpu(pools=("ADA_24",)),
            workers=WorkersSpec(min=1, max=1),
            scaling={"type": "QUEUE_DELAY", "queueDelay": 4},
            flashboot="OFF",
            timeout=600_000,
        )
        endpoint_id = api.create_endpoint(endpoint).id
        plane.clock.advance(60)
        worker_id = api.endpoint_workers(endpoint_id).workers[0].id
        calls: dict[str, Callable[[], object]] = {
            "list_pods": api.list_pods,
            "create_pod": lambda: api.create_pod(spec),
            "get_pod": lambda: api.get_pod(pod_id),
            "update_pod": lambda: api.update_pod(pod_id, {"env": {}}),
            "act": lambda: api.act(pod_id, "stop"),
            "logs": lambda: next(iter(api.logs(pod_id, tail=1))),
            "delete_pod": lambda: api.delete_pod(pod_id),
            "gpu_types": api.gpu_types,
            "pod_billing": lambda: api.pod_billing(start=start, end=start + timedelta(days=1)),
            "endpoints": api.endpoints,
            "create_endpoint": lambda: api.create_endpoint(endpoint.model_copy(update={"name": "e2"})),
            "get_endpoint": lambda: api.get_endpoint(endpoint_id),
            "update_endpoint": lambda: api.update_endpoint(endpoint_id, {"timeout": 700_000}),
            "endpoint_workers": lambda: api.endpoint_workers(endpoint_id),
            "endpoint_releases": lambda: api.endpoint_releases(endpoint_id),
            "worker_logs": lambda: next(iter(api.worker_logs(endpoint_id, worker_id, tail=1))),
            "delete_endpoint": lambda: api.delete_endpoint(endpoint_id),
            "templates": api.templates,
            "create_template": lambda: api.create_template(template.model_copy(update={"name": "t2"})),
            "update_template": lambda: api.update_template(template_id, {"image": "b:d"}),
            "delete_template": lambda: api.delete_template(template_id),
            "network_volumes": api.network_volumes,
            "registries": api.registries,
            "create_registry": lambda: api.create_registry("hub", "user", "pass-word-1"),
        }
        assert sorted(calls) == sorted(use.method for use in USED.values())
        for name in sorted(USED, key=lambda name: list(calls).index(USED[name].method)):
            n_before = len(plane.journal)
            calls[USED[name].method]()
            sent = [(entry.method, entry.route.partition(" ")[2]) for entry in plane.journal[n_before:]]
            assert sent == [routes[name]], name


def test_what_is_not_used_is_counted_only() -> None:
    after = copy.deepcopy(SMALL)
    after["paths"]["/things"] = {"get": {"operationId": "listThings"}}
    del after["paths"]["/clusters"]
    found = compare(summarise(SMALL, ONLY), summarise(after, ONLY))
    assert (found.changes, found.others_added, found.others_removed) == ((), ("listThings",), ("listClusters",))
    assert found.unlisted == ("listThings",)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"openapi": "3", "paths": []},
        {"openapi": "3", "paths": {"/x": {"get": {"operationId": "listPods", "responses": [1]}}}},
        {"openapi": "3", "paths": {"/x": {"get": {"operationId": "listPods", "parameters": [{"$ref": "#/no"}]}}}},
    ],
)
def test_what_is_no_description_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(BadAnswerError):
        summarise(broken, ONLY)


def test_references_in_a_circle_end() -> None:
    circle = copy.deepcopy(SMALL)
    circle["components"]["responses"]["Pods"] = {"$ref": "#/components/responses/Pods"}
    with pytest.raises(BadAnswerError):
        summarise(circle, ONLY)


def test_the_verb_compares_files_and_exits_1_if_something_used_is_gone(tmp_path: Path) -> None:
    cli = Cli({}, tmp_path, SystemClock())
    (tmp_path / "old.json").write_text(json.dumps(SMALL))
    new = copy.deepcopy(SMALL)
    del fields(new, "Pod")["id"]
    (tmp_path / "new.json").write_text(json.dumps(new))
    (tmp_path / "bad.json").write_text("{")
    same = cli.run("spec", "diff", "old.json", "--against", "old.json", "--json")
    assert (same.code, same.document["changes"]) == (0, [])
    gone = cli.run("spec", "diff", "new.json", "--against", "old.json")
    assert gone.code == 1
    assert "BREAKS" in gone.out and "answer Pod.id" in gone.out
    assert cli.run("spec", "diff", "none.json", "--json").problem["code"] == "not_found"
    assert cli.run("spec", "diff", "bad.json", "--json").problem["code"] == "bad_answer"


def test_the_whole_document_matches_what_is_known(document: Any, tmp_path: Path) -> None:
    outcome = Cli({}, tmp_path, SystemClock()).run("spec", "diff", str(document_path()), "--json")
    assert (outcome.code, outcome.document["changes"], outcome.document["unlisted"]) == (0, [], [])
