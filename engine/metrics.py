"""What the server counts, in Prometheus form. The only import of prometheus_client.

Each `Metrics` owns its registry, so several servers in one process (tests) do not mix. Label values
come from fixed sets, whatever callers pass: no label carries a uid, a token or text, and the number
of series is bounded. Not safe for threads: one event loop calls it.

Knows nothing of sessions or engines: they call it.
"""

from __future__ import annotations

import inspect

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from engine import errors
from engine.batch_report import BatchReport
from engine.types import JobClass

__all__ = ["OTHER", "Metrics"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a counter began is known from the uptime

FATES = ("received", "decoded", "silent", "refused")
OTHER = "other"
"""The label of what is in none of the fixed sets."""
JOB_CLASSES = frozenset(job.name.lower() for job in JobClass)
ERROR_CODES = frozenset(
    kind.code for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.SttError)
)
CLOSE_CODES = frozenset(range(1000, 1016)) | frozenset(range(4000, 4004))
"""RFC 6455 section 7.4 and our own."""
DECODE_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""From one short window on a GPU to the time after which the engine is replaced."""
SIZE_BUCKETS = (1, 2, 4, 8, 12, 16, 24, 32)
"""Windows in a batch, up to the most that a GPU is given."""
AGE_BUCKETS_S = (0.001, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0)
"""Dense around the deadline of finals, up to the longest partial interval and an engine that is replaced."""
STAGES = ("encode", "decode", "align")
LATENCY_BUCKETS_S = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Dense where people notice, up to what a backlog can reach."""


class Metrics:
    """Counters of one server; samples are 16 kHz samples, latencies are seconds."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._counts = dict.fromkeys(FATES, 0)
        self._restarts_seen = 0
        self._samples = Counter(
            "stt_samples",
            "16 kHz samples: received = decoded + silent + refused + buffered",
            ["fate"],
            registry=registry,
        )
        self._buffered = Gauge("stt_buffered_samples", "16 kHz samples whose fate is open", registry=registry)
        self._sessions = Gauge("stt_sessions", "Streams at this moment", registry=registry)
        self._admitted = Counter("stt_sessions_admitted", "Streams begun", registry=registry)
        self._refused = Counter("stt_sessions_refused", "Peers refused, by error code", ["code"], registry=registry)
        self._closed = Counter("stt_sessions_closed", "Streams ended, by close code", ["code"], registry=registry)
        self._messages = Counter("stt_messages_sent", "Messages sent to peers", registry=registry)
        self._failures = Counter("stt_decode_failures", "Decodes that failed for good", registry=registry)
        self._restarts = Counter("stt_engine_restarts", "Engine processes replaced", registry=registry)
        self._waiting = Gauge("stt_jobs_waiting", "Jobs that wait for the engine", ["job_class"], registry=registry)
        self._decode = self._histogram("stt_decode_seconds", "From submission to result", DECODE_BUCKETS_S, "job_class")
        self._first_text = self._histogram(
            "stt_first_text_seconds", "From the arrival of the first text's last sample to the text", LATENCY_BUCKETS_S
        )
        self._commit = self._histogram(
            "stt_commit_seconds", "From the arrival of a segment's last sample to its final text", LATENCY_BUCKETS_S
        )
        self._batch_series()
        # A series that exists from the start is one whose first increase a query can see.
        for fate in FATES:
            self._samples.labels(fate)
        for job_class in JOB_CLASSES:
            for series in (self._decode, self._waiting, *self._by_class):
                series.labels(job_class)
        for stage in STAGES:
            self._stages.labels(stage)

    def _batch_series(self) -> None:
        registry, by_class = self._registry, ["job_class"]
        self._sizes = self._histogram("stt_batch_size", "Windows in a call of the engine", SIZE_BUCKETS, *by_class)
        self._ages = self._histogram(
            "stt_queue_age_seconds", "From submission to the start of a job's first batch", AGE_BUCKETS_S, *by_class
        )
        self._frames = Counter("stt_batch_frames", "Mel frames encoded", by_class, registry=registry)
        self._padding = Counter(
            "stt_batch_padding_frames", "Mel frames encoded that were padding", by_class, registry=registry
        )
        self._tokens = Counter("stt_tokens", "Tokens decoded", by_class, registry=registry)
        self._missed = Counter("stt_deadlines_missed", "Results after their deadline", by_class, registry=registry)
        self._by_class = (self._sizes, self._ages, self._frames, self._padding, self._tokens, self._missed)
        self._stages = Counter(
            "stt_engine_stage_seconds", "Time of the engine process in a stage", ["stage"], registry=registry
        )
        self._busy = Counter("stt_engine_busy_seconds", "Time in calls of the engine", registry=registry)
        self._coalesced = Counter(
            "stt_partials_coalesced", "Partials replaced by a newer one while they waited", registry=registry
        )
        self._coalesced_seen = 0
        self._interval = Gauge(
            "stt_partial_interval_seconds", "New audio that is worth a partial decode", registry=registry
        )
        self._max_streams = Gauge(
            "stt_max_streams", "Streams that could talk at once, by what was measured; 0: unknown", registry=registry
        )

    def _histogram(self, name: str, help_text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=buckets, registry=self._registry)

    def samples(self, received: int, decoded: int, silent: int, refused: int) -> None:
        """Add what became of samples since the last call; none of the numbers is negative."""
        for fate, count in zip(FATES, (received, decoded, silent, refused), strict=True):
            self._samples.labels(fate).inc(count)
            self._counts[fate] += count
        self._buffered.inc(received - decoded - silent - refused)

    def sample_counts(self) -> dict[str, int]:
        """Samples by fate since the start, `buffered` included: the conservation law in numbers."""
        settled = sum(self._counts[fate] for fate in FATES[1:])
        return {**self._counts, "buffered": self._counts["received"] - settled}

    def session_opened(self) -> None:
        """A stream has begun."""
        self._sessions.inc()
        self._admitted.inc()

    def session_closed(self, close_code: int) -> None:
        """A stream has ended with a WebSocket close code (RFC 6455 section 7.4)."""
        self._sessions.dec()
        self._closed.labels(str(close_code) if close_code in CLOSE_CODES else OTHER).inc()

    def session_refused(self, code: str) -> None:
        """A peer was not admitted; `code` as in engine.errors."""
        self._refused.labels(code if code in ERROR_CODES else OTHER).inc()

    def message_sent(self) -> None:
        """One message went out."""
        self._messages.inc()

    def first_text(self, latency_s: float) -> None:
        """A stream has got its first text."""
        self._first_text.observe(latency_s)

    def committed(self, latency_s: float) -> None:
        """A segment has become final."""
        self._commit.observe(latency_s)

    def decoded(self, job_class: str, took_s: float) -> None:
        """A decode has ended with a result."""
        self._decode.labels(job_class if job_class in JOB_CLASSES else OTHER).observe(took_s)

    def decode_failed(self) -> None:
        """A decode has failed for good."""
        self._failures.inc()

    def batch(self, report: BatchReport) -> None:
        """A call of the engine has ended."""
        job_class = report.job_class.name.lower()
        self._sizes.labels(job_class).observe(report.n_items)
        for age_s in report.queue_ages_s:
            self._ages.labels(job_class).observe(age_s)
        self._frames.labels(job_class).inc(report.frames)
        self._padding.labels(job_class).inc(report.padding_frames)
        self._tokens.labels(job_class).inc(report.tokens)
        self._missed.labels(job_class).inc(report.missed_deadlines)
        for stage, took_s in zip(STAGES, (report.encode_s, report.decode_s, report.align_s), strict=True):
            self._stages.labels(stage).inc(took_s)
        self._busy.inc(report.took_s)

    def engine(
        self,
        restarts: int,
        waiting: dict[str, int],
        coalesced: int,
        partial_interval_s: float,
        max_streams: int | None,
    ) -> None:
        """Take over what the engine tells: totals since its start, jobs that wait by class, its pace and size."""
        self._restarts.inc(max(restarts - self._restarts_seen, 0))
        self._restarts_seen = max(restarts, self._restarts_seen)
        self._coalesced.inc(max(coalesced - self._coalesced_seen, 0))
        self._coalesced_seen = max(coalesced, self._coalesced_seen)
        for job_class, count in waiting.items():
            self._waiting.labels(job_class if job_class in JOB_CLASSES else OTHER).set(count)
        self._interval.set(partial_interval_s)
        self._max_streams.set(max_streams or 0)

    def render(self) -> tuple[bytes, str]:
        """The text exposition and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
