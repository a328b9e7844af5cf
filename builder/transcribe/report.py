"""What it cost: the time workers took, at the price of their GPUs, beside what was estimated. Pure.

RunPod bills workers by the second, cold starts and idle seconds too, which no job tells: the bill is higher by these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.instants import duration_text
from builder.money.prices import dollars

if TYPE_CHECKING:
    from builder.transcribe.ledger import WorkerTime
    from builder.transcribe.plan import Estimate

__all__ = ["Cost", "Row", "about", "cost_of", "document_of", "lines_of", "money"]

LEAST_SHOWN = 0.0001


@dataclass(frozen=True)
class Cost:
    """Of jobs that ended. `dollars` None: no price is known; `is_bound`: for some GPU the dearest price was taken."""

    dollars: float | None
    worker_s: float
    is_bound: bool = False


@dataclass(frozen=True)
class Row:
    """One recording; `status` is done, failed or unfinished, `seconds` from its begin to its end here."""

    shown: str
    status: str
    way: str | None
    outputs: tuple[str, ...]
    audio_s: float | None
    seconds: float | None
    cost: Cost
    error: str | None = None
    remembered: bool = False
    asked_s: float = 0.0
    """Seconds of sound whose result came in this run."""

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "input": self.shown,
            "status": self.status,
            "way": self.way,
            "outputs": list(self.outputs),
            "audio_s": self.audio_s,
            "remembered": self.remembered,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "cost": _rounded(self.cost.dollars),
            "worker_s": round(self.cost.worker_s, 3),
            "error": self.error,
        }


def cost_of(times: Iterable[WorkerTime], prices_per_h: Mapping[str, float]) -> Cost:
    """What jobs took; `prices_per_h` are those of a worker, by GPU, of the endpoint's pools."""
    dearest = max(prices_per_h.values(), default=None)
    total, worker_s, is_bound = 0.0, 0.0, False
    for each in times:
        price = prices_per_h.get(each.gpu or "")
        is_bound = is_bound or price is None
        worker_s += each.ms / 1000
        total += each.ms / 3_600_000 * (price if price is not None else dearest or 0.0)
    if worker_s == 0:
        return Cost(0.0, 0.0)
    return Cost(None if dearest is None else total, worker_s, is_bound)


def document_of(rows: Sequence[Row], endpoint_id: str, estimate: Estimate, total: Cost, lost: int) -> dict[str, Any]:
    """The verb's JSON document."""
    audio_s = sum(row.audio_s or 0.0 for row in rows if row.status == "done")
    asked_s = sum(row.asked_s for row in rows)
    return {
        "endpoint_id": endpoint_id,
        "files": [row.document() for row in rows],
        "done": sum(row.status == "done" for row in rows),
        "failed": sum(row.status != "done" for row in rows),
        "estimate": estimate.document(),
        "cost": {
            "dollars": _rounded(total.dollars),
            "is_upper_bound": total.is_bound,
            "worker_s": round(total.worker_s, 3),
            "audio_s": round(audio_s, 1),
            "audio_s_per_worker_s": round(asked_s / total.worker_s, 2) if total.worker_s and asked_s else None,
        },
        "lost_submissions": lost,
    }


def lines_of(document: Mapping[str, Any]) -> list[str]:
    """The document's sums, for people."""
    cost, estimate = document["cost"], document["estimate"]
    n_remembered = sum(row["remembered"] for row in document["files"])
    speed = cost["audio_s_per_worker_s"]
    lines = [
        f"{document['done']} of {len(document['files'])} recordings, {duration_text(cost['audio_s'])} of sound; "
        f"{cost['worker_s']:.1f} s of worker time" + (f": {speed:.1f} times as fast as speech" if speed else "")
    ]
    if n_remembered:
        lines.append(f"Transcribed before, and not sent again: {n_remembered} (--again sends them)")
    if not cost["worker_s"]:
        lines.append("Cost: $0.00, no job ran")
    elif cost["dollars"] is None:
        lines.append("Cost: not known, the endpoint's GPUs have no price")
    else:
        bound = "at most " if cost["is_upper_bound"] else ""
        why = estimate["not_known"]
        guess = f"no estimate: {why}" if why else f"estimated before: {money(estimate['dollars'])}"
        lines.append(f"Cost: {bound}{money(cost['dollars'])} for the jobs ({guess}); cold and idle seconds come on top")
    if document["lost_submissions"]:
        lines.append(
            f"{document['lost_submissions']} jobs may have run twice: the answers to their submission were lost"
        )
    return lines


def money(amount: float) -> str:
    """As `dollars`; what that would show as nothing is told from nothing."""
    return dollars(amount) if amount == 0 or amount >= LEAST_SHOWN else f"less than ${LEAST_SHOWN:g}"


def about(amount: float) -> str:
    """An estimated amount."""
    shown = money(amount)
    return shown if amount < LEAST_SHOWN else f"about {shown}"


def _rounded(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 6)
