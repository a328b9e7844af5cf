"""The whole worker with its engine process: streaming, SIGTERM in the middle of a job, kill -9."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.decoding import is_running
from tests.fakes.runpod import LocalWorker, PlaneRules, QueuePlane, worker_environ
from tests.serving import DEMO

LIMIT_S = 30.0
LONG_POLL_S = 90.0
HELLO = "Hello, my name is Anna."


def inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def job_of(name: str, times: int = 1) -> dict[str, object]:
    return {"audio": [inline(DEMO / name)] * times, "beam_size": 20, "language": "en"}


def worker_of(plane: QueuePlane, name: str, **extra: str) -> LocalWorker:
    environ = {**worker_environ(plane, name), "WHISPER_MODEL": "demo", **extra}
    return LocalWorker((sys.executable, "-m", "handler"), environ)


@pytest.fixture
def plane() -> Iterator[QueuePlane]:
    with QueuePlane(rules=PlaneRules(hold_s=LONG_POLL_S)) as plane:
        yield plane


def family(pid: int) -> set[int]:
    """A process, its children and theirs: the engine has a session of its own, so the group does not show it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found, new = {pid}, [pid]
    while new:
        new = [child for each in new for child in parents.get(each, [])]
        found.update(new)
    return found


def test_sigterm_ends_a_busy_streaming_worker_and_its_engine(plane: QueuePlane) -> None:
    with worker_of(plane, "w1", HANDLER_STREAM="1") as worker:
        hello = plane.wait(plane.submit({"audio_base64": inline(DEMO / "samples" / "hello_en.wav")}), LIMIT_S)
        # Segments as they come, and the whole result last, for /runsync as well as for /stream.
        assert [chunk["output"] for chunk in hello.chunks] == hello.output
        assert hello.output[0]["segments"][0]["text"] == f" {HELLO}"
        assert hello.output[-1]["transcription"] == HELLO and hello.output[-1]["model"] == "demo"
        everyone = family(worker.process.pid)
        assert len(everyone) >= 3  # the worker, its heartbeat and its engine
        job_id = plane.submit(job_of("speech/en_brisk_1.flac", times=20))
        plane.wait_until(lambda: plane.job(job_id).chunks, "the first words", LIMIT_S)
        status, took_s = worker.terminate()
        assert (status, took_s < 8.0) == (0, True), took_s
        plane.wait_until(lambda: not any(map(is_running, everyone)), "all of them gone", 2.0)
        job = plane.job(job_id)
        assert (job.status, job.output["error_code"], job.output["retryable"]) == ("FAILED", "draining", True)


def test_nothing_of_a_killed_worker_lives_on(plane: QueuePlane) -> None:
    """Not the heartbeat, or the job would never go to another worker; not the engine, which holds the GPU."""
    with worker_of(plane, "w1") as worker:
        job_id = plane.submit(job_of("samples/meeting_en.wav", times=20))
        plane.wait_until(lambda: plane.job(job_id).status == "IN_PROGRESS", "running", LIMIT_S)
        everyone = family(worker.process.pid)
        assert len(everyone) >= 3
        worker.kill()
        plane.wait_until(lambda: not any(map(is_running, everyone)), "all of them gone", 2.0)
