"""`python -m handler` as a newcomer meets it: a transcript, or one clear line and the right exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from handler.schema import parse_input

ROOT = Path(__file__).parent.parent
WITHOUT_SDK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("runpod", "aiohttp"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
sys.argv = ["handler"]
from handler.__main__ import main
raise SystemExit(main())
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "WHISPER_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_job_of_the_repository_prints_its_transcript() -> None:
    """Begun as RunPod's Hub begins it, which is `python -m handler` in a roundabout way."""
    result = run(".runpod/handler.py")
    assert result.returncode == 0, result.stderr
    assert "'transcription': 'Hello, my name is Anna.'" in result.stdout
    assert "Anna" not in result.stderr


def test_a_bad_job_is_one_line_and_1() -> None:
    result = run("-m", "handler", "--test_input", '{"input": {}}')
    assert (result.returncode, "Traceback" in result.stdout + result.stderr) == (1, False)
    assert "Must provide either audio or audio_base64" in result.stdout


def test_a_bad_setting_is_one_line_and_2() -> None:
    result = run("-m", "handler", CONCURRENCY="0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: CONCURRENCY: '0' is not allowed; legal: 1 to 32\n"


def test_without_the_sdk_it_says_what_to_install() -> None:
    result = run("-c", WITHOUT_SDK)
    assert (result.returncode, result.stdout) == (2, "")
    assert (
        result.stderr.splitlines()[-1]
        == "error: aiohttp is missing: install the extra `serverless`, as `make job` does"
    )


def test_help_has_examples_and_needs_nothing() -> None:
    result = run("-m", "handler", "--help")
    assert result.returncode == 0 and "examples:" in result.stdout and max(map(len, result.stdout.splitlines())) < 120


def test_the_hubs_files_are_jobs_and_settings_of_ours() -> None:
    """What RunPod's Hub shows and runs: every variable is a setting, every test is a job without a warning."""
    from engine.settings import rows

    known = {name for row in rows() for name in row.env}
    hub = json.loads((ROOT / ".runpod" / "hub.json").read_text(encoding="utf-8"))
    tests = json.loads((ROOT / ".runpod" / "tests.json").read_text(encoding="utf-8"))
    variables = {each["key"] for each in (*hub["config"]["env"], *tests["config"]["env"])}
    assert variables <= known
    for test in tests["tests"]:
        assert parse_input(test["input"], strict=True).warnings == ()
