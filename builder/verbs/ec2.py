"""The group `ec2`: machines of AWS to try an image on a GPU before it is paid for at RunPod."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    from builder.verbs.ec2_run import register_into

    group = typer.Typer(help="EC2 machines to try an image on a GPU.", no_args_is_help=True)
    examples = (
        "ec2 launch",
        "ec2 launch --type g5.xlarge --max-minutes 30 --yes --json",
        "ec2 launch --spot --dry-run",
    )
    verb(group, "launch", *examples)(launch)
    verb(group, "status", "ec2 status", "ec2 status --json")(status)
    verb(group, "terminate", "ec2 terminate", "ec2 terminate --all-mine --yes")(terminate)
    register_into(group)
    app.add_typer(group, name="ec2")


def launch(
    run: Runtime,
    instance_type: Annotated[
        str | None, typer.Option("--type", help="Type of machine (default: EC2_INSTANCE_TYPE, else g4dn.xlarge).")
    ] = None,
    ami: Annotated[
        str | None, typer.Option("--ami", help="Its image (default: AWS's newest with NVIDIA driver).")
    ] = None,
    region: Annotated[str | None, typer.Option("--region", help="Instead of AWS_REGION.")] = None,
    max_minutes: Annotated[
        int | None,
        typer.Option("--max-minutes", min=10, max=720, help="It ends after this time (default: EC2_MAX_MINUTES, 90)."),
    ] = None,
    allow_cidr: Annotated[
        str | None, typer.Option("--allow-cidr", help="Network that may reach it (default: your address alone).")
    ] = None,
    allow_everyone: Annotated[bool, typer.Option("--allow-everyone", help="Let the whole internet reach it.")] = False,
    spot: Annotated[bool, typer.Option("--spot", help="Cheaper, and may be taken away.")] = False,
    max_price: Annotated[
        float | None, typer.Option("--max-price", min=0.01, max=100, help="Refuse to pay more than this, $/h.")
    ] = None,
    disk: Annotated[int, typer.Option("--disk", min=20, max=1000, help="Its disk in GB.")] = 100,
    name: Annotated[str, typer.Option("--name", help="Beginning of its name.")] = "whisper",
    outside_timer: Annotated[
        bool,
        typer.Option("--outside-timer/--no-outside-timer", help="A process of this machine ends it as well."),
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the request, change nothing.")] = False,
) -> None:
    """Launch a machine with a GPU that only you can reach, and that ends by itself."""
    from builder.ec2.launch import launch as carry_out
    from builder.ec2.launch import show_launched
    from builder.ec2.plan import LaunchWishes

    wishes = LaunchWishes(
        instance_type=instance_type,
        ami=ami,
        region=region,
        max_minutes=max_minutes,
        allow_cidr=allow_cidr,
        allow_everyone=allow_everyone,
        spot=spot,
        max_price=max_price,
        disk_gb=disk,
        name=name,
        has_outside_timer=outside_timer,
        yes=yes,
        dry_run=dry_run,
    )
    document = carry_out(run, wishes)
    run.console.result(document, lambda: show_launched(run, document))


def status(run: Runtime) -> None:
    """Show the machine: state, address, minutes left, cost so far."""
    from builder.ec2.status import show_status, status_of

    document = status_of(run)
    run.console.result(document, lambda: show_status(run, document))


def terminate(
    run: Runtime,
    name: Annotated[
        str | None, typer.Argument(help="Name or id (default: the one launched last).", show_default=False)
    ] = None,
    all_mine: Annotated[bool, typer.Option("--all-mine", help="All that the builder made in the region.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    at: Annotated[
        str | None, typer.Option("--at", help="Wait until then, like 2026-01-31T12:00:00Z.", show_default=False)
    ] = None,
) -> None:
    """End the machine with its security group, key pair and disk; a second time is fine."""
    from builder.ec2.kill_timer import end_at
    from builder.ec2.terminate import terminate as end
    from builder.errors import UsageError

    if at is None:
        document = end(run, name, all_mine=all_mine, yes=yes)
    elif name is None or all_mine or not yes:
        raise UsageError("--at wants a name and --yes, and no --all-mine")
    else:
        document = end_at(run, name, at)

    def show() -> None:
        for each in document["terminated"]:
            run.console.line(f"Terminated {each}.")
        for each in document["deleted"]:
            run.console.line(f"Deleted {each['kind']} {each['id']}.")
        if not document["terminated"] and not document["deleted"]:
            run.console.line("Nothing was there to end.")

    run.console.result(document, show)
