"""What the queue and those around it share: a recording on its way, what is asked of others, why a job failed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.api.models_serverless import Job
    from builder.transcribe.ledger import Ledger, Part

__all__ = ["Item", "Told", "may_help", "reason_of"]

MAX_ERROR_CHARS = 500


@dataclass
class Item:
    """One recording on its way; `error` says why it failed."""

    ledger: Ledger
    error: str | None = None
    began_s: float | None = None
    ended_s: float | None = None
    submitted: dict[int, int] = field(default_factory=dict)
    """Submissions in this run, by part."""

    def fail(self, text: str) -> None:
        """The first reason counts."""
        self.error = self.error or " ".join(text.split())[:MAX_ERROR_CHARS]


@dataclass(frozen=True)
class Told:
    """What the queue asks of those who know files and people.

    `prepare` gives an item its parts (and may take long), `body` a part's job, `finish` is called when all parts of an
    item are done; all may raise BuilderError, which fails the item. `gpu_of` names the GPU of a worker, `settled` hears
    of each part and item that ended, `stalled` of each minute in which jobs wait and none runs; `note` and `warn` are
    for the user.
    """

    prepare: Callable[[Item], None]
    body: Callable[[Item, Part], Mapping[str, Any]]
    finish: Callable[[Item], None]
    gpu_of: Callable[[str | None], str | None]
    settled: Callable[[], None]
    stalled: Callable[[int], None]
    note: Callable[[str], None]
    warn: Callable[[str], None]


def reason_of(job: Job) -> str:
    """Why a job gave no result, in one line."""
    said = job.error
    if said is None and isinstance(job.output, dict):
        said = job.output.get("error")
    if isinstance(said, (dict, list)):
        said = json.dumps(said)
    text = " ".join(str(said).split())[:MAX_ERROR_CHARS] if said else "no reason is given"
    return text if job.status in ("COMPLETED", "FAILED") else f"{job.status.lower().replace('_', ' ')}: {text}"


def may_help(job: Job) -> bool:
    """False if the worker says that the job would fail again: bad audio stays bad."""
    return not (isinstance(job.output, dict) and job.output.get("retryable") is False)
