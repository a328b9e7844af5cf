"""No secret comes out anywhere: every verb, well and with every kind of trouble, says nothing that it must not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.builder_pods import TOKEN, Bench, pod_bench
from tests.fakes.runpod.control_plane import API_KEY, ControlPlane
from tests.fakes.runpod.job_queue import JobQueue
from tests.serving import DEMO
from tests.test_builder_cli import verbs

PASSWORD = "canary/docker pass+word"
JOB_SECRET = "canary-of-a-bucket-0123456789"
SECRETS = (API_KEY, TOKEN, PASSWORD, JOB_SECRET)
FORMS = {form for secret in SECRETS for form in (secret, quote(secret, safe=""))}
IMAGE = "you/whisper:abc1234"
VERBS = (
    "gpus",
    f"plan --image {IMAGE}",
    f"deploy --image {IMAGE} --yes --replace --timeout 30",
    f"deploy --image {IMAGE} --yes --replace --no-wait --spot",
    f"deploy --image {IMAGE} --yes --replace --no-wait --secret token",
    "wait --timeout 20",
    "status",
    "logs --tail 10",
    "stop",
    "start",
    "restart",
    "check-all",
    "guard --kill --all",
    "cost --reconcile",
    "events",
    "config show",
    "config check",
    "doctor",
    "push --save-credential",
    "test health",
    "terminate --yes",
    f"plan endpoint --image {IMAGE}",
    f"deploy endpoint --image {IMAGE} --yes --timeout 30",
    "deploy endpoint --image you/whisper:def5678 --yes --timeout 30",
    "deploy lb --image you/whisper:def5678 --yes --new --no-wait",
    "endpoint list",
    "endpoint status",
    "endpoint scale --min 1 --max 2 --yes",
    "job run job.json",
    "job run job.json --wait --timeout 30",
    "transcribe hello.wav --yes --timeout 60",
    "job status 00000001-ep-u1 --endpoint ep",
    "job stream 00000001-ep-u1 --endpoint ep",
    "job cancel 00000001-ep-u1 --endpoint ep",
    "job retry 00000001-ep-u1 --endpoint ep",
    "endpoint purge --yes",
    "endpoint delete --all-mine --yes",
    "hub lint",
)


ELSEWHERE = {
    "ec2": "tests/test_builder_ec2_money.py, tests/test_builder_ec2_run.py",
    "setup": "tests/test_builder_setup.py",
    "build": "tests/test_builder_docker.py",
    "test": "the verbs of tests share one client, and `test health` is here; tests/test_builder_live.py",
    "explain": "it reads a text and asks nobody; what it prints passes the same redactor",
    "spec": "it sends no secret",
}
"""Verbs, or groups of them, that are not in VERBS, and where they are held to the same."""


def test_every_verb_is_held_to_it() -> None:
    words = [verb.split() for verb in VERBS]
    here = {tuple(each[:1]) for each in words} | {tuple(each[:2]) for each in words}
    assert [verb for verb in verbs() if verb not in here and verb[0] not in ELSEWHERE] == []


def well(plane: ControlPlane) -> None:
    """No trouble at all."""


def echo(plane: ControlPlane) -> None:
    """An API that quotes what it was sent, and keys it was never sent."""
    detail = f"invalid env WHISPER_AUTH_TOKEN={TOKEN}, password '{PASSWORD}', key Bearer {API_KEY}"
    body = {"title": "Unprocessable Entity", "status": 422, "detail": detail, "errors": [f"$.env: {TOKEN}"]}
    plane.faults.fail("*", 422, times=100, body=body)


def html(plane: ControlPlane) -> None:
    """An edge that shows a page with the request in it."""
    plane.faults.fail("*", 502, times=100, body=f"<html><title>{API_KEY} {TOKEN}</title>{PASSWORD}</html>")


def expired(plane: ControlPlane) -> None:
    """A key that is no longer taken."""
    plane.faults.expire_key()


def dropped(plane: ControlPlane) -> None:
    """Connections that end without an answer, whatever was done."""
    plane.faults.drop_after_commit("*", times=100)


def trouble_queues(plane: ControlPlane, trouble: Callable[[ControlPlane], None]) -> None:
    """The same trouble with the job API, as far as it can be had there."""
    for queue in plane.endpoints.queues.values():
        assert isinstance(queue, JobQueue)
        queue.faults.clear()
        for route in ("run", "status", "cancel", "health", "purge-queue"):
            if trouble is html:
                queue.faults.status(route, 502, times=100, body=f"<html>{API_KEY} {JOB_SECRET}</html>")
            elif trouble is dropped:
                queue.faults.cut(route, times=100, after_commit=True)


def write_files(folder: Path) -> None:
    """A job with a secret in it, and a recording."""
    job = {"audio": "https://media.test/talk.mp3", "s3Config": {"accessSecret": JOB_SECRET}}
    (folder / "job.json").write_text(json.dumps({"input": job}), encoding="utf-8")
    shutil.copy(DEMO / "samples" / "hello_en.wav", folder / "hello.wav")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    environ = {"DOCKER_HUB_USERNAME": "you", "DOCKER_PASSWORD": PASSWORD, "PATH": str(tmp_path)}
    with pod_bench(tmp_path, environ=environ) as made:
        made.plane.log_hold_s = 0.0
        yield made


@pytest.mark.parametrize("trouble", [well, echo, html, expired, dropped], ids=lambda trouble: trouble.__name__)
def test_no_verb_tells_a_secret(
    bench: Bench, trouble: Callable[[ControlPlane], None], capfd: pytest.CaptureFixture[str]
) -> None:
    bench.add_running()
    write_files(bench.cli.folder)
    for number, verb in enumerate(VERBS):
        bench.plane.faults.restore()
        trouble(bench.plane)
        trouble_queues(bench.plane, trouble)
        outcome = bench.cli.run(*verb.split(), *(["--json"] if number % 2 else []))
        said = outcome.out + outcome.err + "".join(capfd.readouterr())
        assert "Traceback" not in said, verb
        assert not {form for form in FORMS if form in said}, f"{verb} with {trouble.__name__} told a secret"
    for path in (bench.cli.folder / "artifacts").rglob("*"):
        text = path.read_text(encoding="utf-8")
        assert not {form for form in FORMS if form in text}, f"{path.name} holds a secret"
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is open to others"
    # Where a request must carry a secret it may; in addresses, headers and elsewhere it may not.
    bench.plane.assert_no_secret(*SECRETS)
