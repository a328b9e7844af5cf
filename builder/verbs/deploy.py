"""Verbs that put a pod into the world, and show what that would cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from builder.cli import verb
from builder.errors import UsageError
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.deploy.options import Wishes

MAX_MINUTES = 44_640
SHAPE = {
    "image": typer.Option("--image", help="USER/NAME:TAG (default: DOCKER_*, else the last push).", show_default=False),
    "gpu": typer.Option("--gpu", help="GPUs in order of preference, like 4090,a5000 (default: the cheapest that do)."),
    "cloud": typer.Option("--cloud", help="any, secure or community."),
    "data_center": typer.Option("--data-center", help="Ids, by commas (default: any)."),
    "disk": typer.Option("--disk", min=5, max=1000, help="Container disk in GB, gone with a stop."),
    "volume": typer.Option("--volume", min=0, max=4000, help="Disk at /workspace in GB that outlives a stop."),
    "network_volume": typer.Option("--network-volume", help="Id of a network volume for /workspace instead."),
    "name": typer.Option("--name", help="Beginning of the pod's name."),
    "spot": typer.Option("--spot/--on-demand", help="Cheaper, and may be taken away."),
    "bid": typer.Option("--bid", min=0.001, max=100, help="$/h for one GPU of a spot pod (default: the lowest taken)."),
    "max_price": typer.Option("--max-price", min=0.01, max=100, help="Refuse to pay more than this, $/h."),
    "max_minutes": typer.Option("--max-minutes", min=1, max=MAX_MINUTES, help="The pod stops itself after this time."),
    "idle_stop": typer.Option("--idle-stop", min=0, max=1440, help="It stops itself after minutes without a client."),
    "terminate_after": typer.Option(
        "--terminate-after", min=1, max=MAX_MINUTES, help="RunPod ends it after minutes (by GraphQL)."
    ),
    "secret": typer.Option("--secret", help="Keep the token in RunPod's secret store under this name."),
    "no_auth": typer.Option("--no-auth", help="Serve whoever knows the address."),
    "extra": typer.Option("--set", help="NAME=VALUE for the pod's environment; again for more."),
}
CONDUCT = {
    "reuse": typer.Option("--reuse", help="Keep the pod that is there if it is what is wanted."),
    "replace": typer.Option("--replace", help="End the pod that is there once the new one is ready."),
    "dry_run": typer.Option("--dry-run", help="Show the plan and the request, change nothing."),
    "yes": typer.Option("--yes", "-y", help="Ask nothing."),
    "wait": typer.Option("--wait/--no-wait", help="Until it is ready."),
    "timeout": typer.Option("--timeout", min=1, max=7200, help="Seconds to wait; the pod is kept then."),
    "keep": typer.Option("--keep", help="End nothing on a failure."),
}


def register(app: typer.Typer) -> None:
    """Add them."""
    verb(app, "plan", "plan", "plan --gpu 4090,a5000 --max-minutes 60 --json")(_with_options(plan, SHAPE))
    examples = (
        "deploy --image you/whisper-runpod:1a2b3c4 --idle-stop 15",
        "deploy --gpu 4090,a5000 --cloud secure --max-price 0.70 --yes --json",
        "deploy --spot --max-minutes 120 --dry-run",
    )
    verb(app, "deploy", *examples)(_with_options(deploy, {**SHAPE, **CONDUCT}))


def plan(run: Runtime, what: str, wishes: Wishes) -> None:
    """Show what a deploy would do and cost; change nothing."""
    from builder.deploy.phases import deploy as carry_out

    _check(what)
    deployed = carry_out(run, replace(wishes, dry_run=True))
    run.console.result(deployed.document)


def deploy(run: Runtime, what: str, wishes: Wishes) -> None:
    """Deploy a pod: plan, price guard, confirm, create where a GPU is free, wait until it is ready."""
    from builder.deploy.phases import deploy as carry_out
    from builder.deploy.view import show_deployed

    _check(what)
    deployed = carry_out(run, wishes)
    show = (lambda: None) if "plan" in deployed.document else (lambda: show_deployed(run.console, deployed.document))
    run.console.result(deployed.document, show)
    if deployed.problem is not None:
        raise deployed.problem


def _check(what: str) -> None:
    if what != "pod":
        raise UsageError(f"{what!r} cannot be deployed; legal: pod")


def _with_options(function: Callable[[Runtime, str, Wishes], None], options: dict[str, Any]) -> Callable[..., None]:
    """`function` with one option for each field of `Wishes` in `options`."""
    from builder.deploy.options import Wishes

    hints = get_type_hints(Wishes)
    argument = Annotated[str, typer.Argument(help="What to deploy: pod.")]

    def call(run: Runtime, what: str, **given: Any) -> None:
        given["extra"] = tuple(given["extra"] or ())
        function(run, what, Wishes(**given))

    keyword, positional = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter("run", positional, annotation=Runtime),
        inspect.Parameter("what", positional, default="pod", annotation=argument),
    ]
    for each in fields(Wishes):
        if each.name in options:
            kind = list[str] | None if each.name == "extra" else hints[each.name]
            default = None if each.name == "extra" or each.default is MISSING else each.default
            annotation = Annotated[kind, options[each.name]]  # type: ignore[valid-type]
            parameters.append(inspect.Parameter(each.name, keyword, default=default, annotation=annotation))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call
