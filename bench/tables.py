"""Load runs as tables in the terminal.

Knows the figures and rich, nothing else. Invariant: what was not measured is a dash, never a zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.load import LoadResult
from bench.measure import LATE_S, Spread, spread
from bench.server_metrics import QueueFigures

__all__ = ["number", "percent", "plain_table", "print_load"]

SHOWN_STREAMS = 12
"""More rows than that say less than their sum."""


def print_load(result: LoadResult, console: Console) -> None:
    """All figures of a run."""
    if len(result.streams) <= SHOWN_STREAMS:
        console.print(_streams(result))
    console.print(_latencies(result))
    for line in (*_text_lines(result), *_server_lines(result)):
        console.print(line)
    for reason in result.summary.void_because:
        console.print(Text(f"void: {reason}", style="red"))


def plain_table(headings: Sequence[str]) -> Table:
    """A table without lines: the first column to the left, the others to the right."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in per cent, or a dash."""
    return "-" if share is None else f"{100 * share:.1f}"


def _streams(result: LoadResult) -> Table:
    table = plain_table(
        ("", "", "ms", "s", "words", "right %", "WER %", "tail", "shown 50%", "95%", "final 50%", "95%")
    )
    for stream in result.streams:
        shown, final = spread(stream.shown_after_s), spread(stream.final_after_s)
        table.add_row(
            stream.name,
            stream.language,
            number(stream.chunk_ms, 0),
            number(stream.audio_s, 0),
            str(stream.words),
            percent(stream.final / max(1, stream.words)),
            percent(stream.errors.rate),
            str(stream.missing_tail),
            *map(number, (shown.p50_s, shown.p95_s, final.p50_s, final.p95_s)),
        )
    return table


def _latencies(result: LoadResult) -> Table:
    summary = result.summary
    rows: tuple[tuple[str, Spread], ...] = (
        ("first partial, after the start of an utterance", summary.first_partial),
        ("word shown, after its end", summary.shown),
        ("word final, after its end", summary.final),
        ("end of speech to final", summary.end_to_final),
        ("TTFS (pipecat's definition)", summary.ttfs),
    )
    table = plain_table((f"{summary.streams} streams, seconds", "n", "p50", "p95", "max", "never"))
    for name, values in rows:
        table.add_row(name, str(values.n), *map(number, (values.p50_s, values.p95_s, values.max_s)), str(values.absent))
    return table


def _text_lines(result: LoadResult) -> list[str]:
    summary = result.summary
    churn, raw = summary.stability.normalised, summary.stability.raw
    return [
        f"Words: {summary.words}; ever shown right {percent(summary.right_shown)} %, right in the end "
        f"{percent(summary.right_final)} %; covered on the screen {percent(summary.coverage_shown)} %, in the "
        f"final text {percent(summary.coverage_final)} %; not right at a stream's end {summary.missing_tail}; later "
        f"than {LATE_S:g} s {summary.shown_late} shown, {summary.final_late} final.",
        f"WER: live {percent(summary.wer)} %, offline {percent(summary.offline_wer)} %, gap "
        f"{percent(summary.wer_gap)} points. Final text changed {summary.mutated} times, overlapped "
        f"{summary.overlapping} times.",
        f"Flicker: UPWR {churn.upwr:.3f} (raw {raw.upwr:.3f}), normalised erasure {churn.erasure:.3f} (raw "
        f"{raw.erasure:.3f}), largest shrink {summary.stability.largest_shrink_words} words.",
    ]


def _server_lines(result: LoadResult) -> list[str]:
    lines = []
    if result.resources is not None:
        use = result.resources
        lines.append(
            f"Server: {number(result.cpu_per_audio_s, 3)} CPU s per audio s, {use.cores:.2f} cores, "
            f"{use.peak_rss_bytes / 2**20:.0f} MiB at most, {use.peak_threads} threads."
        )
    if result.ledger is not None:
        account = result.ledger
        lines.append(
            f"Samples: sent {result.summary.sent_samples}, received {account.received} = decoded {account.decoded} + "
            f"silent {account.silent} + refused {account.refused} + buffered {account.buffered}; unaccounted "
            f"{account.unaccounted}."
        )
    if result.queue is not None:
        lines += _queue_lines(result.queue)
    lines.append(
        f"Driver: at worst {1_000 * result.summary.own_lateness_s:.0f} ms late, {result.driver_cores:.2f} cores; "
        f"the server kept no sender waiting for more than {result.summary.blocked_max_s:.2f} s in all."
    )
    return lines


def _queue_lines(queue: QueueFigures) -> list[str]:
    lines = [
        f"Queue, {job}: batch {number(queue.batch_size.get(job))}, age {number(queue.queue_age_mean_s.get(job), 3)} s "
        f"(95 % within {number(queue.queue_age_p95_s.get(job), 3)} s), padding {percent(queue.padding.get(job))} %, "
        f"tokens {queue.tokens.get(job, '-')}, deadlines missed {queue.deadlines_missed.get(job, '-')}."
        for job in queue.batch_size
    ]
    if queue.busy is not None:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in queue.stage_s.items())
        lines.append(
            f"Engine: busy {percent(queue.busy)} % ({stages}); partials coalesced "
            f"{number(queue.coalesced, 0)}, interval {number(queue.partial_interval_s)} s, room for "
            f"{number(queue.max_streams, 0)} streams."
        )
    return lines
