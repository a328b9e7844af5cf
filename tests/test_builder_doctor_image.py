"""builder doctor --image: the image's own findings are shown, and what keeps them from coming is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.clock import SystemClock
from builder.setup.doctor_image import read_findings
from tests.builder_harness import Cli
from tests.fakes.stub_docker import StubDocker

RUN = """
if verb == "run":
    print((folder / "said.txt").read_text(), end="")
    sys.exit(int((folder / "code.txt").read_text()))
"""
GOOD = {"name": "model", "state": "ok", "says": "demo is whole", "remedy": ""}
BAD = {"name": "ports", "state": "fail", "says": "9090 is in use", "remedy": "set WHISPERLIVE_PORT"}


def document(*checks: dict[str, str]) -> str:
    """As `python -m engine.doctor --json` writes it."""
    return '{"checks": [\n' + ",\n".join(json.dumps(each) for each in checks) + '\n],\n"count": {}}\n'


class Image:
    """An image whose doctor says something."""

    def __init__(self, folder: Path) -> None:
        self.docker = StubDocker(folder / "stub")
        script = self.docker.bin / "docker"
        script.write_text(script.read_text(encoding="utf-8") + RUN, encoding="utf-8")
        (folder / "project").mkdir()
        self.cli = Cli(self.docker.environ, folder / "project", SystemClock())

    def says(self, text: str, code: int = 0) -> None:
        (self.docker.folder / "said.txt").write_text(text, encoding="utf-8")
        (self.docker.folder / "code.txt").write_text(str(code), encoding="utf-8")

    @property
    def command(self) -> list[str]:
        return next(call["argv"] for call in self.docker.calls if call["verb"] == "run")


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def test_findings_come_from_the_image(image: Image) -> None:
    image.says("Unable to find image locally\nabc: Pull complete\n" + document(GOOD))
    outcome = image.cli.run("doctor", "--image", "me/whisper:1", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["checks"] == [GOOD]
    assert image.command == ["run", "--rm", "me/whisper:1", "doctor", "--json"]
    table = image.cli.run("doctor", "--image", "me/whisper:1")
    assert "demo is whole" in table.out and "1 ok, 0 to look at, 0 failed" in table.out


def test_a_failure_inside_is_one_outside(image: Image) -> None:
    image.says(document(GOOD, BAD), code=1)
    outcome = image.cli.run("doctor", "--image", "whisper", "--gpus", "--json")
    assert (outcome.code, outcome.document["count"]["fail"]) == (1, 1)
    assert image.command == ["run", "--rm", "--gpus", "all", "whisper", "doctor", "--json"]


def test_no_secret_goes_along(image: Image) -> None:
    image.cli.environ["RUNPOD_API_KEY"] = "rpa_secret00000000000000"
    image.says(document(GOOD))
    assert image.cli.run("doctor", "--image", "whisper").code == 0
    assert "rpa_secret" not in image.docker.log


@pytest.mark.parametrize(
    "text", ["", "Segmentation fault\n", '{"checks": [', '{"checks": []}', '{"checks": [{"a": 1}]}']
)
def test_an_image_without_findings_is_an_error(image: Image, text: str) -> None:
    image.says(text)
    outcome = image.cli.run("doctor", "--image", "whisper")
    assert outcome.code == 1
    assert "whisper answers without findings" in outcome.err
    image.says(text, code=125)
    assert "docker run failed with exit code 125" in image.cli.run("doctor", "--image", "whisper").err


def test_without_an_engine_or_a_client(image: Image, tmp_path: Path) -> None:
    image.docker.fail(version="Cannot connect to the Docker daemon. Is the docker daemon running?")
    outcome = image.cli.run("doctor", "--image", "whisper")
    assert (outcome.code, "no docker engine answers" in outcome.err) == (1, True)
    assert "run" not in image.docker.verbs
    image.cli.environ["PATH"] = str(tmp_path)
    assert "docker is not installed" in image.cli.run("doctor", "--image", "whisper").err


@pytest.mark.parametrize("arguments", [("--gpus",), ("--image", "--privileged"), ("--image", "Not A Name")])
def test_wrong_usage(image: Image, arguments: tuple[str, ...]) -> None:
    assert image.cli.run("doctor", *arguments).code == 2
    assert image.docker.verbs == []


def test_findings_of_an_unknown_state_are_none() -> None:
    assert read_findings(document({**GOOD, "state": "odd"})) is None
