"""One pod: which one is meant, where it answers, and all there is to tell of it.

Money in $, times in seconds, disks in GB. The pod's own /status is asked with the token in a header; nothing secret
is part of a report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.api.http import Answer, get_once
from builder.deploy.pod_spec import IDLE_STOP
from builder.errors import BuilderError, ConflictError, NetworkError, NotFoundError
from builder.money.orphans import deadline_s
from builder.money.prices import VOLUME_STOPPED
from builder.pods.addresses import health_url, ws_url
from builder.settings import is_placeholder
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import Pod
    from builder.runtime import Runtime

__all__ = [
    "Ports",
    "account_document",
    "chosen_pod_id",
    "forget",
    "port_number",
    "ports_of",
    "reason_of",
    "recorded",
    "remember",
    "report",
    "storage_per_month",
    "token_for",
]

PROBE_S = 5.0
MAX_REASON_CHARS = 200
MAX_PORT_DIGITS, MAX_IDLE_DIGITS = 5, 9
"""What a pod's environment holds is read no further: Python refuses texts of thousands of digits."""


@dataclass(frozen=True)
class Ports:
    """A pod's ports, as the server in it listens."""

    ws: int
    health: int


def chosen_pod_id(run: Runtime, pod: str | None) -> str:
    """The pod a verb means: the one named, else the one deployed last, else RUNPOD_POD_ID of `.env`.

    Raises NotFoundError if there is none, ConflictError if none is named and `pod.json` is damaged.
    """
    if not pod and run.state.is_damaged("pod"):
        raise ConflictError(
            f"{run.state.folder / 'pod.json'} is damaged: which pod was deployed from here is not known",
            hint="name its id; find it: python -m builder check-all",
        )
    recorded_id = str((run.state.read("pod") or {}).get("pod_id") or "")
    from_file = run.env_file.get("RUNPOD_POD_ID", "").strip()
    for candidate in (pod or "", recorded_id, "" if is_placeholder(from_file) else from_file):
        if candidate:
            return candidate
    raise NotFoundError("no pod was deployed from here", hint="name its id, or deploy one: python -m builder deploy")


def recorded(run: Runtime, pod_id: str) -> dict[str, Any] | None:
    """What was written down about the pod when it was deployed; None if it was not deployed from here."""
    document = run.state.read("pod")
    return document if document is not None and document.get("pod_id") == pod_id else None


def remember(run: Runtime, pod_id: str, **changes: Any) -> None:
    """Change what is written down about the pod, if it is the one deployed last."""
    document = recorded(run, pod_id)
    if document is not None:
        run.state.write("pod", {**document, **changes, "last_updated": iso_time(run.clock.unix_s())})


def forget(run: Runtime, pod_id: str) -> bool:
    """Take the pod out of `artifacts` and `.env`; True if it stood in one of them."""
    from builder.env_file import update_env_file

    was_recorded = recorded(run, pod_id) is not None
    if was_recorded:
        run.state.remove("pod")
    if run.env_file.get("RUNPOD_POD_ID", "").strip() == pod_id:
        update_env_file(run.env_path, {"RUNPOD_POD_ID": None})
        return True
    return was_recorded


def ports_of(run: Runtime, pod: Pod) -> Ports:
    """Where the server in the pod listens: as the pod was told, else as our settings say."""
    return Ports(
        port_number(pod.env.get("WHISPERLIVE_PORT"), run.settings.ws_port),
        port_number(pod.env.get("HEALTH_CHECK_PORT"), run.settings.health_port),
    )


def port_number(value: object, otherwise: int) -> int:
    """`value`, which others wrote, as a port; `otherwise` if it is none."""
    text = str(value).strip()
    number = int(text) if text.isdecimal() and len(text) <= MAX_PORT_DIGITS else 0
    return number if 1 <= number <= 65_535 else otherwise


def token_for(run: Runtime, pod: Pod) -> str | None:
    """The secret that this very pod was given, or ours if it is ours; nobody else's pod ever gets ours."""
    own = pod.env.get("WHISPER_AUTH_TOKEN", "")
    if own and not own.startswith("{{"):
        run.redactor.add(own)
        return own
    return run.settings.auth_token if "BUILDER_ID" in pod.env else None


def storage_per_month(pod: Pod) -> float:
    """$ a month that the pod's volume disk costs while it is stopped."""
    return pod.volume_gb * VOLUME_STOPPED


def reason_of(answer: Answer) -> str:
    """What an answer of /ready gives as its reason; empty if none."""
    reason = answer.body.get("reason") if isinstance(answer.body, dict) else None
    return " ".join(reason.split())[:MAX_REASON_CHARS] if isinstance(reason, str) else ""


def account_document(run: Runtime) -> dict[str, Any]:
    """Balance in $ and spending in $/h; None where GraphQL does not tell."""
    try:
        balance = run.graphql.balance()
    except BuilderError:
        return {"balance": None, "spend_per_hour": None}
    return {"balance": balance.credit, "spend_per_hour": balance.spend_per_h}


def report(run: Runtime, pod: Pod) -> dict[str, Any]:
    """The document of `status`: the API's view, the pod's own, and what they cost."""
    now_s = run.clock.unix_s()
    ports, template = ports_of(run, pod), run.settings.proxy_template
    started_s = pod.started_at.timestamp() if pod.started_at else None
    is_up = pod.status in ("PROVISIONING", "STARTING", "RUNNING")
    since_s = started_s if started_s is not None else pod.created_at.timestamp() if pod.created_at else None
    document: dict[str, Any] = {
        "pod_id": pod.id,
        "name": pod.name,
        "status": pod.status,
        "image": pod.image,
        "gpu": pod.gpu.id if pod.gpu else None,
        "gpu_count": pod.gpu.count if pod.gpu else 0,
        "cloud": pod.cloud,
        "data_center": pod.data_center_id,
        "locked": pod.locked,
        "actions": list(pod.actions),
        "cost_per_hour": pod.cost,
        "cost_since_start": round((now_s - since_s) / 3600 * pod.cost, 4) if is_up and since_s is not None else 0.0,
        "uptime_s": pod.runtime.uptime_s if pod.runtime else None,
        "age_s": round(now_s - pod.created_at.timestamp()) if pod.created_at else None,
        "created_at": _iso(pod.created_at.timestamp() if pod.created_at else None),
        "started_at": _iso(started_s),
        **_limits(pod, now_s),
        "volume_gb": pod.volume_gb,
        "storage_per_month_stopped": round(storage_per_month(pod), 2),
        "ws_url": ws_url(template, pod.id, ports.ws),
        "health_url": health_url(template, pod.id, ports.health),
        **_load(pod),
    }
    return {**document, **(_own_view(run, pod, ports) if pod.status == "RUNNING" else _SILENT)}


_SILENT: dict[str, Any] = {"ready": None, "reason": None, "active_streams": None, "max_streams": None}


def _limits(pod: Pod, now_s: float) -> dict[str, Any]:
    ends_s = deadline_s(pod.env)
    idle = pod.env.get(IDLE_STOP, "").strip()
    return {
        "deadline": _iso(ends_s),
        "deadline_in_s": round(ends_s - now_s) if ends_s is not None else None,
        "idle_stop_min": (int(idle) or None) if idle.isdecimal() and len(idle) <= MAX_IDLE_DIGITS else None,
    }


def _iso(at_s: float | None) -> str | None:
    """None, too, for instants that no calendar has, as the year 0."""
    try:
        return None if at_s is None else iso_time(at_s)
    except (ValueError, OverflowError, OSError):
        return None


def _load(pod: Pod) -> dict[str, Any]:
    gpu = pod.runtime.gpus[0] if pod.runtime and pod.runtime.gpus else None
    return {"gpu_percent": gpu.util if gpu else None, "gpu_memory_percent": gpu.memory_util if gpu else None}


def _own_view(run: Runtime, pod: Pod, ports: Ports) -> dict[str, Any]:
    """What the pod says itself; never raises for a pod that does not answer."""
    template = run.settings.proxy_template
    try:
        ready = get_once(health_url(template, pod.id, ports.health, "/ready"), timeout_s=PROBE_S)
    except NetworkError as error:
        return {**_SILENT, "ready": False, "reason": f"no answer: {error}"}
    view = {**_SILENT, "ready": ready.status == 200, "reason": reason_of(ready) or f"HTTP {ready.status}"}
    if ready.status not in (200, 503):
        return view
    token = token_for(run, pod)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        status = get_once(health_url(template, pod.id, ports.health, "/status"), timeout_s=PROBE_S, headers=headers)
    except NetworkError:
        return view
    sessions = status.body.get("sessions") if isinstance(status.body, dict) else None
    if isinstance(sessions, dict):
        view |= {"active_streams": sessions.get("active"), "max_streams": sessions.get("max")}
    return view
