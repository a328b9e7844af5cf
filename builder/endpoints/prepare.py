"""The first half of a deploy of an endpoint: settings, image, catalog, pools, guards. Reads, and changes nothing."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.create import unique_name
from builder.deploy.options import comma_list
from builder.deploy.plan import check_balance, unused_names
from builder.deploy.pod_spec import BUILDER_ID, check_token, is_secret_name, parse_extra
from builder.deploy.prepare import chosen_image
from builder.deploy.throughput import memory_needed_gb
from builder.endpoints.options import scale_of
from builder.endpoints.plan import EndpointFacts, EndpointPlan, check_total, endpoint_warnings
from builder.endpoints.pools import Choice, Wanted, choose_pools, kept_choice
from builder.endpoints.spec import EndpointOptions, drift, endpoint_env, lb_ports, patch_of
from builder.errors import BuilderError, UsageError

if TYPE_CHECKING:
    from builder.api.models_serverless import Endpoint
    from builder.endpoints.options import EndpointKind, EndpointWishes, Scale
    from builder.runtime import Runtime

__all__ = ["Prepared", "prepare_endpoint"]


@dataclass(frozen=True)
class Prepared:
    """All that the second half needs. `patch` is what an endpoint that is there needs; None: a new one is made."""

    plan: EndpointPlan
    options: EndpointOptions
    builder_id: str
    patch: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Of the endpoint, and of the template of a new one."""
        return self.plan.name


def prepare_endpoint(
    run: Runtime, kind: EndpointKind, wishes: EndpointWishes, existing: Endpoint | None = None
) -> Prepared:
    """Everything that is known before the first change; `existing` is the endpoint to change.

    Raises UsageError, CapacityError, BudgetError, BalanceError, AuthError, and what reading raises.
    """
    settings = run.settings
    scale = scale_of(kind, wishes, settings)
    if existing is not None:
        _check_existing(run, wishes, existing)
    env = _env(run, kind, wishes)
    image = chosen_image(run, wishes.image)
    model = env["WHISPER_MODEL"]
    needed_gb = memory_needed_gb(model, env.get("WHISPER_COMPUTE_TYPE", "auto"))
    with run.console.task("reading prices and stock"):
        choice = _choice(run, wishes, needed_gb or 0, existing)
        credit = _credit(run)
    max_price = settings.max_price if wishes.max_price is None else wishes.max_price
    check_total(choice.price_per_h, scale.max, wishes.max_total)
    options = EndpointOptions(
        kind=kind,
        image=image,
        env=env,
        gpu=choice.request(),
        scale=scale,
        flashboot=wishes.flashboot is not False,
        disk_gb=settings.disk_gb if wishes.disk is None else wishes.disk,
        ports=lb_ports(kind, settings.ws_port),
        data_centers=comma_list(wishes.data_center) or settings.data_centers,
        registry_id=settings.registry_id,
    )
    facts = EndpointFacts(model, needed_gb, _image_bytes(run, image), unused_names(run.env_file), credit)
    changes = () if existing is None else drift(existing, options)
    plan = EndpointPlan(
        name=_name(run, wishes) if existing is None else existing.name,
        model=model,
        options=options,
        choice=choice,
        warnings=endpoint_warnings(options, choice, facts),
        credit=credit,
        max_price=max_price,
        max_total=wishes.max_total,
        endpoint_id=None if existing is None else existing.id,
        changes=changes,
    )
    _check_credit(credit, choice, scale)
    if existing is None:
        return Prepared(plan, options, secrets.token_hex(8))
    builder_id = existing.env.get(BUILDER_ID) or secrets.token_hex(8)
    return Prepared(plan, options, builder_id, patch_of(existing, options, changes, builder_id))


def _check_existing(run: Runtime, wishes: EndpointWishes, existing: Endpoint) -> None:
    """Hide what the endpoint's environment holds. Raises UsageError for a name that it does not have."""
    for name, value in existing.env.items():
        if name in wishes.extra or is_secret_name(name):
            run.redactor.add(value)
    if wishes.name is not None and not existing.name.startswith(wishes.name):
        raise UsageError(
            f"--name: endpoint {existing.id} is there and is named {existing.name}; a name is for a new one",
            hint="make another one: --new",
        )


def _env(run: Runtime, kind: EndpointKind, wishes: EndpointWishes) -> dict[str, str]:
    settings = run.settings
    extra = parse_extra(wishes.extra, {**run.env_file, **run.environ})
    for name, value in extra.items():
        # What is given by its name alone is not meant to be seen.
        if name in wishes.extra or is_secret_name(name):
            run.redactor.add(value)
    return endpoint_env(
        kind,
        {**settings.pod_environ, "WHISPER_MODEL": settings.model},
        extra,
        token=_token(run) if wishes.with_token else None,
        ws_port=settings.ws_port,
        health_port=settings.health_port,
    )


def _token(run: Runtime) -> str:
    token = run.settings.auth_token
    if token is None:
        raise UsageError(
            "--with-token: WHISPER_AUTH_TOKEN is not set",
            hint="make one: python -m builder setup; or leave it to RunPod's key: without --with-token",
        )
    check_token(token)
    return token


def _choice(run: Runtime, wishes: EndpointWishes, needed_gb: int, existing: Endpoint | None) -> Choice:
    settings = run.settings
    gpu_names = comma_list(wishes.gpu)
    wanted = Wanted(
        gpu_names=gpu_names,
        pool_names=() if gpu_names else comma_list(wishes.pool) or settings.gpu_pools,
        min_memory_gb=needed_gb,
        max_price=settings.max_price if wishes.max_price is None else wishes.max_price,
        data_centers=comma_list(wishes.data_center) or settings.data_centers,
    )
    catalog = run.api.gpu_types(product="SERVERLESS")
    if existing is not None and not wanted.gpu_names and not wanted.pool_names:
        # Today's prices and stock are no reason to move an endpoint that is there.
        kept = kept_choice(catalog, existing.gpu or {}, wanted)
        if kept is not None:
            return kept
    return choose_pools(catalog, wanted)


def _name(run: Runtime, wishes: EndpointWishes) -> str:
    return unique_name(wishes.name or run.settings.endpoint_name, run.clock.unix_s())


def _check_credit(credit: float | None, choice: Choice, scale: Scale) -> None:
    if credit is not None and choice.price_per_h is not None:
        check_balance(credit, choice.price_per_h * max(1, scale.min))


def _credit(run: Runtime) -> float | None:
    """What the account has; None if GraphQL, which alone knows, does not tell."""
    try:
        return run.graphql.balance().credit
    except BuilderError as error:
        run.console.note(f"credit not checked: {error}")
        return None


def _image_bytes(run: Runtime, image: str) -> int | None:
    pushed = run.state.read("push") or {}
    size = pushed.get("size_bytes") if pushed.get("image") == image else None
    return size if isinstance(size, int) else None
