"""engine/scheduler.py: order of classes, deadlines, what shares a batch, replaced partials, limits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching import BatchKey
from engine.errors import AtCapacityError
from engine.scheduler import MAX_FINALS_PER_STREAM, MAX_PASSED_OVER, MAX_WAITING_FILES, Scheduler, Ticket
from engine.types import JobClass

FINAL, PARTIAL, FILE = JobClass.FINAL, JobClass.PARTIAL, JobClass.FILE


def key(job_class: JobClass, n_frames: int = 200) -> BatchKey:
    return BatchKey(job_class, n_frames, 40, 0, "", "")


def ticket(
    number: int, job_class: JobClass, stream: str = "a", deadline_s: float = 0.0, *, n_frames: int = 200
) -> Ticket:
    own = None if job_class is FILE else key(job_class, n_frames)
    return Ticket(number, job_class, stream, own, deadline_s)


def take(scheduler: Scheduler, limit: int = 100) -> list[int]:
    return [each.number for each in scheduler.next_batch(lambda _: limit)]


def order(scheduler: Scheduler) -> list[int]:
    """One by one."""
    numbers = []
    while batch := take(scheduler, limit=1):
        numbers += batch
    return numbers


def test_nothing_waits_at_first() -> None:
    scheduler = Scheduler()
    assert take(scheduler) == []
    assert scheduler.drain() == []


def test_finals_go_before_partials_and_files_last() -> None:
    scheduler = Scheduler()
    for number, job_class in enumerate([FILE, PARTIAL, FINAL]):
        scheduler.submit(ticket(number, job_class, f"s{number}", deadline_s=float(number)))
    assert order(scheduler) == [2, 1, 0]


def test_the_earliest_deadline_of_a_class_goes_first_and_equal_ones_in_turn() -> None:
    scheduler = Scheduler()
    for number, deadline_s in enumerate([3.0, 1.0, 2.0, 1.0]):
        scheduler.submit(ticket(number, PARTIAL, f"s{number}", deadline_s))
    assert order(scheduler) == [1, 3, 2, 0]


# Batches


def test_jobs_of_the_most_urgent_ones_key_join_it_in_the_order_of_their_deadlines() -> None:
    scheduler = Scheduler()
    for number, (n_frames, deadline_s) in enumerate([(200, 5.0), (400, 1.0), (200, 4.0), (400, 3.0), (400, 2.0)]):
        scheduler.submit(ticket(number, PARTIAL, f"s{number}", deadline_s, n_frames=n_frames))
    assert take(scheduler) == [1, 4, 3]
    assert take(scheduler) == [2, 0]


def test_a_batch_of_finals_takes_no_partial_along() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(1, PARTIAL, "a"))
    scheduler.submit(ticket(2, FINAL, "b"))
    assert take(scheduler) == [2]
    assert take(scheduler) == [1]


@pytest.mark.parametrize(("limit", "first"), [(0, 1), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_a_batch_keeps_to_the_limit_and_is_at_least_one(limit: int, first: int) -> None:
    scheduler = Scheduler()
    for number in range(3):
        scheduler.submit(ticket(number, PARTIAL, f"s{number}"))
    assert take(scheduler, limit) == list(range(first))
    assert scheduler.waiting(PARTIAL) == 3 - first


def test_the_limit_is_asked_for_the_key_of_the_batch() -> None:
    scheduler = Scheduler()
    for number in range(4):
        scheduler.submit(ticket(number, PARTIAL, f"s{number}", n_frames=200 * (1 + number % 2)))
    limits = {key(PARTIAL, 200): 1, key(PARTIAL, 400): 2}
    sizes = [len(scheduler.next_batch(limits.__getitem__)) for _ in range(4)]
    assert sizes == [1, 2, 1, 0]


def test_a_stream_has_one_job_in_a_batch_and_streams_take_turns() -> None:
    scheduler = Scheduler()
    for number in range(3):
        scheduler.submit(ticket(number, FINAL, "talkative"))
    scheduler.submit(ticket(10, FINAL, "quiet"))
    assert [take(scheduler) for _ in range(3)] == [[0, 10], [1], [2]]


def test_the_finals_of_a_stream_keep_their_order_whatever_their_keys() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(1, FINAL, "a", 2.0, n_frames=400))
    scheduler.submit(ticket(2, FINAL, "a", 3.0, n_frames=200))
    scheduler.submit(ticket(3, FINAL, "b", 1.0, n_frames=200))
    assert [take(scheduler) for _ in range(3)] == [[3], [1], [2]]


def test_a_job_without_a_key_runs_alone() -> None:
    scheduler = Scheduler()
    for number in range(3):
        scheduler.submit(ticket(number, FILE, f"f{number}"))
    assert [take(scheduler) for _ in range(3)] == [[0], [1], [2]]


# Replaced partials


def test_a_newer_partial_takes_the_place_and_the_deadline_of_the_waiting_one() -> None:
    scheduler = Scheduler()
    old = ticket(1, PARTIAL, "a", 1.0)
    assert scheduler.submit(old) is None
    assert scheduler.submit(ticket(2, PARTIAL, "b", 1.0)) is None
    assert scheduler.submit(ticket(3, PARTIAL, "a", 9.0, n_frames=400)) == old
    assert scheduler.waiting(PARTIAL) == 2
    [first] = scheduler.next_batch(lambda _: 9)
    assert (first.number, first.deadline_s, first.key) == (3, 1.0, key(PARTIAL, 400))
    assert order(scheduler) == [2]


def test_a_newer_partial_with_an_earlier_deadline_keeps_its_own() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(1, PARTIAL, "a", 5.0))
    scheduler.submit(ticket(2, PARTIAL, "a", 4.0))
    assert [each.deadline_s for each in scheduler.next_batch(lambda _: 9)] == [4.0]


def test_a_final_makes_the_waiting_partial_of_its_stream_stale() -> None:
    scheduler = Scheduler()
    partial = ticket(1, PARTIAL, "a")
    scheduler.submit(partial)
    scheduler.submit(ticket(2, PARTIAL, "b"))
    assert scheduler.submit(ticket(3, FINAL, "a", 7.0)) == partial
    [final] = scheduler.next_batch(lambda _: 9)
    assert (final.number, final.deadline_s) == (3, 7.0)
    assert order(scheduler) == [2]


def test_a_file_of_the_same_name_leaves_the_partial_alone() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(1, PARTIAL, "a"))
    assert scheduler.submit(ticket(2, FILE, "a")) is None
    assert order(scheduler) == [1, 2]


# Recordings among partials


def test_a_recording_is_passed_over_by_so_many_batches_of_partials_and_no_more() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(0, FILE, "f"))
    taken = []
    for number in range(1, MAX_PASSED_OVER + 2):
        scheduler.submit(ticket(number, PARTIAL, "a"))
        taken += take(scheduler)
    assert taken == [*range(1, MAX_PASSED_OVER + 1), 0]
    assert take(scheduler) == [MAX_PASSED_OVER + 1]


def test_the_count_begins_anew_with_the_next_recording() -> None:
    scheduler = Scheduler()
    for number in range(MAX_PASSED_OVER):
        scheduler.submit(ticket(number, FILE, "f"))
        scheduler.submit(ticket(1_000 + number, PARTIAL, "a"))
        assert order(scheduler) == [1_000 + number, number]
    for number in range(2 * MAX_PASSED_OVER):
        scheduler.submit(ticket(number, PARTIAL, "a"))
        assert take(scheduler) == [number]


def test_no_recording_goes_before_a_waiting_final() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(0, FILE, "f"))
    for number in range(1, 3 * MAX_PASSED_OVER):
        scheduler.submit(ticket(number, FINAL, "a"))
        assert take(scheduler) == [number]


# Limits


def test_files_are_refused_beyond_the_limit_and_steps_of_admitted_ones_are_not() -> None:
    scheduler = Scheduler()
    for number in range(MAX_WAITING_FILES):
        scheduler.submit(ticket(number, FILE, f"f{number}"))
    with pytest.raises(AtCapacityError, match=str(MAX_WAITING_FILES)):
        scheduler.submit(ticket(1_000, FILE, "one more"))
    assert scheduler.waiting(FILE) == MAX_WAITING_FILES
    scheduler.submit(Ticket(1_001, FILE, "admitted", continues=True))
    assert order(scheduler) == [*range(MAX_WAITING_FILES), 1_001]


def test_finals_of_one_stream_are_refused_beyond_the_limit_and_never_dropped() -> None:
    scheduler = Scheduler()
    for number in range(MAX_FINALS_PER_STREAM):
        assert scheduler.submit(ticket(number, FINAL, "a")) is None
    with pytest.raises(AtCapacityError, match="one stream"):
        scheduler.submit(ticket(1_000, FINAL, "a"))
    scheduler.submit(ticket(1_001, FINAL, "b"))
    assert order(scheduler) == [*range(MAX_FINALS_PER_STREAM), 1_001]


def test_a_refused_final_leaves_the_partial_waiting() -> None:
    scheduler = Scheduler()
    for number in range(MAX_FINALS_PER_STREAM):
        scheduler.submit(ticket(number, FINAL, "a"))
    scheduler.submit(ticket(500, PARTIAL, "a"))
    with pytest.raises(AtCapacityError):
        scheduler.submit(ticket(1_000, FINAL, "a"))
    assert scheduler.waiting(PARTIAL) == 1


# Leaving early


def test_cancel_takes_out_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler()
    tickets = [ticket(number, FINAL) for number in range(3)]
    for each in tickets:
        scheduler.submit(each)
    assert scheduler.cancel(tickets[1])
    assert not scheduler.cancel(tickets[1])
    assert not scheduler.cancel(ticket(9, PARTIAL, "nobody"))
    assert scheduler.waiting(FINAL) == 2
    assert order(scheduler) == [0, 2]


def test_a_partial_that_inherited_a_deadline_is_cancelled_by_its_own_ticket() -> None:
    scheduler = Scheduler()
    scheduler.submit(ticket(1, PARTIAL, "a", 1.0))
    newer = ticket(2, PARTIAL, "a", 9.0)
    scheduler.submit(newer)
    assert scheduler.cancel(newer)
    assert scheduler.waiting(PARTIAL) == 0
    assert take(scheduler) == []


def test_drain_takes_everything_most_urgent_first() -> None:
    scheduler = Scheduler()
    for number, (job_class, deadline_s) in enumerate([(FILE, 0.0), (PARTIAL, 1.0), (FINAL, 3.0), (FINAL, 2.0)]):
        scheduler.submit(ticket(number, job_class, f"s{number}", deadline_s))
    assert [each.number for each in scheduler.drain()] == [3, 2, 1, 0]
    assert [scheduler.waiting(job_class) for job_class in JobClass] == [0, 0, 0]
    assert take(scheduler) == []


# Any sequence

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "submit", "next", "cancel"]),
        st.sampled_from(list(JobClass)),
        st.sampled_from("abcd"),
        st.integers(0, 5),
        st.sampled_from([200, 400]),
        st.integers(1, 3),
    ),
    max_size=60,
)
"""Too few for a recording to be passed over MAX_PASSED_OVER times."""


def check_batch(batch: list[Ticket], waiting: dict[int, Ticket], limit: int) -> None:
    """`waiting` is what waited before, under the deadlines that the scheduler keeps."""
    assert bool(batch) == bool(waiting)
    if not batch:
        return
    [job_class] = {each.job_class for each in batch}
    [batch_of] = {each.key for each in batch}
    assert len(batch) <= (1 if batch_of is None else limit)
    assert len({each.stream for each in batch}) == len(batch)
    assert job_class is min(each.job_class for each in waiting.values())
    rivals = [each for each in waiting.values() if each.job_class is job_class]
    assert batch[0].deadline_s == min(each.deadline_s for each in rivals)
    assert [each.deadline_s for each in batch] == sorted(each.deadline_s for each in batch)
    left = [each for each in rivals if each not in batch]
    for each in batch:
        assert all(each.deadline_s <= other.deadline_s for other in left if other.stream == each.stream)


@given(ACTIONS)
def test_every_job_leaves_once_in_a_batch_that_is_one(
    actions: list[tuple[str, JobClass, str, int, int, int]],
) -> None:
    scheduler = Scheduler()
    numbers = itertools.count()
    waiting: dict[int, Ticket] = {}
    for action, job_class, stream, deadline_s, n_frames, limit in actions:
        if action == "submit":
            new = ticket(next(numbers), job_class, stream, float(deadline_s), n_frames=n_frames)
            old = scheduler.submit(new)
            waiting[new.number] = new
            if old is not None:
                assert waiting.pop(old.number) == old
                assert (old.job_class, old.stream) == (PARTIAL, stream)
                if job_class is PARTIAL:
                    kept_s = min(old.deadline_s, new.deadline_s)
                    waiting[new.number] = Ticket(new.number, PARTIAL, stream, new.key, kept_s)
        elif action == "next":
            batch = scheduler.next_batch(lambda _, limit=limit: limit)  # type: ignore[misc]
            check_batch(batch, waiting, limit)
            for each in batch:
                assert waiting.pop(each.number) == each
        else:
            for each in [t for t in waiting.values() if (t.job_class, t.stream) == (job_class, stream)]:
                assert scheduler.cancel(waiting.pop(each.number))
        for each_class in JobClass:
            assert scheduler.waiting(each_class) == sum(t.job_class is each_class for t in waiting.values())
        partials = [t.stream for t in waiting.values() if t.job_class is PARTIAL]
        assert len(partials) == len(set(partials))
    assert {each.number for each in scheduler.drain()} == set(waiting)
