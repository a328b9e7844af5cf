"""The pieces a job gives while it works, as they come.

RunPod hands out every piece once: what an answer that is lost had in it does not come again. The whole result is in
the job's output at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from builder.api.models_serverless import ENDED
from builder.errors import (
    BadAnswerError,
    InterruptError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
)
from builder.jobs.submit import hide_secrets
from builder.jobs.wait import (
    FIRST_POLL_S,
    GROWTH,
    LONGEST_POLL_S,
    MAX_FAULTS,
    failure_of,
    find_job,
    gave_up,
    unknown_job,
)

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.runtime import Runtime

__all__ = ["stream_job"]

LOSSY = (NetworkError, BadAnswerError, ServerFaultError)
"""Failures after which pieces may be gone."""


def stream_job(run: Runtime, endpoint_id: str, job_id: str) -> Iterator[Any]:
    """Each piece that the job gives, until it is over.

    Raises JobFailedError if it did not complete, NotFoundError if it is forgotten, NetworkError after MAX_FAULTS
    failures in a row, InterruptError.
    """
    try:
        n_pieces = 0
        for piece in _pieces(run, endpoint_id, job_id):
            n_pieces += 1
            yield piece
        job = find_job(run, endpoint_id, job_id)
    except KeyboardInterrupt:
        raise InterruptError(
            f"interrupted; job {job_id} goes on, and costs while it runs",
            hint=f"end it: python -m builder job cancel {job_id} --endpoint {endpoint_id}",
        ) from None
    _finish(run, endpoint_id, job, n_pieces)


def _pieces(run: Runtime, endpoint_id: str, job_id: str) -> Iterator[Any]:
    pause_s, faults, told = FIRST_POLL_S, 0, ""
    while True:
        try:
            page = run.jobs.stream(endpoint_id, job_id)
        except NotFoundError as error:
            raise unknown_job(error, endpoint_id, job_id) from None
        except (*LOSSY, RateLimitedError) as error:
            faults += 1
            if faults >= MAX_FAULTS:
                raise gave_up(error, endpoint_id, job_id) from None
            lost = (
                ""
                if isinstance(error, RateLimitedError)
                else "; pieces may be missing, the whole is in job status at the end"
            )
            run.console.warn(f"{error}{lost}")
            run.clock.sleep(pause_s)
            continue
        faults = 0
        hide_secrets(run.redactor, page.stream, is_answer=True)
        for each in page.stream:
            yield each.get("output", each)
        if page.stream:
            # More may be there already; the pages of one that is over come to an end.
            pause_s = FIRST_POLL_S
            continue
        if page.status in ENDED:
            return
        if page.status != told:
            told = page.status
            run.console.note(f"job {job_id} is {told}")
        run.clock.sleep(pause_s)
        pause_s = min(LONGEST_POLL_S, pause_s * GROWTH)


def _finish(run: Runtime, endpoint_id: str, job: Job, n_pieces: int) -> None:
    failure = failure_of(job, endpoint_id)
    if failure is not None:
        raise failure
    if n_pieces == 0:
        run.console.note(
            f"job {job.id} gave no pieces: it does not stream, or they were read before; "
            f"its result: python -m builder job status {job.id} --endpoint {endpoint_id}"
        )
