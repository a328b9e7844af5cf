"""What pods and endpoints cost: rates over spans of time, and sums; balance and bills come from the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["HOURS_A_MONTH", "Ledger", "Payer", "Rates", "Span"]

HOUR_S = 3600.0
Payer = Literal["pod", "serverless"]
HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class Rates:
    """$/h."""

    gpu: float = 0.0
    cpu: float = 0.0
    disk: float = 0.0

    @property
    def total(self) -> float:
        """$/h of everything."""
        return self.gpu + self.cpu + self.disk


@dataclass(frozen=True)
class Span:
    """Constant rates of one pod (or of one endpoint's workers together) from `start_s` to `end_s`."""

    pod_id: str
    start_s: float
    end_s: float
    rates: Rates
    payer: Payer = "pod"

    def hours_within(self, start_s: float, end_s: float) -> float:
        """Hours of this span that lie in [start_s, end_s)."""
        return max(0.0, min(end_s, self.end_s) - max(start_s, self.start_s)) / HOUR_S


class Ledger:
    """Spans of all pods and endpoints, by id."""

    def __init__(self) -> None:
        self._closed: list[Span] = []
        self._open: dict[str, tuple[float, Rates, Payer]] = {}
        self._closed_usd = 0.0

    def set_rates(self, pod_id: str, now_s: float, rates: Rates, payer: Payer = "pod") -> None:
        """From now on the pod costs this."""
        if self._open.get(pod_id, (0.0, Rates(), payer))[1] == rates:
            return
        start_s, before, _payer = self._open.pop(pod_id, (now_s, Rates(), payer))
        if now_s > start_s and before.total:
            span = Span(pod_id, start_s, now_s, before, payer)
            self._closed.append(span)
            self._closed_usd += before.total * span.hours_within(start_s, now_s)
        if rates.total:
            self._open[pod_id] = (now_s, rates, payer)

    def per_hour(self) -> float:
        """$/h of everything now."""
        return sum(rates.total for _start_s, rates, _payer in self._open.values())

    def spent(self, now_s: float) -> float:
        """$ of everything until now."""
        running = sum(rates.total * (now_s - start_s) / HOUR_S for start_s, rates, _payer in self._open.values())
        return self._closed_usd + running

    def spans(self, now_s: float, pod_id: str | None = None, payer: Payer | None = None) -> Iterator[Span]:
        """All spans until now, of one pod or of all."""
        running = [Span(name, start_s, now_s, rates, who) for name, (start_s, rates, who) in self._open.items()]
        for span in [*self._closed, *running]:
            if pod_id in (None, span.pod_id) and payer in (None, span.payer):
                yield span
