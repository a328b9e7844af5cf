"""Everything at RunPod and at EC2 that costs money, and what of it is forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from builder.deploy.create import CREATE_OVER_S, still_pending
from builder.endpoints.chosen import forget_old_names, plain_name
from builder.endpoints.look import read_catalog
from builder.errors import AuthError, BuilderError, NotAvailableError
from builder.instants import duration_text
from builder.money.aws_rows import aws_rows
from builder.money.endpoint_rows import EndpointRecords, endpoint_rows
from builder.money.orphans import ODD, Records, find_rows, read_records
from builder.money.prices import dollars
from builder.money.rows import Row, Totals, totals

if TYPE_CHECKING:
    from builder.api.models import Pod
    from builder.api.models_serverless import Endpoint, Template, Worker
    from builder.runtime import Runtime

__all__ = ["Checked", "check_all", "show_checked"]

T = TypeVar("T")
NOTHING = "Nothing is billed (clusters and public endpoints are not looked at)."
MAX_ENDPOINTS = 50
"""Endpoints whose workers are counted; one question each."""
RECORDS = ("pod", "pending", "endpoint", "pending-endpoints", "pending-templates", "ec2", "pending-ec2")


@dataclass(frozen=True)
class Checked:
    """What was found; `unseen` names what could not be looked at, and why; `left_out` what was not meant to be;
    `pending` what was begun and is not there, or not seen, with the time it began; `problem`: why the pods, which are
    most of it, could not be listed."""

    rows: tuple[Row, ...]
    totals: Totals
    pending: dict[str, str]
    unseen: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    problem: BuilderError | None = None

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
            "left_out": self.left_out,
        }


class _Looks:
    """Readings of which each may fail without the others."""

    def __init__(self) -> None:
        self.unseen: dict[str, str] = {}

    def at(self, what: str, read: Callable[[], list[T]]) -> list[T]:
        try:
            return read()
        except ODD as error:
            self.unseen[what] = str(error)
            return []


def check_all(run: Runtime) -> Checked:
    """Look at pods, endpoints, templates, network volumes and EC2; what fails is `unseen`, and hides nothing else."""
    for name in RECORDS:
        if run.state.is_damaged(name):
            run.console.warn(f"{run.state.folder / name}.json is damaged: what it remembered shows as not recorded")
    looks, left_out = _Looks(), {}
    pods: list[Pod] = []
    pending, records, problem = run.state.pending(), Records(), None
    try:
        pods = run.api.list_pods()
        pending = still_pending(run, pods)
        records = read_records(run.state.read("pod"), pending, run.state.events())
    except BuilderError as error:
        problem = error
        looks.unseen["pods"] = str(error)
    rows = find_rows(
        pods=pods,
        volumes=looks.at("network volumes", lambda: run.api.network_volumes()),
        records=records,
        api_base=run.settings.api_base.rstrip("/"),
        now_s=run.clock.unix_s(),
    )
    rows += looks.at("endpoints", lambda: _endpoint_rows(run, looks))
    reason = why_no_aws(run)
    if reason is None:
        rows += _aws_rows(run, looks)
    else:
        left_out["EC2"] = reason
    rows.sort(key=lambda row: (-row.rate.per_hour, row.kind, row.name))
    begun = pending | run.state.pending("pending-endpoints") | run.state.pending("pending-ec2")
    names = {plain_name(row.name) for row in rows if row.status != "GONE"}
    missing = {name: began for name, began in begun.items() if name not in names}
    return Checked(tuple(rows), totals(rows), missing, looks.unseen, left_out, problem)


def why_no_aws(run: Runtime) -> str | None:
    """Why EC2 is not worth a look: nothing here ever pointed there. None: it is.

    Without this, everybody without an AWS account would get a warning with every look.
    """
    settings = run.settings
    if any(run.state.is_damaged(name) for name in ("ec2", "pending-ec2")):
        return None
    if run.state.read("ec2") or run.state.pending("pending-ec2") or settings.aws_key_id or settings.aws_profile:
        return None
    names = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SHARED_CREDENTIALS_FILE")
    home = run.environ.get("HOME")
    if any(run.environ.get(name) for name in names) or (home and (Path(home) / ".aws" / "credentials").exists()):
        return None
    return "no AWS key is set here, and no machine was launched from here"


def show_checked(run: Runtime, found: Checked) -> None:
    """Print it."""
    console = run.console
    now_s = run.clock.unix_s()
    if found.rows:
        cells = [
            (row.kind, row.id, row.name, row.status, _age(row, now_s), *_costs(row), _remarks(row))
            for row in found.rows
        ]
        columns = ("what", "id", "name", "status", "up>", "$/h>", "$/day>", "$/month>", "remarks")
        console.table(columns, cells)
        console.line()
    console.line(_sum(found))
    for row in found.rows:
        if row.rate.per_hour > 0 or row.reasons or not row.rate.is_known:
            console.line(
                f"{'End' if row.status != 'GONE' else 'Forget'} {row.kind} {row.name or row.id}: {row.command}"
            )
    for name, began in found.pending.items():
        console.note(f"{name}: its creation was begun at {began} and not finished; {_doubt(run, found, name)}")
    for what, reason in found.left_out.items():
        console.note(f"{what} was not looked at: {reason}")
    for what, reason in found.unseen.items():
        console.warn(f"{what} could not be looked at: {reason}")


def _doubt(run: Runtime, found: Checked, name: str) -> str:
    """What is known of something that was begun and is not seen, and what to do."""
    if name in run.state.pending("pending-ec2"):
        what, again = "EC2", f"Be sure that nothing is left: python -m builder ec2 terminate {shlex.quote(name)}"
    else:
        what = "endpoints" if name in run.state.pending("pending-endpoints") else "pods"
        again = f"Look again: it is certain {duration_text(CREATE_OVER_S)} after it began"
    is_seen = what not in found.unseen and what not in found.left_out
    return f"{'there is no such thing now' if is_seen else 'whether it exists is not known'}. {again}"


def _endpoint_rows(run: Runtime, looks: _Looks) -> list[Row]:
    endpoints = looks.at("endpoints", lambda: run.api.endpoints())
    if "endpoints" in looks.unseen:
        # Nothing can be said of what is recorded, nor of templates.
        return []
    templates = looks.at("templates", lambda: run.api.templates()) if not run.settings.use_v1 else []
    _forget_old(run, endpoints, None if run.settings.use_v1 or "templates" in looks.unseen else templates)
    workers = _workers(run, endpoints, looks)
    # Prices are only needed for workers.
    needs_prices = any(workers.values()) or any(each.min_workers for each in endpoints)
    current = run.state.read("endpoint") or {}
    pending = run.state.pending("pending-endpoints")
    # Of the present one the creation is finished, though a double of it may show.
    pending.pop(str(current.get("name")), None)
    records = EndpointRecords(current, run.settings.endpoint_id, pending, run.state.pending("pending-templates"))
    catalog = looks.at("prices", lambda: read_catalog(run)) if needs_prices else []
    return endpoint_rows(endpoints, templates, workers, catalog, records)


def _forget_old(run: Runtime, endpoints: list[Endpoint], templates: list[Template] | None) -> None:
    """Forget names whose creation is over and has left nothing."""
    # On a disk that is full they stay, and are looked for again.
    with suppress(BuilderError):
        forget_old_names(run, "pending-endpoints", {plain_name(each.name) for each in endpoints})
        if templates is not None:
            forget_old_names(run, "pending-templates", {each.name for each in templates})


def _workers(run: Runtime, endpoints: list[Endpoint], looks: _Looks) -> dict[str, tuple[Worker, ...]]:
    found: dict[str, tuple[Worker, ...]] = {}
    asked = [each for each in endpoints if each.max_workers]
    if run.settings.use_v1 and asked:
        looks.unseen["workers of endpoints"] = "REST v1 does not tell; only those that are always kept are counted"
        return found
    for each in asked[:MAX_ENDPOINTS]:
        try:
            found[each.id] = run.api.endpoint_workers(each.id).workers
        except BuilderError as error:
            looks.unseen[f"workers of endpoint {each.id}"] = str(error)
    if len(asked) > MAX_ENDPOINTS:
        looks.unseen["workers of more endpoints"] = f"only those of {MAX_ENDPOINTS} endpoints are counted"
    return found


def _aws_rows(run: Runtime, looks: _Looks) -> list[Row]:
    from builder.ec2.inventory import our_resources

    try:
        return aws_rows(our_resources(run), run.clock.unix_s())
    except (AuthError, NotAvailableError) as error:
        looks.unseen["EC2"] = f"{error}; {error.hint}" if error.hint else str(error)
    except BuilderError as error:
        looks.unseen["EC2"] = str(error)
    return []


def _age(row: Row, now_s: float) -> str | None:
    return None if row.since_s is None else duration_text(max(0.0, now_s - row.since_s))


def _remarks(row: Row) -> str:
    return "; ".join((*row.reasons, *row.notes))


def _costs(row: Row) -> tuple[str, ...]:
    if not row.rate.is_known:
        return ("?", "?", "?")
    return tuple(dollars(amount) for amount in (row.rate.per_hour, row.rate.per_day, row.rate.per_month))


def _sum(found: Checked) -> str:
    rate, n_orphans = found.totals.rate, found.totals.n_orphans
    if rate.per_hour == 0 and found.totals.is_complete:
        text = "Nothing that was looked at is billed." if found.unseen else NOTHING
        if found.problem is not None:
            text = "What is billed is not known: the pods could not be listed."
    else:
        amounts = f"{dollars(rate.per_hour)}/h, {dollars(rate.per_day)}/day, {dollars(rate.per_month)}/month"
        at_least = "" if found.totals.is_complete else "at least "
        text = f"All together {at_least}{amounts}; machines running: {found.totals.n_running}."
    return f"{text} Forgotten: {n_orphans}, see remarks." if n_orphans else text
