"""Bodies of REST v2's requests: what is allowed in them, in the API's own words; needs no document.

422 for what breaks the shape, 400 for what breaks a rule between fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.fakes.runpod.account import Account
from tests.fakes.runpod.body_checks import (
    Check,
    additional,
    choice,
    closed,
    env,
    flag,
    list_of,
    refuse,
    text,
    text_or_null,
    whole,
)
from tests.fakes.runpod.pod import Pod, PodRefusedError

__all__ = [
    "CUDA",
    "check_ports",
    "check_registry",
    "checked_action",
    "checked_create",
    "checked_patch",
    "checked_registry",
]

CUDA = r"\d+\.\d+"
MIN_PERSISTENT_GB = 10


_MOUNTS = closed(
    {
        "persistent": closed({"size": whole(MIN_PERSISTENT_GB), "path": text()}, ("size", "path")),
        "network": list_of(closed({"volumeId": text(), "path": text()}, ("volumeId", "path")), at_most=1),
    }
)
_CONTAINER: dict[str, Check] = {
    "image": text(),
    "args": text(),
    "disk": whole(1),
    "env": env,
    "ports": list_of(text()),
    "registry": text_or_null,
    "mounts": _MOUNTS,
    "globalNetworking": flag,
    "name": text(1),
}
_CREATE = closed(
    {
        **_CONTAINER,
        "cloud": choice("SECURE", "COMMUNITY"),
        "gpu": closed(
            {
                "id": text(),
                "count": whole(1),
                "allowedCudaVersions": list_of(text(pattern=CUDA)),
                "minCudaVersion": text(pattern=CUDA),
            },
            ("id",),
        ),
        "cpu": closed({"id": text(1), "vcpuCount": whole(2)}, ("id", "vcpuCount")),
        "dataCenterIds": list_of(text()),
        "startJupyter": flag,
        "startSsh": flag,
        "templateId": text(1),
    },
    ("name",),
)
_PATCH = closed({**_CONTAINER, "locked": flag, "templateId": text()})
_ACTION = closed({"action": choice("start", "stop", "restart", "terminate")}, ("action",))
_REGISTRY = closed({name: text(1) for name in ("name", "username", "password")}, ("name", "username", "password"))
_TEMPLATED = ("image", "args", "disk", "ports", "registry", "mounts")


def checked_create(body: Any, account: Account) -> dict[str, Any]:
    """A create body with its template's settings filled in. Raises PodRefusedError 400, 404 or 422."""
    errors = _CREATE(body, "$")
    if isinstance(body, dict) and not {"image", "templateId"} & set(body):
        # As the API does: one rule that fails makes every field look as if it were not allowed.
        errors = ["$: missing property 'image'", *errors, additional("$", list(body))]
    refuse(errors)
    _check_rules(body, account)
    return _with_template(body, account) if "templateId" in body else dict(body)


def checked_patch(body: Any, pod: Pod, account: Account) -> dict[str, Any]:
    """A patch body for this pod. Raises PodRefusedError 400 or 422."""
    refuse(_PATCH(body, "$"))
    check_ports(body)
    check_registry(body, account)
    _check_mounts(body.get("mounts") or {}, pod)
    return dict(body)


def checked_action(body: Any) -> str:
    """The action. Raises PodRefusedError 422."""
    refuse(_ACTION(body, "$"))
    return str(body["action"])


def checked_registry(body: Any) -> dict[str, str]:
    """A credential to store. Raises PodRefusedError 422."""
    refuse(_REGISTRY(body, "$"))
    return dict(body)


def _check_rules(body: Mapping[str, Any], account: Account) -> None:
    if ("gpu" in body) == ("cpu" in body):
        raise PodRefusedError(400, "exactly one of gpu or cpu must be set")
    gpu = body.get("gpu") or {}
    if "allowedCudaVersions" in gpu and "minCudaVersion" in gpu:
        raise PodRefusedError(400, "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive")
    mounts = body.get("mounts") or {}
    if "persistent" in mounts and "network" in mounts:
        raise PodRefusedError(400, "mounts.persistent and mounts.network are mutually exclusive")
    if "persistent" in mounts and "cpu" in body:
        raise PodRefusedError(400, "mounts.persistent is not available on CPU pods")
    check_ports(body)
    check_registry(body, account)


def check_ports(body: Mapping[str, Any]) -> None:
    """Raises PodRefusedError 400 for ports of a wrong form."""
    for port in body.get("ports") or []:
        number, _slash, kind = port.partition("/")
        if kind not in ("http", "tcp") or not number.isdigit() or not 1 <= int(number) <= 100_000:
            raise PodRefusedError(400, f"port {port!r} is not of the form port/http or port/tcp")


def check_registry(body: Mapping[str, Any], account: Account) -> None:
    """Raises PodRefusedError 400 for a credential that is not there."""
    if body.get("registry") is not None and body["registry"] not in account.registries:
        raise PodRefusedError(400, "container registry credential not found")


def _check_mounts(mounts: Mapping[str, Any], pod: Pod) -> None:
    if set(mounts) - set(pod.mounts):
        raise PodRefusedError(400, "the kind of a mount is fixed when the pod is created")
    if "network" in mounts:
        if not mounts["network"]:
            raise PodRefusedError(400, "mounts cannot be cleared")
        if mounts["network"][0]["volumeId"] != pod.mounts["network"][0]["volumeId"]:
            raise PodRefusedError(400, "the volume of a network mount cannot be changed")


def _with_template(body: Mapping[str, Any], account: Account) -> dict[str, Any]:
    template = next((each for each in account.templates if each["id"] == body["templateId"]), None)
    if template is None:
        raise PodRefusedError(404, "template not found")
    settings = {name: template[name] for name in _TEMPLATED if template.get(name) is not None}
    env = {**(template.get("env") or {}), **(body.get("env") or {})}
    return {**settings, **{name: value for name, value in body.items() if name != "templateId"}, "env": env}
