"""How a pod's documents look to people. Pure but for the console they print on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.console import Console
from builder.instants import duration_text

__all__ = ["show_operated", "show_readiness", "show_status", "status_line"]


def show_status(console: Console, document: Mapping[str, Any]) -> None:
    """A pod as two columns."""
    rows = [
        ("pod", f"{document['pod_id']}  {document['name']}" + ("  (locked)" if document["locked"] else "")),
        ("status", _status(document)),
        ("ready", _ready(document)),
        ("where", _where(document)),
        ("image", document["image"]),
        ("cost", _cost(document)),
        ("limits", _limits(document)),
        ("load", _load(document)),
        ("stream", document["ws_url"]),
        ("health", document["health_url"]),
    ]
    if document.get("balance") is not None:
        rows.append(("balance", f"${document['balance']:.2f}, spending ${document['spend_per_hour']:.2f}/h"))
    for name, text in rows:
        console.line(f"{name:<8} {text}")


def status_line(document: Mapping[str, Any], at: str) -> str:
    """A pod in one line, for --watch; `at` is the time."""
    return "  ".join([at, _status(document), _ready(document), _cost(document), _load(document)])


def show_readiness(console: Console, document: Mapping[str, Any]) -> None:
    """How a pod got ready."""
    steps = ", ".join(f"{rung} {duration_text(seconds)}" for rung, seconds in document["rungs"].items())
    console.line(
        f"pod {document['pod_id']} is {document['until']} after {duration_text(document['elapsed_s'])} ({steps})"
    )
    if document["transcript"] is not None:
        console.line(f"said     {document['transcript']}")
    console.line(f"stream   {document['ws_url']}")
    console.line(f"health   {document['health_url']}")


def show_operated(console: Console, document: Mapping[str, Any]) -> None:
    """What became of a start, a stop or a restart."""
    console.line(
        f"pod {document['pod_id']} ({document['name']}) is {document['status']}, ${document['cost_per_hour']:.2f}/h"
    )
    if document.get("deadline"):
        console.line(f"it stops itself at {document['deadline']}")
    if "storage_per_month" in document:
        volume_gb, price = document["volume_gb"], document["storage_per_month"]
        console.line(
            f"its {volume_gb} GB disk is kept and costs ${price:.2f} a month until you terminate it"
            if volume_gb
            else "nothing of it is billed but a network volume, if it has one"
        )
    if document.get("wait"):
        show_readiness(console, document["wait"])


def _status(document: Mapping[str, Any]) -> str:
    uptime_s = document["uptime_s"]
    return str(document["status"]) + (f", up {duration_text(uptime_s)}" if uptime_s is not None else "")


def _ready(document: Mapping[str, Any]) -> str:
    if document["ready"] is None:
        return "not running"
    streams = ""
    if document["active_streams"] is not None:
        streams = f", {document['active_streams']} streams" + (
            f" of {document['max_streams']}" if document["max_streams"] else ""
        )
    return ("ready" if document["ready"] else f"not ready: {document['reason']}") + streams


def _where(document: Mapping[str, Any]) -> str:
    gpu = f"{document['gpu_count']}x {document['gpu']}" if document["gpu"] else "no GPU"
    return ", ".join(str(part) for part in (gpu, document["cloud"], document["data_center"]) if part)


def _cost(document: Mapping[str, Any]) -> str:
    if not document["cost_per_hour"]:
        return f"$0.00/h, disk ${document['storage_per_month_stopped']:.2f} a month"
    return f"${document['cost_per_hour']:.2f}/h, about ${document['cost_since_start']:.2f} since its start"


def _limits(document: Mapping[str, Any]) -> str:
    parts = []
    if document["deadline"]:
        left_s = document["deadline_in_s"]
        parts.append(f"stops at {document['deadline']} ({'in ' + duration_text(left_s) if left_s > 0 else 'passed'})")
    if document["idle_stop_min"]:
        parts.append(f"stops after {document['idle_stop_min']} idle minutes")
    return ", ".join(parts) or "none: it runs until you stop it"


def _load(document: Mapping[str, Any]) -> str:
    if document["gpu_percent"] is None:
        return "GPU -"
    return f"GPU {document['gpu_percent']} %, its memory {document['gpu_memory_percent'] or 0} %"
