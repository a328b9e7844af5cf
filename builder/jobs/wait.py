"""Waiting for a job: how it goes, why it does not, and what became of it.

A job that is waited for is never ended by the waiting: after a timeout, an interrupt or a lost network it goes on, and
the message names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.endpoints.look import Watcher
from builder.errors import (
    BadAnswerError,
    BuilderError,
    EndpointFailedError,
    InterruptError,
    JobFailedError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    WaitTimeoutError,
)
from builder.instants import duration_text
from builder.jobs.submit import hide_secrets
from builder.pods.pods import account_document

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.endpoints.diagnose import Finding
    from builder.runtime import Runtime

__all__ = ["failure_of", "find_job", "gave_up", "progress_text", "unknown_job", "wait_for_job"]

FIRST_POLL_S, LONGEST_POLL_S, GROWTH = 0.5, 5.0, 1.5
QUEUE_PATIENCE_S = 30.0
"""A job that waits for longer makes the endpoint be looked at, again and again after as long."""
MAX_FAULTS = 10
MAX_ERROR_CHARS = 500
FORGOTTEN = "forgotten: results are kept 30 minutes, and a job that outlives its ttl vanishes"


def find_job(run: Runtime, endpoint_id: str, job_id: str) -> Job:
    """The job as it is now. Raises NotFoundError that says what may have become of it."""
    try:
        job = run.jobs.status(endpoint_id, job_id)
    except NotFoundError as error:
        raise unknown_job(error, endpoint_id, job_id) from None
    hide_secrets(run.redactor, (job.output, job.error), is_answer=True)
    return job


def unknown_job(error: NotFoundError, endpoint_id: str, job_id: str) -> NotFoundError:
    """The error for a job that RunPod does not know, with what may have become of it."""
    if error.status is None:
        # Nobody was asked: no id looks like that.
        return NotFoundError(str(error), hint="jobs sent from here: python -m builder events")
    return NotFoundError(
        f"job {job_id} is not known at endpoint {endpoint_id}: another endpoint's, or {FORGOTTEN}",
        hint="name its endpoint: --endpoint ID; jobs sent from here: python -m builder events",
        status=error.status,
        request_id=error.request_id,
    )


def wait_for_job(
    run: Runtime, endpoint_id: str, job_id: str, *, timeout_s: float, say: Callable[[str], None] | None = None
) -> Job:
    """The job once it is COMPLETED; `say` hears how it goes (default: a task on the console).

    Raises JobFailedError with the worker's words, WaitTimeoutError, NotFoundError if it is forgotten,
    EndpointFailedError if it waits at an endpoint that will never take it, InterruptError. The job goes on in all
    but the first.
    """
    try:
        if say is not None:
            return _wait(run, endpoint_id, job_id, timeout_s, say)
        with run.console.task(f"job {job_id}") as task:
            return _wait(run, endpoint_id, job_id, timeout_s, task.update)
    except KeyboardInterrupt:
        raise InterruptError(
            f"interrupted; job {job_id} goes on, and costs while it runs", hint=_next_step(endpoint_id, job_id)
        ) from None


def failure_of(job: Job, endpoint_id: str) -> JobFailedError | None:
    """The error that says why the job did not complete; None if it did, or is not over."""
    if not job.is_over or job.status == "COMPLETED":
        return None
    words = _words(job.error) or _words(job.output)
    what = {"FAILED": "failed", "CANCELLED": "was cancelled", "TIMED_OUT": "ran out of time"}.get(
        job.status, job.status
    )
    hint = f"once more: python -m builder job retry {job.id} --endpoint {endpoint_id}"
    if job.status == "TIMED_OUT":
        hint = "give it more: --execution-timeout, or the endpoint's own; " + hint
    elif job.status == "CANCELLED":
        hint = ""
    return JobFailedError(f"job {job.id} {what}" + (f": {words}" if words else ""), hint=hint)


def progress_text(job: Job, elapsed_s: float) -> str:
    """`IN_PROGRESS 12s 40 %`: state, time, and what the worker says of its progress."""
    said = _progress(job.output) if job.status == "IN_PROGRESS" else ""
    return f"{job.status} {duration_text(elapsed_s)}" + (f" {said}" if said else "")


def _wait(run: Runtime, endpoint_id: str, job_id: str, timeout_s: float, say: Callable[[str], None]) -> Job:
    began_s, pause_s, faults = run.clock.monotonic_s(), FIRST_POLL_S, 0
    queue = _Queue(run, endpoint_id)
    job: Job | None = None
    while True:
        try:
            job = find_job(run, endpoint_id, job_id)
            faults = 0
        except (NetworkError, RateLimitedError, ServerFaultError, BadAnswerError) as error:
            faults += 1
            if faults >= MAX_FAULTS:
                raise gave_up(error, endpoint_id, job_id) from None
            run.console.note(f"{error}; looking again")
        waited_s = run.clock.monotonic_s() - began_s
        if job is not None and job.is_over:
            failure = failure_of(job, endpoint_id)
            if failure is not None:
                raise failure
            return job
        if job is not None:
            say(progress_text(job, waited_s))
            queue.look(job, waited_s)
        if waited_s >= timeout_s:
            raise _timed_out(job, endpoint_id, job_id, waited_s, queue.findings)
        run.clock.sleep(max(0.05, min(pause_s, timeout_s - waited_s)))
        pause_s = min(LONGEST_POLL_S, pause_s * GROWTH)


class _Queue:
    """Looks at the endpoint while a job stays in its queue, and tells what it finds once."""

    def __init__(self, run: Runtime, endpoint_id: str) -> None:
        self._run = run
        self._id = endpoint_id
        self._watcher = Watcher(run, endpoint_id)
        self._looked_s = 0.0
        self._final: str | None = None
        self.findings: tuple[Finding, ...] = ()

    def look(self, job: Job, waited_s: float) -> None:
        """Raises EndpointFailedError if two looks agree that the endpoint will never take it."""
        if job.status != "IN_QUEUE":
            self.findings, self._final = (), None
            return
        if waited_s - self._looked_s < QUEUE_PATIENCE_S:
            return
        self._looked_s = waited_s
        known = {each.kind for each in self.findings}
        account = account_document(self._run)
        try:
            look = self._watcher.look(
                credit=account["balance"], spend_per_h=account["spend_per_hour"], with_releases=False
            )
        except NotFoundError as error:
            raise NotFoundError(f"job {job.id} is lost with its endpoint: {error}", hint=error.hint) from None
        except BuilderError:
            # It is asked for again; the job's own state is what counts.
            return
        self.findings = look.findings
        for each in look.findings:
            if each.kind not in known:
                self._run.console.warn(f"job {job.id} waits: {each.cause}. {each.remedy}")
        self._give_up(job)

    def _give_up(self, job: Job) -> None:
        final = next((each for each in self.findings if each.is_final and each.is_sure), None)
        if final is None or self._final != final.kind:
            self._final = final.kind if final else None
            return
        lines = f"; its last words: {' '.join(final.lines[-1].split())[:MAX_ERROR_CHARS]}" if final.lines else ""
        raise EndpointFailedError(
            f"job {job.id} waits in vain, and is kept: {final.cause}{lines}",
            hint=f"{final.remedy}; end the job: python -m builder job cancel {job.id} --endpoint {self._id}",
        )


def _timed_out(
    job: Job | None, endpoint_id: str, job_id: str, waited_s: float, findings: tuple[Finding, ...]
) -> WaitTimeoutError:
    state = job.status if job is not None else "not seen"
    why = "".join(f"; {each.cause}" for each in findings)
    return WaitTimeoutError(
        f"job {job_id} is {state} after {duration_text(waited_s)}: it is kept, and goes on{why}",
        hint=_next_step(endpoint_id, job_id),
    )


def gave_up(error: BuilderError, endpoint_id: str, job_id: str) -> BuilderError:
    """The error to end with when too many looks in a row failed: the job knows nothing of that."""
    return type(error)(
        f"{error}; job {job_id} goes on",
        hint=_next_step(endpoint_id, job_id),
        status=error.status,
        request_id=error.request_id,
    )


def _next_step(endpoint_id: str, job_id: str) -> str:
    where = f"{job_id} --endpoint {endpoint_id}"
    return f"look again: python -m builder job status {where}; end it: python -m builder job cancel {where}"


def _progress(output: Any) -> str:
    """What a worker reports while it works, in a few words."""
    if isinstance(output, dict):
        for name in ("progress", "percent", "message"):
            value = output.get(name)
            if isinstance(value, bool) or not isinstance(value, (str, int, float)):
                continue
            if isinstance(value, str):
                return " ".join(value.split())[:80]
            # A share, or percent already.
            return f"{value * 100 if name == 'progress' and 0 <= value <= 1 else value:.0f} %"
        return ""
    return " ".join(output.split())[:80] if isinstance(output, str) else ""


def _words(error: Any) -> str:
    """The worker's error text in one line, with its code; RunPod's own wraps it into JSON, as text."""
    if isinstance(error, str) and error.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            inner = json.loads(error)
            if isinstance(inner, dict):
                return _words(inner)
    if isinstance(error, dict):
        text = next((error[name] for name in ("error_message", "message", "error") if error.get(name)), "")
        code = next((error[name] for name in ("error_code", "code", "error_type") if error.get(name)), "")
        parts = (_words(text), f"({_words(code)})" if code else "")
        return " ".join(part for part in parts if part)
    if isinstance(error, list):
        return "; ".join(filter(None, (_words(each) for each in error)))[:MAX_ERROR_CHARS]
    return " ".join(str(error).split())[:MAX_ERROR_CHARS] if error is not None else ""
