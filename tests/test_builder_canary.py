"""No secret comes out anywhere: every verb, well and with every kind of trouble, says nothing that it must not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.builder_pods import TOKEN, Bench, pod_bench
from tests.fakes.runpod.control_plane import API_KEY, ControlPlane

PASSWORD = "canary/docker pass+word"
SECRETS = (API_KEY, TOKEN, PASSWORD)
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
)


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
    for number, verb in enumerate(VERBS):
        bench.plane.faults.restore()
        trouble(bench.plane)
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
