"""What `plan` and `deploy` show to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from builder.deploy.cleanup import end_command
from builder.deploy.throughput import LABEL

if TYPE_CHECKING:
    from builder.console import Console
    from builder.deploy.gpus import Candidate
    from builder.deploy.plan import Plan

__all__ = ["COLUMNS", "candidate_rows", "show_deployed", "show_plan"]

COLUMNS = ("#>", "GPU", "VRAM>", "CLOUD", "STOCK", "$/h>", "$/audio-h*>", "CUDA>=")


def show_plan(console: Console, plan: Plan) -> None:
    """The plan, its costs and its warnings."""
    kind = "spot pod" if plan.is_spot else "pod"
    console.line(f'Plan: deploy {kind} "{plan.name}"  image {plan.image}  model {plan.model}')
    console.table(COLUMNS, candidate_rows(plan.candidates))
    for text in _facts(plan):
        console.line(f"  {text}")
    console.line(f"  * {LABEL}, GPU busy all the time")
    for warning in plan.warnings:
        console.warn(warning.text)


def candidate_rows(candidates: Sequence[Candidate]) -> list[tuple[object, ...]]:
    """Rows under COLUMNS."""
    return [
        (
            number,
            each.name,
            each.memory_gb or None,
            each.cloud,
            each.stock,
            each.price_per_h,
            None if each.price_per_audio_h is None else f"{each.price_per_audio_h:.5f}",
            each.min_cuda,
        )
        for number, each in enumerate(candidates, 1)
    ]


def show_deployed(console: Console, document: dict[str, Any]) -> None:
    """The pod, how to reach it, how to try it and how to end it."""
    pod = document["pod"]
    if document["reused"]:
        console.line(f"Pod {pod['pod_id']} is what you want, nothing was done ({pod['status']}).")
    else:
        state = "is ready" if document["readiness"] else "is created"
        console.line(f"Pod {pod['pod_id']} {state}: {pod['gpu_type']}, {pod['cloud']}.")
    if document["replaced"]:
        console.line(f"  ended  {document['replaced']}, which it replaces")
    if pod["cost_per_hour"] is not None:
        console.line(f"  cost   ${pod['cost_per_hour']:.2f}/h, ${pod['cost_per_hour'] * 24:.2f} a day")
    for name, key in (("stream", "ws_url"), ("health", "health_url")):
        if pod.get(key):
            console.line(f"  {name} {pod[key]}")
    if pod.get("deadline"):
        console.line(f"  stops  at {pod['deadline']}")
    if pod.get("idle_stop_min"):
        console.line(f"  stops  after {pod['idle_stop_min']} min without a client")
    if not document["readiness"] and not document["reused"]:
        console.line("  wait   python -m builder wait")
    console.line("  try    python -m builder test e2e")
    if pod.get("ws_url"):
        console.line(f"  use    python -m realtime.client {pod['ws_url']} talk.mp3")
    console.line(f"  end    {end_command(pod['pod_id'])}")


def _facts(plan: Plan) -> list[str]:
    credit = "" if plan.credit is None else f"   credit ${plan.credit:.2f}"
    facts = []
    price, total = plan.dearest_per_h, plan.worst_case
    if total is not None:
        facts.append(f"worst case: ${price:.2f}/h x {plan.limits.minutes} min = ${total:.2f}{credit}")
    elif price is not None:
        facts.append(f"worst case: ${price:.2f}/h, ${price * 24:.2f} a day until it is stopped{credit}")
    if plan.volume_gb:
        running, stopped = plan.volume_per_h("running"), plan.volume_per_h("stopped")
        facts.append(f"volume {plan.volume_gb} GB: ${running:.4f}/h running, ${stopped:.4f}/h stopped")
    facts.append(f"token required: {'yes' if plan.needs_token else 'no'}")
    stops = []
    if plan.limits.idle_stop_min:
        stops.append(f"idle {plan.limits.idle_stop_min} min")
    if plan.limits.deadline:
        stops.append(f"deadline {plan.limits.deadline}")
    if plan.limits.terminate_after_min:
        stops.append(f"ended by RunPod after {plan.limits.terminate_after_min} min")
    if stops:
        facts.append(f"self-stop: {', '.join(stops)}")
    return facts
