"""What is found out of recordings before any of them is sent: their lengths, how they go, what they may cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builder.errors import BuilderError, EndpointFailedError, UsageError
from builder.instants import duration_text
from builder.transcribe.jobs import Job
from builder.transcribe.ledger import Ledger, Ledgers, key_of
from builder.transcribe.parts import Item
from builder.transcribe.plan import Estimate, Wishes, choose_way, estimate
from builder.transcribe.report import about

if TYPE_CHECKING:
    from pathlib import Path

    from builder.api.models import GpuType
    from builder.api.models_serverless import Endpoint
    from builder.runtime import Runtime
    from builder.transcribe.inputs import Source

__all__ = ["check_endpoint", "guess_of", "jobs_of", "look", "question"]


def check_endpoint(endpoint: Endpoint) -> None:
    """Raises UsageError or EndpointFailedError for an endpoint that takes no jobs."""
    if endpoint.type != "QUEUE":
        raise UsageError(
            f"endpoint {endpoint.id} is a {endpoint.type.lower().replace('_', ' ')}: it takes no jobs",
            hint="name one with a queue: --endpoint ID, or deploy one: python -m builder deploy endpoint",
        )
    if endpoint.max_workers == 0:
        raise EndpointFailedError(
            f"endpoint {endpoint.id} may have no worker: jobs would wait for ever",
            hint=f"python -m builder endpoint scale {endpoint.id} --max 3",
        )


def jobs_of(
    sources: Sequence[Source],
    bases: Sequence[Path],
    endpoint_id: str,
    options: Mapping[str, Any],
    ledgers: Ledgers,
    *,
    again: bool,
) -> list[Job]:
    """Recordings with what is remembered of them; with `again`, without results."""
    jobs = []
    for source, base in zip(sources, bases, strict=True):
        key = key_of(source.identity, endpoint_id, options)
        ledger = ledgers.load(key, source.shown, endpoint_id)
        if again and ledger.is_complete:
            # In memory alone, until it is agreed to: what was paid for is not thrown away for a question.
            ledger = Ledger(key, source.shown, endpoint_id, duration_s=ledger.duration_s)
        jobs.append(Job(source, base, Item(ledger), remembered=ledger.is_complete))
    return jobs


def look(run: Runtime, ledgers: Ledgers, jobs: Sequence[Job], room_bytes: int, *, has_store: bool, keep: bool) -> None:
    """How long each recording is, and how it goes; one that cannot be read fails, the others go on.

    With `keep`, lengths are remembered.
    """
    fresh = [job for job in jobs if not job.ledger.parts]
    _probe(run, ledgers, [job for job in fresh if job.ledger.duration_s is None and job.source.path], keep=keep)
    for job in fresh:
        ledger, length_s = job.ledger, job.ledger.duration_s
        if job.source.path is None:
            ledger.way = "url"
        elif length_s is not None:
            ledger.way = choose_way(job.source.n_bytes, length_s, room_bytes=room_bytes, has_store=has_store)


def _probe(run: Runtime, ledgers: Ledgers, jobs: Sequence[Job], *, keep: bool) -> None:
    from builder.transcribe.prepare import probe_files

    if not jobs:
        return
    with run.console.task("looking at recordings") as task:
        task.update(f"{len(jobs)} files")
        paths = [job.source.path for job in jobs if job.source.path is not None]
        found = probe_files(paths, run.environ)
    for job, each in zip(jobs, found, strict=True):
        if isinstance(each, BuilderError):
            job.item.fail(str(each))
            continue
        job.ledger.duration_s = each.duration_s
        if keep:
            ledgers.save(job.ledger)


def guess_of(jobs: Sequence[Job], wishes: Wishes, endpoint: Endpoint, catalog: Iterable[GpuType]) -> Estimate:
    """What is still to be paid for."""
    left = [job.ledger.left_s for job in jobs if job.item.error is None and not job.ledger.is_complete]
    return estimate(left, endpoint, catalog, wishes.model or endpoint.env.get("WHISPER_MODEL"))


def question(jobs: Sequence[Job], endpoint: Endpoint, guess: Estimate) -> str:
    """What the user is asked before anything is paid for."""
    n_jobs = sum(job.is_to_be_sent for job in jobs)
    cost = f"at a cost that is not known ({guess.not_known})"
    if guess.dollars is not None:
        cost = f"for {about(guess.dollars)} (estimate, without cold starts)"
    sound = duration_text(guess.audio_s) if not guess.n_unknown else f"{guess.n_unknown} of unknown length"
    return f"Transcribe {n_jobs} recordings ({sound}) at endpoint {endpoint.id} {cost}?"
