"""bench.server_metrics: differences of what /metrics say, and silence where they say nothing."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator

import pytest

from bench.server_metrics import Ledger, fetch_metrics, ledger, parse_metrics, queue_figures
from engine.metrics import Metrics

BEFORE = """
# HELP stt_samples_total samples
# TYPE stt_samples_total counter
stt_samples_total{fate="received"} 1000.0
stt_samples_total{fate="decoded"} 700.0
stt_samples_total{fate="silent"} 100.0
stt_samples_total{fate="refused"} 0.0
stt_buffered_samples 200.0
stt_batch_size_sum{job_class="partial"} 10.0
stt_batch_size_count{job_class="partial"} 10.0
"""
AFTER = """
stt_samples_total{fate="received"} 3000.0
stt_samples_total{fate="decoded"} 2400.0
stt_samples_total{fate="silent"} 350.0
stt_samples_total{fate="refused"} 50.0
stt_buffered_samples 200.0
stt_batch_size_bucket{job_class="partial",le="1.0"} 12.0
stt_batch_size_sum{job_class="partial"} 70.0
stt_batch_size_count{job_class="partial"} 30.0
stt_queue_age_seconds_bucket{job_class="partial",le="0.05"} 18.0
stt_queue_age_seconds_bucket{job_class="partial",le="0.1"} 19.0
stt_queue_age_seconds_bucket{job_class="partial",le="+Inf"} 20.0
stt_queue_age_seconds_sum{job_class="partial"} 1.0
stt_queue_age_seconds_count{job_class="partial"} 20.0
stt_queue_age_seconds_bucket{job_class="final",le="0.05"} 1.0
stt_queue_age_seconds_bucket{job_class="final",le="+Inf"} 2.0
stt_queue_age_seconds_sum{job_class="final"} 4.0
stt_queue_age_seconds_count{job_class="final"} 2.0
stt_batch_frames_total{job_class="partial"} 1000.0
stt_batch_padding_frames_total{job_class="partial"} 250.0
stt_tokens_total{job_class="partial"} 321.0
stt_deadlines_missed_total{job_class="final"} 3.0
stt_engine_stage_seconds_total{stage="encode"} 1.5
stt_engine_stage_seconds_total{stage="decode"} 2.5
stt_engine_busy_seconds_total 5.0
stt_partials_coalesced_total 7.0
stt_partial_interval_seconds 0.75
stt_max_streams 40.0
"""


def test_the_ledger_is_what_the_run_added() -> None:
    made = ledger(parse_metrics(BEFORE), parse_metrics(AFTER), sent_samples=2_000)
    assert made == Ledger(2000, 1700, 250, 50, 0, 0)
    assert made.unaccounted == 0
    assert not made.is_lossless


@pytest.mark.parametrize(
    ("made", "lossless"),
    [
        (Ledger(100, 60, 40, 0, 0, 0), True),
        (Ledger(100, 60, 40, 0, 0, None), True),
        (Ledger(100, 59, 40, 1, 0, 0), False),
        (Ledger(100, 59, 40, 0, 1, 0), False),
        (Ledger(100, 59, 40, 0, 0, 0), False),
        (Ledger(100, 60, 40, 0, 0, 1), False),
    ],
)
def test_one_sample_is_a_loss(made: Ledger, lossless: bool) -> None:
    assert made.is_lossless is lossless


def test_queue_figures_are_what_the_run_added() -> None:
    made = queue_figures(parse_metrics(BEFORE), parse_metrics(AFTER), wall_s=10.0)
    assert made.batch_size == {"partial": 3.0}
    assert made.queue_age_mean_s == {"partial": pytest.approx(0.05), "final": pytest.approx(2.0)}
    # 19 of 20 are within 0.1 s; the second final is beyond the last bucket.
    assert made.queue_age_p95_s == {"partial": 0.1, "final": None}
    assert made.padding == {"partial": 0.25}
    assert (made.tokens, made.deadlines_missed) == ({"partial": 321}, {"final": 3})
    assert made.stage_s == {"decode": 2.5, "encode": 1.5}
    assert made.busy == pytest.approx(0.5)
    assert (made.coalesced, made.partial_interval_s, made.max_streams) == (7, 0.75, 40.0)


def test_what_a_server_does_not_tell_is_absent() -> None:
    made = queue_figures({}, parse_metrics("other_total 3\nnonsense\n"), wall_s=10.0)
    assert (made.batch_size, made.queue_age_mean_s, made.queue_age_p95_s, made.padding) == ({}, {}, {}, {})
    assert (made.tokens, made.deadlines_missed, made.stage_s) == ({}, {}, {})
    assert (made.busy, made.coalesced, made.partial_interval_s, made.max_streams) == (None, None, None, None)
    assert ledger({}, {}, 100) is None


def test_a_server_that_began_anew_has_no_figures_for_the_run() -> None:
    assert ledger(parse_metrics(AFTER), parse_metrics(BEFORE), 100) is None
    assert queue_figures(parse_metrics(AFTER), parse_metrics(BEFORE), 1.0).batch_size == {}


def test_our_own_exposition_is_understood() -> None:
    metrics = Metrics()
    before = parse_metrics(metrics.render()[0].decode())
    metrics.samples(received=1_600, decoded=1_000, silent=500, refused=0)
    after = parse_metrics(metrics.render()[0].decode())
    assert ledger(before, after, 1_700) == Ledger(1_600, 1_000, 500, 0, 100, 100)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_known = self.path == "/metrics" and self.headers.get("Authorization") == "Bearer secret"
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(b"stt_max_streams 3\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def health_url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_metrics_are_fetched_with_the_secret(health_url: str) -> None:
    assert asyncio.run(fetch_metrics(health_url, "secret")) == {("stt_max_streams", ""): 3.0}
    assert asyncio.run(fetch_metrics(health_url, None)) == {}


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9", "nonsense", "http://127.0.0.1:port"])
def test_no_metrics_are_no_error(url: str | None) -> None:
    assert asyncio.run(fetch_metrics(url)) == {}
