"""Endpoints and templates: what their workers cost now, and what of them nobody remembers. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.deploy.pod_spec import BUILDER_ID
from builder.endpoints.chosen import plain_name
from builder.endpoints.look import BILLED, cost_now
from builder.money.orphans import rows_of
from builder.money.prices import Rate, worker_price_per_h
from builder.money.rows import Row

if TYPE_CHECKING:
    from builder.api.models import GpuType
    from builder.api.models_serverless import Endpoint, Template, Worker

__all__ = ["EndpointRecords", "endpoint_rows"]


@dataclass(frozen=True)
class EndpointRecords:
    """What this folder remembers: the present endpoint and its template, names begun and never finished.

    `named_id`: the endpoint that the settings name.
    """

    current: Mapping[str, Any] = field(default_factory=dict)
    named_id: str | None = None
    pending: Mapping[str, str] = field(default_factory=dict)
    pending_templates: Mapping[str, str] = field(default_factory=dict)


def endpoint_rows(
    endpoints: Sequence[Endpoint],
    templates: Sequence[Template],
    workers: Mapping[str, Sequence[Worker]],
    catalog: Sequence[GpuType],
    records: EndpointRecords,
) -> list[Row]:
    """A row for every endpoint that costs or is ours, for templates of ours without one, and for one that is gone.

    `workers`: those that each has now, by id; those that are always kept count in any case.
    """
    rows = rows_of("endpoint", endpoints, lambda each: _endpoint_row(each, workers.get(each.id, ()), catalog, records))
    used = {plain_name(each.name) for each in endpoints}
    rows += rows_of("template", templates, lambda each: _template_row(each, used, records))
    current_id = str(records.current.get("endpoint_id") or "")
    if current_id and current_id not in {each.id for each in endpoints}:
        name = str(records.current.get("name") or "")
        reason = ("recorded here, and gone",)
        rows.append(Row("endpoint", current_id, name, "GONE", Rate(0.0, 0.0), _delete(current_id), True, reason))
    return rows


def _endpoint_row(
    endpoint: Endpoint, workers: Sequence[Worker], catalog: Sequence[GpuType], records: EndpointRecords
) -> Row | None:
    n_billed = sum(each.status in BILLED for each in workers)
    n_now = max(n_billed, endpoint.min_workers)
    is_ours = BUILDER_ID in endpoint.env
    is_begun = plain_name(endpoint.name) in records.pending
    if n_now == 0 and not is_ours and not is_begun:
        return None
    rate = Rate(_per_hour(endpoint, workers, n_now - n_billed, catalog), 0.0)
    notes: tuple[str, ...] = () if rate.is_known else ("price of its workers not known",)
    if not is_ours:
        notes += ("not made by the builder",)
    return Row(
        kind="endpoint",
        id=endpoint.id,
        name=endpoint.name,
        status=f"workers: {n_now} ({endpoint.min_workers} to {endpoint.max_workers})",
        rate=rate,
        command=_delete(endpoint.id) if is_ours or is_begun else _rest(endpoint),
        is_ours=is_ours,
        reasons=_reasons(endpoint, records, is_ours=is_ours),
        notes=notes,
        n_machines=n_now,
        since_s=None if endpoint.created_at is None else endpoint.created_at.timestamp(),
    )


def _per_hour(endpoint: Endpoint, workers: Sequence[Worker], n_coming: int, catalog: Sequence[GpuType]) -> float | None:
    """$/h of the workers there are, and of `n_coming` more at the dearest GPU they may get; None: not known."""
    now, each = cost_now(endpoint, workers, catalog), worker_price_per_h(endpoint.gpu, catalog)
    if n_coming == 0 or now is None:
        return now
    return None if each is None else now + n_coming * each


def _reasons(endpoint: Endpoint, records: EndpointRecords, *, is_ours: bool) -> tuple[str, ...]:
    if endpoint.id in (records.current.get("endpoint_id"), records.named_id):
        return ()
    begun = records.pending.get(plain_name(endpoint.name))
    if begun is not None:
        return (f"its creation was begun at {begun} and never finished",)
    return ("made by the builder, and not the present endpoint here",) if is_ours else ()


def _template_row(template: Template, used: set[str], records: EndpointRecords) -> Row | None:
    is_ours = BUILDER_ID in template.env
    is_begun = template.name in records.pending_templates
    if template.name in used or not (is_ours or is_begun) or template.id == records.current.get("template_id"):
        return None
    reason = "its creation was begun and never finished" if is_begun else "made by the builder, and has no endpoint"
    return Row(
        kind="template",
        id=template.id,
        name=template.name,
        status="stored",
        rate=Rate(0.0, 0.0),
        # Its name may hold what no id has.
        command=_delete(template.id),
        is_ours=is_ours,
        reasons=(reason,),
    )


def _delete(thing_id: str) -> str:
    return f"python -m builder endpoint delete {shlex.quote(thing_id)}"


def _rest(endpoint: Endpoint) -> str:
    """What ends the cost of somebody else's endpoint and leaves the endpoint: no worker kept, or none at all."""
    how = "--zero" if endpoint.min_workers else "--park"
    return f"python -m builder endpoint scale {shlex.quote(endpoint.id)} {how}"
