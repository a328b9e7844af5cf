"""`hub lint`: the repository's own listing is right, and everything that can be wrong in one is told with its place."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder import verbs
from builder.clock import SystemClock
from builder.hub.findings import MAX_PROBLEMS, Document
from builder.hub.lint import HUB_FILE, MAX_FILE_BYTES, TESTS_FILE
from builder.hub.rules import MAX_TIMEOUT_MS, MIN_TIMEOUT_MS, POOLS, check_hub, check_tests
from tests.builder_harness import Cli

ROOT = Path(__file__).resolve().parent.parent
KNOWN = frozenset({"MODEL", "COUNT", "IS_ON", "REPO", "FIXED"})
HUB: dict[str, Any] = {
    "title": "Speech",
    "description": "Speech to text",
    "type": "serverless",
    "category": "audio",
    "iconUrl": "https://host/icon.png",
    "config": {
        "runsOn": "GPU",
        "containerDiskInGb": 20,
        "gpuCount": 1,
        "gpuIds": "ADA_24, AMPERE_16,-NVIDIA RTX 4000",
        "allowedCudaVersions": ["12.4", "12.8"],
        "env": [
            {
                "key": "MODEL",
                "input": {
                    "name": "Model",
                    "type": "string",
                    "description": "Which",
                    "default": "base",
                    "options": [{"label": "Base", "value": "base"}, {"label": "Small", "value": "small"}],
                },
            },
            {"key": "COUNT", "input": {"name": "Count", "type": "number", "min": 1, "max": 8, "default": 2}},
            {"key": "IS_ON", "input": {"name": "On", "type": "boolean", "default": True, "trueValue": "1"}},
            {"key": "REPO", "input": {"name": "Repository", "type": "huggingface", "required": True}},
            {"key": "FIXED", "value": "x"},
        ],
        "presets": [{"name": "small", "defaults": {"MODEL": "small", "COUNT": 8, "IS_ON": False, "FIXED": "y"}}],
    },
}
TESTS: dict[str, Any] = {
    "tests": [{"name": "one", "input": {"audio": "https://host/a.mp3"}, "timeout": 120_000}],
    "config": {
        "gpuTypeId": "NVIDIA L4",
        "gpuCount": 1,
        "env": [{"key": "MODEL", "value": "base"}],
        "allowedCudaVersions": ["12.4"],
    },
}
Edit = Callable[[Any], object]


def problems_of_hub(edit: Edit = lambda data: None, known: frozenset[str] | None = KNOWN) -> list[tuple[str, str, str]]:
    data, document = copy.deepcopy(HUB), Document(HUB_FILE)
    edit(data)
    check_hub(document, data, known)
    return [(each.level, each.path, each.text) for each in document.problems]


def problems_of_tests(edit: Edit = lambda data: None, machine: str | None = "GPU") -> list[tuple[str, str, str]]:
    data, document = copy.deepcopy(TESTS), Document(TESTS_FILE)
    edit(data)
    check_tests(document, data, machine, KNOWN)
    return [(each.level, each.path, each.text) for each in document.problems]


def field(data: Any, number: int) -> Any:
    return data["config"]["env"][number]["input"]


def test_right_documents_have_no_problems() -> None:
    assert problems_of_hub() == []
    assert problems_of_tests() == []
    assert problems_of_hub(lambda d: d["config"].update(gpuIds=",".join(POOLS), endpointType="LB")) == []
    on_cpu = {"runsOn": "CPU", "containerDiskInGb": 5, "cpuFlavor": "cpu3c"}
    assert problems_of_hub(lambda d: d.update(config=on_cpu)) == []
    assert problems_of_tests(lambda d: d.update(config={"cpuFlavor": "cpu3c"}), machine="CPU") == []


HUB_ERRORS: dict[str, tuple[Edit, str, str]] = {
    "no title": (lambda d: d.pop("title"), "title", "missing"),
    "blank text": (lambda d: d.update(description=" "), "description", "not empty"),
    "type": (lambda d: d.update(type="pod"), "type", "'pod'; legal: serverless"),
    "category": (lambda d: d.update(category="sound"), "category", "legal: audio, embedding, image, language, video"),
    "category of no text": (lambda d: d.update(category=["audio"]), "category", "a list; legal"),
    "icon": (lambda d: d.update(iconUrl="http://host/i.png"), "iconUrl", "legal: https://"),
    "no config": (lambda d: d.pop("config"), "config", "missing"),
    "config": (lambda d: d.update(config=[]), "config", "legal: an object"),
    "runsOn": (lambda d: d["config"].update(runsOn="TPU"), "config.runsOn", "legal: GPU, CPU"),
    "disk": (
        lambda d: d["config"].update(containerDiskInGb=0),
        "config.containerDiskInGb",
        "0; legal: a whole number, 1",
    ),
    "disk of text": (lambda d: d["config"].update(containerDiskInGb="20"), "config.containerDiskInGb", "'20'; legal"),
    "disk true": (lambda d: d["config"].update(containerDiskInGb=True), "config.containerDiskInGb", "true; legal"),
    "no disk": (lambda d: d["config"].pop("containerDiskInGb"), "config.containerDiskInGb", "missing"),
    "no count": (lambda d: d["config"].pop("gpuCount"), "config.gpuCount", "missing"),
    "no pools": (lambda d: d["config"].pop("gpuIds"), "config.gpuIds", "missing"),
    "pool": (
        lambda d: d["config"].update(gpuIds="ADA_24,ADA_25"),
        "config.gpuIds",
        "'ADA_25' is no pool; legal: ADA_24",
    ),
    "empty pool": (lambda d: d["config"].update(gpuIds="ADA_24,"), "config.gpuIds", "'' is no pool"),
    "pools only left out": (lambda d: d["config"].update(gpuIds="-NVIDIA L4"), "config.gpuIds", "one pool or more"),
    "no flavor": (lambda d: d["config"].update(runsOn="CPU"), "config.cpuFlavor", "missing"),
    "endpointType": (lambda d: d["config"].update(endpointType="QB"), "config.endpointType", "legal: LB"),
    "cuda": (lambda d: d["config"].update(allowedCudaVersions=["12.4", "12"]), "config.allowedCudaVersions[1]", "'12'"),
    "cuda number": (lambda d: d["config"].update(allowedCudaVersions=[12.4]), "config.allowedCudaVersions[0]", "12.4;"),
    "cuda text": (lambda d: d["config"].update(allowedCudaVersions="12.4"), "config.allowedCudaVersions", "a list"),
    "no cuda": (lambda d: d["config"].update(allowedCudaVersions=[]), "config.allowedCudaVersions", "an empty list"),
    "env": (lambda d: d["config"].update(env={}), "config.env", "legal: a list"),
    "env entry": (lambda d: d["config"]["env"].append(3), "config.env[5]", "3; legal: an object"),
    "env key": (lambda d: d["config"]["env"][0].update(key="1-A"), "config.env[0].key", "a variable's name"),
    "env twice": (lambda d: d["config"]["env"][1].update(key="MODEL"), "config.env[1].key", "twice"),
    "not read": (lambda d: d["config"]["env"][0].update(key="MODLE"), "config.env[0].key", "'MODLE': nothing in"),
    "both": (lambda d: d["config"]["env"][0].update(value="x"), "config.env[0]", "either a fixed value or"),
    "neither": (lambda d: d["config"]["env"][4].pop("value"), "config.env[4]", "either a fixed value or"),
    "value": (lambda d: d["config"]["env"][4].update(value=[1]), "config.env[4].value", "a list; legal"),
    "input": (lambda d: d["config"]["env"][0].update(input="x"), "config.env[0].input", "'x'; legal: an object"),
    "input name": (lambda d: field(d, 0).pop("name"), "config.env[0].input.name", "missing"),
    "input type": (lambda d: field(d, 0).update(type="text"), "config.env[0].input.type", "legal: string, number"),
    "default type": (lambda d: field(d, 1).update(default="2"), "config.env[1].input.default", "a number"),
    "default flag": (lambda d: field(d, 2).update(default="true"), "config.env[2].input.default", "legal: true, false"),
    "default repo": (lambda d: field(d, 3).update(default=7), "config.env[3].input.default", "legal: a text"),
    "not an option": (lambda d: field(d, 0).update(default="big"), "config.env[0].input.default", "'base', 'small'"),
    "below": (lambda d: field(d, 1).update(default=0), "config.env[1].input.default", "0; legal: 1 to 8"),
    "above": (lambda d: field(d, 1).update(default=9), "config.env[1].input.default", "9; legal: 1 to 8"),
    "bounds": (lambda d: field(d, 1).update(min=9, default=9), "config.env[1].input.min", "more than max"),
    "bound": (lambda d: field(d, 1).update(max="8"), "config.env[1].input.max", "'8'; legal: a number"),
    "no options": (lambda d: field(d, 0).update(options=[]), "config.env[0].input.options", "one or more"),
    "bare option": (lambda d: field(d, 0).update(options=["base"]), "config.env[0].input.options[0]", "an object"),
    "label": (lambda d: field(d, 0)["options"][0].pop("label"), "config.env[0].input.options[0].label", "missing"),
    "option": (lambda d: field(d, 0)["options"][0].update(value=1), "config.env[0].input.options[0].value", "a text"),
    "option twice": (
        lambda d: field(d, 0)["options"][1].update(value="base"),
        "config.env[0].input.options[1].value",
        "twice",
    ),
    "flag": (lambda d: field(d, 3).update(required="yes"), "config.env[3].input.required", "legal: true, false"),
    "true": (lambda d: field(d, 2).update(trueValue=True), "config.env[2].input.trueValue", "legal: a text"),
    "preset name": (lambda d: d["config"]["presets"][0].pop("name"), "config.presets[0].name", "missing"),
    "preset twice": (
        lambda d: d["config"]["presets"].extend(d["config"]["presets"]),
        "config.presets[1].name",
        "twice",
    ),
    "preset empty": (
        lambda d: d["config"]["presets"][0].update(defaults={}),
        "config.presets[0].defaults",
        "an object",
    ),
    "preset key": (
        lambda d: d["config"]["presets"][0]["defaults"].update(MODLE="x"),
        "config.presets[0].defaults.MODLE",
        "no variable of env",
    ),
    "preset value": (
        lambda d: d["config"]["presets"][0]["defaults"].update(COUNT=9),
        "config.presets[0].defaults.COUNT",
        "legal: 1 to 8",
    ),
    "preset fixed": (
        lambda d: d["config"]["presets"][0]["defaults"].update(FIXED=None),
        "config.presets[0].defaults.FIXED",
        "null; legal",
    ),
}
TEST_ERRORS: dict[str, tuple[Edit, str, str]] = {
    "no tests": (lambda d: d.update(tests=[]), "tests", "one or more"),
    "test": (lambda d: d.update(tests=["x"]), "tests[0]", "an object"),
    "no name": (lambda d: d["tests"][0].pop("name"), "tests[0].name", "missing"),
    "name twice": (lambda d: d["tests"].extend(d["tests"]), "tests[1].name", "twice"),
    "no input": (lambda d: d["tests"][0].pop("input"), "tests[0].input", "missing"),
    "input": (lambda d: d["tests"][0].update(input="plain text"), "tests[0].input", "'plain text'; legal"),
    "timeout": (lambda d: d["tests"][0].update(timeout=MIN_TIMEOUT_MS - 1), "tests[0].timeout", "1000 to 3600000"),
    "long": (lambda d: d["tests"][0].update(timeout=MAX_TIMEOUT_MS + 1), "tests[0].timeout", "1000 to 3600000"),
    "timeout of text": (lambda d: d["tests"][0].update(timeout="9000"), "tests[0].timeout", "'9000'; legal"),
    "no config": (lambda d: d.pop("config"), "config", "missing"),
    "gpu": (lambda d: d["config"].update(gpuTypeId=""), "config.gpuTypeId", "not empty"),
    "no gpu": (lambda d: d["config"].pop("gpuTypeId"), "config.gpuTypeId", "missing"),
    "count": (lambda d: d["config"].update(gpuCount=0), "config.gpuCount", "legal: a whole number, 1"),
    "env": (lambda d: d["config"].update(env=[{"key": "MODEL"}]), "config.env[0].value", "missing; legal: a text"),
    "env number": (lambda d: d["config"]["env"][0].update(value=1), "config.env[0].value", "1; legal: a text"),
    "env key": (lambda d: d["config"]["env"][0].update(key="MODLE"), "config.env[0].key", "'MODLE': nothing in"),
    "cuda": (lambda d: d["config"].update(allowedCudaVersions=["cu12"]), "config.allowedCudaVersions[0]", "'12.4'"),
}


@pytest.mark.parametrize("name", HUB_ERRORS)
def test_each_fault_of_hub_json_is_told_with_its_place(name: str) -> None:
    edit, path, text = HUB_ERRORS[name]
    found = problems_of_hub(edit)
    assert any(level == "error" and at == path and text in said for level, at, said in found), found


@pytest.mark.parametrize("name", TEST_ERRORS)
def test_each_fault_of_tests_json_is_told_with_its_place(name: str) -> None:
    edit, path, text = TEST_ERRORS[name]
    found = problems_of_tests(edit)
    assert any(level == "error" and at == path and text in said for level, at, said in found), found


def test_what_has_no_effect_is_a_warning() -> None:
    edits: dict[str, Edit] = {
        "licence": lambda d: d.update(licence="MIT"),
        "config.cpuFlavor": lambda d: d["config"].update(cpuFlavor="cpu3c"),
        "config.env[0].input.min": lambda d: field(d, 0).update(min=1),
        "config.env[0].input.falseValue": lambda d: field(d, 0).update(falseValue="0"),
        "config.gpuIds": lambda d: d["config"].update(gpuIds="ADA_24,ADA_24"),
    }
    for path, edit in edits.items():
        assert [(level, at) for level, at, _ in problems_of_hub(edit)] == [("warning", path)], path
    assert [(level, at) for level, at, _ in problems_of_tests(lambda d: d["tests"][0].update(timeuot=1))] == [
        ("warning", "tests[0].timeuot")
    ]


def test_the_limits_of_times_are_legal_and_variables_of_libraries_are_read() -> None:
    for timeout in (MIN_TIMEOUT_MS, MAX_TIMEOUT_MS):
        test = {**TESTS["tests"][0], "timeout": timeout}
        assert problems_of_tests(lambda d, test=test: d.update(tests=[test])) == []  # type: ignore[misc]
    assert problems_of_hub(lambda d: d["config"]["env"][4].update(key="HF_TOKEN") or d["config"].pop("presets")) == []
    assert problems_of_hub(known=None) == []
    assert [at for _, at, _ in problems_of_hub(known=frozenset())] == [f"config.env[{n}].key" for n in range(5)]


@pytest.mark.parametrize("data", [None, 1, "x", [], [{}], {}, {"config": {"env": [None], "presets": [None]}}])
def test_any_json_is_survived_and_wrong(data: Any) -> None:
    document = Document("f")
    check_hub(document, data, KNOWN)
    check_tests(document, data, None, KNOWN)
    assert any(each.level == "error" for each in document.problems)


def test_many_warnings_do_not_hide_an_error() -> None:
    found = problems_of_hub(lambda d: d.update({f"x{n}": 1 for n in range(MAX_PROBLEMS + 1)}, type="pod"))
    assert [level for level, _, _ in found] == ["warning"] * MAX_PROBLEMS + ["error"]


# The verb


def listing(folder: Path, hub: Any = HUB, tests: Any = TESTS) -> Path:
    """A small worker of its own, with all that the Hub wants."""
    (folder / ".runpod").mkdir(parents=True)
    (folder / HUB_FILE).write_text(hub if isinstance(hub, str) else json.dumps(hub))
    (folder / TESTS_FILE).write_text(tests if isinstance(tests, str) else json.dumps(tests))
    (folder / "handler.py").write_text(
        "import os\nNAMES = ['MODEL', 'COUNT', \"IS_ON\", 'REPO']\nos.environ['FIXED']\n"
    )
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / ".runpod" / "README.md").write_text("# x\n")
    return folder


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if "hub" not in verbs.NOUNS:
        monkeypatch.setattr(verbs, "NOUNS", (*verbs.NOUNS, "hub"))


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli({"RUNPOD_API_KEY": "rpa_SECRETOFTHEENVIRONMENT"}, tmp_path, SystemClock())


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    """This repository's listing and worker, as far as the check looks at them, with a Dockerfile."""
    folder = tmp_path / "worker"
    keep_out = shutil.ignore_patterns("__pycache__", "*.wav", "*.onnx", "*.bin")
    for name in (".runpod", "engine", "handler"):
        shutil.copytree(ROOT / name, folder / name, ignore=keep_out)
    (folder / "README.md").write_text("# x\n")
    (folder / "Dockerfile").write_text("FROM scratch\n")
    return folder


def test_this_repository_s_listing_is_right_but_for_the_image(cli: Cli) -> None:
    outcome = cli.run("hub", "lint", str(ROOT), "--json")
    assert [(each["file"], each["level"]) for each in outcome.document["problems"]] in ([("Dockerfile", "error")], [])
    assert outcome.document["warnings"] == 0
    assert outcome.code == len(outcome.document["problems"])


def test_a_clean_worker_passes_and_any_folder_is_looked_at(cli: Cli, worker: Path) -> None:
    assert cli.run("hub", "lint", "worker", "--json").document == {"problems": [], "errors": 0, "warnings": 0}
    here = Cli({}, worker, SystemClock()).run("hub", "lint")
    assert (here.code, here.out.strip()) == (0, "errors: 0, warnings: 0")


def test_inputs_and_variables_are_checked_by_the_worker_itself(cli: Cli, worker: Path) -> None:
    tests = json.loads((worker / TESTS_FILE).read_text())
    audio = tests["tests"][0]["input"]["audio_base64"]
    tests["tests"] += [
        {"name": "bad", "input": {"audio_base64": audio, "beam_size": 99}},
        {"name": "odd", "input": {"audio_base64": audio, "modle": "demo"}},
        {"name": "empty", "input": {}},
    ]
    (worker / TESTS_FILE).write_text(json.dumps(tests))
    hub = json.loads((worker / HUB_FILE).read_text())
    hub["config"]["env"][0]["key"] = "WHISPER_MODLE"
    hub["config"]["presets"] = []
    (worker / HUB_FILE).write_text(json.dumps(hub))
    outcome = cli.run("hub", "lint", "worker", "--json")
    found = {(each["level"], each["path"]): each["text"] for each in outcome.document["problems"]}
    assert set(found) == {
        ("error", "config.env[0].key"),
        ("error", "tests[1].input"),
        ("warning", "tests[2].input"),
        ("error", "tests[3].input"),
    }
    assert "beam_size" in found["error", "tests[1].input"]
    assert "modle" in found["warning", "tests[2].input"]
    assert (outcome.code, outcome.document["errors"], outcome.document["warnings"]) == (1, 3, 1)
    assert outcome.problem["code"] == "check_failed" and "WHISPER_MODLE" in outcome.problem["error"]
    shown = cli.run("hub", "lint", "worker")
    assert "errors: 3, warnings: 1" in shown.out and "config.env[0].key" in shown.out
    assert "Traceback" not in shown.err


def test_a_worker_without_a_schema_is_checked_without_it(cli: Cli, tmp_path: Path) -> None:
    listing(tmp_path / "other")
    outcome = cli.run("hub", "lint", "other", "--json")
    assert outcome.code == 0
    (only,) = outcome.document["problems"]
    assert (only["level"], only["path"]) == ("warning", "tests") and "not checked" in only["text"]
    (tmp_path / "other" / "handler.py").unlink()
    outcome = cli.run("hub", "lint", "other", "--json")
    assert outcome.code == 1
    assert [(each["file"], each["level"]) for each in outcome.document["problems"]] == [
        (TESTS_FILE, "warning"),
        ("handler.py", "error"),
        ("handler", "warning"),
    ]


def test_a_worker_that_does_not_start_is_an_error_and_hears_no_secret(cli: Cli, tmp_path: Path) -> None:
    folder = listing(tmp_path / "broken")
    for package, module in (("engine", "settings"), ("handler", "schema")):
        (folder / package).mkdir()
        (folder / package / "__init__.py").touch()
        (folder / package / f"{module}.py").write_text(
            "import os, sys\nsys.exit(f\"broken, key: {os.environ.get('RUNPOD_API_KEY')}\")\n"
        )
    outcome = cli.run("hub", "lint", "broken", "--json")
    texts = {each["file"]: each["text"] for each in outcome.document["problems"] if each["level"] == "error"}
    assert set(texts) == {"engine/settings.py", TESTS_FILE}
    assert all("exit code 1: broken, key: None" in text for text in texts.values())
    (folder / "handler" / "schema.py").write_text("print('[1, {}]')\n")
    again = cli.run("hub", "lint", "broken", "--json")
    assert any("cannot be checked" in each["text"] for each in again.document["problems"])
    (folder / "engine" / "settings.py").write_text("print('#OTHER_NAME=')\n")
    (folder / "handler.py").unlink()
    last = cli.run("hub", "lint", "broken", "--json")
    assert any("'MODEL': nothing in" in each["text"] for each in last.document["problems"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{\n  "title": "x",\n  "type" 3\n}', "line 3, column 10: no JSON"),
        (b"", "line 1, column 1: no JSON"),
        (b'{\n"title": "\xff"}', "line 2: not UTF-8"),
        (b'{"title": NaN}', "NaN is no number"),
        (b"[" * 200_000, "nested too deeply"),
        (b"null", "null; legal: an object"),
        (b'"' + b"x" * MAX_FILE_BYTES, "larger than 10,000,000 bytes"),
        (b"9" * 5_000, "no JSON"),
    ],
)
def test_a_damaged_file_is_named_with_line_and_column(cli: Cli, tmp_path: Path, content: bytes, text: str) -> None:
    folder = listing(tmp_path / "w")
    (folder / HUB_FILE).write_bytes(content)
    outcome = cli.run("hub", "lint", "w", "--json")
    assert outcome.code == 1
    assert any(each["file"] == HUB_FILE and text in each["text"] for each in outcome.document["problems"])


def test_missing_files_and_folders_are_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    outcome = cli.run("hub", "lint", "none", "--json")
    errors = {each["file"] for each in outcome.document["problems"] if each["level"] == "error"}
    assert errors == {HUB_FILE, TESTS_FILE, "handler.py", "Dockerfile", "README.md"}
    assert outcome.code == 1
    (tmp_path / "none" / HUB_FILE).mkdir(parents=True)
    again = cli.run("hub", "lint", "none", "--json")
    assert any(each["file"] == HUB_FILE and each["text"] == "no file" for each in again.document["problems"])
    nowhere = cli.run("hub", "lint", "nowhere", "--json")
    assert (nowhere.code, nowhere.problem["code"]) == (3, "not_found")
