"""Which endpoint a verb means, and what is written down about it in `endpoint.json`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from builder.deploy.create import CREATE_OVER_S
from builder.errors import ConflictError, NotFoundError, UsageError
from builder.instants import unix_s_of
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.runtime import Runtime
    from builder.state import Pending

__all__ = [
    "chosen_endpoint_id",
    "end_pending",
    "forget",
    "forget_old_names",
    "plain_name",
    "recorded",
    "remember",
]

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MAX_SHOWN = 60
VARIABLE = "RUNPOD_ENDPOINT_ID"
FLASHBOOT_SUFFIX = " -fb"
"""What RunPod puts behind the name of an endpoint with FlashBoot."""


def chosen_endpoint_id(run: Runtime, given: str | None) -> str:
    """The endpoint a verb means: the one named, else RUNPOD_ENDPOINT_ID, else the one deployed last.

    An empty name is no default: it is most often a variable of a script that is not set.

    Raises UsageError for what no id looks like, ConflictError if none is named and `endpoint.json` is damaged,
    NotFoundError if there is none.
    """
    if given is not None:
        return _checked("the endpoint", given)
    if run.settings.endpoint_id:
        return _checked(VARIABLE, run.settings.endpoint_id)
    if run.state.is_damaged("endpoint"):
        raise ConflictError(
            f"{run.state.folder / 'endpoint.json'} is damaged: which endpoint was deployed from here is not known",
            hint="name its id; find it: python -m builder endpoint list",
        )
    recorded_id = str((run.state.read("endpoint") or {}).get("endpoint_id") or "")
    if recorded_id:
        return recorded_id
    raise NotFoundError(
        "no endpoint was deployed from here",
        hint="name its id (python -m builder endpoint list), or deploy one: python -m builder deploy endpoint",
    )


def recorded(run: Runtime, endpoint_id: str) -> dict[str, Any] | None:
    """What was written down about the endpoint when it was deployed; None if it was not deployed from here."""
    document = run.state.read("endpoint")
    return document if document is not None and document.get("endpoint_id") == endpoint_id else None


def remember(run: Runtime, endpoint_id: str, **changes: Any) -> None:
    """Change what is written down about the endpoint, if it is the one deployed last."""
    document = recorded(run, endpoint_id)
    if document is not None:
        run.state.write("endpoint", {**document, **changes, "last_updated": iso_time(run.clock.unix_s())})


def forget(run: Runtime, endpoint_id: str) -> bool:
    """Take the endpoint out of `artifacts` and `.env`; True if it stood in one of them."""
    from builder.env_file import update_env_file

    was_recorded = recorded(run, endpoint_id) is not None
    if was_recorded:
        run.state.remove("endpoint")
    if run.env_file.get(VARIABLE, "").strip() == endpoint_id:
        update_env_file(run.env_path, {VARIABLE: None})
        run.console.note(f"{VARIABLE} was taken out of {run.env_path.name}")
        return True
    return was_recorded


def plain_name(name: str) -> str:
    """An endpoint's name as it was asked for."""
    return name.removesuffix(FLASHBOOT_SUFFIX)


def forget_old_names(run: Runtime, kind: Pending, names: Collection[str]) -> list[str]:
    """Names whose creation was begun, that none of `names` is now, and that may yet come; older ones are forgotten.

    Raises DiskFullError, BuilderError.
    """
    missing = [name for name in run.state.pending(kind) if name not in names]
    return [name for name in missing if not end_pending(run, name, kind)]


def end_pending(run: Runtime, name: str, kind: Pending) -> bool:
    """Forget a name whose creation was begun, unless what it made may show yet; False then."""
    began_s = unix_s_of(run.state.pending(kind).get(name))
    if began_s is not None and run.clock.unix_s() - began_s <= CREATE_OVER_S:
        return False
    run.state.end_pending(name, kind)
    return True


def _checked(what: str, endpoint_id: str) -> str:
    text = endpoint_id.strip()
    if not _ID.fullmatch(text):
        shown = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
        raise UsageError(
            f"{what}: {shown!r} is not allowed; legal: 1 to 100 letters, digits, - and _",
            hint="see the ids: python -m builder endpoint list",
        )
    return text
