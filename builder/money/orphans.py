"""Pods and network volumes: what the account pays for them, and what of it nobody remembers.

Pure: answers of the API and recorded state in, rows out. A pod is an orphan if it is ours (it has a BUILDER_ID) and
not recorded here, or runs and is not the present one, if its creation was begun and never finished, if it runs past
its own deadline, if it was terminated and is still there, if it is stopped and pays for its disk, or if it is recorded
and gone.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from builder.errors import BuilderError
from builder.instants import duration_text, unix_s_of
from builder.money.prices import RUNNING_STATUSES, Rate, network_volume_rate, pod_rate
from builder.money.rows import Kind, Row

if TYPE_CHECKING:
    from builder.api.models import NetworkVolume, Pod

__all__ = ["ODD", "Records", "deadline_s", "find_rows", "read_records", "rows_of"]

T = TypeVar("T")
ODD = (BuilderError, ArithmeticError, AttributeError, TypeError, ValueError)
"""What becomes of one odd thing of the account; it must not hide the others, which are paid for."""
FORGETTING = ("terminated", "deleted")
"""Actions in the diary after which a pod must be gone."""


@dataclass(frozen=True)
class Records:
    """What this folder remembers: ids of pods it knew, those it terminated, the present pod, names begun."""

    known_ids: frozenset[str] = frozenset()
    terminated_ids: frozenset[str] = frozenset()
    current_id: str | None = None
    current_name: str = ""
    pending: Mapping[str, str] = field(default_factory=dict)


def read_records(
    current: Mapping[str, Any] | None, pending: Mapping[str, str], events: Iterable[Mapping[str, Any]]
) -> Records:
    """Records out of `pod.json`, `pending.json` and the diary."""
    known, terminated = set(), set()
    for event in events:
        if event.get("type") != "pod":
            continue
        pod_id, action = str(event.get("resource_id", "")), event.get("action")
        known.add(pod_id)
        if action in FORGETTING:
            terminated.add(pod_id)
        elif action in ("created", "adopted", "started"):
            terminated.discard(pod_id)
    current_id = str((current or {}).get("pod_id") or "") or None
    if current_id:
        known.add(current_id)
    name = str((current or {}).get("pod_name") or "")
    return Records(frozenset(known), frozenset(terminated), current_id, name, dict(pending))


def deadline_s(env: Mapping[str, str]) -> float | None:
    """The pod's own POD_DEADLINE as seconds since 1970; None if it has none that can be read."""
    return unix_s_of(env.get("POD_DEADLINE"))


def find_rows(
    *,
    pods: Sequence[Pod],
    volumes: Sequence[NetworkVolume],
    records: Records,
    api_base: str,
    now_s: float,
) -> list[Row]:
    """A row for every pod and network volume, and for a pod that is recorded and gone.

    `api_base` is the address of REST v2, for commands of what no verb ends.
    """
    alive = [pod for pod in pods if pod.status != "TERMINATED"]
    rows = rows_of("pod", alive, lambda pod: _pod_row(pod, records, now_s))
    rows += rows_of("network volume", volumes, lambda each: _volume_row(each, api_base))
    return rows + _gone_rows(pods, records)


def rows_of(kind: Kind, things: Iterable[T], row_of: Callable[[T], Row | None]) -> list[Row]:
    """`row_of` each thing that has one; an odd thing gets a row that says so, at a price that is not known."""
    rows = []
    for each in things:
        try:
            row = row_of(each)
        except ODD as error:
            thing_id, name = str(getattr(each, "id", "?")), str(getattr(each, "name", ""))
            command = _terminate(thing_id) if kind == "pod" else f"see the console of {_provider(kind)}"
            row = Row(kind, thing_id, name, "?", Rate(None, 0.0), command, notes=(f"cannot be judged: {error}",))
        if row is not None:
            rows.append(row)
    return rows


def _provider(kind: Kind) -> str:
    return "AWS" if kind.startswith("ec2") else "RunPod"


def _pod_row(pod: Pod, records: Records, now_s: float) -> Row:
    is_ours = "BUILDER_ID" in pod.env
    notes: tuple[str, ...] = () if is_ours else ("not made by the builder",)
    if pod.locked:
        notes += ("locked: unlock it in RunPod's console first",)
    return Row(
        kind="pod",
        id=pod.id,
        name=pod.name,
        status=pod.status,
        rate=pod_rate(pod),
        command=_terminate(pod.id),
        is_ours=is_ours,
        reasons=tuple(_pod_reasons(pod, records, now_s)),
        notes=notes,
        since_s=_since_s(pod),
    )


def _since_s(pod: Pod) -> float | None:
    since = pod.started_at or pod.created_at
    return None if since is None else since.timestamp()


def _pod_reasons(pod: Pod, records: Records, now_s: float) -> Iterable[str]:
    is_present = pod.id == records.current_id
    if pod.name in records.pending and not is_present:
        yield f"its creation was begun at {records.pending[pod.name]} and never finished"
    elif "BUILDER_ID" in pod.env and pod.id not in records.known_ids:
        yield "made by the builder, but not recorded here"
    elif "BUILDER_ID" in pod.env and not is_present and pod.status != "EXITED":
        yield "made from here, but not the present pod: no deploy and no verb without an id ends it"
    if pod.id in records.terminated_ids:
        yield "terminated by the builder, and still there"
    end_s = deadline_s(pod.env)
    if end_s is not None and end_s < now_s and pod.status in RUNNING_STATUSES:
        yield f"runs {duration_text(now_s - end_s)} past its deadline"
    if pod.status == "EXITED" and pod.volume_gb > 0:
        yield f"stopped, and pays for its disk of {pod.volume_gb} GB"


def _volume_row(volume: NetworkVolume, api_base: str) -> Row:
    return Row(
        kind="network volume",
        id=volume.id,
        name=volume.name,
        status=f"{volume.size} GB",
        rate=network_volume_rate(volume),
        command=_curl("DELETE", f"{api_base}/network-volumes/{volume.id}"),
        notes=("its files are lost with it",),
    )


def _gone_rows(pods: Sequence[Pod], records: Records) -> list[Row]:
    alive = {pod.id for pod in pods if pod.status != "TERMINATED"}
    if records.current_id is None or records.current_id in alive:
        return []
    reason = ("recorded here, and gone",)
    command = _terminate(records.current_id)
    return [Row("pod", records.current_id, records.current_name, "GONE", Rate(0.0, 0.0), command, True, reason)]


def _terminate(pod_id: str) -> str:
    return f"python -m builder terminate {shlex.quote(pod_id)}"


def _curl(method: str, url: str) -> str:
    """A command without a verb of ours; the key goes by a pipe, so that no list of processes shows it."""
    return f'echo "Authorization: Bearer $RUNPOD_API_KEY" | curl -sS -H @- -X {method} {shlex.quote(url)}'
