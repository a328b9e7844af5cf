"""Which jobs the engine does next. Pure: no clock, no event loop, no model.

Three classes, the smaller number first: FINAL, PARTIAL, FILE. Inside a class the earliest deadline goes
first. The most urgent job decides what the next batch is made of: jobs of the same key join it in the
order of their deadlines, one per stream. Nothing waits for company: what is there when the engine gets
free is the batch, so a lone stream pays nothing and a busy engine gets larger batches by itself.

A stream has at most one waiting PARTIAL: a newer one takes its place and its deadline, so a slow engine
means fewer partials, never a growing queue. A FINAL makes the waiting PARTIAL of its stream stale, since
it covers the same audio. Finals are never dropped. Recordings run in the gaps that live jobs leave: a step of the
pipeline (it has no key) alone, windows in batches; each of those comes under a stream name of its own, or they
could not share one.

Invariants: every job leaves once; a batch has one key; a stream's jobs of a class leave in the order
of their deadlines.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from engine.batching import BatchKey
from engine.errors import AtCapacityError
from engine.types import JobClass

__all__ = [
    "MAX_FINALS_PER_STREAM",
    "MAX_PASSED_OVER",
    "MAX_WAITING_FILES",
    "MAX_WAITING_FILE_WINDOWS",
    "Scheduler",
    "SupersededError",
    "Ticket",
]

MAX_FINALS_PER_STREAM = 64
"""Waiting finals of one stream. A stream may be 60 s of audio behind, in which there are fewer
utterances; beyond, the job is refused at the door, with the audio still in the sender's hands."""
MAX_WAITING_FILES = 64
"""Waiting steps of recordings; the next recording is told to come back later."""
MAX_WAITING_FILE_WINDOWS = 1_024
"""Waiting windows of recordings, at up to 1 MB of mel each. Whoever cuts a recording into windows bounds them far
below this; it holds if many do so at once."""
MAX_PASSED_OVER = 32
"""Batches of partials that may leave while a recording waits. An engine that batches can have a partial
waiting at all times and still have a quarter of its capacity to spare; without this a recording
would never end. Finals are not counted: nothing but a job that already runs ever delays them."""


class SupersededError(Exception):
    """Not a fault: a newer job of the same stream made this PARTIAL pointless. Never shown to a user."""


@dataclass(frozen=True)
class Ticket:
    """A job's place in the queue; `number` is the caller's name for it, unique among the waiting.

    `key` None: always runs alone. `deadline_s` is a time of the caller's clock; it only orders.
    `continues`: the next step of a recording that has been let in; never refused.
    """

    number: int
    job_class: JobClass
    stream: str
    key: BatchKey | None = None
    deadline_s: float = 0.0
    continues: bool = False


class _Waiting(NamedTuple):
    deadline_s: float
    arrival: int
    ticket: Ticket


class Scheduler:
    """The waiting jobs. Up to a thousand are expected; a batch costs one look at the first of each stream."""

    def __init__(self) -> None:
        self._queues: dict[JobClass, dict[str, list[_Waiting]]] = {job_class: {} for job_class in JobClass}
        self._counts = dict.fromkeys(JobClass, 0)
        self._n_file_windows = 0
        self._n_arrived = 0
        self._n_passed_over = 0

    def waiting(self, job_class: JobClass) -> int:
        """How many jobs of a class wait."""
        return self._counts[job_class]

    def submit(self, ticket: Ticket) -> Ticket | None:
        """Let a job in; returns the PARTIAL that it makes superfluous, which is out of the queue then.

        Raises AtCapacityError, with the queue unchanged.
        """
        self._check_room(ticket)
        self._n_arrived += 1
        arrival, superfluous = self._n_arrived, None
        if ticket.job_class is not JobClass.FILE:
            superfluous = self._take(JobClass.PARTIAL, ticket.stream)
        if superfluous is not None and ticket.job_class is JobClass.PARTIAL:
            # Being replaced costs no turn.
            ticket = replace(ticket, deadline_s=min(ticket.deadline_s, superfluous.deadline_s))
            arrival = superfluous.arrival
        waiting = self._queues[ticket.job_class].setdefault(ticket.stream, [])
        insort(waiting, _Waiting(ticket.deadline_s, arrival, ticket))
        self._counts[ticket.job_class] += 1
        self._n_file_windows += _is_file_window(ticket)
        return superfluous.ticket if superfluous is not None else None

    def _check_room(self, ticket: Ticket) -> None:
        if _is_file_window(ticket):
            if self._n_file_windows >= MAX_WAITING_FILE_WINDOWS:
                raise AtCapacityError(f"{MAX_WAITING_FILE_WINDOWS} windows of recordings wait; try again later")
            return
        is_new_file = ticket.job_class is JobClass.FILE and not ticket.continues
        if is_new_file and self._counts[JobClass.FILE] - self._n_file_windows >= MAX_WAITING_FILES:
            raise AtCapacityError(f"{MAX_WAITING_FILES} recordings are waiting; try again later")
        finals = self._queues[JobClass.FINAL].get(ticket.stream, ())
        if ticket.job_class is JobClass.FINAL and len(finals) >= MAX_FINALS_PER_STREAM:
            raise AtCapacityError(f"{MAX_FINALS_PER_STREAM} utterances of one stream are waiting")

    def next_batch(self, limit: Callable[[BatchKey], int]) -> list[Ticket]:
        """Take the most urgent jobs that can run together out of the queue; empty if nothing waits.

        `limit` tells how many jobs of a key fit into a batch; one always does. The tickets come back
        with the deadlines they were kept under, which a replaced PARTIAL may have made earlier.
        """
        job_class = self._next_class()
        if job_class is None:
            return []
        heads = [waiting[0] for waiting in self._queues[job_class].values()]
        first = min(heads)
        key, batch = first.ticket.key, [first]
        if key is not None:
            size = max(1, limit(key))
            batch = heapq.nsmallest(size, (head for head in heads if head.ticket.key == key))
        for head in batch:
            self._take(job_class, head.ticket.stream)
        return [head.ticket for head in batch]

    def _next_class(self) -> JobClass | None:
        wanted = next((job_class for job_class in JobClass if self._counts[job_class]), None)
        if wanted is JobClass.PARTIAL and self._counts[JobClass.FILE]:
            self._n_passed_over += 1
            if self._n_passed_over > MAX_PASSED_OVER:
                wanted = JobClass.FILE
        if wanted is JobClass.FILE or not self._counts[JobClass.FILE]:
            self._n_passed_over = 0
        return wanted

    def _take(self, job_class: JobClass, stream: str) -> _Waiting | None:
        """Remove the first waiting job of a stream."""
        queue = self._queues[job_class]
        waiting = queue.get(stream)
        if waiting is None:
            return None
        first = waiting.pop(0)
        self._removed(first.ticket)
        return first

    def _removed(self, ticket: Ticket) -> None:
        self._counts[ticket.job_class] -= 1
        self._n_file_windows -= _is_file_window(ticket)
        queue = self._queues[ticket.job_class]
        if not queue[ticket.stream]:
            del queue[ticket.stream]

    def cancel(self, ticket: Ticket) -> bool:
        """Take a waiting job out; False if it does not wait (any more)."""
        waiting = self._queues[ticket.job_class].get(ticket.stream, [])
        for index, each in enumerate(waiting):
            if each.ticket.number == ticket.number:
                del waiting[index]
                self._removed(ticket)
                return True
        return False

    def drain(self) -> list[Ticket]:
        """Take all jobs out, most urgent first."""
        left = [sorted(each for waiting in queue.values() for each in waiting) for queue in self._queues.values()]
        for job_class, queue in self._queues.items():
            queue.clear()
            self._counts[job_class] = 0
        self._n_file_windows = 0
        return [each.ticket for waiting in left for each in waiting]


def _is_file_window(ticket: Ticket) -> bool:
    return ticket.job_class is JobClass.FILE and ticket.key is not None
