"""Creates a pod exactly once, over an API that has no key for that.

A create whose answer is lost, or that fails with 5xx, may have happened all the same. So every pod gets a name that
nobody else has, `pending.json` holds it before the request leaves, and after such a failure the pods of that name are
looked for, for a while, since lists lag behind; one that is found is adopted, and only else it is tried again. What
comes to light later is a double: `sweep` ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.deploy.pod_spec import BUILDER_ID
from builder.errors import BadAnswerError, BuilderError, ConflictError, NetworkError, NotFoundError, ServerFaultError
from builder.instants import unix_s_of
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import Pod, PodSpec
    from builder.runtime import Runtime

__all__ = [
    "CREATE_OVER_S",
    "DOUBTFUL",
    "LAST_LOOKS_S",
    "LOOKS_S",
    "Swept",
    "create_once",
    "delete_surely",
    "find_pod",
    "our_pods",
    "still_pending",
    "sweep",
    "unique_name",
]

LOOKS_S = (0.5, 1.5, 3.0, 5.0)
"""Pauses between looks for a pod that may exist: ten seconds in all."""
LAST_LOOKS_S = (10.0, 10.0)
"""More of them once a deploy is done and a double may yet show: nobody waits for it but whoever pays."""
MAX_TRIES = 3
"""Creates of one candidate while the API fails."""
CREATE_OVER_S = 600.0
"""A create that began so long ago and has left no pod in the list has made none, and makes none any more."""
_NAME_BYTES = 3
_ENDED = ("TERMINATED",)
DOUBTFUL = (NetworkError, BadAnswerError, ServerFaultError)
"""Failures after which a pod may exist; a lost answer (AmbiguousError) is a NetworkError."""


@dataclass(frozen=True)
class Swept:
    """Pods that were ended, and those that could not be, with the reason."""

    ended: tuple[str, ...]
    left: Mapping[str, str]


def unique_name(prefix: str, now_s: float) -> str:
    """`prefix-MMDD-xxxxxx`: nobody else's."""
    return f"{prefix}-{iso_time(now_s)[5:10].replace('-', '')}-{secrets.token_hex(_NAME_BYTES)}"


def create_once(run: Runtime, spec: PodSpec, send: Callable[[PodSpec], Pod] | None = None) -> Pod:
    """The one pod of this spec; `send` makes one attempt (default: the REST API).

    `spec.name` must be nobody else's. It stays in `pending.json` until the caller has recorded the pod and calls
    `end_pending`. Raises what the attempt raises; the name is then forgotten only if there is certainly no pod.
    """
    send = send or run.api.create_pod
    # An earlier candidate of the same deploy may have left it in doubt.
    was_pending = spec.name in run.state.pending()
    run.state.begin_pending(spec.name, run.clock.unix_s())
    for left in reversed(range(MAX_TRIES)):
        try:
            return send(spec)
        except DOUBTFUL as error:
            run.console.note(f"{error}; looking for {spec.name}")
            found = _look(run, spec)
            if found:
                return found[0]
            if not left:
                raise
        except BuilderError:
            # Refused, but an earlier attempt in doubt may yet show: then the name stays.
            if left == MAX_TRIES - 1 and not was_pending:
                run.state.end_pending(spec.name)
            raise
    raise AssertionError("the last try returns or raises")  # pragma: no cover


def our_pods(run: Runtime, name: str, builder_id: str | None = None) -> list[Pod]:
    """Pods of this deploy that are not ended, the first made first. Raises what the API raises."""
    found = [
        pod
        for pod in run.api.list_pods()
        if pod.status not in _ENDED and (pod.name == name or (builder_id and pod.env.get(BUILDER_ID) == builder_id))
    ]
    return sorted(found, key=lambda pod: (pod.created_at is None, str(pod.created_at), pod.id))


def sweep(
    run: Runtime, name: str, builder_id: str | None, *, keep: str | None = None, is_patient: bool = False
) -> Swept:
    """End every pod of this deploy but `keep`, and see that they are gone.

    `is_patient`: look again for ten seconds (thirty beside one that is kept), for those that the list does not show
    yet. Raises what listing raises.
    """
    ended: dict[str, None] = {}
    left: dict[str, str] = {}
    looks_s = (*LOOKS_S, *(LAST_LOOKS_S if keep else ())) if is_patient else ()
    for pause_s in (0.0, *looks_s):
        if pause_s:
            run.clock.sleep(pause_s)
        for pod in our_pods(run, name, builder_id):
            if pod.id == keep or pod.id in ended:
                continue
            try:
                delete_surely(run, pod.id)
                ended[pod.id] = None
                left.pop(pod.id, None)
            except BuilderError as error:
                left[pod.id] = str(error)
    return Swept(tuple(ended), left)


def delete_surely(run: Runtime, pod_id: str) -> None:
    """End a pod, and look until it is gone.

    Raises what the API raises, but no NotFoundError; ConflictError if it stays.
    """
    try:
        run.api.delete_pod(pod_id)
        _until_gone(run, pod_id)
    except NotFoundError as error:
        # What finds nothing at all, not even the list, has not told that the pod is gone.
        raise BadAnswerError(f"whether pod {pod_id} is gone is not known: {error}", hint=error.hint) from None
    run.state.event(run.clock.unix_s(), "terminated", "pod", pod_id)


def find_pod(run: Runtime, pod_id: str) -> Pod | None:
    """The pod, or None if it is ended: a 404 is believed only if the list agrees. Raises what the API raises."""
    try:
        pod = run.api.get_pod(pod_id)
    except NotFoundError:
        listed = [each for each in run.api.list_pods() if each.id == pod_id]
        if not listed:
            return None
        pod = listed[0]
    return None if pod.status in _ENDED else pod


def still_pending(run: Runtime, pods: Iterable[Pod]) -> dict[str, str]:
    """Names of pods that a create may have left or may yet make, with the time it began.

    `pods`: all that the API lists. Names whose create is over (CREATE_OVER_S) are forgotten; the recorded pod's name
    stays so long, too, since a double of it may show.
    """
    recorded = (run.state.read("pod") or {}).get("pod_id")
    seen = {pod.name for pod in pods if pod.status not in _ENDED and pod.id != recorded}
    now_s = run.clock.unix_s()
    left: dict[str, str] = {}
    for name, began in run.state.pending().items():
        began_s = unix_s_of(began)
        if name in seen or began_s is None or now_s - began_s <= CREATE_OVER_S:
            left[name] = began
            continue
        # On a disk that is full it stays, and is looked for again.
        with suppress(BuilderError):
            run.state.end_pending(name)
    return left


def _until_gone(run: Runtime, pod_id: str) -> None:
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        if find_pod(run, pod_id) is None:
            return
    raise ConflictError(f"pod {pod_id} was ended, and the API still shows it")


def _look(run: Runtime, spec: PodSpec) -> list[Pod]:
    """Pods that an attempt in doubt made. Raises what listing raises: then it stays in doubt."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        found = our_pods(run, spec.name, spec.env.get(BUILDER_ID))
        if found:
            return found
    return []
