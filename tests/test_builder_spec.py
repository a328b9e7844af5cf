"""The comparison of API descriptions; and that no operation of RunPod's REST API v2 is overlooked."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder.api.control_plane import ControlPlane
from builder.api.spec_diff import compare, known_summary
from builder.api.spec_summary import operations, summarise
from builder.api.spec_use import USED, WAIVED
from builder.clock import SystemClock
from builder.errors import BadAnswerError
from tests.builder_harness import Cli

DOCUMENT = Path(
    os.environ.get("RUNPOD_OPENAPI_SPEC")
    or Path(__file__).resolve().parents[1].parent / "shared" / "runpod" / "openapi.v2.json"
)
SMALL: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"version": "1"},
    "paths": {
        "/pods": {
            "get": {"operationId": "listPods", "responses": {"200": {"$ref": "#/components/responses/Pods"}}},
            "post": {
                "operationId": "createPod",
                "parameters": [{"in": "query", "name": "dry", "schema": {"type": "boolean"}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/New"}}}},
                "responses": {
                    "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pod"}}}}
                },
            },
        },
        "/clusters": {"get": {"operationId": "listClusters", "responses": {}}},
    },
    "components": {
        "responses": {"Pods": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pods"}}}}},
        "schemas": {
            "Pods": {"properties": {"pods": {"type": "array", "items": {"$ref": "#/components/schemas/Pod"}}}},
            "Pod": {
                "required": ["id"],
                "properties": {
                    "id": {"type": "string"},
                    "status": {"enum": ["RUNNING", "EXITED"]},
                    "env": {"type": "object", "additionalProperties": {"type": "string"}},
                    "runtime": {"type": "object", "properties": {"uptime": {"type": ["integer", "null"]}}},
                },
            },
            "New": {"allOf": [{"$ref": "#/components/schemas/Base"}, {"required": ["name"]}]},
            "Base": {"properties": {"name": {"type": "string"}, "image": {"type": "string"}}},
        },
    },
}  # fmt: skip
ONLY = ("listPods", "createPod")


@pytest.fixture
def document() -> Any:
    if not DOCUMENT.is_file():
        pytest.skip(f"RunPod's OpenAPI document is not here ({DOCUMENT.name}; see RUNPOD_OPENAPI_SPEC)")
    return json.loads(DOCUMENT.read_text(encoding="utf-8"))


def test_every_operation_is_used_or_waived_with_a_reason(document: Any) -> None:
    names = {name for name, *_ in operations(document)}
    assert len(names) > 50
    assert names == USED.keys() | WAIVED.keys()


def test_the_committed_summary_is_that_of_the_document(document: Any) -> None:
    assert summarise(document, USED) == known_summary()


def test_used_and_waived_are_told_apart_and_used_ones_exist() -> None:
    assert not USED.keys() & WAIVED.keys()
    assert all(len(reason) > 10 for reason in WAIVED.values())
    assert all(hasattr(ControlPlane, method) for method in USED.values())
    assert known_summary()["operations"].keys() == USED.keys()


def test_a_summary_follows_references_and_names_types() -> None:
    summary = summarise(SMALL, ONLY)
    assert summary["operations"]["createPod"] == {
        "call": "POST /pods",
        "query": {"dry": "boolean"},
        "request": "New",
        "answers": {"201": "Pod"},
    }
    assert summary["others"] == {"listClusters": "GET /clusters"}
    assert summary["answers"]["Pod"] == {
        "env": "{string}",
        "id": "string, required",
        "runtime": "object",
        "runtime.uptime": "integer|null",
        "status": "RUNNING / EXITED",
    }
    assert summary["answers"]["Pods"] == {"pods": "[Pod]"}
    assert "name" in summary["requests"]["New"]


def changed(**edits: Any) -> dict[str, Any]:
    document = copy.deepcopy(SMALL)
    schemas = document["components"]["schemas"]
    for name, properties in edits.items():
        schemas[name]["properties"] |= properties
        for field in [field for field, value in properties.items() if value is None]:
            del schemas[name]["properties"][field]
    return document


@pytest.mark.parametrize(
    ("after", "where", "kind", "breaks"),
    [
        (changed(Pod={"new": {"type": "string"}}), "answer Pod.new", "added", False),
        (changed(Pod={"id": None}), "answer Pod.id", "removed", True),
        (changed(Pod={"id": {"type": "integer"}}), "answer Pod.id", "changed", True),
        (changed(Base={"more": {"type": "string"}}), "request Base.more", "added", False),
        (changed(Base={"image": None}), "request Base.image", "removed", True),
    ],
)
def test_changes_are_found_and_weighed(after: Any, where: str, kind: str, breaks: bool) -> None:
    found = compare(summarise(SMALL, ONLY), summarise(after, ONLY))
    change = next(each for each in found.changes if each.where == where)
    assert (change.kind, change.breaks) == (kind, breaks)
    assert found.breaks is breaks


def test_a_field_that_becomes_required_breaks() -> None:
    after = changed(Base={"size": {"type": "integer"}})
    after["components"]["schemas"]["Base"]["required"] = ["size"]
    assert compare(summarise(SMALL, ONLY), summarise(after, ONLY)).breaks


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
    (tmp_path / "new.json").write_text(json.dumps(changed(Pod={"id": None})))
    (tmp_path / "bad.json").write_text("{")
    same = cli.run("spec", "diff", "old.json", "--against", "old.json", "--json")
    assert (same.code, same.document["changes"]) == (0, [])
    gone = cli.run("spec", "diff", "new.json", "--against", "old.json")
    assert gone.code == 1
    assert "BREAKS" in gone.out and "answer Pod.id" in gone.out
    assert cli.run("spec", "diff", "none.json", "--json").problem["code"] == "not_found"
    assert cli.run("spec", "diff", "bad.json", "--json").problem["code"] == "bad_answer"


def test_the_whole_document_matches_what_is_known(document: Any, tmp_path: Path) -> None:
    outcome = Cli({}, tmp_path, SystemClock()).run("spec", "diff", str(DOCUMENT), "--json")
    assert (outcome.code, outcome.document["changes"], outcome.document["unlisted"]) == (0, [], [])
