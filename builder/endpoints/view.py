"""What `plan` and `deploy` of an endpoint show to people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.endpoints.cleanup import end_command

if TYPE_CHECKING:
    from builder.console import Console
    from builder.endpoints.plan import EndpointPlan

__all__ = ["show_deployed", "show_plan"]

COLUMNS = ("POOL", "GPU", "VRAM>", "STOCK", "$/h>", "CUDA>=")
_KINDS = {"endpoint": "endpoint", "lb": "load-balancing endpoint"}


def show_plan(console: Console, plan: EndpointPlan) -> None:
    """The plan, its costs and its warnings."""
    options = plan.options
    what = f"deploy {_KINDS[options.kind]}" if plan.endpoint_id is None else f"change endpoint {plan.endpoint_id}"
    console.line(f'Plan: {what} "{plan.name}"  image {options.image}  model {plan.model}')
    rows = [
        (pool.name, gpu.name, gpu.memory_gb, gpu.stock, gpu.price_per_h, gpu.min_cuda)
        for pool in plan.choice.pools
        for gpu in pool.gpus
    ]
    console.table(COLUMNS, rows)
    for text in _facts(plan):
        console.line(f"  {text}")
    if plan.endpoint_id is not None:
        if plan.changes:
            console.table(("CHANGES", "FROM", "TO"), [(each.field, each.before, each.after) for each in plan.changes])
        else:
            console.line("  nothing differs")
    for warning in plan.warnings:
        console.warn(warning.text)


def show_deployed(console: Console, document: dict[str, Any]) -> None:
    """The endpoint, how to use it, what it costs and how to end it."""
    endpoint = document["endpoint"]
    endpoint_id = endpoint["endpoint_id"]
    if document["done"] == "nothing":
        console.line(f"Endpoint {endpoint_id} is what you want {_state(document)}; nothing was done.")
    else:
        console.line(f"Endpoint {endpoint_id} is {document['done']} {_state(document)}.")
    canary = document["canary"]
    if canary and "text" in canary:
        console.line(f"  heard  {canary['text']!r} after {canary['elapsed_s']:g} s")
    price = endpoint["price_per_worker_h"]
    if price is not None:
        low, high = price * endpoint["workers_min"], price * endpoint["workers_max"]
        console.line(f"  cost   ${low:.2f}/h to ${high:.2f}/h, ${low * 24:.2f} to ${high * 24:.2f} a day")
    console.line(f"  state  python -m builder endpoint status {endpoint_id}")
    if endpoint["type"] == "QUEUE":
        console.line(f"  use    python -m builder transcribe talk.mp3 --endpoint {endpoint_id}")
    else:
        console.line(f"  use    {document['url']} with the header Authorization: Bearer <RUNPOD_API_KEY>")
    console.line(f"  end    {end_command(endpoint_id)}")


def _state(document: dict[str, Any]) -> str:
    """What is known of its workers."""
    if document["readiness"] is None:
        return "and was not waited for"
    if document["readiness"]["workers"] or document["canary"]:
        return "and is ready"
    return "and has no worker now: the first request starts one"


def _facts(plan: EndpointPlan) -> list[str]:
    options, scale = plan.options, plan.options.scale
    price = plan.price_per_worker_h
    credit = "" if plan.credit is None else f"   credit ${plan.credit:.2f}"
    facts = []
    if price is None:
        facts.append(f"cost: the price of a worker is not known{credit}")
    else:
        for workers, name in ((scale.min, "min"), (scale.max, "max")):
            per_h = price * workers
            count = "1 worker" if workers == 1 else f"{workers} workers"
            facts.append(f"at {name}, {count} x ${price:.2f}/h: ${per_h:.2f}/h, ${per_h * 24:.2f} a day")
        facts[-1] += f" (worst case){credit}"
    if scale.requests_per_worker is not None:
        facts.append(f"scaling: a worker for every {scale.requests_per_worker} requests")
    else:
        facts.append(f"scaling: another worker once jobs wait {scale.queue_delay_s:g} s")
    if scale.idle_s is not None:
        facts[-1] += f"; an idle one goes after {scale.idle_s} s"
    job = f"; a job may take {scale.job_timeout_s} s" if options.kind == "endpoint" else ""
    facts.append(f"FlashBoot {'on' if options.flashboot else 'off'}; disk {options.disk_gb} GB{job}")
    return facts
