"""bench.live with its own server: options, documents, exit codes."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from bench.corpus import LABELS, NONSTOP_S, load_corpus
from bench.live import main
from bench.offline import CACHE, read_cache
from bench.report import SCHEMA
from bench.servers import ADMITTED_CLIENTS, GivenServer, OwnServer, ServerUnderTest
from realtime.demo import SAMPLES


def test_a_short_run_counts_every_word(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = f"-n 2 --labels {SAMPLES} --audio hello_en.wav --seconds 1 --spread-s 0.2 --json --output {tmp_path}/o.json"
    code = main(line.split())
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((tmp_path / "o.json").read_text())
    assert (document["schema"], document["kind"]) == (SCHEMA, "live")
    assert str(tmp_path) not in document["command"]
    results = document["results"]
    summary = results["summary"]
    assert summary["words"] > 4
    assert (summary["right_final"], summary["wer"], summary["missing_tail"], summary["mutated"]) == (1.0, 0.0, 0, 0)
    assert summary["final"]["n"] == summary["words"]
    assert results["ledger"]["received"] == summary["sent_samples"] > 0
    assert (results["ledger"]["unaccounted"], results["ledger"]["not_received"]) == (0, 0)
    assert results["server"]["cpu_per_audio_s"] > 0
    assert results["server"]["peak_rss_bytes"] > 50 * 2**20
    # A busy machine may make the driver late; then the run has to say so.
    assert (code == 0) is summary["is_valid"] is (not summary["void_because"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-n 0", f"--clients: 0 is not allowed; legal: 1 to {ADMITTED_CLIENTS}"),
        (f"-n {ADMITTED_CLIENTS + 1}", f"1 to {ADMITTED_CLIENTS}"),
        ("--chunk-ms 9", "10 to 1000"),
        ("--chunk-ms 1001", "10 to 1000"),
        ("--chunk-ms some", "mixed, or 10 to 1000"),
        ("--seconds nan", "--seconds"),
        ("--spread-s -1", "--spread-s"),
        ("--linger-s -1", "--linger-s"),
        ("--drivers 0", "1 to 64"),
        ("--audio nowhere", "en_calm_0"),
        ("--language de", "--language: 'de'"),
        ("--labels nowhere.json", "labels: 'nowhere.json'"),
        ("ws://127.0.0.1:1 --option same_output_threshold", "KEY=VALUE"),
        ("ws://127.0.0.1:1 --offline nowhere.json", "offline: 'nowhere.json'"),
    ],
)
def test_refusals_are_one_line(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_a_server_that_is_not_there_voids_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["ws://nowhere.invalid:1", "-n", "1", "--seconds", "1", "--language", "es"]) == 1
    assert "void: client 0: cannot connect to ws://nowhere.invalid:1" in capsys.readouterr().out


def test_every_language_has_a_stretch_without_pauses_and_offline_texts() -> None:
    corpus = asyncio.run(load_corpus(LABELS))
    assert sorted(corpus.pools) == ["en", "es"]
    for pool in corpus.pools.values():
        assert pool.nonstop is not None
        assert pool.nonstop.duration_s >= NONSTOP_S
        words = pool.nonstop.words
        assert all(after.start_s - before.end_s <= 0.201 for before, after in itertools.pairwise(words))
    # If this fails, recordings or model have changed: run `python -m bench.offline`.
    assert set(read_cache(CACHE, corpus.audio)) == set(corpus.audio)


def test_servers_have_the_shape_that_runs_expect() -> None:
    servers: list[ServerUnderTest] = [OwnServer(), GivenServer("ws://host:1", pids=[1], options={"use_vad": False})]
    assert [server.name for server in servers] == ["realtime", "given"]
    assert (servers[1].url, servers[1].health_url, tuple(servers[1].pids)) == ("ws://host:1", None, (1,))
    assert servers[1].options == {"use_vad": False}
