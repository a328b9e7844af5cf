"""What RunPod's API takes and gives about serverless endpoints, their workers, templates and jobs.

Names and meanings are REST v2's and the job API's. Money is in US dollars, times of jobs in milliseconds, disks in GB.

Source: RunPod REST API v2 (document version 2.0.0); operation reference of the job API.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AliasChoices, Field

from builder.api.model_base import AnswerModel, RequestModel
from builder.errors import BadAnswerError

__all__ = [
    "ENDED",
    "Endpoint",
    "EndpointGpu",
    "EndpointHealth",
    "EndpointSpec",
    "EndpointType",
    "FlashBoot",
    "Job",
    "JobPage",
    "Release",
    "Releases",
    "Rollout",
    "Template",
    "TemplateSpec",
    "Worker",
    "WorkerSummary",
    "Workers",
    "WorkersSpec",
]

EndpointType = Literal["QUEUE", "LOAD_BALANCER"]
FlashBoot = Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"]
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
"""States of a job that is over; the others are IN_QUEUE and IN_PROGRESS."""


class EndpointGpu(RequestModel):
    """Which GPUs workers may get: whole pools, less some types."""

    pools: tuple[str, ...]
    excluded_types: tuple[str, ...] | None = None
    count: int = 1
    min_cuda_version: str | None = None


class WorkersSpec(RequestModel):
    """How many workers; `idle_timeout` in seconds, and not for queues that scale by requests."""

    min: int
    max: int
    idle_timeout: int | None = None


class TemplateSpec(RequestModel):
    """Body of a create (CreateTemplateRequest): the container of the workers. `image` and `env` as for a pod."""

    name: str
    image: str
    env: dict[str, str]
    disk: int
    ports: tuple[str, ...] | None = None
    registry: str | None = None
    serverless: bool = True
    public: bool = False
    start_ssh: bool = False
    start_jupyter: bool = False


class EndpointSpec(RequestModel):
    """Body of a create (CreateEndpointRequest) from a template.

    `scaling` is `{"type": "QUEUE_DELAY", "queueDelay": s}` or `{"type": "REQUEST_COUNT", "requestCount": n}`; `timeout`
    is a job's longest time in milliseconds.
    """

    name: str
    type: EndpointType
    template_id: str
    gpu: EndpointGpu
    workers: WorkersSpec
    scaling: dict[str, Any]
    flashboot: FlashBoot
    timeout: int
    data_center_ids: tuple[str, ...] | None = None


class Endpoint(AnswerModel):
    """An endpoint as the API shows it; `workers` has min, max and idleTimeout, `gpu` None for CPU endpoints."""

    id: str
    name: str
    type: str = "QUEUE"
    image: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] = ()
    disk: int = 0
    registry: str | None = None
    workers: dict[str, Any] = Field(default_factory=dict)
    gpu: dict[str, Any] | None = None
    scaling: dict[str, Any] = Field(default_factory=dict)
    flashboot: str = "OFF"
    timeout: int = 0
    data_center_ids: tuple[str, ...] = ()
    created_at: datetime | None = None

    @property
    def min_workers(self) -> int:
        """Workers that are always kept, and billed. Raises BadAnswerError for a number that is none."""
        return self._number("min")

    @property
    def max_workers(self) -> int:
        """Most workers at a time. Raises BadAnswerError for a number that is none."""
        return self._number("max")

    def _number(self, name: str) -> int:
        # Not refused when it is read: one odd endpoint must not hide the others of a list.
        number = self.workers.get(name) or 0
        if isinstance(number, bool) or not isinstance(number, int):
            raise BadAnswerError(f"endpoint {self.id}: RunPod says that workers.{name} is {str(number)[:40]!r}")
        return number


class Template(AnswerModel):
    """A stored container configuration."""

    id: str
    name: str
    image: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] = ()
    disk: int = 0
    registry: str | None = None
    serverless: bool = False
    public: bool = False


class Worker(AnswerModel):
    """One worker; `status` is RUNNING (a job), IDLE, INITIALIZING, THROTTLED (no machine is free) or UNHEALTHY."""

    id: str
    status: str
    is_stale: bool = False
    version: int | None = None
    gpu_count: int = 1
    image: str | None = None
    uptime_s: int | None = Field(default=None, validation_alias=AliasChoices("uptimeSeconds", "uptime_s"))
    gpu_type_id: str | None = None
    data_center_id: str | None = None
    started_at: datetime | None = None


class WorkerSummary(AnswerModel):
    """How many workers are in which state."""

    running: int = 0
    idle: int = 0
    initializing: int = 0
    throttled: int = 0
    unhealthy: int = 0
    total: int = 0


class Workers(AnswerModel):
    """All workers of an endpoint; `endpoint_version` is the newest configuration."""

    workers: tuple[Worker, ...]
    summary: WorkerSummary
    endpoint_version: int | None = None


class Release(AnswerModel):
    """One change of an endpoint's configuration."""

    id: str
    version: int | None = None
    created_at: datetime | None = None
    worker_count: int = 0
    diff: tuple[dict[str, Any], ...] = ()


class Rollout(AnswerModel):
    """How far the newest configuration has come."""

    in_progress: bool
    workers_on_latest: int
    workers_total: int


class Releases(AnswerModel):
    """History, newest first, and the rollout."""

    rollout: Rollout
    releases: tuple[Release, ...] = ()
    endpoint_version: int | None = None


class Job(AnswerModel):
    """A job; `output` and `error` are whatever the worker gave. Times are None until they are known."""

    id: str
    status: str
    output: Any = None
    error: Any = None
    delay_ms: int | None = Field(default=None, validation_alias=AliasChoices("delayTime", "delay_ms"))
    execution_ms: int | None = Field(default=None, validation_alias=AliasChoices("executionTime", "execution_ms"))
    worker_id: str | None = None
    retries: int = 0

    @property
    def is_over(self) -> bool:
        """True if nothing more will come of it."""
        return self.status in ENDED


class JobPage(AnswerModel):
    """What a job gave since it was asked last; every piece comes once."""

    status: str
    stream: tuple[dict[str, Any], ...] = ()


class EndpointHealth(AnswerModel):
    """Counts of jobs (completed, failed, inProgress, inQueue, retried) and workers (idle, running, ...)."""

    jobs: dict[str, int] = Field(default_factory=dict)
    workers: dict[str, int] = Field(default_factory=dict)
