"""The proof that an endpoint works: one small job for a queue, one question to /ping behind a load balancer.

The job is submitted and polled, never waited for in one request: a cold worker takes longer than RunPod's edge waits.
Speech that is shipped goes along, so that no storage or other host has to work.

Source: operation reference of RunPod's job API; RunPod's documentation of load-balancing endpoints (/ping).
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.checks.listen import GREETING, sample
from builder.errors import (
    AmbiguousError,
    AuthError,
    BuilderError,
    EndpointFailedError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
)

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.endpoints.options import EndpointKind
    from builder.endpoints.rollout import Watch
    from builder.runtime import Runtime

__all__ = ["lb_url", "ping", "prove", "try_job"]

MAX_RUN_S = 300
"""The clip has three seconds; a model may have to be fetched first."""
MIN_RUN_S, MIN_LIFE_S = 5, 10
"""RunPod's least for a job's execution and life."""
LAG_S = 60.0
"""An endpoint, or a job, that was made so short a time ago may be unknown to the job API."""
MAX_FAULTS = 5
PING_S = 10.0
_PASSING = (NetworkError, RateLimitedError, ServerFaultError)
_MS = 1000
_MAX_SHOWN = 200


def prove(run: Runtime, kind: EndpointKind, watch: Watch, *, has_canary: bool) -> dict[str, Any]:
    """Watch the rollout and try the endpoint; both results, for --json. Raises what they raise."""
    readiness = watch.until_rolled_out()
    canary = None
    if has_canary:
        canary = try_job(run, watch) if kind == "endpoint" else ping(run, watch)
    return {"readiness": readiness, "canary": canary}


def try_job(run: Runtime, watch: Watch) -> dict[str, Any]:
    """Have the bundled clip transcribed; the text and times, for --json.

    Raises EndpointFailedError if the job fails or has no text, or the workers die of it; WaitTimeoutError. A job that
    is not done then, or at Ctrl-C, is cancelled.
    """
    began_s = watch.elapsed_s
    job_id: str | None = None
    try:
        job = _submit(run, watch)
        job_id = job.id
        job = _until_over(run, watch, job)
    except BaseException:
        if job_id is not None:
            # It would have a worker started, and billed, for nobody.
            with suppress(BuilderError):
                run.jobs.cancel(watch.endpoint_id, job_id)
        raise
    text = _text(job.output)
    if job.status != "COMPLETED":
        raise EndpointFailedError(
            f"endpoint {watch.endpoint_id}: its test job ended {job.status}: {_error(job)}",
            hint=f"see more: python -m builder endpoint status {watch.endpoint_id}",
        )
    if not text:
        raise EndpointFailedError(
            f"endpoint {watch.endpoint_id} makes no text of speech", hint="is WHISPER_MODEL the model that was meant?"
        )
    return {
        "job_id": job.id,
        "text": text,
        "elapsed_s": round(watch.elapsed_s - began_s, 1),
        "delay_ms": job.delay_ms,
        "execution_ms": job.execution_ms,
        "worker_id": job.worker_id,
    }


def ping(run: Runtime, watch: Watch) -> dict[str, Any]:
    """Ask a load-balancing endpoint for /ping until it answers 200; the address and time, for --json.

    Raises AuthError if the load balancer refuses the key, EndpointFailedError, WaitTimeoutError.
    """
    from builder.api.connect import find_key
    from builder.api.http import get_once

    url = lb_url(run, watch.endpoint_id)
    headers = {"Authorization": f"Bearer {find_key(run.settings, run.environ)}"}
    began_s = watch.elapsed_s
    with run.console.task(f"endpoint {watch.endpoint_id}") as task:
        while True:
            try:
                status = get_once(f"{url}/ping", timeout_s=PING_S, headers=headers).status
            except NetworkError:
                status = 0
            if status == 200:
                return {"url": url, "elapsed_s": round(watch.elapsed_s - began_s, 1)}
            # An address that is new may be refused until the edge knows of it.
            if status in (401, 403) and watch.elapsed_s - began_s >= LAG_S:
                raise AuthError(f"endpoint {watch.endpoint_id}: the load balancer refuses the key (HTTP {status})")
            said = {0: "no answer", 204: "still loading"}.get(status, f"HTTP {status}")
            task.update(f"/ping: {said}")
            watch.look()
            watch.pause(f"/ping does not answer 200: {said}")


def lb_url(run: Runtime, endpoint_id: str) -> str:
    """Address of a load-balancing endpoint, without a slash at the end."""
    return run.settings.lb_template.replace("{endpoint}", endpoint_id).rstrip("/")


def _body(left_s: float) -> dict[str, Any]:
    audio, _ = sample(GREETING)
    run_s = min(MAX_RUN_S, max(MIN_RUN_S, int(left_s)))
    # It need not outlive the command that waits for it.
    life_s = max(MIN_LIFE_S, int(left_s)) + run_s
    return {
        "input": {"audio_base64": base64.b64encode(audio.read_bytes()).decode()},
        "policy": {"executionTimeout": run_s * _MS, "ttl": life_s * _MS},
    }


def _submit(run: Runtime, watch: Watch) -> Job:
    """The canary's job. A lost answer is no harm: a second such job costs next to nothing."""
    body, faults = _body(watch.left_s), 0
    while True:
        try:
            return run.jobs.run(watch.endpoint_id, body)
        except NotFoundError as error:
            if watch.elapsed_s >= LAG_S:
                raise EndpointFailedError(f"the job API does not know endpoint {watch.endpoint_id}: {error}") from None
        except (AmbiguousError, *_PASSING):
            faults += 1
            if faults >= MAX_FAULTS:
                raise
        watch.pause("it takes no job")


def _until_over(run: Runtime, watch: Watch, job: Job) -> Job:
    job_id, began_s, faults = job.id, watch.elapsed_s, 0
    with run.console.task(f"job {job_id}") as task:
        while not job.is_over:
            watch.look()
            # On an endpoint that is in use it waits for its turn.
            why = " (behind other jobs? leave it out: --no-canary)" if job.status == "IN_QUEUE" else ""
            watch.pause(f"its test job is still {job.status}{why}")
            try:
                job = run.jobs.status(watch.endpoint_id, job_id)
                faults = 0
            except NotFoundError:
                if watch.elapsed_s - began_s >= LAG_S:
                    raise EndpointFailedError(f"endpoint {watch.endpoint_id} has lost its test job {job_id}") from None
            except _PASSING:
                faults += 1
                if faults >= MAX_FAULTS:
                    raise
            task.update(job.status)
    return job


def _text(output: Any) -> str:
    """What was understood: worker-faster_whisper's key, or the plain one."""
    if not isinstance(output, dict):
        return output.strip() if isinstance(output, str) else ""
    found = output.get("transcription") or output.get("text") or ""
    return found.strip() if isinstance(found, str) else ""


def _error(job: Job) -> str:
    said = " ".join(str(job.error or job.output or "it does not say why").split())
    return said if len(said) <= _MAX_SHOWN else said[: _MAX_SHOWN - 3] + "..."
