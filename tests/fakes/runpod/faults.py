"""Faults by route: what the plane does wrong, in which order, and how often."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "Faults"]


@dataclass(frozen=True)
class Fault:
    """One request's fate.

    status: answered so, without effect. cut: the connection ends, without effect. cut_after: it ends once the
    request has had its effect. delay: the request is served, later. late: it has its effect at once, and the answer
    takes its time.
    """

    kind: Literal["status", "cut", "cut_after", "delay", "late"]
    status: int = 500
    body: str = "<html><body>fault</body></html>"
    delay_s: float = 0.0


class Faults:
    """Per route a line of faults, one for each request to come; the last may stay for ever."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[Fault]] = {}
        self._lasting: dict[str, Fault] = {}
        self._lock = threading.Lock()

    def status(self, route: str, status: int, times: int = 1, body: str = "<html><body>fault</body></html>") -> None:
        self.add(route, Fault("status", status=status, body=body), times)

    def cut(self, route: str, times: int = 1, *, after_commit: bool = False) -> None:
        self.add(route, Fault("cut_after" if after_commit else "cut"), times)

    def delay(self, route: str, delay_s: float, times: int = 1) -> None:
        self.add(route, Fault("delay", delay_s=delay_s), times)

    def late(self, route: str, delay_s: float, times: int = 1) -> None:
        self.add(route, Fault("late", delay_s=delay_s), times)

    def add(self, route: str, fault: Fault, times: int = 1) -> None:
        with self._lock:
            self._lines.setdefault(route, deque()).extend([fault] * times)

    def always(self, route: str, status: int) -> None:
        """From now on, until `clear`."""
        with self._lock:
            self._lasting[route] = Fault("status", status=status)

    def clear(self) -> None:
        with self._lock:
            self._lines.clear()
            self._lasting.clear()

    def next(self, route: str) -> Fault | None:
        """The fate of this request of `route`."""
        with self._lock:
            line = self._lines.get(route)
            return line.popleft() if line else self._lasting.get(route)
