"""What an endpoint is to be: from settings and options to the bodies of REST v2, and back to what differs.

The container of the workers is a template; the endpoint is made from it once, so a later change goes to both. It
carries BUILDER_ID (which deploy made it) and BUILDER_SPEC_SHA (what its workers were asked to be: container and GPUs;
a change of either makes a new release, a change of workers and scaling does not).

Pure. Source: RunPod REST API v2 (CreateTemplateRequest, CreateEndpointRequest, UpdateEndpointRequest).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.pod_spec import BUILDER_ID, NO_AUTH, SPEC_SHA, TOKEN
from builder.errors import UsageError
from builder.redact import HIDDEN, is_secret_name

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint, EndpointGpu, EndpointSpec, FlashBoot, TemplateSpec
    from builder.endpoints.options import EndpointKind, Scale

__all__ = [
    "TYPES",
    "Change",
    "EndpointOptions",
    "drift",
    "endpoint_env",
    "lb_ports",
    "make_endpoint",
    "make_template",
    "makes_release",
    "patch_of",
    "spec_sha",
    "template_patch",
    "undo_of",
]

TYPES = {"endpoint": "QUEUE", "lb": "LOAD_BALANCER"}
"""RunPod's words for the kinds of endpoint."""
_POD_ONLY = ("WHISPERLIVE_PORT", "HEALTH_CHECK_PORT")
_OUR_PREFIXES = ("WHISPER_", "MAX_", "LOG_", "PORT")
_RELEASE = frozenset({"image", "env", "disk", "ports", "registry", "gpu"})
"""Fields of a change that give workers another container or place."""
_SHA_CHARS = 12
_MS = 1000


@dataclass(frozen=True)
class EndpointOptions:
    """An endpoint but for its name. `env` is without what `make_template` adds; disk in GB."""

    kind: EndpointKind
    image: str
    env: Mapping[str, str]
    gpu: EndpointGpu
    scale: Scale
    flashboot: bool = True
    disk_gb: int = 20
    ports: tuple[str, ...] = ()
    data_centers: tuple[str, ...] = ()
    registry_id: str | None = None


@dataclass(frozen=True)
class Change:
    """A field in which an endpoint differs from what it is to be; secrets are hidden."""

    field: str
    before: str
    after: str

    def document(self) -> dict[str, str]:
        """As --json shows it."""
        return {"field": self.field, "before": self.before, "after": self.after}


def endpoint_env(
    kind: EndpointKind,
    base: Mapping[str, str],
    extra: Mapping[str, str],
    *,
    token: str | None,
    ws_port: int,
    health_port: int,
) -> dict[str, str]:
    """The workers' environment: `base` (settings of the server), then `extra`, then what the kind needs.

    `token` is what clients of a load balancer must show beside the RunPod key. Raises UsageError for ports that are
    the same.
    """
    shared = {name: value for name, value in base.items() if name not in _POD_ONLY}
    if kind == "endpoint":
        return {"LOG_FORMAT": "json", "RUNPOD_DEBUG_LEVEL": "INFO", **shared, **extra, "WHISPER_MODE": "serverless"}
    if ws_port == health_port:
        raise UsageError(f"WHISPERLIVE_PORT and HEALTH_CHECK_PORT are both {ws_port}", hint="change one")
    env = {"LOG_FORMAT": "json", **shared, **extra, "WHISPER_MODE": "pod"}
    # One port for all: RunPod asks PORT_HEALTH for /ping, and what is not exposed answers 502 for minutes.
    env |= dict.fromkeys(("PORT", "PORT_HEALTH", "WHISPERLIVE_PORT"), str(ws_port))
    env["HEALTH_CHECK_PORT"] = str(health_port)
    # The load balancer itself wants the RunPod key in the Authorization header, and hands that header on: a token of
    # ours has no place there, and nobody without the key gets through.
    env[TOKEN if token is not None else NO_AUTH] = token if token is not None else "1"
    return env


def lb_ports(kind: EndpointKind, ws_port: int) -> tuple[str, ...]:
    """What the workers expose: nothing for a queue, whose workers ask for their jobs."""
    return (f"{ws_port}/http",) if kind == "lb" else ()


def make_template(options: EndpointOptions, *, name: str, builder_id: str) -> TemplateSpec:
    """The body of the template's create."""
    from builder.api.models_serverless import TemplateSpec

    return TemplateSpec(
        name=name,
        image=options.image,
        env=_marked(options, builder_id),
        disk=options.disk_gb,
        ports=options.ports or None,
        registry=options.registry_id,
    )


def make_endpoint(options: EndpointOptions, *, name: str, template_id: str) -> EndpointSpec:
    """The body of the endpoint's create."""
    from builder.api.models_serverless import EndpointSpec, WorkersSpec

    scale = options.scale
    return EndpointSpec(
        name=name,
        type="QUEUE" if options.kind == "endpoint" else "LOAD_BALANCER",
        template_id=template_id,
        gpu=options.gpu,
        workers=WorkersSpec(min=scale.min, max=scale.max, idle_timeout=scale.idle_s),
        scaling=_scaling(scale),
        flashboot=_flashboot(options),
        timeout=scale.job_timeout_s * _MS,
        data_center_ids=options.data_centers or None,
    )


def spec_sha(options: EndpointOptions) -> str:
    """A short name for what the workers were asked to be; of secrets only counts that they are set."""
    env = {name: "set" if is_secret_name(name) else value for name, value in options.env.items()}
    body = {
        "image": options.image,
        "env": env,
        "disk": options.disk_gb,
        "ports": options.ports,
        "registry": options.registry_id,
        "gpu": options.gpu.body(),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:_SHA_CHARS]


def drift(endpoint: Endpoint, options: EndpointOptions) -> tuple[Change, ...]:
    """Every field in which `endpoint` differs from what it is to be now."""
    scale, gpu = options.scale, endpoint.gpu or {}
    pairs: list[tuple[str, object, object]] = [
        ("image", endpoint.image, options.image),
        ("disk", endpoint.disk, options.disk_gb),
        ("ports", sorted(endpoint.ports), sorted(options.ports)),
        ("registry", endpoint.registry or None, options.registry_id),
        ("gpu.pools", sorted(gpu.get("pools") or ()), sorted(options.gpu.pools)),
        ("gpu.excludedTypes", sorted(gpu.get("excludedTypes") or ()), sorted(options.gpu.excluded_types or ())),
        ("gpu.count", gpu.get("count") or 1, options.gpu.count),
        ("gpu.minCudaVersion", gpu.get("minCudaVersion") or None, options.gpu.min_cuda_version),
        ("workers.min", endpoint.min_workers, scale.min),
        ("workers.max", endpoint.max_workers, scale.max),
        ("scaling", _scaling_text(endpoint.scaling), _scaling_text(_scaling(scale))),
        ("timeout", endpoint.timeout, scale.job_timeout_s * _MS),
        ("flashboot", _on_off(endpoint.flashboot != "OFF"), _on_off(options.flashboot)),
    ]
    if scale.idle_s is not None:
        pairs.append(("workers.idleTimeout", endpoint.workers.get("idleTimeout"), scale.idle_s))
    if options.data_centers:
        # Where none was asked for the API may list all of them.
        pairs.append(("dataCenterIds", sorted(endpoint.data_center_ids), sorted(options.data_centers)))
    found = [Change(name, _shown(has), _shown(wanted)) for name, has, wanted in pairs if has != wanted]
    return (*found, *_env_drift(endpoint.env, options.env))


def patch_of(
    endpoint: Endpoint, options: EndpointOptions, changes: Sequence[Change], builder_id: str
) -> dict[str, Any]:
    """The body of the change (PATCH) that makes `endpoint` what it is to be: the fields that differ, whole."""
    fields = {change.field.partition(".")[0] for change in changes}
    if fields & _RELEASE:
        fields.add("env")
    wanted = make_endpoint(options, name=endpoint.name, template_id="-").body()
    wanted |= {"image": options.image, "disk": options.disk_gb, "ports": list(options.ports)}
    wanted["registry"] = options.registry_id
    # The environment is replaced as a whole: what others put there stays.
    foreign = {name: value for name, value in endpoint.env.items() if not _is_ours(name)}
    wanted["env"] = {**foreign, **_marked(options, builder_id)}
    # Whatever was excluded or required before must not stay.
    wanted["gpu"] = {"excludedTypes": [], "minCudaVersion": "", **wanted["gpu"]}
    if (endpoint.gpu or {}).get("allowedCudaVersions"):
        wanted["gpu"]["allowedCudaVersions"] = []
    return {name: wanted[name] for name in sorted(fields)}


def undo_of(before: Endpoint, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The body that puts back what `patch` changed."""
    gpu = before.gpu or {}
    workers = {name: value for name, value in before.workers.items() if value is not None}
    if before.type == "QUEUE" and before.scaling.get("type") == "REQUEST_COUNT":
        # RunPod refuses it there, whatever it shows.
        workers.pop("idleTimeout", None)
    allowed = list(gpu.get("allowedCudaVersions") or ())
    whole: dict[str, Any] = {
        "image": before.image,
        "env": dict(before.env),
        "disk": before.disk,
        "ports": list(before.ports),
        "registry": before.registry,
        "gpu": {
            "pools": list(gpu.get("pools") or ()),
            "excludedTypes": list(gpu.get("excludedTypes") or ()),
            "count": gpu.get("count") or 1,
            "minCudaVersion": gpu.get("minCudaVersion") or "",
            "allowedCudaVersions": allowed,
        },
        "workers": workers,
        "scaling": dict(before.scaling),
        "timeout": before.timeout,
        "flashboot": before.flashboot,
        "dataCenterIds": list(before.data_center_ids),
    }
    return {name: whole[name] for name in patch}


def template_patch(options: EndpointOptions, builder_id: str) -> dict[str, Any]:
    """The body that makes the template what the endpoint is now."""
    return {
        "image": options.image,
        "env": _marked(options, builder_id),
        "disk": options.disk_gb,
        "ports": list(options.ports),
        "registry": options.registry_id,
    }


def makes_release(patch: Mapping[str, Any]) -> bool:
    """True if workers are replaced for this change."""
    return bool(_RELEASE & patch.keys())


def _marked(options: EndpointOptions, builder_id: str) -> dict[str, str]:
    return {**options.env, BUILDER_ID: builder_id, SPEC_SHA: spec_sha(options)}


def _scaling(scale: Scale) -> dict[str, Any]:
    if scale.requests_per_worker is not None:
        return {"type": "REQUEST_COUNT", "requestCount": scale.requests_per_worker}
    return {"type": "QUEUE_DELAY", "queueDelay": scale.queue_delay_s}


def _flashboot(options: EndpointOptions) -> FlashBoot:
    return "FLASHBOOT" if options.flashboot else "OFF"


def _is_ours(name: str) -> bool:
    return name.startswith(_OUR_PREFIXES) or name in (BUILDER_ID, SPEC_SHA)


def _env_drift(has: Mapping[str, str], wanted: Mapping[str, str]) -> list[Change]:
    # Variables that the platform or an image adds are nobody's wish; ours that are gone are.
    names = {name for name in has if _is_ours(name) and name not in (BUILDER_ID, SPEC_SHA)} | set(wanted)
    found = []
    for name in sorted(names):
        before, after = has.get(name), wanted.get(name)
        if before != after:
            shown = [
                HIDDEN if value is not None and is_secret_name(name) else _shown(value) for value in (before, after)
            ]
            found.append(Change(f"env.{name}", *shown))
    return found


def _scaling_text(scaling: Mapping[str, Any]) -> str:
    if scaling.get("type") == "REQUEST_COUNT":
        return f"{scaling.get('requestCount')} requests per worker"
    delay = scaling.get("queueDelay")
    return f"{delay:g} s in the queue" if isinstance(delay, (int, float)) else "-"


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)


def _on_off(value: bool) -> str:
    return "on" if value else "off"
