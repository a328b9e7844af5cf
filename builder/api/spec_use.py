"""Which operations of RunPod's REST API v2 the builder uses, by which method, what of them it needs, and why it leaves
the others alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin

from builder.api.models import BillingRecord, GpuType, NetworkVolume, Pod, PodSpec, Registry
from builder.api.models_serverless import (
    Endpoint,
    EndpointSpec,
    Releases,
    Template,
    TemplateSpec,
    Workers,
)

__all__ = ["USED", "WAIVED", "Need", "needs"]

Model = type[Any]
"""One of `builder.api.models` or `builder.api.models_serverless`."""


class Need(NamedTuple):
    """A field or parameter that counts; `is_sure`: always sent, or not done without; `is_closed`: no new value."""

    is_sure: bool = False
    is_closed: bool = False


@dataclass(frozen=True)
class Use:
    """`method` of `builder.api.control_plane.ControlPlane`, and what it sends and reads.

    `parameters` (`?query`, `^header`) and the fields of a `body` that is no model are written with `*` at the end if
    they are sent each time. `answer` is read at the top, or as the list `items`.
    """

    method: str
    parameters: tuple[str, ...] = ()
    body: Model | tuple[str, ...] = ()
    answer: Model | None = None
    items: str = ""


USED = {
    "listPods": Use("list_pods", answer=Pod, items="pods"),
    "createPod": Use("create_pod", body=PodSpec, answer=Pod),
    "getPod": Use("get_pod", answer=Pod),
    "updatePod": Use("update_pod", body=("env*",), answer=Pod),
    "deletePod": Use("delete_pod"),
    "podAction": Use("act", body=("action*",), answer=Pod),
    "getPodLogs": Use("logs", ("?source", "?tail", "?since", "^Last-Event-ID")),
    "listGpuTypes": Use(
        "gpu_types",
        ("?include*", "?product*", "?count*", "?cloud", "?minCudaVersion"),
        answer=GpuType,
        items="gpus",
    ),
    "listPodBilling": Use(
        "pod_billing",
        ("?startTime*", "?endTime*", "?bucketSize*", "?podId"),
        answer=BillingRecord,
        items="records",
    ),
    "listEndpoints": Use("endpoints", answer=Endpoint, items="endpoints"),
    "createEndpoint": Use("create_endpoint", body=EndpointSpec, answer=Endpoint),
    "getEndpoint": Use("get_endpoint", answer=Endpoint),
    "updateEndpoint": Use(
        "update_endpoint",
        body=(
            *("workers", "scaling", "gpu", "flashboot", "timeout", "dataCenterIds"),
            *("image", "env", "disk", "ports", "registry"),
        ),
        answer=Endpoint,
    ),
    "deleteEndpoint": Use("delete_endpoint"),
    "listEndpointWorkers": Use("endpoint_workers", answer=Workers),
    "listEndpointReleases": Use("endpoint_releases", answer=Releases),
    "getWorkerLogs": Use("worker_logs", ("?source", "?tail", "?since", "^Last-Event-ID")),
    "listTemplates": Use("templates", answer=Template, items="templates"),
    "createTemplate": Use("create_template", body=TemplateSpec, answer=Template),
    "updateTemplate": Use("update_template", body=("image*", "env*", "disk*", "ports*", "registry*"), answer=Template),
    "deleteTemplate": Use("delete_template"),
    "listNetworkVolumes": Use("network_volumes", answer=NetworkVolume, items="networkVolumes"),
    "listRegistries": Use("registries", answer=Registry, items="registries"),
    "createRegistry": Use("create_registry", body=("name*", "username*", "password*"), answer=Registry),
}
"""By operationId."""

_CLUSTERS = "clusters: one GPU serves, so none is offered; one made elsewhere is billed, and check-all does not see it"
_TEMPLATES = "an endpoint's own template is found in the list; other people's are not run"
_VOLUMES = "a volume is made once, in the console; the builder lists what costs and mounts one by its id"
_DELEGATIONS = "delegated access to a registry of AWS: private images are pulled with a stored login"
_SSH = "pods serve speech and are looked into by logs; the account's SSH keys are not ours to change"
_ONE_GPU = "the list of GPU types has all it tells"
_CPUS = "pods without a GPU are not offered"
_DATA_CENTERS = "the list of GPU types has the stock by data center"
_BILLING = (
    "past costs are asked for pods only; what endpoints and volumes cost is told from what stands, and no clusters"
)
WAIVED = {
    "getSshKeys": _SSH,
    "updateSshKeys": _SSH,
    "listClusters": _CLUSTERS,
    "createCluster": _CLUSTERS,
    "getCluster": _CLUSTERS,
    "updateCluster": _CLUSTERS,
    "deleteCluster": _CLUSTERS,
    "listClusterPods": _CLUSTERS,
    "getTemplate": _TEMPLATES,
    "listPublicTemplates": _TEMPLATES,
    "createNetworkVolume": _VOLUMES,
    "getNetworkVolume": _VOLUMES,
    "updateNetworkVolume": _VOLUMES,
    "deleteNetworkVolume": _VOLUMES,
    "getRegistry": "the list has all it tells",
    "deleteRegistry": "a credential may be in use by pods elsewhere; the console shows by which",
    "listDelegations": _DELEGATIONS,
    "createDelegation": _DELEGATIONS,
    "revokeDelegation": _DELEGATIONS,
    "getGpuType": _ONE_GPU,
    "listCpuTypes": _CPUS,
    "getCpuType": _CPUS,
    "listDataCenters": _DATA_CENTERS,
    "getDataCenter": _DATA_CENTERS,
    "listBilling": _BILLING,
    "listServerlessBilling": _BILLING,
    "listEndpointBilling": "costs of RunPod's own public endpoints, which are not used",
    "listNetworkVolumeBilling": _BILLING,
    "listClusterBilling": _CLUSTERS,
}
"""operationId: why no method of ours calls it."""

_PLAIN = Need()
_Shape = Mapping[str, tuple[Need, "Model | None"]]
"""Fields that count, with the model of what is in them; None in its place: all that is in it counts."""
_REFUSAL: _Shape = {name: (Need(), None) for name in ("detail", "errors", "title")}


def needs(summary: Mapping[str, Any]) -> dict[str, Need]:
    """What the builder needs of `summary` (see `builder.api.spec_summary`), by the names of `spec_diff`'s facts.

    Also the operations and schemas that are used at all.
    """
    walk = _Walk(summary)
    for name, operation in summary["operations"].items():
        use = USED.get(name)
        if use is None:
            continue
        walk.found[name] = walk.found[f"{name} request"] = Need(is_sure=True)
        for parameter in use.parameters:
            fact = f"{name} {parameter.removesuffix('*')}"
            walk.found[fact] = Need(is_sure=parameter.endswith("*"))
            walk.into("request", operation["parameters"].get(fact.partition(" ")[2], ""), None)
        walk.into("request", operation["request"], _body(use))
        for status, word in operation["answers"].items():
            if word != "any":
                walk.found[f"answer {name} {status}"] = Need()
                walk.into("answer", word, _answer(use))
        walk.found[f"answer {name} refusal"] = Need()
        walk.into("refusal", operation["refusal"], _REFUSAL)
    return walk.found


@dataclass
class _Walk:
    summary: Mapping[str, Any]
    found: dict[str, Need] = field(default_factory=dict)

    def into(self, part: str, word: str, shape: _Shape | None, above: Need = _PLAIN) -> None:
        """Mark the fields of every schema that `word` (a type) names."""
        schemas = self.summary[f"{part}s"]
        for name in re.findall(r"\w+", word):
            if name in schemas:
                self.found[f"{part} {name}"] = Need()
                self._fields(part, name, "", shape, above)

    def _fields(self, part: str, schema: str, prefix: str, shape: _Shape | None, above: Need) -> None:
        fields = self.summary[f"{part}s"][schema]
        for name, word in fields.items():
            last = name.removeprefix(prefix)
            if not name.startswith(prefix) or not re.fullmatch(r"[^. ]+", last):
                continue
            fact = f"{part} {schema}.{name}"
            seen = self.found.get(fact)
            need, inner = _PLAIN, shape
            if last == "is":
                need = Need(is_closed=above.is_closed or (seen is not None and seen.is_closed))
            elif shape is not None:
                if last not in shape:
                    continue
                need, model = shape[last]
                inner = _shape(model) if model else None
            if seen is not None and (seen == need if last == "is" else shape is None):
                continue  # also what ends a circle
            self.found[fact] = need
            self.into(part, word, inner, need)
            for deeper in (f"{name}.", f"{name}[]."):
                self._fields(part, schema, deeper, inner, need)


def _body(use: Use) -> _Shape:
    if isinstance(use.body, tuple):
        return {name.removesuffix("*"): (Need(is_sure=name.endswith("*")), None) for name in use.body}
    return _shape(use.body)


def _answer(use: Use) -> _Shape:
    if use.answer is None or not use.items:
        return _shape(use.answer) if use.answer else {}
    return {use.items: (Need(is_sure=True), use.answer)}


def _shape(model: Model) -> _Shape:
    """The fields of a model, as the API names them."""
    shape = {}
    for info in model.model_fields.values():
        alias = info.validation_alias or info.alias
        types = [info.annotation, *_inside(info.annotation)]
        inner = next((each for each in types if hasattr(each, "model_fields")), None)
        # A request leaves out what is None.
        is_sent = model.model_config.get("extra") == "forbid" and info.default is not None
        is_closed = any(get_origin(each) is Literal for each in types)
        shape[getattr(alias, "choices", [alias])[0]] = (Need(info.is_required() or is_sent, is_closed), inner)
    return shape


def _inside(annotation: Any) -> Iterator[Any]:
    for each in get_args(annotation):
        yield each
        yield from _inside(each)
