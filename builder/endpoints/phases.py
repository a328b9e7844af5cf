"""A deploy of an endpoint: prepare, plan, confirm; create or change; watch the rollout; one canary; record.

A first deploy that fails, or is interrupted, ends what it made; one that is not ready in time is kept. A change that
fails is undone by `builder.endpoints.update`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from builder.deploy.phases import Deployed
from builder.deploy.pod_spec import BUILDER_ID, SPEC_SHA, without_secrets
from builder.deploy.records import check_readable
from builder.deploy.signals import Interrupts, interrupts
from builder.endpoints.chosen import VARIABLE, recorded
from builder.endpoints.cleanup import clean_up, end_command, end_doubles, settle
from builder.endpoints.create import Attempt, create_endpoint_once, create_template_once, still_pending
from builder.endpoints.ending import remove_template
from builder.endpoints.look import find_endpoint
from builder.endpoints.options import EndpointKind, EndpointWishes
from builder.endpoints.prepare import Prepared, prepare_endpoint
from builder.endpoints.record import endpoint_record, write_record
from builder.endpoints.spec import TYPES, make_endpoint, make_template
from builder.endpoints.update import change
from builder.endpoints.view import show_plan
from builder.errors import BuilderError, ConflictError, InterruptError, NotAvailableError, WaitTimeoutError
from builder.redact import HIDDEN

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.runtime import Runtime

__all__ = ["deploy_endpoint"]

STATES = ("endpoint", "pending-endpoints", "pending-templates")


def deploy_endpoint(run: Runtime, kind: EndpointKind, wishes: EndpointWishes) -> Deployed:
    """Deploy an endpoint, or change the one that is there.

    Raises whatever stopped it, with a message that says what became of it.
    """
    if run.settings.use_v1:
        raise NotAvailableError("REST v1 has no releases and no workers to watch", hint="unset RUNPOD_API_V1")
    from builder.endpoints.canary import lb_url

    with interrupts(run.console.note) as signals:
        _check_records(run, wishes)
        existing = None if wishes.new else _existing(run, kind)
        prepared = prepare_endpoint(run, kind, wishes, existing)
        if not run.console.as_json:
            show_plan(run.console, prepared.plan)
        digest = _validated(run, prepared, wishes)
        _warn_of_others(run, wishes, existing)
        if wishes.dry_run:
            return Deployed({"plan": prepared.plan.document(), "would": _would(prepared)})
        if existing is not None and not prepared.patch:
            deployed = Deployed(_unchanged(run, wishes, prepared, existing, digest))
        else:
            run.console.confirm(_question(prepared, existing), yes=wishes.yes)
            if existing is not None:
                deployed = change(run, wishes, prepared, existing, digest, signals)
            else:
                deployed = _carry_out(run, wishes, prepared, digest, signals)
        deployed.document["url"] = lb_url(run, deployed.document["endpoint"]["endpoint_id"]) if kind == "lb" else None
        return deployed


def _check_records(run: Runtime, wishes: EndpointWishes) -> None:
    """Warn of what earlier deploys may have left. Raises ConflictError if a record of theirs cannot be read."""
    check_readable(run, STATES, is_dry_run=wishes.dry_run)
    try:
        names = still_pending(run)
    except BuilderError as error:
        run.console.note(f"endpoints and templates cannot be listed: {error}")
        names = []
    if names:
        run.console.warn(f"an earlier deploy may have left {', '.join(names)}: look with python -m builder check-all")


def _existing(run: Runtime, kind: EndpointKind) -> Endpoint | None:
    """The endpoint that was deployed last, if it is still there. Raises ConflictError if it is of the other kind."""
    recorded = (run.state.read("endpoint") or {}).get("endpoint_id")
    endpoint = find_endpoint(run, str(recorded)) if recorded else None
    if endpoint is not None and endpoint.type != TYPES[kind]:
        raise ConflictError(
            f"endpoint {endpoint.id} ({endpoint.name}) is there, and is {endpoint.type}; that cannot be changed",
            hint=f"make another one: --new; or end this one first: {end_command(endpoint.id)}",
        )
    return endpoint


def _validated(run: Runtime, prepared: Prepared, wishes: EndpointWishes) -> str | None:
    from builder.ec2.validated import check_validated

    # A dry run shows all that it can: there it is a warning.
    required = wishes.require_validated and not wishes.dry_run
    return check_validated(run, prepared.options.image, required=required)


def _warn_of_others(run: Runtime, wishes: EndpointWishes, existing: Endpoint | None) -> None:
    """Say which endpoint the other verbs mean, where it is not the one that was deployed last."""
    named = run.settings.endpoint_id
    if named and (existing is None or existing.id != named):
        run.console.warn(
            f"{VARIABLE} is {named}: jobs and `endpoint` go there, and not to what is deployed here; "
            "take it out of .env or the environment to change that"
        )
    before = (run.state.read("endpoint") or {}).get("endpoint_id")
    if wishes.new and before:
        run.console.warn(
            f"endpoint {before} stays as it is, and what it costs; the new one takes its place for the other verbs. "
            f"End the old one: {end_command(before)}"
        )


def _would(prepared: Prepared) -> list[dict[str, Any]]:
    """The requests of a deploy; secrets are hidden."""
    plan, options = prepared.plan, prepared.options
    if prepared.patch is not None:
        if not prepared.patch:
            return []
        body = dict(prepared.patch)
        if "env" in body:
            # What others put there, and what an earlier deploy took from the environment, may be secret.
            own = {*options.env, BUILDER_ID, SPEC_SHA}
            shown = without_secrets(body["env"])
            body["env"] = {name: value if name in own else HIDDEN for name, value in shown.items()}
        return [{"method": "PATCH", "path": f"/v2/serverless/{plan.endpoint_id}", "body": body}]
    template = make_template(options, name=plan.name, builder_id=prepared.builder_id)
    endpoint = make_endpoint(options, name=plan.name, template_id="<id of the template>")
    return [
        {"method": "POST", "path": "/v2/templates", "body": {**template.body(), "env": without_secrets(template.env)}},
        {"method": "POST", "path": "/v2/serverless", "body": endpoint.body()},
    ]


def _question(prepared: Prepared, existing: Endpoint | None) -> str:
    plan = prepared.plan
    scale = prepared.options.scale
    at_min, at_max = plan.per_h(scale.min), plan.per_h(scale.max)
    cost = "at a price that is not known" if at_max is None else f"at ${at_min:.2f} to ${at_max:.2f}/h"
    if existing is not None:
        return f"Change endpoint {existing.id} ({', '.join(each.field for each in plan.changes)}) {cost}?"
    return f"Deploy {plan.name} {cost}?"


def _unchanged(
    run: Runtime, wishes: EndpointWishes, prepared: Prepared, endpoint: Endpoint, digest: str | None
) -> dict[str, Any]:
    """It is what it is to be; a deploy that was killed, or did not wait, may not have recorded or seen it ready.

    Raises as `Watch.until_rolled_out`.
    """
    from builder.endpoints.rollout import Watch

    previous = recorded(run, endpoint.id) or {}
    template_id, known = previous.get("template_id"), digest or previous.get("image_digest")
    record = endpoint_record(run, prepared, endpoint, template_id=template_id, image_digest=known)
    if {**record, "last_updated": None} != {**previous, "last_updated": None}:
        run.state.write("endpoint", record)
    readiness = None
    if wishes.wait:
        watch = Watch(run, endpoint.id, timeout_s=wishes.timeout, workers_min=prepared.options.scale.min)
        readiness = watch.until_rolled_out()
    return {"endpoint": record, "done": "nothing", "drift": [], "readiness": readiness, "canary": None}


def _carry_out(
    run: Runtime, wishes: EndpointWishes, prepared: Prepared, digest: str | None, signals: Interrupts
) -> Deployed:
    attempt = Attempt(prepared.name, prepared.builder_id, run.state.read("endpoint"))
    try:
        document = _create_and_prove(run, wishes, prepared, attempt, digest)
        problem = end_doubles(run, attempt)
    except WaitTimeoutError as error:
        signals.is_cleaning = True
        raise _kept(run, attempt, prepared, error) from None
    except BaseException as error:
        signals.is_cleaning = True
        final = clean_up(run, attempt, error, keep=wishes.keep)
        if final is None:
            raise
        raise final from None
    # It serves: from here on nothing is to be undone.
    signals.is_cleaning = True
    if not wishes.new:
        _end_old_template(run, attempt.previous or {})
    return Deployed(document, problem)


def _end_old_template(run: Runtime, previous: Mapping[str, Any]) -> None:
    """Remove the template of the endpoint that was recorded before, and that somebody else ended."""
    template_id = previous.get("template_id")
    if not template_id:
        return
    try:
        remove_template(run, str(template_id))
    except (BuilderError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        run.console.note(f"template {template_id} of an endpoint that is gone may be left, and costs nothing: {why}")


def _create_and_prove(
    run: Runtime, wishes: EndpointWishes, prepared: Prepared, attempt: Attempt, digest: str | None
) -> dict[str, Any]:
    from builder.endpoints.canary import prove
    from builder.endpoints.rollout import Watch

    options, name = prepared.options, prepared.name
    with run.console.task(f"creating {name}") as task:
        task.update("template")
        template = create_template_once(run, make_template(options, name=name, builder_id=prepared.builder_id), attempt)
        run.state.event(run.clock.unix_s(), "created", "template", template.id, name=name)
        task.update("endpoint")
        endpoint = create_endpoint_once(run, make_endpoint(options, name=name, template_id=template.id), attempt)
    record = endpoint_record(run, prepared, endpoint, template_id=template.id, image_digest=digest)
    since = (run.state.read("endpoint") or {}).get("endpoint_id")
    if since and since != (attempt.previous or {}).get("endpoint_id"):
        run.console.warn(
            f"another deploy made endpoint {since} meanwhile; it stays, and may cost. End it: {end_command(since)}"
        )
    attempt.has_recorded = True
    write_record(run, record, "created")
    settle(run, attempt)
    proof: dict[str, Any] = {"readiness": None, "canary": None}
    if wishes.wait:
        watch = Watch(run, endpoint.id, timeout_s=wishes.timeout, workers_min=options.scale.min)
        proof = prove(run, options.kind, watch, has_canary=not wishes.no_canary)
    return {"endpoint": record, "done": "created", "drift": [], **proof}


def _kept(run: Runtime, attempt: Attempt, prepared: Prepared, error: WaitTimeoutError) -> BuilderError:
    """Not ready in time: the endpoint stays, a double of it does not."""
    endpoint, plan, scale = attempt.endpoint.made, prepared.plan, prepared.options.scale
    if endpoint is None:
        return error
    double: BuilderError | None
    try:
        double = end_doubles(run, attempt)
    except KeyboardInterrupt:
        double = InterruptError(f"interrupted; whether {attempt.name} exists twice is not known")
    if double is not None:
        run.console.warn(f"{double}; {double.hint}")
    at_min, at_max = plan.per_h(scale.min), plan.per_h(scale.max)
    cost = f" at ${at_min:.2f}/h to ${at_max:.2f}/h ({scale.min} to {scale.max} workers)" if at_max is not None else ""
    return WaitTimeoutError(
        f"{error}; endpoint {endpoint.id} is kept{cost}",
        hint=f"see: python -m builder endpoint status {endpoint.id}; end it: {end_command(endpoint.id)}",
    )
