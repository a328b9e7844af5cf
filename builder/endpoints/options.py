"""What the user can ask of `deploy endpoint|lb` and `plan endpoint|lb`: one field per option. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from builder.deploy.options import DEFAULT_TIMEOUT_S
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.settings import Settings

__all__ = ["EndpointKind", "EndpointWishes", "Scale", "scale_of"]

EndpointKind = Literal["endpoint", "lb"]
"""`endpoint`: jobs from a queue; `lb`: HTTP and WebSocket through RunPod's load balancer."""
DEFAULT_IDLE_S = 10
DEFAULT_QUEUE_DELAY_S = 4.0
MIN_QUEUE_DELAY_S = 0.5
DEFAULT_REQUESTS_PER_WORKER = 4
"""Of a load balancer, which scales by nothing else."""
DEFAULT_JOB_TIMEOUT_S = 3600
"""A long recording takes minutes; a job that hangs is to end all the same."""


@dataclass(frozen=True)
class EndpointWishes:
    """The options; None: as the settings say. Money in $/h, `disk` in GB, times in seconds."""

    image: str | None = None
    gpu: str | None = None
    pool: str | None = None
    workers_min: int | None = None
    workers_max: int | None = None
    idle_timeout: int | None = None
    queue_delay: float | None = None
    requests_per_worker: int | None = None
    flashboot: bool | None = None
    job_timeout: int | None = None
    data_center: str | None = None
    disk: int | None = None
    name: str | None = None
    max_price: float | None = None
    max_total: float | None = None
    with_token: bool = False
    extra: tuple[str, ...] = ()
    require_validated: bool = False
    new: bool = False
    no_canary: bool = False
    dry_run: bool = False
    yes: bool = False
    wait: bool = True
    timeout: float = DEFAULT_TIMEOUT_S
    keep: bool = False


@dataclass(frozen=True)
class Scale:
    """How many workers, when more, and how long each job may take. Either `queue_delay_s` or `requests_per_worker`."""

    min: int
    max: int
    idle_s: int | None
    queue_delay_s: float | None
    requests_per_worker: int | None
    job_timeout_s: int


def scale_of(kind: EndpointKind, wishes: EndpointWishes, settings: Settings) -> Scale:
    """Workers and scaling, from options and settings. Raises UsageError for what does not go together."""
    _check_together(kind, wishes)
    least = settings.workers_min if kind == "endpoint" else max(1, settings.workers_min)
    low = least if wishes.workers_min is None else wishes.workers_min
    high = settings.workers_max if wishes.workers_max is None else wishes.workers_max
    if high < 1:
        raise UsageError(
            f"--workers-max: {high} is not allowed; legal: 1 to 1000: without workers nothing is served",
            hint="give --workers-max, or change RUNPOD_WORKERS_MAX; to let no worker start: "
            "python -m builder endpoint scale --park",
        )
    if low > high:
        raise UsageError(
            f"--workers-min: {low} is not allowed; legal: 0 to the most workers, which is {high}",
            hint="lower --workers-min (RUNPOD_WORKERS_MIN), or raise --workers-max (RUNPOD_WORKERS_MAX)",
        )
    per_worker = wishes.requests_per_worker
    if kind == "lb" and per_worker is None:
        per_worker = DEFAULT_REQUESTS_PER_WORKER
    delay = wishes.queue_delay
    if delay is not None and not delay >= MIN_QUEUE_DELAY_S:
        raise UsageError(f"--queue-delay: {delay:g} is not allowed; legal: {MIN_QUEUE_DELAY_S:g} seconds and more")
    # RunPod refuses an idle time for queues that scale by requests.
    takes_idle = kind == "lb" or per_worker is None
    return Scale(
        min=low,
        max=high,
        idle_s=(wishes.idle_timeout or DEFAULT_IDLE_S) if takes_idle else None,
        queue_delay_s=None if per_worker is not None else delay or DEFAULT_QUEUE_DELAY_S,
        requests_per_worker=per_worker,
        job_timeout_s=wishes.job_timeout or DEFAULT_JOB_TIMEOUT_S,
    )


def _check_together(kind: EndpointKind, wishes: EndpointWishes) -> None:
    if wishes.gpu is not None and wishes.pool is not None:
        raise UsageError("--gpu and --pool exclude each other: GPUs are taken out of their pools")
    if wishes.queue_delay is not None and wishes.requests_per_worker is not None:
        raise UsageError("--queue-delay and --requests-per-worker exclude each other: workers are added by one of them")
    if kind == "lb":
        for option, value in (("--queue-delay", wishes.queue_delay), ("--job-timeout", wishes.job_timeout)):
            if value is not None:
                raise UsageError(f"{option} is not for lb: a load balancer has no queue and no jobs")
        return
    if wishes.idle_timeout is not None and wishes.requests_per_worker is not None:
        raise UsageError("--idle-timeout and --requests-per-worker exclude each other: RunPod takes one of them")
    if wishes.with_token:
        raise UsageError("--with-token is for lb: jobs need the RunPod key, and workers see no other")
