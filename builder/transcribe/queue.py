"""Carries recordings through an endpoint: submits parts, polls them, keeps each step in the ledger.

One thread; all waiting on the run's clock. Invariants: a job is submitted only after the ledger says so, and its id is
in the ledger before anything else happens (signals wait for that); a part that has a result is never asked again; one
recording that fails stops no other; no part is submitted more than MAX_SUBMITS times in a run.

What becomes of a part (RunPod job API):
    COMPLETED                       its result is kept
    FAILED, TIMED_OUT               once more by `retry`, unless the worker says that this is of no use; then reported
    CANCELLED                       reported
    404: forgotten                  submitted again
    answer to the submission lost   submitted again, counted and told: the lost one ends by its time to live
    429, no connection              everything waits, longer each time, and gives up after MAX_TROUBLES in a row
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.errors import (
    AmbiguousError,
    AuthError,
    BadAnswerError,
    BadRequestError,
    BalanceError,
    BuilderError,
    ConflictError,
    DiskFullError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    ServerFaultError,
    UsageError,
)
from builder.transcribe.parts import MAX_ERROR_CHARS, Item, Told, may_help, reason_of
from builder.transcribe.undisturbed import undisturbed

if TYPE_CHECKING:
    from builder.api.jobs import JobApi
    from builder.api.models_serverless import Job
    from builder.clock import Clock
    from builder.transcribe.ledger import Ledgers, Part

__all__ = ["MAX_SUBMITS", "MAX_TROUBLES", "JobQueue"]

FIRST_POLL_S, SLOWER = 1.0, 1.5
SLOWEST_POLL_S, POLLS_PER_S, MOST_POLL_S = 2.0, 5, 10.0
"""A job is looked at every SLOWEST_POLL_S in the end, or so that all together are POLLS_PER_S, up to MOST_POLL_S."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
MAX_TROUBLES = 10
"""Requests in a row that found nobody, or were refused for being too many: minutes of trying."""
MAX_SUBMITS = 3
STALLED_S = 60.0
LEAST_SLEEP_S = 0.05
SEEN_S = 120.0
"""A job that was seen so lately did not end and get forgotten since."""
_PASSING = (RateLimitedError, NetworkError, ServerFaultError, BadAnswerError)
_FATAL = (AuthError, BalanceError, DiskFullError)


@dataclass
class _Running:
    item: Item
    part: Part
    wait_s: float = FIRST_POLL_S
    due_s: float = 0.0
    seen_at: float | None = None
    """When RunPod knew it last, in seconds since 1970."""
    status: str = "IN_QUEUE"


class JobQueue:
    """At most `most` jobs of `endpoint_id` at a time, which live for `ttl_s`.

    `lost` counts submissions whose answer was lost.
    """

    def __init__(
        self,
        jobs: JobApi,
        clock: Clock,
        ledgers: Ledgers,
        endpoint_id: str,
        told: Told,
        *,
        most: int,
        ttl_s: float,
    ) -> None:
        self.lost = 0
        self._ttl_s = ttl_s
        self._jobs = jobs
        self._clock = clock
        self._ledgers = ledgers
        self._endpoint_id = endpoint_id
        self._told = told
        self._most = most
        self._waiting: deque[tuple[Item, Part]] = deque()
        self._running: list[_Running] = []
        self._troubles = 0
        self._free_at_s = 0.0
        self._waits_from_s: float | None = None

    def work(self, items: list[Item]) -> None:
        """Until every item is done or failed.

        Raises AuthError, BalanceError, NotFoundError (the endpoint is gone), DiskFullError, and NetworkError,
        RateLimitedError or ServerFaultError after MAX_TROUBLES in a row. Whatever it raises, the ledger is true.
        """
        fresh = deque(items)
        # What runs already is picked up before anything is added to it.
        for item in [each for each in items if any(part.state == "submitted" for part in each.ledger.parts)]:
            fresh.remove(item)
            self._begin(item)
        while fresh or self._waiting or self._running:
            while fresh and not self._waiting and self._has_room():
                self._begin(fresh.popleft())
            while self._waiting and self._has_room():
                self._submit(*self._waiting.popleft())
            self._poll_due()
            self._tell_stalled()
            if self._running or self._waiting:
                self._sleep()

    def cancel_all(self) -> int:
        """Stop the jobs that run; returns how many were stopped. One that is done already is left to the next run."""
        n_stopped = 0
        for each in list(self._running):
            try:
                if self._jobs.cancel(self._endpoint_id, str(each.part.job_id)).status == "COMPLETED":
                    continue
            except NotFoundError:
                pass
            except BuilderError as error:
                self._told.warn(f"job {each.part.job_id} was not cancelled: {error}")
                continue
            n_stopped += 1
            self._running.remove(each)
            self._set(each.item, each.part, state="new", job_id=None)
        return n_stopped

    @property
    def n_running(self) -> int:
        """Jobs that were submitted and have not ended."""
        return len(self._running)

    # An item

    def _begin(self, item: Item) -> None:
        item.began_s = self._clock.monotonic_s()
        try:
            if not item.ledger.parts:
                self._told.prepare(item)
                self._ledgers.save(item.ledger)
        except _FATAL:
            raise
        except BuilderError as error:
            item.fail(str(error))
        for part in item.ledger.parts:
            self._begin_part(item, part)
        self._end_if_over(item)

    def _begin_part(self, item: Item, part: Part) -> None:
        if part.state == "submitted":
            self._running.append(_Running(item, part))
            return
        if part.state == "submitting":
            part.lost += 1
            self.lost += 1
            self._told.warn(
                f"{item.ledger.shown}: the last run ended while a job was being sent; it is sent again, and may run "
                "twice"
            )
        if part.state == "done" and self._ledgers.result(item.ledger, part) is not None:
            return
        self._set(item, part, state="new", job_id=None, error=None, retried=False)
        self._waiting.append((item, part))

    def _end_if_over(self, item: Item) -> None:
        if item.ended_s is not None or any(part.state not in ("done", "failed") for part in item.ledger.parts):
            return
        if not item.ledger.parts and item.error is None:
            item.fail("nothing was to be sent")
        if item.error is None:
            try:
                self._told.finish(item)
            except _FATAL:
                raise
            except BuilderError as error:
                item.fail(str(error))
        item.ended_s = self._clock.monotonic_s()
        self._told.settled()

    def _fail(self, item: Item, part: Part, text: str) -> None:
        where = "" if len(item.ledger.parts) == 1 else f"piece {part.index + 1} of {len(item.ledger.parts)}: "
        item.fail(where + text)
        self._set(item, part, state="failed", error=text[:MAX_ERROR_CHARS])
        self._end_if_over(item)
        if item.ended_s is None:
            self._told.settled()

    def _set(self, item: Item, part: Part, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(part, name, value)
        self._ledgers.save(item.ledger)

    # Submitting

    def _has_room(self) -> bool:
        return len(self._running) < self._most and self._clock.monotonic_s() >= self._free_at_s

    def _submit(self, item: Item, part: Part) -> None:
        if item.submitted.get(part.index, 0) >= MAX_SUBMITS:
            self._fail(item, part, f"sent {MAX_SUBMITS} times, and no answer came of it")
            return
        try:
            body = self._told.body(item, part)
        except _FATAL:
            raise
        except BuilderError as error:
            self._fail(item, part, str(error))
            return
        # Between these two lines of the ledger a signal would lose a job that is paid for.
        with undisturbed():
            self._set(item, part, state="submitting")
            try:
                job = self._jobs.run(self._endpoint_id, body)
            except BuilderError as error:
                self._not_submitted(item, part, error)
                return
            item.submitted[part.index] = item.submitted.get(part.index, 0) + 1
            self._troubles = 0
            sent_at = self._clock.unix_s()
            try:
                self._set(item, part, state="submitted", job_id=job.id, submits=part.submits + 1, sent_at=sent_at)
            except BuilderError:
                # Nobody would find it again.
                with suppress(BuilderError):
                    self._jobs.cancel(self._endpoint_id, job.id)
                raise
            self._running.append(_Running(item, part, due_s=self._clock.monotonic_s() + FIRST_POLL_S))

    def _not_submitted(self, item: Item, part: Part, error: BuilderError) -> None:
        if isinstance(error, (AmbiguousError, ServerFaultError, BadAnswerError)):
            self.lost += 1
            item.submitted[part.index] = item.submitted.get(part.index, 0) + 1
            self._told.warn(f"{item.ledger.shown}: {error}; the job is sent again, and may run twice")
            self._set(item, part, state="new", lost=part.lost + 1, submits=part.submits + 1)
            self._waiting.append((item, part))
            self._trouble(error)
            return
        self._set(item, part, state="new")
        if isinstance(error, (RateLimitedError, NetworkError)):
            self._waiting.appendleft((item, part))
            self._trouble(error)
        elif isinstance(error, (BadRequestError, ConflictError, UsageError)):
            self._fail(item, part, str(error))
        else:
            raise error

    def _trouble(self, error: BuilderError) -> None:
        """Everything waits a while. Raises `error` if this has happened too often in a row."""
        self._troubles += 1
        if self._troubles >= MAX_TROUBLES:
            raise error
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._troubles - 1))
        self._free_at_s = self._clock.monotonic_s() + pause_s
        self._told.note(f"{error}; trying again in {pause_s:.0f} s")

    # Polling

    def _poll_due(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._free_at_s and self._troubles:
            return
        for each in [each for each in self._running if each.due_s <= now_s]:
            if not self._poll(each):
                return

    def _poll(self, each: _Running) -> bool:
        """Look at one job; False if nobody could be asked."""
        try:
            job = self._jobs.status(self._endpoint_id, str(each.part.job_id))
        except NotFoundError:
            self._running.remove(each)
            self._forgotten(each)
            return True
        except _PASSING as error:
            self._trouble(error)
            return False
        self._troubles = 0
        each.seen_at, each.status = self._clock.unix_s(), job.status
        slowest_s = min(MOST_POLL_S, max(SLOWEST_POLL_S, len(self._running) / POLLS_PER_S))
        each.wait_s = min(slowest_s, each.wait_s * SLOWER)
        each.due_s = self._clock.monotonic_s() + each.wait_s
        if job.is_over:
            self._ended(each, job)
        return True

    def _forgotten(self, each: _Running) -> None:
        item, part = each.item, each.part
        now_s = self._clock.unix_s()
        was_here = each.seen_at is not None and now_s - each.seen_at < SEEN_S
        if was_here and part.sent_at is not None and now_s - part.sent_at >= self._ttl_s:
            # Neither a result that was kept for too short, nor a fault of RunPod's: another try would end likewise.
            self._fail(item, part, f"not done within {self._ttl_s:.0f} s, waiting for a worker included (--timeout)")
            return
        self._told.warn(f"{item.ledger.shown}: RunPod has forgotten job {part.job_id}; it is sent again")
        self._set(item, part, state="new", job_id=None)
        self._waiting.append((item, part))

    def _ended(self, each: _Running, job: Job) -> None:
        from builder.transcribe.ledger import WorkerTime

        item, part = each.item, each.part
        if job.execution_ms:
            part.times.append(WorkerTime(job.worker_id, self._told.gpu_of(job.worker_id), job.execution_ms))
        if job.status == "COMPLETED" and isinstance(job.output, dict) and "error" not in job.output:
            # It counts as running until its result is safe.
            self._ledgers.put_result(item.ledger, part, job.output)
            self._set(item, part, state="done", error=None)
            self._running.remove(each)
            self._end_if_over(item)
            if item.ended_s is None:
                self._told.settled()
            return
        text = reason_of(job)
        if job.status in ("FAILED", "TIMED_OUT") and not part.retried and may_help(job):
            self._retry(each, text)
            return
        self._running.remove(each)
        self._fail(item, part, text)

    def _retry(self, each: _Running, reason: str) -> None:
        item, part = each.item, each.part
        self._told.note(f"{item.ledger.shown}: job {part.job_id}: {reason}; it is tried once more")
        with undisturbed():
            self._set(item, part, retried=True)
            try:
                self._jobs.retry(self._endpoint_id, str(part.job_id))
            except _FATAL:
                raise
            except AmbiguousError:
                # It was sent under the id that is polled: if it did not arrive, the job is found failed again.
                pass
            except BuilderError as error:
                self._running.remove(each)
                self._fail(item, part, f"{reason}; and it could not be tried again: {error}")
                return
        each.wait_s = FIRST_POLL_S
        each.due_s = self._clock.monotonic_s() + FIRST_POLL_S

    def _tell_stalled(self) -> None:
        now_s = self._clock.monotonic_s()
        if not self._running or any(each.status != "IN_QUEUE" for each in self._running):
            self._waits_from_s = None
        elif self._waits_from_s is None:
            self._waits_from_s = now_s
        elif now_s - self._waits_from_s >= STALLED_S:
            self._waits_from_s = now_s
            self._told.stalled(len(self._running))

    def _sleep(self) -> None:
        now_s = self._clock.monotonic_s()
        until_s = min((each.due_s for each in self._running), default=now_s)
        if self._free_at_s > now_s and (self._troubles or not self._running):
            until_s = max(until_s, self._free_at_s) if self._troubles else self._free_at_s
        if until_s > now_s:
            # Clocks are not exact: a sleep of nearly nothing might come again and again.
            self._clock.sleep(max(LEAST_SLEEP_S, until_s - now_s))
