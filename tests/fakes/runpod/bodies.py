"""Bodies of REST v2's requests: what is allowed in them, in the API's own words; needs no document.

422 for what breaks the shape, 400 for what breaks a rule between fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.runpod.account import Account
from tests.fakes.runpod.pod import Pod, PodRefusedError

__all__ = ["checked_action", "checked_create", "checked_patch", "checked_registry"]

Check = Callable[[Any, str], list[str]]
CUDA = r"\d+\.\d+"
MIN_PERSISTENT_GB = 10


def _text(at_least: int = 0, pattern: str | None = None) -> Check:
    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, str):
            return [f"{path}: got {_kind(value)}, want string"]
        if len(value) < at_least:
            return [f"{path}: minLength: got {len(value)}, want {at_least}"]
        if pattern is not None and not re.fullmatch(pattern, value):
            return [f"{path}: {value!r} does not match pattern '^{pattern}$'"]
        return []

    return check


def _whole(at_least: int) -> Check:
    def check(value: Any, path: str) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"{path}: got {_kind(value)}, want integer"]
        return [f"{path}: minimum: got {value}, want {at_least}"] if value < at_least else []

    return check


def _flag(value: Any, path: str) -> list[str]:
    return [] if isinstance(value, bool) else [f"{path}: got {_kind(value)}, want boolean"]


def _registry(value: Any, path: str) -> list[str]:
    return [] if value is None or isinstance(value, str) else [f"{path}: got {_kind(value)}, want null or string"]


def _choice(*values: str) -> Check:
    def check(value: Any, path: str) -> list[str]:
        shown = ", ".join(f"'{each}'" for each in values)
        return [] if value in values else [f"{path}: value must be one of {shown}"]

    return check


def _list(item: Check, at_most: int | None = None) -> Check:
    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: got {_kind(value)}, want array"]
        if at_most is not None and len(value) > at_most:
            return [f"{path}: maxItems: got {len(value)}, want {at_most}"]
        return [error for number, each in enumerate(value) for error in item(each, f"{path}[{number}]")]

    return check


def _env(value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: got {_kind(value)}, want object"]
    return [error for name, each in value.items() for error in _text()(each, f"{path}.{name}")]


def _closed(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: got {_kind(value)}, want object"]
        errors = [f"{path}: missing property '{name}'" for name in required if name not in value]
        unknown = [name for name in value if name not in fields]
        if unknown:
            errors.append(_additional(path, unknown))
        return errors + [
            error for name, rule in fields.items() if name in value for error in rule(value[name], f"{path}.{name}")
        ]

    return check


def _additional(path: str, names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names)
    return f"{path}: additional properties {shown} not allowed"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


_MOUNTS = _closed(
    {
        "persistent": _closed({"size": _whole(MIN_PERSISTENT_GB), "path": _text()}, ("size", "path")),
        "network": _list(_closed({"volumeId": _text(), "path": _text()}, ("volumeId", "path")), at_most=1),
    }
)
_CONTAINER: dict[str, Check] = {
    "image": _text(),
    "args": _text(),
    "disk": _whole(1),
    "env": _env,
    "ports": _list(_text()),
    "registry": _registry,
    "mounts": _MOUNTS,
    "globalNetworking": _flag,
    "name": _text(1),
}
_CREATE = _closed(
    {
        **_CONTAINER,
        "cloud": _choice("SECURE", "COMMUNITY"),
        "gpu": _closed(
            {
                "id": _text(),
                "count": _whole(1),
                "allowedCudaVersions": _list(_text(pattern=CUDA)),
                "minCudaVersion": _text(pattern=CUDA),
            },
            ("id",),
        ),
        "cpu": _closed({"id": _text(1), "vcpuCount": _whole(2)}, ("id", "vcpuCount")),
        "dataCenterIds": _list(_text()),
        "startJupyter": _flag,
        "startSsh": _flag,
        "templateId": _text(1),
    },
    ("name",),
)
_PATCH = _closed({**_CONTAINER, "locked": _flag, "templateId": _text()})
_ACTION = _closed({"action": _choice("start", "stop", "restart", "terminate")}, ("action",))
_REGISTRY = _closed({name: _text(1) for name in ("name", "username", "password")}, ("name", "username", "password"))
_TEMPLATED = ("image", "args", "disk", "ports", "registry", "mounts")


def checked_create(body: Any, account: Account) -> dict[str, Any]:
    """A create body with its template's settings filled in. Raises PodRefusedError 400, 404 or 422."""
    errors = _CREATE(body, "$")
    if isinstance(body, dict) and not {"image", "templateId"} & set(body):
        # As the API does: one rule that fails makes every field look as if it were not allowed.
        errors = ["$: missing property 'image'", *errors, _additional("$", list(body))]
    _refuse(errors)
    _check_rules(body, account)
    return _with_template(body, account) if "templateId" in body else dict(body)


def checked_patch(body: Any, pod: Pod, account: Account) -> dict[str, Any]:
    """A patch body for this pod. Raises PodRefusedError 400 or 422."""
    _refuse(_PATCH(body, "$"))
    _check_ports(body)
    _check_registry(body, account)
    _check_mounts(body.get("mounts") or {}, pod)
    return dict(body)


def checked_action(body: Any) -> str:
    """The action. Raises PodRefusedError 422."""
    _refuse(_ACTION(body, "$"))
    return str(body["action"])


def checked_registry(body: Any) -> dict[str, str]:
    """A credential to store. Raises PodRefusedError 422."""
    _refuse(_REGISTRY(body, "$"))
    return dict(body)


def _refuse(errors: list[str]) -> None:
    if errors:
        raise PodRefusedError(422, "request body does not match the contract", tuple(errors))


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
    _check_ports(body)
    _check_registry(body, account)


def _check_ports(body: Mapping[str, Any]) -> None:
    for text in body.get("ports") or []:
        number, _slash, kind = text.partition("/")
        if kind not in ("http", "tcp") or not number.isdigit() or not 1 <= int(number) <= 100_000:
            raise PodRefusedError(400, f"port {text!r} is not of the form port/http or port/tcp")


def _check_registry(body: Mapping[str, Any], account: Account) -> None:
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
