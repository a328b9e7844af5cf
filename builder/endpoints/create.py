"""Creates a template and an endpoint exactly once, over an API that has no key for that.

As for pods: a unique name is written down before each request, and after a lost answer the thing of that name is
looked for and adopted. An endpoint is what costs money; its template costs nothing, but is not left lying about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from builder.deploy.create import CREATE_OVER_S, DOUBTFUL, LAST_LOOKS_S, LOOKS_S, MAX_TRIES
from builder.deploy.pod_spec import BUILDER_ID
from builder.endpoints.ending import delete_surely, remove_template
from builder.errors import BuilderError
from builder.instants import unix_s_of

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint, EndpointSpec, Template, TemplateSpec
    from builder.runtime import Runtime
    from builder.state import Pending

__all__ = [
    "PENDING_ENDPOINTS",
    "PENDING_TEMPLATES",
    "Attempt",
    "Part",
    "Swept",
    "create_endpoint_once",
    "create_template_once",
    "still_pending",
    "sweep",
]

PENDING_ENDPOINTS: Pending = "pending-endpoints"
PENDING_TEMPLATES: Pending = "pending-templates"
Made = TypeVar("Made")


@dataclass
class Part(Generic[Made]):
    """One of the two things that are made. `n_unknown` requests may each have made one that was not seen yet."""

    word: str
    pending: Pending
    made: Made | None = None
    n_unknown: int = 0
    has_sent: bool = False


@dataclass
class Attempt:
    """One deploy's traces. `previous` is endpoint.json as it was before."""

    name: str
    builder_id: str
    previous: Mapping[str, Any] | None
    template: Part[Template] = field(default_factory=lambda: Part("template", PENDING_TEMPLATES))
    endpoint: Part[Endpoint] = field(default_factory=lambda: Part("endpoint", PENDING_ENDPOINTS))
    has_recorded: bool = False

    @property
    def parts(self) -> tuple[Part[Any], Part[Any]]:
        """What costs money first: so they are ended."""
        return self.endpoint, self.template

    @property
    def has_sent(self) -> bool:
        """True if anything may have been made."""
        return any(part.has_sent for part in self.parts)

    @property
    def is_doubtful(self) -> bool:
        """True if there may be something that nobody has seen."""
        return any(part.n_unknown > 0 for part in self.parts)


@dataclass(frozen=True)
class Swept:
    """What was ended ("endpoint x"), and what could not be, with the reason."""

    ended: tuple[str, ...]
    left: Mapping[str, str]


def create_template_once(run: Runtime, spec: TemplateSpec, attempt: Attempt) -> Template:
    """The one template of this spec. Raises what the attempt raises; the name stays pending while it is in doubt."""
    return _once(
        run, attempt, attempt.template, lambda: run.api.create_template(spec), lambda: _templates(run, attempt)
    )


def create_endpoint_once(run: Runtime, spec: EndpointSpec, attempt: Attempt) -> Endpoint:
    """The one endpoint of this spec; otherwise as `create_template_once`."""
    return _once(
        run, attempt, attempt.endpoint, lambda: run.api.create_endpoint(spec), lambda: _endpoints(run, attempt)
    )


def sweep(run: Runtime, attempt: Attempt, *, keeps_made: bool = False, is_patient: bool = False) -> Swept:
    """End every endpoint and template of this deploy (but, with `keeps_made`, those it knows of), and see them gone.

    `is_patient`: look again for ten seconds (thirty beside what is kept), for what the lists do not show yet. Raises
    what listing raises.
    """
    kept = {part.made.id for part in attempt.parts if part.made is not None} if keeps_made else set()
    ended: dict[str, None] = {}
    left: dict[str, str] = {}
    looks_s = (*LOOKS_S, *(LAST_LOOKS_S if keeps_made else ())) if is_patient else ()
    for pause_s in (0.0, *looks_s):
        if pause_s:
            run.clock.sleep(pause_s)
        for endpoint in _endpoints(run, attempt):
            if endpoint.id not in kept:
                _end(ended, left, f"endpoint {endpoint.id}", partial(delete_surely, run, endpoint.id))
        for template in _templates(run, attempt):
            if template.id not in kept:
                _end(ended, left, f"template {template.id}", partial(remove_template, run, template.id))
    return Swept(tuple(ended), left)


def still_pending(run: Runtime) -> list[str]:
    """Endpoints and templates that an earlier deploy may have left, by name; what is over and not seen is forgotten.

    Raises what listing raises.
    """
    recorded = run.state.read("endpoint") or {}
    endpoint_id, template_id = recorded.get("endpoint_id"), recorded.get("template_id")
    seen: dict[Pending, Callable[[], list[str]]] = {
        PENDING_ENDPOINTS: lambda: [each.name for each in run.api.endpoints() if each.id != endpoint_id],
        PENDING_TEMPLATES: lambda: [each.name for each in run.api.templates() if each.id != template_id],
    }
    left = []
    for kind, names in seen.items():
        pending = run.state.pending(kind)
        listed = names() if pending else []
        for name, began in pending.items():
            began_s = unix_s_of(began)
            is_young = began_s is None or run.clock.unix_s() - began_s <= CREATE_OVER_S
            if is_young or any(each.startswith(name) for each in listed):
                left.append(name)
                continue
            # On a disk that is full it stays, and is looked for again.
            with suppress(BuilderError):
                run.state.end_pending(name, kind)
    return list(dict.fromkeys(left))


def _once(
    run: Runtime, attempt: Attempt, part: Part[Made], send: Callable[[], Made], look: Callable[[], list[Made]]
) -> Made:
    run.state.begin_pending(attempt.name, run.clock.unix_s(), part.pending)
    for left in reversed(range(MAX_TRIES)):
        # Until an answer says what came of it: an interrupt leaves it so.
        part.has_sent, part.n_unknown = True, part.n_unknown + 1
        try:
            part.made = send()
        except DOUBTFUL as error:
            run.console.note(f"{error}; looking for {part.word} {attempt.name}")
            found = _look(run, look)
            if not found and not left:
                raise
        except BuilderError:
            part.n_unknown -= 1
            if not part.n_unknown:
                run.state.end_pending(attempt.name, part.pending)
                raise
            # Names are unique: the refusal may come from what an earlier try made.
            found = _look(run, look)
            if not found:
                raise
        else:
            part.n_unknown -= 1
            return part.made
        if found:
            part.made, part.n_unknown = found[0], part.n_unknown - 1
            return part.made
    raise AssertionError("the last try returns or raises")  # pragma: no cover


def _look(run: Runtime, look: Callable[[], list[Made]]) -> list[Made]:
    """What an attempt in doubt made. Raises what listing raises: then it stays in doubt."""
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        found = look()
        if found:
            return found
    return []


def _endpoints(run: Runtime, attempt: Attempt) -> list[Endpoint]:
    found = [each for each in run.api.endpoints() if _is_of(attempt, each.name, each.env)]
    return sorted(found, key=lambda each: (each.created_at is None, str(each.created_at), each.id))


def _templates(run: Runtime, attempt: Attempt) -> list[Template]:
    return [each for each in run.api.templates() if _is_of(attempt, each.name, each.env)]


def _is_of(attempt: Attempt, name: str, env: Mapping[str, str]) -> bool:
    # RunPod is known to add to the names of endpoints with FlashBoot.
    return name.startswith(attempt.name) or env.get(BUILDER_ID) == attempt.builder_id


def _end(ended: dict[str, None], left: dict[str, str], what: str, end: Callable[[], None]) -> None:
    if what in ended:
        return
    try:
        end()
        ended[what] = None
        left.pop(what, None)
    except BuilderError as error:
        left[what] = str(error)
