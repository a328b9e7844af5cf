"""What a server's `/metrics` say about a run: its loss ledger, its queue, its batches.

Pure but for `fetch_metrics`. Reads Prometheus' text form (`name{label="value"} number`, histograms as
`_bucket`, `_sum`, `_count`); figures are differences between the end and the beginning of a run, gauges
as they stand at the end. Invariant: a figure whose metrics are absent (an older server, another one) is
absent, never zero; a counter that went backwards means that the server was started anew: no figures.
"""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["Ledger", "Metrics", "QueueFigures", "fetch_metrics", "ledger", "parse_metrics", "queue_figures"]

Metrics = Mapping[tuple[str, str], float]
"""Value by (name, labels as they stand between the braces, without `le`; buckets have `le` in the name)."""

JOB_CLASSES = ("final", "partial", "file")
FETCH_TIMEOUT_S = 5.0
MAX_BYTES = 4 * 1024 * 1024
SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?$")
LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
OPEN_ENDED = float("inf")


@dataclass(frozen=True)
class Ledger:
    """Where the samples (16 kHz) of a run went: received = decoded + silent + refused + buffered.

    `buffered` is what the run left behind at its end. `unaccounted` must be 0. `not_received` is what clients
    sent and the server did not receive; None where what clients sent is not known alone.
    """

    received: int
    decoded: int
    silent: int
    refused: int
    buffered: int
    not_received: int | None

    @property
    def unaccounted(self) -> int:
        """Samples that are in no account."""
        return self.received - self.decoded - self.silent - self.refused - self.buffered

    @property
    def is_lossless(self) -> bool:
        """True if every sample was received and decoded or judged silent."""
        return not (self.refused or self.buffered or self.unaccounted or self.not_received)


@dataclass(frozen=True)
class QueueFigures:
    """What the scheduler did; each a mapping by job class or stage, empty if the server does not tell.

    `batch_size` is the mean, `queue_age_p95_s` the upper bound of the bucket that holds the 95th percentile
    (None: beyond the last bucket), `padding` the share of padding in the frames encoded. `busy` is the
    engine's share of the run's time. Counts are those of the run.
    """

    batch_size: dict[str, float]
    queue_age_mean_s: dict[str, float]
    queue_age_p95_s: dict[str, float | None]
    padding: dict[str, float]
    tokens: dict[str, int]
    deadlines_missed: dict[str, int]
    stage_s: dict[str, float]
    busy: float | None
    coalesced: int | None
    partial_interval_s: float | None
    max_streams: float | None


def parse_metrics(text: str) -> Metrics:
    """Read the text exposition; lines that are none are left out."""
    values: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        found = SAMPLE.match(line)
        if not found:
            continue
        labels = dict(LABEL.findall(found[2] or ""))
        bound = labels.pop("le", None)
        name = found[1] if bound is None else f"{found[1]}<={bound}"
        try:
            values[name, ",".join(f"{key}={labels[key]}" for key in sorted(labels))] = float(found[3])
        except ValueError:
            continue
    return values


def ledger(before: Metrics, after: Metrics, sent_samples: int | None) -> Ledger | None:
    """The loss ledger of a run; None if the server keeps none."""
    fates = []
    for fate in ("received", "decoded", "silent", "refused"):
        change = _change(before, after, "stt_samples_total", f"fate={fate}")
        if change is None:
            return None
        fates.append(round(change))
    buffered = after.get(("stt_buffered_samples", ""), 0.0) - before.get(("stt_buffered_samples", ""), 0.0)
    received, decoded, silent, refused = fates
    not_received = None if sent_samples is None else sent_samples - received
    return Ledger(received, decoded, silent, refused, round(buffered), not_received)


def queue_figures(before: Metrics, after: Metrics, wall_s: float) -> QueueFigures:
    """Queue and batch figures of a run that lasted `wall_s`."""
    sizes, ages = "stt_batch_size", "stt_queue_age_seconds"
    padding, frames = "stt_batch_padding_frames_total", "stt_batch_frames_total"
    stages = {labels.partition("=")[2] for name, labels in after if name == "stt_engine_stage_seconds_total" and labels}
    busy_s = _change(before, after, "stt_engine_busy_seconds_total", "")
    coalesced = _total(before, after, "stt_partials_coalesced_total")
    counted = [job for job in JOB_CLASSES if _change(before, after, f"{ages}_count", _job(job))]
    return QueueFigures(
        batch_size=_ratios(before, after, f"{sizes}_sum", f"{sizes}_count"),
        queue_age_mean_s=_ratios(before, after, f"{ages}_sum", f"{ages}_count"),
        queue_age_p95_s={job: _quantile(before, after, ages, _job(job), 0.95) for job in counted},
        padding=_ratios(before, after, padding, frames),
        tokens=_counts(before, after, "stt_tokens_total"),
        deadlines_missed=_counts(before, after, "stt_deadlines_missed_total"),
        stage_s={
            stage: round(_change(before, after, "stt_engine_stage_seconds_total", f"stage={stage}") or 0.0, 3)
            for stage in sorted(stages)
        },
        busy=None if busy_s is None or wall_s <= 0 else busy_s / wall_s,
        coalesced=None if coalesced is None else round(coalesced),
        partial_interval_s=after.get(("stt_partial_interval_seconds", "")),
        max_streams=after.get(("stt_max_streams", "")),
    )


async def fetch_metrics(health_url: str | None, token: str | None = None) -> Metrics:
    """What `/metrics` says now; empty if it cannot be had."""
    if health_url is None:
        return {}
    return parse_metrics(await asyncio.to_thread(_get, health_url, token))


def _get(health_url: str, token: str | None) -> str:
    parts = urlsplit(health_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=FETCH_TIMEOUT_S)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", parts.path.rstrip("/") + "/metrics", headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_BYTES)
            return body.decode("utf-8", "replace") if answer.status == 200 else ""
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return ""


def _job(job: str) -> str:
    return f"job_class={job}"


def _change(before: Metrics, after: Metrics, name: str, labels: str) -> float | None:
    """How much a counter grew; None if it is absent or has begun anew."""
    end = after.get((name, labels))
    if end is None:
        return None
    change = end - before.get((name, labels), 0.0)
    return change if change >= 0 else None


def _counts(before: Metrics, after: Metrics, name: str) -> dict[str, int]:
    changes = {job: _change(before, after, name, _job(job)) for job in JOB_CLASSES}
    return {job: round(change) for job, change in changes.items() if change is not None}


def _total(before: Metrics, after: Metrics, name: str) -> float | None:
    """The sum over all labels."""
    changes = [_change(before, after, name, labels) for found, labels in after if found == name]
    known = [change for change in changes if change is not None]
    return sum(known) if known else None


def _ratios(before: Metrics, after: Metrics, above: str, below: str) -> dict[str, float]:
    """One counter's growth per growth of another, by job class; classes without growth are left out."""
    ratios = {}
    for job in JOB_CLASSES:
        part, whole = _change(before, after, above, _job(job)), _change(before, after, below, _job(job))
        if part is not None and whole:
            ratios[job] = part / whole
    return ratios


def _quantile(before: Metrics, after: Metrics, name: str, labels: str, share: float) -> float | None:
    prefix = f"{name}_bucket<="
    counts = sorted(
        (float(found.removeprefix(prefix)), _change(before, after, found, labels) or 0.0)
        for found, its_labels in after
        if found.startswith(prefix) and its_labels == labels
    )
    total = counts[-1][1] if counts else 0.0
    for bound, count in counts:
        if total and count >= share * total:
            return None if bound == OPEN_ENDED else bound
    return None
