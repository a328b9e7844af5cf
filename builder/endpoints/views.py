"""How an endpoint's documents look to people. Pure but for the console they print on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.console import Console
from builder.instants import duration_text
from builder.money.prices import dollars

__all__ = ["show_deleted", "show_list", "show_scaled", "show_status", "status_line"]

STATES = ("running", "idle", "initializing", "throttled", "unhealthy")


def show_status(console: Console, document: Mapping[str, Any]) -> None:
    """An endpoint as two columns, its workers, and what is wrong."""
    ours = "" if document["is_ours"] else "  (not made by the builder)"
    pools = ", ".join(document["gpu_pools"]) or "no GPU"
    rows = [
        ("endpoint", f"{document['endpoint_id']}  {document['name']}{ours}"),
        ("type", str(document["type"])),
        ("image", str(document["image"] or "-")),
        ("gpu", f"{document['gpu_count']}x {pools}" if document["gpu_count"] else pools),
        ("workers", _workers(document)),
        ("jobs", _jobs(document)),
        ("release", _release(document)),
        ("cost", _cost(document)),
        ("age", "-" if document["age_s"] is None else duration_text(document["age_s"])),
        *((name, address) for name, address in document["addresses"].items()),
    ]
    if document.get("balance") is not None:
        rows.append(("balance", f"${document['balance']:.2f}, spending ${document['spend_per_hour']:.2f}/h"))
    for name, text in rows:
        console.line(f"{name:<8} {text}")
    if document["worker_list"]:
        console.table(
            ("worker", "status", "GPU", "where", "up", "release"),
            [_worker_cells(each) for each in document["worker_list"]],
        )
    for each in document["findings"]:
        _show_finding(console, each)
    for what, reason in document["unseen"].items():
        console.warn(f"{what} could not be read: {reason}")


def status_line(document: Mapping[str, Any], at: str) -> str:
    """An endpoint in one line, for --watch; `at` is the time."""
    parts = [at, _workers(document), _jobs(document), _cost(document)]
    parts += [each["cause"] for each in document["findings"]]
    return "  ".join(parts)


def show_list(console: Console, document: Mapping[str, Any]) -> None:
    """All endpoints as a table."""
    if not document["endpoints"]:
        console.line("The account has no endpoints.")
        return
    cells = [
        (
            ("* " if row["is_present"] else "") + row["endpoint_id"],
            row["name"],
            row["type"],
            "yes" if row["is_ours"] else "no",
            "?" if row["workers"] is None else _counts(row["workers"]),
            f"{row['workers_min']} to {row['workers_max']}",
            _dollars(row["cost_per_hour"]),
            _dollars(row["cost_per_hour_max"]),
        )
        for row in document["endpoints"]
    ]
    console.table(("id", "name", "type", "ours", "workers", "may be", "$/h now>", "$/h at most>"), cells)
    at_least = "" if document["cost_known"] else "at least "
    console.line(f"All together {at_least}{dollars(document['cost_per_hour'])}/h now. *: deployed from here last.")


def show_scaled(console: Console, document: Mapping[str, Any]) -> None:
    """What became of a change of the limits."""
    before, after = document["before"], document["after"]
    console.line(f"endpoint {document['endpoint_id']} ({document['name']})")
    console.line(f"before   {scale_text(before)}")
    console.line(f"now      {scale_text(after)}")
    if "wait" in document:
        waited = document["wait"]
        console.line(f"workers  {waited['workers']} left after {duration_text(waited['waited_s'])}")


def scale_text(limits: Mapping[str, Any]) -> str:
    """`0 to 3 workers, $0.00/h to $2.04/h, idle for 10s`."""
    idle = "" if limits["idle_timeout_s"] is None else f", idle for {duration_text(limits['idle_timeout_s'])}"
    low, high = _dollars(limits["cost_per_hour_min"]), _dollars(limits["cost_per_hour_max"])
    return f"{limits['workers_min']} to {limits['workers_max']} workers, {low}/h to {high}/h{idle}"


def show_deleted(console: Console, document: Mapping[str, Any]) -> None:
    """What was ended."""
    names = {"deleted": "deleted", "gone": "gone already", "templates": "templates removed"}
    parts = [f"{text}: {', '.join(document[name])}" for name, text in names.items() if document[name]]
    if document["lost_jobs"]:
        parts.append(f"jobs lost with it: {document['lost_jobs']}")
    console.line("; ".join(parts) or "There was nothing to delete.")


def _workers(document: Mapping[str, Any]) -> str:
    counts = "not known" if document["workers"] is None else _counts(document["workers"])
    return f"{counts} (of {document['workers_min']} to {document['workers_max']})"


def _counts(workers: Mapping[str, int]) -> str:
    return ", ".join(f"{workers[state]} {state}" for state in STATES if workers.get(state)) or "none"


def _jobs(document: Mapping[str, Any]) -> str:
    jobs = document["jobs"]
    if jobs is None:
        return "no queue" if document["type"] != "QUEUE" else "not known"
    queued, doing = jobs.get("inQueue", 0), jobs.get("inProgress", 0)
    return f"{queued} queued, {doing} in progress, {jobs.get('completed', 0)} done, {jobs.get('failed', 0)} failed"


def _release(document: Mapping[str, Any]) -> str:
    rollout = document["rollout"]
    if rollout is None:
        return "not known"
    version = "" if document["version"] is None else f"{document['version']}, "
    on_it = f"{rollout['workers_on_latest']} of {rollout['workers_total']} workers on it"
    return version + (f"rolling out: {on_it}" if rollout["in_progress"] else on_it)


def _cost(document: Mapping[str, Any]) -> str:
    low, high = _dollars(document["cost_per_hour_min"]), _dollars(document["cost_per_hour_max"])
    return f"{_dollars(document['cost_per_hour'])}/h now ({low}/h to {high}/h)"


def _dollars(amount: float | None) -> str:
    return "$?" if amount is None else dollars(amount)


def _worker_cells(worker: Mapping[str, Any]) -> tuple[object, ...]:
    up = None if worker["uptime_s"] is None else duration_text(worker["uptime_s"])
    release = f"{worker['version'] or '?'}{' (old)' if worker['is_stale'] else ''}"
    return worker["id"], worker["status"], worker["gpu_type_id"], worker["data_center_id"], up, release


def _show_finding(console: Console, finding: Mapping[str, Any]) -> None:
    console.line()
    console.line(f"{finding['kind']}: {finding['cause']}")
    console.line(f"  {finding['remedy']}")
    for line in finding["lines"]:
        console.line(f"  | {line}")
