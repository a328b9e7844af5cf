"""The verb `transcribe`: recordings through a serverless endpoint."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    examples = (
        "transcribe talk.mp3 --yes",
        "transcribe recordings --recursive --format srt,json --out transcripts --max-cost 2",
        "transcribe https://example.org/talk.mp3 --language en --json --yes",
        "transcribe recordings --dry-run",
    )
    verb(app, "transcribe", *examples)(transcribe)


def transcribe(
    run: Runtime,
    given: Annotated[list[str], typer.Argument(metavar="FILE|URL|DIR...", help="Recordings, or folders of them.")],
    formats: Annotated[str, typer.Option("--format", help="srt, vtt, json, txt; by commas.")] = "srt",
    model: Annotated[str | None, typer.Option(help="One of the endpoint's models (default: its own).")] = None,
    language: Annotated[str | None, typer.Option(help="Code or English name (default: detect).")] = None,
    task: Annotated[str, typer.Option(help="transcribe, or translate into English.")] = "transcribe",
    words: Annotated[bool, typer.Option("--words", help="Times of words, in json.")] = False,
    extra: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE for jobs' input; again for more.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders in folders too.")] = False,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Instead of beside each recording.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that were not written here.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Send also what was transcribed before.")] = False,
    endpoint: Annotated[str | None, typer.Option(metavar="ID", help="Default: the one deployed last.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=500, help="Jobs at a time (default: two per worker there may be).")
    ] = None,
    per_worker: Annotated[
        int, typer.Option(min=1, max=32, help="Jobs at a time per worker, without --jobs; with 1, workers idle.")
    ] = 2,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Refuse to pay more than this, $ (estimate).")] = None,
    timeout: Annotated[
        float, typer.Option(min=30, max=86_400, help="Seconds a job may take, waiting for a worker included.")
    ] = 3600.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, send nothing.")] = False,
    cancel_on_interrupt: Annotated[
        bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the jobs that run.")
    ] = False,
) -> None:
    """Transcribe recordings through an endpoint, transcripts beside them; once interrupted, it goes on where it was."""
    from builder.deploy.options import comma_list
    from builder.transcribe.plan import Wishes
    from builder.transcribe.work import transcribe as carry_out

    wishes = Wishes(
        formats=tuple(dict.fromkeys(each.lower() for each in comma_list(formats))),
        model=model,
        language=language,
        task=task,
        words=words,
        extra=tuple(extra or ()),
        recursive=recursive,
        out=out,
        force=force,
        again=again,
        endpoint=endpoint,
        jobs=jobs,
        per_worker=per_worker,
        max_cost=max_cost,
        timeout_s=timeout,
        yes=yes,
        dry_run=dry_run,
        cancel_on_interrupt=cancel_on_interrupt,
    )
    found = carry_out(run, given, wishes)
    run.console.result(found.document, lambda: _show(run, found.document))
    if found.problem is not None:
        raise found.problem


def _show(run: Runtime, document: dict[str, Any]) -> None:
    from builder.transcribe.report import lines_of, money

    if "plan" in document:
        _show_plan(run, document["plan"])
        return
    rows = [
        [
            row["status"],
            row["input"],
            row["audio_s"],
            row["seconds"],
            None if row["cost"] is None else money(row["cost"]),
            row["error"] or _transcripts(row["outputs"]),
        ]
        for row in document["files"]
    ]
    run.console.table(["status", "recording", "sound s>", "took s>", "cost>", "transcript"], rows)
    for line in lines_of(document):
        run.console.line(line)


def _transcripts(outputs: list[str]) -> str:
    """One line, whatever the names."""
    more = f" and {len(outputs) - 1} more" if len(outputs) > 1 else ""
    return "".join(outputs[:1]).replace("\n", "\\n").replace("\t", "\\t") + more


def _show_plan(run: Runtime, plan: dict[str, Any]) -> None:
    from builder.transcribe.report import about

    rows = [
        [row["input"], row["audio_s"], "remembered" if row["remembered"] else row["way"], row["error"]]
        for row in plan["files"]
    ]
    run.console.table(["recording", "sound s>", "goes as", "error"], rows)
    guess = plan["estimate"]
    cost = f"not known: {guess['not_known']}" if guess["not_known"] else about(guess["dollars"])
    run.console.line(
        f"{plan['jobs_at_a_time']} jobs at a time at endpoint {plan['endpoint_id']}; cost {cost} ({guess['basis']})"
    )
