"""Everything of the account that costs money, and what of it is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from builder.deploy.create import CREATE_OVER_S, still_pending
from builder.errors import BuilderError
from builder.instants import duration_text
from builder.money.orphans import Row, Totals, find_rows, read_records, totals
from builder.money.prices import dollars

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["Checked", "check_all", "show_checked"]

T = TypeVar("T")
NOTHING = "Nothing is billed (clusters and public endpoints are not looked at)."


@dataclass(frozen=True)
class Checked:
    """What was found; `unseen` names what could not be looked at, and why."""

    rows: tuple[Row, ...]
    totals: Totals
    pending: dict[str, str]
    unseen: dict[str, str]

    @property
    def is_running(self) -> bool:
        """True if a machine is paid for by the hour, or may be, since not all could be seen."""
        return self.totals.n_running > 0 or bool(self.unseen)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "resources": [row.document() for row in self.rows],
            "totals": self.totals.document(),
            "pending": self.pending,
            "unseen": self.unseen,
        }


def check_all(run: Runtime) -> Checked:
    """Look at pods, endpoints and network volumes. Raises what listing the pods raises; what else fails is `unseen`."""
    unseen: dict[str, str] = {}

    def look(what: str, read: Callable[[], list[T]]) -> list[T]:
        try:
            return read()
        except BuilderError as error:
            unseen[what] = str(error)
            return []

    for name in ("pod", "pending"):
        if run.state.is_damaged(name):
            run.console.warn(f"{run.state.folder / name}.json is damaged: what it remembered shows as not recorded")
    pods = run.api.list_pods()
    endpoints = look("endpoints", run.api.endpoints)
    volumes = look("network volumes", run.api.network_volumes)
    # Prices are only needed for workers that are always kept.
    needs_prices = any(each.workers.get("min") for each in endpoints)
    pending = still_pending(run, pods)
    rows = find_rows(
        pods=pods,
        endpoints=endpoints,
        volumes=volumes,
        catalog=look("prices", run.api.gpu_types) if needs_prices else [],
        records=read_records(run.state.read("pod"), pending, run.state.events()),
        api_base=run.settings.api_base.rstrip("/"),
        now_s=run.clock.unix_s(),
    )
    names = {pod.name for pod in pods if pod.status != "TERMINATED"}
    missing = {name: began for name, began in pending.items() if name not in names}
    return Checked(tuple(rows), totals(rows), missing, unseen)


def show_checked(run: Runtime, found: Checked) -> None:
    """Print it."""
    console = run.console
    if found.rows:
        cells = [
            (row.kind, row.id, row.name, row.status, *_costs(row), "; ".join((*row.reasons, *row.notes)))
            for row in found.rows
        ]
        console.table(("what", "id", "name", "status", "$/h>", "$/day>", "$/month>", "remarks"), cells)
        console.line()
    console.line(_sum(found))
    for row in found.rows:
        if row.rate.per_hour > 0 or row.reasons or not row.rate.is_known:
            console.line(
                f"{'End' if row.status != 'GONE' else 'Forget'} {row.kind} {row.name or row.id}: {row.command}"
            )
    for name, began in found.pending.items():
        console.note(
            f"{name}: its creation was begun at {began} and not finished; there is no such pod now. "
            f"Look again: it is certain {duration_text(CREATE_OVER_S)} after it began"
        )
    for what, reason in found.unseen.items():
        console.warn(f"{what} could not be looked at: {reason}")


def _costs(row: Row) -> tuple[str, ...]:
    if not row.rate.is_known:
        return ("?", "?", "?")
    return tuple(dollars(amount) for amount in (row.rate.per_hour, row.rate.per_day, row.rate.per_month))


def _sum(found: Checked) -> str:
    rate, n_orphans = found.totals.rate, found.totals.n_orphans
    if rate.per_hour == 0 and found.totals.is_complete:
        text = "Nothing that was looked at is billed." if found.unseen else NOTHING
    else:
        amounts = f"{dollars(rate.per_hour)}/h, {dollars(rate.per_day)}/day, {dollars(rate.per_month)}/month"
        at_least = "" if found.totals.is_complete else "at least "
        text = f"All together {at_least}{amounts}; machines running: {found.totals.n_running}."
    return f"{text} Forgotten: {n_orphans}, see remarks." if n_orphans else text
