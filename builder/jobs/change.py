"""Stopping jobs, and running them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.errors import AmbiguousError, BuilderError, ConflictError, NotFoundError, ServerFaultError
from builder.jobs.wait import find_job, unknown_job

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.runtime import Runtime

__all__ = ["cancel_jobs", "retry_job"]

AGAIN = ("FAILED", "TIMED_OUT")


def cancel_jobs(run: Runtime, jobs: Sequence[tuple[str, str]]) -> tuple[list[Job], BuilderError | None]:
    """Stop jobs, given as (endpoint, job); all are tried. Returns what became of them, and the error to end with."""
    found: list[Job] = []
    failures: list[BuilderError] = []
    for endpoint_id, job_id in jobs:
        try:
            job = run.jobs.cancel(endpoint_id, job_id)
        except NotFoundError as error:
            failures.append(unknown_job(error, endpoint_id, job_id))
            continue
        except BuilderError as error:
            failures.append(type(error)(f"job {job_id}: {error}", hint=error.hint))
            continue
        found.append(job)
        run.state.event(run.clock.unix_s(), "cancelled", "job", job_id, endpoint=endpoint_id, status=job.status)
    if not failures:
        return found, None
    text = "; ".join(str(each) for each in failures)
    return found, type(failures[0])(text, hint=failures[0].hint)


def retry_job(run: Runtime, endpoint_id: str, job_id: str) -> Job:
    """Queue a job once more that failed or ran out of time.

    Raises ConflictError for another, NotFoundError if it is forgotten, AmbiguousError if the answer is lost, or is an
    error of the server, and the job does not tell.
    """
    before = find_job(run, endpoint_id, job_id)
    if before.status not in AGAIN:
        raise ConflictError(
            f"job {job_id} is {before.status}; only one that is {' or '.join(AGAIN)} runs again",
            hint="send the work anew: python -m builder job run FILE",
        )
    try:
        job = run.jobs.retry(endpoint_id, job_id)
    except (AmbiguousError, ServerFaultError) as error:
        # Its id stays: unlike a new job, this one can be asked whether it happened.
        job = find_job(run, endpoint_id, job_id)
        if job.status in AGAIN:
            raise AmbiguousError(
                f"{error}; job {job_id} is {job.status} still",
                hint=f"look again: python -m builder job status {job_id} --endpoint {endpoint_id}",
            ) from None
    run.state.event(run.clock.unix_s(), "retried", "job", job_id, endpoint=endpoint_id)
    return job
