"""Changing an endpoint in place, and putting it back if the new release does not serve."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.deploy.create import DOUBTFUL
from builder.deploy.phases import Deployed
from builder.endpoints.canary import prove
from builder.endpoints.chosen import recorded
from builder.endpoints.look import find_endpoint
from builder.endpoints.record import endpoint_record, write_record
from builder.endpoints.rollout import Watch
from builder.endpoints.spec import drift, makes_release, template_patch, undo_of
from builder.errors import (
    BuilderError,
    EndpointFailedError,
    InterruptError,
    NotFoundError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.deploy.signals import Interrupts
    from builder.endpoints.options import EndpointWishes
    from builder.endpoints.prepare import Prepared
    from builder.runtime import Runtime

__all__ = ["change"]

BACK_S = 180.0
"""How long the old release is watched coming back: workers that were not replaced yet are at once."""


def change(
    run: Runtime, wishes: EndpointWishes, prepared: Prepared, before: Endpoint, digest: str | None, signals: Interrupts
) -> Deployed:
    """Make `before` what `prepared` says; if that fails, put it back as it was, unless `wishes.keep`.

    Raises EndpointFailedError (it failed, or took too long), InterruptError, or what the API raised, each with what
    became of the endpoint.
    """
    patch = prepared.patch or {}
    version = run.api.endpoint_releases(before.id).endpoint_version if makes_release(patch) else None
    try:
        with run.console.task(f"changing endpoint {before.id}") as task:
            task.update(", ".join(each.field for each in prepared.plan.changes))
            _send(run, prepared, before, patch)
        proof = _prove(run, wishes, prepared, before.id, version)
    except _RefusedError as error:
        raise error.error from None
    except BaseException as error:
        signals.is_cleaning = True
        fate, hint, is_changed = _fate(run, before, patch, keep=wishes.keep)
        if is_changed:
            # What it costs now is to be known.
            with suppress(BuilderError):
                _record(run, prepared, before, digest)
        raise _told(error, fate, hint, before.id) from None
    # It serves: from here on nothing is to be undone.
    signals.is_cleaning = True
    _settle(run, prepared, before, digest)
    document = {
        "endpoint": run.state.read("endpoint"),
        "done": "changed",
        "drift": [each.document() for each in prepared.plan.changes],
        **proof,
    }
    return Deployed(document)


class _RefusedError(Exception):
    """The API refused the change: nothing is to be put back."""

    def __init__(self, error: BuilderError) -> None:
        super().__init__(str(error))
        self.error = error


def _send(run: Runtime, prepared: Prepared, before: Endpoint, patch: dict[str, Any]) -> None:
    try:
        run.api.update_endpoint(before.id, patch)
    except DOUBTFUL:
        raise
    except BuilderError as error:
        fate = _refused(run, prepared, before)
        if fate is None:
            raise
        refused = type(error)(f"{error}; {fate}", hint=error.hint, status=error.status, request_id=error.request_id)
        raise _RefusedError(refused) from None


def _refused(run: Runtime, prepared: Prepared, before: Endpoint) -> str | None:
    """What became of an endpoint whose change was refused; None if it may be changed all the same.

    A change is sent again after a lost answer, so that the refusal may be that of the second one.
    """
    try:
        now = find_endpoint(run, before.id)
    except BuilderError:
        return None
    if now is None:
        return f"endpoint {before.id} is gone"
    is_same = drift(now, prepared.options) == prepared.plan.changes
    return f"endpoint {before.id} is as it was" if is_same else None


def _prove(
    run: Runtime, wishes: EndpointWishes, prepared: Prepared, endpoint_id: str, version: int | None
) -> dict[str, Any]:
    if not wishes.wait:
        return {"readiness": None, "canary": None}
    watch = Watch(
        run,
        endpoint_id,
        timeout_s=wishes.timeout,
        workers_min=prepared.options.scale.min,
        after_version=version,
    )
    # A change of scaling alone leaves the workers as they are: they have proved themselves.
    has_canary = not wishes.no_canary and makes_release(prepared.patch or {})
    return prove(run, prepared.options.kind, watch, has_canary=has_canary)


def _record(run: Runtime, prepared: Prepared, before: Endpoint, digest: str | None) -> str | None:
    """Write down what is there now; the template's id, if one is recorded. Raises DiskFullError, BuilderError."""
    template_id = (recorded(run, before.id) or {}).get("template_id")
    write_record(run, endpoint_record(run, prepared, before, template_id=template_id, image_digest=digest), "changed")
    return template_id


def _settle(run: Runtime, prepared: Prepared, before: Endpoint, digest: str | None) -> None:
    """Record what is there now, and bring the template after it. Raises BuilderError that says that it is changed."""
    try:
        template_id = _record(run, prepared, before, digest)
    except BuilderError as error:
        raise type(error)(
            f"endpoint {before.id} is changed, but that could not be written down: {error}",
            hint="make room, then deploy once more",
        ) from None
    if not template_id or not makes_release(prepared.patch or {}):
        return
    try:
        run.api.update_template(template_id, template_patch(prepared.options, prepared.builder_id))
    except NotFoundError:
        # It is only where the endpoint was made from.
        run.console.note(f"template {template_id} is gone; the endpoint does not need it")
    except (BuilderError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        run.console.warn(f"the endpoint is changed, its template {template_id} may not be (nothing uses it): {why}")


def _fate(run: Runtime, before: Endpoint, patch: dict[str, Any], *, keep: bool) -> tuple[str, str, bool]:
    """What became of the endpoint, what the user has to do, and whether it may be as changed."""
    if keep:
        return f"endpoint {before.id} is left as changed (--keep)", "", True
    try:
        run.console.note(f"putting endpoint {before.id} back as it was")
        version = None
        if makes_release(patch):
            # Without it the watch sees less; that is no reason to leave things as they are.
            with suppress(BuilderError):
                version = run.api.endpoint_releases(before.id).endpoint_version
        run.api.update_endpoint(before.id, undo_of(before, patch))
        run.state.event(run.clock.unix_s(), "rolled_back", "endpoint", before.id, image=before.image)
    except KeyboardInterrupt:
        return f"interrupted again: endpoint {before.id} may be as changed", "", True
    except BuilderError as failure:
        limits = f"{before.min_workers} to {before.max_workers} workers"
        hint = f"deploy again with the old settings (image {before.image}, {limits})"
        return f"endpoint {before.id} could not be put back ({failure})", hint, True
    return _watch_back(run, before, version), "", False


def _watch_back(run: Runtime, before: Endpoint, version: int | None) -> str:
    """Watch the old release coming back, shortly; what became of it."""
    fate = f"endpoint {before.id} was put back as it was"
    watch = Watch(run, before.id, timeout_s=BACK_S, workers_min=before.min_workers, after_version=version)
    try:
        watch.until_rolled_out()
    except KeyboardInterrupt:
        return f"{fate} (interrupted again before its workers were)"
    except BuilderError as failure:
        return f"{fate}, but its workers are not ready yet: {failure}"
    return fate


def _told(error: BaseException, fate: str, hint: str, endpoint_id: str) -> BuilderError:
    status = f"see: python -m builder endpoint status {endpoint_id}"
    if isinstance(error, KeyboardInterrupt):
        return InterruptError(f"interrupted; {fate}", hint="; ".join(filter(None, (hint, status))))
    if not isinstance(error, BuilderError):
        return EndpointFailedError(f"{type(error).__name__}: {error}; {fate}", hint=hint or status)
    # Exit code 7 says that what was asked for is still on its way; it is not.
    kind = EndpointFailedError if isinstance(error, WaitTimeoutError) else type(error)
    both = "; ".join(filter(None, (hint, error.hint or status)))
    return kind(f"{error}; {fate}", hint=both, status=error.status, request_id=error.request_id)
