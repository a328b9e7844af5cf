"""The transcript: completed text that only grows, one provisional segment, where to decode next."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.types import SAMPLE_RATE_HZ
from realtime.messages import Segment
from realtime.stability import TimedWord
from realtime.transcript import (
    COMPLETE_AFTER_SAMPLES,
    CONTEXT_GAP_SAMPLES,
    CONTEXT_WORDS,
    EDGE_SAMPLES,
    MAX_SEGMENT_SAMPLES,
    RUNNING_START_SAMPLES,
    SPLIT_GAP_SAMPLES,
    Transcript,
    Update,
)
from tests.test_realtime_stability import words

S = SAMPLE_RATE_HZ
NOTHING = Update((), None)


def shown(update: Update) -> tuple[list[str], str | None]:
    provisional = update.provisional.text if update.provisional else None
    return [segment.text for segment in update.completed], provisional


def test_words_are_provisional_until_two_hypotheses_agree_on_a_sentence() -> None:
    transcript = Transcript()
    assert shown(transcript.partial(words("Hello world."), S)) == ([], " Hello world")
    update = transcript.partial(words("Hello world. How"), int(1.2 * S))
    assert shown(update) == ([" Hello world."], " How")
    assert update.completed[0] == Segment(0, 700, " Hello world.", True)
    assert update.provisional == Segment(800, 1_100, " How", False)


def test_agreed_words_wait_for_a_sentence_or_for_their_time() -> None:
    said = words("so we went home and slept well")
    due = said[0].end + COMPLETE_AFTER_SAMPLES
    for end, expected in [(due - 1, ([], " so we went")), (due, ([" so we"], " went"))]:
        transcript = Transcript()
        transcript.partial(said[:2], said[2].start)
        assert shown(transcript.partial(said[:3], end)) == expected


def test_a_word_at_the_edge_is_not_completed() -> None:
    said = words("Yes. No. Perhaps.")
    for end, expected in [(said[1].end + EDGE_SAMPLES, 2), (said[1].end + EDGE_SAMPLES - 1, 1)]:
        transcript = Transcript()
        transcript.partial(said, end)
        assert len(transcript.partial(said, end).completed) == expected


def test_the_next_window_begins_with_a_running_start() -> None:
    transcript = Transcript()
    said = words("one two three four five six seven eight nine ten eleven twelve thirteen")
    transcript.partial(said, said[-1].end)
    transcript.partial(said, said[-1].end + COMPLETE_AFTER_SAMPLES)
    boundary = said[-2].end
    first_kept = next(word for word in said if word.start >= boundary - RUNNING_START_SAMPLES)
    assert transcript.decode_from == first_kept.start > 0
    # What is heard again is recognised.
    again = [word for word in said if word.start >= transcript.decode_from]
    assert shown(transcript.final(again, said[-1].end + S)) == ([" thirteen"], None)


def test_no_running_start_after_a_sentence_and_a_pause() -> None:
    transcript = Transcript()
    said = [*words("It is late."), *words("We go", 1.4)]
    transcript.partial(said, 3 * S)
    assert shown(transcript.partial(said, 3 * S)) == ([" It is late."], " We go")
    end, start = said[2].end, said[3].start
    assert transcript.decode_from == end + (start - end) // 2


def test_a_final_completes_everything() -> None:
    transcript = Transcript()
    transcript.partial(words("so we"), S)
    update = transcript.final(words("so we went home"), 2 * S)
    assert shown(update) == ([" so we went home"], None)
    assert transcript.decode_from == 2 * S
    assert transcript.n_completed == 1
    assert transcript.final([], 3 * S) == NOTHING
    assert transcript.decode_from == 3 * S


def test_a_provisional_keeps_the_start_of_its_completion() -> None:
    transcript = Transcript()
    first = transcript.partial(words("hello", 0.5), S)
    assert first.provisional is not None
    later = transcript.partial(words("hello there", 0.6), int(1.5 * S))
    assert later.provisional is not None
    last = transcript.final(words("hello there you", 0.7), 3 * S)
    assert first.provisional.start_ms == later.provisional.start_ms == last.completed[0].start_ms == 500


def test_text_shrinks_by_two_words_at_most_until_the_utterance_ends() -> None:
    transcript = Transcript()
    transcript.partial(words("so we went home and slept"), int(2.5 * S))
    for left in (" so we went home", " so we", " so"):
        assert shown(transcript.partial(words("so"), 3 * S)) == ([], left)
    transcript = Transcript()
    transcript.partial(words("so we went home and slept"), int(2.5 * S))
    assert shown(transcript.final(words("so"), 5 * S)) == ([" so"], None)


def test_what_was_said_before_the_window_is_its_context() -> None:
    said = [replace(word, tokens=(number, number)) for number, word in enumerate(words("It is late."))]
    later = [replace(word, tokens=(7,)) for word in words("We go home.", 7.0)]
    transcript = Transcript()
    transcript.final(said, 2 * S)
    assert transcript.context == [0, 0, 1, 1, 2, 2]
    transcript.begin_window(said[2].end + CONTEXT_GAP_SAMPLES - 1)
    assert transcript.context != []
    transcript.begin_window(said[2].end + CONTEXT_GAP_SAMPLES)
    assert transcript.context == []
    transcript.final(later, 9 * S, goes_on=True)
    assert transcript.context == [], "the running start is heard again, and no context"
    transcript.silence(11 * S)
    assert transcript.context == [7, 7, 7]
    transcript.forget_context()
    assert transcript.context == []


def test_context_is_bounded() -> None:
    transcript = Transcript()
    for number in range(3):
        said = [replace(word, tokens=(1,)) for word in words("a " * CONTEXT_WORDS, number * 60.0)]
        transcript.final(said, (number + 1) * 60 * S)
    assert len(transcript.context) == CONTEXT_WORDS


def test_the_end_of_a_sentence_is_noticed() -> None:
    transcript = Transcript()
    assert not transcript.at_sentence_end
    transcript.partial(words("so we"), S)
    assert not transcript.at_sentence_end
    transcript.partial(words("so we went."), 2 * S)
    assert transcript.at_sentence_end


def test_captions_are_split() -> None:
    transcript = Transcript()
    long_s = MAX_SEGMENT_SAMPLES / S
    sentences = words("One. Two? three")
    after_pause = words("four", 1.1 + SPLIT_GAP_SAMPLES / S)
    too_long = words("five", after_pause[0].start / S + long_s - 0.2)
    update = transcript.final([*sentences, *after_pause, *too_long], 20 * S)
    assert shown(update)[0] == [" One.", " Two?", " three", " four", " five"]
    fits = words("six", after_pause[0].start / S + long_s - 0.3)
    assert shown(Transcript().final([*after_pause, *fits], 20 * S))[0][0] == " four"
    together = [*words("four", 0.0), *words("and " * 23, 0.4), *words("six", long_s - 0.3)]
    assert len(Transcript().final(together, 20 * S).completed) == 1
    apart = [*together[:-1], replace(together[-1], end=together[-1].end + 1)]
    assert len(Transcript().final(apart, 20 * S).completed) == 2


def test_word_timestamps_are_sent_if_asked_for() -> None:
    [segment] = Transcript(word_timestamps=True).final(words("so we"), S).completed
    assert [(word.text, word.start_ms, word.end_ms) for word in segment.words] == [(" so", 0, 300), (" we", 400, 700)]
    [bare] = Transcript().final(words("so we"), S).completed
    assert bare.words == ()


def test_overlapping_words_do_not_make_overlapping_segments() -> None:
    transcript = Transcript(word_timestamps=True)
    said = [TimedWord(" One.", 0, S, 0.9), TimedWord(" Two.", S // 2, S // 2, 0.9), TimedWord(" Three.", 0, 2 * S, 0.9)]
    segments = transcript.final(said, 2 * S).completed
    assert [(segment.start_ms, segment.end_ms) for segment in segments] == [(0, 1_000), (1_000, 1_000), (1_000, 2_000)]
    assert all(segment.start_ms <= word.start_ms <= word.end_ms for segment in segments for word in segment.words)


def test_a_loop_at_the_edge_is_not_shown() -> None:
    transcript = Transcript()
    loop = words("home " * 30, 1.2, word_s=0.005, gap_s=0.0)
    assert shown(transcript.partial([*words("we went home"), *loop], int(1.5 * S))) == ([], " we went home")


def test_a_cut_in_mid_word_leaves_a_running_start() -> None:
    transcript = Transcript()
    said = words("so we went", 1.0)
    transcript.final(said[:2], 2 * S, goes_on=True)
    assert transcript.decode_from == said[0].start
    transcript.silence(2 * S)
    transcript.begin_window(2 * S)
    assert transcript.decode_from == said[0].start
    assert shown(transcript.final(said, 4 * S)) == ([" went"], None)


def test_a_cut_in_the_first_word_keeps_its_beginning() -> None:
    transcript = Transcript()
    transcript.begin_window(S)
    assert transcript.final([], 2 * S, goes_on=True) == NOTHING
    transcript.begin_window(2 * S)
    assert transcript.decode_from == S
    assert shown(transcript.final(words("hello", 1.8), 3 * S)) == ([" hello"], None)


def test_a_cut_long_after_the_last_word_keeps_a_few_seconds() -> None:
    transcript = Transcript()
    transcript.final(words("hello"), 20 * S, goes_on=True)
    assert transcript.decode_from == 20 * S - RUNNING_START_SAMPLES
    transcript = Transcript()
    transcript.final(words("hello", 17.5), 20 * S, goes_on=True)
    assert transcript.decode_from == int(17.5 * S)


@pytest.mark.parametrize("silent_for", [SPLIT_GAP_SAMPLES - 1, SPLIT_GAP_SAMPLES])
def test_silence_ends_a_running_start(silent_for: int) -> None:
    transcript = Transcript()
    transcript.final(words("so we"), S, goes_on=True)
    transcript.silence(S + silent_for)
    is_gone = silent_for >= SPLIT_GAP_SAMPLES
    assert transcript.decode_from == (S + silent_for if is_gone else 0)
    transcript.begin_window(S + silent_for)
    assert shown(transcript.final(words("so we"), 3 * S))[0] == ([" so we"] if is_gone else [])


def test_a_forced_cut_completes_what_is_far_from_the_end() -> None:
    transcript = Transcript()
    said = words("la " * 36)
    end = said[-1].end
    update = transcript.forced(said, end - 2 * S, end)
    n_sure = sum(word.end <= end - 2 * S for word in said)
    assert sum(len(segment.text.split()) for segment in update.completed) == n_sure
    assert update.provisional is not None
    assert len(update.provisional.text.split()) == len(said) - n_sure
    assert end - 2 * S - RUNNING_START_SAMPLES - S < transcript.decode_from < end - 2 * S


def test_a_forced_cut_of_nothing_moves_on() -> None:
    transcript = Transcript()
    assert transcript.forced([], 13 * S, 15 * S) == NOTHING
    assert transcript.decode_from == 13 * S


def test_a_forced_cut_with_words_at_the_end_only_holds_them_back() -> None:
    transcript = Transcript()
    said = words("so we went", 13.8)
    assert shown(transcript.forced(said, 13 * S, 15 * S)) == ([], " so we went")
    assert said[0].start - S < transcript.decode_from <= said[0].start
    assert shown(transcript.final(said, 16 * S)) == ([" so we went"], None)


def test_a_forced_cut_always_gets_on() -> None:
    """One endless word, again and again: the alignment has failed, but the stream must go on."""
    transcript = Transcript()
    start = 0
    for _ in range(4):
        end = start + 15 * S
        transcript.forced([TimedWord(" hm", start, end, 0.5)], end - 2 * S, end)
        transcript.forced([TimedWord(" hm", start, end, 0.5)], end - 2 * S, end)
        assert transcript.decode_from >= start + 13 * S
        start = transcript.decode_from


def test_a_window_that_ends_before_what_was_heard() -> None:
    transcript = Transcript()
    transcript.forced([*words("so we went"), *words("home", 13.5)], 13 * S, 15 * S)
    reached = transcript.decode_from
    assert shown(transcript.pass_over()) == ([" home"], None)
    assert transcript.decode_from >= max(reached, int(13.8 * S))
    transcript.begin_window(13 * S)
    assert transcript.decode_from >= int(13.8 * S)


def test_giving_up_completes_what_was_shown() -> None:
    transcript = Transcript()
    transcript.partial(words("so we went"), int(1.3 * S))
    assert shown(transcript.give_up()) == ([" so we went"], None)
    assert transcript.give_up() == NOTHING


@settings(max_examples=150)
@given(st.data())
def test_whatever_the_engine_says_the_promises_hold(data: st.DataObject) -> None:
    """Any words at any times, in any order of calls: append-only, no overlap, decode_from never goes back."""
    transcript = Transcript(word_timestamps=True)
    times = st.integers(0, 40 * S)
    word = st.builds(
        lambda text, start, length: TimedWord(" " + text, start, start + length, 0.5),
        st.sampled_from(["a", "b.", "c?", "d"]),
        times,
        st.integers(0, 2 * S),
    )
    end, last_end_ms, provisional = 0, 0, None
    for _ in range(data.draw(st.integers(1, 12))):
        end += data.draw(st.integers(1, 20 * S))
        said = data.draw(st.lists(word, max_size=10))
        before = transcript.decode_from
        kind = data.draw(st.sampled_from(["partial", "final", "cut", "forced", "silence", "begin", "over"]))
        update = NOTHING
        if kind == "partial":
            update = transcript.partial(said, end)
        elif kind in ("final", "cut"):
            update = transcript.final(said, max(end, transcript.decode_from), goes_on=kind == "cut")
        elif kind == "forced":
            end = max(end, transcript.decode_from + 15 * S)
            update = transcript.forced(said, end - 2 * S, end)
        elif kind == "silence":
            transcript.silence(end)
        elif kind == "begin":
            transcript.begin_window(end)
        else:
            update = transcript.pass_over()
        assert transcript.decode_from >= before or kind in ("partial", "forced", "final", "cut")
        for segment in update.completed:
            assert segment.completed
            assert segment.start_ms >= last_end_ms
            last_end_ms = segment.end_ms
        if update.completed and provisional is not None:
            assert update.completed[0].start_ms == provisional.start_ms
        if kind not in ("silence", "begin"):
            keeps = kind == "partial" and not update.completed and update.provisional is None
            provisional = provisional if keeps else update.provisional
        if update.provisional is not None:
            assert update.provisional.start_ms >= last_end_ms


def test_giving_up_completes_what_was_shown_even_if_the_last_hypothesis_lost_it() -> None:
    transcript = Transcript()
    transcript.partial(words("so we went home and slept"), int(2.5 * S))
    transcript.partial([], 3 * S)
    assert shown(transcript.give_up()) == ([" so we went home"], None)


def test_a_forced_cut_without_agreement_takes_back_two_words_at_most() -> None:
    transcript = Transcript()
    transcript.partial(words("so we went home and slept", 13.5), int(16.5 * S))
    assert shown(transcript.forced(words("so", 13.5), 13 * S, 15 * S)) == ([], " so we went home")
