"""What an image has to do on the EC2 machine: get ready and turn speech into text, as a server and as a worker."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from builder.checks.checks import Check
from builder.checks.listen import ROOT
from builder.ec2.remote_logs import CONTAINER
from builder.ec2.ssh import SshLateError
from builder.errors import NotFoundError, SshError
from builder.instants import duration_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from builder.ec2.remote_docker import RemoteDocker
    from builder.runtime import Runtime

__all__ = ["JOB_CONTAINER", "check_handler", "check_realtime"]

POLL_S = 3.0
CURL_S = 5
JOB_CONTAINER = f"{CONTAINER}-job"
JOB = ROOT / "test_input.json"
LAST_LINES = 30
_TEXT = re.compile(r"""["']transcription["']:\s*(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)')""")
_DEVICE = re.compile(r"""["']device["']:\s*["']([^"']*)["']""")


def check_realtime(run: Runtime, docker: RemoteDocker, token: str | None, timeout_s: float) -> list[Check]:
    """The server that was started: healthy and ready in time, then a greeting, and nobody without the secret.

    Raises SshError.
    """
    from builder.checks.live import check_secret, check_speech
    from builder.checks.targets import Target

    settings = run.settings
    checks = _until_ready(run, docker, timeout_s)
    if not all(check.ok for check in checks):
        return checks
    with (
        run.console.task("streaming speech through a tunnel") as task,
        docker.ssh.forward(settings.ws_port, settings.health_port) as (ws_port, health_port),
    ):
        target = Target(f"ws://127.0.0.1:{ws_port}", f"http://127.0.0.1:{health_port}", token)
        task.update("a greeting")
        checks.append(check_speech(run, target))
        if checks[-1].ok and token is not None:
            task.update("without the secret")
            checks += check_secret(run, target)
    return checks


def check_handler(
    run: Runtime, docker: RemoteDocker, image: str, env: Mapping[str, str], timeout_s: float
) -> list[Check]:
    """The shipped job, done as a worker does it outside RunPod. Raises SshError."""
    with run.console.task("a job in a worker") as task:
        task.update(f"at most {duration_text(timeout_s)}")
        began_s = run.clock.monotonic_s()
        try:
            done = docker.run_once(JOB_CONTAINER, image, env, ("--test_input", _job()), timeout_s)
        except SshLateError:
            return [Check("job", False, f"not done in {duration_text(timeout_s)}", {"log": []})]
    took_s = run.clock.monotonic_s() - began_s
    log = {"log": list(done.lines[-LAST_LINES:])}
    if done.code:
        last = done.lines[-1] if done.lines else "it says nothing"
        return [Check("job", False, f"the worker ended with exit code {done.code}: {last[:300]}", log)]
    device = _DEVICE.search(done.text)
    if device is not None and device[1] != "cuda":
        return [Check("job", False, f"the model ran on {device[1]}, not on the GPU", log)]
    found = _TEXT.search(done.text)
    text = (found[1] or found[2] or "").strip() if found else ""
    if not text:
        return [Check("job", False, "no text came for the shipped recording", log)]
    return [Check("job", True, f"{text!r} in {took_s:.1f} s", {"text": text})]


def _until_ready(run: Runtime, docker: RemoteDocker, timeout_s: float) -> list[Check]:
    """`/health`, then `/ready`; ends early if the container does."""
    port = run.settings.health_port
    began_s = run.clock.monotonic_s()
    passed: list[Check] = []
    with run.console.task("waiting for the server") as task:
        for path in ("/health", "/ready"):
            while True:
                status, said = _curl(docker, port, path)
                after_s = run.clock.monotonic_s() - began_s
                if status == 200:
                    passed.append(Check(path, True, f"after {duration_text(after_s)}", {"after_s": round(after_s, 1)}))
                    task.update(f"{path} after {duration_text(after_s)}")
                    break
                ended = _ended(docker)
                if ended is not None:
                    return [*passed, Check(path, False, ended)]
                if after_s >= timeout_s:
                    return [*passed, Check(path, False, f"{said} after {duration_text(timeout_s)}")]
                task.update(f"{path}: {said}")
                run.clock.sleep(min(POLL_S, timeout_s - after_s))
    return passed


def _curl(docker: RemoteDocker, port: int, path: str) -> tuple[int | None, str]:
    """HTTP status and what is said, asked on the machine itself."""
    url = f"http://127.0.0.1:{port}{path}"
    command = ("curl", "--silent", "--show-error", "--max-time", str(CURL_S), "--write-out", r"\n%{http_code}", url)
    try:
        done = docker.ssh.run(command)
    except SshError as error:
        return None, str(error)
    *body, code = done.lines or ("",)
    if done.code or not code.isdigit():
        return None, f"no answer ({code[:200]})"
    return int(code), f"HTTP {code}: {' '.join(body)[:200]}"


def _ended(docker: RemoteDocker) -> str | None:
    """How the container ended; None if it runs, or nobody can tell."""
    try:
        state = docker.state(CONTAINER)
    except NotFoundError:
        return "the container is gone"
    except SshError:
        return None
    if state.is_running:
        return None
    return f"the container ended with exit code {'?' if state.exit_code is None else state.exit_code}"


def _job() -> str:
    """The shipped job, without what would only make its answer long. Raises SshError if it is not there."""
    try:
        document = json.loads(JOB.read_text(encoding="utf-8"))
        given = {"audio_base64": document["input"]["audio_base64"], "transcription": "plain text"}
    except (OSError, ValueError, KeyError, TypeError):
        raise SshError(f"{JOB}: the shipped job is not there", hint="try the server only: --mode realtime") from None
    return json.dumps({"input": given})
