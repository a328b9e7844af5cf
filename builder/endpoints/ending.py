"""Ending endpoints for good, with their workers and templates, and seeing that they are gone.

First no worker may be left or start (min and max 0), then the endpoint goes, then its template, which RunPod keeps as
long as an endpoint uses it. What could not be ended stays recorded, so that the same command goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from builder.deploy.create import LOOKS_S
from builder.deploy.pod_spec import BUILDER_ID
from builder.endpoints.chosen import end_pending, forget, forget_old_names, plain_name, recorded
from builder.endpoints.look import find_endpoint
from builder.endpoints.operate import queued_and_running
from builder.endpoints.templates import leftover_templates, named_templates, remove_template
from builder.errors import AuthError, BadAnswerError, BuilderError, ConflictError, InterruptError, NotFoundError

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint, Template
    from builder.runtime import Runtime

__all__ = ["delete_endpoints", "delete_surely", "our_endpoint_ids", "remove_template"]


@dataclass
class _Done:
    """What came of it; `settled`: endpoints of which nothing is left, template and record included."""

    deleted: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    failures: dict[str, BuilderError] = field(default_factory=dict)
    lost_jobs: int = 0


def our_endpoint_ids(run: Runtime) -> list[str]:
    """Every endpoint of the account that a builder made."""
    return [each.id for each in run.api.endpoints() if BUILDER_ID in each.env]


def delete_endpoints(run: Runtime, endpoint_ids: Sequence[str], *, yes: bool, all_mine: bool = False) -> dict[str, Any]:
    """End endpoints, after a question that names them and the jobs that are lost; `all_mine`: also templates of ours
    that no endpoint is left for. Such a template may be named, too, by its name or id.

    One that is gone already is only forgotten, if it was recorded. Raises NotFoundError if one that was never recorded
    is not there; UsageError if not confirmed; after trying all, the error if some could not be ended; InterruptError
    that says what is left.
    """
    done = _Done()
    endpoints, gone, templates = _split(run, list(dict.fromkeys(endpoint_ids)), done.failures)
    if all_mine:
        # Those of the endpoints go with them.
        templates = leftover_templates(run, {plain_name(each.name) for each in endpoints})
    if endpoints or templates:
        _confirm(run, endpoints, templates, done, yes=yes)
    try:
        for endpoint in endpoints:
            _end_one(run, endpoint, done)
        for endpoint_id in gone:
            _end_gone(run, endpoint_id, done)
        for template in templates:
            _try_template(run, template, done)
    except KeyboardInterrupt:
        raise _interrupted(run, done, endpoints, [*gone, *(each.id for each in templates)]) from None
    _forget_names(run)
    _raise_failures(done)
    return {"deleted": done.deleted, "gone": done.gone, "templates": done.templates, "lost_jobs": done.lost_jobs}


def delete_surely(run: Runtime, endpoint_id: str) -> None:
    """Take an endpoint's workers away, end it, and look until it is gone.

    Raises what the API raises, but no NotFoundError; ConflictError if it stays.
    """
    try:
        # Whatever becomes of the rest, no worker is paid for after this.
        with suppress(BuilderError):
            run.api.update_endpoint(endpoint_id, {"workers": {"min": 0, "max": 0}})
        run.api.delete_endpoint(endpoint_id)
        _until_gone(run, endpoint_id)
    except NotFoundError as error:
        # What finds nothing at all, not even the list, has not told that the endpoint is gone.
        raise BadAnswerError(f"whether endpoint {endpoint_id} is gone is not known: {error}", hint=error.hint) from None
    run.state.event(run.clock.unix_s(), "deleted", "endpoint", endpoint_id)


def _interrupted(run: Runtime, done: _Done, endpoints: Sequence[Endpoint], others: Sequence[str]) -> InterruptError:
    """Says what is left, by names that the same verb takes; `others` were gone already, or are templates."""
    left = [each.id for each in endpoints if each.id not in done.deleted]
    rest = [
        each.id if recorded(run, each.id) is not None else plain_name(each.name)
        for each in endpoints
        if each.id in done.deleted and each.id not in done.settled
    ]
    rest += [each for each in others if each not in done.settled and each not in done.templates]
    parts = [
        f"deleted: {', '.join(done.deleted) or 'none'}",
        f"endpoints that may be left: {', '.join(left) or 'none'}",
    ]
    if rest:
        parts.append("templates may be left, which cost nothing")
    go_on = f"go on: python -m builder endpoint delete {' '.join((*left, *rest))}; " if left or rest else ""
    return InterruptError(
        f"interrupted; {'; '.join(parts)}", hint=f"{go_on}look what is left: python -m builder check-all"
    )


def _split(
    run: Runtime, endpoint_ids: list[str], failures: dict[str, BuilderError]
) -> tuple[list[Endpoint], list[str], list[Template]]:
    """Endpoints to end, ids of recorded ones that are gone, and templates that were named; what cannot be told of one
    goes into `failures`."""
    found: list[Endpoint] = []
    gone: list[str] = []
    templates: list[Template] = []
    for endpoint_id in endpoint_ids:
        try:
            endpoint = find_endpoint(run, endpoint_id)
            if endpoint is not None:
                found.append(endpoint)
            elif recorded(run, endpoint_id) is not None or run.settings.endpoint_id == endpoint_id:
                gone.append(endpoint_id)
            else:
                templates += named_templates(run, endpoint_id)
        except BuilderError as error:
            failures[endpoint_id] = error
    return found, gone, templates


def _confirm(
    run: Runtime, endpoints: Sequence[Endpoint], templates: Sequence[Template], done: _Done, *, yes: bool
) -> None:
    parts = []
    for each in endpoints:
        queued, running = queued_and_running(run, each)
        jobs = ""
        if queued is None or running is None:
            jobs = "; it may have jobs, which are lost"
        elif queued or running:
            jobs = f"; its jobs are lost: {queued} that wait, {running} in progress"
            done.lost_jobs += queued + running
        whose = "" if BUILDER_ID in each.env else "; not made by the builder"
        parts.append(f"{each.name} ({each.id}, {each.min_workers} to {each.max_workers} workers{jobs}{whose})")
    if templates:
        parts.append(f"templates {', '.join(each.name for each in templates)}")
    run.console.confirm(f"Delete {'; '.join(parts)}?", yes=yes)
    if done.lost_jobs:
        run.console.warn(f"jobs that are not done and are lost: {done.lost_jobs}")


def _end_one(run: Runtime, endpoint: Endpoint, done: _Done) -> None:
    try:
        delete_surely(run, endpoint.id)
    except BuilderError as error:
        done.failures[endpoint.id] = error
        return
    done.deleted.append(endpoint.id)
    name, builder_id = plain_name(endpoint.name), endpoint.env.get(BUILDER_ID)
    _end_doubles(run, endpoint, name, done)
    if _end_templates(run, endpoint.id, name, builder_id, done):
        _settle(run, endpoint.id, name, done)


def _end_gone(run: Runtime, endpoint_id: str, done: _Done) -> None:
    """One that somebody else ended: its template may still be there."""
    document = recorded(run, endpoint_id) or {}
    name = plain_name(str(document.get("name") or ""))
    done.gone.append(endpoint_id)
    if _end_templates(run, endpoint_id, name, document.get("builder_id"), done):
        _settle(run, endpoint_id, name, done)


def _end_doubles(run: Runtime, endpoint: Endpoint, name: str, done: _Done) -> None:
    """End what a create in doubt made beside it: of the same name, which is nobody else's, and of the same mark."""
    if BUILDER_ID not in endpoint.env or name not in run.state.pending("pending-endpoints"):
        return
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        try:
            found = run.api.endpoints()
        except BuilderError as error:
            done.failures[name] = error
            return
        for each in found:
            is_same = plain_name(each.name) == name and each.env.get(BUILDER_ID) == endpoint.env[BUILDER_ID]
            if not is_same or each.id in done.deleted:
                continue
            try:
                delete_surely(run, each.id)
                done.deleted.append(each.id)
                done.failures.pop(each.id, None)
            except BuilderError as error:
                done.failures[each.id] = error


def _end_templates(run: Runtime, endpoint_id: str, name: str, builder_id: str | None, done: _Done) -> bool:
    """Remove the template that is recorded, and those of the same name and mark; True if none is left."""
    recorded_id = (recorded(run, endpoint_id) or {}).get("template_id")
    try:
        templates = run.api.templates()
    except BuilderError as error:
        done.failures[f"the template of {endpoint_id}"] = error
        return False
    is_done = True
    for each in templates:
        is_same = bool(builder_id) and each.name == name and each.env.get(BUILDER_ID) == builder_id
        if is_same or (each.id == recorded_id and not each.public):
            is_done = _try_template(run, each, done) and is_done
    return is_done


def _try_template(run: Runtime, template: Template, done: _Done) -> bool:
    try:
        remove_template(run, template.id)
    except BuilderError as error:
        done.failures[f"template {template.id}"] = type(error)(
            f"template {template.name} could not be removed (it costs nothing): {error}",
            hint=error.hint if isinstance(error, AuthError) else _again(template.id),
        )
        return False
    done.templates.append(template.id)
    with suppress(BuilderError):
        end_pending(run, template.name, "pending-templates")
    return True


def _settle(run: Runtime, endpoint_id: str, name: str, done: _Done) -> None:
    """Forget it. A disk that is full must not hide what became of the rest: what stays makes the next look longer."""
    done.settled.append(endpoint_id)
    with suppress(BuilderError):
        forget(run, endpoint_id)
        end_pending(run, name, "pending-endpoints")


def _forget_names(run: Runtime) -> None:
    """Forget names of creates that are over and have left nothing; tell of those that may yet show."""
    with suppress(BuilderError):
        if run.state.pending("pending-endpoints"):
            for name in forget_old_names(
                run, "pending-endpoints", {plain_name(each.name) for each in run.api.endpoints()}
            ):
                run.console.warn(
                    f"the creation of {name} was in doubt: it, or a double, may show late, and cost. "
                    "Look again in some minutes: python -m builder endpoint list"
                )
        if run.state.pending("pending-templates"):
            forget_old_names(run, "pending-templates", {each.name for each in run.api.templates()})


def _until_gone(run: Runtime, endpoint_id: str) -> None:
    for pause_s in (0.0, *LOOKS_S):
        if pause_s:
            run.clock.sleep(pause_s)
        try:
            if find_endpoint(run, endpoint_id) is None:
                return
        except BuilderError as error:
            raise type(error)(
                f"endpoint {endpoint_id} was deleted, but whether it is gone is not known: {error}",
                hint=error.hint if isinstance(error, AuthError) else _again(endpoint_id),
                status=error.status,
                request_id=error.request_id,
            ) from None
    raise ConflictError(
        f"endpoint {endpoint_id} was deleted, and the API still shows it",
        hint=_again(endpoint_id),
    )


def _again(thing_id: str) -> str:
    return f"try again: python -m builder endpoint delete {thing_id}"


def _raise_failures(done: _Done) -> None:
    if not done.failures:
        return
    first = next(iter(done.failures.values()))
    if len(done.failures) == 1 and not done.deleted:
        raise first
    ended = f"; deleted: {', '.join(done.deleted)}" if done.deleted else ""
    raise type(first)("; ".join(str(error) for error in done.failures.values()) + ended, hint=first.hint)
