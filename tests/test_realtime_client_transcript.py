"""realtime.client.transcript: exactly once, immutable, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from realtime.client import transcript as module
from realtime.client.messages import Closed, Event, Segment, ServerWarning, Update
from realtime.client.transcript import MAX_REJECTED, Mailbox, Transcript


def done(start: float, end: float, text: str = "x") -> Segment:
    return Segment(start, end, text, True)


def guess(start: float, end: float, text: str = "x") -> Segment:
    return Segment(start, end, text, False)


def test_repeated_segments_are_new_once() -> None:
    transcript = Transcript()
    assert transcript.add([guess(0, 1, " Hel")]) == ()
    assert transcript.provisional == guess(0, 1, " Hel")
    assert transcript.add([done(0, 1, " Hello."), guess(1, 2, " How")]) == (done(0, 1, " Hello."),)
    assert transcript.add([done(0, 1, " Hello."), done(1, 2, " How?")]) == (done(1, 2, " How?"),)
    assert transcript.provisional is None
    assert transcript.text == "Hello. How?"
    assert transcript.end_s == 2
    assert transcript.violations == 0


def test_equal_neighbours_are_both_kept() -> None:
    transcript = Transcript()
    transcript.add([done(0, 1, " Yes."), done(1, 2, " Yes.")])
    assert transcript.text == "Yes. Yes."


def test_a_changed_or_overlapping_segment_is_counted_once_and_not_believed() -> None:
    transcript = Transcript()
    transcript.add([done(0, 1, " a"), done(1, 2, " b")])
    assert transcript.add([done(0, 1, " A"), done(1, 2, " b")]) == ()
    assert transcript.add([done(0, 1, " A")]) == ()
    assert transcript.add([done(1.999, 3, " c")]) == ()
    assert (transcript.violations, transcript.text) == (2, "a b")
    assert transcript.add([done(2, 3, " c")]) == (done(2, 3, " c"),)


def test_memory_of_false_segments_is_bounded() -> None:
    transcript = Transcript()
    transcript.add([done(100, 101)])
    for number in range(MAX_REJECTED + 1):
        transcript.add([done(1, 2, str(number))])
    assert transcript.violations == MAX_REJECTED + 1
    transcript.add([done(1, 2, str(MAX_REJECTED - 1))])
    assert transcript.violations == MAX_REJECTED + 1
    transcript.add([done(1, 2, str(MAX_REJECTED))])
    assert transcript.violations == MAX_REJECTED + 2


def drain(mailbox: Mailbox) -> list[Event]:
    events = []
    while (event := mailbox.pop()) is not None:
        events.append(event)
    return events


def update(number: int) -> Update:
    return Update((done(number, number + 1, str(number)),), guess(number + 1, number + 2), float(number))


def test_a_mailbox_at_its_limit_keeps_events_apart_and_one_past_it_merges() -> None:
    mailbox = Mailbox(2)
    mailbox.put(update(0))
    mailbox.put(update(1))
    assert len(mailbox) == 2
    mailbox.put(update(2))
    assert drain(mailbox) == [
        update(0),
        Update((done(1, 2, "1"), done(2, 3, "2")), guess(3, 4), 2.0),
    ]


def test_a_full_mailbox_drops_talk_but_never_text_nor_the_end() -> None:
    mailbox = Mailbox(2)
    for _ in range(3):
        mailbox.put(ServerWarning("hm"))
    assert mailbox.dropped == 1
    mailbox.put(update(0))
    assert mailbox.dropped == 2
    mailbox.put(Closed(1000, ""))
    assert drain(mailbox) == [ServerWarning("hm"), update(0), Closed(1000, "")]


def test_the_usual_capacity_is_the_named_one() -> None:
    mailbox = Mailbox()
    for number in range(module.MAX_EVENTS + 1):
        mailbox.put(update(number))
    assert len(mailbox) == module.MAX_EVENTS


@given(st.lists(st.sampled_from(["put", "pop", "talk"]), max_size=40), st.integers(1, 4))
def test_no_order_of_events_loses_or_reorders_text(actions: list[str], capacity: int) -> None:
    mailbox, count, seen = Mailbox(capacity), 0, []
    for action in actions:
        if action == "put":
            mailbox.put(update(count))
            count += 1
        elif action == "talk":
            mailbox.put(ServerWarning("hm"))
        else:
            seen.append(mailbox.pop())
    seen.extend(drain(mailbox))
    texts = [segment.text for event in seen if isinstance(event, Update) for segment in event.completed]
    assert texts == [str(number) for number in range(count)]
