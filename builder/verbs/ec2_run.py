"""Verbs on the EC2 machine, by SSH: `ec2 wait`, `run`, `logs`, `stop`, `ssh`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.ec2.wait import Waited

_Config = Annotated[
    Path | None, typer.Option("--ssh-config", metavar="FILE", help="ssh's configuration, as for a jump host.")
]
_MAX_TIMEOUT_S = 86_400


def register_into(group: typer.Typer) -> None:
    """Add them to the group `ec2`."""
    verb(group, "wait", "ec2 wait", "ec2 wait --timeout 900 --json")(wait)
    verb(group, "run", "ec2 run", "ec2 run someone/whisper-runpod:v1 --mode realtime", "ec2 run --no-pull")(run_)
    verb(group, "logs", "ec2 logs", "ec2 logs --follow", "ec2 logs --boot --tail 50")(logs)
    verb(group, "stop", "ec2 stop")(stop)
    verb(group, "ssh", "ec2 ssh", "ec2 ssh -- nvidia-smi -L", "ec2 ssh --print")(ssh)


def wait(
    run: Runtime,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, max=_MAX_TIMEOUT_S, help="Seconds; the machine is kept.")
    ] = 600.0,
    config: _Config = None,
) -> None:
    """Wait until the machine runs, answers SSH, is prepared, and shows its GPU to a container."""
    from builder.ec2.wait import wait_for_machine

    waited = wait_for_machine(run, timeout_s=timeout, config=config)
    run.console.result(waited.document(), lambda: _show_waited(run, waited))


def run_(
    run: Runtime,
    image: Annotated[
        str | None, typer.Argument(help="Image (default: the one deploy would take).", show_default=False)
    ] = None,
    pull: Annotated[bool, typer.Option("--pull/--no-pull", help="Get it from its registry.")] = True,
    mode: Annotated[
        Literal["realtime", "handler", "both"], typer.Option("--mode", help="As a pod, as a worker, or both.")
    ] = "both",
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, max=_MAX_TIMEOUT_S, help="Seconds until ready, and for the job.")
    ] = 600.0,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Serve without a token.")] = False,
    extra: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="More for its environment.")
    ] = None,
    config: _Config = None,
) -> None:
    """Run the image on the GPU, check it with speech, and record its digest as tried."""
    from builder.ec2.run_image import Trial, run_image

    trial = Trial(image, pull, mode, timeout, no_auth, tuple(extra or ()), config)
    document = run_image(run, trial)
    run.console.result(document, lambda: _show_run(run, document))


def logs(
    run: Runtime,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=5_000, help="Lines of history.")] = 100,
    boot: Annotated[bool, typer.Option("--boot", help="The machine's first boot, not the container.")] = False,
    config: _Config = None,
) -> None:
    """Print the container's log, or that of the machine's first boot; with --json one object per line."""
    from builder.ec2.remote_logs import boot_lines, container_lines
    from builder.errors import UsageError

    def say(line: str) -> None:
        if run.console.as_json:
            run.console.json_line({"line": line})
        else:
            run.console.line(line)

    if boot:
        if follow:
            raise UsageError("--boot and --follow exclude each other")
        boot_lines(run, say, tail=tail, config=config)
        return
    try:
        container_lines(run, say, tail=tail, is_endless=follow, config=config)
    except KeyboardInterrupt:
        if not follow:
            raise


def stop(run: Runtime, config: _Config = None) -> None:
    """Stop and remove the container; the machine goes on, and is billed."""
    from builder.ec2.run_image import stop_container

    document = stop_container(run, config)

    def show() -> None:
        run.console.line("The container is removed." if document["removed"] else "There was no container.")
        run.console.line(document["still_billed"])

    run.console.result(document, show)


def ssh(
    run: Runtime,
    command: Annotated[
        list[str] | None, typer.Argument(help="Run this there, behind --; without: a shell.", show_default=False)
    ] = None,
    print_it: Annotated[bool, typer.Option("--print", help="Only print the command line.")] = False,
    config: _Config = None,
) -> None:
    """Log in to the machine, or run a command there."""
    from builder.ec2.shell import enter, run_there, shell_line

    if print_it:
        line = shell_line(run, command or (), config)
        run.console.result({"command": line}, lambda: _show_line(run, line))
    elif run.console.as_json:
        document = run_there(run, command or (), config)
        run.console.result(document)
        if document["exit_code"]:
            raise typer.Exit(document["exit_code"])
    else:
        enter(run, command or (), config)


def _show_line(run: Runtime, line: list[str]) -> None:
    import shlex

    run.console.line(shlex.join(line))


def _show_waited(run: Runtime, waited: Waited) -> None:
    from builder.instants import duration_text

    machine = waited.machine
    took = duration_text(max(waited.rungs.values(), default=0.0))
    run.console.line(f"EC2 machine {machine.instance_id} is ready after {took}: {waited.gpu}.")
    run.console.line(f"  {machine.cost_line(run.clock.unix_s())}")
    run.console.line("Next: python -m builder ec2 run")


def _show_run(run: Runtime, document: dict[str, Any]) -> None:
    rows = [("ok" if each["ok"] else "FAILED", each["name"], each["detail"]) for each in document["checks"]]
    run.console.table(("", "check", "result"), rows, title=f"{document['image']} on {document['instance_type']}")
    if document["recorded"]:
        run.console.line(f"Recorded as tried on a GPU: {document['digest']}")
    run.console.line(document["still_billed"])
    run.console.line("Next: python -m builder ec2 terminate, then python -m builder deploy")
