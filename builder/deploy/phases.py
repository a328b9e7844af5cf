"""The second half of a deploy: create, record, wait; and whatever goes wrong, leave nothing that is billed unseen.

From the first create on, a failure, Ctrl-C or SIGTERM ends every pod of this deploy and says so; only a pod that is
not ready in time is kept (the image may still be on its way), and what `--keep` asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.cleanup import Attempt, clean_up, end_command, end_doubles
from builder.deploy.create import create_once, delete_surely, still_pending
from builder.deploy.existing import Choice, existing_pod, reuse, settle
from builder.deploy.plan import check_price
from builder.deploy.pod_spec import without_secrets
from builder.deploy.prepare import Prepared, prepare
from builder.deploy.record import pod_record, update_status
from builder.deploy.records import check_readable
from builder.deploy.signals import Interrupts, interrupts
from builder.deploy.view import show_plan
from builder.errors import (
    BadRequestError,
    BuilderError,
    CapacityError,
    ForbiddenError,
    InterruptError,
    NotAvailableError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from builder.api.models import Pod, PodSpec
    from builder.deploy.gpus import Candidate
    from builder.deploy.options import Wishes
    from builder.runtime import Runtime

__all__ = ["Deployed", "deploy", "plan_document"]


@dataclass
class Deployed:
    """What came of it: the document for --json, and a problem to end with, although the pod is fine."""

    document: dict[str, Any]
    problem: BuilderError | None = None


def plan_document(run: Runtime, prepared: Prepared, ended: Pod | None = None) -> dict[str, Any]:
    """What a deploy would send, for `plan` and --dry-run; secrets are hidden. `ended` is the pod that it replaces."""
    spec = prepared.spec(prepared.plan.candidates[0])
    body = {**spec.body(), "env": without_secrets(spec.env)}
    api = "/v1" if run.settings.use_v1 else "/v2"
    would: list[dict[str, Any]] = []
    if prepared.secret is not None:
        would.append({"method": "POST", "path": "graphql: secretCreate, unless it exists", "body": prepared.secret})
    if prepared.plan.is_spot or prepared.terminate_after is not None:
        operation = "podRentInterruptable" if prepared.plan.is_spot else "podFindAndDeployOnDemand"
        would.append({"method": "POST", "path": f"graphql: {operation}", "body": body})
    else:
        would.append({"method": "POST", "path": f"{api}/pods", "body": body})
    if ended is not None:
        would.append({"method": "DELETE", "path": f"{api}/pods/{ended.id}", "body": None})
    return {"plan": prepared.plan.document(), "would": would}


def deploy(run: Runtime, wishes: Wishes) -> Deployed:
    """Deploy a pod. Raises whatever stopped it, with a message that says what became of the pod."""
    with interrupts(run.console.note) as signals:
        _check_records(run, wishes)
        existing = existing_pod(run)
        choice = settle(run, wishes, existing)
        if existing is not None and choice is Choice.REUSE:
            return Deployed(reuse(run, wishes, existing))
        prepared = prepare(run, wishes)
        if not run.console.as_json:
            show_plan(run.console, prepared.plan)
        _check_validated(run, wishes, prepared)
        if wishes.dry_run:
            if existing is not None and not wishes.replace:
                run.console.warn(f"pod {existing.id} is there: a deploy will want --reuse or --replace")
            return Deployed(plan_document(run, prepared, existing if wishes.replace else None))
        run.console.confirm(_question(prepared, existing), yes=wishes.yes)
        if prepared.secret is not None:
            _store_secret(run, prepared.secret)
        return _carry_out(run, wishes, prepared, existing, signals)


def _check_validated(run: Runtime, wishes: Wishes, prepared: Prepared) -> None:
    """Warn of an image that never ran on a GPU. Raises NotValidatedError if --require-validated; a dry run warns."""
    from builder.ec2.validated import check_validated

    check_validated(run, prepared.options.image, required=wishes.require_validated and not wishes.dry_run)


def _check_records(run: Runtime, wishes: Wishes) -> None:
    """Warn of what earlier deploys may have left. Raises ConflictError if a record of theirs cannot be read."""
    check_readable(run, ("pod", "pending"), is_dry_run=wishes.dry_run)
    pending = run.state.pending()
    if pending:
        try:
            pending = still_pending(run, run.api.list_pods())
        except BuilderError as error:
            run.console.note(f"the pods cannot be listed: {error}")
    if pending:
        names = ", ".join(pending)
        run.console.warn(f"an earlier deploy may have left {names}: look with python -m builder check-all")


def _question(prepared: Prepared, existing: Pod | None) -> str:
    price = prepared.plan.dearest_per_h
    cost = "at a price that is not known" if price is None else f"at up to ${price:.2f}/h"
    instead = "" if existing is None else f" and then end pod {existing.id}"
    return f"Deploy {prepared.plan.name} {cost}{instead}?"


def _carry_out(run: Runtime, wishes: Wishes, prepared: Prepared, existing: Pod | None, signals: Interrupts) -> Deployed:
    attempt = Attempt(prepared.plan.name, prepared.builder_id, run.state.read("pod"))
    try:
        deployed = _create_and_wait(run, wishes, prepared, attempt)
        deployed.problem = end_doubles(run, attempt)
    except WaitTimeoutError as error:
        signals.is_cleaning = True
        raise _kept(run, attempt, error, existing) from None
    except BaseException as error:
        signals.is_cleaning = True
        final = clean_up(run, attempt, error, keep=wishes.keep)
        if final is None:
            raise
        raise final from None
    if existing is not None:
        signals.is_cleaning = True
        deployed.problem = _end_old(run, existing, deployed) or deployed.problem
    return deployed


def _create_and_wait(run: Runtime, wishes: Wishes, prepared: Prepared, attempt: Attempt) -> Deployed:
    from builder.pods.wait import wait_for_pod

    with run.console.task(f"creating {attempt.name}") as task:
        refused: list[tuple[Candidate, BuilderError]] = []
        for candidate in prepared.plan.candidates:
            task.update(candidate.label)
            pod = _try(run, prepared, candidate, attempt, refused)
            if pod is not None:
                break
        else:
            raise _none_left(refused, prepared)
    record = _record(run, prepared, candidate, pod, attempt)
    if not attempt.is_doubtful:
        run.state.end_pending(attempt.name)
    limit = prepared.plan.limits.max_price
    check_price(pod.cost, limit, candidate.label)
    readiness = None
    if wishes.wait:
        readiness = wait_for_pod(run, pod.id, until="ready", timeout_s=wishes.timeout, is_new=True).document()
        # A pod that had no machine yet may have had no price either.
        cost = _cost_now(run, pod)
        record = update_status(run, {**record, "cost_per_hour": cost or record["cost_per_hour"]}, "RUNNING")
        check_price(cost, limit, candidate.label)
    tried = [f"{each.label}: {error}" for each, error in refused]
    document = {"pod": record, "readiness": readiness, "refused": tried, "reused": False, "replaced": None}
    return Deployed(document)


def _cost_now(run: Runtime, pod: Pod) -> float:
    """$/h, as the API shows it; as it was at the create if it does not tell now."""
    try:
        return run.api.get_pod(pod.id).cost
    except BuilderError:
        return pod.cost


def _try(
    run: Runtime,
    prepared: Prepared,
    candidate: Candidate,
    attempt: Attempt,
    refused: list[tuple[Candidate, BuilderError]],
) -> Pod | None:
    """The pod on this candidate; None, and the reason in `refused`, if the next one is to be tried."""
    send = attempt.watching(lambda spec: _send(run, prepared, candidate, spec))
    try:
        return attempt.keep(create_once(run, prepared.spec(candidate), send))
    except (CapacityError, ForbiddenError, BadRequestError) as error:
        if error.status == 422:
            # The body is wrong whatever the GPU.
            raise
        refused.append((candidate, error))
        run.console.note(f"{candidate.label}: {error}")
        return None


def _send(run: Runtime, prepared: Prepared, candidate: Candidate, spec: PodSpec) -> Pod:
    """One create, by the API that can make such a pod."""
    if candidate.bid_per_gpu is not None:
        return _seen(run, run.graphql.rent_spot(spec, candidate.bid_per_gpu), spec, candidate)
    if prepared.terminate_after is not None:
        try:
            made = run.graphql.deploy_with_limits(spec, stop_after=None, terminate_after=prepared.terminate_after)
        except NotAvailableError as error:
            raise NotAvailableError(
                f"--terminate-after: {error}", hint="leave it out; --max-minutes makes the pod stop itself"
            ) from None
        return _seen(run, made, spec, candidate)
    return run.api.create_pod(spec)


def _seen(run: Runtime, pod_id: str, spec: PodSpec, candidate: Candidate) -> Pod:
    """A pod that GraphQL made, as REST shows it; as we know it if REST does not show it yet."""
    from builder.api.models import Pod

    try:
        return run.api.get_pod(pod_id)
    except BuilderError:
        return Pod(
            id=pod_id, name=spec.name, status="PROVISIONING", cloud=spec.cloud, cost=candidate.price_per_h or 0.0
        )


def _record(run: Runtime, prepared: Prepared, candidate: Candidate, pod: Pod, attempt: Attempt) -> dict[str, Any]:
    record = pod_record(run.settings, prepared, candidate, pod, run.clock.unix_s())
    attempt.has_recorded = True
    run.state.write("pod", record)
    run.state.event(
        run.clock.unix_s(),
        "created",
        "pod",
        pod.id,
        name=pod.name,
        gpu=record["gpu_type"],
        cloud=record["cloud"],
        cost_per_hour=record["cost_per_hour"],
        image=record["image"],
        disk_gb=prepared.options.disk_gb,
        volume_gb=record["volume_gb"],
        is_spot=record["is_spot"],
    )
    return record


def _none_left(refused: list[tuple[Candidate, BuilderError]], prepared: Prepared) -> BuilderError:
    """Why no candidate could be had."""
    errors = [error for _, error in refused]
    last = errors[-1]
    if all(isinstance(error, (BadRequestError, ForbiddenError)) for error in errors):
        # A rule that is broken is broken for all of them; so is a key that may not.
        return last
    tried = "; ".join(f"{candidate.label}: {_reason(error)}" for candidate, error in refused)
    places = prepared.options.data_centers
    if places:
        hint = f"only {', '.join(places)} was asked for: name more data centers, or none"
        return CapacityError(f"no GPU is free: {tried}", hint=hint, status=last.status, request_id=last.request_id)
    return CapacityError(f"no GPU is free: {tried}", status=last.status, request_id=last.request_id)


def _reason(error: BuilderError) -> str:
    return "no capacity" if isinstance(error, CapacityError) else str(error)


def _kept(run: Runtime, attempt: Attempt, error: WaitTimeoutError, existing: Pod | None) -> WaitTimeoutError:
    """Not ready in time: the pod stays, a double of it does not."""
    pod = attempt.pod
    if pod is None:
        return error
    double: BuilderError | None
    try:
        double = end_doubles(run, attempt)
    except KeyboardInterrupt:
        double = InterruptError(f"interrupted; whether {attempt.name} exists twice is not known")
    if double is not None:
        run.console.warn(f"{double}; {double.hint}")
    old = "" if existing is None else f", and so is the old one, {existing.id}"
    return WaitTimeoutError(
        f"{error}; pod {pod.id} is kept at ${pod.cost:.2f}/h{old}",
        hint=f"wait on: python -m builder wait {pod.id}; end it: {end_command(pod.id)}",
    )


def _end_old(run: Runtime, old: Pod, deployed: Deployed) -> BuilderError | None:
    try:
        delete_surely(run, old.id)
    except KeyboardInterrupt:
        new = deployed.document["pod"]["pod_id"]
        return InterruptError(
            f"interrupted: the new pod {new} is kept, and the old one, {old.id}, may still run at ${old.cost:.2f}/h",
            hint=f"end it: {end_command(old.id)}; see what runs: python -m builder check-all",
        )
    except BuilderError as error:
        return type(error)(
            f"the new pod is ready, but the old one, {old.id}, could not be ended and costs ${old.cost:.2f}/h: {error}",
            hint=f"end it: {end_command(old.id)}",
        )
    deployed.document["replaced"] = old.id
    return None


def _store_secret(run: Runtime, name: str) -> None:
    """Put the token into RunPod's secret store, unless the name is there."""
    token = run.settings.auth_token or ""
    try:
        if name in run.graphql.secrets():
            run.console.note(f"secret {name} is there and is used as it is: it must hold WHISPER_AUTH_TOKEN")
            return
        run.graphql.create_secret(name, token)
    except NotAvailableError as error:
        raise NotAvailableError(
            f"--secret: {error}", hint="leave it out: the pod's environment holds the token then"
        ) from None
    run.state.event(run.clock.unix_s(), "created", "secret", name)
