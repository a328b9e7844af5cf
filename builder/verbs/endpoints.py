"""The group `endpoint`: what serverless endpoints there are, how they do, changing and ending them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    pass

ENDPOINT = typer.Argument(
    metavar="ID", help="Endpoint id (default: RUNPOD_ENDPOINT_ID, else the one deployed last).", show_default=False
)
YES = typer.Option("--yes", "-y", help="Do not ask.")
MAX_WORKERS = 1000


def register(app: typer.Typer) -> None:
    """Add it."""
    group = typer.Typer(help="Serverless endpoints: list, watch, scale, end.", no_args_is_help=True)
    verb(group, "list", "endpoint list", "endpoint list --json")(list_all)
    verb(group, "status", "endpoint status", "endpoint status abc123 --watch", "endpoint status --json")(status)
    verb(
        group,
        "scale",
        "endpoint scale --min 1 --max 5",
        "endpoint scale abc123 --zero --wait --yes",
        "endpoint scale --park",
        "endpoint scale --max 10 --idle-timeout 30 --max-price 1.20",
    )(scale)
    verb(group, "purge", "endpoint purge", "endpoint purge abc123 --yes")(purge)
    verb(group, "delete", "endpoint delete", "endpoint delete abc123 --yes", "endpoint delete --all-mine")(delete)
    app.add_typer(group, name="endpoint")


def list_all(run: Runtime) -> None:
    """List all endpoints of the account, with what their workers cost now."""
    from builder.endpoints.status import list_endpoints
    from builder.endpoints.views import show_list

    document = list_endpoints(run)
    run.console.result(document, lambda: show_list(run.console, document))


def status(
    run: Runtime,
    endpoint: Annotated[str | None, ENDPOINT] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Every 5 s until Ctrl-C; in a pipe a JSON line each.")
    ] = False,
) -> None:
    """Show an endpoint: workers, jobs, release, cost, what is wrong, addresses."""
    from builder.endpoints.chosen import chosen_endpoint_id
    from builder.endpoints.status import endpoint_status, watch_endpoint
    from builder.endpoints.views import show_status, status_line

    endpoint_id = chosen_endpoint_id(run, endpoint)
    if not watch:
        document = endpoint_status(run, endpoint_id)
        run.console.result(document, lambda: show_status(run.console, document))
        return

    watch_endpoint(run, endpoint_id, lambda document: run.show_moment(document, status_line))


def scale(
    run: Runtime,
    endpoint: Annotated[str | None, ENDPOINT] = None,
    low: Annotated[
        int | None, typer.Option("--min", min=0, max=MAX_WORKERS, help="Workers that are always kept, and billed.")
    ] = None,
    high: Annotated[int | None, typer.Option("--max", min=0, max=MAX_WORKERS, help="Most workers at a time.")] = None,
    idle_timeout: Annotated[
        int | None, typer.Option("--idle-timeout", min=1, max=3600, help="Seconds that an idle worker is kept.")
    ] = None,
    zero: Annotated[bool, typer.Option("--zero", help="Keep no worker (--min 0); jobs still start some.")] = False,
    park: Annotated[bool, typer.Option("--park", help="Let none start (--min 0 --max 0): jobs wait.")] = False,
    max_price: Annotated[
        float | None,
        typer.Option(
            "--max-price", min=0.01, max=100, help="Refuse more workers if one costs more $/h (BUILDER_MAX_PRICE)."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the workers above min are gone.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", min=1, max=86_400, help="Seconds to wait.")] = 600.0,
    yes: Annotated[bool, YES] = False,
) -> None:
    """Change how many workers an endpoint has; says what it costs before and after."""
    from builder.endpoints.chosen import chosen_endpoint_id
    from builder.endpoints.operate import Scale, scale_endpoint, wait_until_scaled
    from builder.endpoints.views import show_scaled
    from builder.errors import InterruptError

    wanted = Scale(low, high, idle_timeout, zero, park)
    limit = run.settings.max_price if max_price is None else max_price
    document = scale_endpoint(run, chosen_endpoint_id(run, endpoint), wanted, max_price=limit, yes=yes)
    if wait:
        try:
            document["wait"] = wait_until_scaled(run, document["endpoint_id"], timeout)
        except KeyboardInterrupt:
            raise InterruptError(
                f"interrupted; endpoint {document['endpoint_id']} has its new limits, and may have workers above min",
                hint=f"look again: python -m builder endpoint status {document['endpoint_id']}",
            ) from None
    run.console.result(document, lambda: show_scaled(run.console, document))


def purge(run: Runtime, endpoint: Annotated[str | None, ENDPOINT] = None, yes: Annotated[bool, YES] = False) -> None:
    """Remove the jobs that wait in an endpoint's queue; those in progress go on."""
    from builder.endpoints.chosen import chosen_endpoint_id
    from builder.endpoints.operate import purge_endpoint

    document = purge_endpoint(run, chosen_endpoint_id(run, endpoint), yes=yes)
    run.console.result(document, lambda: run.console.line(f"jobs removed: {document['removed']}"))


def delete(
    run: Runtime,
    endpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="Endpoint ids (default: as for status).", show_default=False),
    ] = None,
    all_mine: Annotated[
        bool, typer.Option("--all-mine", help="Every endpoint and template of the account that a builder made.")
    ] = False,
    yes: Annotated[bool, YES] = False,
) -> None:
    """End endpoints for good, with their workers, jobs and templates, and see that they are gone.

    A template that is left over may be named, too.
    """
    from builder.endpoints.chosen import chosen_endpoint_id
    from builder.endpoints.ending import delete_endpoints, our_endpoint_ids
    from builder.endpoints.views import show_deleted
    from builder.errors import UsageError

    if all_mine and endpoints:
        raise UsageError("give endpoints or --all-mine, not both")
    named: list[str | None] = [*endpoints] if endpoints else [None]
    ids = our_endpoint_ids(run) if all_mine else [chosen_endpoint_id(run, each) for each in named]
    document = delete_endpoints(run, ids, yes=yes, all_mine=all_mine)
    run.console.result(document, lambda: show_deleted(run.console, document))
