"""Waiting until a pod serves: looks at it from all sides, and stops as soon as it is clear that it never will.

One status call, one read of the logs and at most two requests to the pod itself per look; what they mean is the
business of `builder.pods.ladder`. Times out with the pod kept.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from builder.api.http import Answer, get_once
from builder.clock import SystemClock
from builder.errors import (
    AuthError,
    BuilderError,
    NetworkError,
    NotAvailableError,
    NotFoundError,
    PodFailedError,
    RateLimitedError,
    ServerFaultError,
    WaitTimeoutError,
)
from builder.instants import duration_text, unix_s_of
from builder.pods.addresses import health_url, ws_url
from builder.pods.ladder import TARGETS, Ladder, Observation, Rung, Until, delay_s
from builder.pods.pods import ports_of, reason_of, token_for

if TYPE_CHECKING:
    from builder.api.models import LogEvent, Pod
    from builder.runtime import Runtime

__all__ = ["LOG_IDLE_S", "Readiness", "wait_for_pod"]

LOG_IDLE_S = 1.0
"""Silence after which one read of the logs ends, in real seconds; tests shorten it."""
NEW_POD_LAG_S = 60.0
"""A pod that was created so short a time ago may be missing in what the API shows."""
LOG_TAIL = 200
LOG_LIMIT_S, MAX_LOG_LINES = 4.0, 1_000
"""Real seconds and lines per look: a pod that never stops talking must not stop the looking."""
MAX_FAULTS = 5
"""Looks in a row that may fail for reasons of the network before the wait gives up."""
PROBE_S = 5.0
SPEAK_S = 60.0
MAX_SPEAKS = 2
"""Tries to get a transcript; the second forgives a connection that the proxy cut."""
SETTLE_S = 30.0
"""How long after an action the API may still show the state before it."""
CLOCK_SLACK_S = 5.0
"""Between RunPod's clock and ours."""
_REAL = SystemClock()
"""Sockets wait in real time, also where the rest lives in a test's."""


@dataclass(frozen=True)
class Readiness:
    """How a pod got where it is; times are seconds since the wait began."""

    pod_id: str
    until: Until
    rungs: tuple[tuple[Rung, float], ...]
    elapsed_s: float
    ws_url: str
    health_url: str
    transcript: str | None = None
    first_text_s: float | None = None

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "pod_id": self.pod_id,
            "until": self.until,
            "elapsed_s": round(self.elapsed_s, 1),
            "rungs": {rung: round(seconds, 1) for rung, seconds in self.rungs},
            "ws_url": self.ws_url,
            "health_url": self.health_url,
            "transcript": self.transcript,
            "first_text_s": self.first_text_s,
        }


def wait_for_pod(
    run: Runtime,
    pod_id: str,
    *,
    until: Until = "ready",
    timeout_s: float,
    since_s: float | None = None,
    is_new: bool = False,
) -> Readiness:
    """Wait until the pod is `until`, at most `timeout_s` seconds.

    `since_s` (unix): when an action that changes the pod was asked for; what shows the state before it does not
    count. `is_new`: it was created a moment ago, and the API may not show it yet. Raises NotFoundError;
    PodFailedError with the cause as soon as it is clear; WaitTimeoutError, the pod is kept; and, if the API cannot be
    reached again and again, its error.
    """
    return _Wait(run, pod_id, until, timeout_s, since_s, is_new=is_new).until_done()


class _Wait:
    def __init__(
        self, run: Runtime, pod_id: str, until: Until, timeout_s: float, since_s: float | None, *, is_new: bool
    ) -> None:
        self._run, self._pod_id, self._until, self._timeout_s = run, pod_id, until, timeout_s
        self._since_s, self._is_new = since_s, is_new
        self._began_s = run.clock.monotonic_s()
        self._ladder = Ladder(self._began_s)
        self._random = random.Random(f"{pod_id}{self._began_s}")  # noqa: S311 - spreads calls, no secret
        self._last_event_id: str | None = None
        self._resume_id: str | None = None
        self._has_logs = True
        self._pod: Pod | None = None
        self._faults = 0
        self._speaks = 0
        self._transcript: str | None = None
        self._first_text_s: float | None = None

    def until_done(self) -> Readiness:
        """Look, think, sleep."""
        target = TARGETS[self._until]
        with self._run.console.task(f"pod {self._pod_id}") as task:
            while True:
                seen = self._look()
                if seen is not None:
                    before = self._ladder
                    self._ladder = before.see(seen)
                    for rung, after_s in self._ladder.reached[len(before.reached) :]:
                        task.update(f"{rung} after {duration_text(after_s)} of {duration_text(self._timeout_s)}")
                if self._ladder.has(target):
                    return self._readiness()
                self._raise_if_failed()
                left_s = self._timeout_s - self._elapsed_s()
                if left_s <= 0:
                    raise self._too_late()
                self._run.clock.sleep(min(left_s, delay_s(self._elapsed_s(), self._random)))

    def _elapsed_s(self) -> float:
        return self._run.clock.monotonic_s() - self._began_s

    def _look(self) -> Observation | None:
        """One look from all sides; None if the API did not answer this time."""
        try:
            pod = self._run.api.get_pod(self._pod_id)
        except NotFoundError:
            if self._is_new and self._elapsed_s() < NEW_POD_LAG_S:
                return None
            if self._pod is None:
                raise
            return Observation(self._now_s(), None)
        except (NetworkError, RateLimitedError, ServerFaultError) as error:
            self._faults += 1
            if self._faults >= MAX_FAULTS:
                raise
            self._run.console.note(f"{error}; looking again")
            return None
        self._faults = 0
        self._pod = pod
        if self._is_before_action(pod):
            return Observation(self._now_s(), "PROVISIONING")
        return self._closer(pod)

    def _closer(self, pod: Pod) -> Observation:
        ports, needs_port = ports_of(self._run, pod), self._until != "running"
        seen = Observation(
            self._now_s(),
            pod.status,
            uptime_s=None if pod.runtime is None else pod.runtime.uptime_s,
            trusts_status=self._run.settings.use_v1,
            lines=self._new_lines(pod) if pod.status != "PROVISIONING" else (),
            port=ports.health,
            is_port_declared=not needs_port or not pod.ports or f"{ports.health}/http" in pod.ports,
        )
        if pod.status != "RUNNING" or not needs_port:
            return seen
        health = self._ask(ports.health, "/health")
        seen = replace(seen, asked=True, health=None if health is None else health.status)
        if health is None or health.status != 200 or self._until == "health":
            return replace(seen, now_s=self._now_s())
        ready = self._ask(ports.health, "/ready")
        if ready is not None:
            seen = replace(seen, ready=ready.status, reason=reason_of(ready))
        has_spoken = self._until == "speaks" and ready is not None and ready.status == 200 and self._speak(ports.ws)
        return replace(seen, now_s=self._now_s(), has_spoken=has_spoken)

    def _now_s(self) -> float:
        return self._run.clock.monotonic_s()

    def _is_before_action(self, pod: Pod) -> bool:
        if self._since_s is None:
            return False
        age_s = self._run.clock.unix_s() - self._since_s
        if age_s > SETTLE_S:
            return False
        uptime_s = pod.runtime.uptime_s if pod.runtime is not None else None
        is_old_container = uptime_s is not None and uptime_s > age_s + CLOCK_SLACK_S
        return pod.status == "EXITED" or is_old_container

    def _ask(self, port: int, path: str) -> Answer | None:
        try:
            return get_once(health_url(self._run.settings.proxy_template, self._pod_id, port, path), timeout_s=PROBE_S)
        except NetworkError:
            return None

    def _new_lines(self, pod: Pod) -> tuple[tuple[str, str], ...]:
        """What the logs said since the last look, and since the pod's present start; nothing if they cannot be had."""
        if not self._has_logs:
            return ()
        started_s = self._since_s
        if started_s is None and pod.started_at is not None:
            started_s = pod.started_at.timestamp()
        fresh = []
        try:
            for event in _closing(self._events()):
                if event.id and event.id != self._last_event_id:
                    # One back: lines may share an id, and to read one twice does no harm here.
                    self._resume_id, self._last_event_id = self._last_event_id, event.id
                at_s = unix_s_of(event.ts)
                if started_s is None or at_s is None or at_s >= started_s - CLOCK_SLACK_S:
                    fresh.append((event.source, event.line))
        except NotAvailableError:
            self._has_logs = False
        except (NetworkError, NotFoundError, RateLimitedError, ServerFaultError):
            pass  # The status tells, too; the next look reads on from here.
        return tuple(fresh)

    def _events(self) -> Iterator[LogEvent]:
        return self._run.api.logs(
            self._pod_id,
            tail=LOG_TAIL if self._resume_id is None else None,
            last_event_id=self._resume_id,
            idle_s=LOG_IDLE_S,
        )

    def _speak(self, port: int) -> bool:
        from builder.checks.listen import GREETING, sample, transcribe_live

        audio, _ = sample(GREETING)
        url = ws_url(self._run.settings.proxy_template, self._pod_id, port)
        token = token_for(self._run, self._pod) if self._pod is not None else None
        try:
            result = transcribe_live(self._run, url, audio, speed_fast=True, timeout_s=SPEAK_S, token=token)
        except AuthError as error:
            raise PodFailedError(
                f"pod {self._pod_id} is ready, but refuses our token: {error}", hint=error.hint
            ) from None
        except BuilderError as error:
            self._speaks += 1
            if self._speaks >= MAX_SPEAKS:
                raise PodFailedError(
                    f"pod {self._pod_id} is ready, but does not transcribe: {error}", hint=error.hint
                ) from None
            return False
        self._transcript, self._first_text_s = result.text, result.first_text_s
        if not result.text.strip():
            raise PodFailedError(
                f"pod {self._pod_id} is ready, but makes no text of speech", hint="python -m builder logs"
            )
        return True

    def _raise_if_failed(self) -> None:
        failure = self._ladder.failure
        if failure is not None:
            after = duration_text(self._elapsed_s())
            raise PodFailedError(f"pod {self._pod_id} failed after {after}: {failure.text}", hint=failure.hint)

    def _too_late(self) -> WaitTimeoutError:
        rung = self._ladder.next_rung
        why = f" ({self._ladder.reason})" if self._ladder.reason else ""
        cost = f", ${self._pod.cost:.2f}/h" if self._pod is not None else ""
        return WaitTimeoutError(
            f"pod {self._pod_id} is not {self._until} after {duration_text(self._timeout_s)}: "
            f"{rung} is missing{why}; the pod is kept{cost}"
        )

    def _readiness(self) -> Readiness:
        assert self._pod is not None
        ports, template = ports_of(self._run, self._pod), self._run.settings.proxy_template
        return Readiness(
            self._pod_id,
            self._until,
            self._ladder.reached,
            self._elapsed_s(),
            ws_url(template, self._pod_id, ports.ws),
            health_url(template, self._pod_id, ports.health),
            self._transcript,
            self._first_text_s,
        )


def _closing(events: Iterator[LogEvent]) -> Iterator[LogEvent]:
    """At most MAX_LOG_LINES events, for LOG_LIMIT_S at most; the connection is closed when it ends."""
    ends_s = _REAL.monotonic_s() + LOG_LIMIT_S
    try:
        for event in itertools.islice(events, MAX_LOG_LINES):
            yield event
            if _REAL.monotonic_s() > ends_s:
                return
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
