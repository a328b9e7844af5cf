"""The documents say what is true: commands, flags, files, tables and the Python example."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builder import errors
from builder.cli import build_app
from builder.settings import ROWS as BUILDER_ROWS
from engine.settings import env_template, rows
from engine.wer import word_errors
from handler.schema import parse_input
from handler.schema import table as job_table
from realtime import protocol
from realtime.__main__ import parser as server_parser
from realtime.client.options import make_parser as client_parser
from realtime.messages import CLOSE_CODES
from tests.serving import DEMO, ROOT, Server, label, recording

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "PROTOCOL.md", "SECURITY.md", "CHANGELOG.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- settings: begin", "<!-- settings: end -->"


def settings_table() -> str:
    """The README's table of settings, from the one table in engine/settings.py."""
    lines = ["| variable | option | default | meaning |", "|---|---|---|---|"]
    for row in rows():
        default = f"`{row.default_text}`" if row.default_text else ""
        legal = f" ({row.legal})" if row.legal and not row.is_switch else ""
        flag = f"`{row.flags[0]}`" if row.flags else ""
        meaning = (row.help + legal).replace("|", "\\|")
        lines.append(f"| {', '.join(f'`{name}`' for name in row.env)} | {flag} | {default} | {meaning} |")
    return "\n".join(lines)


def test_readme_has_the_settings_table() -> None:
    shown = README.split(BEGIN)[1].split("-->\n", 1)[1].split(END)[0].strip()
    assert shown == settings_table(), "write tests.test_docs.settings_table() between the markers"


def between(mark: str) -> str:
    """What the README has between the marks of a made part."""
    return README.split(f"<!-- {mark}: begin")[1].split("-->\n", 1)[1].split(f"<!-- {mark}: end")[0].strip()


def verbs_table() -> str:
    """The README's table of verbs, from the program."""
    app = build_app()
    rows = ["| verb | what it does |", "|---|---|"]
    commands = [("", command) for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        commands += [(f"{group.name} ", command) for command in group.typer_instance.registered_commands]
    for prefix, command in commands:
        assert command.callback is not None
        first = (command.callback.__doc__ or "").strip().split("\n\n")[0]
        rows.append(f"| `{prefix}{command.name}` | {' '.join(first.split())} |")
    return "\n".join(rows)


def builder_settings_table() -> str:
    """The README's table of the builder's settings, from its one table."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for row in BUILDER_ROWS:
        default = "" if row.default in (None, ()) else f"`{int(row.default) if row.kind == 'flag' else row.default}`"
        legal = f" ({row.legal})" if row.legal and row.kind != "flag" else ""
        rows.append(f"| `{row.env}` | {default} | {row.help}{legal} |")
    return "\n".join(rows)


def test_readme_has_the_verbs_and_the_settings_of_the_builder() -> None:
    assert between("verbs") == verbs_table()
    assert between("builder settings") == builder_settings_table()


def test_readme_has_the_exit_codes() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    codes = {each.exit_code for each in kinds if issubclass(each, errors.BuilderError)}
    section = " ".join(README.split("Exit codes: 0 done")[1].split("130 interrupted")[0].split())
    for code in codes - {130}:
        assert f", {code} " in section, code


@functools.cache
def builder_help(verb: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(build_app(), [*verb, "--help"], env={"COLUMNS": "400"})
    assert shown.exit_code == 0, verb
    return shown.output


GROUPS = ("test", "spec", "endpoint", "job", "ec2", "hub")


def check_builder(words: list[str]) -> None:
    """A verb and options that exist."""
    verb = tuple(words[:2]) if words[0] in GROUPS else (words[0],)
    for flag in [word.split("=")[0] for word in words if word.startswith("--")]:
        assert flag in builder_help(verb), f"{verb} has no {flag}"


def named_verbs() -> list[str]:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    return sorted({found for text in texts for found in re.findall(r"`(?:python -m )?builder ([a-z][^`]*)`", text)})


@pytest.mark.parametrize("command", named_verbs())
def test_verbs_that_are_named_exist(command: str) -> None:
    check_builder(shlex.split(command))


def test_readme_has_the_table_of_job_fields() -> None:
    shown = README.split("<!-- job: begin")[1].split("-->\n", 1)[1].split("<!-- job: end")[0].strip()
    assert shown == job_table().strip(), "write handler.schema.table() between the markers"


def test_the_answer_that_is_shown_is_one() -> None:
    [shown] = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    output = json.loads(shown)
    worker_keys = {"segments", "detected_language", "transcription", "translation", "device", "model"}
    assert output.keys() >= worker_keys | {"word_timestamps", "warnings"}
    assert "".join(word["word"] for word in output["word_timestamps"]).strip() == output["transcription"]
    assert not any("@@" in (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)


def test_the_curl_example_is_a_job() -> None:
    [body] = re.findall(r"-d '(\{.*\})'", README)
    request = parse_input(json.loads(body)["input"], strict=True)
    assert (request.model, request.transcription, request.warnings) == ("turbo", "srt", ())


def example(name: str) -> str:
    """The Python under a marker."""
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_openai_example_works(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code = example("openai").replace("https://POD_ID-9090.proxy.runpod.net", server.url.replace("ws://", "http://"))
    code = code.replace("talk.mp3", str(DEMO / "samples" / "hello_en.wav"))
    exec(compile(code, "README.md", "exec"), {})
    assert "Hello, my name is Anna." in capsys.readouterr().out


def test_env_template_is_made_from_the_table() -> None:
    assert (ROOT / ".env.template").read_text(encoding="utf-8") == env_template(), "run make env-template"


def shell_lines(text: str) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def parse(command: str) -> None:
    """Parse a command line of ours as the program would; SystemExit if it is wrong."""
    words = shlex.split(command)
    module, arguments = words[2], words[3:]
    if module == "realtime":
        server_parser().parse_args(arguments)
    elif module == "realtime.client":
        client_parser().parse_args(arguments)
    elif module == "builder":
        check_builder(arguments)
    else:
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), command


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("line", [line for name in DOCUMENTS for line in shell_lines((ROOT / name).read_text())])
def test_shell_lines(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        assert words[1] in make_targets()
        if len(words) > 2 and words[2].startswith("ARGS="):
            module = {"serve": "realtime"}.get(words[1], words[1])
            parse(f"python -m {module} {words[2].removeprefix('ARGS=')}")
    elif words[0].endswith("python"):
        if words[1:] != ["-m", "realtime", "--help"]:
            parse(line)
    else:
        assert words[0] in ("openssl", ".venv/bin/pip"), line


def old_and_new() -> list[tuple[str, str]]:
    section = README.split("| old | new |")[1].split("\n\n")[0]
    pairs = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", section, re.MULTILINE)
    return [(old, new) for old, new in pairs]


@pytest.mark.parametrize(("old", "new"), old_and_new())
def test_old_command_lines_have_a_new_spelling(old: str, new: str) -> None:
    parse(new)
    assert len(old_and_new()) >= 5
    for flag in re.findall(r"--[a-z_]+", old):
        assert flag in new, "the old spelling goes on working"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:engine|realtime|handler|builder|bench|tests|tools)/[\w./*]+|[A-Z]+\.md|\.env\.template)`", text
    )
    for path in named:
        assert list(ROOT.glob(path)), f"{name} names {path}"
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert target in make_targets(), f"{name} names make {target}"


def test_protocol_lists_every_handshake_key() -> None:
    text = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
    section = text.split("## Handshake")[1].split("\n## ")[0]
    for key in (*protocol.READ_KEYS, *protocol.IGNORED_KEYS):
        assert f"`{key}`" in section or f"`{key.removesuffix('_hz')}`" in section, key


def test_protocol_lists_every_close_code() -> None:
    text = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")
    for number, code in CLOSE_CODES.items():
        row = f"| {number} | {code.name} | {code.meaning} | {'yes' if code.retryable else 'no'} |"
        assert row in text, row


def test_the_python_example_works(server: Server) -> None:
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example
    code = example[1].replace("ws://127.0.0.1:9090", server.url)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # our own document
    text = asyncio.run(names["captions"](recording("hello_en.wav")))
    assert word_errors(label("hello_en.wav")["text"], text).errors == 0


def test_no_document_is_forgotten() -> None:
    assert {path.name for path in Path(ROOT).glob("*.md")} == set(DOCUMENTS)
