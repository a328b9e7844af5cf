"""What the `.env` of the shell project (scripts/000 to 990) means here. Pure.

Every variable is kept under its own name; a few values that mean something else here are mapped. The report says of
each variable whether a verb heeds it, and if not, why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from builder.settings import POD_VARIABLES, ROWS, is_placeholder

__all__ = ["Fate", "Import", "import_old_env"]

Verdict = Literal["used", "kept", "dropped", "check"]
_POD_RECORD = "record of the shell project's pod; verbs read artifacts/pod.json"
_POD_GONE = "the pod it belongs to is gone"
_POD_ID_GONE = "the pod is gone, yet verbs without a pod's id mean it until the next deploy: take the line out"
_NOT_TAKEN = {
    "DOCKER_TAG": "an image of the shell project knows neither the secret nor the self-stop: build and push anew"
}
_LATER = "for EC2, which no verb manages yet"
_DEPLOYMENT = "the shell project's record of its last deploy"
_UNUSED = {
    "RUNPOD_POD_IP": "pods are reached through RunPod's proxy, not by IP",
    "RUNPOD_WS_PORT": _POD_RECORD,
    "RUNPOD_HEALTH_PORT": _POD_RECORD,
    "DEPLOYMENT_ID": _DEPLOYMENT,
    "DEPLOYMENT_TIMESTAMP": _DEPLOYMENT,
    "AWS_REGION": _LATER,
    "EC2_KEY_NAME": _LATER,
    "EC2_AMI_ID": _LATER,
    "GPU_DASHBOARD_S3_BUCKET": "no verb writes a dashboard",
}
_MAPPED = {"RUNPOD_CLOUD_TYPE": {"ALL": "ANY"}}
_MEANING = {
    "RUNPOD_IDLE_TIMEOUT": "seconds; now the pod really stops itself, which it never did before",
    "RUNPOD_INTERRUPTIBLE": "now heeded: 1 rents spot pods",
    "WHISPER_MODEL": "now the model that the pod loads; before, each client chose",
    "WHISPER_COMPUTE_TYPE": "now heeded by the pod",
}
_PORT_VARIABLES = ("RUNPOD_POD_IP", "RUNPOD_WS_PORT", "RUNPOD_HEALTH_PORT")


@dataclass(frozen=True)
class Fate:
    """What became of one variable: `used` by verbs, `kept` though no verb reads it, `dropped`; and why.

    `check`: taken over, but it may have meant something else to the shell.
    """

    variable: str
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Import:
    """`changes` make the old text fit (None: take the line out); `values` is what then stands; `fates` tell why."""

    changes: dict[str, str | None]
    values: dict[str, str]
    fates: tuple[Fate, ...]


def import_old_env(
    old: Mapping[str, str], *, pod_is_alive: bool | None = None, doubts: Mapping[str, str] | None = None
) -> Import:
    """Translate; `pod_is_alive`: whether the pod of RUNPOD_POD_ID exists (None: nobody knows).

    `doubts` says of variables why the shell may have read another value.
    """
    changes: dict[str, str | None] = {}
    values: dict[str, str] = {}
    fates = []
    for variable, value in old.items():
        if is_placeholder(value):
            changes[variable] = None
            fates.append(Fate(variable, "dropped", "was never filled in"))
            continue
        if variable in _NOT_TAKEN:
            changes[variable] = None
            fates.append(Fate(variable, "dropped", _NOT_TAKEN[variable]))
            continue
        mapped = _MAPPED.get(variable, {}).get(value.strip().upper(), value)
        if mapped != value:
            changes[variable] = mapped
        values[variable] = mapped
        doubt = (doubts or {}).get(variable)
        fates.append(Fate(variable, "check", doubt) if doubt else _fate(variable, value, mapped, pod_is_alive))
    return Import(changes, values, tuple(fates))


def _fate(variable: str, value: str, mapped: str, pod_is_alive: bool | None) -> Fate:
    if mapped != value:
        return Fate(variable, "used", f"{value} is called {mapped} here")
    if variable in {row.env for row in ROWS}:
        return Fate(variable, "used", _MEANING.get(variable, ""))
    if variable in POD_VARIABLES:
        return Fate(variable, "used", "handed on to the server in the pod")
    if variable == "ENV_VERSION":
        return Fate(variable, "used", "counts on")
    if variable == "RUNPOD_POD_ID":
        if pod_is_alive is False:
            return Fate(variable, "kept", _POD_ID_GONE)
        return Fate(variable, "used", "the pod meant where artifacts/pod.json names none")
    if variable in _PORT_VARIABLES and pod_is_alive is False:
        return Fate(variable, "kept", _POD_GONE)
    return Fate(variable, "kept", _UNUSED.get(variable, "no verb reads it"))
