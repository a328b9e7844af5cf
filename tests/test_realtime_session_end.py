"""One stream in virtual time: all the ways in which it ends."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import EngineFailedError
from engine.types import DetectResult, JobClass, WindowJob
from realtime.events import Cancel, Close
from realtime.protocol import Handshake
from realtime.session import Session, SessionLimits
from tests.fakes.driver import Drive, Plan, drive
from tests.fakes.engine import Habits, Hearing
from tests.fakes.streams import BOTH, GATED, OPEN, UNGATED, S, closed, heard, kinds, new_session, say, talk

NO_END = Plan(end_after_s=None)


@BOTH
def test_the_end_of_nothing(handshake: Handshake) -> None:
    session = new_session(handshake)
    session.end_of_audio()
    assert session.take_events() == [Close(1000, "")]
    assert session.ledger.received == 0
    assert session.is_closed
    assert not session.wants_audio


@BOTH
def test_the_end_after_one_sample(handshake: Handshake) -> None:
    run = drive(b"\0\0\0\0", handshake=handshake)
    assert run.completed == []
    assert closed(run).code == 1000
    assert run.session.ledger.received == 1


def test_the_end_twice_and_audio_after_it() -> None:
    audio, _ = talk([1, 2, 3])

    def again(session: Session) -> None:
        session.end_of_audio()
        session.receive_audio(talk([4, 5])[0], 0.0)
        session.receive_text(0.0)

    run = drive(audio, Plan(acts=[(2.5, again), (2.6, again), (9.0, again)]), hearing=Hearing(Habits(cost_s=1.0)))
    assert run.said == [1, 2, 3]
    assert run.session.ledger.received == len(audio) // 4
    assert closed(run) == Close(1000, "")
    assert run.warnings == []


def test_an_incomplete_last_sample_is_dropped() -> None:
    run = drive(talk([1])[0] + b"\1\2\3")
    assert run.said == [1]
    assert closed(run).code == 1000


def test_idleness() -> None:
    audio, _ = talk([1, 2, 3], tail_s=0.0)
    run = drive(audio, NO_END, limits=SessionLimits(idle_timeout_s=10.0))
    assert run.said == [1, 2, 3]
    assert closed(run) == Close(4000, "no bytes for 10 s")
    assert run.now_s == pytest.approx(len(audio) / 4 / S + 10.0)
    assert run.warnings == []


def test_idleness_before_the_first_byte() -> None:
    run = drive(b"", NO_END, limits=SessionLimits(idle_timeout_s=1.0))
    assert closed(run).code == 4000
    assert run.now_s == 1.0


def test_idleness_shorter_than_starvation_loses_no_word() -> None:
    run = say([1, 2, 3], NO_END, limits=SessionLimits(idle_timeout_s=1.0), tail_s=0.0)
    assert run.said == [1, 2, 3]
    assert closed(run).code == 4000


def test_a_peer_that_is_not_read_is_not_idle() -> None:
    """The engine takes longer than the idle limit; the peer is held back all the while."""
    numbers = list(range(20))
    limits = SessionLimits(max_backlog_s=1.0, idle_timeout_s=3.0)
    run = say(numbers, Plan((4_000,), pace=10.0), limits=limits, habits=Habits(cost_s=5.0))
    assert run.said == numbers
    assert closed(run).code == 1000


def test_overtime() -> None:
    numbers = list(range(60))
    audio, spoken = talk(numbers)
    run = drive(audio, limits=SessionLimits(max_connection_time_s=10.0), hearing=Hearing(Habits(cost_s=0.5)))
    n_whole = sum(word.end_s <= 9.9 for word in spoken)
    assert run.said[:n_whole] == numbers[:n_whole]
    assert len(run.said) <= n_whole + 1
    assert closed(run) == Close(4002, "the session limit of 10 s is over")
    assert kinds([event for _, event in run.events])[-2:] == ["SendDisconnect", "Close"]
    assert run.sent[-1].body == {"uid": "u1", "message": "DISCONNECT"}
    # What came in while the last words were decoded is not passed over in silence.
    assert run.session.ledger.refused > 0
    refused_s = run.session.ledger.refused / S
    received_s = run.session.ledger.received / S
    [warning] = run.warnings
    assert warning == (
        f"session_limit: decoded up to {received_s - refused_s:.3f} s; {refused_s:.3f} s of audio were refused"
    )


def test_overtime_of_a_silent_peer() -> None:
    run = drive(b"", NO_END, limits=SessionLimits(max_connection_time_s=5.0))
    assert kinds([event for _, event in run.events]) == ["SendDisconnect", "Close"]
    assert run.now_s == 5.0


def test_draining() -> None:
    numbers = list(range(20))
    run = say(numbers, Plan(acts=[(5.0, Session.drain)]), habits=Habits(cost_s=0.2))
    assert run.said == numbers[: len(run.said)]
    assert len(run.said) >= 10
    assert closed(run).code == 1001
    assert "shutting down" in closed(run).reason
    assert run.of_kind("segments")[-1].body["segments"][-1]["completed"]


def test_draining_takes_the_whole_backlog() -> None:
    """Bytes that were read are decoded, even those that had no room yet."""
    audio, _ = talk(list(range(12)))
    session = new_session(UNGATED, SessionLimits(max_backlog_s=1.0))
    session.receive_audio(audio, 0.0)
    assert not session.wants_audio
    run = Drive(session, b"", Hearing(), Plan(acts=[(0.0, Session.drain)], end_after_s=None)).run()
    assert run.said == list(range(12))
    assert closed(run).code == 1001
    assert run.warnings == []


@pytest.mark.parametrize("ended", [False, True])
def test_abort_tells_what_was_not_decoded(ended: bool) -> None:
    """Also to a peer that has sent all: a close with 1000 would say that everything was transcribed."""
    audio, _ = talk(list(range(30)))
    stuck = Habits(delays_s={4: 1_000.0})
    plan = Plan(end_after_s=0.0 if ended else None, acts=[(20.0, Session.drain), (28.0, Session.abort)])
    run = drive(audio, plan, hearing=Hearing(stuck), limits=SessionLimits(max_backlog_s=60.0))
    assert run.session.ledger.received == len(audio) // 4
    assert closed(run).code == 1001
    ledger = run.session.ledger
    [warning] = run.warnings
    decoded_s, refused_s = (ledger.received - ledger.refused) / S, ledger.refused / S
    assert warning == f"draining: decoded up to {decoded_s:.3f} s; {refused_s:.3f} s of audio were refused"
    assert 2.0 < decoded_s < 4.0
    # What was last shown is completed; the warning says where it ends.
    assert run.said == list(range(len(run.said)))
    assert run.completed[-1].end_ms / 1_000 <= decoded_s
    assert run.completed[-1].end_ms / 1_000 > decoded_s - 1.0


def test_abort_does_not_count_what_nobody_heard() -> None:
    """A partial that failed, and one whose words were withheld for want of a language, heard nothing."""
    unsure: DetectResult = (("en", 0.4), ("es", 0.3))
    for habits, handshake in [
        (Habits(fails=lambda call, job: EngineFailedError("x")), GATED),
        (Habits(detect=lambda window_s: unsure), OPEN),
    ]:
        audio, _ = talk(list(range(6)), tail_s=0.0)
        plan = Plan(end_after_s=None, acts=[(len(audio) / 4 / S + 0.1, Session.abort)])
        run = drive(audio, plan, handshake=handshake, hearing=Hearing(habits))
        assert len(run.windows_s) >= 2
        assert run.session.ledger.decoded == 0
        assert any("decoded up to 0.0" in warning for warning in run.warnings)


def test_abort_after_a_failed_window_names_the_end_and_not_the_failure() -> None:
    audio, _ = talk([1, 2, 3, 4], 2.0)
    finals = [True, False]

    def fails(call: int, job: WindowJob) -> EngineFailedError | None:
        return EngineFailedError("x") if job.job_class is JobClass.FINAL and finals and finals.pop(0) else None

    habits = Habits(delays_s={6: 1_000.0}, fails=fails)
    run = drive(audio, Plan(acts=[(20.0, Session.drain), (28.0, Session.abort)]), hearing=Hearing(habits))
    failed, aborted = run.warnings
    assert failed.startswith("engine_failed: ")
    # 2 s into the stream a window failed; what counts here is where the transcript ends.
    assert float(aborted.split()[4]) > 4.0
    ledger = run.session.ledger
    assert float(aborted.split()[6]) < ledger.refused / S
    assert float(aborted.split()[4]) + float(aborted.split()[6]) == pytest.approx(ledger.received / S, abs=0.002)


def test_abort_with_nothing_open() -> None:
    session = new_session()
    session.abort()
    [close] = session.take_events()
    assert isinstance(close, Close)
    assert close.code == 1001
    session.abort()
    session.disconnected()
    assert session.take_events() == []


@BOTH
def test_disconnects_at_any_time_leave_the_books_balanced(handshake: Handshake) -> None:
    numbers = list(range(12))
    for at_s in np.arange(0.0, 9.0, 0.3):
        plan = Plan((12_345,), acts=[(float(at_s), Session.disconnected), (at_s + 0.1, Session.abort)], end_after_s=2.5)
        run = say(numbers, plan, handshake=handshake, habits=Habits(cost_s=0.3), pauses_s=(0.1, 0.7), tail_s=0.2)
        assert run.session.is_closed
        assert run.session.ledger.buffered == 0
        sent_after = [event for when_s, event in run.events if when_s > at_s and not isinstance(event, Cancel)]
        assert run.close is not None or sent_after == []


def test_nothing_follows_the_close() -> None:
    session = new_session()
    session.end_of_audio()
    session.take_events()
    session.receive_audio(talk([1])[0], 1.0)
    session.receive_text(1.0)
    session.end_of_audio()
    session.drain()
    session.abort()
    session.tick(1e9)
    session.result(1, heard(), 1.0)
    session.disconnected()
    assert session.take_events() == []
    assert session.next_deadline_s() is None
