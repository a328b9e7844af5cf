"""The job API of serverless endpoints: submit, read, stop.

A job is paid for, so `run` is sent once; a result's pieces come once, so `stream` is read once. The rest may be
repeated. A job that ended is forgotten after 30 minutes.

Source: operation reference of RunPod's job API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from builder.api.http import Http
from builder.api.model_base import AnswerModel
from builder.api.models_serverless import EndpointHealth, Job, JobPage
from builder.api.problems import parsed
from builder.api.rest_shared import checked_id, made
from builder.errors import UsageError

__all__ = ["MAX_RUN_BYTES", "JobApi", "run_bytes"]

MAX_RUN_BYTES = 10_000_000
"""Largest body that `run` takes, as sent."""


class _Purged(AnswerModel):
    removed: int


class JobApi:
    """Jobs of any endpoint that the key may use.

    Every method raises NotFoundError for what no id looks like and for what RunPod does not know, AuthError,
    RateLimitedError, ServerFaultError, NetworkError and BadAnswerError.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def run(self, endpoint_id: str, body: Mapping[str, Any]) -> Job:
        """Submit `body` (`input`, `policy`, ...). One attempt, but for refusals to wait out (HTTP 429).

        Raises UsageError if it is larger than MAX_RUN_BYTES or no JSON, AmbiguousError if the answer is lost: the job
        may run all the same.
        """
        path = f"{_endpoint(endpoint_id)}/run"
        size_bytes = run_bytes(body)
        if size_bytes > MAX_RUN_BYTES:
            raise UsageError(
                f"the job has {size_bytes:,} bytes; legal: up to {MAX_RUN_BYTES:,}",
                hint="give the audio by URL, or set up storage (BUCKET_ENDPOINT_URL) for large files",
            )
        what = f"submit a job to endpoint {endpoint_id}"
        return made(Job, self._http.request("POST", path, body=dict(body), retry="limits", what=what).json, what)

    def status(self, endpoint_id: str, job_id: str) -> Job:
        """One job as it is now. Raises NotFoundError once it is forgotten."""
        what = f"read job {job_id}"
        path = _job(endpoint_id, "status", job_id)
        return parsed(Job, self._http.request("GET", path, retry="any", what=what).json, what)

    def stream(self, endpoint_id: str, job_id: str) -> JobPage:
        """What a job gave since it was asked last.

        Not repeated after a lost answer, whose pieces are gone: raises NetworkError, BadAnswerError or
        ServerFaultError then, and the whole result is in `status` at the end.
        """
        what = f"read the stream of job {job_id}"
        path = _job(endpoint_id, "stream", job_id)
        return parsed(JobPage, self._http.request("GET", path, retry="unsent", what=what).json, what)

    def cancel(self, endpoint_id: str, job_id: str) -> Job:
        """Stop a job; one that is over stays as it is."""
        what = f"cancel job {job_id}"
        path = _job(endpoint_id, "cancel", job_id)
        return parsed(Job, self._http.request("POST", path, retry="any", what=what).json, what)

    def retry(self, endpoint_id: str, job_id: str) -> Job:
        """Queue a job that FAILED or TIMED_OUT once more, under the same id.

        Raises BadRequestError for another, AmbiguousError if the answer is lost.
        """
        what = f"retry job {job_id}"
        path = _job(endpoint_id, "retry", job_id)
        return made(Job, self._http.request("POST", path, retry="unsent", what=what).json, what)

    def purge(self, endpoint_id: str) -> int:
        """Remove the jobs that wait, not those that run; returns how many.

        Raises AmbiguousError if the answer is lost: the number went with it, so it is not sent again.
        """
        what = f"purge the queue of endpoint {endpoint_id}"
        path = f"{_endpoint(endpoint_id)}/purge-queue"
        return made(_Purged, self._http.request("POST", path, retry="unsent", what=what).json, what).removed

    def health(self, endpoint_id: str) -> EndpointHealth:
        """Counts of jobs and workers."""
        what = f"read the health of endpoint {endpoint_id}"
        path = f"{_endpoint(endpoint_id)}/health"
        return parsed(EndpointHealth, self._http.request("GET", path, retry="any", what=what).json, what)


def run_bytes(body: Mapping[str, Any]) -> int:
    """Size of `body` as it is sent. Raises UsageError if it is no JSON (NaN, bytes, ...)."""
    try:
        # As requests writes it: text other than ASCII counts for its escapes.
        return len(json.dumps(dict(body), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the job cannot be written as JSON ({type(error).__name__}: {error})", hint="") from None


def _endpoint(endpoint_id: str) -> str:
    return f"/{checked_id(endpoint_id, 'endpoint')}"


def _job(endpoint_id: str, verb: str, job_id: str) -> str:
    return f"{_endpoint(endpoint_id)}/{verb}/{checked_id(job_id, 'job')}"
