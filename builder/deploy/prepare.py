"""The first half of a deploy: settings, image, catalog, candidates, guards. Reads, and changes nothing anywhere."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.deploy.create import unique_name
from builder.deploy.gpus import Candidate, Wanted, clouds_of, cuda_floor, find_candidates, with_bid
from builder.deploy.options import comma_list
from builder.deploy.plan import Facts, Limits, Plan, affordable, check_balance, unused_names, warnings_of
from builder.deploy.pod_spec import (
    PodOptions,
    check_token,
    is_secret_name,
    make_spec,
    parse_extra,
    pod_env,
    secret_reference,
)
from builder.deploy.throughput import memory_needed_gb
from builder.errors import BudgetError, BuilderError, CapacityError, NotAvailableError, NotFoundError, UsageError
from builder.image.reference import compose, parse_reference
from builder.state import iso_time

if TYPE_CHECKING:
    from builder.api.models import Cloud, GpuType, PodSpec
    from builder.deploy.options import Wishes
    from builder.runtime import Runtime

__all__ = ["Prepared", "chosen_image", "pod_options", "prepare", "read_catalogs"]


@dataclass(frozen=True)
class Prepared:
    """All that the second half needs. `secret` names the token's place in RunPod's secret store, if it goes there."""

    plan: Plan
    options: PodOptions
    wanted: Wanted
    builder_id: str
    secret: str | None = None
    terminate_after: str | None = None

    def spec(self, candidate: Candidate) -> PodSpec:
        """The body of the create for one candidate."""
        return make_spec(self.options, candidate, name=self.plan.name, builder_id=self.builder_id)


def pod_options(run: Runtime, wishes: Wishes) -> tuple[PodOptions, Limits]:
    """What the pod is to be, from settings and options alone. Raises UsageError."""
    limits = _limits(run, wishes)
    _check_together(wishes, _is_spot(run, wishes))
    options = _options(run, wishes, chosen_image(run, wishes.image), limits)
    is_by_graphql = _is_spot(run, wishes) or wishes.terminate_after is not None
    if is_by_graphql and len(options.data_centers) > 1:
        raise UsageError(
            "spot pods and --terminate-after take one data center, or none", hint="name one: --data-center"
        )
    return options, limits


def prepare(run: Runtime, wishes: Wishes) -> Prepared:
    """Everything that is known before the first change. Raises UsageError, CapacityError, BudgetError, BalanceError,
    AuthError, and what reading raises."""
    options, limits = pod_options(run, wishes)
    is_spot = _is_spot(run, wishes)
    model = options.env["WHISPER_MODEL"]
    needed_gb = memory_needed_gb(model, options.env.get("WHISPER_COMPUTE_TYPE", "auto"))
    with run.console.task("reading prices and stock"):
        wanted, options = _wanted(run, wishes, options, model, needed_gb or 0)
        candidates = _candidates(run, wanted)
        if is_spot:
            candidates = _spot(run, candidates, wanted, wishes.bid)
        credit = _credit(run)
    chosen = affordable(candidates, limits.max_price, wanted)
    facts = Facts(
        model=model,
        memory_needed_gb=needed_gb,
        image_bytes=_image_bytes(run, options.image),
        is_secret_stored=wishes.secret is not None,
        is_spot=is_spot,
        unused=unused_names(run.env_file),
        credit=credit,
    )
    now_s = run.clock.unix_s()
    plan = Plan(
        name=unique_name(wishes.name or run.settings.pod_name, now_s),
        image=options.image,
        model=model,
        candidates=chosen,
        limits=limits,
        warnings=warnings_of(options, chosen, limits, facts),
        volume_gb=options.volume_gb,
        needs_token=not wishes.no_auth,
        is_spot=is_spot,
        credit=credit,
    )
    if credit is not None:
        check_balance(credit, plan.dearest_per_h)
    after = limits.terminate_after_min
    return Prepared(
        plan,
        options,
        wanted,
        builder_id=secrets.token_hex(8),
        secret=wishes.secret,
        terminate_after=None if after is None else iso_time(now_s + after * 60),
    )


def chosen_image(run: Runtime, given: str | None) -> str:
    """The image: the option, else DOCKER_* with a tag, else the last push. Raises UsageError."""
    image = given or compose(run.settings, run.state.read("push"))
    if image is None:
        raise UsageError(
            "no image: none was given, DOCKER_TAG is not set, and nothing was pushed from here",
            hint="make one: python -m builder build, then python -m builder push; or name one: --image USER/NAME:TAG",
        )
    reference = parse_reference(image)
    if not given and reference.registry is None and "/" not in reference.path:
        raise UsageError(
            f"whose image is {image}? DOCKER_HUB_USERNAME is not set", hint="set it, or name one: --image USER/NAME:TAG"
        )
    return str(reference)


def read_catalogs(run: Runtime, clouds: Sequence[Cloud], count: int = 1) -> dict[Cloud, list[GpuType]]:
    """The catalog with each cloud's own stock."""
    return {cloud: run.api.gpu_types(cloud=cloud, count=count) for cloud in clouds}


def _is_spot(run: Runtime, wishes: Wishes) -> bool:
    return run.settings.spot if wishes.spot is None else wishes.spot


def _limits(run: Runtime, wishes: Wishes) -> Limits:
    settings = run.settings
    minutes = settings.max_minutes if wishes.max_minutes is None else wishes.max_minutes
    idle_min = math.ceil(settings.idle_stop_s / 60) if wishes.idle_stop is None else wishes.idle_stop
    return Limits(
        max_price=settings.max_price if wishes.max_price is None else wishes.max_price,
        max_minutes=minutes,
        idle_stop_min=idle_min,
        terminate_after_min=wishes.terminate_after,
        deadline=None if minutes is None else iso_time(run.clock.unix_s() + minutes * 60),
    )


def _check_together(wishes: Wishes, is_spot: bool) -> None:
    if wishes.reuse and wishes.replace:
        raise UsageError("--reuse and --replace exclude each other")
    if wishes.replace and not wishes.wait:
        raise UsageError("--replace and --no-wait exclude each other: the old pod ends once the new one is ready")
    if wishes.bid is not None and not is_spot:
        raise UsageError("--bid is for spot pods", hint="add --spot")
    if is_spot and wishes.terminate_after is not None:
        raise UsageError("--terminate-after is not for spot pods: RunPod takes no such time for them")
    if wishes.secret is not None and wishes.no_auth:
        raise UsageError("--secret and --no-auth exclude each other")


def _options(run: Runtime, wishes: Wishes, image: str, limits: Limits) -> PodOptions:
    settings = run.settings
    extra = parse_extra(wishes.extra, {**run.env_file, **run.environ})
    for name, value in extra.items():
        # What is given by its name alone is not meant to be seen.
        if name in wishes.extra or is_secret_name(name):
            run.redactor.add(value)
    base = {
        **settings.pod_environ,
        "WHISPER_MODEL": settings.model,
        "WHISPERLIVE_PORT": str(settings.ws_port),
        "HEALTH_CHECK_PORT": str(settings.health_port),
    }
    return PodOptions(
        image=image,
        env=pod_env(
            base,
            token=_token(run, wishes),
            extra=extra,
            deadline=limits.deadline,
            idle_stop_min=limits.idle_stop_min,
        ),
        disk_gb=settings.disk_gb if wishes.disk is None else wishes.disk,
        volume_gb=settings.volume_gb if wishes.volume is None else wishes.volume,
        network_volume_id=wishes.network_volume or settings.network_volume_id,
        data_centers=comma_list(wishes.data_center) or settings.data_centers,
        registry_id=settings.registry_id,
        gpu_count=settings.gpu_count,
        ws_port=settings.ws_port,
        health_port=settings.health_port,
    )


def _token(run: Runtime, wishes: Wishes) -> str | None:
    """What the pod gets as its token. Raises UsageError without one."""
    if wishes.no_auth:
        return None
    token = run.settings.auth_token
    if token is None:
        raise UsageError(
            "no token: WHISPER_AUTH_TOKEN is not set, and anybody could use the pod at your cost",
            hint="make one: python -m builder setup; or serve without: --no-auth",
        )
    check_token(token)
    return token if wishes.secret is None else secret_reference(wishes.secret)


def _wanted(run: Runtime, wishes: Wishes, options: PodOptions, model: str, needed_gb: int) -> tuple[Wanted, PodOptions]:
    """What the GPU must be; a network volume decides where."""
    clouds = clouds_of(wishes.cloud or run.settings.cloud)
    if options.network_volume_id:
        if clouds == ("COMMUNITY",):
            raise UsageError("network volumes are in the secure cloud only", hint="add --cloud secure")
        clouds = ("SECURE",)
        place = _place_of_volume(run, options.network_volume_id)
        if options.data_centers and place not in options.data_centers:
            raise UsageError(
                f"network volume {options.network_volume_id} is in {place}, which is not among those named"
            )
        options = replace(options, data_centers=(place,))
    wanted = Wanted(
        clouds=clouds,
        gpu_names=comma_list(wishes.gpu) or run.settings.gpu_types,
        count=options.gpu_count,
        data_centers=options.data_centers,
        min_memory_gb=needed_gb,
        model=model,
    )
    return wanted, options


def _place_of_volume(run: Runtime, volume_id: str) -> str:
    for volume in run.api.network_volumes():
        if volume.id == volume_id:
            return volume.data_center
    raise NotFoundError(f"there is no network volume {volume_id}", hint="list yours: python -m builder check-all")


def _candidates(run: Runtime, wanted: Wanted) -> list[Candidate]:
    try:
        return find_candidates(read_catalogs(run, wanted.clouds, wanted.count), wanted)
    except NotAvailableError as error:
        if not wanted.gpu_names:
            raise UsageError(
                f"{error}: name the GPUs", hint="add --gpu with ids, like 'NVIDIA GeForce RTX 4090'"
            ) from None
        run.console.note(f"{error}: GPU names are taken as they are, without prices")
    return [
        Candidate(name, name, 0, cloud, None, "?", cuda_floor(name))
        for name in wanted.gpu_names
        for cloud in wanted.clouds
    ]


def _spot(run: Runtime, candidates: Sequence[Candidate], wanted: Wanted, bid: float | None) -> list[Candidate]:
    """The candidates that are offered as spot, at `bid` or the lowest that is taken."""
    found, too_low = [], None
    for each in candidates:
        try:
            lowest = run.graphql.spot_price(each.gpu_id, each.cloud, wanted.count)
        except NotAvailableError as error:
            raise NotAvailableError(f"--spot: {error}", hint="leave --spot out: only GraphQL rents spot pods") from None
        if lowest is None:
            continue
        if bid is not None and bid < lowest:
            too_low = f"the lowest bid for {each.label} is ${lowest:.3f}/h, --bid is ${bid:g}"
            continue
        found.append(with_bid(each, lowest if bid is None else bid, wanted.count))
    if not found and too_low:
        raise BudgetError(too_low, hint="raise --bid")
    if not found and candidates:
        raise CapacityError("none of the candidates is offered as a spot pod", hint="leave --spot out")
    return found


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
