"""Verbs that watch what is paid for: check-all, guard, cost, events."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import verb
from builder.errors import CheckFailedError
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.money.guard import Ending
    from builder.money.guard_rules import Limits

DEFAULT_EVERY_MIN = 5


class GuardAction(str, Enum):
    """What `guard` can do."""

    run = "run"
    install = "install"
    status = "status"
    remove = "remove"


def register(app: typer.Typer) -> None:
    """Add them."""
    verb(app, "check-all", "check-all", "check-all --fail-if-running", "check-all --json")(check_all)
    verb(
        app,
        "guard",
        "guard",
        "guard --kill",
        "guard --kill --every 5 --max-hours 4",
        "guard install --kill --cron",
        "guard remove",
    )(guard)
    verb(app, "cost", "cost", "cost --days 7 --reconcile", "cost --pod POD_ID --json")(cost)
    verb(app, "events", "events", "events --since 2h", "events --since 2026-01-31 --pod POD_ID --json")(events)


def check_all(
    run: Runtime,
    fail_if_running: Annotated[
        bool, typer.Option("--fail-if-running", help="Exit 1 if a machine is paid for, or not all can be seen.")
    ] = False,
) -> None:
    """List all that costs money, what nobody remembers, and how to end it."""
    from builder.money.check_all import check_all as look
    from builder.money.check_all import show_checked

    found = look(run)
    run.console.result(found.document(), lambda: show_checked(run, found))
    if found.problem is not None:
        raise found.problem
    if fail_if_running and found.is_running:
        raise CheckFailedError("something is paid for by the hour, or not everything could be seen", hint="")


def guard(
    run: Runtime,
    action: Annotated[GuardAction, typer.Argument(help="run: look now; the others: by itself, every few minutes.")] = (
        GuardAction.run
    ),
    kill: Annotated[bool, typer.Option("--kill", help="Stop what is due (default: only tell).")] = False,
    terminate: Annotated[bool, typer.Option("--terminate", help="With --kill: end it for good, disk and all.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Look once (the default).")] = False,
    every: Annotated[
        int | None, typer.Option(min=1, max=1440, metavar="MIN", help="Again and again, until Ctrl-C.")
    ] = None,
    max_hours: Annotated[float, typer.Option(min=0.1, max=744, help="Most hours that a pod may run.")] = 2.0,
    idle_min: Annotated[float, typer.Option(min=1, max=1440, help="Minutes that a pod may idle.")] = 30.0,
    protect_min: Annotated[
        float, typer.Option(min=0, max=1440, help="Minutes after a start without judgement.")
    ] = 20.0,
    every_pod: Annotated[bool, typer.Option("--all", help="Also pods that the builder did not make.")] = False,
    fail_if_any: Annotated[
        bool, typer.Option("--fail-if-any", help="Exit 1 if something is due and left running.")
    ] = False,
    cron: Annotated[bool, typer.Option("--cron", help="With install: write it into your crontab.")] = False,
) -> None:
    """Stop pods past their deadline, too old, dead or idle, and overdue EC2 machines. A dry run without --kill."""
    from builder.errors import UsageError
    from builder.money.guard_rules import Limits

    if terminate and not kill:
        raise UsageError("--terminate says how --kill ends pods", hint="add --kill, or leave --terminate out")
    if once and every:
        raise UsageError("--once and --every exclude each other", hint="leave one out")
    ending: Ending = "terminate" if terminate else "stop" if kill else "none"
    limits = Limits(max_hours, idle_min, protect_min, every_pod)
    if action is GuardAction.run:
        _guard_run(run, limits, ending, every, fail_if_any=fail_if_any)
    else:
        _guard_by_itself(run, action, limits, ending, every, cron=cron)


def _guard_run(run: Runtime, limits: Limits, ending: Ending, every: int | None, *, fail_if_any: bool) -> None:
    from builder.errors import BuilderError
    from builder.money.guard import guard_forever, guard_once, show_round

    if every:
        guard_forever(run, limits, ending, every * 60.0)
    seen = guard_once(run, limits, ending)
    show_round(run, seen)
    if seen.problems:
        raise BuilderError(
            f"not judged or not ended: {'; '.join(seen.problems)}",
            hint="see what costs and the command that ends each: python -m builder check-all",
        )
    if fail_if_any and seen.n_due:
        raise CheckFailedError(f"due and left running: {seen.n_due}", hint="end what is due: add --kill")


def _guard_by_itself(
    run: Runtime, action: GuardAction, limits: Limits, ending: Ending, every: int | None, *, cron: bool
) -> None:
    from builder.money.guard_install import install, remove, show_status

    if action is GuardAction.install:
        install(run, limits, ending, every or DEFAULT_EVERY_MIN, into_crontab=cron)
    elif action is GuardAction.status:
        show_status(run)
    else:
        remove(run)


def cost(
    run: Runtime,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days to look back, today included.")] = 30,
    pod: Annotated[str | None, typer.Option(metavar="POD_ID", help="Only this pod.")] = None,
    reconcile: Annotated[bool, typer.Option("--reconcile", help="Compare with RunPod's bill.")] = False,
) -> None:
    """Show what pods cost so far, what they cost now, and how long the credit lasts."""
    from builder.money.cost import cost_report, show_costs

    report = cost_report(run, days=days, pod_id=pod, reconcile=reconcile)
    run.console.result(report.document(), lambda: show_costs(run, report))


def events(
    run: Runtime,
    since: Annotated[str | None, typer.Option(metavar="WHEN", help="30m, 2h, 7d, or a date or time (UTC).")] = None,
    pod: Annotated[str | None, typer.Option(metavar="POD_ID", help="Only what happened to this pod.")] = None,
) -> None:
    """Show the diary: what the builder did from this folder, and when."""
    from builder.money.events import pick_events, since_s, table_rows

    after_s = None if since is None else since_s(since, run.clock.unix_s())
    found = pick_events(run.state.events(), after_s=after_s, resource_id=pod)

    def show() -> None:
        if found:
            run.console.table(("time", "action", "what", "id", "details"), table_rows(found))
        else:
            run.console.line("No events.")

    run.console.result({"events": found}, show)
