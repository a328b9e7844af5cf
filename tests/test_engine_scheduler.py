"""engine/scheduler.py: order of classes, turns of streams, replaced partials, limits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import AtCapacityError
from engine.scheduler import MAX_FINALS_PER_STREAM, MAX_WAITING_FILES, Scheduler, Ticket
from engine.types import JobClass

FINAL, PARTIAL, FILE = JobClass.FINAL, JobClass.PARTIAL, JobClass.FILE


def order(scheduler: Scheduler) -> list[int]:
    return [ticket.number for ticket in scheduler.drain()]


def test_nothing_waits_at_first() -> None:
    assert Scheduler().next() is None


def test_finals_go_before_partials_and_files_last() -> None:
    scheduler = Scheduler()
    for number, job_class in enumerate([FILE, PARTIAL, FINAL]):
        scheduler.submit(Ticket(number, job_class, f"s{number}"))
    assert order(scheduler) == [2, 1, 0]


def test_a_class_is_first_in_first_out() -> None:
    scheduler = Scheduler()
    for number in range(5):
        scheduler.submit(Ticket(number, PARTIAL, f"s{number}"))
    assert order(scheduler) == [0, 1, 2, 3, 4]


def test_streams_take_turns_inside_a_class() -> None:
    scheduler = Scheduler()
    for number in range(3):
        scheduler.submit(Ticket(number, FINAL, "talkative"))
    scheduler.submit(Ticket(10, FINAL, "quiet"))
    assert order(scheduler) == [0, 10, 1, 2]


def test_a_newer_partial_takes_the_place_of_the_waiting_one() -> None:
    scheduler = Scheduler()
    old = Ticket(1, PARTIAL, "a")
    assert scheduler.submit(old) is None
    assert scheduler.submit(Ticket(2, PARTIAL, "b")) is None
    assert scheduler.submit(Ticket(3, PARTIAL, "a")) == old
    assert scheduler.waiting(PARTIAL) == 2
    assert order(scheduler) == [3, 2]


def test_a_final_makes_the_waiting_partial_of_its_stream_stale() -> None:
    scheduler = Scheduler()
    partial = Ticket(1, PARTIAL, "a")
    scheduler.submit(partial)
    scheduler.submit(Ticket(2, PARTIAL, "b"))
    assert scheduler.submit(Ticket(3, FINAL, "a")) == partial
    assert order(scheduler) == [3, 2]


def test_a_file_of_the_same_name_leaves_the_partial_alone() -> None:
    scheduler = Scheduler()
    scheduler.submit(Ticket(1, PARTIAL, "a"))
    assert scheduler.submit(Ticket(2, FILE, "a")) is None
    assert order(scheduler) == [1, 2]


def test_files_are_refused_beyond_the_limit_and_steps_of_admitted_ones_are_not() -> None:
    scheduler = Scheduler()
    for number in range(MAX_WAITING_FILES):
        scheduler.submit(Ticket(number, FILE, f"f{number}"))
    with pytest.raises(AtCapacityError, match=str(MAX_WAITING_FILES)):
        scheduler.submit(Ticket(1_000, FILE, "one more"))
    assert scheduler.waiting(FILE) == MAX_WAITING_FILES
    scheduler.submit(Ticket(1_001, FILE, "admitted", continues=True))
    assert order(scheduler) == [*range(MAX_WAITING_FILES), 1_001]


def test_finals_of_one_stream_are_refused_beyond_the_limit_and_never_dropped() -> None:
    scheduler = Scheduler()
    for number in range(MAX_FINALS_PER_STREAM):
        assert scheduler.submit(Ticket(number, FINAL, "a")) is None
    with pytest.raises(AtCapacityError, match="one stream"):
        scheduler.submit(Ticket(1_000, FINAL, "a"))
    scheduler.submit(Ticket(1_001, FINAL, "b"))
    assert order(scheduler) == [0, 1_001, *range(1, MAX_FINALS_PER_STREAM)]


def test_a_refused_final_leaves_the_partial_waiting() -> None:
    scheduler = Scheduler()
    for number in range(MAX_FINALS_PER_STREAM):
        scheduler.submit(Ticket(number, FINAL, "a"))
    scheduler.submit(Ticket(500, PARTIAL, "a"))
    with pytest.raises(AtCapacityError):
        scheduler.submit(Ticket(1_000, FINAL, "a"))
    assert scheduler.waiting(PARTIAL) == 1


def test_cancel_takes_out_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler()
    tickets = [Ticket(number, FINAL, "a") for number in range(3)]
    for ticket in tickets:
        scheduler.submit(ticket)
    assert scheduler.cancel(tickets[1])
    assert not scheduler.cancel(tickets[1])
    assert not scheduler.cancel(Ticket(9, PARTIAL, "nobody"))
    assert scheduler.waiting(FINAL) == 2
    assert order(scheduler) == [0, 2]


def test_cancelling_the_last_job_of_a_stream_forgets_the_stream() -> None:
    scheduler = Scheduler()
    ticket = Ticket(1, PARTIAL, "a")
    scheduler.submit(ticket)
    assert scheduler.cancel(ticket)
    assert scheduler.next() is None
    assert scheduler.waiting(PARTIAL) == 0


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["submit", "next", "cancel"]), st.sampled_from(list(JobClass)), st.sampled_from("abc")),
    max_size=120,
)


@given(ACTIONS)
def test_no_job_is_lost_or_doubled(actions: list[tuple[str, JobClass, str]]) -> None:
    scheduler = Scheduler()
    numbers = itertools.count()
    waiting: dict[int, Ticket] = {}
    for action, job_class, stream in actions:
        if action == "submit":
            ticket = Ticket(next(numbers), job_class, stream)
            superseded = scheduler.submit(ticket)
            waiting[ticket.number] = ticket
            if superseded is not None:
                assert waiting.pop(superseded.number) == superseded
                assert superseded.job_class is PARTIAL
        elif action == "next":
            taken = scheduler.next()
            assert (taken is None) == (not waiting)
            if taken is not None:
                assert waiting.pop(taken.number).job_class == min(t.job_class for t in [*waiting.values(), taken])
        else:
            for ticket in [t for t in waiting.values() if (t.job_class, t.stream) == (job_class, stream)]:
                assert scheduler.cancel(waiting.pop(ticket.number))
        for each in JobClass:
            assert scheduler.waiting(each) == sum(ticket.job_class is each for ticket in waiting.values())
        partials = [ticket.stream for ticket in waiting.values() if ticket.job_class is PARTIAL]
        assert len(partials) == len(set(partials))
    assert {ticket.number for ticket in scheduler.drain()} == set(waiting)
