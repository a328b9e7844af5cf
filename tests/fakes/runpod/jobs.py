"""The platform's job queue as a state machine: pure, on an injected clock, knows no HTTP.

States as the platform names them: IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELLED, TIMED_OUT.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from engine.clock import Clock

__all__ = ["TERMINAL", "Job", "JobStore", "PlaneRules", "RefusedError"]

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class RefusedError(Exception):
    """A request that the platform answers with this status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class PlaneRules:
    """What a test may turn; sizes and times of the real platform where they are known."""

    run_bytes: int = 10_000_000
    runsync_bytes: int = 20_000_000
    done_bytes: int = 20_000_000
    chunk_bytes: int = 1_000_000
    hold_s: float = 1.0
    sync_hold_s: float = 300.0
    """The longest that /runsync keeps a client waiting, in real time; short where nobody moves a virtual clock."""
    heartbeat_limit_s: float = 30.0
    max_retries: int = 1
    execution_timeout_s: float = 600.0
    ttl_s: float = 86_400.0
    run_retention_s: float = 1_800.0
    runsync_retention_s: float = 60.0


@dataclass
class Job:
    """One job as the platform sees it; times are the store's clock."""

    id: str
    request: dict[str, Any]
    is_sync: bool
    created_s: float
    status: str = "IN_QUEUE"
    worker: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    seen_s: float = 0.0
    output: Any = None
    error: Any = None
    retries: int = 0
    runs: int = 0
    stops_pod: bool = False
    chunks: list[Any] = field(default_factory=list)
    progress: list[Any] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    def policy_s(self, name: str, default_s: float) -> float:
        value = (self.request.get("policy") or {}).get(name)
        return default_s if value is None else float(value) / 1000

    def shown(self) -> dict[str, Any]:
        """The body of /status."""
        body: dict[str, Any] = {"id": self.id, "status": self.status}
        if self.started_s is not None:
            body["delayTime"] = round((self.started_s - self.created_s) * 1000)
            body["workerId"] = self.worker
            if self.ended_s is not None:
                body["executionTime"] = round((self.ended_s - self.started_s) * 1000)
        if self.output is not None:
            body["output"] = self.output
        if self.error is not None:
            body["error"] = self.error
        if self.retries:
            body["retries"] = self.retries
        return body


class JobStore:
    """All jobs of one endpoint; `tag` is a part of their ids."""

    def __init__(self, clock: Clock, rules: PlaneRules, *, tag: str = "") -> None:
        self._clock = clock
        self._tag = tag
        self.rules = rules
        self.jobs: OrderedDict[str, Job] = OrderedDict()
        self.workers: dict[str, float] = {}
        self.retired: set[str] = set()
        """Workers that are given no more jobs."""
        self.unhealthy: list[dict[str, str]] = []
        self.late_progress: list[str] = []
        self._stops: dict[str, list[str]] = {}
        self._numbers = itertools.count(1)

    # Clients

    def submit(self, request: Any, *, is_sync: bool = False) -> Job:
        if not isinstance(request, dict) or "input" not in request:
            raise RefusedError(400, "input is required")
        prefix = "sync-" if is_sync else ""
        job = Job(f"{prefix}{next(self._numbers):08d}{self._tag}-u1", dict(request), is_sync, self._clock.now_s())
        self.jobs[job.id] = job
        return job

    def job(self, job_id: str) -> Job:
        self.sweep()
        if job_id not in self.jobs:
            raise RefusedError(404, "job not found")
        return self.jobs[job_id]

    def cancel(self, job_id: str) -> Job:
        job = self.job(job_id)
        if not job.is_over:
            self._stop(job)
            self._end(job, "CANCELLED")
        return job

    def retry(self, job_id: str) -> Job:
        job = self.job(job_id)
        if job.status not in ("FAILED", "TIMED_OUT"):
            raise RefusedError(400, f"job is {job.status}")
        self._requeue(job)
        job.output = job.error = job.ended_s = None
        return job

    def purge(self) -> int:
        queued = [job for job in self.jobs.values() if job.status == "IN_QUEUE"]
        for job in queued:
            self._end(job, "CANCELLED")
        return len(queued)

    def health(self) -> dict[str, Any]:
        self.sweep()
        jobs = list(self.jobs.values())
        counts = {
            "completed": sum(job.status == "COMPLETED" for job in jobs),
            "failed": sum(job.status in ("FAILED", "TIMED_OUT") for job in jobs),
            "inProgress": sum(job.status == "IN_PROGRESS" for job in jobs),
            "inQueue": sum(job.status == "IN_QUEUE" for job in jobs),
            "retried": sum(job.retries for job in jobs),
        }
        busy = {job.worker for job in jobs if job.status == "IN_PROGRESS"}
        workers = {"idle": len(set(self.workers) - busy), "running": len(busy), "ready": len(self.workers)}
        return {"jobs": counts, "workers": {**workers, "initializing": 0, "throttled": 0, "unhealthy": 0}}

    # Workers

    def take(self, worker: str, most: int) -> list[dict[str, Any]]:
        """Give up to `most` waiting jobs to `worker`."""
        self.sweep()
        given: list[dict[str, Any]] = []
        if worker in self.retired:
            return given
        for job in self.jobs.values():
            if job.status == "IN_QUEUE" and len(given) < most:
                job.status, job.worker = "IN_PROGRESS", worker
                job.started_s = job.seen_s = self._clock.now_s()
                job.runs += 1
                given.append({**job.request, "id": job.id})
        return given

    def ping(self, worker: str, query: dict[str, str]) -> None:
        if query.get("status") == "unhealthy":
            self.unhealthy.append({"worker": worker, **query})
            return
        now_s = self._clock.now_s()
        self.workers[worker] = now_s
        for job_id in query.get("job_id", "").split(","):
            job = self.jobs.get(job_id)
            if job is not None and job.worker == worker:
                job.seen_s = now_s

    def done(self, worker: str, job_id: str, body: dict[str, Any]) -> None:
        """A result or a progress; the first result counts, and only its worker's."""
        job = self.job(job_id)
        if body.get("status") == "IN_PROGRESS":
            job.progress.append(body.get("output"))
            if job.is_over:
                # What users have seen: the finished job is in progress again, and stays so.
                self.late_progress.append(job_id)
                job.status, job.ended_s = "IN_PROGRESS", None
            job.output = body.get("output")
            return
        job.results.append(body)
        if job.is_over or job.worker != worker:
            return
        job.output, job.error = body.get("output"), body.get("error")
        job.stops_pod = bool(body.get("stopPod"))
        self._end(job, "FAILED" if job.error is not None else "COMPLETED")

    def chunk(self, worker: str, job_id: str, body: dict[str, Any]) -> None:
        job = self.job(job_id)
        if job.worker == worker and not job.is_over:
            job.chunks.append(body)

    def stops(self, worker: str) -> list[str]:
        """Jobs that `worker` is to stop; each is told once."""
        self.sweep()
        return self._stops.pop(worker, [])

    # Time

    def sweep(self) -> None:
        """Apply what time has done."""
        now_s, rules = self._clock.now_s(), self.rules
        for job in list(self.jobs.values()):
            retention_s = rules.runsync_retention_s if job.is_sync else rules.run_retention_s
            if job.ended_s is not None and now_s - job.ended_s > retention_s:
                del self.jobs[job.id]
            elif not job.is_over and now_s - job.created_s > job.policy_s("ttl", rules.ttl_s):
                self._stop(job)
                del self.jobs[job.id]
            elif job.status == "IN_PROGRESS":
                self._sweep_running(job, now_s)

    def _sweep_running(self, job: Job, now_s: float) -> None:
        assert job.started_s is not None
        if now_s - job.started_s > job.policy_s("executionTimeout", self.rules.execution_timeout_s):
            job.error = "job exceeded its execution timeout"
            self._stop(job)
            self._end(job, "TIMED_OUT")
        elif now_s - job.seen_s > self.rules.heartbeat_limit_s:
            job.retries += 1
            if job.retries > self.rules.max_retries:
                job.error = f"job timed out after {self.rules.max_retries} retries"
                self._end(job, "FAILED")
            else:
                self._requeue(job)

    def _requeue(self, job: Job) -> None:
        job.status, job.worker, job.started_s = "IN_QUEUE", None, None

    def _stop(self, job: Job) -> None:
        if job.status == "IN_PROGRESS" and job.worker is not None:
            self._stops.setdefault(job.worker, []).append(job.id)

    def _end(self, job: Job, status: str) -> None:
        job.status, job.ended_s = status, self._clock.now_s()
