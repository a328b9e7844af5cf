"""The parts of a simulation: virtual time, made-up talks, what is heard of them, what it costs, who watches."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from bench.costs import Cost, MeasuredCosts, MeasuredPoint, RooflineCosts, Work, limit_s, load_measured
from bench.roofline import GPUS, SHAPES
from bench.virtual.backend import BatchDone, Memory, ModelledBackend
from bench.virtual.hearing import Hearing
from bench.virtual.loop import LoopClock, StuckError, run_virtual
from bench.virtual.simulation import model_info
from bench.virtual.talk import MIN_TURN_PAUSE_S, Talk, TalkDetector, make_talk, word_place
from bench.virtual.watch import WordWatch
from engine.errors import BadInputError, EngineFailedError, EngineMemoryError
from engine.mel import LogMelStream
from engine.types import FileOptions, FloatArray, JobClass, WindowJob

N_MELS = 80
TURBO, L40S = SHAPES["large-v3-turbo"], GPUS["L40S"]


@pytest.fixture(scope="module")
def talk() -> Talk:
    return make_talk(20.0, 0.6, seed=3)


@pytest.fixture(scope="module")
def hearing(talk: Talk) -> Hearing:
    return Hearing([make_talk(5.0, 0.6, seed=4), talk], N_MELS)


def window(talk: Talk, start_s: float, end_s: float) -> FloatArray:
    """The mel frames of a stretch of an endless stream of the talk."""
    stream = LogMelStream(N_MELS)
    frames = stream.push(talk.audio(0, round(end_s * 16_000)))
    return np.concatenate([frames, stream.tail()], axis=1)[:, round(start_s * 100) :]


def job(mel: FloatArray, job_class: JobClass = JobClass.FINAL, language: str | None = "en") -> WindowJob:
    return WindowJob("s", job_class, mel, language)


# Virtual time


def test_an_hour_passes_at_once_and_in_order() -> None:
    async def main() -> list[tuple[str, float]]:
        clock, seen = LoopClock(asyncio.get_running_loop()), []

        async def sleeper(name: str, every_s: float) -> None:
            for _ in range(3):
                await asyncio.sleep(every_s)
                seen.append((name, clock.now_s()))

        await asyncio.gather(sleeper("a", 1_200.0), sleeper("b", 900.0))
        return seen

    seen = run_virtual(main())
    assert [name for name, _ in seen] == ["b", "a", "b", "a", "b", "a"]
    assert [at_s for _, at_s in seen] == pytest.approx([900, 1_200, 1_800, 2_400, 2_700, 3_600])


def test_a_timeout_happens_in_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 50.0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(50.0)


def test_waiting_for_ever_is_an_error() -> None:
    with pytest.raises(StuckError):
        run_virtual(asyncio.Event().wait())


# Talks


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_a_talk_speaks_the_wanted_share_of_time(share: float) -> None:
    talk = make_talk(300.0, share, seed=1)
    assert talk.speech_share == pytest.approx(share, abs=0.08)
    pauses_s = [after.start_s - word.end_s for word, after in zip(talk.words, talk.words[1:], strict=False)]
    assert all(
        (pause_s >= MIN_TURN_PAUSE_S) == word.ends_turn for pause_s, word in zip(pauses_s, talk.words, strict=False)
    )


def test_a_share_of_speech_out_of_range_is_refused() -> None:
    make_talk(1.0, 0.1, seed=1)
    for share in (0.09, 1.01):
        with pytest.raises(ValueError, match="legal"):
            make_talk(1.0, share, seed=1)


def test_a_talk_goes_round_without_a_seam(talk: Talk) -> None:
    n = len(talk.samples)
    assert np.array_equal(talk.audio(n - 5, 10), np.concatenate([talk.samples[-5:], talk.samples[:5]]))
    assert np.array_equal(talk.audio(3 * n + 7, 20), talk.samples[7:27])
    frames = window(talk, 0.0, 2 * talk.duration_s)
    places = talk.places(N_MELS)
    found = [places.get(frames[:8, index].tobytes()) for index in range(2, frames.shape[1] - 4)]
    assert found == [index % (n // 160) for index in range(2, frames.shape[1] - 4)]


def test_the_detector_hears_words_however_the_audio_is_cut(talk: Talk) -> None:
    whole = TalkDetector(talk).push(talk.samples)
    detector = TalkDetector(talk)
    parts = [detector.push(talk.samples[first : first + 1_600]) for first in range(0, len(talk.samples), 1_600)]
    assert whole == [probability for part in parts for probability in part]
    first = talk.words[0]
    middle = int((first.start_s + first.end_s) / 2 * 16_000 // 512)
    assert whole[middle] == 1.0
    end = next(word for word in talk.words if word.ends_turn)
    assert whole[int((end.end_s + 0.5) * 16_000 // 512)] == 0.0


def test_words_are_told_from_their_texts(talk: Talk) -> None:
    assert [word_place(word.text.strip()) for word in talk.words] == [(n, True) for n in range(len(talk.words))]
    assert word_place("x12") == (12, False)
    assert word_place("hello") is None


# Hearing


def test_a_final_window_in_silence_is_heard_without_an_error(talk: Talk, hearing: Hearing) -> None:
    end = next(place for place, word in enumerate(talk.words) if word.ends_turn)
    mel = window(talk, 0.0, talk.words[end].end_s + 0.6)
    result = hearing.hear(job(mel))
    assert [word.text for word in result.words] == [word.text for word in talk.words[: end + 1]]
    assert [word.start_s for word in result.words] == pytest.approx(
        [word.start_s for word in talk.words[: end + 1]], abs=0.05
    )


def test_a_window_is_found_in_any_round_of_the_talk(talk: Talk, hearing: Hearing) -> None:
    begin_s, end_s = talk.duration_s - 2.0, talk.duration_s + 3.0
    early = hearing.hear(job(window(talk, begin_s, end_s)))
    late = hearing.hear(job(window(talk, begin_s + talk.duration_s, end_s + talk.duration_s)))
    assert early == late
    said = [word.text for word in talk.words if word.end_s < 2.8]
    texts = [word.text for word in early.words]
    assert texts[texts.index(said[0]) :][: len(said)] == said


def test_a_word_at_the_edge_is_heard_wrong_or_not_at_all(talk: Talk, hearing: Hearing) -> None:
    word = talk.words[4]
    length_s = word.end_s - word.start_s
    heard = {
        share: [each.text for each in hearing.hear(job(window(talk, 0.0, word.start_s + share * length_s))).words]
        for share in (0.1, 0.6)
    }
    before = [each.text for each in talk.words[:3]]
    assert (len(heard[0.1]), heard[0.1][:3]) == (4, before)
    assert (heard[0.6][:3], heard[0.6][4:]) == (before, [" x4"])


def test_what_is_heard_depends_on_the_window_alone(talk: Talk, hearing: Hearing) -> None:
    mel = window(talk, 0.0, 3.0)
    first = hearing.hear(job(mel, JobClass.PARTIAL))
    hearing.hear(job(window(talk, 1.0, 4.0), JobClass.PARTIAL))
    assert hearing.hear(job(mel, JobClass.PARTIAL)) == first


def test_silence_has_no_words_and_an_open_language_is_found(talk: Talk, hearing: Hearing) -> None:
    end = next(word for word in talk.words if word.ends_turn)
    silent = hearing.hear(job(window(talk, end.end_s + 0.1, end.end_s + 0.6)))
    assert silent.words == ()
    assert silent.no_speech_prob > 0.9
    found = hearing.hear(job(window(talk, 0.0, 2.0), language=None))
    assert found.language == "en"
    assert found.language_probs[0][0] == "en"


def test_damaged_audio_is_noticed(hearing: Hearing) -> None:
    noise = np.random.default_rng(0).normal(size=(N_MELS, 100)).astype(np.float32)
    with pytest.raises(ValueError, match="in no talk"):
        hearing.hear(job(noise))


# Costs


def test_costs_are_the_limit_divided_by_the_efficiency_plus_the_host() -> None:
    work = Work(n_windows=8, frames=1_000, steps=20)
    full, half = RooflineCosts(TURBO, L40S, 1.0).cost(work), RooflineCosts(TURBO, L40S, 0.5).cost(work)
    assert half.encode_s == pytest.approx(2 * full.encode_s)
    assert full.encode_s + full.decode_s > limit_s(TURBO, L40S, work)
    assert half.total_s == pytest.approx(half.host_s + half.encode_s + half.decode_s + half.align_s)


def test_batches_windows_and_beams_cost_what_they_should() -> None:
    costs = RooflineCosts(TURBO, L40S)
    one, eight = costs.cost(Work(1, 1_000, 20)), costs.cost(Work(8, 1_000, 20))
    assert eight.encode_s == pytest.approx(8 * one.encode_s)
    assert eight.decode_s < 1.5 * one.decode_s
    assert costs.cost(Work(1, 3_000, 20)).encode_s > 3 * one.encode_s
    assert costs.cost(Work(8, 1_000, 20, beam_size=5)).decode_s > eight.decode_s
    assert costs.cost(Work(8, 1_000, 20, n_context=96)).decode_s > eight.decode_s


def points() -> list[MeasuredPoint]:
    return [
        MeasuredPoint(n, frames, 10, beam, Cost(0.001, 0.01 * n * frames / 1_000, 0.02 + 0.001 * n * beam, 0.002 * n))
        for n in (1, 4, 8)
        for frames in (1_000, 3_000)
        for beam in (1, 5)
    ]


def test_measured_costs_lie_on_lines_between_and_beyond() -> None:
    costs = MeasuredCosts(points())
    assert costs.cost(Work(4, 1_000, 10)).encode_s == pytest.approx(0.04)
    assert costs.cost(Work(6, 2_000, 10)).encode_s == pytest.approx(0.12)
    assert costs.cost(Work(16, 1_000, 10)).decode_s == pytest.approx(0.036)
    assert costs.cost(Work(4, 1_000, 20)).decode_s == pytest.approx(2 * 0.024)
    assert costs.cost(Work(4, 1_000, 10, beam_size=5)).decode_s == pytest.approx(0.04)
    assert costs.cost(Work(1, 100, 10)).encode_s == pytest.approx(0.001)


def test_measured_costs_need_two_batch_sizes() -> None:
    with pytest.raises(BadInputError, match="two batch sizes"):
        MeasuredCosts([point for point in points() if point.n_windows == 1])


def test_measured_costs_are_read_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"model": model, "n_windows": n, "frames": 1_000, "steps": 10, "beam_size": beam}
        | {"host_s": 0.001, "encode_s": cost_s * n, "decode_s": 0.02, "align_s": 0.001}
        for model, cost_s in (("tiny", 0.01), ("small", 0.5))
        for n in (1, 2)
        for beam in (1, 5)
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps({"results": {"batches": rows}}), encoding="utf-8")
    assert load_measured(path, "tiny").cost(Work(3, 1_000, 10)).encode_s == pytest.approx(0.03)
    with pytest.raises(BadInputError):
        load_measured(path, "base")
    for broken in ("", "{}", '{"results": {"batches": [{}]}}', '{"results": {"batches": []}}'):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(BadInputError):
            load_measured(path, "tiny")


# The backend


def backend(hearing: Hearing, done: list[BatchDone], memory: Memory | None = None) -> ModelledBackend:
    return ModelledBackend(
        model_info("turbo", SHAPES["small"], 10.0),
        RooflineCosts(SHAPES["small"], L40S),
        hearing,
        memory=memory,
        on_batch=done.append,
    )


def test_a_batch_takes_the_time_it_costs(talk: Talk, hearing: Hearing) -> None:
    done: list[BatchDone] = []
    jobs = [job(window(talk, 0.0, 3.0)), job(window(talk, 1.0, 3.5))]

    async def main() -> float:
        result = await backend(hearing, done).transcribe(jobs)
        assert [len(each.words) > 0 for each in result.results] == [True, True]
        assert (result.frames, result.padding_frames) == (2_000, 2_000 - 300 - 250)
        assert result.tokens == sum(len(word.tokens) for each in result.results for word in each.words)
        return asyncio.get_running_loop().time()

    took_s = run_virtual(main())
    [batch] = done
    assert took_s == pytest.approx(batch.cost.total_s)
    assert (batch.work.n_windows, batch.work.frames, batch.work.beam_size) == (2, 1_000, 5)


def test_batches_run_one_after_the_other(talk: Talk, hearing: Hearing) -> None:
    done: list[BatchDone] = []

    async def main() -> float:
        engine = backend(hearing, done)
        await asyncio.gather(*(engine.transcribe([job(window(talk, 0.0, 3.0))]) for _ in range(3)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(sum(batch.cost.total_s for batch in done))


def test_unequal_windows_strange_audio_and_recordings_are_refused(talk: Talk, hearing: Hearing) -> None:
    engine = backend(hearing, [])
    mel = window(talk, 0.0, 3.0)
    with pytest.raises(EngineFailedError, match="2 kinds"):
        run_virtual(engine.transcribe([job(mel), job(mel, JobClass.PARTIAL)]))
    with pytest.raises(EngineFailedError, match="in no talk"):
        run_virtual(engine.transcribe([job(np.zeros((N_MELS, 100), dtype=np.float32))]))
    with pytest.raises(EngineFailedError, match="recordings"):
        run_virtual(engine.open_file(talk.samples, FileOptions()))
    with pytest.raises(EngineFailedError, match="recordings"):
        run_virtual(engine.next_segments(1))


def test_memory_ends_at_the_limit(talk: Talk, hearing: Hearing) -> None:
    engine = backend(hearing, [], Memory(2_000.0, lambda frames: float(frames)))
    jobs = [job(window(talk, 0.0, 3.0))] * 3
    assert len(run_virtual(engine.transcribe(jobs[:2])).results) == 2
    with pytest.raises(EngineMemoryError):
        run_virtual(engine.transcribe(jobs))


# Who watches


def test_words_are_timed_from_the_end_of_their_sound(talk: Talk) -> None:
    watch = WordWatch(talk, start_s=100.0)
    first, second = talk.words[:2]
    watch.shown(100 + second.end_s + 0.2, [], f"{first.text} x1")
    watch.shown(100 + second.end_s + 1.0, [first.text], second.text)
    watch.shown(100 + second.end_s + 2.0, [" x1."], "")
    one, two = watch.take(second.end_s)
    assert one.shown_after_s == pytest.approx(second.end_s - first.end_s + 0.2)
    assert one.completed_after_s == pytest.approx(second.end_s - first.end_s + 1.0)
    assert two.shown_after_s == pytest.approx(1.0)
    assert two.completed_after_s == pytest.approx(2.0)
    assert (one.is_wrong, two.is_wrong) == (False, True)
    assert (watch.n_doubled, watch.n_strange) == (0, 0)


def test_lost_doubled_strange_and_late_words_are_counted(talk: Talk) -> None:
    watch = WordWatch(talk, start_s=0.0)
    now_s = talk.words[2].end_s + 1.0
    watch.shown(now_s, [talk.words[0].text, talk.words[0].text, " nonsense", f" w{len(talk.words)}"], "")
    taken = watch.take(talk.words[2].end_s)
    assert [word.completed_s is not None for word in taken] == [True, False, False]
    assert (watch.n_doubled, watch.n_strange) == (1, 2)
    watch.shown(now_s, [talk.words[1].text], "")
    assert watch.n_strange == 3


def test_equal_words_of_later_rounds_are_told_apart(talk: Talk) -> None:
    watch = WordWatch(talk, start_s=0.0)
    word = talk.words[0]
    for number in range(3):
        watch.shown(number * talk.duration_s + word.end_s + 1.0, [word.text], "")
    taken = [each for each in watch.take(3 * talk.duration_s) if each.said.number == 0]
    assert [each.completed_after_s for each in taken] == pytest.approx([1.0, 1.0, 1.0])
    assert watch.n_doubled == 0
