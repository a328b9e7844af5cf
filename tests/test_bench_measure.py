"""bench.measure, report and tables: figures that can be checked by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from rich.console import Console

from bench.clients import ClientPlan, RawStream
from bench.expect import Expected
from bench.load import LoadResult
from bench.measure import (
    LATE_S,
    MAX_OWN_LATENESS_S,
    Spread,
    StreamFigures,
    measure_stream,
    spread,
    summarise,
)
from bench.playlist import Piece, Playlist
from bench.report import SCHEMA, document, load_section, machine_facts, result_path, write_document
from bench.resources import ResourceUse
from bench.server_metrics import Ledger, queue_figures
from bench.stability import Churn
from bench.tables import print_load
from engine.wer import WordErrors
from realtime.client.latency import GoldWord, Recording

WORDS = tuple(GoldWord(word, n, n + 0.5) for n, word in enumerate(("good", "morning", "dear", "peter")))
SPOKEN = Recording(Path("r.wav"), "en", 4.0, "Good morning dear Peter", WORDS)
PLAN = ClientPlan(
    Playlist("client 0", "en", (Piece(0, SPOKEN, 0, 64_000, range(4)),), WORDS, tuple(("r", n) for n in range(4))),
    1_024,
)


def frame(at_s: float, completed: str = "", provisional: str = "") -> tuple[float, str]:
    segments = [
        {"start": "0.000", "end": "1.000", "text": text, "completed": done}
        for text, done in ((completed, True), (provisional, False))
        if text
    ]
    return at_s, json.dumps({"segments": segments})


FRAMES = (
    frame(101.0, provisional="good"),
    frame(102.5, provisional="good morning"),
    frame(103.0, "good mourning dear"),
)
RAW = RawStream("client 0", FRAMES, start_s=100.0, sent_samples=64_000, blocked_s=0.1, finish_s=0.3)
OFFLINE = Expected((True, True, True, False), 1)


def measured(
    own_lateness_s: float = 0.0, error: str | None = None, offline: Expected | None = OFFLINE
) -> StreamFigures:
    return measure_stream(PLAN, replace(RAW, own_lateness_s=own_lateness_s, error=error), offline)


def test_a_stream_by_hand() -> None:
    figures = measured()
    assert (figures.words, figures.shown, figures.final, figures.missing_tail) == (4, 3, 2, 1)
    # "mourning" covers "morning", which was shown before; "peter" is not expected.
    assert (figures.expected, figures.covered_shown, figures.covered_final) == (3, 3, 3)
    assert (figures.errors, figures.offline_errors) == (WordErrors(1, 1, 0, 4), 1)
    # good ends at 100.5, morning at 101.5, dear at 102.5.
    assert figures.shown_after_s == pytest.approx((0.5, 1.0, 0.5))
    assert figures.final_after_s == pytest.approx((2.5, 0.5))
    # Pauses of half a second: each word begins an utterance, the audio ends the only turn.
    assert figures.first_partial_s[:3] == pytest.approx((1.0, 1.5, 1.0))
    assert figures.first_partial_s[3:] == (None,)
    assert figures.end_to_final_s == (None,)
    assert figures.ttfs_s == pytest.approx((-0.5,))
    assert figures.stability.normalised == Churn(1, 1, 3)
    assert (figures.language, figures.chunk_ms, figures.audio_s) == ("en", 64.0, 4.0)


def test_without_offline_transcripts_every_word_is_expected() -> None:
    figures = measured(offline=None)
    assert (figures.expected, figures.covered_shown, figures.covered_final, figures.offline_errors) == (4, 3, 3, None)
    summary = summarise([figures, measured()])
    assert (summary.offline_wer, summary.wer_gap) == (None, None)
    assert summary.coverage_final == 6 / 7


def test_a_word_that_was_shown_and_lost_is_covered_on_the_screen_only() -> None:
    frames = (frame(101.0, provisional="good morning"), frame(103.0, "good dear peter"))
    figures = measure_stream(PLAN, replace(RAW, frames=frames))
    assert (figures.shown, figures.final) == (4, 3)
    assert (figures.covered_shown, figures.covered_final) == (4, 3)


@pytest.mark.parametrize(
    ("completed", "tail"),
    [("good morning dear peter", 0), ("morning dear", 1), ("good", 3), ("", 4), ("peter", 0), ("bad", 4)],
)
def test_missing_tail(completed: str, tail: int) -> None:
    assert measure_stream(PLAN, replace(RAW, frames=(frame(110, completed),))).missing_tail == tail


def test_what_the_server_said_explains_a_broken_stream() -> None:
    full = replace(RAW, frames=((101.0, '{"status": "WAIT", "message": 1.0}'),), error="code 1013")
    assert measure_stream(PLAN, full).error == "the server is full (try again in 1.0 min)"
    assert measured(error="code 1006").error == "code 1006"


def test_spread() -> None:
    assert spread([float(n) for n in range(1, 101)]) == Spread(100, 50.0, 95.0, 100.0)
    assert spread([None, 2.0, None]) == Spread(1, 2.0, 2.0, 2.0, absent=2)
    assert spread([]) == Spread(0, None, None, None)


def test_summary_pools_words_and_adds_errors() -> None:
    silent = measure_stream(PLAN, RawStream("client 1", error="no"), OFFLINE)
    summary = summarise([measured(), silent])
    assert (summary.streams, summary.words, summary.audio_s, summary.sent_samples) == (2, 8, 8.0, 64_000)
    assert (summary.right_shown, summary.right_final) == (3 / 8, 2 / 8)
    assert (summary.coverage_shown, summary.coverage_final) == (3 / 6, 3 / 6)
    assert (summary.wer, summary.offline_wer, summary.wer_gap) == (6 / 8, 2 / 8, 4 / 8)
    assert (summary.missing_tail, summary.broken) == (5, 1)
    assert (summary.final.n, summary.final.p50_s, summary.final.max_s) == pytest.approx((2, 0.5, 2.5))
    assert (summary.end_to_final.n, summary.end_to_final.absent) == (0, 2)
    assert summary.void_because == ("client 1: no",)
    assert not summary.is_valid


def test_the_driver_may_be_late_by_its_limit_and_no_more() -> None:
    in_time = summarise([measured(MAX_OWN_LATENESS_S)])
    assert in_time.is_valid
    assert not in_time.is_driver_late
    late = summarise([measured(), measured(MAX_OWN_LATENESS_S + 0.001)])
    assert late.void_because == ("the driver itself was 51 ms late (limit 50 ms)",)
    assert late.is_driver_late


def test_a_run_without_streams_is_void() -> None:
    assert summarise([]).void_because == ("no stream was run",)


def test_a_word_is_late_after_three_seconds_and_not_at_them() -> None:
    stream = replace(measured(), shown_after_s=(0.5, LATE_S, LATE_S + 0.001), final_after_s=(LATE_S,))
    summary = summarise([stream])
    assert (summary.shown_late, summary.final_late) == (1, 0)


def load_result(*, is_known: bool = True) -> LoadResult:
    streams = (measured(),)
    metrics = {("stt_batch_size_sum", "job_class=final"): 6.0, ("stt_batch_size_count", "job_class=final"): 3.0}
    return LoadResult(
        summarise(streams),
        streams,
        5.0,
        0.04,
        ResourceUse(5.0, 1.0, 2**21, 7) if is_known else None,
        queue_figures({}, metrics, 5.0) if is_known else None,
        Ledger(64_000, 60_000, 4_000, 0, 0, 0) if is_known else None,
    )


def test_a_document_holds_everything_once() -> None:
    made = document("live", {"clients": 1}, load_section(load_result()), command="python -m bench.live -n 1")
    json.dumps(made, allow_nan=False)
    assert (made["schema"], made["kind"], made["conditions"]) == (SCHEMA, "live", {"clients": 1})
    results = made["results"]
    assert results["summary"]["is_valid"] is True
    assert results["summary"]["final"]["n"] == 2
    assert results["summary"]["upwr"] == pytest.approx(1 / 3, abs=1e-6)
    assert results["server"]["cpu_per_audio_s"] == 0.25
    assert results["ledger"]["unaccounted"] == 0
    assert results["queue"]["batch_size"] == {"final": 2.0}
    (stream,) = results["streams"]
    assert stream["shown_after_s"]["n"] == 3
    assert stream["end_to_final_s"] == {"n": 0, "p50_s": None, "p95_s": None, "max_s": None, "absent": 1}
    assert stream["wer"] == 0.5


def test_what_was_not_measured_is_null() -> None:
    results = load_section(load_result(is_known=False), with_streams=False)
    assert (results["server"], results["queue"], results["ledger"]) == (None, None, None)
    assert "streams" not in results


def test_machine_facts_hold_no_path_and_no_name() -> None:
    facts = machine_facts()
    text = json.dumps(facts)
    assert facts["cores"] >= 1
    assert facts["packages"]["numpy"]
    assert str(Path.cwd()) not in text
    assert "/root" not in text


def test_documents_are_named_by_kind_and_day(tmp_path: Path) -> None:
    path = result_path("live", ".json", tmp_path / "new", datetime(2026, 1, 2, tzinfo=timezone.utc))
    assert path.name == "live-2026-01-02.json"
    write_document(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("is_known", [True, False])
def test_the_tables_say_what_was_measured(is_known: bool) -> None:
    text = io.StringIO()
    print_load(load_result(is_known=is_known), Console(file=text, width=160))
    shown = text.getvalue()
    assert "word final, after its end" in shown
    assert "UPWR 0.333" in shown
    assert ("0.250 CPU s per audio s" in shown) is is_known
    assert ("Queue, final: batch 2.00" in shown) is is_known
    assert ("received 64000 = decoded 60000" in shown) is is_known
