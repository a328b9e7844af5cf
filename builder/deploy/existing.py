"""What a deploy does about the pod that is there already."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from builder.deploy.create import find_pod
from builder.deploy.gpus import clouds_of, fits_name
from builder.deploy.options import comma_list
from builder.deploy.plan import check_price
from builder.deploy.pod_spec import DEADLINE, drift
from builder.deploy.prepare import pod_options
from builder.errors import ConflictError, UsageError
from builder.money.orphans import deadline_s

if TYPE_CHECKING:
    from builder.api.models import Pod
    from builder.deploy.options import Wishes
    from builder.runtime import Runtime

__all__ = ["Choice", "existing_pod", "reuse", "settle"]

REPLACE_HINT = "deploy a new one and end this one then: --replace"

DEADLINE_SLACK_S = 300.0
"""Seconds by which a pod that is reused may end before a new one would."""


class Choice(Enum):
    """What is to be done."""

    NEW = "new"
    REUSE = "reuse"
    REPLACE = "replace"


def existing_pod(run: Runtime) -> Pod | None:
    """The pod that was deployed last, if it is still there. Raises what the API raises."""
    recorded = (run.state.read("pod") or {}).get("pod_id")
    return find_pod(run, str(recorded)) if recorded else None


def settle(run: Runtime, wishes: Wishes, pod: Pod | None) -> Choice:
    """Decide, by option or by asking. Raises ConflictError if nobody can be asked, UsageError on a cancel."""
    if pod is None or (wishes.dry_run and not wishes.reuse):
        return Choice.NEW
    if wishes.reuse or wishes.replace:
        return Choice.REUSE if wishes.reuse and not wishes.replace else Choice.REPLACE
    there = f"pod {pod.id} ({pod.name}) is there: {pod.status}, ${pod.cost:.2f}/h"
    if wishes.yes or not run.console.is_interactive:
        raise ConflictError(there, hint="keep it: --reuse; deploy a new one and end this one then: --replace")
    answer = run.console.ask(f"{there}. [r]euse it, re[p]lace it, or [c]ancel? ").strip().lower()
    if answer in ("r", "reuse"):
        return Choice.REUSE
    if answer in ("p", "replace"):
        return Choice.REPLACE
    raise UsageError("cancelled, nothing was done", hint="")


def reuse(run: Runtime, wishes: Wishes, pod: Pod) -> dict[str, Any]:
    """The document of a pod that is what is wanted now.

    Raises ConflictError that names the differing fields, or if it does not run; BudgetError if it costs too much.
    """
    if pod.status in ("EXITED", "ERROR"):
        raise ConflictError(
            f"pod {pod.id} is {pod.status}: it serves nobody", hint=f"start it: python -m builder start {pod.id}"
        )
    check_price(pod.cost, run.settings.max_price if wishes.max_price is None else wishes.max_price, f"pod {pod.id}")
    options, _ = pod_options(run, wishes)
    different = drift(pod, options)
    names = comma_list(wishes.gpu) or run.settings.gpu_types
    if names and pod.gpu is not None and not any(fits_name(pod.gpu.id, name) for name in names):
        different.append("gpu")
    if pod.cloud is not None and pod.cloud not in clouds_of(wishes.cloud or run.settings.cloud):
        different.append("cloud")
    if wishes.max_minutes is not None and _ends_before(pod, run.clock.unix_s() + wishes.max_minutes * 60):
        different.append(f"deadline ({pod.env[DEADLINE]})")
    if different:
        raise ConflictError(
            f"pod {pod.id} differs from what is wanted now in {', '.join(different)}; nothing was changed",
            hint=REPLACE_HINT,
        )
    record = {**(run.state.read("pod") or {}), "pod_id": pod.id, "status": pod.status, "cost_per_hour": pod.cost}
    return {"pod": record, "readiness": None, "refused": [], "reused": True, "replaced": None}


def _ends_before(pod: Pod, wanted_s: float) -> bool:
    """True if the pod stops itself more than a few minutes before it was wanted to."""
    ends_s = deadline_s(pod.env)
    return ends_s is not None and ends_s < wanted_s - DEADLINE_SLACK_S
