"""Serverless endpoints of the fake as a state machine over the plane's clock: no HTTP here, and no threads of its own.

Methods may be called from any thread, but never by one that holds a queue's lock. Refusals are PodRefusedError with the
status of REST v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from tests.fakes.runpod.endpoint import (
    BareQueue,
    FakeEndpoint,
    FakeTemplate,
    FakeWorker,
    JobClock,
    MakeQueue,
    Queue,
    Release,
)
from tests.fakes.runpod.endpoints_changes import apply_changes, fields_of
from tests.fakes.runpod.endpoints_life import EndpointLife
from tests.fakes.runpod.pod import PodRefusedError
from tests.fakes.runpod.pods import PodStore

__all__ = ["EndpointStore", "FakeEndpoint", "FakeTemplate", "FakeWorker"]

NO_LIMIT_S = 600.0
Endpoints = list[FakeEndpoint]
Workers = list[FakeWorker]
Left = list[tuple[str, str, str]]


class EndpointStore(EndpointLife):
    """All endpoints and templates of the account, and scripts for what goes wrong; the money is the pods'.

    `endpoints` has the deleted ones too. `queues` are those of queue endpoints, by id. `on_worker` listeners get
    (endpoint, worker, old status or None, new status or None once it is gone), after the lock is free again.
    """

    def __init__(self, pods: PodStore, make_queue: MakeQueue | None = None) -> None:
        super().__init__(pods)
        self.make_queue: MakeQueue = make_queue or BareQueue
        self.templates: dict[str, FakeTemplate] = {}
        self.templates_are_bound = False
        """Endpoints hold on to the template they were made from: it cannot be deleted before, and goes with them."""

    def reset(self) -> None:
        """Everything new; listeners stay. The pods' store is reset on its own, after this."""
        with self.pods.turn():
            for each in (self.endpoints, self.templates, self.queues, self._clocks):
                each.clear()
            self._changes.clear()
            self._use_defaults()
            self.templates_are_bound = False

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Hold the store, brought to the present (the value)."""
        with self.pods.turn() as now_s:
            yield now_s
            for endpoint in self._alive():
                self._advance(endpoint, max(now_s, endpoint.reached_s))

    # Asking

    def alive(self) -> Endpoints:
        """All endpoints that are not deleted, hidden or not."""
        with self.turn():
            return self._alive()

    def get(self, endpoint_id: str) -> FakeEndpoint:
        """One endpoint. Raises PodRefusedError 404; a deleted one is gone."""
        with self.turn():
            return self._get(endpoint_id)

    def list(self) -> Endpoints:
        """Endpoints that are not deleted and not hidden, oldest first."""
        with self.turn() as now_s:
            return [each for each in self._alive() if each.shown_from_s <= now_s]

    def queue(self, endpoint_id: str) -> Queue | None:
        """An endpoint's queue, with its workers brought to the present."""
        with self.turn():
            return self.queues.get(endpoint_id)

    def worker(self, endpoint_id: str, worker_id: str) -> FakeWorker:
        """One worker. Raises PodRefusedError 404."""
        with self.turn():
            return self._worker(endpoint_id, worker_id)

    def ready_workers(self, endpoint_id: str) -> Workers:
        """Workers that a load balancer may route to."""
        with self.turn():
            endpoint = self.endpoints.get(endpoint_id)
            workers = [] if endpoint is None else endpoint.workers
            return [each for each in workers if each.is_up and not each.is_draining]

    def worker_counts(self, endpoint_id: str) -> dict[str, int]:
        """As the job API's /health has them."""
        with self.turn():
            endpoint = self.endpoints.get(endpoint_id)
            states = [] if endpoint is None else [each.status.lower() for each in endpoint.workers]
        names = ("idle", "running", "initializing", "throttled", "unhealthy")
        counts = {name: states.count(name) for name in names}
        return {**counts, "ready": counts["idle"] + counts["running"]}

    def left_behind(self) -> Left:
        """Name, id and state of all endpoints, and of all templates made through the API."""
        endpoints = [(each.name, each.id, f"endpoint, {len(each.workers)} workers") for each in self.alive()]
        return endpoints + [(each.name, each.id, "template") for each in self.templates.values()]

    # Changing

    def create(self, body: Mapping[str, Any]) -> FakeEndpoint:
        """Make an endpoint of a checked body, its template's settings filled in."""
        with self.turn() as now_s:
            endpoint = FakeEndpoint(self.pods.new_id(), body["name"], body["type"], now_s, **fields_of(body))
            endpoint.reached_s = now_s
            endpoint.shown_from_s = now_s + self.pods.hide_new_s
            endpoint.releases.append(Release(f"rel_{self.pods.new_id()}", 1, now_s))
            self.endpoints[endpoint.id] = endpoint
            if endpoint.is_queue:
                clock = JobClock(self.pods.clock.unix_s)
                clock.at_s = now_s if self.simulate else None
                self._clocks[endpoint.id] = clock
                self.queues[endpoint.id] = self.make_queue(endpoint.id, clock)
                self._limit_jobs(endpoint)
            return endpoint

    def update(self, endpoint_id: str, changes: Mapping[str, Any]) -> FakeEndpoint:
        """Change fields by a checked body; what changes the container or the machines makes a new release."""
        with self.turn() as now_s:
            endpoint = self._get(endpoint_id)
            diff = apply_changes(endpoint, changes)
            if diff:
                endpoint.version += 1
                endpoint.releases.append(Release(f"rel_{self.pods.new_id()}", endpoint.version, now_s, tuple(diff)))
            self._limit_jobs(endpoint)
            return endpoint

    def delete(self, endpoint_id: str) -> None:
        """End an endpoint, its workers and its jobs. Raises PodRefusedError 404."""
        with self.turn() as now_s:
            endpoint = self._get(endpoint_id)
            for worker in [*endpoint.workers]:
                self._remove(endpoint, worker, now_s, "endpoint was deleted: shutting down")
            self._bill(endpoint, now_s)
            endpoint.deleted_s = now_s
            self._clocks.pop(endpoint_id, None)
            queue = self.queues.pop(endpoint_id, None)
            if queue is not None:
                with queue.lock:
                    for job in [*queue.store.jobs.values()]:
                        queue.store.cancel(job.id)
            if self.templates_are_bound and endpoint.template_id in self.templates:
                self.drop_template(endpoint.template_id or "")

    # Templates

    def add_template(self, body: Mapping[str, Any]) -> FakeTemplate:
        """Store a template of a checked body, defaults filled in."""
        with self.turn() as now_s:
            template_id = self.pods.new_id()[:10]
            document = {"id": template_id, **body}
            template = FakeTemplate(template_id, body["name"], document, now_s + self.pods.hide_new_s)
            self.templates[template_id] = template
            self.pods.account.templates.append(document)
            return template

    def drop_template(self, template_id: str) -> None:
        """Remove it. Raises PodRefusedError 400 if an endpoint holds on to it."""
        with self.turn():
            if self.templates_are_bound and any(each.template_id == template_id for each in self._alive()):
                raise PodRefusedError(400, "template is in use by a serverless endpoint and cannot be deleted")
            self.templates.pop(template_id, None)
            templates = self.pods.account.templates
            templates[:] = [each for each in templates if each["id"] != template_id]

    # Load balancers

    def begin_request(self, endpoint_id: str, worker_id: str | None = None) -> None:
        """A request arrived; None: it waits for a worker (end that one, and begin again, once there is one)."""
        self._count_request(endpoint_id, worker_id, 1)

    def end_request(self, endpoint_id: str, worker_id: str | None = None) -> None:
        """It is over."""
        self._count_request(endpoint_id, worker_id, -1)

    def _count_request(self, endpoint_id: str, worker_id: str | None, change: int) -> None:
        with self.turn():
            endpoint = self.endpoints.get(endpoint_id)
            if endpoint is None or endpoint.is_over:
                return
            endpoint.in_flight = max(0, endpoint.in_flight + change)
            worker = None if worker_id is None else endpoint.worker(worker_id)
            if worker is not None:
                worker.requests = max(0, worker.requests + change)

    # Scripts for tests

    def throttle(self, workers: int) -> None:
        """The next so many workers find no machine, until `throttle(0)`: then all find one."""
        with self.turn():
            self._n_held_back = workers
            if workers == 0:
                for worker in (each for endpoint in self._alive() for each in endpoint.workers):
                    worker.is_held_back = False

    def fail_boots(
        self, image: str, line: str | None = None, *, source: Literal["container", "system"] = "system"
    ) -> None:
        """From now on workers of images with this in their name become UNHEALTHY instead of ready."""
        with self.turn():
            self._failing.append((image, line, source))

    def heal_boots(self) -> None:
        """Workers that start from now on are sound again."""
        with self.turn():
            self._failing.clear()

    def kill_worker(self, endpoint_id: str, worker_id: str) -> None:
        """The worker is gone at once; its jobs are queued again when their heartbeat is missed."""
        with self.turn() as now_s:
            endpoint = self._get(endpoint_id)
            self._remove(endpoint, self._worker(endpoint_id, worker_id), now_s, "container was killed: exit code 137")

    def mark_ready(self, endpoint_id: str, worker_id: str) -> None:
        """A worker that is a real process is up, whatever `boot_s` says."""
        with self.turn() as now_s:
            worker = self._worker(endpoint_id, worker_id)
            if worker.status == "INITIALIZING":
                worker.ready_s = now_s

    def mark_unhealthy(self, endpoint_id: str, worker_id: str, line: str) -> None:
        """A worker fails its checks from now on."""
        with self.turn() as now_s:
            endpoint, worker = self._get(endpoint_id), self._worker(endpoint_id, worker_id)
            worker.log(now_s, "container", line)
            worker.ready_s, worker.idle_since_s = None, now_s
            self._set_status(endpoint, worker, "UNHEALTHY")

    def log(self, endpoint_id: str, worker_id: str, line: str) -> None:
        """A line of a worker's container."""
        with self.turn() as now_s:
            self._worker(endpoint_id, worker_id).log(now_s, "container", line)

    def park(self, endpoint_id: str, workers_max: int = 0) -> None:
        """What RunPod does to endpoints without requests: 7 days, no worker may start; 3 days, at most 2."""
        with self.turn():
            endpoint = self._get(endpoint_id)
            endpoint.workers_max = min(endpoint.workers_max, workers_max)
            endpoint.workers_min = min(endpoint.workers_min, endpoint.workers_max)

    # Parts

    def _get(self, endpoint_id: str) -> FakeEndpoint:
        endpoint = self.endpoints.get(endpoint_id)
        if endpoint is None or endpoint.is_over:
            raise PodRefusedError(404, "endpoint not found")
        return endpoint

    def _worker(self, endpoint_id: str, worker_id: str) -> FakeWorker:
        worker = self._get(endpoint_id).worker(worker_id)
        if worker is None:
            raise PodRefusedError(404, "worker not found")
        return worker

    def _limit_jobs(self, endpoint: FakeEndpoint) -> None:
        queue = self.queues.get(endpoint.id)
        if queue is not None:
            queue.store.rules.execution_timeout_s = endpoint.timeout / 1000 if endpoint.timeout > 0 else NO_LIMIT_S
