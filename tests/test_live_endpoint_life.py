"""An endpoint's whole life: deployed by command, real workers take its jobs, one is killed, no recording is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.wer import WordErrors, word_errors
from tests.fakes.runpod.clock import RealPlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.local_workers import LocalWorkers
from tests.serving import DEMO, label, labels

ROOT = Path(__file__).parent.parent
RECORDINGS = [*[entry["file"] for entry in labels()][:11], "es_calm_0.flac"]
DEADLINE_S = 120.0
MAX_WER, MAX_TOTAL_WER = 0.05, 0.02
"""What the demo model gets wrong of one recording and of all: a lost or doubled piece would be far more."""


class Shell:
    """Commands as processes of their own, in one folder."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.folder = folder
        self._environ = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(folder),
            "WHISPER_MODEL": "demo",
            **plane.environ(),
        }
        self.shown = ""

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A command that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "builder", *argv],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """Its standard output; it must end with `code`."""
        out, err = process.communicate(timeout=DEADLINE_S)
        self.shown += out + err
        assert process.returncode == code, f"{process.args!r} ended with {process.returncode}:\n{out}\n{err}"
        return out

    def __call__(self, *argv: str, code: int = 0) -> str:
        """Standard output of one command, which must end with `code`."""
        return self.finish(self.start(*argv), code)


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(RealPlaneClock()) as plane:
        yield plane


@pytest.fixture
def workers(plane: ControlPlane) -> Iterator[LocalWorkers]:
    with LocalWorkers(plane) as workers:
        yield workers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name in RECORDINGS:
        shutil.copy(DEMO / ("speech" if name.endswith(".flac") else "samples") / name, folder)
    return folder


def kill_a_busy_worker(plane: ControlPlane, workers: LocalWorkers, endpoint_id: str) -> str:
    """Wait until a recording is in work and others are done, and kill who works on it; returns the job."""
    store = plane.endpoints.queues[endpoint_id].store
    ends_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < ends_s:
        jobs = [job for job in list(store.jobs.values()) if "audio_base64" in str(job.request)[:4000]]
        busy = [job for job in jobs if job.status == "IN_PROGRESS" and job.worker in workers.pids()]
        if busy and any(job.status == "COMPLETED" for job in jobs[1:]):
            worker = busy[0].worker
            assert worker is not None
            workers.kill(worker)
            return busy[0].id
        time.sleep(0.01)
    raise AssertionError("no worker was ever busy")


def test_twelve_recordings_survive_a_killed_worker(
    plane: ControlPlane, workers: LocalWorkers, folder: Path, tmp_path: Path
) -> None:
    shell = Shell(plane, tmp_path)
    shell("deploy", "endpoint", "--image", "you/whisper:abc1234", "--workers-max", "2", "--yes")
    endpoint_id = json.loads((tmp_path / "artifacts" / "endpoint.json").read_text())["endpoint_id"]
    canaries = len(plane.endpoints.queues[endpoint_id].store.jobs)

    transcribing = shell.start("transcribe", str(folder), "--format", "srt,json", "--yes", "--json")
    killed = kill_a_busy_worker(plane, workers, endpoint_id)
    document: dict[str, Any] = json.loads(shell.finish(transcribing))

    jobs = list(plane.endpoints.queues[endpoint_id].store.jobs.values())[canaries:]
    assert len(jobs) == len(RECORDINGS), "a recording was sent twice, or never"
    assert {job.status for job in jobs} == {"COMPLETED"}
    assert next(job for job in jobs if job.id == killed).runs == 2
    total = WordErrors()
    for name in RECORDINGS:
        written = json.loads((folder / name).with_suffix(".json").read_text(encoding="utf-8"))
        said = " ".join(segment["text"].strip() for segment in written["segments"])
        counted = word_errors(label(name)["text"], said)
        assert counted.rate <= MAX_WER, f"{name}: {said}"
        total += counted
        assert (folder / name).with_suffix(".srt").read_text(encoding="utf-8").startswith("1\n")
    assert total.rate <= MAX_TOTAL_WER
    print(f"{len(RECORDINGS)} recordings, {total.reference_words} words, {total.rate:.1%} wrong")
    assert len(document["files"]) == len(RECORDINGS)

    shell("endpoint", "scale", "--zero", "--yes")
    shell("endpoint", "delete", "--yes")
    plane.assert_no_leaks()
    for secret in (plane.api_key,):
        assert secret not in shell.shown
