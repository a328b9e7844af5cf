"""An endpoint as it is now: the API's view of it, its workers, releases and jobs, what they cost, and what is wrong.

What cannot be read beside the endpoint itself is left out and named in `unseen`; it must not hide the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from builder.endpoints.chosen import recorded
from builder.endpoints.diagnose import LOG_LINES, Facts, Finding, diagnose
from builder.errors import BuilderError, NotFoundError
from builder.money.prices import worker_price_per_h
from builder.pods.log_follow import LogQuery, follow

if TYPE_CHECKING:
    from builder.api.models import GpuType, LogEvent
    from builder.api.models_serverless import Endpoint, EndpointHealth, Releases, Worker, Workers
    from builder.runtime import Runtime

__all__ = ["BILLED", "Look", "Watcher", "cost_now", "find_endpoint", "read_catalog"]

T = TypeVar("T")
BILLED = ("RUNNING", "IDLE")
"""Workers in one of these are paid for; the others wait for a machine, or for their image. Of a start RunPod bills the
part after the image is there, which no state tells apart: it is left out."""


@dataclass(frozen=True)
class Look:
    """One look. `price_per_h` is the dearest worker's; what could not be read is None, and `unseen` says why."""

    endpoint: Endpoint
    workers: Workers | None
    releases: Releases | None
    health: EndpointHealth | None
    price_per_h: float | None
    cost_per_h: float | None
    findings: tuple[Finding, ...]
    unseen: dict[str, str]


def find_endpoint(run: Runtime, endpoint_id: str) -> Endpoint | None:
    """The endpoint, or None if it is gone: a 404 is believed only if the list agrees. Raises what the API raises."""
    try:
        return run.api.get_endpoint(endpoint_id)
    except NotFoundError:
        return next((each for each in run.api.endpoints() if each.id == endpoint_id), None)


def read_catalog(run: Runtime) -> list[GpuType]:
    """GPU types with their prices for workers. Raises what the API raises."""
    return run.api.gpu_types(product="SERVERLESS")


def cost_now(endpoint: Endpoint, workers: Sequence[Worker], catalog: Sequence[GpuType]) -> float | None:
    """$/h of the workers that are paid for: at the price of their GPU, else the dearest of their pools."""
    by_type = {gpu.id: gpu.price.serverless for gpu in catalog if gpu.price.serverless}
    otherwise = worker_price_per_h(endpoint.gpu, catalog)
    total = 0.0
    for worker in workers:
        if worker.status not in BILLED:
            continue
        price = by_type.get(worker.gpu_type_id or "")
        each = otherwise if price is None else price * max(1, worker.gpu_count)
        if each is None:
            return None
        total += each
    return total


class Watcher:
    """Looks at one endpoint again and again, and remembers since when things are as they are."""

    def __init__(self, run: Runtime, endpoint_id: str) -> None:
        self._run = run
        self._id = endpoint_id
        self._n_looks = 0
        self._initializing: dict[str, float] = {}
        self._idle_since_s: float | None = None
        self._log: tuple[str, tuple[str, ...]] = ("", ())
        self._catalog: list[GpuType] | None = None

    def look(
        self, *, credit: float | None = None, spend_per_h: float | None = None, with_releases: bool = True
    ) -> Look:
        """Read and judge. Raises NotFoundError if the endpoint is gone, and what reading it raises."""
        endpoint = find_endpoint(self._run, self._id)
        if endpoint is None:
            raise _gone(self._run, self._id)
        unseen: dict[str, str] = {}
        api, jobs = self._run.api, self._run.jobs
        workers = _try("workers", lambda: api.endpoint_workers(self._id), unseen)
        is_queue = endpoint.type == "QUEUE"
        health = _try("jobs", lambda: jobs.health(self._id), unseen) if is_queue else None
        releases = _try("releases", lambda: api.endpoint_releases(self._id), unseen) if with_releases else None
        if self._catalog is None:
            self._catalog = _try("prices", lambda: read_catalog(self._run), unseen)
        catalog = self._catalog or []
        price = worker_price_per_h(endpoint.gpu, catalog)
        facts = self._facts(endpoint, workers, health, unseen, (credit, spend_per_h, price))
        self._n_looks += 1
        return Look(
            endpoint=endpoint,
            workers=workers,
            releases=releases,
            health=health,
            price_per_h=price,
            cost_per_h=None if workers is None else cost_now(endpoint, workers.workers, catalog),
            findings=tuple(diagnose(facts)),
            unseen=unseen,
        )

    def _facts(
        self,
        endpoint: Endpoint,
        workers: Workers | None,
        health: EndpointHealth | None,
        unseen: dict[str, str],
        money: tuple[float | None, float | None, float | None],
    ) -> Facts:
        rows = workers.workers if workers else ()
        summary = workers.summary.model_dump() if workers else {}
        n_queued = None if health is None else health.jobs.get("inQueue", 0)
        recorded_max = (recorded(self._run, endpoint.id) or {}).get("workers_max")
        return Facts(
            endpoint_id=endpoint.id,
            max_workers=endpoint.max_workers,
            workers=summary,
            n_queued=n_queued,
            initializing_s=self._initializing_s(rows),
            idle_with_queue_s=self._idle_with_queue_s(bool(summary.get("idle") and n_queued)),
            log=self._log_of(rows, unseen),
            recorded_max=recorded_max if isinstance(recorded_max, int) else None,
            credit=money[0],
            spend_per_h=money[1],
            worker_price_per_h=money[2],
        )

    def _initializing_s(self, workers: Sequence[Worker]) -> float | None:
        """How long the oldest worker has initialized: since it was seen first, or since it says that it started."""
        now_s, unix_s = self._run.clock.monotonic_s(), self._run.clock.unix_s()
        found = [worker for worker in workers if worker.status == "INITIALIZING"]
        self._initializing = {each.id: self._initializing.get(each.id, now_s) for each in found}
        told = [unix_s - each.started_at.timestamp() for each in found if each.started_at is not None]
        seen = [now_s - since_s for since_s in self._initializing.values()] if self._n_looks else []
        return max([*told, *seen], default=None)

    def _idle_with_queue_s(self, is_so: bool) -> float | None:
        now_s = self._run.clock.monotonic_s()
        if not is_so:
            self._idle_since_s = None
            return None
        if self._idle_since_s is None:
            self._idle_since_s = now_s
            # Seen once only; that of a later look is a beginning, and so a duration of nothing.
            return None if self._n_looks == 0 else 0.0
        return now_s - self._idle_since_s

    def _log_of(self, workers: Sequence[Worker], unseen: dict[str, str]) -> tuple[str, ...]:
        """Last lines of the newest unhealthy worker, read once for each."""
        bad = [worker for worker in workers if worker.status == "UNHEALTHY"]
        if not bad:
            return ()
        newest = max(bad, key=lambda each: each.started_at.timestamp() if each.started_at else 0.0)
        if self._log[0] != newest.id:
            lines = _try(f"log of worker {newest.id}", lambda: self._read_log(newest.id), unseen)
            if lines is None:
                return ()
            self._log = (newest.id, lines)
        return self._log[1]

    def _read_log(self, worker_id: str) -> tuple[str, ...]:
        def connect(query: LogQuery, resume_id: str | None, idle_s: float) -> Iterator[LogEvent]:
            tail = query.tail if resume_id is None else None
            return self._run.api.worker_logs(self._id, worker_id, tail=tail, last_event_id=resume_id, idle_s=idle_s)

        found = follow(
            connect,
            LogQuery(tail=LOG_LINES),
            clock=self._run.clock,
            is_endless=False,
            still_runs=lambda: False,
            note=self._run.console.note,
        )
        return tuple(event.line for event in found)[-LOG_LINES:]


def _gone(run: Runtime, endpoint_id: str) -> NotFoundError:
    if recorded(run, endpoint_id) is None:
        return NotFoundError(f"there is no endpoint {endpoint_id}", hint="see: python -m builder endpoint list")
    return NotFoundError(
        f"endpoint {endpoint_id}, deployed from here, is gone: it costs nothing any more",
        hint=f"forget it: python -m builder endpoint delete {endpoint_id}; "
        "or deploy another: python -m builder deploy endpoint",
    )


def _try(what: str, read: Callable[[], T], unseen: dict[str, str]) -> T | None:
    try:
        return read()
    except BuilderError as error:
        unseen[what] = str(error)
        return None
