"""What is counted comes out under its name; no label can be made by a peer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_engine_restarts_only_grow_and_queues_show_the_last_length() -> None:
    metrics = Metrics()
    for restarts, waiting in ((0, 5), (2, 1), (2, 0)):
        metrics.engine(restarts, {"partial": waiting})
    found = values(metrics)
    assert found["stt_engine_restarts_total"] == 2
    assert found['stt_jobs_waiting{job_class="partial"}'] == 0


@pytest.mark.parametrize("label", ["CANARY", "", 'x"} 1\nfake 1'])
def test_a_label_that_is_in_no_fixed_set_becomes_other(label: str) -> None:
    metrics = Metrics()
    metrics.session_refused(label)
    metrics.decoded(label, 0.1)
    metrics.engine(0, {label: 3})
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
