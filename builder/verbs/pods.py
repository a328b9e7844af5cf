"""Verbs for one pod: wait, status, logs, start, restart, stop, terminate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    pass

POD = typer.Argument(help="Pod id (default: the one deployed last).", show_default=False)
MINUTES = typer.Option(
    "--max-minutes", min=1, max=44_640, help="The pod stops itself after this (default: BUILDER_MAX_MINUTES)."
)
WAIT = typer.Option("--wait", help="Until it is ready.")
TIMEOUT = typer.Option("--timeout", min=1, max=86_400, help="Seconds to wait; the pod is kept.")
DEFAULT_TIMEOUT_S = 600.0


def register(app: typer.Typer) -> None:
    """Add them."""
    verb(app, "wait", "wait", "wait --until speaks --timeout 300", "wait 7h9k2m4n6p --json")(wait)
    verb(app, "status", "status", "status --watch", "status 7h9k2m4n6p --json")(status)
    verb(app, "logs", "logs", "logs --follow --grep error", "logs --source system --tail 500", "logs --since 15m")(logs)
    verb(app, "start", "start", "start --wait --max-minutes 120")(start)
    verb(app, "restart", "restart", "restart --hard --wait")(restart)
    verb(app, "stop", "stop", "stop 7h9k2m4n6p")(stop)
    verb(app, "terminate", "terminate", "terminate 7h9k2m4n6p --yes", "terminate --all-mine")(terminate)


def wait(
    run: Runtime,
    pod: Annotated[str | None, POD] = None,
    until: Annotated[
        Literal["running", "health", "ready", "speaks"],
        typer.Option(
            "--until",
            help="running: it runs; health: it answers; ready: the model is loaded; speaks: a clip is transcribed.",
        ),
    ] = "ready",
    timeout: Annotated[float, TIMEOUT] = DEFAULT_TIMEOUT_S,
) -> None:
    """Wait until a pod serves; fail at once, with the cause, when it never will."""
    from builder.pods.pods import chosen_pod_id
    from builder.pods.views import show_readiness

    document = _waited(run, chosen_pod_id(run, pod), until, timeout, None)
    run.console.result(document, lambda: show_readiness(run.console, document))


def status(
    run: Runtime,
    pod: Annotated[str | None, POD] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Every 5 s until Ctrl-C; in a pipe a JSON line each.")
    ] = False,
) -> None:
    """Show a pod: state, cost, limits, load, addresses."""
    from builder.pods.pods import chosen_pod_id
    from builder.pods.views import show_status, status_line
    from builder.pods.watch import pod_status, watch_status

    pod_id = chosen_pod_id(run, pod)
    if not watch:
        document = pod_status(run, pod_id)
        run.console.result(document, lambda: show_status(run.console, document))
        return

    watch_status(run, pod_id, lambda document: run.show_moment(document, status_line))


def logs(
    run: Runtime,
    pod: Annotated[str | None, POD] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C, or until the pod stops.")] = False,
    tail: Annotated[int, typer.Option("--tail", "-n", min=0, max=5_000, help="Lines of history.")] = 100,
    since: Annotated[
        str | None, typer.Option("--since", help="From then on, instead of --tail: an instant, or 90s, 15m, 2h ago.")
    ] = None,
    source: Annotated[
        Literal["container", "system"] | None, typer.Option("--source", help="container: the server; system: its host.")
    ] = None,
    grep: Annotated[str | None, typer.Option("--grep", help="Only lines with this text, in any case.")] = None,
) -> None:
    """Print a pod's log; with --json one object per line."""
    from builder.pods.log_follow import LogQuery, read_since
    from builder.pods.pods import chosen_pod_id
    from builder.pods.watch import pod_lines

    query = LogQuery(source, tail, read_since(since, run.clock.unix_s()), grep)
    try:
        for event in pod_lines(run, chosen_pod_id(run, pod), query, is_endless=follow):
            if run.console.as_json:
                run.console.json_line(event.model_dump())
            else:
                run.console.line(f"{event.ts} {event.source:<9} {event.line}")
    except KeyboardInterrupt:
        if not follow:
            raise


def start(
    run: Runtime,
    pod: Annotated[str | None, POD] = None,
    ready: Annotated[bool, WAIT] = False,
    max_minutes: Annotated[int | None, MINUTES] = None,
    timeout: Annotated[float, TIMEOUT] = DEFAULT_TIMEOUT_S,
) -> None:
    """Start a stopped pod, on its old host; that may have no GPU left."""
    from builder.pods.operate import start_pod
    from builder.pods.pods import chosen_pod_id

    pod_id, began_s = chosen_pod_id(run, pod), run.clock.unix_s()
    document = start_pod(run, pod_id, max_minutes)
    # One that was up already may show its present state.
    _finish(run, document, ready, timeout, began_s if document["action"] == "start" else None)


def restart(
    run: Runtime,
    pod: Annotated[str | None, POD] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Stop and start: a new container, and maybe no GPU.")] = False,
    ready: Annotated[bool, WAIT] = False,
    max_minutes: Annotated[int | None, MINUTES] = None,
    timeout: Annotated[float, TIMEOUT] = DEFAULT_TIMEOUT_S,
) -> None:
    """Restart a pod's container in place."""
    from builder.errors import UsageError
    from builder.pods.operate import restart_pod
    from builder.pods.pods import chosen_pod_id

    if max_minutes is not None and not hard:
        raise UsageError("--max-minutes needs --hard: a running pod keeps the deadline it was started with")
    pod_id, began_s = chosen_pod_id(run, pod), run.clock.unix_s()
    _finish(run, restart_pod(run, pod_id, max_minutes, is_hard=hard), ready, timeout, began_s)


def stop(run: Runtime, pod: Annotated[str | None, POD] = None) -> None:
    """Stop a pod: its GPU is given back, its volume disk is kept and billed."""
    from builder.pods.operate import stop_pod
    from builder.pods.pods import chosen_pod_id
    from builder.pods.views import show_operated

    document = stop_pod(run, chosen_pod_id(run, pod))
    run.console.result(document, lambda: show_operated(run.console, document))


def terminate(
    run: Runtime,
    pods: Annotated[list[str] | None, typer.Argument(help="Pod ids (default: the one deployed last).")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    all_mine: Annotated[
        bool, typer.Option("--all-mine", help="Every pod of the account that a builder deployed.")
    ] = False,
) -> None:
    """End pods for good, with their disks, and see that they are gone."""
    from builder.errors import UsageError
    from builder.pods.operate import our_pod_ids, terminate_pods
    from builder.pods.pods import chosen_pod_id

    if all_mine and pods:
        raise UsageError("give pods or --all-mine, not both")
    pod_ids = our_pod_ids(run) if all_mine else pods or [chosen_pod_id(run, None)]
    document = terminate_pods(run, pod_ids, yes=yes)
    ended, gone = document["terminated"], document["gone"]
    text = f"terminated: {', '.join(ended) or 'none'}" + (f"; gone already: {', '.join(gone)}" if gone else "")
    run.console.result(document, lambda: run.console.line(text))


def _finish(run: Runtime, document: dict[str, Any], ready: bool, timeout_s: float, began_s: float | None) -> None:
    """Wait if asked to, then show."""
    from builder.pods.views import show_operated

    if ready:
        document |= {"wait": _waited(run, document["pod_id"], "ready", timeout_s, began_s), "status": "RUNNING"}
    run.console.result(document, lambda: show_operated(run.console, document))


def _waited(
    run: Runtime,
    pod_id: str,
    until: Literal["running", "health", "ready", "speaks"],
    timeout_s: float,
    began_s: float | None,
) -> dict[str, Any]:
    from builder.errors import InterruptError
    from builder.pods.wait import wait_for_pod

    try:
        return wait_for_pod(run, pod_id, until=until, timeout_s=timeout_s, since_s=began_s).document()
    except KeyboardInterrupt:
        raise InterruptError(
            f"interrupted; pod {pod_id} is kept, and billed", hint="end it: python -m builder terminate"
        ) from None
