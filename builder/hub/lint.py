"""Checks a repository's listing for RunPod's Hub before a release is made, which the Hub builds and tests.

The files' own rules are in `builder.hub.rules`; here are the ones that look at the rest of the repository:

- the Hub finds a handler, a Dockerfile and a README;
- every variable is read by the code. What it reads is found in two ways, because the builder does not import the
  worker: `python -m engine.settings`, run in the folder, prints the table of all settings; and the worker's sources
  (the package `handler`, `handler.py`, `.runpod/handler.py`) are searched for names in capitals between quotes, which
  finds `os.environ["NAME"]` as well as tables. Variables of the libraries below (`HF_`, `CUDA_`, ...) pass;
- every test's input is one that the worker accepts: `python -m handler.schema --check`, run in the folder, says so.
  What it only warns of is a warning here.

A folder without these modules is checked without them, with a warning.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from builder.child import run_child
from builder.errors import NotFoundError
from builder.hub.findings import Document, Problem
from builder.hub.rules import check_hub, check_tests, inputs_of, runs_on

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["HUB_FILE", "MAX_FILE_BYTES", "TESTS_FILE", "Lint", "lint"]

HUB_FILE, TESTS_FILE = ".runpod/hub.json", ".runpod/tests.json"
MAX_FILE_BYTES = 10_000_000
CHILD_LIMIT_S = 60.0
MAX_SOURCES = 500
_SETTINGS, _SCHEMA = "engine/settings.py", "handler/schema.py"
_NEEDED = {
    "handler.py": "the Hub looks for the worker's code there",
    "Dockerfile": "the Hub builds the image from it: write one, or copy one there",
    "README.md": "the Hub shows it",
}
_TEMPLATE_LINE = re.compile(r"#?([A-Z][A-Z0-9_]*)=")
_QUOTED = re.compile(r"""["']([A-Z][A-Z0-9_]{2,99})["']""")
_KEPT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
"""Of the environment, for children: no key is their business."""


@dataclass(frozen=True)
class Lint:
    """All problems, in the order of the files."""

    problems: tuple[Problem, ...]

    @property
    def n_errors(self) -> int:
        """Problems that the Hub or the worker will not take."""
        return sum(each.level == "error" for each in self.problems)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        listed = [each.document() for each in self.problems]
        return {"problems": listed, "errors": self.n_errors, "warnings": len(listed) - self.n_errors}


class _UnreadableError(Exception):
    """A file that cannot be read, in words."""


def lint(run: Runtime, folder: Path) -> Lint:
    """Check the repository in `folder`. Raises NotFoundError if there is none."""
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder", hint="name the folder that holds .runpod")
    known, problems = _known_variables(run, folder)
    hub, tests = Document(HUB_FILE), Document(TESTS_FILE)
    hub_data = _read(folder, hub)
    if hub_data is not None:
        check_hub(hub, hub_data, known)
    tests_data = _read(folder, tests)
    if tests_data is not None:
        check_tests(tests, tests_data, runs_on(hub_data), known)
        _check_inputs(run, folder, tests, inputs_of(tests_data))
    return Lint((*hub.problems, *tests.problems, *_missing(folder), *problems))


def _read(folder: Path, document: Document) -> Any:
    """The JSON of a file; None, after an error, if it has none."""
    try:
        return _parsed(_content(folder / document.file))
    except _UnreadableError as error:
        document.error("", str(error))
        return None


def _content(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise _UnreadableError("no file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(f"line {line}: not UTF-8") from None
    if len(raw) > MAX_FILE_BYTES:
        raise _UnreadableError(f"larger than {MAX_FILE_BYTES:,} bytes")
    return text


def _parsed(text: str) -> Any:
    try:
        data = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise _UnreadableError(f"line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from None
    except RecursionError:
        raise _UnreadableError("nested too deeply") from None
    except ValueError as error:
        raise _UnreadableError(f"no JSON: {str(error)[:80]}") from None
    if data is None:
        raise _UnreadableError("null; legal: an object")
    return data


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _missing(folder: Path) -> list[Problem]:
    """The files that the Hub looks for in `.runpod`, then in the root."""
    return [
        Problem(name, "", "error", f"missing, here and in .runpod: {why}")
        for name, why in _NEEDED.items()
        if not any((folder / place / name).is_file() for place in (".runpod", "."))
    ]


def _known_variables(run: Runtime, folder: Path) -> tuple[frozenset[str] | None, list[Problem]]:
    """Names that the code reads; None, with why, if nobody can tell."""
    names: set[str] = set()
    problems: list[Problem] = []
    if (folder / _SETTINGS).is_file():
        code, lines = _child(run, folder, ("engine.settings",), None)
        if code != 0:
            return None, [Problem(_SETTINGS, "", "error", f"cannot list the settings: {_last(code, lines)}")]
        names = {match[1] for match in map(_TEMPLATE_LINE.match, lines) if match}
    sources = [*sorted((folder / "handler").glob("**/*.py"))[:MAX_SOURCES], folder / "handler.py"]
    found = [source for source in (*sources, folder / ".runpod" / "handler.py") if source.is_file()]
    for source in found:
        try:
            names |= set(_QUOTED.findall(_content(source)))
        except _UnreadableError as error:
            problems.append(Problem(str(source.relative_to(folder)), "", "warning", str(error)))
    if not names:
        text = "no code of the worker was found: whether it reads the variables was not checked"
        return None, [*problems, Problem("handler", "", "warning", text)]
    return frozenset(names), problems


def _check_inputs(run: Runtime, folder: Path, document: Document, inputs: Mapping[str, Any]) -> None:
    """Ask the worker's own schema about the tests' inputs."""
    if not inputs:
        return
    if not (folder / _SCHEMA).is_file():
        document.warning("tests", f"the inputs were not checked: there is no {_SCHEMA}")
        return
    try:
        stdin = json.dumps(list(inputs.values()))
    except RecursionError:
        document.error("tests", "an input is nested too deeply")
        return
    code, lines = _child(run, folder, ("handler.schema", "--check"), stdin)
    verdicts = _verdicts(lines, len(inputs)) if code == 0 else None
    if verdicts is None:
        document.error("tests", f"the inputs cannot be checked: {_last(code, lines)}")
        return
    for path, verdict in zip(inputs, verdicts, strict=True):
        for text in verdict["problems"]:
            document.error(path, text)
        for text in verdict["warnings"]:
            document.warning(path, text)


def _verdicts(lines: Sequence[str], count: int) -> list[dict[str, list[str]]] | None:
    # Libraries may have said something before.
    start = next((number for number, line in enumerate(lines) if line.startswith("[")), len(lines))
    try:
        found = json.loads("\n".join(lines[start:]))
        told = [{key: [str(text) for text in each[key]] for key in ("problems", "warnings")} for each in found]
    except (ValueError, TypeError, KeyError):
        return None
    return told if len(told) == count else None


def _child(run: Runtime, folder: Path, module: Sequence[str], stdin: str | None) -> tuple[int | None, list[str]]:
    """Exit code (None: not done in time) and output of one of the folder's modules."""
    environ = {name: run.environ[name] for name in _KEPT if name in run.environ}
    environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    lines: list[str] = []
    command = [sys.executable, "-m", *module]
    done = run_child(
        command,
        environ=environ,
        limit_s=CHILD_LIMIT_S,
        say=lines.append,
        stdin=stdin,
        folder=folder,
        clean=run.redactor.clean,
    )
    return None if done.timed_out else done.code, lines


def _last(code: int | None, lines: Sequence[str]) -> str:
    said = f": {lines[-1][:200]}" if lines else ""
    return f"not done after {CHILD_LIMIT_S:.0f} s" if code is None else f"exit code {code}{said}"
