"""One worker of an endpoint at a time: how it starts, finds a machine, comes up, is billed and goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from tests.fakes.runpod.endpoint import FakeEndpoint, FakeWorker, JobClock, Queue, WorkerStatus
from tests.fakes.runpod.endpoints_places import find_place
from tests.fakes.runpod.jobs import Job
from tests.fakes.runpod.ledger import Rates
from tests.fakes.runpod.pods import PodStore

__all__ = ["OnWorker", "WorkerLife"]

OnWorker = Callable[[FakeEndpoint, FakeWorker, "WorkerStatus | None", "WorkerStatus | None"], None]


class WorkerLife:
    """The endpoints' state, and the steps of single workers.

    With `simulate`, workers take jobs from the queue and answer them with `answer` after `job_s` seconds. Without,
    workers still come and go by boot_s, scaling and idle timeouts; RUNNING and IDLE follow the jobs that the queue says
    they hold (by worker id), and whoever listens runs them for real.
    """

    def __init__(self, pods: PodStore) -> None:
        self.pods = pods
        self.on_worker: list[OnWorker] = []
        self.endpoints: dict[str, FakeEndpoint] = {}
        self.queues: dict[str, Queue] = {}
        self._clocks: dict[str, JobClock] = {}
        self._changes: list[tuple[FakeEndpoint, FakeWorker, WorkerStatus | None, WorkerStatus | None]] = []
        self._n_moves = 0
        self._use_defaults()

    def _use_defaults(self) -> None:
        self.simulate = True
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda job_input: {"output": {"echo": job_input}}
        self.job_s = 2.0
        self.boot_s = 20.0
        self.jobs_per_worker = 1
        self._n_held_back = 0
        self._failing: list[tuple[str, str | None, Literal["container", "system"]]] = []

    def alive(self) -> list[FakeEndpoint]:
        """All endpoints that are not deleted, hidden or not."""
        with self.pods.turn():
            return self._alive()

    def _alive(self) -> list[FakeEndpoint]:
        return [each for each in self.endpoints.values() if not each.is_over]

    def _start(self, endpoint: FakeEndpoint, at_s: float, replaces: str | None = None) -> None:
        worker = FakeWorker(self.pods.new_id(), endpoint.version, endpoint.image, at_s, replaces=replaces)
        if self._n_held_back > 0:
            self._n_held_back -= 1
            worker.is_held_back = True
        endpoint.workers.append(worker)
        self._changes.append((endpoint, worker, None, worker.status))
        self._n_moves += 1
        if worker.is_held_back or not self._place(endpoint, worker, at_s):
            worker.log(at_s, "system", "no machine with the requested GPU is free: waiting for capacity")
            worker.idle_since_s = at_s
            self._set_status(endpoint, worker, "THROTTLED")

    def _place(self, endpoint: FakeEndpoint, worker: FakeWorker, at_s: float) -> bool:
        place = find_place(self.pods.catalog, endpoint)
        if place is None:
            return False
        worker.gpu_id, worker.gpu_count, worker.price = place.gpu_id, place.gpu_count, place.price
        worker.data_center_id = place.data_center
        worker.ready_s, worker.idle_since_s = at_s + self.boot_s, None
        name, _colon, tag = worker.image.rpartition(":")
        worker.log(at_s, "system", f"create container {worker.image}")
        worker.log(at_s, "system", f"{tag} Pulling from {name}")
        self._set_status(endpoint, worker, "INITIALIZING")
        return True

    def _come_up(self, worker: FakeWorker, endpoint: FakeEndpoint, at_s: float) -> None:
        worker.ready_s, worker.idle_since_s = None, at_s
        for text, line, source in self._failing:
            if text in worker.image:
                worker.log(at_s, source, line or _missing(worker.image))
                self._set_status(endpoint, worker, "UNHEALTHY")
                return
        worker.started_s = at_s
        worker.log(at_s, "system", f"start container for {worker.image}: begin")
        worker.log(at_s, "container", "--- Starting Serverless Worker ---")
        self._set_status(endpoint, worker, "IDLE")

    def _remove(self, endpoint: FakeEndpoint, worker: FakeWorker, at_s: float, line: str) -> None:
        worker.log(at_s, "system", line)
        worker.is_gone, worker.ready_s = True, None
        endpoint.workers.remove(worker)
        self._changes.append((endpoint, worker, worker.status, None))
        self._n_moves += 1

    def _set_status(self, endpoint: FakeEndpoint, worker: FakeWorker, status: WorkerStatus) -> None:
        before, worker.status = worker.status, status
        if before != status:
            self._changes.append((endpoint, worker, before, status))
            self._n_moves += 1

    def _bill(self, endpoint: FakeEndpoint, at_s: float) -> None:
        per_h = sum(each.cost for each in endpoint.workers)
        rates = Rates(cpu=per_h) if endpoint.cpu else Rates(gpu=per_h)
        self.pods.ledger.set_rates(endpoint.id, at_s, rates, "serverless")

    # Looking

    def _locked(self, endpoint: FakeEndpoint) -> AbstractContextManager[Any]:
        queue = self.queues.get(endpoint.id)
        return nullcontext() if queue is None else queue.lock

    def _jobs(self, endpoint: FakeEndpoint, status: str) -> list[Job]:
        queue = self.queues.get(endpoint.id)
        return [] if queue is None else [job for job in list(queue.store.jobs.values()) if job.status == status]

    @staticmethod
    def _holder(endpoint: FakeEndpoint, job: Job) -> FakeWorker | None:
        """The worker that has the job, if it lives."""
        return None if job.worker is None else endpoint.worker(job.worker)

    def _free(self, endpoint: FakeEndpoint) -> Iterator[FakeWorker]:
        """Workers that would take a job."""
        held = [job.worker for job in self._jobs(endpoint, "IN_PROGRESS")]
        for worker in endpoint.workers:
            if worker.is_up and not worker.is_draining and held.count(worker.id) < self.jobs_per_worker:
                yield worker


def _missing(image: str) -> str:
    return (
        f"error pulling image: Error response from daemon: manifest for {image} not found: manifest unknown: "
        "manifest unknown"
    )
