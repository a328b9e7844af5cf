"""What is counted comes out under its name; no label can be made by a peer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batch_report import BatchReport
from engine.metrics import OTHER, Metrics
from engine.types import JobClass


def values(metrics: Metrics) -> dict[str, float]:
    text = metrics.render()[0].decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_the_exposition_is_prometheus_text_with_our_prefix_and_no_creation_times() -> None:
    body, content_type = Metrics().render()
    assert content_type.startswith("text/plain")
    names = {line.split()[2] for line in body.decode().splitlines() if line.startswith("# TYPE")}
    assert names and all(re.fullmatch(r"stt_[a-z_]+", name) for name in names)
    assert b"_created" not in body


def test_every_series_that_matters_exists_before_anything_happens() -> None:
    found = values(Metrics())
    for fate in ("received", "decoded", "silent", "refused"):
        assert found[f'stt_samples_total{{fate="{fate}"}}'] == 0
    for job in JobClass:
        assert found[f'stt_decode_seconds_count{{job_class="{job.name.lower()}"}}'] == 0
        assert found[f'stt_jobs_waiting{{job_class="{job.name.lower()}"}}'] == 0
        for name in ("batch_size_count", "queue_age_seconds_count", "batch_frames_total", "tokens_total"):
            assert found[f'stt_{name}{{job_class="{job.name.lower()}"}}'] == 0
        for name in ("batch_padding_frames_total", "deadlines_missed_total"):
            assert found[f'stt_{name}{{job_class="{job.name.lower()}"}}'] == 0
    for stage in ("encode", "decode", "align"):
        assert found[f'stt_engine_stage_seconds_total{{stage="{stage}"}}'] == 0
    assert found["stt_engine_busy_seconds_total"] == found["stt_partials_coalesced_total"] == 0


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), max_size=20))
def test_samples_by_fate_add_up(steps: list[tuple[int, int, int, int]]) -> None:
    metrics = Metrics()
    for received, decoded, silent, refused in steps:
        metrics.samples(received + decoded + silent + refused, decoded, silent, refused)
    counts = metrics.sample_counts()
    assert counts["received"] == counts["decoded"] + counts["silent"] + counts["refused"] + counts["buffered"]
    found = values(metrics)
    assert found["stt_buffered_samples"] == counts["buffered"] == sum(step[0] for step in steps)
    assert found['stt_samples_total{fate="silent"}'] == counts["silent"]


def test_sessions_messages_and_decodes_are_counted() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics.session_opened()
    metrics.session_closed(1000)
    metrics.session_closed(4003)
    metrics.session_refused("full")
    metrics.message_sent()
    metrics.decoded("final", 0.25)
    metrics.decoded("final", 0.5)
    metrics.decode_failed()
    metrics.first_text(0.4)
    metrics.committed(1.2)
    found = values(metrics)
    assert found["stt_sessions"] == 1 and found["stt_sessions_admitted_total"] == 3
    assert found['stt_sessions_closed_total{code="1000"}'] == found['stt_sessions_closed_total{code="4003"}'] == 1
    assert found['stt_sessions_refused_total{code="full"}'] == 1
    assert found["stt_messages_sent_total"] == found["stt_decode_failures_total"] == 1
    assert found['stt_decode_seconds_sum{job_class="final"}'] == 0.75
    assert found['stt_decode_seconds_count{job_class="final"}'] == 2
    assert found['stt_first_text_seconds_bucket{le="0.5"}'] == 1 == found["stt_first_text_seconds_count"]
    assert found['stt_commit_seconds_bucket{le="1.0"}'] == 0 and found["stt_commit_seconds_count"] == 1


def test_totals_of_the_engine_only_grow_and_gauges_show_the_last_value() -> None:
    metrics = Metrics()
    for restarts, waiting, coalesced, max_streams in ((0, 5, 1, None), (2, 1, 4, 30), (2, 0, 4, 17)):
        metrics.engine(restarts, {"partial": waiting}, coalesced, 0.3 + restarts, max_streams)
    found = values(metrics)
    assert found["stt_engine_restarts_total"] == 2
    assert found["stt_partials_coalesced_total"] == 4
    assert found['stt_jobs_waiting{job_class="partial"}'] == 0
    assert found["stt_partial_interval_seconds"] == 2.3
    assert found["stt_max_streams"] == 17
    metrics.engine(0, {}, 0, 0.3, None)
    found = values(metrics)
    assert found["stt_engine_restarts_total"] == 2
    assert found["stt_partials_coalesced_total"] == 4
    assert found["stt_max_streams"] == 0


def test_batches_are_counted_by_class() -> None:
    metrics = Metrics()
    metrics.batch(BatchReport(JobClass.PARTIAL, 3, (0.05, 0.15, 0.25), 0.2, True, 1, 1_200, 300, 40, 0.04, 0.08, 0.02))
    metrics.batch(BatchReport(JobClass.PARTIAL, 1, (), 0.1))
    metrics.batch(BatchReport(JobClass.FILE, 1, (1.5,), 0.7))
    found = values(metrics)
    assert found['stt_batch_size_sum{job_class="partial"}'] == 4
    assert found['stt_batch_size_count{job_class="partial"}'] == 2
    assert found['stt_batch_size_bucket{job_class="partial",le="2.0"}'] == 1
    assert found['stt_queue_age_seconds_count{job_class="partial"}'] == 3
    assert found['stt_queue_age_seconds_bucket{job_class="partial",le="0.2"}'] == 2
    assert found['stt_queue_age_seconds_sum{job_class="file"}'] == 1.5
    assert found['stt_batch_frames_total{job_class="partial"}'] == 1_200
    assert found['stt_batch_padding_frames_total{job_class="partial"}'] == 300
    assert found['stt_tokens_total{job_class="partial"}'] == 40
    assert found['stt_deadlines_missed_total{job_class="partial"}'] == 1
    assert found['stt_deadlines_missed_total{job_class="final"}'] == 0
    assert found['stt_engine_stage_seconds_total{stage="encode"}'] == 0.04
    assert found['stt_engine_stage_seconds_total{stage="decode"}'] == 0.08
    assert found['stt_engine_stage_seconds_total{stage="align"}'] == 0.02
    assert found["stt_engine_busy_seconds_total"] == pytest.approx(1.0)


@pytest.mark.parametrize("label", ["CANARY", "", 'x"} 1\nfake 1'])
def test_a_label_that_is_in_no_fixed_set_becomes_other(label: str) -> None:
    metrics = Metrics()
    metrics.session_refused(label)
    metrics.decoded(label, 0.1)
    metrics.engine(0, {label: 3}, 0, 0.3, None)
    for code in (0, 999, 1016, 3999, 4004, 10**9):
        metrics.session_closed(code)
    found = values(metrics)
    assert found[f'stt_sessions_refused_total{{code="{OTHER}"}}'] == 1
    assert found[f'stt_decode_seconds_count{{job_class="{OTHER}"}}'] == 1
    assert found[f'stt_jobs_waiting{{job_class="{OTHER}"}}'] == 3
    assert found[f'stt_sessions_closed_total{{code="{OTHER}"}}'] == 6
    assert "CANARY" not in metrics.render()[0].decode() and "fake" not in found


def test_two_servers_in_one_process_do_not_mix() -> None:
    one, two = Metrics(), Metrics()
    one.session_opened()
    assert values(one)["stt_sessions"] == 1 and values(two)["stt_sessions"] == 0
