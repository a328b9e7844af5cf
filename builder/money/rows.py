"""One row per thing that is paid for or forgotten, and their sums. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from builder.money.prices import Rate

__all__ = ["Kind", "Row", "Totals", "totals"]

Kind = Literal[
    "pod", "endpoint", "template", "network volume", "ec2 instance", "security group", "key pair", "ec2 volume"
]


@dataclass(frozen=True)
class Row:
    """One thing that is paid for or forgotten; `reasons` say why it is an orphan, `command` ends its cost.

    `since_s` is since when it is there or runs, in seconds since 1970; None: not known. `n_machines`: how many run if
    any is paid for.
    """

    kind: Kind
    id: str
    name: str
    status: str
    rate: Rate
    command: str
    is_ours: bool = False
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    since_s: float | None = None
    n_machines: int = 1

    @property
    def is_running(self) -> bool:
        """True if a machine is paid for by the hour, or may be: its price is not known."""
        return self.rate.machine_per_h is None or self.rate.machine_per_h > 0

    def document(self) -> dict[str, Any]:
        """For --json; money in $, `cost_known` false where the sums are too low."""
        from builder.state import iso_time

        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "since": None if self.since_s is None else iso_time(self.since_s),
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


def totals(rows: Iterable[Row]) -> Totals:
    """The sums."""
    rows = list(rows)
    machine_per_h = sum(row.rate.machine_per_h or 0.0 for row in rows)
    storage_per_h = sum(row.rate.storage_per_h for row in rows)
    return Totals(
        Rate(machine_per_h, storage_per_h),
        n_running=sum(row.n_machines for row in rows if row.is_running),
        n_orphans=sum(bool(row.reasons) for row in rows),
        is_complete=all(row.rate.is_known for row in rows),
    )
