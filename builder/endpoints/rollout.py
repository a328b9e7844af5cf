"""Watching an endpoint until its workers run the newest release, or until it is clear that they never will.

A worker that is UNHEALTHY in two looks, or whose log tells a cause that stays, ends the watch with that cause; so does
want of machines that lasts. Where no worker is kept and none is there, there is nothing to watch: the canary makes one.

Source: RunPod REST API v2 (`GET /serverless/{id}/workers`, `/releases`); states as documented there.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import (
    BuilderError,
    CapacityError,
    EndpointFailedError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    WaitTimeoutError,
)
from builder.instants import duration_text
from builder.pods.causes import Cause, diagnose
from builder.pods.ladder import delay_s

if TYPE_CHECKING:
    from builder.api.models_serverless import Releases, Worker, Workers
    from builder.console import Task
    from builder.runtime import Runtime

__all__ = ["LOG_IDLE_S", "Watch"]

LOG_IDLE_S = 1.0
"""Silence after which one read of a worker's log ends, in real seconds; tests shorten it."""
LOG_LINES = 30
LOG_EVERY_S = 20.0
"""Between reads of the log of a worker that takes its time to start."""
SHOWN_LINES = 8
UNHEALTHY_LOOKS = 2
"""Looks in a row in which a worker must be UNHEALTHY: one may be a passing hiccup of its health check."""
THROTTLED_S = 300.0
"""Without a machine for so long, other pools are the better plan."""
LAG_S = 60.0
"""An endpoint that was made, or a release, so short a time ago may not show yet."""
RELEASE_LAG_S = 30.0
MAX_FAULTS = 5
"""Looks in a row that may fail for reasons of the network."""
_READY = ("RUNNING", "IDLE")
_PASSING = (NetworkError, RateLimitedError, ServerFaultError)


@dataclass(frozen=True)
class _Seen:
    workers: Workers
    releases: Releases


class Watch:
    """One endpoint under watch; `timeout_s` is for all that is watched, the canary included.

    `after_version`: workers of this version and older do not count; None: a new endpoint.
    """

    def __init__(
        self, run: Runtime, endpoint_id: str, *, timeout_s: float, workers_min: int, after_version: int | None = None
    ) -> None:
        self.endpoint_id = endpoint_id
        self._run, self._timeout_s, self._workers_min = run, timeout_s, workers_min
        self._after_version = after_version
        self._began_s = run.clock.monotonic_s()
        self._random = random.Random(f"{endpoint_id}{self._began_s}")  # noqa: S311 - spreads calls, no secret
        self._unhealthy: dict[str, int] = {}
        self._throttled_since_s: float | None = None
        self._log_read_s = 0.0
        self._faults = 0
        self._state = "no worker yet"

    @property
    def elapsed_s(self) -> float:
        """Since the watch began."""
        return self._run.clock.monotonic_s() - self._began_s

    @property
    def left_s(self) -> float:
        """Until it times out."""
        return self._timeout_s - self.elapsed_s

    def until_rolled_out(self) -> dict[str, Any]:
        """Wait until no worker is of an older release and enough are ready; what became of it, for --json.

        Raises EndpointFailedError and CapacityError with the cause, WaitTimeoutError, and what reading raises again
        and again.
        """
        with self._run.console.task(f"endpoint {self.endpoint_id}") as task:
            while True:
                seen = self.look(task)
                if seen is not None and self._is_done(seen):
                    summary = seen.workers.summary
                    ready = summary.running + summary.idle
                    return {"elapsed_s": round(self.elapsed_s, 1), "workers": summary.total, "ready": ready}
                self.pause(f"its workers are not ready: {self._state}")

    def look(self, task: Task | None = None) -> _Seen | None:
        """One look at workers and rollout; None if the API did not answer this time. Raises as `until_rolled_out`."""
        api = self._run.api
        try:
            seen = _Seen(api.endpoint_workers(self.endpoint_id), api.endpoint_releases(self.endpoint_id))
        except NotFoundError:
            if self.elapsed_s < LAG_S:
                return None
            raise EndpointFailedError(
                f"endpoint {self.endpoint_id} is gone", hint="see what is there: python -m builder endpoint list"
            ) from None
        except _PASSING as error:
            self._faults += 1
            if self._faults >= MAX_FAULTS:
                raise
            self._run.console.note(f"{error}; looking again")
            return None
        self._faults = 0
        before, self._state = self._state, _state(seen)
        if task is not None and self._state != before:
            task.update(f"{self._state} after {duration_text(self.elapsed_s)} of {duration_text(self._timeout_s)}")
        self._judge([each for each in seen.workers.workers if self._is_fresh(each)])
        return seen

    def pause(self, missing: str) -> None:
        """Wait for the next look. Raises WaitTimeoutError that says what is `missing` once time is up."""
        if self.left_s <= 0:
            raise WaitTimeoutError(
                f"endpoint {self.endpoint_id}: after {duration_text(self._timeout_s)} {missing}",
                hint=f"see more: python -m builder endpoint status {self.endpoint_id}",
            )
        self._run.clock.sleep(min(self.left_s, delay_s(self.elapsed_s, self._random)))

    def _is_fresh(self, worker: Worker) -> bool:
        if worker.is_stale:
            return False
        return self._after_version is None or worker.version is None or worker.version > self._after_version

    def _is_done(self, seen: _Seen) -> bool:
        version = seen.releases.endpoint_version
        if self._after_version is not None and version is not None and version <= self._after_version:
            # It may be that nothing that was changed makes a release.
            return self.elapsed_s >= RELEASE_LAG_S and self._is_ready(seen, list(seen.workers.workers))
        fresh = [each for each in seen.workers.workers if self._is_fresh(each)]
        if len(fresh) < len(seen.workers.workers) or seen.releases.rollout.in_progress:
            return False
        return self._is_ready(seen, fresh)

    def _is_ready(self, seen: _Seen, workers: list[Worker]) -> bool:
        wanted = max(self._workers_min, 1 if seen.workers.workers else 0)
        return sum(each.status in _READY for each in workers) >= wanted

    def _judge(self, fresh: list[Worker]) -> None:
        """Raises if these workers tell that it will never be."""
        unhealthy = {each.id for each in fresh if each.status == "UNHEALTHY"}
        self._unhealthy = {each: self._unhealthy.get(each, 0) + 1 for each in unhealthy}
        for worker_id, looks in self._unhealthy.items():
            if looks >= UNHEALTHY_LOOKS:
                raise self._unhealthy_error(worker_id)
        starting = next((each for each in fresh if each.status == "INITIALIZING"), None)
        if starting is not None and self.elapsed_s - self._log_read_s >= LOG_EVERY_S:
            self._log_read_s = self.elapsed_s
            cause = diagnose("\n".join(self._log_of(starting.id)))
            if cause is not None and cause.is_final and cause.confidence == "high":
                raise self._failure(f"worker {starting.id} does not start", cause, cause.line)
        self._judge_stock(fresh)

    def _judge_stock(self, fresh: list[Worker]) -> None:
        if not fresh or any(each.status != "THROTTLED" for each in fresh):
            self._throttled_since_s = None
            return
        now_s = self.elapsed_s
        if self._throttled_since_s is None:
            self._throttled_since_s = now_s
        elif now_s - self._throttled_since_s >= THROTTLED_S:
            raise CapacityError(
                f"endpoint {self.endpoint_id}: no machine was free for its {len(fresh)} worker(s) "
                f"for {duration_text(now_s - self._throttled_since_s)}",
                hint="name more pools (--pool) and no data center, or try again later",
            )

    def _unhealthy_error(self, worker_id: str) -> EndpointFailedError:
        lines = self._log_of(worker_id)
        for line in lines[-SHOWN_LINES:]:
            self._run.console.note(f"  | {line}")
        cause = diagnose("\n".join(lines))
        return self._failure(f"worker {worker_id} is UNHEALTHY", cause, lines[-1] if lines else "")

    def _failure(self, what: str, cause: Cause | None, line: str) -> EndpointFailedError:
        after = duration_text(self.elapsed_s)
        why = cause.cause if cause is not None else f"its log ends with {line[:200]!r}" if line else "it has no log"
        hint = f"see more: python -m builder endpoint status {self.endpoint_id}" if cause is None else cause.remedy
        return EndpointFailedError(f"endpoint {self.endpoint_id} failed after {after}: {what}: {why}", hint=hint)

    def _log_of(self, worker_id: str) -> list[str]:
        try:
            events = self._run.api.worker_logs(self.endpoint_id, worker_id, tail=LOG_LINES, idle_s=LOG_IDLE_S)
            return [" ".join(event.line.split()) for event in itertools.islice(events, LOG_LINES)]
        except BuilderError:
            # The states tell, too.
            return []


def _state(seen: _Seen) -> str:
    """`2 of 3 workers run the newest release (1 idle, 2 initializing)`."""
    summary, rollout = seen.workers.summary, seen.releases.rollout
    counts = summary.model_dump(exclude={"total"})
    shown = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if not seen.workers.workers:
        return "no worker yet"
    on_latest = rollout.workers_on_latest
    return f"{on_latest} of {summary.total} workers run the newest release" + (f" ({shown})" if shown else "")
