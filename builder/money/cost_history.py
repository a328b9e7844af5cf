"""What pods cost by our own diary: spans of time at constant rates, out of `events.jsonl`.

Pure. The diary knows what the builder did; a pod that stops itself, or is ended in RunPod's console, writes nothing
there, so its last span stays open and what it gives is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.instants import unix_s_of
from builder.money.prices import RUNNING_STATUSES, storage_rate

if TYPE_CHECKING:
    from builder.api.models import Pod

__all__ = ["History", "Span", "history_of_pod", "read_histories"]

BEGINS = ("created", "adopted", "started", "resumed", "restarted")
ENDS = ("terminated", "deleted")
STOPS = "stopped"


@dataclass(frozen=True)
class Span:
    """From `begin_s` to `end_s` (None: it lasts) at `per_hour` $, running or stopped."""

    begin_s: float
    end_s: float | None
    per_hour: float
    is_running: bool

    def cost(self, start_s: float, end_s: float) -> float:
        """$ for the part within [start_s, end_s)."""
        last_s = end_s if self.end_s is None else min(end_s, self.end_s)
        return max(0.0, last_s - max(start_s, self.begin_s)) / 3600 * self.per_hour


@dataclass(frozen=True)
class History:
    """All spans of one pod, the first first."""

    pod_id: str
    name: str
    spans: tuple[Span, ...]

    def cost(self, start_s: float, end_s: float) -> float:
        """$ within [start_s, end_s)."""
        return sum(span.cost(start_s, end_s) for span in self.spans)

    @property
    def seems_running(self) -> bool:
        """True if nothing in it says that the pod does not run any more."""
        return bool(self.spans) and self.spans[-1].end_s is None and self.spans[-1].is_running

    def ended_by(self, end_s: float) -> History:
        """The same, with a last span that ends at `end_s` at the latest."""
        if not self.spans or self.spans[-1].end_s is not None:
            return self
        last = self.spans[-1]
        ended = Span(last.begin_s, max(last.begin_s, end_s), last.per_hour, last.is_running)
        return History(self.pod_id, self.name, (*self.spans[:-1], ended))


class _Writer:
    """Builds one pod's history, event by event."""

    def __init__(self, pod_id: str, pod: Pod | None) -> None:
        self.pod_id = pod_id
        self.name = pod.name if pod else ""
        self._machine_per_h = 0.0
        # Until an event says otherwise; sizes seldom change.
        self._disk_gb, self._volume_gb = (float(pod.disk), float(pod.volume_gb)) if pod else (0.0, 0.0)
        self._spans: list[Span] = []

    def add(self, action: str, at_s: float, details: Mapping[str, Any]) -> None:
        """Take an event; those that change no rate are ignored."""
        self.name = str(details.get("pod_name") or details.get("name") or self.name)
        self._disk_gb = _number(details.get("disk_gb"), self._disk_gb)
        self._volume_gb = _number(details.get("volume_gb"), self._volume_gb)
        if action in BEGINS:
            # A stop's event may say what the pod costs now, which is nothing: only a start sets the price.
            self._machine_per_h = _number(details.get("cost_per_hour"), 0.0) or self._machine_per_h
            self._turn(at_s, is_running=True)
        elif action == STOPS:
            self._turn(at_s, is_running=False)
        elif action in ENDS:
            self._close(at_s)

    def history(self) -> History:
        """What was built."""
        return History(self.pod_id, self.name, tuple(self._spans))

    def _turn(self, at_s: float, *, is_running: bool) -> None:
        self._close(at_s)
        storage_per_h = storage_rate(disk_gb=self._disk_gb, volume_gb=self._volume_gb, is_running=is_running)
        machine_per_h = self._machine_per_h if is_running else 0.0
        self._spans.append(Span(at_s, None, machine_per_h + storage_per_h, is_running))

    def _close(self, at_s: float) -> None:
        if self._spans and self._spans[-1].end_s is None:
            last = self._spans[-1]
            self._spans[-1] = Span(last.begin_s, max(last.begin_s, at_s), last.per_hour, last.is_running)


def read_histories(events: Iterable[Mapping[str, Any]], pods: Iterable[Pod] = ()) -> dict[str, History]:
    """Histories by pod id; events without a time, and those of other things than pods, are left out.

    `pods` are those that RunPod lists: they tell the sizes of disks that events leave out.
    """
    listed = {pod.id: pod for pod in pods}
    writers: dict[str, _Writer] = {}
    for event in events:
        at_s, pod_id = unix_s_of(str(event.get("timestamp", ""))), str(event.get("resource_id") or "")
        if event.get("type") != "pod" or at_s is None or not pod_id:
            continue
        details = event.get("details")
        writer = writers.setdefault(pod_id, _Writer(pod_id, listed.get(pod_id)))
        writer.add(str(event.get("action", "")), at_s, details if isinstance(details, Mapping) else {})
    histories = {pod_id: writer.history() for pod_id, writer in writers.items()}
    return {pod_id: history for pod_id, history in histories.items() if history.spans}


def history_of_pod(pod: Pod) -> History | None:
    """What the API alone tells of a pod that runs: its last start and its price; None if it does not run."""
    began = pod.started_at or pod.created_at
    if began is None or pod.status not in RUNNING_STATUSES:
        return None
    per_hour = pod.cost + storage_rate(disk_gb=pod.disk, volume_gb=pod.volume_gb, is_running=True)
    return History(pod.id, pod.name, (Span(began.timestamp(), None, per_hour, is_running=True),))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default
