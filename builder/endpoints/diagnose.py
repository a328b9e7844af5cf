"""Why an endpoint does not serve: counts of workers and jobs in, causes and remedies out. Pure.

RunPod's own rules behind it: an endpoint without requests for 3 days keeps at most 2 workers, after 7 days none; one
whose workers are unhealthy again and again is scaled down, too; without credit nothing starts.

Source: RunPod documentation, pages "Endpoint configurations" and "Workers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from builder.instants import duration_text
from builder.pods.causes import diagnose as cause_of

__all__ = ["LOG_LINES", "Facts", "Finding", "diagnose"]

Kind = Literal["parked", "crash_loop", "capacity", "image_pull", "broken_worker", "billing", "lowered"]
LOG_LINES = 30
"""Last lines of a crashing worker that are worth showing."""
PULL_LIMIT_S = 600.0
"""A worker that initializes for longer pulls an image that is too large, or cannot have it."""
IDLE_LIMIT_S = 60.0
"""A worker that idles beside waiting jobs for longer does not take them."""
MIN_CREDIT_H = 1.0
LOWERED_MAX = 2
"""Most workers that RunPod leaves an endpoint after 3 days without requests."""


@dataclass(frozen=True)
class Facts:
    """What is known of an endpoint.

    `workers`: counts by state; `n_queued`: jobs that wait, None if not known; `initializing_s`: how long the oldest
    worker initializes; `idle_with_queue_s`: how long workers have idled beside waiting jobs. Both are None if that was
    seen only once. `log`: last lines of the newest unhealthy worker. `recorded_max`: most workers, as deployed.
    """

    endpoint_id: str
    max_workers: int
    workers: Mapping[str, int]
    n_queued: int | None = None
    initializing_s: float | None = None
    idle_with_queue_s: float | None = None
    log: Sequence[str] = ()
    recorded_max: int | None = None
    credit: float | None = None
    spend_per_h: float | None = None
    worker_price_per_h: float | None = None

    def count(self, state: str) -> int:
        """Workers in a state."""
        return self.workers.get(state, 0)


@dataclass(frozen=True)
class Finding:
    """One cause. `is_final`: waiting will not help; `is_sure`: False if it takes a longer look to tell."""

    kind: Kind
    cause: str
    remedy: str
    is_final: bool = False
    is_sure: bool = True
    lines: tuple[str, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "kind": self.kind,
            "cause": self.cause,
            "remedy": self.remedy,
            "is_final": self.is_final,
            "is_sure": self.is_sure,
            "lines": list(self.lines),
        }


def diagnose(facts: Facts) -> list[Finding]:
    """All that stands in the way of jobs, the most telling first; empty if nothing is known to."""
    return [*_parked(facts), *_crashing(facts), *_throttled(facts), *_pulling(facts), *_broken(facts), *_credit(facts)]


def _parked(facts: Facts) -> Iterator[Finding]:
    again = f"python -m builder endpoint scale {facts.endpoint_id} --max {facts.recorded_max or 3}"
    if facts.max_workers == 0:
        yield Finding(
            "parked",
            "no worker may start (max 0): it was parked, by scale --park, or by RunPod after 7 days without requests "
            "or because workers were unhealthy again and again",
            f"let workers start again: {again}",
            is_final=True,
        )
    elif facts.recorded_max is not None and facts.max_workers == LOWERED_MAX < facts.recorded_max:
        yield Finding(
            "lowered",
            f"at most {LOWERED_MAX} workers start, not the {facts.recorded_max} it was deployed with: RunPod lowers "
            "that after 3 days without requests",
            f"raise it again: {again}",
        )


def _crashing(facts: Facts) -> Iterator[Finding]:
    n_bad = facts.count("unhealthy")
    if n_bad == 0:
        return
    n_others = facts.count("running") + facts.count("idle") + facts.count("initializing")
    lines = tuple(facts.log[-LOG_LINES:])
    known = cause_of("\n".join(lines)) if lines else None
    cause = f"{_workers(n_bad)} unhealthy, starting and dying again and again"
    remedy = f"read its log, correct the image or its variables, and deploy again: {_deploy()}"
    if known is not None:
        cause, remedy = f"{cause}; {known.cause}", known.remedy.replace("deploy --replace", "deploy endpoint")
    yield Finding("crash_loop", cause, remedy, is_final=n_others == 0, lines=lines)


def _throttled(facts: Facts) -> Iterator[Finding]:
    # With max 0 it is parked; that workers wait then says nothing.
    if facts.count("throttled") and not facts.count("running") and not facts.count("idle") and facts.max_workers:
        yield Finding(
            "capacity",
            f"{_workers(facts.count('throttled'))} throttled: no machine of the endpoint's GPU pools is free",
            f"allow more pools (RUNPOD_GPU_POOLS) or data centers, drop a network volume, then: {_deploy()}",
        )


def _pulling(facts: Facts) -> Iterator[Finding]:
    if facts.count("initializing") and (facts.initializing_s or 0.0) > PULL_LIMIT_S:
        yield Finding(
            "image_pull",
            f"a worker initializes for {duration_text(facts.initializing_s or 0.0)}: its image is pulled slowly, or "
            "cannot be had",
            "check the image's name, size and credential (RUNPOD_REGISTRY_ID); a worker's log shows the pull: "
            f"python -m builder endpoint status {facts.endpoint_id}",
        )


def _broken(facts: Facts) -> Iterator[Finding]:
    if not facts.count("idle") or not facts.n_queued:
        return
    seen_s = facts.idle_with_queue_s
    if seen_s is not None and seen_s <= IDLE_LIMIT_S:
        return
    lasts = "now" if seen_s is None else f"for {duration_text(seen_s)}"
    yield Finding(
        "broken_worker",
        f"{_workers(facts.count('idle'))} idle beside jobs that wait ({facts.n_queued}), {lasts}: the worker does "
        "not take them (its handler is not started, or its RunPod SDK is one of 1.7.11 to 1.10.0)",
        f"use this project's image, and deploy again: {_deploy()}"
        if seen_s is not None
        else f"if it stays so for {IDLE_LIMIT_S:g} s: python -m builder endpoint status {facts.endpoint_id} --watch",
        is_final=seen_s is not None,
        is_sure=seen_s is not None,
    )


def _credit(facts: Facts) -> Iterator[Finding]:
    if facts.credit is None:
        return
    per_h = max(facts.spend_per_h or 0.0, facts.worker_price_per_h or 0.0)
    if facts.credit <= 0 or facts.credit < per_h * MIN_CREDIT_H:
        yield Finding(
            "billing",
            f"the credit of ${facts.credit:.2f} does not last an hour at ${per_h:.2f}/h: workers may not start",
            "add credit in RunPod's console (Billing)",
        )


def _workers(count: int) -> str:
    return f"{count} worker is" if count == 1 else f"{count} workers are"


def _deploy() -> str:
    return "python -m builder deploy endpoint"
