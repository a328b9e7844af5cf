"""What one stream tells the server's metrics: where its samples went, and how late its text was.

Belongs to the stream's inputs (`realtime.lane`): one thread at a time. Pure: time is an argument.
"""

from __future__ import annotations

from engine.metrics import Metrics
from engine.types import SAMPLE_RATE_HZ
from realtime.arrivals import Arrivals
from realtime.events import SendSegments
from realtime.ledger import Ledger

__all__ = ["StreamMeter"]


class StreamMeter:
    """Figures of one stream."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arrivals = Arrivals()
        self._counted = (0, 0, 0, 0)
        self._has_text = False

    @property
    def received_s(self) -> float:
        """Seconds of audio counted so far."""
        return self._counted[0] / SAMPLE_RATE_HZ

    def arrived(self, received_samples: int, now_s: float) -> None:
        """All samples before `received_samples` have arrived by now."""
        self._arrivals.note(received_samples, now_s)

    def count(self, ledger: Ledger) -> None:
        """Feed the ledger's growth into the metrics."""
        now = (ledger.received, ledger.decoded, ledger.silent, ledger.refused)
        if now != self._counted:
            self._metrics.samples(*(new - old for new, old in zip(now, self._counted, strict=True)))
            self._counted = now

    def shown(self, event: SendSegments, now_s: float) -> None:
        """Measure how long after its audio this text came."""
        last = event.provisional if not event.completed else event.completed[-1]
        assert last is not None, "an update without text is never published"
        age_s = self._arrivals.age_s(last.end_ms * SAMPLE_RATE_HZ // 1000, now_s)
        if age_s is not None and event.completed:
            self._metrics.committed(age_s)
        if age_s is not None and not self._has_text:
            self._metrics.first_text(age_s)
        self._has_text = True
