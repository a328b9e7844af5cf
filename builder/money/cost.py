"""What was spent: by our own diary and RunPod's list of pods, and, to reconcile the two, by RunPod's bill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, NotFoundError
from builder.money.cost_history import History, history_of_pod, read_histories
from builder.money.orphans import deadline_s
from builder.money.prices import RUNNING_STATUSES, Rate, dollars, pod_rate
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import BillingRecord, Pod
    from builder.runtime import Runtime

__all__ = ["CostReport", "CostRow", "cost_report", "cost_rows", "show_costs"]

DAY_S = 86_400
NO_STOP = "no stop on record: at most"
FROM_API = "by RunPod's list: its last start only"
UNKNOWN = "not in the diary"


@dataclass(frozen=True)
class CostRow:
    """One pod; money in $. `estimate` is ours, `billed` RunPod's; None: not known, or not asked for."""

    pod_id: str
    name: str
    status: str
    per_hour: float
    estimate: float | None
    billed: float | None = None
    note: str = ""

    @property
    def difference(self) -> float | None:
        """What the bill is above the estimate."""
        return None if self.estimate is None or self.billed is None else self.billed - self.estimate

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "pod_id": self.pod_id,
            "name": self.name,
            "status": self.status,
            "cost_per_hour": round(self.per_hour, 6),
            "estimate": _rounded(self.estimate),
            "billed": _rounded(self.billed),
            "difference": _rounded(self.difference),
            "note": self.note,
        }


@dataclass(frozen=True)
class CostReport:
    """Costs from `start_s` to `end_s`, what runs on now, and the account's credit if RunPod tells."""

    start_s: float
    end_s: float
    rows: tuple[CostRow, ...]
    burn: Rate
    is_reconciled: bool
    credit: float | None
    spend_per_h: float | None
    notes: tuple[str, ...]

    @property
    def hours_left(self) -> float | None:
        """How long the credit lasts at the present spending; None if nothing is spent, or not known."""
        rate = self.spend_per_h or self.burn.per_hour
        return None if self.credit is None or rate <= 0 else self.credit / rate

    def total(self, field: str) -> float:
        """Sum of `estimate` or `billed`, where known."""
        return sum(getattr(row, field) or 0.0 for row in self.rows)

    def document(self) -> dict[str, Any]:
        """For --json."""
        billed = self.total("billed") if self.is_reconciled else None
        return {
            "start": iso_time(self.start_s),
            "end": iso_time(self.end_s),
            "pods": [row.document() for row in self.rows],
            "totals": {
                "estimate": _rounded(self.total("estimate")),
                "billed": _rounded(billed),
                "difference": None if billed is None else _rounded(billed - self.total("estimate")),
            },
            "burn": {
                "per_hour": round(self.burn.per_hour, 6),
                "per_day": _rounded(self.burn.per_day),
                "per_month": _rounded(self.burn.per_month),
            },
            "credit": self.credit,
            "spend_per_hour": self.spend_per_h,
            "hours_left": None if self.hours_left is None else round(self.hours_left, 1),
            "notes": list(self.notes),
        }


def cost_rows(
    histories: Mapping[str, History],
    pods: Sequence[Pod],
    bills: Sequence[BillingRecord] | None,
    *,
    start_s: float,
    end_s: float,
) -> list[CostRow]:
    """A row per pod of the diary, of the list, or of the bill (None: not asked for); the dearest first. Pure."""
    listed = {pod.id: pod for pod in pods}
    billed: dict[str, float] = {}
    for bill in bills or ():
        billed[bill.pod_id] = billed.get(bill.pod_id, 0.0) + bill.total_amount
    rows = []
    for pod_id in dict.fromkeys((*listed, *histories, *billed)):
        pod = listed.get(pod_id)
        history, note = _history(pod_id, pod, histories)
        estimate = None if history is None else history.cost(start_s, end_s)
        is_over = pod is None or pod.status == "TERMINATED"
        if is_over and not estimate and not billed.get(pod_id):
            continue
        rows.append(
            CostRow(
                pod_id=pod_id,
                name=pod.name if pod else history.name if history else "",
                status=pod.status if pod else "GONE",
                per_hour=0.0 if pod is None else pod_rate(pod).per_hour,
                estimate=estimate,
                billed=None if bills is None else billed.get(pod_id, 0.0),
                note=note,
            )
        )
    return sorted(rows, key=lambda row: (-max(row.estimate or 0.0, row.billed or 0.0), row.pod_id))


def _history(pod_id: str, pod: Pod | None, histories: Mapping[str, History]) -> tuple[History | None, str]:
    """The pod's history as far as it is known, and what is to be said about it."""
    history = histories.get(pod_id)
    if history is None:
        alone = history_of_pod(pod) if pod else None
        return alone, FROM_API if alone else UNKNOWN
    if not history.seems_running or (pod is not None and pod.status in (*RUNNING_STATUSES, "ERROR")):
        return history, ""
    # It stopped without us. If it had a deadline, it stopped by then.
    end_s = deadline_s(pod.env) if pod else None
    return (history if end_s is None else history.ended_by(end_s)), NO_STOP


def cost_report(run: Runtime, *, days: int, pod_id: str | None = None, reconcile: bool = False) -> CostReport:
    """Costs of the last `days` days, today included (days are UTC's, as on the bill).

    Raises NotFoundError for a pod that nobody knows, and what the API raises.
    """
    now_s = run.clock.unix_s()
    start_s = now_s // DAY_S * DAY_S - (days - 1) * DAY_S
    pods = run.api.list_pods()
    bills = None
    if reconcile:
        start, end = (datetime.fromtimestamp(each, timezone.utc) for each in (start_s, now_s))
        bills = run.api.pod_billing(start=start, end=end, pod_id=pod_id)
    rows = cost_rows(read_histories(run.state.events(), pods), pods, bills, start_s=start_s, end_s=now_s)
    if pod_id is not None:
        rows = [row for row in rows if row.pod_id == pod_id]
        if not rows:
            raise NotFoundError(f"no costs of pod {pod_id} in the last {days} days", hint="give more --days")
    burn = Rate(
        sum(pod_rate(pod).machine_per_h or 0.0 for pod in pods), sum(pod_rate(pod).storage_per_h for pod in pods)
    )
    credit, spend_per_h, notes = _balance(run)
    return CostReport(start_s, now_s, tuple(rows), burn, reconcile, credit, spend_per_h, notes)


def _balance(run: Runtime) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Credit, $/h of the account, notes."""
    try:
        balance = run.graphql.balance()
    except BuilderError as error:
        # The costs are known without it.
        return None, None, (f"the balance is not known: {error}",)
    return balance.credit, balance.spend_per_h, ()


def show_costs(run: Runtime, report: CostReport) -> None:
    """Print a report."""
    console = run.console
    since = f"since {iso_time(report.start_s)[:10]}"
    if report.rows:
        columns = (
            "pod",
            "name",
            "status",
            "$/h>",
            "estimate>",
            *(("billed>", "difference>") * report.is_reconciled),
            "",
        )
        console.table(columns, [_cells(row, report.is_reconciled) for row in report.rows])
        line = f"Estimate {since}: {dollars(report.total('estimate'))}"
        if report.is_reconciled:
            difference = report.total("billed") - report.total("estimate")
            line += f"; billed {dollars(report.total('billed'))}, a difference of {dollars(difference)}"
        console.line(line)
    else:
        console.line(f"No costs of pods {since}.")
    burn = report.burn
    console.line(f"Pods now: {dollars(burn.per_hour)}/h, {dollars(burn.per_day)}/day, {dollars(burn.per_month)}/month")
    if report.credit is not None:
        left = "" if report.hours_left is None else f", enough for {report.hours_left:.0f} h"
        console.line(f"Credit: {dollars(report.credit)}{left}")
    for note in report.notes:
        console.note(note)


def _cells(row: CostRow, is_reconciled: bool) -> tuple[object, ...]:
    amounts = (row.estimate, row.billed, row.difference) if is_reconciled else (row.estimate,)
    shown = tuple(None if each is None else dollars(each) for each in amounts)
    return (row.pod_id, row.name, row.status, dollars(row.per_hour), *shown, row.note)


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 4)
