"""How time passes for the workers of endpoints: boots, jobs, scaling, rollouts, idle timeouts, and what they cost.

Nothing moves by itself: the pods' timeline asks what comes next and when, and has it done in order, so that pods and
workers share one clock and one balance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.fakes.runpod.endpoint import FakeEndpoint, FakeWorker, WorkerStatus
from tests.fakes.runpod.endpoints_workers import WorkerLife
from tests.fakes.runpod.jobs import Job, RefusedError
from tests.fakes.runpod.pods import PodStore
from tests.fakes.runpod.pods_timeline import Happening

__all__ = ["EndpointLife"]

AFTER_PODS = 1_000_000
MOST_STEPS = 10_000
JUST_AFTER_S = 0.001
"""The job store's limits count once they are passed."""
BUSY = ("RUNNING", "INITIALIZING")
LEAVES_FIRST: tuple[WorkerStatus, ...] = ("THROTTLED", "UNHEALTHY", "INITIALIZING", "IDLE", "RUNNING")


class EndpointLife(WorkerLife):
    """Endpoints and their workers, brought to the clock's present together with the pods."""

    def __init__(self, pods: PodStore) -> None:
        super().__init__(pods)
        pods.companions.append(self)

    # The timeline's side

    def happenings(self) -> Iterator[Happening]:
        """What comes next, per endpoint."""
        for endpoint in self._alive():
            with self._locked(endpoint):
                due_s = min(self._times(endpoint), default=None)
            if due_s is not None:
                at_s = max(due_s, endpoint.reached_s)
                yield at_s, AFTER_PODS, lambda each=endpoint, at_s=at_s: self._happen(each, at_s)  # type: ignore[misc]

    def settle(self, now_s: float) -> None:
        """Everything until now has happened."""
        for endpoint in self._alive():
            self._advance(endpoint, max(now_s, endpoint.reached_s))

    def stop_all(self, at_s: float) -> None:
        """The money is gone: no workers any more."""
        for endpoint in self._alive():
            for worker in list(endpoint.workers):
                self._remove(endpoint, worker, at_s, "stop container: balance exhausted")
            self._bill(endpoint, at_s)

    def tell(self) -> None:
        """Tell the listeners what changed."""
        changes, self._changes = self._changes, []
        for change in changes:
            for listener in list(self.on_worker):
                listener(*change)

    def _happen(self, endpoint: FakeEndpoint, at_s: float) -> None:
        with self._locked(endpoint):
            before = self._n_moves
            self._advance(endpoint, at_s)
            # Nothing is due any more if a client of the queue was quicker.
            is_due = min(self._times(endpoint), default=math.inf) <= at_s
            assert self._n_moves > before or not is_due, f"endpoint {endpoint.id} stands still"

    # What is due when

    def _times(self, endpoint: FakeEndpoint) -> Iterator[float]:
        yield from (each.ready_s for each in endpoint.workers if each.ready_s is not None)
        if self.simulate:
            yield from self._job_times(endpoint)
        start_s = self._start_due(endpoint)
        if start_s is not None:
            yield start_s
        for worker in self._may_leave(endpoint):
            yield self._leaves_s(endpoint, worker)

    def _job_times(self, endpoint: FakeEndpoint) -> Iterator[float]:
        queue = self.queues.get(endpoint.id)
        if queue is None:
            return
        for job in self._jobs(endpoint, "IN_PROGRESS"):
            if job.started_s is None:
                continue
            limit_s = job.policy_s("executionTimeout", queue.store.rules.execution_timeout_s)
            yield job.started_s + limit_s + JUST_AFTER_S
            if self._holder(endpoint, job) is None:
                yield job.seen_s + queue.store.rules.heartbeat_limit_s + JUST_AFTER_S
            else:
                yield job.started_s + self.job_s
        if any(self._free(endpoint)):
            yield from (job.created_s for job in self._jobs(endpoint, "IN_QUEUE")[:1])

    def _start_due(self, endpoint: FakeEndpoint) -> float | None:
        """When the next worker is to be started, as things are."""
        counted = endpoint.counted()
        if self.pods.is_broke or len(counted) >= endpoint.workers_max:
            return None
        if len(counted) < endpoint.workers_min:
            return endpoint.reached_s
        waiting = self._jobs(endpoint, "IN_QUEUE")
        sound = [each for each in counted if each.status != "UNHEALTHY"]
        if endpoint.scaling["type"] == "REQUEST_COUNT":
            load = endpoint.in_flight + len(waiting) + len(self._jobs(endpoint, "IN_PROGRESS"))
            return endpoint.reached_s if len(sound) < math.ceil(load / endpoint.scaling["requestCount"]) else None
        n_spare = sum(each.status != "RUNNING" for each in sound)
        if len(waiting) <= n_spare:
            return None
        # Nobody is there: the first job does not wait for the scaler.
        return waiting[n_spare].created_s + (float(endpoint.scaling["queueDelay"]) if sound else 0.0)

    def _may_leave(self, endpoint: FakeEndpoint) -> list[FakeWorker]:
        """Those that nobody needs, as many as may go; longest idle first."""
        counted = endpoint.counted()
        if self._jobs(endpoint, "IN_QUEUE") or endpoint.in_flight > sum(each.requests for each in endpoint.workers):
            return []
        idle = [each for each in counted if each.idle_since_s is not None and each.status not in BUSY]
        idle.sort(key=lambda each: each.idle_since_s or 0.0)
        return idle[: max(0, len(counted) - endpoint.workers_min)]

    @staticmethod
    def _leaves_s(endpoint: FakeEndpoint, worker: FakeWorker) -> float:
        return (worker.idle_since_s or 0.0) + endpoint.kept_idle_s

    # Steps

    def _advance(self, endpoint: FakeEndpoint, at_s: float) -> None:
        endpoint.reached_s = at_s
        with self._locked(endpoint):
            clock = self._clocks.get(endpoint.id)
            if clock is not None:
                clock.at_s = at_s if self.simulate else None
            for _ in range(MOST_STEPS):
                before = self._n_moves
                self._step(endpoint, at_s)
                if self._n_moves == before:
                    break
            else:
                raise AssertionError(f"endpoint {endpoint.id} does not come to rest")
        self._bill(endpoint, at_s)

    def _step(self, endpoint: FakeEndpoint, at_s: float) -> None:
        for worker in list(endpoint.workers):
            if worker.ready_s is not None and worker.ready_s <= at_s:
                self._come_up(worker, endpoint, worker.ready_s)
        if endpoint.id in self.queues:
            self._move_jobs(endpoint, at_s)
        self._show_work(endpoint, at_s)
        self._roll(endpoint, at_s)
        self._shrink(endpoint, at_s)
        for worker in endpoint.workers:
            if worker.status == "THROTTLED" and not worker.is_held_back:
                self._place(endpoint, worker, at_s)
        due_s = self._start_due(endpoint)
        if due_s is not None and due_s <= at_s:
            self._start(endpoint, at_s)
        if self.simulate and endpoint.id in self.queues:
            self._hand_out(endpoint, at_s)
        for worker in self._may_leave(endpoint):
            if self._leaves_s(endpoint, worker) <= at_s:
                self._remove(endpoint, worker, at_s, "worker exceeded its idle timeout: shutting down")

    def _move_jobs(self, endpoint: FakeEndpoint, at_s: float) -> None:
        store = self.queues[endpoint.id].store
        if self.simulate:
            held = [(job, self._holder(endpoint, job)) for job in self._jobs(endpoint, "IN_PROGRESS")]
            for job, worker in held:
                if worker is not None:
                    job.seen_s = at_s
            for job, worker in held:
                if worker is not None and job.started_s is not None and job.started_s + self.job_s <= at_s:
                    self._finish(endpoint, worker, job, at_s)
        before = [job.status for job in store.jobs.values()]
        store.sweep()
        if before != [job.status for job in store.jobs.values()]:
            self._n_moves += 1

    def _finish(self, endpoint: FakeEndpoint, worker: FakeWorker, job: Job, at_s: float) -> None:
        store = self.queues[endpoint.id].store
        try:
            body = dict(self.answer(job.request["input"]))
        except Exception as error:  # a test's own function: its fault is the job's
            body = {"error": f"{type(error).__name__}: {error}"}
        try:
            for piece in body.pop("stream", []):
                store.chunk(worker.id, job.id, {"output": piece})
            store.done(worker.id, job.id, body)
        except RefusedError:  # its time to live is over: nobody waits for it
            pass
        worker.log(at_s, "container", f"{job.id} | Finished.")
        self._n_moves += 1

    def _show_work(self, endpoint: FakeEndpoint, at_s: float) -> None:
        busy = {job.worker for job in self._jobs(endpoint, "IN_PROGRESS")}
        for worker in endpoint.workers:
            works = worker.id in busy or worker.requests > 0
            if worker.status == "IDLE" and works:
                worker.idle_since_s = None
                self._set_status(endpoint, worker, "RUNNING")
            elif worker.status == "RUNNING" and not works:
                worker.idle_since_s = at_s
                self._set_status(endpoint, worker, "IDLE")

    def _hand_out(self, endpoint: FakeEndpoint, at_s: float) -> None:
        store = self.queues[endpoint.id].store
        for worker in self._free(endpoint):
            for given in store.take(worker.id, 1):
                worker.log(at_s, "container", f"{given['id']} | Started.")
                self._n_moves += 1

    def _roll(self, endpoint: FakeEndpoint, at_s: float) -> None:
        """Replace workers of older versions, one after the other: first the new one, then the old one goes."""
        for worker in list(endpoint.workers):
            if endpoint.is_stale(worker) and not worker.is_up:
                self._remove(endpoint, worker, at_s, "worker runs an older version: shutting down")
        pending = [each for each in endpoint.workers if each.replaces is not None]
        for worker in pending:
            old = endpoint.worker(worker.replaces or "")
            if old is None or worker.is_up:
                worker.replaces = None
                self._n_moves += 1
                if old is not None:
                    old.is_draining = True
        stale = [each for each in endpoint.counted() if endpoint.is_stale(each)]
        if stale and not any(each.replaces for each in endpoint.workers) and not self.pods.is_broke:
            self._start(endpoint, at_s, replaces=stale[0].id)

    def _shrink(self, endpoint: FakeEndpoint, at_s: float) -> None:
        counted = sorted(
            endpoint.counted(), key=lambda each: (LEAVES_FIRST.index(each.status), not endpoint.is_stale(each))
        )
        for worker in counted[: max(0, len(counted) - endpoint.workers_max)]:
            worker.is_draining = True
            self._n_moves += 1
        for worker in list(endpoint.workers):
            is_done = worker.is_draining and worker.status != "RUNNING"
            if is_done or (endpoint.is_parked and worker.replaces is not None):
                self._remove(endpoint, worker, at_s, "worker was scaled down: shutting down")
