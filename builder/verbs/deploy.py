"""Verbs that put a pod or an endpoint into the world, and show what that would cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from builder.cli import verb
from builder.errors import UsageError
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.deploy.options import Wishes
    from builder.endpoints.options import EndpointKind, EndpointWishes

MAX_MINUTES = 44_640
MAX_JOB_S = 604_800
KINDS = ("pod", "endpoint", "lb")
# For pods and endpoints.
SHARED = {
    "image": typer.Option("--image", help="USER/NAME:TAG (default: DOCKER_*, else the last push).", show_default=False),
    "gpu": typer.Option(
        "--gpu", help="GPUs, those of a pod in order of preference, like 4090,a5000 (default: the cheapest that do)."
    ),
    "data_center": typer.Option("--data-center", help="Ids, by commas (default: any)."),
    "disk": typer.Option("--disk", min=5, max=1000, help="Container disk in GB, gone with a stop."),
    "name": typer.Option("--name", help="Beginning of the name."),
    "max_price": typer.Option(
        "--max-price", min=0.01, max=100, help="Refuse to pay more than this for the pod, or for one worker, $/h."
    ),
    "extra": typer.Option("--set", help="NAME=VALUE for the environment of pod or workers; again for more."),
    "require_validated": typer.Option("--require-validated", help="Refuse an image that never ran on a GPU (ec2 run)."),
}
POD = {
    "cloud": typer.Option("--cloud", help="Pod: any, secure or community."),
    "volume": typer.Option("--volume", min=0, max=4000, help="Pod: disk at /workspace in GB that outlives a stop."),
    "network_volume": typer.Option("--network-volume", help="Pod: id of a network volume for /workspace instead."),
    "spot": typer.Option("--spot/--on-demand", help="Pod: cheaper, and may be taken away."),
    "bid": typer.Option("--bid", min=0.001, max=100, help="$/h for one GPU of a spot pod (default: the lowest taken)."),
    "max_minutes": typer.Option("--max-minutes", min=1, max=MAX_MINUTES, help="The pod stops itself after this time."),
    "idle_stop": typer.Option(
        "--idle-stop", min=0, max=1440, help="The pod stops itself after minutes without a client."
    ),
    "terminate_after": typer.Option(
        "--terminate-after", min=1, max=MAX_MINUTES, help="RunPod ends the pod after minutes (by GraphQL)."
    ),
    "secret": typer.Option("--secret", help="Pod: keep the token in RunPod's secret store under this name."),
    "no_auth": typer.Option("--no-auth", help="Pod: serve whoever knows the address."),
}
ENDPOINT = {
    "pool": typer.Option("--pool", help="Endpoint: pools of GPUs, like AMPERE_24,ADA_24 (default: the cheapest)."),
    "workers_min": typer.Option("--workers-min", min=0, max=100, help="Endpoint: workers always kept, and billed."),
    "workers_max": typer.Option("--workers-max", min=1, max=1000, help="Endpoint: most workers at a time."),
    "idle_timeout": typer.Option("--idle-timeout", min=1, max=3600, help="Endpoint: seconds an idle worker stays."),
    "queue_delay": typer.Option(
        "--queue-delay", min=0.5, max=3600, help="Endpoint: seconds a job waits before another worker is added."
    ),
    "requests_per_worker": typer.Option(
        "--requests-per-worker", min=1, max=1000, help="Endpoint: a worker for so many requests, instead."
    ),
    "flashboot": typer.Option("--flashboot/--no-flashboot", help="Endpoint: faster starts (default: on)."),
    "job_timeout": typer.Option("--job-timeout", min=5, max=MAX_JOB_S, help="Endpoint: seconds a job may take."),
    "max_total": typer.Option(
        "--max-total", min=0.01, max=10_000, help="Endpoint: refuse if all workers cost more, $/h."
    ),
    "with_token": typer.Option("--with-token", help="lb: workers want WHISPER_AUTH_TOKEN, too."),
    "new": typer.Option("--new", help="Endpoint: make another one, leave the one that is there."),
}
SHARED_CONDUCT = {
    "dry_run": typer.Option("--dry-run", help="Show the plan and the request, change nothing."),
    "yes": typer.Option("--yes", "-y", help="Ask nothing."),
    "wait": typer.Option("--wait/--no-wait", help="Until it is ready."),
    "timeout": typer.Option(
        "--timeout", min=1, max=7200, help="Seconds to wait; what is new is kept then, a change undone."
    ),
    "keep": typer.Option("--keep", help="End and undo nothing on a failure."),
}
POD_CONDUCT = {
    "reuse": typer.Option("--reuse", help="Keep the pod that is there if it is what is wanted."),
    "replace": typer.Option("--replace", help="End the pod that is there once the new one is ready."),
}
ENDPOINT_CONDUCT = {"no_canary": typer.Option("--no-canary", help="Endpoint: try no job once it is ready.")}
SHAPE = {**SHARED, **POD, **ENDPOINT}
CONDUCT = {**SHARED_CONDUCT, **POD_CONDUCT, **ENDPOINT_CONDUCT}


def register(app: typer.Typer) -> None:
    """Add them."""
    plans = ("plan", "plan --gpu 4090,a5000 --max-minutes 60 --json", "plan endpoint --workers-max 5")
    verb(app, "plan", *plans)(_with_options(plan, SHAPE))
    examples = (
        "deploy --image you/whisper-runpod:1a2b3c4 --idle-stop 15",
        "deploy --gpu 4090,a5000 --cloud secure --max-price 0.70 --yes --json",
        "deploy --spot --max-minutes 120 --dry-run",
        "deploy endpoint --pool AMPERE_24,ADA_24 --workers-max 5 --max-total 6",
        "deploy lb --workers-min 1",
    )
    verb(app, "deploy", *examples)(_with_options(deploy, {**SHAPE, **CONDUCT}))


def plan(run: Runtime, what: str, wishes: Wishes | EndpointWishes) -> None:
    """Show what a deploy would do and cost; change nothing."""
    document, _ = _carry_out(run, what, replace(wishes, dry_run=True))
    run.console.result(document)


def deploy(run: Runtime, what: str, wishes: Wishes | EndpointWishes) -> None:
    """Deploy a pod, an endpoint, or one behind a load balancer (lb): plan, price guard, confirm, create, wait.

    A pod is created where a GPU is free. An endpoint that is there is changed in place, and put back if that fails.
    """
    document, problem = _carry_out(run, what, wishes)
    run.console.result(document, lambda: _show(run, what, document))
    if problem is not None:
        raise problem


def _carry_out(run: Runtime, what: str, wishes: Any) -> tuple[dict[str, Any], Exception | None]:
    if what == "pod":
        from builder.deploy.phases import deploy as deploy_pod

        deployed = deploy_pod(run, wishes)
    else:
        from builder.endpoints.phases import deploy_endpoint

        kind: EndpointKind = "lb" if what == "lb" else "endpoint"
        deployed = deploy_endpoint(run, kind, wishes)
    return deployed.document, deployed.problem


def _show(run: Runtime, what: str, document: dict[str, Any]) -> None:
    if "plan" in document:
        return
    if what == "pod":
        from builder.deploy.view import show_deployed
    else:
        from builder.endpoints.view import show_deployed
    show_deployed(run.console, document)


def _wishes_of(what: str, given: Mapping[str, Any]) -> Wishes | EndpointWishes:
    """The wishes for what is deployed. Raises UsageError for an option that belongs to something else."""
    from builder.deploy.options import Wishes
    from builder.endpoints.options import EndpointWishes

    if what not in KINDS:
        raise UsageError(f"{what!r} cannot be deployed; legal: {', '.join(KINDS)}")
    kind: type[Wishes | EndpointWishes] = Wishes if what == "pod" else EndpointWishes
    other: type[Wishes | EndpointWishes] = EndpointWishes if what == "pod" else Wishes
    own = {each.name for each in fields(kind)}
    foreign = {each.name: each.default for each in fields(other) if each.name not in own}
    for name, value in given.items():
        if name in foreign and value != foreign[name]:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is not for {what}; it is for {'endpoint and lb' if what == 'pod' else 'pod'}")
    return kind(**{name: value for name, value in given.items() if name in own})


def _with_options(function: Callable[[Runtime, str, Any], None], options: dict[str, Any]) -> Callable[..., None]:
    """`function` with one option for each field of `Wishes` and `EndpointWishes` in `options`."""
    from builder.deploy.options import Wishes
    from builder.endpoints.options import EndpointWishes

    argument = Annotated[str, typer.Argument(help="What to deploy: pod, endpoint or lb.")]

    def call(run: Runtime, what: str, **given: Any) -> None:
        given["extra"] = tuple(given["extra"] or ())
        function(run, what, _wishes_of(what, given))

    keyword, positional = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("run", positional, annotation=Runtime),
        inspect.Parameter("what", positional, default="pod", annotation=argument),
    ]
    known: dict[str, tuple[Any, Any]] = {}
    for kind in (Wishes, EndpointWishes):
        hints = get_type_hints(kind)
        known |= {each.name: (hints[each.name], each.default) for each in fields(kind) if each.name not in known}
    for name, (hint, standard) in known.items():
        if name in options:
            is_list = name == "extra"
            default = None if is_list or standard is MISSING else standard
            annotation = Annotated[list[str] | None if is_list else hint, options[name]]  # type: ignore[valid-type]
            parameters.append(inspect.Parameter(name, keyword, default=default, annotation=annotation))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call
