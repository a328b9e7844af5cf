"""What the guard sees of each pod: RunPod's API, and the pod's own /status through the proxy.

A pod's server tells its sessions only to those who show its secret; that secret is sent to the pod it belongs to.
What pods say of themselves is other people's text: an odd pod must not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.errors import NetworkError
from builder.money.guard_rules import Decision, Limits, Observation, unjudged
from builder.money.orphans import ODD, deadline_s

if TYPE_CHECKING:
    from builder.api.models import Pod
    from builder.runtime import Runtime

__all__ = ["observe"]

PROBE_TIMEOUT_S = 10.0
GONE = 404
FIRST_FAULT = 500
MAX_NUMBER = 1e15
"""No count and no number of seconds or percent is larger."""


def observe(run: Runtime, limits: Limits) -> tuple[list[Observation], list[Decision]]:
    """Every pod of the account as it is now, and those that cannot be observed, with the reason.

    Raises BuilderError if they cannot be listed.
    """
    spot_ids = _spot_ids(run)
    seen: list[Observation] = []
    odd: list[Decision] = []
    for pod in run.api.list_pods():
        if pod.status == "TERMINATED":
            continue
        try:
            seen.append(_observe_pod(run, pod, limits, spot_ids))
        except ODD as error:
            odd.append(unjudged(pod.id, pod.name, pod.cost, error))
    return seen, odd


def _observe_pod(run: Runtime, pod: Pod, limits: Limits, spot_ids: set[str]) -> Observation:
    is_ours = "BUILDER_ID" in pod.env
    status: Mapping[str, Any] | None = None
    answers, n_active, busy_s = None, None, None
    port = _health_port(run, pod)
    if pod.status == "RUNNING" and (is_ours or limits.every_pod):
        if port is None:
            # Nobody can be served by a pod without our port: its GPU alone tells.
            n_active = 0
        else:
            answers, status = _probe(run, pod, port)
            n_active, busy_s = _activity(status, run.clock.unix_s())
    started = pod.started_at or pod.created_at
    return Observation(
        pod_id=pod.id,
        name=pod.name,
        status=pod.status,
        is_ours=is_ours,
        is_locked=pod.locked,
        is_spot=pod.id in spot_ids,
        up_since_s=None if started is None else started.timestamp(),
        boots_since_s=pod.created_at.timestamp() if pod.created_at and pod.started_at is None else None,
        deadline_s=deadline_s(pod.env),
        cost_per_hour=pod.cost,
        answers=answers,
        gpu_percent=_gpu_percent(pod, status),
        n_active=n_active,
        busy_s=busy_s,
    )


def _spot_ids(run: Runtime) -> set[str]:
    """Pods known to be spot pods: REST v2 does not tell."""
    details = [(str(event.get("resource_id")), event.get("details")) for event in run.state.events()]
    ids = {pod_id for pod_id, each in details if isinstance(each, Mapping) and each.get("is_spot")}
    current = run.state.read("pod") or {}
    return ids | ({str(current.get("pod_id"))} if current.get("is_spot") else set())


def _health_port(run: Runtime, pod: Pod) -> int | None:
    """Where the pod's server tells its health; None if the proxy does not reach it there."""
    from builder.pods.pods import ports_of

    port = ports_of(run, pod).health
    return port if f"{port}/http" in pod.ports else None


def _probe(run: Runtime, pod: Pod, port: int) -> tuple[bool, Mapping[str, Any] | None]:
    """Whether the pod's server answers, and what /status tells."""
    from builder.api.http import get_once
    from builder.pods.addresses import health_url
    from builder.pods.pods import token_for

    url = health_url(run.settings.proxy_template, pod.id, port, "/status")
    token = token_for(run, pod)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = get_once(url, timeout_s=PROBE_TIMEOUT_S, headers=headers)
    except NetworkError:
        return False, None
    if answer.status == GONE or answer.status >= FIRST_FAULT:
        # The proxy speaks, not the pod.
        return False, None
    return True, answer.body if isinstance(answer.body, Mapping) else None


def _activity(status: Mapping[str, Any] | None, now_s: float) -> tuple[int | None, float | None]:
    """How many are served (None: not told, as without the right secret), and when it last transcribed."""
    if status is None:
        return None, None
    sessions, files, engine = (status.get(name) for name in ("sessions", "files", "engine"))
    n_sessions = _number(sessions, "active")
    if n_sessions is None:
        return None, None
    n_active = int(n_sessions) + sum(int(_number(files, name) or 0) for name in ("active", "uploads"))
    ago_s = _number(engine, "last_decode_seconds_ago")
    return n_active, None if ago_s is None else now_s - ago_s


def _gpu_percent(pod: Pod, status: Mapping[str, Any] | None) -> float | None:
    loads = [gpu.util for gpu in pod.runtime.gpus if gpu.util is not None] if pod.runtime else []
    told = {"utilization_percent": max(loads)} if loads else (status or {}).get("gpu")
    return _number(told, "utilization_percent")


def _number(part: object, name: str) -> float | None:
    """A number out of an answer that may hold anything."""
    value = part.get(name) if isinstance(part, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and abs(value) < MAX_NUMBER else None
