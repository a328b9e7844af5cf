"""What a stream tells the metrics: samples once each, and how long after its audio text came."""

from __future__ import annotations

import pytest

from engine.metrics import Metrics
from realtime.events import SendSegments
from realtime.ledger import Ledger
from realtime.messages import Segment
from realtime.meter import StreamMeter

S = 16_000


class Seen(Metrics):
    """Keeps the latencies it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, float]] = []

    def first_text(self, latency_s: float) -> None:
        self.told.append(("first", round(latency_s, 3)))

    def committed(self, latency_s: float) -> None:
        self.told.append(("commit", round(latency_s, 3)))


def test_every_sample_is_counted_once() -> None:
    metrics = Seen()
    meter, ledger = StreamMeter(metrics), Ledger(received=2 * S)
    meter.count(ledger)
    meter.count(ledger)
    ledger.settle_decoded(S)
    ledger.settle_refused(2 * S)
    meter.count(ledger)
    counts = {"received": 2 * S, "decoded": S, "silent": 0, "refused": S, "buffered": 0}
    assert metrics.sample_counts() == counts
    assert meter.received_s == pytest.approx(2.0)


def test_lateness_counts_from_the_arrival_of_the_last_sample() -> None:
    metrics = Seen()
    meter = StreamMeter(metrics)
    for second in (1, 2, 3):
        meter.arrived(second * S, 10.0 + second)
    meter.shown(SendSegments((), Segment(0, 900, " one", False)), 11.5)
    meter.shown(SendSegments((), Segment(0, 1_900, " one two", False)), 12.5)
    meter.shown(SendSegments((Segment(0, 1_900, " one two", True),), Segment(1_900, 2_500, " three", False)), 13.25)
    assert metrics.told == [("first", 0.5), ("commit", 1.25)]


def test_text_of_audio_that_nobody_saw_arrive_is_not_measured() -> None:
    metrics = Seen()
    meter = StreamMeter(metrics)
    meter.shown(SendSegments((Segment(0, 900, " one", True),), None), 11.5)
    assert metrics.told == []
