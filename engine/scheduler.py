"""Which job the engine does next. Pure: no clock, no event loop, no model.

Three classes, the smaller number first: FINAL, PARTIAL, FILE. Inside a class streams take turns
in the order in which they came, and a stream's own jobs keep their order.

A stream has at most one waiting PARTIAL: a newer one takes its place in the queue, so a slow engine
means fewer partials, never a growing queue. A FINAL makes the waiting PARTIAL of its stream stale, since
it covers the same audio. Finals are never dropped.

One job leaves at a time; batches across streams will make `next` return several.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from engine.errors import AtCapacityError
from engine.types import JobClass

__all__ = ["MAX_FINALS_PER_STREAM", "MAX_WAITING_FILES", "Scheduler", "SupersededError", "Ticket"]

MAX_FINALS_PER_STREAM = 64
"""Waiting finals of one stream. A stream may be 60 s of audio behind, in which there are fewer
utterances; beyond, the job is refused at the door, with the audio still in the sender's hands."""
MAX_WAITING_FILES = 64
"""Waiting jobs of class FILE; the next is told to come back later."""


class SupersededError(Exception):
    """Not a fault: a newer job of the same stream made this PARTIAL pointless. Never shown to a user."""


@dataclass(frozen=True)
class Ticket:
    """A job's place in the queue; `number` is the caller's name for it, unique among the waiting.

    `continues`: the next step of a recording that has been let in; never refused.
    """

    number: int
    job_class: JobClass
    stream: str
    continues: bool = False


class Scheduler:
    """The waiting jobs."""

    def __init__(self) -> None:
        self._queues: dict[JobClass, OrderedDict[str, deque[Ticket]]] = {
            job_class: OrderedDict() for job_class in JobClass
        }
        self._counts = dict.fromkeys(JobClass, 0)

    def waiting(self, job_class: JobClass) -> int:
        """How many jobs of a class wait."""
        return self._counts[job_class]

    def submit(self, ticket: Ticket) -> Ticket | None:
        """Let a job in; returns the PARTIAL that it makes superfluous, which is out of the queue then.

        Raises AtCapacityError, with the queue unchanged.
        """
        self._check_room(ticket)
        if ticket.job_class is JobClass.PARTIAL:
            return self._submit_partial(ticket)
        self._queues[ticket.job_class].setdefault(ticket.stream, deque()).append(ticket)
        self._counts[ticket.job_class] += 1
        if ticket.job_class is JobClass.FINAL:
            return self._take(JobClass.PARTIAL, ticket.stream)
        return None

    def _check_room(self, ticket: Ticket) -> None:
        is_new_file = ticket.job_class is JobClass.FILE and not ticket.continues
        if is_new_file and self._counts[JobClass.FILE] >= MAX_WAITING_FILES:
            raise AtCapacityError(f"{MAX_WAITING_FILES} recordings are waiting; try again later")
        finals = self._queues[JobClass.FINAL].get(ticket.stream, ())
        if ticket.job_class is JobClass.FINAL and len(finals) >= MAX_FINALS_PER_STREAM:
            raise AtCapacityError(f"{MAX_FINALS_PER_STREAM} utterances of one stream are waiting")

    def _submit_partial(self, ticket: Ticket) -> Ticket | None:
        queue = self._queues[JobClass.PARTIAL]
        waiting = queue.get(ticket.stream)
        # Assigning to a key that is there keeps its place: being replaced costs no turn.
        queue[ticket.stream] = deque([ticket])
        if waiting:
            return waiting[0]
        self._counts[JobClass.PARTIAL] += 1
        return None

    def next(self) -> Ticket | None:
        """Take the most urgent job out of the queue; None if nothing waits."""
        for job_class in JobClass:
            stream = next(iter(self._queues[job_class]), None)
            if stream is not None:
                return self._take(job_class, stream)
        return None

    def _take(self, job_class: JobClass, stream: str) -> Ticket | None:
        queue = self._queues[job_class]
        jobs = queue.get(stream)
        if not jobs:
            return None
        ticket = jobs.popleft()
        self._counts[job_class] -= 1
        if jobs:
            queue.move_to_end(stream)
        else:
            del queue[stream]
        return ticket

    def cancel(self, ticket: Ticket) -> bool:
        """Take a waiting job out; False if it does not wait (any more)."""
        queue = self._queues[ticket.job_class]
        jobs = queue.get(ticket.stream)
        if jobs is None or ticket not in jobs:
            return False
        jobs.remove(ticket)
        self._counts[ticket.job_class] -= 1
        if not jobs:
            del queue[ticket.stream]
        return True

    def drain(self) -> list[Ticket]:
        """Take all jobs out, most urgent first."""
        tickets = []
        while (ticket := self.next()) is not None:
            tickets.append(ticket)
        return tickets
