"""The image in its three modes: what it serves, as whom it runs, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

from tests.fakes.runpod import PlaneRules, QueuePlane
from tests.fakes.runpod.process import platform_environ
from tools.image_checks.commands import ROOT, CheckFailedError, check, until
from tools.image_checks.containers import CONFINED, Container
from tools.image_checks.served import (
    READY_LIMIT_S,
    SAMPLE,
    Target,
    get,
    inline_audio,
    inline_opus,
    served,
    streaming,
    transcript,
    words_of,
)

__all__ = [
    "check_balancer",
    "check_confined",
    "check_healthcheck",
    "check_pod",
    "check_serverless",
    "check_sigterm_job",
    "check_sigterm_live",
]

BALANCER_STARTS = 5
END_LIMIT_S = 8.0
JOB_LIMIT_S = 180.0
LIVE_STREAMS = 3
LONG_POLL_S = 90.0
LONG_JOB_PARTS, TIMES_EACH = 50, 10
"""More than an hour of speech: a fast machine does not finish it in the time that SIGTERM leaves."""
LOOK_S = 0.02
FACTS = """
import json, os
def refuses(path):
    try:
        with open(path, "w"):
            os.unlink(path)
        return False
    except OSError:
        return True
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
    "capabilities": int(status["CapEff"], 16), "no_new_privileges": status.get("NoNewPrivs"),
    "refused": [path for path in ("/probe", "/app/probe", "/opt/venv/probe", "/usr/probe") if refuses(path)],
    "first": open("/proc/1/cmdline").read().split("\\0"),
}))
"""
"""Run in the container."""


def check_confined(target: Target) -> str:
    """Non-root, read-only root file system, no capabilities: it serves all the same."""
    with served(target) as server:
        server.wait_ready()
        facts = json.loads(server.container.python("-c", FACTS).out)
        check(facts["uid"] != 0 and facts["gid"] != 0 and 0 not in facts["groups"], f"it runs as root: {facts}")
        check(facts["capabilities"] == 0, f"it has capabilities: {facts['capabilities']:#x}")
        check(len(facts["refused"]) == 4, f"only {facts['refused']} refuse a new file")
        check("python" in facts["first"][0], f"its first process is {facts['first'][0]}, not Python")
        transcript(server.url)
    config = target.engine.inspect("image", target.image)["Config"]
    check(config.get("User", "").partition(":")[0] not in ("", "0", "root"), "the image's own USER is root")
    with _writable_elsewhere(target) as uid:
        return f"uid {facts['uid']} (also as {uid}), no capability, read-only root, process 1 is Python"


@contextlib.contextmanager
def _writable_elsewhere(target: Target) -> Iterator[int]:
    """Some platforms give a uid of their own that /etc/passwd does not know."""
    uid = 20_000
    with served(target, flags=("--network", "host", *CONFINED, "--user", f"{uid}:{uid}")) as server:
        server.wait_ready()
        yield uid


def check_pod(target: Target) -> str:
    """Pod mode: health, readiness, a live stream."""
    with served(target) as server:
        server.wait_ready()
        for path in ("/health", "/ready", "/status", "/metrics"):
            check(server.status(path) == http.client.OK, f"{path} answers {server.status(path)}")
        heard = transcript(server.url)
        check("mode pod" in server.container.log(), "the log does not say which mode it took and why")
    return f"/health /ready /status /metrics 200; heard {heard!r}"


@contextlib.contextmanager
def _worker(target: Target) -> Iterator[tuple[QueuePlane, Container]]:
    with QueuePlane(rules=PlaneRules(hold_s=LONG_POLL_S)) as plane:
        environ = {**platform_environ(plane, plane.url, "w1"), "WHISPER_MODEL": "demo"}
        with target.engine.running(target.image, env=environ) as container:
            yield plane, container


def _output(plane: QueuePlane, container: Container, job_id: str) -> dict[str, Any]:
    def is_over() -> bool:
        if plane.job(job_id).is_over:
            return True
        container.up("a job", ended=False)
        return False

    until(is_over, "the job", JOB_LIMIT_S)
    job = plane.job(job_id)
    check(job.status == "COMPLETED", f"the job is {job.status}: {str(job.output)[:300]}")
    check(isinstance(job.output, dict), f"the job's output is {job.output!r:.300}")
    output: dict[str, Any] = job.output
    return output


def check_serverless(target: Target) -> str:
    """Serverless mode: a job of the fake queue, and its own test input without any network."""
    began_s = time.monotonic()
    with _worker(target) as (plane, container):
        job_id = plane.submit({"audio_base64": inline_audio(SAMPLE), "language": "en"})
        heard = _output(plane, container, job_id)["transcription"]
        took_s = time.monotonic() - began_s
        check(heard == words_of(SAMPLE), f"heard {heard!r} instead of {words_of(SAMPLE)!r}")
        check("mode serverless" in container.log(), "the log does not say which mode it took and why")
        _ask_health(target, container, "serverless")
    job = json.loads((ROOT / "test_input.json").read_text(encoding="utf-8"))
    flags = ("--network", "none", *CONFINED)
    settings = {"WHISPER_MODE": "serverless", "WHISPER_MODEL": "demo"}
    ended = target.engine.once(target.image, "--test_input", json.dumps(job), flags=flags, env=settings)
    check(ended.code == 0, f"--test_input ended with {ended.code}: {ended.tail}")
    check(words_of(SAMPLE) in ended.text, f"--test_input printed no result: {ended.tail}")
    return f"COMPLETED {took_s:.1f} s after the start: {heard!r}; --test_input without a network"


def check_balancer(target: Target) -> str:
    """Load-balancer mode: /ping 204 while loading, then 200; a stream on PORT."""
    for _ in range(BALANCER_STARTS):
        seen, heard = _balanced(target)
        if seen == [http.client.NO_CONTENT, http.client.OK]:
            return f"/ping 204 while loading, then 200; heard {heard!r}"
        # Loaded between two looks.
        check(seen == [http.client.OK], f"/ping answered {seen}; legal: 204 while loading, then 200")
    raise CheckFailedError(f"/ping was never 204 in {BALANCER_STARTS} starts")


def _balanced(target: Target) -> tuple[list[int], str]:
    """What /ping answered in turn, and the words of a stream."""
    seen: list[int] = []
    with served(target, is_balanced=True) as server:

        def is_ready() -> bool:
            answer = get(server.health_port, "/ping")
            if answer and answer[0] not in seen[-1:]:
                seen.append(answer[0])
            if not answer:
                server.container.up("/ping", ended=False)
            return bool(answer) and seen[-1] == http.client.OK

        until(is_ready, f"/ping 200 (so far {seen})", READY_LIMIT_S)
        check(get(server.port, "/ping") == (200, "ready\n"), "/ping on PORT does not answer 200")
        heard = transcript(server.url)
        check("mode lb" in server.container.log(), "the log does not say which mode it took and why")
    return seen, heard


def check_healthcheck(target: Target) -> str:
    """The image's HEALTHCHECK says healthy of a server that serves, and unhealthy of a port nobody listens on."""
    with served(target) as server:
        server.wait_ready()
        shown = _ask_health(target, server.container, "pod")
        if target.engine.name == "podman":
            ended = target.engine("healthcheck", "run", server.container.name)
            check(ended.code == 0, f"podman healthcheck run ended with {ended.code}: {ended.tail}")
        wrong = target.engine(
            "exec", "-e", f"HEALTH_CHECK_PORT={_nobody(server.port)}", server.container.name, *_health_words(target)
        )
        check(wrong.code == 1, f"it ended with {wrong.code} although nobody answers")
    return shown


def _nobody(port: int) -> int:
    return port + 1 if get(port + 1, "/health") is None else port + 2


def _health_words(target: Target) -> list[str]:
    found = target.engine.inspect("image", target.image)
    # Docker has it among the settings, podman beside them.
    test = (found["Config"].get("Healthcheck") or found.get("Healthcheck") or {}).get("Test") or []
    check(len(test) > 1 and test[0] == "CMD", f"the image's HEALTHCHECK is {test}, not a command without a shell")
    return [str(word) for word in test[1:]]


def _ask_health(target: Target, container: Container, mode: str) -> str:
    words = _health_words(target)
    ended = target.engine("exec", container.name, *words)
    check(ended.code == 0, f"{mode}: HEALTHCHECK ended with {ended.code}: {ended.tail}")
    return f"{' '.join(words[1:])}: exit 0 ({ended.seconds:.2f} s with the engine's exec), 1 if nobody answers"


def check_sigterm_live(target: Target) -> str:
    """SIGTERM while streams run: exit code 0 within 8 s, nothing left."""
    with served(target) as server:
        server.wait_ready()
        with streaming(server.url, LIVE_STREAMS, target.engine.work):
            shown = _end(server.container)
            log = server.container.log()
        drained = f"draining {LIVE_STREAMS} streams" in log and "drained" in log
        check(drained, f"it ended without draining {LIVE_STREAMS} streams: {log[-400:]}")
    return f"{LIVE_STREAMS} streams drained: {shown}"


def check_sigterm_job(target: Target) -> str:
    """SIGTERM while a job runs, and while none does: exit code 0 within 8 s, nothing left, the job given back."""
    with _worker(target) as (plane, container):
        _output(plane, container, plane.submit({"audio_base64": inline_audio(SAMPLE), "language": "en"}))
        shown = f"idle: {_end(container)}"
    with _worker(target) as (plane, container):
        audio = inline_opus("meeting_en.wav", TIMES_EACH)
        job_id = plane.submit({"audio": [audio] * LONG_JOB_PARTS, "beam_size": 20, "language": "en"})
        until(lambda: plane.job(job_id).status != "IN_QUEUE", "the job taken", READY_LIMIT_S)
        # Only now the engine has it for certain.
        time.sleep(1.0)
        check(plane.job(job_id).status == "IN_PROGRESS", "the long job was over too early for this check")
        shown += f"; a job running: {_end(container)}"
        job = plane.job(job_id)
        if job.status != "FAILED" or not (isinstance(job.output, dict) and job.output.get("retryable")):
            raise CheckFailedError(f"the job is {job.status} ({str(job.output)[:200]}), not given back as retryable")
    return shown


def _end(container: Container) -> str:
    code, seconds, left = container.terminate()
    check(code == 0, f"SIGTERM: exit code {code}; last words: {container.log()[-800:]}")
    check(seconds <= END_LIMIT_S, f"SIGTERM: it took {seconds:.1f} s; at most {END_LIMIT_S:g}")
    check(not left, f"SIGTERM: processes {sorted(left)} live on")
    return f"exit 0 after {seconds:.1f} s"
