"""One endpoint's queue with what surrounds it: the store, its faults, what was asked, the workers' key."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from engine.clock import Clock, MonotonicClock
from tests.fakes.runpod.faults import Faults
from tests.fakes.runpod.jobs import Job, JobStore, PlaneRules

__all__ = ["JobQueue"]

LOOK_EVERY_S = 0.02


class JobQueue:
    """`store` is the queue's state (use it under `lock`), `faults` what goes wrong, `journal` what was asked.

    `catch_up` and `worker_counts` are called without the lock: the first before a test looks at the queue, as simulated
    workers do their share in it; the second replaces the store's own count in /health (idle, initializing, ready,
    running, throttled, unhealthy). Job ids carry `tag`, so that they are unique among the endpoints of a plane.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        rules: PlaneRules | None = None,
        clock: Clock | None = None,
        worker_key: str = "worker-key",
        tag: str | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.worker_key = worker_key
        self.rules = rules or PlaneRules()
        self.store = JobStore(clock or MonotonicClock(), self.rules, tag=f"-{endpoint}" if tag is None else tag)
        self.faults = Faults()
        self.journal: list[dict[str, Any]] = []
        self.lock = threading.RLock()
        self.catch_up: Callable[[], None] = lambda: None
        self.worker_counts: Callable[[], dict[str, int]] | None = None

    def submit(self, job_input: Any, **extra: Any) -> str:
        """Queue a job as a client's /run would; returns its id."""
        with self.lock:
            return self.store.submit({"input": job_input, **extra}).id

    def job(self, job_id: str) -> Job:
        """The job as it is now. Raises RefusedError 404."""
        self.catch_up()
        with self.lock:
            return self.store.job(job_id)

    def cancel(self, job_id: str) -> None:
        """As a client's /cancel would."""
        self.catch_up()
        with self.lock:
            self.store.cancel(job_id)

    def wait(self, job_id: str, limit_s: float = 10.0) -> Job:
        """Wait in real time until the job is over."""
        self.wait_until(lambda: self.job(job_id).is_over, f"{job_id} over", limit_s)
        return self.job(job_id)

    def wait_until(self, condition: Callable[[], object], what: str, limit_s: float = 10.0) -> None:
        """Real time."""
        ends_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < ends_s, f"not {what} within {limit_s} s"
            time.sleep(LOOK_EVERY_S / 2)

    def requests(self, route: str, job_id: str | None = None) -> list[dict[str, Any]]:
        """The journal's entries of a route, and of a job."""
        with self.lock:
            entries = list(self.journal)
        return [each for each in entries if each["route"] == route and job_id in (None, each["job_id"])]

    def depth(self) -> tuple[int, int]:
        """Jobs that wait, and jobs that run."""
        with self.lock:
            self.store.sweep()
            states = [job.status for job in self.store.jobs.values()]
        return states.count("IN_QUEUE"), states.count("IN_PROGRESS")

    def health(self) -> dict[str, Any]:
        """The body of /health."""
        with self.lock:
            health = self.store.health()
        if self.worker_counts is not None:
            health["workers"] = self.worker_counts()
        return health
