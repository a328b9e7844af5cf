"""What both REST clients need: ids in paths, answers to creates, deletes of what is gone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, TypeVar

from pydantic import BaseModel

from builder.api.answers import parse_json
from builder.api.models import LogEvent, Pod, PodSpec
from builder.api.models_serverless import Endpoint, EndpointSpec, Job, Template
from builder.api.problems import one_line, parsed
from builder.errors import AmbiguousError, BadAnswerError, CapacityError, NotFoundError

__all__ = ["checked_id", "given", "log_event", "made", "placement_hint", "rfc3339", "surely_gone"]

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_MAX_SHOWN = 60
_WITH_ID = (Pod, Endpoint, Template, Job)
Model = TypeVar("Model", bound=BaseModel)


def checked_id(thing_id: str, what: str = "pod") -> str:
    """`thing_id`, the id of a `what`, fit for a path.

    Raises NotFoundError: what no id looks like would address something else.
    """
    if not _ID.fullmatch(thing_id):
        raise NotFoundError(f"no {what} {one_line(thing_id, _MAX_SHOWN)!r}: an id has letters, digits, - and _ only")
    return thing_id


def given(values: Mapping[str, Any]) -> dict[str, str]:
    """The values that are set, as text."""
    return {name: str(value) for name, value in values.items() if value is not None}


def rfc3339(moment: datetime) -> str:
    """UTC with seconds, as the APIs write it; a moment without a zone counts as UTC."""
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return zoned.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def made(kind: type[Model], data: Any, what: str) -> Model:
    """The answer to something that changes things. Raises AmbiguousError if it cannot be read: it did happen."""
    try:
        answer = parsed(kind, data, what)
    except BadAnswerError as error:
        raise AmbiguousError(str(error)) from None
    if isinstance(answer, _WITH_ID) and not _ID.fullmatch(answer.id):
        raise AmbiguousError(f"{what}: the answer has no id, but {one_line(answer.id, _MAX_SHOWN)!r}")
    return answer


def surely_gone(
    thing_id: str, listed: Iterable[Pod | Endpoint | Template], what: str, kind: str = "pod", cost: str = "be billed"
) -> None:
    """Check that a `kind` of thing whose delete found nothing is in no list.

    An API that answers 404 to everything, because it moved, must not pass for one that has deleted: pods and workers
    cost money. Raises BadAnswerError; `cost` is what the thing may still do.
    """
    if any(each.id == thing_id and getattr(each, "status", "") != "TERMINATED" for each in listed):
        raise BadAnswerError(
            f"{what}: the API says that there is no such {kind}, and lists it",
            hint=f"it may still {cost}: try again, or end {thing_id} in RunPod's console",
        )


def placement_hint(error: CapacityError, spec: PodSpec | EndpointSpec) -> CapacityError:
    """`error`, with the data centers that were searched, if the request named some."""
    if not spec.data_center_ids:
        return error
    only = ", ".join(spec.data_center_ids)
    hint = f"only {only} was searched: name more data centers (RUNPOD_DATA_CENTERS), or none for all"
    return CapacityError(str(error), hint=hint, status=error.status, request_id=error.request_id)


def log_event(event_id: str, data: str) -> LogEvent | None:
    """One line of a log from one server-sent event; None if it is none."""
    body = parse_json(data)[1]
    if not isinstance(body, dict) or not isinstance(body.get("line"), str):
        return None
    moment, source = str(body.get("ts", "")), str(body.get("source", ""))
    return LogEvent(id=event_id or moment, ts=moment, source=source, line=body["line"])
