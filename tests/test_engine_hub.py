"""The real hub client: on caches made by hand, against a hub on loopback, and with no hub at all."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from engine.hub import LOG_STEP_PERCENT, MIN_LOGGED_BYTES, HuggingFaceHub, progress_bar
from engine.models import DEMO_MODEL_DIR
from tests.fakes.hf_hub import COMMIT, serve_hub
from tests.fakes.model_dirs import make_cache

ROOT = Path(__file__).resolve().parent.parent
REPO = "Systran/faster-whisper-small.en"


def test_names_are_those_of_faster_whisper() -> None:
    hub = HuggingFaceHub()
    assert {"tiny.en", "small.en", "turbo", "large-v3", "distil-large-v3"} <= set(hub.known_names())
    assert hub.repo_id("small.en") == REPO
    assert hub.repo_id("no-such-size") is None


def test_cached_snapshot_of_main(tmp_path: Path) -> None:
    hub = HuggingFaceHub()
    assert hub.cached(REPO, tmp_path) is None
    main = make_cache(tmp_path, REPO, "b" * 40)
    newer = make_cache(tmp_path, REPO, "c" * 40, main=False)
    os.utime(newer, (time.time() + 60, time.time() + 60))
    assert hub.cached(REPO, tmp_path) == main
    assert hub.cached("someone/else", tmp_path) is None


def test_cached_snapshot_without_main_is_the_newest(tmp_path: Path) -> None:
    """RunPod's host cache holds a pinned commit and no branch."""
    hub = HuggingFaceHub()
    for age_s, commit in ((30, "a" * 40), (0, "b" * 40), (60, "c" * 40)):
        path = make_cache(tmp_path, REPO, commit, main=False)
        os.utime(path, (1e9 - age_s, 1e9 - age_s))
    assert hub.cached(REPO, tmp_path) == tmp_path / "models--Systran--faster-whisper-small.en/snapshots" / ("b" * 40)
    (tmp_path / "models--Systran--faster-whisper-small.en/refs").mkdir()
    (tmp_path / "models--Systran--faster-whisper-small.en/refs/main").write_bytes(b"\xff\xfe gone")
    assert hub.cached(REPO, tmp_path) == tmp_path / "models--Systran--faster-whisper-small.en/snapshots" / ("b" * 40)


def test_the_cache_is_the_one_that_huggingface_hub_reads(tmp_path: Path) -> None:
    """Our reading of the layout against the library's."""
    from huggingface_hub import snapshot_download

    make_cache(tmp_path, REPO)
    theirs = snapshot_download(REPO, cache_dir=tmp_path, local_files_only=True)
    assert HuggingFaceHub().cached(REPO, tmp_path) == Path(theirs)


def run_resolve(tmp_path: Path, endpoint: str, **environ: str) -> tuple[str, str, float]:
    """Resolve `small.en` in a process of its own (the library reads its environment once).

    Returns stdout, stderr and the seconds it took.
    """
    script = f"""
        import logging, os, sys, time
        from pathlib import Path
        from engine.errors import ModelUnavailableError
        from engine.hub import HuggingFaceHub
        from engine.models import Places, resolve_model
        logging.basicConfig(level="INFO", format="%(message)s")
        root = Path({str(tmp_path)!r})
        places = Places(root / "runpod", (root / "volume",), root / "baked", root)
        hub = HuggingFaceHub()
        hub.known_names()
        began = time.monotonic()
        try:
            found = resolve_model("small.en", environ=os.environ, hub=hub, places=places)
            print(found.path)
        except ModelUnavailableError as error:
            print(error)
        print(time.monotonic() - began)
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    environment = {**clean, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, **environ}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    return lines[0], done.stderr, float(lines[1])


def test_download_from_a_hub_logs_its_progress(tmp_path: Path) -> None:
    with serve_hub(REPO, DEMO_MODEL_DIR) as endpoint:
        found, log, _ = run_resolve(tmp_path, endpoint)
        assert found == str(tmp_path / "hf/hub/models--Systran--faster-whisper-small.en/snapshots" / COMMIT)
        assert (Path(found) / "model.bin").read_bytes() == (DEMO_MODEL_DIR / "model.bin").read_bytes()
        assert f"{REPO}: 100 % of 14 MB" in log
        assert "\r" not in log and "|" not in log  # no bar in a log file
    again, log, _ = run_resolve(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert again == found
    assert "downloading" not in log


@pytest.mark.parametrize(
    ("status", "repo", "reason"),
    [
        (200, "someone/else", "the hub has no such model, or it is private"),
        (401, REPO, "HTTP status 401"),
        (503, REPO, "HTTP status 503"),
    ],
)
def test_refusals_of_a_hub(tmp_path: Path, status: int, repo: str, reason: str) -> None:
    with serve_hub(repo, DEMO_MODEL_DIR, status) as endpoint:
        message, _, _ = run_resolve(tmp_path, endpoint, HF_TOKEN="hf_do_not_show_this")
    assert reason in message
    assert message.startswith(f"model 'small.en' ({REPO}) is not available: looked in ")
    assert "127.0.0.1" not in message and "hf_do_not_show_this" not in message


@pytest.mark.parametrize(("offline", "reason"), [("0", "the hub cannot be reached"), ("1", "forbids the download")])
def test_no_hub_is_told_quickly(tmp_path: Path, offline: str, reason: str) -> None:
    message, _, seconds = run_resolve(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE=offline)
    assert reason in message
    assert seconds < 10.0


@pytest.mark.hub
@pytest.mark.skipif(os.environ.get("TEST_WITH_HUB") != "1", reason="needs a model hub; set TEST_WITH_HUB=1")
def test_download_from_the_real_hub(tmp_path: Path) -> None:
    path = HuggingFaceHub().download("Systran/faster-whisper-tiny.en", tmp_path)
    assert (path / "model.bin").stat().st_size > 1 << 20


def test_progress_bar_logs_each_step_once(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test_progress")
    total = MIN_LOGGED_BYTES
    with caplog.at_level(logging.INFO, log.name), progress_bar("a/b", log)(total=total, unit="B", desc="x") as bar:
        for _ in range(400):
            bar.update(total // 400)
        bar.update(total - bar.n)
    steps = [record.getMessage() for record in caplog.records]
    assert steps == [f"a/b: {percent} % of 10 MB" for percent in range(LOG_STEP_PERCENT, 101, LOG_STEP_PERCENT)]


@pytest.mark.parametrize(("total", "unit"), [(MIN_LOGGED_BYTES - 1, "B"), (5, "it"), (None, "B"), (0, "B")])
def test_progress_bar_keeps_quiet_about_small_things(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], total: int | None, unit: str
) -> None:
    log = logging.getLogger("test_progress")
    with caplog.at_level(logging.INFO, log.name), progress_bar("a/b", log)(total=total, unit=unit) as bar:
        bar.update(total or 1)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
