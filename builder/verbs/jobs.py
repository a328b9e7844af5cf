"""The group `job`: work for an endpoint's workers, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.api.models_serverless import Job

ENDPOINT = typer.Option(
    "--endpoint", metavar="ID", help="Its endpoint (default: RUNPOD_ENDPOINT_ID, else the one deployed last)."
)
WHERE = typer.Option(
    "--endpoint", metavar="ID", help="Its endpoint (default: where it was sent from here, else as for job run)."
)
JOB = typer.Argument(metavar="JOB", help="Job id.")
MAX_POLICY_S = 604_800


def register(app: typer.Typer) -> None:
    """Add it."""
    group = typer.Typer(help="Jobs of serverless endpoints.", no_args_is_help=True)
    verb(
        group,
        "run",
        "job run job.json --wait",
        'job run --input \'{"audio": "https://host/talk.mp3"}\' --wait --json',
        "job run - --endpoint abc123 --ttl 3600 --low-priority < job.json",
    )(run_job)
    verb(group, "status", "job status 1a2b3c-u1", "job status 1a2b3c-u1 --json")(status)
    verb(group, "stream", "job stream 1a2b3c-u1", "job stream 1a2b3c-u1 --json")(stream)
    verb(group, "cancel", "job cancel 1a2b3c-u1 4d5e6f-u1")(cancel)
    verb(group, "retry", "job retry 1a2b3c-u1")(retry)
    app.add_typer(group, name="job")


def run_job(
    run: Runtime,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-",
            help='JSON: {"input": {...}}, or the input alone; -: standard input.',
            show_default=False,
        ),
    ] = None,
    inline: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="The same here; not for secrets.")
    ] = None,
    endpoint: Annotated[str | None, ENDPOINT] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is over; prints its output.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, max=MAX_POLICY_S, help="Seconds to wait; the job goes on.")
    ] = 600.0,
    ttl: Annotated[
        int | None,
        typer.Option("--ttl", min=10, max=MAX_POLICY_S, help="Seconds after which it vanishes, done or not."),
    ] = None,
    execution_timeout: Annotated[
        int | None,
        typer.Option("--execution-timeout", min=5, max=MAX_POLICY_S, help="Seconds that it may run."),
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Called with the finished job.")
    ] = None,
    low_priority: Annotated[bool, typer.Option("--low-priority", help="Behind the others; starts no worker.")] = False,
) -> None:
    """Send a job to an endpoint; prints its id, or with --wait its output."""
    from builder.endpoints.chosen import chosen_endpoint_id
    from builder.jobs.submit import JobOptions, job_body, read_input, run_once
    from builder.jobs.wait import wait_for_job

    document = read_input(run, source, inline)
    body = job_body(document, JobOptions(ttl, execution_timeout, webhook, low_priority))
    endpoint_id = chosen_endpoint_id(run, endpoint)
    job = run_once(run, endpoint_id, body)
    if wait:
        run.console.note(f"job {job.id} at endpoint {endpoint_id}")
        job = wait_for_job(run, endpoint_id, job.id, timeout_s=timeout)
        run.console.result(_document(job, endpoint_id), lambda: run.console.line(_text(job.output)))
    else:
        run.console.result(_document(job, endpoint_id), lambda: run.console.line(job.id))


def status(run: Runtime, job: Annotated[str, JOB], endpoint: Annotated[str | None, WHERE] = None) -> None:
    """Show a job: its state, times and output. Exit 1 if it failed."""
    from builder.jobs.wait import failure_of, find_job

    endpoint_id = _endpoint_of(run, job, endpoint)
    found = find_job(run, endpoint_id, job)
    run.console.result(_document(found, endpoint_id), lambda: _show(run, found))
    failure = failure_of(found, endpoint_id)
    if failure is not None:
        raise failure


def stream(run: Runtime, job: Annotated[str, JOB], endpoint: Annotated[str | None, WHERE] = None) -> None:
    """Print what a job gives, as it comes, until it is over; with --json one object per line."""
    from builder.jobs.stream import stream_job

    for piece in stream_job(run, _endpoint_of(run, job, endpoint), job):
        if run.console.as_json:
            run.console.json_line(piece if isinstance(piece, dict) else {"output": piece})
        else:
            run.console.line(_text(piece, indent=None))


def cancel(
    run: Runtime,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB", help="Job ids.")],
    endpoint: Annotated[str | None, WHERE] = None,
) -> None:
    """Stop jobs that wait or run; tries all of them."""
    from builder.jobs.change import cancel_jobs

    pairs = [(_endpoint_of(run, job, endpoint), job) for job in dict.fromkeys(jobs)]
    found, problem = cancel_jobs(run, pairs)
    states = {job.id: job.status for job in found}

    def show() -> None:
        for job_id, state in states.items():
            run.console.line(f"{job_id} {state}" + ("" if state == "CANCELLED" else ": it was over already"))

    run.console.result({"jobs": states}, show)
    if problem is not None:
        raise problem


def retry(run: Runtime, job: Annotated[str, JOB], endpoint: Annotated[str | None, WHERE] = None) -> None:
    """Run a job again, under the same id, that failed or ran out of time."""
    from builder.jobs.change import retry_job

    endpoint_id = _endpoint_of(run, job, endpoint)
    found = retry_job(run, endpoint_id, job)
    run.console.result(_document(found, endpoint_id), lambda: run.console.line(f"{found.id} {found.status}"))


def _endpoint_of(run: Runtime, job_id: str, given: str | None) -> str:
    """Where the job is: as named, else where it was sent from here, else the endpoint that is meant by default."""
    from builder.endpoints.chosen import chosen_endpoint_id

    if given is None:
        for event in run.state.events():
            if event.get("type") == "job" and event.get("resource_id") == job_id:
                details = event.get("details")
                given = (details.get("endpoint") if isinstance(details, dict) else None) or given
    return chosen_endpoint_id(run, given)


def _document(job: Job, endpoint_id: str) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "endpoint_id": endpoint_id,
        "status": job.status,
        "output": job.output,
        "error": job.error,
        "delay_ms": job.delay_ms,
        "execution_ms": job.execution_ms,
        "worker_id": job.worker_id,
        "retries": job.retries,
    }


def _show(run: Runtime, job: Job) -> None:
    from builder.instants import duration_text

    times = [
        f"{name} {duration_text(ms / 1000)}"
        for name, ms in (("waited", job.delay_ms), ("ran", job.execution_ms))
        if ms is not None
    ]
    retries = [f"{job.retries} retries"] if job.retries else []
    run.console.line(", ".join([f"{job.id} {job.status}", *times, *retries]))
    if job.output is not None:
        run.console.line(_text(job.output))


def _text(value: Any, indent: int | None = 2) -> str:
    """A worker's output for people: text as it is, the rest as JSON."""
    import json

    return value if isinstance(value, str) else json.dumps(value, indent=indent, ensure_ascii=False, default=str)
