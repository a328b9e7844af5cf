from __future__ import annotations

from realtime.arrivals import MAX_MARKS, Arrivals


def test_the_age_of_a_sample_counts_from_the_message_that_brought_it() -> None:
    arrivals = Arrivals()
    arrivals.note(100, 1.0)
    arrivals.note(200, 2.0)
    arrivals.note(300, 3.0)
    assert arrivals.age_s(100, 5.0) == 4.0
    assert arrivals.age_s(101, 5.0) == 3.0
    assert arrivals.age_s(300, 5.0) == 2.0


def test_a_sample_that_has_not_arrived_has_no_age() -> None:
    arrivals = Arrivals()
    assert arrivals.age_s(1, 5.0) is None
    arrivals.note(100, 1.0)
    assert arrivals.age_s(101, 5.0) is None


def test_messages_that_brought_nothing_leave_no_mark() -> None:
    arrivals = Arrivals()
    arrivals.note(100, 1.0)
    arrivals.note(100, 9.0)
    assert arrivals.age_s(100, 10.0) == 9.0


def test_the_oldest_marks_are_forgotten() -> None:
    arrivals = Arrivals()
    for number in range(MAX_MARKS + 1):
        arrivals.note(number + 1, float(number))
    assert arrivals.age_s(1, 10_000.0) == 10_000.0 - 1.0
