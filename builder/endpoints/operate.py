"""Changing how many workers an endpoint may have, and emptying its queue: what it costs or loses is said before.

An endpoint bills for workers only: with min 0 and no jobs it costs nothing; with max 0 it can cost nothing at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.endpoints.chosen import remember
from builder.endpoints.look import find_endpoint, read_catalog
from builder.endpoints.views import scale_text
from builder.errors import BudgetError, BuilderError, NotFoundError, UsageError, WaitTimeoutError
from builder.instants import duration_text
from builder.money.prices import worker_price_per_h

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.runtime import Runtime

__all__ = [
    "Scale",
    "purge_endpoint",
    "queued_and_running",
    "scale_endpoint",
    "the_endpoint",
    "wait_until_scaled",
    "wanted_limits",
]

LOOK_EVERY_S = 3.0


@dataclass(frozen=True)
class Scale:
    """What was asked for; None: as it is. `zero`: no worker is kept; `park`: none may start."""

    min: int | None = None
    max: int | None = None
    idle_timeout_s: int | None = None
    zero: bool = False
    park: bool = False


def the_endpoint(run: Runtime, endpoint_id: str) -> Endpoint:
    """The endpoint. Raises NotFoundError that says so if it is gone."""
    endpoint = find_endpoint(run, endpoint_id)
    if endpoint is None:
        raise NotFoundError(f"there is no endpoint {endpoint_id}", hint="see: python -m builder endpoint list")
    return endpoint


def wanted_limits(endpoint: Endpoint, scale: Scale) -> tuple[int, int, int | None]:
    """Least and most workers and idle timeout to set. Raises UsageError. Pure."""
    if scale.zero and scale.min is not None:
        raise UsageError("--zero is --min 0: give one of them")
    if scale.park and (scale.zero or scale.min is not None or scale.max is not None):
        raise UsageError("--park is --min 0 --max 0: give it without --min, --max and --zero")
    if not (scale.zero or scale.park) and scale.min is scale.max is scale.idle_timeout_s is None:
        raise UsageError("nothing to change", hint="give --min, --max, --idle-timeout, --zero or --park")
    low = 0 if scale.zero or scale.park else endpoint.min_workers if scale.min is None else scale.min
    high = 0 if scale.park else endpoint.max_workers if scale.max is None else scale.max
    if low > high:
        if scale.min is not None:
            raise UsageError(f"--min: {low} is not allowed; legal: 0 to {high}, the most workers", hint="raise --max")
        raise UsageError(f"--max: {high} is not allowed; legal: {low} (min) to 1000", hint="lower --min, or add --zero")
    if (
        scale.idle_timeout_s is not None
        and endpoint.type == "QUEUE"
        and endpoint.scaling.get("type") == "REQUEST_COUNT"
    ):
        raise UsageError("--idle-timeout: a queue that scales by requests has none", hint="leave it out")
    idle_s = endpoint.workers.get("idleTimeout") if scale.idle_timeout_s is None else scale.idle_timeout_s
    if scale.idle_timeout_s is None and endpoint.type == "QUEUE" and endpoint.scaling.get("type") == "REQUEST_COUNT":
        # RunPod refuses it there, whatever it shows.
        idle_s = None
    return low, high, idle_s


def scale_endpoint(
    run: Runtime, endpoint_id: str, scale: Scale, *, max_price: float | None, yes: bool
) -> dict[str, Any]:
    """Change the limits, after a question if that may cost more or keep jobs from running.

    Raises UsageError, NotFoundError, BudgetError if more workers are asked for and one costs more than `max_price`.
    """
    endpoint = the_endpoint(run, endpoint_id)
    low, high, idle_s = wanted_limits(endpoint, scale)
    raises = low > endpoint.min_workers or high > endpoint.max_workers
    price = _price(run, endpoint, is_needed=raises and max_price is not None)
    before, after = _limits_of(endpoint, price), _limits(low, high, idle_s, price)
    document = {"endpoint_id": endpoint.id, "name": endpoint.name, "before": before, "after": after}
    if before == after:
        run.console.note(f"endpoint {endpoint.id} is so already")
        return {**document, "action": "none"}
    if raises:
        _check_price(endpoint, price, max_price)
        question = f"Let {endpoint.name} have {scale_text(after)}, instead of {scale_text(before)}?"
        run.console.confirm(question, yes=yes)
    elif high == 0 and endpoint.max_workers:
        _confirm_parking(run, endpoint, yes=yes)
    workers = {"min": low, "max": high} | ({} if idle_s is None else {"idleTimeout": idle_s})
    now = run.api.update_endpoint(endpoint.id, {"workers": workers})
    run.state.event(run.clock.unix_s(), "scaled", "endpoint", endpoint.id, min=low, max=high)
    remember(run, endpoint.id, workers_min=now.min_workers, workers_max=now.max_workers)
    if (now.min_workers, now.max_workers) != (low, high):
        run.console.warn(
            f"RunPod made it {now.min_workers} to {now.max_workers} workers: its limit depends on the account's credit"
        )
    return {**document, "after": _limits_of(now, price), "action": "scaled"}


def wait_until_scaled(run: Runtime, endpoint_id: str, timeout_s: float) -> dict[str, Any]:
    """Wait until the workers above min are gone; those that work on a job finish it first.

    Raises WaitTimeoutError.
    """
    began_s = run.clock.monotonic_s()
    with run.console.task("workers") as task:
        while True:
            endpoint = the_endpoint(run, endpoint_id)
            summary = run.api.endpoint_workers(endpoint_id).summary
            n_now, waited_s = summary.total - summary.throttled, run.clock.monotonic_s() - began_s
            if n_now <= endpoint.min_workers:
                return {"workers": n_now, "waited_s": round(waited_s, 1)}
            task.update(f"{n_now} left, {endpoint.min_workers} to be kept")
            if waited_s >= timeout_s:
                raise WaitTimeoutError(
                    f"endpoint {endpoint_id} has more workers ({n_now}) than are to be kept ({endpoint.min_workers}) "
                    f"after {duration_text(waited_s)}, and pays for those that run",
                    hint=f"look again: python -m builder endpoint status {endpoint_id}; "
                    f"end all: python -m builder endpoint delete {endpoint_id}",
                )
            run.clock.sleep(min(LOOK_EVERY_S, max(0.1, timeout_s - waited_s)))


def purge_endpoint(run: Runtime, endpoint_id: str, *, yes: bool) -> dict[str, Any]:
    """Remove the jobs that wait, after a question; those in progress go on.

    Raises UsageError for an endpoint without a queue, AmbiguousError if the answer is lost.
    """
    endpoint = the_endpoint(run, endpoint_id)
    if endpoint.type != "QUEUE":
        raise UsageError(f"endpoint {endpoint.id} ({endpoint.name}) has no queue: it is a {endpoint.type}", hint="")
    queued, _running = queued_and_running(run, endpoint)
    if queued == 0 and not yes:
        run.console.note(f"no job waits at {endpoint.name}")
        return {"endpoint_id": endpoint.id, "name": endpoint.name, "removed": 0}
    many = "" if queued is None else f" ({queued})"
    run.console.confirm(f"Remove all jobs that wait at {endpoint.name}{many}? They never run.", yes=yes)
    removed = run.jobs.purge(endpoint.id)
    run.state.event(run.clock.unix_s(), "purged", "endpoint", endpoint.id, removed=removed)
    return {"endpoint_id": endpoint.id, "name": endpoint.name, "removed": removed}


def queued_and_running(run: Runtime, endpoint: Endpoint) -> tuple[int | None, int | None]:
    """Jobs that wait, and those in progress; None if it cannot be told, 0 where there is no queue."""
    if endpoint.type != "QUEUE":
        return 0, 0
    try:
        jobs = run.jobs.health(endpoint.id).jobs
    except BuilderError as error:
        run.console.note(f"{error}; how many jobs {endpoint.name} has is not known")
        return None, None
    return jobs.get("inQueue", 0), jobs.get("inProgress", 0)


def _price(run: Runtime, endpoint: Endpoint, *, is_needed: bool) -> float | None:
    """$/h of a worker on the dearest GPU. Raises what the catalog raises if it `is_needed`."""
    try:
        return worker_price_per_h(endpoint.gpu, read_catalog(run))
    except BuilderError as error:
        if is_needed:
            raise
        run.console.note(f"prices could not be read: {error}")
        return None


def _check_price(endpoint: Endpoint, price_per_h: float | None, max_price: float | None) -> None:
    if max_price is None:
        return
    if price_per_h is None:
        raise BudgetError(
            f"what a worker of {endpoint.name} costs is not known, so that --max-price cannot be kept",
            hint="leave --max-price (BUILDER_MAX_PRICE) out",
        )
    if price_per_h > max_price:
        raise BudgetError(
            f"one worker of {endpoint.name} costs up to ${price_per_h:.2f}/h; --max-price is ${max_price:g}/h",
            hint="raise --max-price, or deploy with cheaper GPU pools (RUNPOD_GPU_POOLS)",
        )


def _confirm_parking(run: Runtime, endpoint: Endpoint, *, yes: bool) -> None:
    queued, running = queued_and_running(run, endpoint)
    if queued == 0 and running == 0:
        return
    what = "it may have jobs" if queued is None or running is None else f"jobs: {queued} wait, {running} in progress"
    run.console.confirm(f"Park {endpoint.name}? {what}; those that wait stay until it is scaled up again.", yes=yes)


def _limits_of(endpoint: Endpoint, price_per_h: float | None) -> dict[str, Any]:
    return _limits(endpoint.min_workers, endpoint.max_workers, endpoint.workers.get("idleTimeout"), price_per_h)


def _limits(low: int, high: int, idle_s: int | None, price_per_h: float | None) -> dict[str, Any]:
    def cost(n_workers: int) -> float | None:
        return 0.0 if n_workers == 0 else None if price_per_h is None else round(price_per_h * n_workers, 4)

    return {
        "workers_min": low,
        "workers_max": high,
        "idle_timeout_s": idle_s,
        "cost_per_hour_min": cost(low),
        "cost_per_hour_max": cost(high),
    }
