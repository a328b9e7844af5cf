"""bench.files: long files, figures, ratios, verdicts, and the order of rounds."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bench.audio import SharedAudio
from bench.corpus import Corpus
from bench.files import interleaved, main, way_options
from bench.files_corpus import write_long_file
from bench.files_report import (
    ACCURATE,
    ACCURATE_ALONE,
    ALONE,
    BATCHED,
    FAST,
    MAX_YARDSTICK_WER,
    SEQUENTIAL,
    Round,
    WayFigures,
    print_files,
    ratio,
    sequential_yardstick,
    verdicts,
)
from bench.playlist import Pool
from bench.worker_options import WORKER_OPTIONS
from engine.types import SAMPLE_RATE_HZ, SearchOptions
from engine.wer import WordErrors
from realtime.client.latency import GoldWord, Recording


def figures(cpu_s: Sequence[float], errors: int = 0, wall_s: Sequence[float] | None = None) -> WayFigures:
    rounds = tuple(Round(wall, cpu, 5_000_000) for cpu, wall in zip(cpu_s, wall_s or cpu_s, strict=True))
    return WayFigures(rounds, WordErrors(substitutions=errors, reference_words=1_000), 7, {"model": 1.25})


def small_corpus() -> Corpus:
    samples = np.array([0.5, -1.0, 1.0] * SAMPLE_RATE_HZ, dtype=np.float32)
    words = (GoldWord("one", 0.2, 0.6), GoldWord("two", 1.4, 2.0))
    recording = Recording(Path("a.flac"), "en", len(samples) / SAMPLE_RATE_HZ, "One two.", words)
    audio = {recording: samples}
    return Corpus({"en": Pool((recording,))}, audio, SharedAudio(audio))


def test_a_long_file_is_what_its_reference_says(tmp_path: Path) -> None:
    made = write_long_file(small_corpus(), "en", 10.0, 1, tmp_path / "long.wav")
    again = write_long_file(small_corpus(), "en", 10.0, 1, tmp_path / "again.wav")
    with wave.open(str(made.path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE_HZ)
        assert file.getnframes() == round(made.audio_s * SAMPLE_RATE_HZ) >= 10 * SAMPLE_RATE_HZ
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    assert made.path.read_bytes() == again.path.read_bytes()
    # Full scale does not wrap around.
    assert set(np.unique(samples).tolist()) <= {-32_768, 0, 16_384, 32_767}
    assert set(made.reference.split()) == {"one", "two"}
    assert made.words == len(made.reference.split()) >= 6


def test_every_way_is_in_every_round_and_first_in_turn() -> None:
    assert interleaved(("a", "b", "c"), 4) == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("a", "b", "c")]


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    slow, quick = figures([10.0, 30.0, 10.0], wall_s=[8.0, 8.0, 8.0]), figures([5.0, 10.0, 4.0], wall_s=[4.0] * 3)
    assert ratio(slow, quick, on_gpu=False) == pytest.approx(2.5)
    assert ratio(slow, quick, on_gpu=True) == pytest.approx(2.0)


def test_a_way_that_leaves_words_out_is_no_yardstick() -> None:
    limit = round(1_000 * MAX_YARDSTICK_WER)
    good, bad = figures([9.0], limit - 1), figures([4.0], limit)
    assert sequential_yardstick({SEQUENTIAL: good, ALONE: good}) == SEQUENTIAL
    assert sequential_yardstick({SEQUENTIAL: bad, ALONE: good}) == ALONE
    assert sequential_yardstick({SEQUENTIAL: bad, ALONE: bad}) is None


@pytest.mark.parametrize(
    ("fast_s", "errors", "met"),
    [
        (6.0, 15, [True, True, True]),  # 9 / 6 and 15 against 10 + 5 errors: just met
        (6.1, 15, [False, True, True]),
        (6.0, 16, [True, True, False]),
        (8.5, 10, [False, False, True]),
    ],
)
def test_goals_at_their_limits(fast_s: float, errors: int, met: list[bool]) -> None:
    ways = {
        SEQUENTIAL: figures([7.0], 800),
        ALONE: figures([9.0], 10),
        BATCHED: figures([8.0], 50),
        FAST: figures([fast_s], errors),
    }
    assert [verdict.is_met for verdict in verdicts(ways, on_gpu=False)] == met


def test_accurate_is_shown_and_not_judged() -> None:
    ways = {SEQUENTIAL: figures([7.0], 800), ACCURATE: figures([9.0], 700), ACCURATE_ALONE: figures([9.0], 16)}
    assert verdicts(ways, on_gpu=False) == []


def test_what_was_not_run_is_not_judged() -> None:
    assert verdicts({SEQUENTIAL: figures([1.0])}, on_gpu=False) == []
    judged = verdicts({FAST: figures([1.0]), ACCURATE: figures([1.0])}, on_gpu=False)
    assert [verdict.is_met for verdict in judged] == [None] * 3


def test_the_table_fits_and_says_what_it_compares() -> None:
    ways = {
        SEQUENTIAL: figures([70.0, 70.0], 800),
        ALONE: figures([120.0, 110.0], 13),
        BATCHED: figures([100.0, 90.0], 55),
        FAST: figures([60.0, 50.0], 14),
        ACCURATE: figures([100.0, 90.0], 13),
    }
    out = io.StringIO()
    judged = verdicts(ways, on_gpu=False)
    print_files(ways, 600.0, Console(file=out, width=80), on_gpu=False, judged=judged)
    text = " ".join(out.getvalue().split())
    assert "ours, fast 1.4 55.00 55.00 11 2.10 1.73 5 7" in text
    assert "Sequential yardstick: same, no previous text" in text
    assert "met: fast: at least 1.5 times as fast as sequential: 2.10 times" in text
    assert "…" not in text


@pytest.mark.parametrize(
    "argv", [["--rounds", "0"], ["--rounds", "51"], ["--seconds", "9"], ["--seconds", "3601"], ["--cpu-threads", "257"]]
)
def test_wrong_arguments_are_refused_by_name(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert argv[0] in capsys.readouterr().err


def test_all_ways_get_the_same_threads_and_precision() -> None:
    from bench.files import _parser

    demo = way_options(_parser().parse_args([]))
    assert demo.arguments == ("--model", "demo", "--device", "cpu", "--compute-type", "int8", "--cpu-threads", "1")
    gpu = way_options(_parser().parse_args(["--device", "cuda", "--model", "turbo", "--cpu-threads", "256"]))
    assert (gpu.compute_type, gpu.cpu_threads) == ("float16", 256)


def test_our_search_is_the_peers() -> None:
    ours = SearchOptions(length_penalty=0.0)
    theirs = WORKER_OPTIONS
    assert (ours.beam_size, ours.best_of, ours.patience) == (theirs["beam_size"], theirs["best_of"], theirs["patience"])
    assert (ours.temperatures, ours.length_penalty) == (theirs["temperature"], theirs["length_penalty"])
    assert ours.compression_ratio_threshold == theirs["compression_ratio_threshold"]
    assert (ours.logprob_threshold, ours.no_speech_threshold) == (-1.0, theirs["no_speech_threshold"])
    assert list(ours.suppress_tokens) == theirs["suppress_tokens"]


def test_two_ways_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real processes, ten seconds of speech: no verdict on speed."""
    made = tmp_path / "files.json"
    argv = ["--seconds", "10", "--rounds", "1", "--ways", BATCHED, FAST, "--no-verdict", "--json", str(made)]
    assert main(argv) == 0
    document = json.loads(made.read_text(encoding="utf-8"))
    assert document["kind"] == "files" and document["conditions"]["cpu_threads"] == 1
    ways = document["results"]["ways"]
    assert set(ways) == {BATCHED, FAST}
    assert ways[FAST]["wer"] < 0.2 and ways[FAST]["cpu_s"] > 0 and ways[FAST]["peak_bytes"] > 0
    assert document["results"]["verdicts"] == []
    assert "ours, fast" in capsys.readouterr().out
