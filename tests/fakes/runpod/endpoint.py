"""One serverless endpoint of the fake with its workers and releases, and one template: state only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tests.fakes.runpod.boots import LogSource
from tests.fakes.runpod.jobs import JobStore, PlaneRules
from tests.fakes.runpod.pod import LogLine

__all__ = [
    "BareQueue",
    "FakeEndpoint",
    "FakeTemplate",
    "FakeWorker",
    "JobClock",
    "MakeQueue",
    "Queue",
    "Release",
    "WorkerStatus",
]

WorkerStatus = Literal["RUNNING", "IDLE", "INITIALIZING", "THROTTLED", "UNHEALTHY"]
DEFAULT_IDLE_S = 10


class JobClock:
    """The time of an endpoint's jobs: how far its simulated workers have come, or the plane's present."""

    def __init__(self, live_s: Callable[[], float]) -> None:
        self._live_s = live_s
        self.at_s: float | None = None

    def now_s(self) -> float:
        """Seconds since 1970."""
        return self._live_s() if self.at_s is None else self.at_s


class Queue(Protocol):
    """What the workers' life needs of an endpoint's queue; `lock` guards `store`."""

    store: JobStore
    lock: Any


MakeQueue = Callable[[str, JobClock], Queue]


class BareQueue:
    """A queue that nobody reaches over HTTP."""

    def __init__(self, endpoint_id: str, clock: JobClock) -> None:
        self.endpoint_id = endpoint_id
        self.store = JobStore(clock, PlaneRules())
        self.lock = threading.RLock()


@dataclass
class FakeWorker:
    """One worker; times are seconds since 1970 on the plane's clock, `price` $/h once it is beyond INITIALIZING.

    `replaces` is the worker of an older version that goes when this one is up. `requests` are those in flight (load
    balancers). `address` is for whoever runs it as a real process.
    """

    id: str
    version: int
    image: str
    created_s: float
    status: WorkerStatus = "INITIALIZING"
    ready_s: float | None = None
    started_s: float | None = None
    idle_since_s: float | None = None
    gpu_id: str | None = None
    gpu_count: int = 0
    data_center_id: str | None = None
    price: float = 0.0
    replaces: str | None = None
    is_draining: bool = False
    is_held_back: bool = False
    is_gone: bool = False
    requests: int = 0
    address: str | None = None
    lines: list[LogLine] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        """Takes jobs or has one."""
        return self.status in ("IDLE", "RUNNING")

    @property
    def cost(self) -> float:
        """$/h now."""
        return self.price if self.status in ("IDLE", "RUNNING", "UNHEALTHY") else 0.0

    def log(self, at_s: float, source: LogSource, line: str) -> None:
        """Append a line."""
        self.lines.append(LogLine(len(self.lines) + 1, at_s, source, line))


@dataclass(frozen=True)
class Release:
    """One version of an endpoint, and what it changed: rows of field, old and new."""

    id: str
    version: int
    created_s: float
    diff: tuple[dict[str, Any], ...] = ()


@dataclass
class FakeEndpoint:
    """State of an endpoint; `gpu`, `cpu` and `scaling` are the API's JSON, `timeout` is in ms."""

    id: str
    name: str
    type: str
    created_s: float
    image: str = ""
    args: str = ""
    disk: int = 20
    env: dict[str, str] = field(default_factory=dict)
    ports: list[str] = field(default_factory=list)
    registry: str | None = None
    gpu: dict[str, Any] | None = None
    cpu: list[dict[str, Any]] | None = None
    workers_min: int = 0
    workers_max: int = 3
    idle_timeout_s: int | None = DEFAULT_IDLE_S
    scaling: dict[str, Any] = field(default_factory=dict)
    flashboot: str = "OFF"
    timeout: int = 300_000
    data_center_ids: list[str] = field(default_factory=list)
    network_volumes: list[str] = field(default_factory=list)
    template_id: str | None = None
    version: int = 1
    workers: list[FakeWorker] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    shown_from_s: float = 0.0
    deleted_s: float | None = None
    in_flight: int = 0
    """Requests that the load balancer holds, given to a worker or waiting for one."""
    reached_s: float = 0.0

    @property
    def is_queue(self) -> bool:
        """Takes jobs; else requests."""
        return self.type == "QUEUE"

    @property
    def is_over(self) -> bool:
        """Deleted."""
        return self.deleted_s is not None

    @property
    def is_parked(self) -> bool:
        """Allowed no worker at all."""
        return self.workers_max == 0

    @property
    def has_idle_timeout(self) -> bool:
        """Queues that scale by requests have none."""
        return not (self.is_queue and self.scaling.get("type") == "REQUEST_COUNT")

    @property
    def kept_idle_s(self) -> float:
        """Seconds that a worker above the minimum may be idle."""
        return float(DEFAULT_IDLE_S if self.idle_timeout_s is None else self.idle_timeout_s)

    def worker(self, worker_id: str) -> FakeWorker | None:
        """One of its workers."""
        return next((each for each in self.workers if each.id == worker_id), None)

    def counted(self) -> list[FakeWorker]:
        """Workers that count against min and max: neither on their way out nor on their way to replace one."""
        return [each for each in self.workers if not each.is_draining and each.replaces is None]

    def is_stale(self, worker: FakeWorker) -> bool:
        """Whether the worker runs an older version."""
        return worker.version != self.version


@dataclass
class FakeTemplate:
    """A template made through the API; `document` is its JSON, shared with `Account.templates`."""

    id: str
    name: str
    document: dict[str, Any]
    shown_from_s: float = 0.0
