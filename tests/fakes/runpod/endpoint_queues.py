"""The queues of a plane's endpoints: reachable over HTTP, worked by the endpoints' store."""

from __future__ import annotations

from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.endpoint import JobClock
from tests.fakes.runpod.endpoints import EndpointStore
from tests.fakes.runpod.job_routes import JobQueue
from tests.fakes.runpod.jobs import PlaneRules

__all__ = ["EndpointQueues"]


class EndpointQueues:
    """Makes them and finds them."""

    def __init__(self, store: EndpointStore) -> None:
        self._store = store

    def make(self, endpoint_id: str, clock: JobClock) -> JobQueue:
        """A new endpoint's queue; its workers' key is its own."""
        # Where time is virtual, nobody moves it while a request is held.
        is_real = isinstance(self._store.pods.clock, RealPlaneClock)
        rules = PlaneRules() if is_real else PlaneRules(hold_s=0.05, sync_hold_s=0.2)
        key = f"rpa_FAKE0KEY0OF0WORKERS0{endpoint_id}"
        queue = JobQueue(endpoint_id, rules=rules, clock=clock, worker_key=key)
        queue.catch_up = self._store.pods.sweep
        queue.worker_counts = lambda: self._store.worker_counts(endpoint_id)
        return queue

    def find(self, endpoint_id: str) -> JobQueue | None:
        """With its workers brought to the present."""
        queue = self._store.queue(endpoint_id)
        return queue if isinstance(queue, JobQueue) else None
