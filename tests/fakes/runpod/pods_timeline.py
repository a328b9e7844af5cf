"""How time passes for the pods of the fake: their steps, their deadlines, stock that changes, money that runs out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from tests.fakes.runpod.boots import PodStatus, Step
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.ledger import Ledger
from tests.fakes.runpod.pod import Pod

__all__ = ["Companion", "Happening", "OnChange", "PodTimeline"]

OnChange = Callable[[Pod, "PodStatus | None", PodStatus], None]
Happening = tuple[float, int, Callable[[], None]]
"""When, its place among those of the same time, and what happens."""


class Companion(Protocol):
    """Something else that the same clock moves and the same balance pays for."""

    def happenings(self) -> Iterator[Happening]:
        """What comes next."""
        ...

    def settle(self, now_s: float) -> None:
        """Everything until now has happened."""
        ...

    def stop_all(self, at_s: float) -> None:
        """The money is gone."""
        ...

    def tell(self) -> None:
        """The lock is free: tell listeners what changed."""
        ...


class PodTimeline:
    """Pods, what is planned for them, and their ledger, brought to the clock's present whenever somebody looks.

    `on_change` listeners get (pod, old status or None, new status), after the lock is free again.
    """

    def __init__(self, clock: PlaneClock) -> None:
        self.clock = clock
        self.on_change: list[OnChange] = []
        self.companions: list[Companion] = []
        self._lock = threading.RLock()
        self._changes: list[tuple[Pod, PodStatus | None, PodStatus]] = []
        self._depth = 0
        self._forget(0.0)

    def _forget(self, credit: float) -> None:
        self.pods: dict[str, Pod] = {}
        self.ledger = Ledger()
        self._credit = credit
        self._was_broke = False
        self._stock_plan: list[tuple[float, Callable[[], None]]] = []
        self._changes.clear()

    @contextmanager
    def turn(self) -> Iterator[float]:
        """Hold the store, brought to the present (the value); then tell the listeners."""
        with self._lock:
            self._depth += 1
            try:
                now_s = self.clock.unix_s()
                if self._depth == 1:
                    self._sweep(now_s)
                    for companion in self.companions:
                        companion.settle(now_s)
                yield now_s
            finally:
                self._depth -= 1
                changes = []
                is_last = self._depth == 0
                if is_last:
                    changes, self._changes = self._changes, []
        for pod, before, after in changes:
            for listener in list(self.on_change):
                listener(pod, before, after)
        if is_last:
            for companion in self.companions:
                companion.tell()

    def sweep(self) -> None:
        """Bring everything to the clock's present."""
        with self.turn():
            pass

    @property
    def is_broke(self) -> bool:
        """The money is gone, and everything was stopped."""
        return self._was_broke

    def _sweep(self, now_s: float) -> None:
        while True:
            happening = min(self._happenings(), default=None, key=lambda each: each[:2])
            broke_s = self._broke_at(now_s if happening is None else min(now_s, happening[0]))
            if broke_s is not None:
                self._stop_all(broke_s)
            elif happening is not None and happening[0] <= now_s:
                happening[2]()
            else:
                return

    def _happenings(self) -> Iterator[Happening]:
        for number, (at_s, change) in enumerate(self._stock_plan):
            yield at_s, number, lambda change=change, number=number: self._run_stock(change, number)  # type: ignore[misc]
        for number, pod in enumerate(self.pods.values()):
            if pod.is_over:
                continue
            if pod.terminate_at_s is not None:
                yield pod.terminate_at_s, number, lambda pod=pod: self._on_deadline(pod, "TERMINATED")  # type: ignore[misc]
            if pod.stop_at_s is not None:
                yield pod.stop_at_s, number, lambda pod=pod: self._on_deadline(pod, "EXITED")  # type: ignore[misc]
            if pod.steps:
                yield pod.steps[0].at_s, number, lambda pod=pod: self._take(pod, pod.steps.pop(0))  # type: ignore[misc]
        for companion in self.companions:
            yield from companion.happenings()

    def _run_stock(self, change: Callable[[], None], number: int) -> None:
        del self._stock_plan[number]
        change()

    def _take(self, pod: Pod, step: Step) -> None:
        if step.line is not None:
            pod.log(step.at_s, step.source, step.line)
        if step.container == "starts":
            pod.up_since_s = pod.started_s = step.at_s
        elif step.container == "dies":
            pod.up_since_s = None
        again = step.again()
        if again is not None:
            pod.steps = sorted([*pod.steps, again], key=lambda each: each.at_s)
        if step.status is not None:
            self._set_status(pod, step.status, step.at_s)

    def _on_deadline(self, pod: Pod, status: PodStatus) -> None:
        at_s = pod.stop_at_s if status == "EXITED" else pod.terminate_at_s
        pod.stop_at_s = None
        if at_s is not None and (pod.is_rented or status == "TERMINATED"):
            self._end(pod, at_s, status, "time limit reached")

    def _broke_at(self, until_s: float) -> float | None:
        """When the money ran out, if it did before `until_s` and nobody has noticed yet."""
        per_h = self.ledger.per_hour()
        left = self._credit - self.ledger.spent(until_s)
        if self._was_broke or left > 0 or per_h <= 0:
            return None
        return until_s + left / per_h * 3600

    def _stop_all(self, at_s: float) -> None:
        self._was_broke = True
        for pod in self.pods.values():
            if pod.is_rented:
                self._end(pod, at_s, "EXITED", "stop container: balance exhausted")
        for companion in self.companions:
            companion.stop_all(at_s)

    def _end(self, pod: Pod, at_s: float, status: PodStatus, line: str) -> None:
        pod.steps.clear()
        pod.up_since_s = None
        pod.ended_s = at_s if status == "TERMINATED" else None
        pod.log(at_s, "system", line)
        self._set_status(pod, status, at_s)

    def _set_status(self, pod: Pod, status: PodStatus, at_s: float) -> None:
        before, pod.status = pod.status, status
        if before != status:
            self._changes.append((pod, before, status))
        self.ledger.set_rates(pod.id, at_s, pod.rates)
