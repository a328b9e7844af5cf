"""How a worker ends: on SIGTERM with exit status 0 within 8 s and no job lost, on SIGKILL without leftovers."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from handler.sdk_shutdown import CUT_S
from tests.fakes.runpod import LocalWorker, PlaneRules, QueuePlane, worker_environ

SCRIPTED = (sys.executable, "-m", "tests.handlers.scripted")
EXIT_LIMIT_S = 8.0
SLOW_IMPORTS = """
import sys
import time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "engine":
            time.sleep(60)

sys.meta_path.insert(0, Slow())
"""


@dataclass
class Scene:
    """A plane that holds polls for 90 s, and workers on it."""

    plane: QueuePlane
    stack: ExitStack

    def worker(self, name: str = "w1", arguments: tuple[str, ...] = (), **extra: str) -> LocalWorker:
        environ = worker_environ(self.plane, name)
        return self.stack.enter_context(LocalWorker((*SCRIPTED, *arguments), {**environ, **extra}))

    def polling(self, worker: str = "w1") -> None:
        """Wait until the worker's poll is open."""
        polls = self.plane.requests
        self.plane.wait_until(
            lambda: [each for each in polls("job-take") if each["worker"] == worker and each["status"] is None],
            "polling",
            20,
        )

    def begin(self, **script: object) -> str:
        job_id = self.plane.submit(script)
        self.plane.wait_until(lambda: self.plane.job(job_id).status == "IN_PROGRESS", "in progress", 20)
        return job_id


@contextmanager
def a_scene(**rules: float) -> Iterator[Scene]:
    with ExitStack() as stack:
        plane = stack.enter_context(QueuePlane(rules=PlaneRules(hold_s=90.0, **rules)))  # type: ignore[arg-type]
        yield Scene(plane, stack)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with a_scene() as scene:
        yield scene


@dataclass
class Busy:
    """A worker that was told to end while it had one job too long for the time left, and one that is not."""

    scene: Scene
    worker: LocalWorker
    long: str
    short: str
    told_s: float


@dataclass
class Stuck:
    """A worker that was told to end while the platform took no result."""

    worker: LocalWorker
    told_s: float


@pytest.fixture(scope="module", autouse=True)
def slow_ends() -> Iterator[tuple[Busy, Stuck]]:
    """Begun before the other tests, looked at after them: these ends take more than seven seconds."""
    with a_scene() as scene, a_scene() as deaf:
        worker, stuck = scene.worker(), deaf.worker()
        long, short = scene.begin(sleep_s=60), scene.begin(sleep_s=1.5)
        scene.plane.wait_until(lambda: f"running {short}" in worker.log(), "begun")
        worker.process.send_signal(signal.SIGTERM)
        busy = Busy(scene, worker, long, short, time.monotonic())
        deaf.plane.faults.always("job-done", 503)
        job_id = deaf.begin()
        deaf.plane.wait_until(lambda: deaf.plane.requests("job-done", job_id), "posted")
        stuck.process.send_signal(signal.SIGTERM)
        yield busy, Stuck(stuck, time.monotonic())


def test_an_idle_worker_ends_at_once_though_its_polls_are_held_for_90_s(scene: Scene) -> None:
    worker = scene.worker()
    scene.polling()
    worker.process.send_signal(signal.SIGTERM)
    scene.plane.wait_until(lambda: "worker ends" in worker.log(), "told")
    status, took_s = worker.terminate()  # said twice, it is one end
    assert (status, worker.group()) == (0, []) and took_s < 3.0
    assert "Traceback" not in worker.log()


def test_a_job_that_the_last_poll_brings_is_given_back(scene: Scene) -> None:
    worker = scene.worker()
    scene.polling()
    worker.process.send_signal(signal.SIGTERM)
    scene.plane.wait_until(lambda: "worker ends" in worker.log(), "told")
    job = scene.plane.wait(scene.plane.submit({"echo": 1}), 5.0)
    assert (job.status, job.runs, job.output) == ("FAILED", 1, {"error_code": "draining", "retryable": True})
    assert worker.process.wait(EXIT_LIMIT_S) == 0
    # Whoever comes when the poll is over waits for another worker.
    job_id = scene.plane.submit({"echo": 2})
    time.sleep(0.1)
    assert scene.plane.job(job_id).status == "IN_QUEUE"


def test_a_job_that_was_taken_as_the_signal_came_is_answered(scene: Scene) -> None:
    worker = scene.worker()
    scene.polling()
    ids = [scene.plane.submit({"sleep_s": 0.3}) for _ in range(3)]
    scene.plane.wait_until(lambda: scene.plane.job(ids[0]).runs, "taken")
    worker.process.send_signal(signal.SIGINT)
    taken = [job_id for job_id in ids if scene.plane.job(job_id).runs]
    for job_id in taken:
        job = scene.plane.wait(job_id, 5.0)
        assert job.status == "COMPLETED" or job.output == {"error_code": "draining", "retryable": True}
    assert worker.process.wait(EXIT_LIMIT_S) == 0
    assert all(scene.plane.job(job_id).status in ("IN_QUEUE", "COMPLETED", "FAILED") for job_id in ids)


def test_a_signal_during_the_first_imports_ends_with_0_as_well(scene: Scene, tmp_path: Path) -> None:
    """A signal that is not caught would kill, or not even be heard by the first process of a container."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORTS)
    environ = {**worker_environ(scene.plane), "PYTHONPATH": str(tmp_path), "WHISPER_MODEL": "demo"}
    with LocalWorker((sys.executable, "-m", "handler"), environ) as worker:
        scene.plane.wait_until(lambda: worker.catches(signal.SIGTERM), "listening")
        status, took_s = worker.terminate()
        assert (status, worker.log()) == (0, "") and took_s < 2.0


def test_a_signal_while_the_model_loads_ends_with_0(scene: Scene) -> None:
    worker = scene.worker(SCRIPT_LOAD_S="60")
    scene.plane.wait_until(lambda: "fitness check" in worker.log(), "loading", 20)
    status, took_s = worker.terminate()
    assert status == 0 and took_s < 1.0 and scene.plane.requests("job-take") == []


def test_a_model_that_cannot_be_had_makes_the_worker_unhealthy(scene: Scene) -> None:
    worker = scene.worker(SCRIPT_CHECK="fail")
    assert worker.process.wait(20) == 1 and worker.group() == []
    (told,) = scene.plane.store.unhealthy
    assert told["check"] == "engine_decodes" and "model 'nope' cannot be had" in told["reason"]
    assert "model 'nope' cannot be had" in worker.log() and scene.plane.requests("job-take") == []


def test_an_engine_that_is_down_for_good_ends_the_worker_with_70(scene: Scene) -> None:
    worker = scene.worker(SCRIPT_FATAL_S="0.1")
    assert worker.process.wait(20) == 70
    assert "the engine is down: the engine keeps failing" in worker.log()


def test_the_end_of_the_engines_loop_ends_the_worker_with_70_and_answers_its_jobs(scene: Scene) -> None:
    """With the debugging flag, under which the SDK by itself would lose the results of failed jobs."""
    worker = scene.worker(arguments=("--rp_debugger",))
    failed = scene.plane.wait(scene.plane.submit({"answer": {"error": "no"}}), 20)
    assert (failed.status, failed.error, failed.output) == ("FAILED", "no", None)
    assert "--rp_debugger is left out" in worker.log()
    neighbour = scene.begin(sleep_s=60)
    scene.plane.wait_until(lambda: f"running {neighbour}" in worker.log(), "begun")
    ids = [neighbour, scene.plane.submit({"ends_loop": True})]
    for job_id in ids:
        job = scene.plane.wait(job_id, 5.0)
        assert (job.status, job.output["retryable"]) == ("FAILED", True)
    assert worker.process.wait(EXIT_LIMIT_S) == 70 and worker.group() == []
    assert "the engine's loop has ended" in worker.log() and "Traceback" not in worker.log()


def test_after_a_kill_nothing_goes_on_and_another_worker_does_the_job() -> None:
    with a_scene(heartbeat_limit_s=1.6) as scene:
        first = scene.worker("w1")
        job_id = scene.begin(sleep_s=2.0)
        scene.plane.wait_until(
            lambda: [ping for ping in scene.plane.requests("ping") if job_id in ping["query"].get("job_id", "")],
            "pinged",
        )
        second = scene.worker("w2")
        assert len(first.group()) == 2
        first.kill()
        scene.plane.wait_until(lambda: first.group() == [], "gone", 2.0)
        n_pings = len([ping for ping in scene.plane.requests("ping") if ping["worker"] == "w1"])
        job = scene.plane.wait(job_id, 15.0)
        assert (job.status, job.worker, job.retries, job.runs) == ("COMPLETED", "w2", 1, 2)
        assert len([ping for ping in scene.plane.requests("ping") if ping["worker"] == "w1"]) == n_pings
        assert second.process.poll() is None


def test_a_busy_worker_finishes_what_it_can_and_gives_the_rest_back(slow_ends: tuple[Busy, Stuck]) -> None:
    busy, _ = slow_ends
    status = busy.worker.process.wait(EXIT_LIMIT_S)
    plane = busy.scene.plane
    short, long = plane.job(busy.short), plane.job(busy.long)
    assert status == 0 and (short.status, short.output) == ("COMPLETED", {"echo": None})
    assert (long.status, long.output) == ("FAILED", {"error_code": "draining", "retryable": True})
    (entry,) = plane.requests("job-done", busy.long)
    assert CUT_S - 0.5 < entry["at_s"] - busy.told_s < EXIT_LIMIT_S
    assert json.loads(entry["body"])["error"] and f"cancelled {busy.long}" in busy.worker.log()
    assert busy.worker.group() == [] and "Traceback" not in busy.worker.log()


def test_a_worker_that_cannot_hand_over_ends_in_time_all_the_same(slow_ends: tuple[Busy, Stuck]) -> None:
    _, stuck = slow_ends
    assert stuck.worker.process.wait(max(0.0, stuck.told_s + EXIT_LIMIT_S - time.monotonic())) == 0
    assert "could not be handed over" in stuck.worker.log()
