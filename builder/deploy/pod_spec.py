"""What a pod is to be: from settings and options to the body of REST v2's create, and back to what differs.

`PodOptions` is all that holds for any GPU; `make_spec` adds the GPU and the names of one deploy. The pod carries
BUILDER_ID (which deploy made it) and BUILDER_SPEC_SHA (what it was asked to be); the server in it reads POD_DEADLINE
and POD_IDLE_STOP_MIN and stops the pod by itself.

Pure. Source: RunPod REST API v2 (CreatePodRequest).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError
from builder.redact import HIDDEN, is_secret_name

if TYPE_CHECKING:
    from builder.api.models import Pod, PodSpec
    from builder.deploy.gpus import Candidate

__all__ = [
    "BUILDER_ID",
    "DEADLINE",
    "IDLE_STOP",
    "SPEC_SHA",
    "TOKEN",
    "PodOptions",
    "check_token",
    "drift",
    "is_secret_name",
    "make_spec",
    "parse_extra",
    "pod_env",
    "secret_reference",
    "spec_sha",
    "without_secrets",
]

BUILDER_ID, SPEC_SHA = "BUILDER_ID", "BUILDER_SPEC_SHA"
DEADLINE, IDLE_STOP = "POD_DEADLINE", "POD_IDLE_STOP_MIN"
TOKEN, NO_AUTH = "WHISPER_AUTH_TOKEN", "WHISPER_NO_AUTH"
WORKSPACE = "/workspace"
MIN_VOLUME_GB = 10
"""RunPod's least for a disk that outlives a stop."""
MIN_TOKEN_CHARS, MAX_TOKEN_CHARS = 16, 512
"""What the server in the pod accepts."""
_SHA_CHARS = 12
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_STORED = "{{ RUNPOD_SECRET_"
"""Beginning of a reference to RunPod's secret store, which is no secret."""
_OWN = (DEADLINE, IDLE_STOP, TOKEN, NO_AUTH, "WHISPER_MODE", "WHISPERLIVE_PORT", "HEALTH_CHECK_PORT")
_PASSING = (BUILDER_ID, SPEC_SHA)
"""Differ from deploy to deploy, though the pod is meant to be the same."""


@dataclass(frozen=True)
class PodOptions:
    """A pod but for its GPU, cloud and name. Disks in GB; `env` without what `make_spec` adds."""

    image: str
    env: Mapping[str, str]
    disk_gb: int = 20
    volume_gb: int = 0
    network_volume_id: str | None = None
    data_centers: tuple[str, ...] = ()
    registry_id: str | None = None
    gpu_count: int = 1
    ws_port: int = 9090
    health_port: int = 9999
    ports: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.ws_port == self.health_port:
            raise UsageError(f"WHISPERLIVE_PORT and HEALTH_CHECK_PORT are both {self.ws_port}", hint="change one")
        if 0 < self.volume_gb < MIN_VOLUME_GB:
            raise UsageError(f"--volume: {self.volume_gb} is not allowed; legal: 0, or {MIN_VOLUME_GB} GB and more")
        if self.volume_gb and self.network_volume_id:
            raise UsageError("--volume and --network-volume exclude each other: a pod has one disk at /workspace")
        object.__setattr__(self, "ports", (f"{self.ws_port}/http", f"{self.health_port}/http"))

    @property
    def mounts(self) -> dict[str, Any] | None:
        """The disk at /workspace, if any."""
        if self.network_volume_id:
            return {"network": [{"volumeId": self.network_volume_id, "path": WORKSPACE}]}
        return {"persistent": {"size": self.volume_gb, "path": WORKSPACE}} if self.volume_gb else None


def check_token(token: str) -> None:
    """Raises UsageError if the server in the pod would refuse this token."""
    if not MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS or not token.isascii() or not token.isprintable():
        raise UsageError(
            f"{TOKEN} is not allowed; legal: {MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} printable ASCII characters",
            hint="make one: python -m builder setup",
        )


def secret_reference(name: str) -> str:
    """What stands in a pod's environment for a secret in RunPod's store. Raises UsageError for an illegal name."""
    if not _SECRET_NAME.fullmatch(name):
        raise UsageError(f"--secret: {name[:100]!r} is not allowed; legal: letters, digits, _ and -, at most 100")
    return f"{{{{ RUNPOD_SECRET_{name} }}}}"


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """An environment that may be shown: references to RunPod's secret store are no secrets."""
    return {
        name: HIDDEN if is_secret_name(name) and not value.startswith(_STORED) else value for name, value in env.items()
    }


def parse_extra(items: tuple[str, ...], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """`--set NAME=VALUE`, or `--set NAME` for the value in `known` (environment and `.env`), as a mapping.

    Raises UsageError for a bad name, one that has an option or setting, one that `known` lacks, and for secrets.
    """
    extra: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        _check_extra(name)
        if sign and is_secret_name(name) and not value.startswith(_STORED):
            raise UsageError(
                f"--set: {name} is secret, and other users of this machine can read command lines",
                hint=f"set it in the environment or .env, and give its name alone: --set {name}",
            )
        if not sign and name not in (known or {}):
            raise UsageError(
                f"--set {name}: neither the environment nor .env has it", hint="set it there, or give NAME=VALUE"
            )
        extra[name] = value if sign else (known or {})[name]
    return extra


def _check_extra(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"--set: {name!r} is not allowed; legal: NAME=VALUE", hint="like --set HF_HOME=/tmp")
    if name in _OWN or name.startswith(("RUNPOD_", "BUILDER_")):
        # Among them the token: a command line is no place for it.
        raise UsageError(f"--set: {name} is not for this option", hint="it has a setting or an option of its own")


def pod_env(
    base: Mapping[str, str],
    *,
    token: str | None,
    extra: Mapping[str, str],
    deadline: str | None,
    idle_stop_min: int,
) -> dict[str, str]:
    """The pod's environment: `base` (settings of the server), then `extra`, then what protects the pod and its owner.

    `token` None serves without a secret; `deadline` is an ISO time; `idle_stop_min` 0: never.
    """
    env = {"WHISPER_MODE": "pod", "LOG_FORMAT": "json", **base, **extra}
    env[TOKEN if token is not None else NO_AUTH] = token if token is not None else "1"
    if deadline is not None:
        env[DEADLINE] = deadline
    if idle_stop_min:
        env[IDLE_STOP] = str(idle_stop_min)
    return env


def make_spec(options: PodOptions, candidate: Candidate, *, name: str, builder_id: str) -> PodSpec:
    """The body of a create for one candidate."""
    from builder.api.models import GpuRequest, PodSpec

    spec = PodSpec(
        name=name,
        image=options.image,
        gpu=GpuRequest(id=candidate.gpu_id, count=options.gpu_count, min_cuda_version=candidate.min_cuda),
        cloud=candidate.cloud,
        disk=options.disk_gb,
        ports=options.ports,
        env={**options.env, BUILDER_ID: builder_id},
        mounts=options.mounts,
        data_center_ids=options.data_centers or None,
        registry=options.registry_id,
    )
    return spec.model_copy(update={"env": {**spec.env, SPEC_SHA: spec_sha(spec)}})


def spec_sha(spec: PodSpec) -> str:
    """A short name for what the user asked for: the same whatever the GPU, the name and the hour of the deploy.

    The token is left out, since this sha is shown; of the deadline only counts that there is one.
    """
    body = spec.body()
    gpu = body.pop("gpu")
    for field_name in ("name", "cloud"):
        body.pop(field_name)
    env = {name: value for name, value in spec.env.items() if name not in _PASSING}
    shown = {name: "set" if name in (TOKEN, DEADLINE) else value for name, value in env.items()}
    text = json.dumps({**body, "env": shown, "gpu_count": gpu["count"]}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_SHA_CHARS]


def drift(pod: Pod, options: PodOptions) -> list[str]:
    """The fields in which a pod differs from what it is to be now: `image`, `env.WHISPER_MODEL`, ...; no values."""
    pairs = {
        "image": (pod.image, options.image),
        "disk": (pod.disk, options.disk_gb),
        "ports": (sorted(pod.ports), sorted(options.ports)),
        "volume": (pod.volume_gb, options.volume_gb),
        "network_volume": (_network_volume(pod), options.network_volume_id),
        "gpu_count": (pod.gpu.count if pod.gpu else options.gpu_count, options.gpu_count),
    }
    found = [name for name, (has, wanted) in pairs.items() if has != wanted]
    if options.data_centers and pod.data_center_id and pod.data_center_id not in options.data_centers:
        found.append("data_center")
    # Variables that the platform or an image adds are nobody's wish; ours that are gone are.
    names = {name for name in pod.env if name.startswith(("WHISPER_", "POD_", "MAX_", "LOG_"))} | set(options.env)
    for name in sorted(names):
        has, wanted = pod.env.get(name), options.env.get(name)
        # A deadline is another one each time, and `start --max-minutes` may have given one.
        differs = has is None and wanted is not None if name == DEADLINE else has != wanted
        if differs:
            found.append(f"env.{name}")
    return found


def _network_volume(pod: Pod) -> str | None:
    mounted = (pod.mounts or {}).get("network") or [{}]
    volume = mounted[0].get("volumeId")
    return str(volume) if volume else None
