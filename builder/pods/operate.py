"""Starting, stopping, restarting and ending pods, with what each costs and may lose said and its outcome seen.

Facts of RunPod this is built around: a stopped pod keeps its host and its volume disk, pays for the disk, and starts
again on that host only, if a GPU is free there; its environment, with the deadline in it, is what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from builder.deploy.create import delete_surely, find_pod, still_pending
from builder.deploy.plan import check_price
from builder.deploy.pod_spec import BUILDER_ID, DEADLINE
from builder.errors import (
    AmbiguousError,
    BudgetError,
    BuilderError,
    CapacityError,
    ConflictError,
    NotFoundError,
    UsageError,
    WaitTimeoutError,
)
from builder.instants import duration_text
from builder.money.orphans import deadline_s
from builder.pods.pods import forget, recorded, remember, storage_per_month
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import Cloud, Pod
    from builder.runtime import Runtime

__all__ = ["new_deadline", "our_pod_ids", "restart_pod", "start_pod", "stop_pod", "terminate_pods"]

NEAR_S = 600.0
"""A pod whose deadline is closer than this would stop before it served anybody."""
STOP_LIMIT_S, LOOK_EVERY_S = 60.0, 2.0
UP = ("PROVISIONING", "STARTING", "RUNNING")
UNLOCK = "unlock it first, in RunPod's console (the pod's menu, Unlock pod)"


def new_deadline(pod: Pod, now_s: float, minutes: int | None, *, is_asked: bool) -> str | None:
    """The POD_DEADLINE that a start must set; None: what the pod has will do.

    `minutes`: how long it may run, `is_asked`: by an option, not by a setting. Raises BudgetError if the pod would
    stop itself at once and nobody said for how long it may run now.
    """
    ends_s = deadline_s(pod.env)
    is_near = ends_s is not None and ends_s - now_s < NEAR_S
    if minutes is None:
        if is_near and ends_s is not None:
            passed = "passed" if ends_s <= now_s else "is near"
            raise BudgetError(
                f"pod {pod.id} would stop itself: its deadline {iso_time(ends_s)} {passed}",
                hint="say for how long it may run: python -m builder start --max-minutes N",
            )
        return None
    return iso_time(now_s + minutes * 60) if is_asked or is_near or ends_s is None else None


def start_pod(run: Runtime, pod_id: str, max_minutes: int | None) -> dict[str, Any]:
    """Start a stopped pod; one that is up already is left alone.

    Raises CapacityError if its host has no GPU free, BudgetError if its deadline or its price forbids it.
    """
    pod = run.api.get_pod(pod_id)
    if pod.status in UP:
        run.console.note(f"pod {pod_id} is {pod.status} already")
        return _document(pod, "none")
    if pod.status == "TERMINATED":
        raise NotFoundError(f"pod {pod_id} was terminated", hint="deploy again: python -m builder deploy")
    deadline = _deadline_for(run, pod, max_minutes)
    run.console.note("a stopped pod starts on its old host only; if no GPU is free there: deploy --replace")
    started = _start(run, pod, deadline)
    run.state.event(run.clock.unix_s(), "started", "pod", pod_id, deadline=deadline)
    return {**_document(started, "start"), "deadline": deadline or pod.env.get(DEADLINE)}


def restart_pod(run: Runtime, pod_id: str, max_minutes: int | None, *, is_hard: bool) -> dict[str, Any]:
    """Restart the container in place, or (`is_hard`) stop the pod and start it again.

    Raises ConflictError if it does not run; for a hard one what `start_pod` raises, the pod may then be stopped.
    """
    pod = run.api.get_pod(pod_id)
    if pod.status != "RUNNING":
        raise ConflictError(f"pod {pod_id} is {pod.status}: only a running one is restarted", hint=_next_step(pod))
    if not is_hard:
        with _says_if_locked(pod):
            after = run.api.act(pod_id, "restart")
        run.state.event(run.clock.unix_s(), "restarted", "pod", pod_id)
        return _document(after, "restart")
    # Before anything is stopped: a start that will be refused must not leave the pod down.
    deadline = _deadline_for(run, pod, max_minutes)
    run.console.warn("a hard restart gives the GPU back; if somebody else takes it, the pod cannot start here again")
    stop_pod(run, pod_id)
    started = _start(run, pod, deadline)
    run.state.event(run.clock.unix_s(), "restarted", "pod", pod_id, hard=True, deadline=deadline)
    return {**_document(started, "restart"), "deadline": deadline or pod.env.get(DEADLINE)}


def stop_pod(run: Runtime, pod_id: str) -> dict[str, Any]:
    """Stop a pod and see that it is stopped; the document tells what its disk still costs.

    Raises ConflictError if it is locked, WaitTimeoutError if it still runs after STOP_LIMIT_S.
    """
    pod = find_pod(run, pod_id)
    if pod is None:
        raise NotFoundError(f"there is no pod {pod_id}, or it was terminated")
    if pod.status != "EXITED":
        with _says_if_locked(pod):
            run.api.act(pod_id, "stop")
        pod = _until_stopped(run, pod_id)
        run.state.event(run.clock.unix_s(), "stopped", "pod", pod_id)
    remember(run, pod_id, status="EXITED")
    return {**_document(pod, "stop"), "storage_per_month": round(storage_per_month(pod), 2), "volume_gb": pod.volume_gb}


def our_pod_ids(run: Runtime) -> list[str]:
    """Every pod of the account that a builder made and that is not ended."""
    return [pod.id for pod in run.api.list_pods() if BUILDER_ID in pod.env and pod.status != "TERMINATED"]


def terminate_pods(run: Runtime, pod_ids: Sequence[str], *, yes: bool) -> dict[str, Any]:
    """End pods for good, after a question that names them, and see that they are gone.

    A pod that is gone already is only forgotten, if it was recorded. Raises NotFoundError if a pod that was never
    recorded is not there; UsageError if not confirmed; after trying all, the error if some could not be ended.
    """
    failures: dict[str, BuilderError] = {}
    pods, gone = _split(run, list(dict.fromkeys(pod_ids)), failures)
    if pods:
        run.console.confirm(f"Terminate {_named(pods)}? Disks in it are deleted.", yes=yes)
    ended: list[str] = []
    for pod in pods:
        try:
            if pod.locked:
                raise ConflictError(f"pod {pod.id} ({pod.name}) is locked and was left alone", hint=UNLOCK)
            delete_surely(run, pod.id)
            ended.append(pod.id)
            run.console.note(f"pod {pod.id} ({pod.name}) is gone")
            forget(run, pod.id)
        except BuilderError as error:
            failures[pod.id] = error
    _forget_names(run)
    _raise_failures(failures, ended)
    return {"terminated": ended, "gone": gone}


def _split(run: Runtime, pod_ids: list[str], failures: dict[str, BuilderError]) -> tuple[list[Pod], list[str]]:
    """Pods to end, and ids of recorded ones that are gone; what cannot be told of a pod goes into `failures`."""
    pods: list[Pod] = []
    gone: list[str] = []
    listed: dict[str, Pod] = {}
    with suppress(BuilderError):
        # Those that it shows need no look of their own; without it each is looked for.
        listed = {pod.id: pod for pod in run.api.list_pods()}
    for pod_id in pod_ids:
        try:
            pod = listed.get(pod_id) or find_pod(run, pod_id)
            if pod is not None and pod.status != "TERMINATED":
                pods.append(pod)
            elif forget(run, pod_id) or pod is not None:
                gone.append(pod_id)
            else:
                raise NotFoundError(f"there is no pod {pod_id}")
        except BuilderError as error:
            failures[pod_id] = error
    return pods, gone


def _forget_names(run: Runtime) -> None:
    """Forget names of creates that are over."""
    if run.state.pending():
        with suppress(BuilderError):
            still_pending(run, run.api.list_pods())


def _raise_failures(failures: dict[str, BuilderError], ended: list[str]) -> None:
    if not failures:
        return
    first = next(iter(failures.values()))
    if len(failures) == 1 and not ended:
        raise first
    done = f"; ended: {', '.join(ended)}" if ended else ""
    raise type(first)("; ".join(str(error) for error in failures.values()) + done, hint=first.hint)


def _deadline_for(run: Runtime, pod: Pod, max_minutes: int | None) -> str | None:
    minutes = run.settings.max_minutes if max_minutes is None else max_minutes
    return new_deadline(pod, run.clock.unix_s(), minutes, is_asked=max_minutes is not None)


def _start(run: Runtime, pod: Pod, deadline: str | None) -> Pod:
    """Renew the deadline, start, record. The API replaces the whole environment, so all of it is sent."""
    is_spot = bool((recorded(run, pod.id) or {}).get("is_spot"))
    bid = _bid(run, pod) if is_spot else None
    if deadline is not None:
        run.api.update_pod(pod.id, {"env": {**pod.env, DEADLINE: deadline}})
    try:
        started = run.api.act(pod.id, "start") if bid is None else _resume_spot(run, pod, bid)
    except CapacityError as error:
        raise CapacityError(
            f"pod {pod.id} cannot start: no GPU is free on its host, and its disk is there",
            hint="try later, or get another host, without what is on the disk: python -m builder deploy --replace",
            status=error.status,
            request_id=error.request_id,
        ) from None
    changes: dict[str, Any] = {"status": started.status}
    if deadline is not None:
        changes["deadline"] = deadline
    remember(run, pod.id, **changes)
    _refuse_dear(run, started)
    if pod.gpu is not None and (started.gpu is None or started.gpu.count < 1):
        run.console.warn(
            f"pod {pod.id} started without a GPU and costs money; end it: python -m builder deploy --replace"
        )
    return started


def _refuse_dear(run: Runtime, started: Pod) -> None:
    """Stop a pod again that costs more than the setting allows. Raises BudgetError then."""
    limit = run.settings.max_price
    try:
        check_price(started.cost, limit, f"pod {started.id}")
    except BudgetError as error:
        try:
            stop_pod(run, started.id)
        except BuilderError as failure:
            raise BudgetError(
                f"{error}; it could not be stopped again and is billed: {failure}",
                hint=f"end it: python -m builder terminate {started.id}",
            ) from None
        raise BudgetError(f"{error}; it was stopped again", hint="raise BUILDER_MAX_PRICE") from None


def _resume_spot(run: Runtime, pod: Pod, bid: float) -> Pod:
    """Start at `bid`; after a lost answer the pod itself tells whether it happened."""
    try:
        run.graphql.resume_spot(pod.id, bid, pod.gpu.count if pod.gpu else 1)
    except AmbiguousError:
        seen = run.api.get_pod(pod.id)
        if seen.status not in UP:
            raise
        return seen
    return run.api.get_pod(pod.id)


def _bid(run: Runtime, pod: Pod) -> float:
    """$/h and GPU to offer for a spot pod. Raises CapacityError, BudgetError."""
    if pod.gpu is None:
        raise UsageError(f"pod {pod.id} has no GPU to bid for")
    cloud: Cloud = "COMMUNITY" if pod.cloud == "COMMUNITY" else "SECURE"
    bid = run.graphql.spot_price(pod.gpu.id, cloud, pod.gpu.count)
    if bid is None:
        raise CapacityError(f"no {pod.gpu.id} is for rent as spot at present")
    limit = run.settings.max_price
    if limit is not None and bid * pod.gpu.count > limit:
        raise BudgetError(f"the lowest bid, ${bid * pod.gpu.count:.2f}/h, is above the limit of ${limit:.2f}/h")
    return bid


def _until_stopped(run: Runtime, pod_id: str) -> Pod:
    began_s = run.clock.monotonic_s()
    while True:
        pod = run.api.get_pod(pod_id)
        if pod.status in ("EXITED", "TERMINATED"):
            return pod
        if run.clock.monotonic_s() - began_s >= STOP_LIMIT_S:
            raise WaitTimeoutError(
                f"pod {pod_id} was told to stop and is {pod.status} after {duration_text(STOP_LIMIT_S)}: it is billed",
                hint="look again: python -m builder status; end it: python -m builder terminate",
            )
        run.clock.sleep(LOOK_EVERY_S)


@contextmanager
def _says_if_locked(pod: Pod) -> Iterator[None]:
    """Names the lock as the reason of a refusal, if the pod has one."""
    try:
        yield
    except ConflictError as error:
        if not pod.locked:
            raise
        raise ConflictError(f"pod {pod.id} ({pod.name}) is locked", hint=UNLOCK, status=error.status) from None


def _document(pod: Pod, action: str) -> dict[str, Any]:
    return {"pod_id": pod.id, "name": pod.name, "action": action, "status": pod.status, "cost_per_hour": pod.cost}


def _named(pods: Sequence[Pod]) -> str:
    return ", ".join(f"{pod.name} ({pod.id}, {pod.status})" for pod in pods)


def _next_step(pod: Pod) -> str:
    return "start it: python -m builder start" if pod.status in ("EXITED", "ERROR") else "see python -m builder status"
