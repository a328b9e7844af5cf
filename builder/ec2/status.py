"""`ec2 status`: the recorded machine as AWS shows it, what it has cost, and how long it still runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.ec2.resources import OVER_STATES, YOUNG_S, find_instance
from builder.ec2.terminate import RECORD, end_command
from builder.errors import ConflictError, NotFoundError
from builder.instants import duration_text, unix_s_of

if TYPE_CHECKING:
    from builder.ec2.resources import Found
    from builder.runtime import Runtime

__all__ = ["show_status", "status_of"]


def status_of(run: Runtime) -> dict[str, Any]:
    """The document for --json. Raises NotFoundError if no machine is recorded, ConflictError if the record is damaged,
    and what AWS raises."""
    from builder.aws.session import Aws

    if run.state.is_damaged(RECORD):
        raise ConflictError(
            "ec2.json is damaged", hint="end all that is ours: python -m builder ec2 terminate --all-mine"
        )
    record = run.state.read(RECORD)
    if record is None:
        pending = run.state.pending("pending-ec2")
        more = f"; a launch may have left {', '.join(pending)}" if pending else ""
        hint = "end what was left: python -m builder ec2 terminate --all-mine" if pending else ""
        raise NotFoundError(
            f"no EC2 machine is recorded here{more}", hint=hint or "launch one: python -m builder ec2 launch"
        )
    machine = find_instance(Aws(run, str(record.get("region") or "") or None), str(record.get("instance_id") or ""))
    document = _document(run, record, machine)
    if document["public_ip"] and document["public_ip"] != record.get("public_ip"):
        run.state.write(RECORD, {**record, "public_ip": document["public_ip"]})
    if document["is_overdue"]:
        run.console.warn(
            f"{record.get('instance_id')} is past its deadline {record.get('deadline')} and is billed; "
            f"end it: {document['command']}"
        )
    return document


def _document(run: Runtime, record: dict[str, Any], machine: Found | None) -> dict[str, Any]:
    now_s = run.clock.unix_s()
    created_s, ends_s = unix_s_of(str(record.get("created_at"))), unix_s_of(str(record.get("deadline")))
    # AWS may not show yet what it has just made.
    is_young = created_s is not None and now_s - created_s < YOUNG_S
    state = machine.state if machine is not None else "pending" if is_young else "terminated"
    is_over = state in OVER_STATES
    price = record.get("price_per_h")
    price = float(price) if isinstance(price, (int, float)) else None
    # A machine that is over tells no more when it ended: at its deadline at the latest.
    until_s = now_s if not is_over or ends_s is None else min(now_s, ends_s)
    uptime_s = None if created_s is None else max(0.0, until_s - created_s)
    return {
        "instance_id": record.get("instance_id"),
        "name": record.get("name"),
        "instance_type": record.get("instance_type"),
        "region": record.get("region"),
        "state": state,
        "is_spot": bool(record.get("is_spot")),
        "public_ip": None if is_over or machine is None else machine.raw.get("PublicIpAddress"),
        "uptime_s": uptime_s,
        "deadline": record.get("deadline"),
        "minutes_left": None if ends_s is None or is_over else round(max(0.0, ends_s - now_s) / 60, 1),
        "is_overdue": not is_over and ends_s is not None and now_s > ends_s,
        "price_per_h": price,
        "cost": None if price is None or uptime_s is None else round(price * uptime_s / 3600, 4),
        "command": end_command(str(record.get("name"))),
    }


def show_status(run: Runtime, document: dict[str, Any]) -> None:
    """For people."""
    line = run.console.line
    line(f"machine   {document['instance_id']} ({document['name']}), {document['instance_type']}, {document['region']}")
    if document["state"] in OVER_STATES:
        line(f"state     {document['state']}; remove what it left: {document['command']}")
    else:
        line(f"state     {document['state']}, address {document['public_ip'] or 'none yet'}")
    if document["uptime_s"] is not None:
        cost = "not known" if document["cost"] is None else f"about ${document['cost']:.2f}"
        line(f"so far    {duration_text(document['uptime_s'])}, {cost}")
    if document["minutes_left"] is not None:
        line(f"left      {document['minutes_left']:.0f} min, until {document['deadline']}")
