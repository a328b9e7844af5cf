"""What the account pays for, and what of it nobody remembers: one row per pod, endpoint and network volume.

Pure: answers of the API and recorded state in, rows out. A pod is an orphan if it is ours (it has a BUILDER_ID) and
not recorded here, or runs and is not the present one, if its creation was begun and never finished, if it runs past
its own deadline, if it was terminated and is still there, if it is stopped and pays for its disk, or if it is recorded
and gone.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from builder.errors import BuilderError
from builder.instants import duration_text, unix_s_of
from builder.money.prices import RUNNING_STATUSES, Rate, endpoint_rate, network_volume_rate, pod_rate

if TYPE_CHECKING:
    from builder.api.models import GpuType, NetworkVolume, Pod
    from builder.api.models_serverless import Endpoint

__all__ = ["ODD", "Records", "Row", "Totals", "deadline_s", "find_rows", "read_records", "totals"]

T = TypeVar("T", "Pod", "Endpoint", "NetworkVolume")
Kind = Literal["pod", "endpoint", "network volume"]
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


@dataclass(frozen=True)
class Row:
    """One thing that is paid for or forgotten; `reasons` say why it is an orphan, `command` ends its cost."""

    kind: Kind
    id: str
    name: str
    status: str
    rate: Rate
    command: str
    is_ours: bool = False
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """True if a machine is paid for by the hour, or may be: its price is not known."""
        return self.rate.machine_per_h is None or self.rate.machine_per_h > 0

    def document(self) -> dict[str, Any]:
        """For --json; money in $, `cost_known` false where the sums are too low."""
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "is_ours": self.is_ours,
            "is_running": self.is_running,
            "is_orphan": bool(self.reasons),
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "cost_per_hour": round(self.rate.per_hour, 6),
            "cost_per_day": round(self.rate.per_day, 4),
            "cost_per_month": round(self.rate.per_month, 4),
            "cost_known": self.rate.is_known,
            "command": self.command,
        }


@dataclass(frozen=True)
class Totals:
    """Sums over rows, in $."""

    rate: Rate
    n_running: int
    n_orphans: int
    is_complete: bool

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "cost_per_hour": round(self.rate.per_hour, 6),
            "cost_per_day": round(self.rate.per_day, 4),
            "cost_per_month": round(self.rate.per_month, 4),
            "running": self.n_running,
            "orphans": self.n_orphans,
            "cost_known": self.is_complete,
        }


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
    endpoints: Sequence[Endpoint],
    volumes: Sequence[NetworkVolume],
    catalog: Sequence[GpuType],
    records: Records,
    api_base: str,
    now_s: float,
) -> list[Row]:
    """A row for everything that costs, for every other pod, and for what is recorded and gone; the dearest first.

    `api_base` is the address of REST v2, for commands of what no verb ends.
    """
    alive = [pod for pod in pods if pod.status != "TERMINATED"]
    rows = _rows_of("pod", alive, lambda pod: _pod_row(pod, records, now_s))
    rows += _rows_of("endpoint", endpoints, lambda each: _endpoint_row(each, catalog, api_base))
    rows += _rows_of("network volume", volumes, lambda each: _volume_row(each, api_base))
    rows.sort(key=lambda row: (-row.rate.per_hour, row.kind, row.name))
    return rows + _gone_rows(pods, records)


def totals(rows: Iterable[Row]) -> Totals:
    """The sums."""
    rows = list(rows)
    machine_per_h = sum(row.rate.machine_per_h or 0.0 for row in rows)
    storage_per_h = sum(row.rate.storage_per_h for row in rows)
    return Totals(
        Rate(machine_per_h, storage_per_h),
        n_running=sum(row.is_running for row in rows),
        n_orphans=sum(bool(row.reasons) for row in rows),
        is_complete=all(row.rate.is_known for row in rows),
    )


def _rows_of(kind: Kind, things: Iterable[T], row_of: Callable[[T], Row | None]) -> list[Row]:
    rows = []
    for each in things:
        try:
            row = row_of(each)
        except ODD as error:
            command = _terminate(each.id) if kind == "pod" else "see RunPod's console"
            row = Row(kind, each.id, each.name, "?", Rate(None, 0.0), command, notes=(f"cannot be judged: {error}",))
        if row is not None:
            rows.append(row)
    return rows


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
    )


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


def _endpoint_row(endpoint: Endpoint, catalog: Sequence[GpuType], api_base: str) -> Row | None:
    n_workers = int(endpoint.workers.get("min") or 0)
    if n_workers == 0:
        return None
    rate = endpoint_rate(endpoint, catalog)
    return Row(
        kind="endpoint",
        id=endpoint.id,
        name=endpoint.name,
        status=f"{n_workers} kept",
        rate=rate,
        command=_curl("PATCH", f"{api_base}/serverless/{endpoint.id}", '{"workers":{"min":0}}'),
        notes=() if rate.is_known else ("price of its workers not known",),
    )


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


def _curl(method: str, url: str, body: str | None = None) -> str:
    """A command without a verb of ours; the key goes by a pipe, so that no list of processes shows it."""
    data = f" -H 'Content-Type: application/json' -d '{body}'" if body else ""
    return f'echo "Authorization: Bearer $RUNPOD_API_KEY" | curl -sS -H @- -X {method}{data} {shlex.quote(url)}'
