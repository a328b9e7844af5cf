"""What the control plane does wrong on purpose, by route ("POST /v2/pods", "createPod", or "*" for all)."""

from __future__ import annotations

import random
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes.runpod.calls import Answer, problem
from tests.fakes.runpod.pod import PodRefusedError
from tests.fakes.runpod.pods import PodStore

__all__ = ["ControlFault", "ControlFaults"]

Ending = Literal["answer", "close", "reset", "half"]
PAGE = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Please stand by.</body></html>"


@dataclass(frozen=True)
class ControlFault:
    """One request's fate: `executes` or not, then `answer` (None: the true one), sent as `ending` says, after a delay.

    close: the connection ends without an answer. reset: with a TCP reset. half: within the answer's body.
    """

    name: str
    executes: bool
    answer: Answer | None = None
    ending: Ending = "answer"
    delay_s: float = 0.0


class ControlFaults:
    """Per route a line of faults, one for each request to come; then chance, if `seed` was called."""

    def __init__(self, store: PodStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.restore()

    def restore(self) -> None:
        """Everything works again."""
        with self._lock:
            self._lines: dict[str, deque[ControlFault]] = {}
            self._random: random.Random | None = None
            self._rate = 0.0
            self._cut_logs: deque[int] = deque()
            self._requests_of_key: int | None = None
        self._store.hide_new_s = 0.0

    # For tests

    def fail(
        self,
        route: str,
        status: int = 503,
        times: int = 1,
        body: Any = None,
        headers: dict[str, str] | None = None,
        *,
        executed: bool = False,
    ) -> None:
        """Answer with an error (`body`: a document, or text for HTML); `executed`: although it was done."""
        answer = _failure(status, body)
        answer.headers.update(headers or {})
        self.add(route, ControlFault(f"fail {status}", executed, answer), times)

    def slow(self, route: str, seconds: float, times: int = 1) -> None:
        """Take that many real seconds before anything happens."""
        self.add(route, ControlFault("slow", True, delay_s=seconds), times)

    def drop_before(self, route: str, times: int = 1) -> None:
        """Close the connection; nothing was done."""
        self.add(route, ControlFault("drop_before", False, ending="close"), times)

    def drop_after_commit(self, route: str, times: int = 1) -> None:
        """Do it, then close the connection without an answer."""
        self.add(route, ControlFault("drop_after_commit", True, ending="close"), times)

    def reset(self, route: str, times: int = 1, *, executed: bool = False) -> None:
        """End the connection with a TCP reset."""
        self.add(route, ControlFault("reset", executed, ending="reset"), times)

    def half(self, route: str, times: int = 1) -> None:
        """Do it, and end the connection in the middle of the answer."""
        self.add(route, ControlFault("half", True, ending="half"), times)

    def garbage(self, route: str, times: int = 1, *, executed: bool = False) -> None:
        """Answer 200 with an HTML page."""
        self.add(route, ControlFault("garbage", executed, _garbage()), times)

    def expire_key(self, after: int = 0) -> None:
        """Refuse every key, once `after` more requests were served."""
        with self._lock:
            self._requests_of_key = after

    def hide_new_pods(self, seconds: float) -> None:
        """Pods made from now on are missing in lists for so long."""
        self._store.hide_new_s = seconds

    def cut_logs(self, after_lines: int, times: int = 1) -> None:
        """Break the next log connections once they have sent so many lines."""
        with self._lock:
            self._cut_logs.extend([after_lines] * times)

    def seed(self, chance: random.Random | int, rate: float) -> None:
        """From now on a share `rate` of all requests meets a random fault."""
        with self._lock:
            self._random = random.Random(chance) if isinstance(chance, int) else chance
            self._rate = rate

    def add(self, route: str, fault: ControlFault, times: int = 1) -> None:
        """Put a fault in a route's line."""
        with self._lock:
            self._lines.setdefault(route, deque()).extend([fault] * times)

    def calm(self) -> None:
        """No more faults of any line or by chance; keys and hidden pods stay as they are."""
        with self._lock:
            self._lines.clear()
            self._cut_logs.clear()
            self._rate = 0.0

    # For the server

    def next(self, *names: str) -> ControlFault | None:
        """The fate of a request that goes by these names."""
        with self._lock:
            for name in (*names, "*"):
                if self._lines.get(name):
                    return self._lines[name].popleft()
            if self._random is not None and self._random.random() < self._rate:
                return _by_chance(self._random)
            return None

    def next_log_cut(self) -> int | None:
        """After how many lines the next log connection breaks."""
        with self._lock:
            return self._cut_logs.popleft() if self._cut_logs else None

    def takes_key(self) -> bool:
        """False once keys are expired; counts a request."""
        with self._lock:
            if self._requests_of_key is None:
                return True
            self._requests_of_key -= 1
            return self._requests_of_key >= 0


def _failure(status: int, body: Any = None) -> Answer:
    if isinstance(body, str):
        return Answer(status, text=body, content_type="text/html")
    if body is not None:
        return Answer(status, body)
    return problem(PodRefusedError(status, "Something went wrong. Please try again later or contact support."))


def _garbage() -> Answer:
    return Answer(200, text=PAGE, content_type="text/html")


def _by_chance(chance: random.Random) -> ControlFault:
    kind = chance.choice(("status", "edge", "limit", "garbage", "drop", "reset", "half", "slow"))
    executes = chance.random() < 0.5
    if kind == "status":
        return ControlFault("chance status", executes, _failure(chance.choice((500, 502, 503, 504))))
    if kind == "edge":
        return ControlFault("chance edge", executes, _failure(chance.choice((502, 520, 524)), PAGE))
    if kind == "limit":
        answer = _failure(429)
        answer.headers["Retry-After"] = str(chance.choice((1, 2, 5)))
        return ControlFault("chance limit", False, answer)
    if kind == "garbage":
        return ControlFault("chance garbage", executes, _garbage())
    if kind == "drop":
        return ControlFault("chance drop", executes, ending="close")
    if kind == "reset":
        return ControlFault("chance reset", executes, ending="reset")
    if kind == "half":
        return ControlFault("chance half", True, ending="half")
    return ControlFault("chance slow", True, delay_s=0.01)
