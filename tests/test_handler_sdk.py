"""The parts around the SDK: its version and seams, its import, the two loops, polls, progress, posts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from engine.errors import ConfigError, DrainingError
from handler.bridge import EngineLoop
from handler.safe_json import to_safe
from handler.sdk_import import prepare_environ, quick_cpuinfo
from handler.sdk_jobs import Answer, draining_answer
from handler.sdk_post import SUSPECT_BYTES, ResultPoster, error_body
from handler.sdk_progress import ProgressSender
from handler.sdk_seams import KNOWN_VERSION, SEAMS, Sdk, check_sdk
from handler.sdk_take import MAX_STOPS, STOP_MEMORY_S, JobTaker
from tests.fakes.runpod import PlaneRules, QueuePlane

ROOT = Path(__file__).parent.parent
SOURCES = {
    "__init__.py": "7f820d01d8d8aae8",
    "modules/rp_scale.py": "42d855bb17ff46fb",
    "modules/rp_job.py": "46e51db31fc84da9",
    "modules/rp_http.py": "0da3784eecf5260b",
    "modules/rp_logger.py": "e015da598e6356af",
    "modules/rp_ping.py": "6db09105cd27cfa7",
    "modules/worker_state.py": "7b6da9f219d4368f",
}
"""The SDK's files that our functions stand in; who changes this list has read what changed in them."""


# The SDK itself


def test_the_sdk_is_the_one_whose_source_was_read() -> None:
    found = importlib.util.find_spec("runpod")
    assert found is not None and found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0]) / "serverless"
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in SOURCES} == SOURCES


def test_the_real_sdk_passes_its_check_is_imported_quickly_and_leaves_cpuinfo_alone() -> None:
    code = (
        "import time, sys, handler.worker; assert 'runpod' not in sys.modules; start = time.process_time()\n"
        "sdk = handler.worker.load_sdk(); took = time.process_time() - start\n"
        "import cpuinfo, os\n"
        "print(sdk.version, took < 1.0, hasattr(cpuinfo, '__file__'), os.environ['RUNPOD_LOG_LEVEL'])"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RUNPOD")}
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=environ, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().split() == ["1.12.0", "True", "True", "INFO"]


def sdk_like(version: str, without: str = "", other: str = "") -> Sdk:
    """A stand-in with the seams' names and parameters, one of them missing or changed."""
    modules: dict[str, Any] = {
        name: SimpleNamespace() for name in ("serverless", "scale", "job", "http", "logger", "state")
    }
    for seam, parameters in SEAMS.items():
        *owners, name = seam.split(".")
        target = modules[owners[0]]
        for owner in owners[1:]:
            if not hasattr(target, owner):
                setattr(target, owner, SimpleNamespace())
            target = getattr(target, owner)
        if seam != without:
            code = f"lambda {'surprise' if seam == other else parameters.strip('()')}: None"
            setattr(target, name, eval(code))
    return Sdk(version=version, **modules)


@pytest.mark.parametrize("version", ["1.12", "1.12.0", "1.12.9"])
def test_known_versions_pass(version: str) -> None:
    check_sdk(sdk_like(version))


@pytest.mark.parametrize("version", ["1.11.9", "1.13.0", "1.120.0", "2.0.0"])
def test_other_versions_stop_the_start(version: str) -> None:
    with pytest.raises(ConfigError, match=rf"runpod {version} is installed.*pip install 'runpod~={KNOWN_VERSION}\.0'"):
        check_sdk(sdk_like(version))


@pytest.mark.parametrize("seam", sorted(SEAMS))
def test_a_seam_that_moved_stops_the_start(seam: str) -> None:
    for sdk in (sdk_like("1.12.1", without=seam), sdk_like("1.12.1", other=seam)):
        with pytest.raises(ConfigError, match=f"{seam} changed"):
            check_sdk(sdk)


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, "INFO"),
        ({"RUNPOD_DEBUG_LEVEL": "ERROR"}, "ERROR"),
        ({"RUNPOD_LOG_LEVEL": "debug", "RUNPOD_DEBUG_LEVEL": "ERROR"}, "DEBUG"),
        ({"RUNPOD_LOG_LEVEL": "warning"}, "WARN"),
        ({"RUNPOD_LOG_LEVEL": "loud"}, "INFO"),
        ({"RUNPOD_LOG_LEVEL": ""}, "INFO"),
    ],
)
def test_log_levels_that_the_sdk_can_live_with(given: dict[str, str], level: str) -> None:
    prepare_environ(given)
    assert given["RUNPOD_LOG_LEVEL"] == level


@pytest.mark.parametrize(
    ("given", "used"), [("10000", "10000"), ("1000", "1000"), ("999", "1000"), ("-5", "10000"), ("often", "10000")]
)
def test_ping_intervals_that_the_sdk_can_live_with(given: str, used: str) -> None:
    environ = {"RUNPOD_PING_INTERVAL": given}
    prepare_environ(environ)
    assert environ["RUNPOD_PING_INTERVAL"] == used


def test_the_stand_in_for_cpuinfo_goes_again() -> None:
    before = sys.modules.get("cpuinfo")
    with quick_cpuinfo():
        assert isinstance(sys.modules["cpuinfo"].get_cpu_info()["brand_raw"], str)
    assert sys.modules.get("cpuinfo") is before


def test_an_answer_does_not_show_itself() -> None:
    answer = Answer(text="what was said")
    assert "said" not in f"{answer} {[answer]!r} { {'output': answer} }"
    assert json.loads(json.dumps(answer)) == {"text": "what was said"}


def test_an_error_is_split_as_the_sdk_splits_it() -> None:
    body = error_body(draining_answer())
    assert body["output"] == {"error_code": "draining", "retryable": True} and "shutting down" in body["error"]
    assert error_body({"error": "x"}) == {"error": "x"}


# Two loops


def test_what_runs_on_the_engines_loop_comes_back_with_result_or_error() -> None:
    async def name() -> str:
        return threading.current_thread().name

    async def broken() -> None:
        raise KeyError("here")

    async def scenario(loop: EngineLoop) -> None:
        assert await loop.call(name()) == "engine-loop"
        with pytest.raises(KeyError):
            await loop.call(broken())

    with EngineLoop() as loop:
        asyncio.run(scenario(loop))
        assert loop.run(name(), 5.0) == "engine-loop"
        with pytest.raises(concurrent.futures.TimeoutError):
            loop.run(asyncio.sleep(60), 0.05)
    with pytest.raises(DrainingError):
        loop.submit(name())


def test_cancelling_here_cancels_there_at_once() -> None:
    ended = threading.Event()

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    async def scenario(loop: EngineLoop) -> None:
        task = asyncio.create_task(loop.call(long()))
        await asyncio.sleep(0.05)
        began_s = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(ended.wait, 0.5)
        assert ended.is_set() and time.monotonic() - began_s < 0.5

    with EngineLoop() as loop:
        asyncio.run(scenario(loop))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_task_that_would_end_the_process_ends_alone(kind: type[BaseException]) -> None:
    async def ending() -> None:
        raise kind("mine")

    async def deep() -> None:
        await asyncio.gather(asyncio.create_task(ending()))

    ended = threading.Event()
    with EngineLoop() as loop:
        loop.when_ended(ended.set)
        neighbour = loop.submit(asyncio.sleep(0.05, "well"))
        for work in (ending(), deep()):
            with pytest.raises(kind):
                loop.run(work, 5.0)
        assert neighbour.result(5.0) == "well" and not ended.is_set()
    assert ended.wait(5.0)


def test_closing_ends_tasks_and_tells_what_is_stuck() -> None:
    cleaned = threading.Event()
    go_on = threading.Event()

    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    async def stuck() -> None:
        go_on.wait(10)

    loop = EngineLoop()
    loop.start()
    future = loop.submit(tidy())
    time.sleep(0.02)
    assert loop.close() and cleaned.is_set() and future.cancelled()
    loop = EngineLoop()
    loop.start()
    loop.submit(stuck())
    assert not loop.close(0.05)
    go_on.set()
    assert loop.close(5.0)
    assert EngineLoop().close()


# Asking for jobs


def a_taker(plane: QueuePlane, refused: list[str], in_hand: set[str] | None = None) -> JobTaker:
    async def stops(session: Any) -> list[str]:
        async with session.get(f"{plane.url}/job-stop/w1") as response:
            found: list[str] = (await response.json())["jobsToStop"] if response.status == 200 else []
            return found

    async def refuse(_session: Any, job: dict[str, Any]) -> None:
        refused.append(job["id"])

    held = in_hand if in_hand is not None else set()
    return JobTaker(
        lambda n: f"{plane.url}/job-take{'-batch' if n > 1 else ''}/w1?batch_size={n}", stops, refuse, lambda: held
    )


def session(plane: QueuePlane) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": plane.worker_key})


@pytest.mark.parametrize("status", [500, 404, 401, 400, 429, 204, 0])
def test_errors_and_hasty_answers_are_not_asked_about_again_and_again(status: int) -> None:
    async def scenario(plane: QueuePlane) -> None:
        async with session(plane) as client:
            taker = a_taker(plane, [])

            async def ask() -> None:
                while True:
                    await taker.take(client, 1)

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ask(), 0.35)
            await taker.settle()

    with QueuePlane(rules=PlaneRules(hold_s=0.0)) as plane:
        if status == 0:
            plane.faults.cut("job-take", 1_000)
        elif status != 204:
            plane.faults.always("job-take", status)
        asyncio.run(scenario(plane))
        # A cut connection is tried once more by the HTTP client itself.
        least, most = {0: (2, 6), 429: (1, 1)}.get(status, (2, 3))
        assert least <= len(plane.requests("job-take")) <= most


def test_odd_items_are_left_out_and_none_is_begun_twice() -> None:
    async def scenario(plane: QueuePlane) -> None:
        items = [
            {"id": "a"},
            {"id": "b", "input": 1},
            {"id": "a"},
            {"id": ""},
            {"id": 5},
            {"input": 1},
            7,
            None,
            {"id": "held"},
        ]
        plane.faults.status("job-take", 200, body=json.dumps(items))
        for body in ("<html>", "[" * 100_000):
            plane.faults.status("job-take", 200, body=body)
        async with session(plane) as client:
            taker = a_taker(plane, [], {"held"})
            assert await taker.take(client, 3) == [{"input": None, "id": "a"}, {"input": 1, "id": "b"}]
            for _ in range(2):
                assert await taker.take(client, 3) is None

    with QueuePlane() as plane:
        asyncio.run(scenario(plane))


def test_a_poll_outlives_the_one_who_waits_for_it_and_is_not_asked_twice() -> None:
    async def scenario(plane: QueuePlane) -> None:
        async with session(plane) as client:
            taker = a_taker(plane, [])
            for _ in range(3):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(taker.take(client, 2), 0.05)
            job_id = plane.submit({})
            jobs = await taker.take(client, 2)
            assert jobs is not None and [job["id"] for job in jobs] == [job_id]
            assert len(plane.requests("job-take")) == 1

    with QueuePlane(rules=PlaneRules(hold_s=90.0)) as plane:
        asyncio.run(scenario(plane))


def test_a_stop_overtakes_the_answer_that_brings_its_job() -> None:
    async def scenario(plane: QueuePlane) -> None:
        held: set[str] = set()
        async with session(plane) as client:
            taker = a_taker(plane, [], held)
            stopping = asyncio.create_task(taker.stop_signals(client))
            taking = asyncio.create_task(taker.take(client, 2))
            stopped, other = plane.submit({}), plane.submit({})
            await asyncio.to_thread(plane.wait_until, lambda: plane.job(other).runs, "taken")
            plane.cancel(stopped)
            # The platform says so once, while the answer is still on its way.
            assert not taking.done() and len(await taking or []) == 2
            held.update((stopped, other))
            # In hand, but not begun: the SDK would leave its slot taken.
            plane.cancel(other)
            await asyncio.sleep(0.1)
            assert not stopping.done()
            assert [taker.begins(stopped), taker.begins(other)] == [False, False]
            assert taker.begins(stopped)  # should it come again, it begins
            stopping.cancel()

    with QueuePlane(rules=PlaneRules(hold_s=90.0)) as plane:
        plane.faults.late("job-take", 0.3)
        asyncio.run(scenario(plane))


def test_stops_of_unknown_jobs_are_kept_for_a_while_and_only_so_many() -> None:
    names = [f"job-{number}" for number in range(MAX_STOPS + 1)]

    async def scenario(answers: list[list[str]]) -> None:
        async def stops(_session: Any) -> list[str]:
            return answers.pop(0) if answers else await asyncio.sleep(60, [])

        async def refuse(_session: Any, _job: dict[str, Any]) -> None:
            raise AssertionError

        taker = JobTaker(str, stops, refuse, lambda: {"begun"})
        assert await taker.stop_signals(None) == ["begun"]
        assert [taker.begins(name) for name in names] == [True] + [False] * MAX_STOPS
        loop = asyncio.get_running_loop()
        now_s = loop.time
        answers.extend((["early", "late"], ["begun"]))
        assert await taker.stop_signals(None) == ["begun"]
        loop.time = lambda: now_s() + STOP_MEMORY_S - 1.0  # type: ignore[method-assign]
        assert not taker.begins("early")
        loop.time = lambda: now_s() + STOP_MEMORY_S + 1.0  # type: ignore[method-assign]
        assert taker.begins("late")

    asyncio.run(scenario([names, ["begun"]]))


def test_nobody_asks_while_all_slots_are_taken() -> None:
    async def scenario(plane: QueuePlane) -> None:
        held = {"one", "two"}
        async with session(plane) as client:
            taker = a_taker(plane, [], held)
            waiting = asyncio.create_task(taker.take(client, 2))
            await asyncio.sleep(0.15)
            assert not plane.requests("job-take") and not waiting.done()
            held.clear()
            jobs = await waiting
            assert jobs is not None and len(jobs) == 2
            assert [entry["query"]["batch_size"] for entry in plane.requests("job-take")] == ["2"]

    with QueuePlane() as plane:
        plane.submit({}), plane.submit({})
        asyncio.run(scenario(plane))


def test_a_job_that_comes_as_the_worker_ends_is_given_back() -> None:
    async def scenario(plane: QueuePlane) -> None:
        refused: list[str] = []
        async with session(plane) as client:
            taker = a_taker(plane, refused)
            waiting = asyncio.create_task(taker.take(client, 1))
            await asyncio.sleep(0.1)
            settling = asyncio.create_task(taker.settle())
            taker.shutdown.is_draining.set()
            await asyncio.sleep(0.1)
            job_id = plane.submit({})
            await settling
            taker.shutdown.is_told.set()
            assert await waiting is None and refused == [job_id]
            assert await taker.take(client, 1) is None
            assert len(plane.requests("job-take")) == 1

    with QueuePlane(rules=PlaneRules(hold_s=90.0)) as plane:
        asyncio.run(scenario(plane))


# Progress


Sent = list[tuple[float, Mapping[str, Any]]]


def with_sender(scenario: Callable[[ProgressSender, Sent], Any], *, took_s: float = 0.0, **options: Any) -> Sent:
    sent: Sent = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async def send(progress: Mapping[str, Any]) -> None:
            await asyncio.sleep(took_s)
            sent.append((loop.time() - began_s, progress))

        await scenario(ProgressSender(send, **{"every_s": 0.1, "quiet_s": 0.1, **options}), sent)
        sent.append((loop.time() - began_s, {"result": True}))
        await asyncio.sleep(0.15)

    asyncio.run(main())
    return sent


def test_progress_comes_at_intervals_with_the_latest_news_and_well_before_the_result() -> None:
    async def scenario(sender: ProgressSender, _sent: Sent) -> None:
        for number in range(35):
            await asyncio.to_thread(sender.tell, {"number": number})
            await asyncio.sleep(0.01)
        await sender.close()
        sender.tell({"number": "late"})

    sent = with_sender(scenario)
    times = [at_s for at_s, _ in sent]
    assert 2 <= len(sent) - 1 <= 4 and sent[-1][1] == {"result": True}
    assert all(later - earlier >= 0.09 for earlier, later in zip([0.0, *times], times, strict=False))


def test_a_short_job_has_no_progress_and_waits_for_none() -> None:
    async def scenario(sender: ProgressSender, _sent: Sent) -> None:
        sender.tell({"number": 1})
        await asyncio.sleep(0.01)
        await sender.close()

    (only,) = with_sender(scenario)
    assert only[1] == {"result": True} and only[0] < 0.09


def test_the_result_waits_for_a_post_under_way_but_not_when_the_process_ends() -> None:
    async def scenario(sender: ProgressSender, _sent: Sent) -> None:
        sender.tell({"number": 1})
        await asyncio.sleep(0.05)
        await sender.close()

    sent = with_sender(scenario, took_s=0.15, every_s=0.01)
    assert [each for _, each in sent] == [{"number": 1}, {"result": True}] and sent[1][0] - sent[0][0] >= 0.09
    sent = with_sender(scenario, took_s=0.15, every_s=0.01, is_hurried=lambda: True)
    assert [each for _, each in sent] == [{"number": 1}, {"result": True}] and sent[1][0] - sent[0][0] < 0.09


# Posts


def posted(
    plane: QueuePlane, body: Any, *, is_stream: bool = False, left_s: float = 60.0, limit: int = 8_000_000
) -> str:
    """Hand one body over; returns the job's id."""
    job_id = plane.submit({})

    async def main() -> None:
        async with session(plane) as client:
            await client.get(f"{plane.url}/job-take/w1")
            done = f"{plane.url}/job-done/w1/$ID?x=1"
            poster = ResultPoster(done, done.replace("done", "stream"), to_safe, lambda: left_s, limit)
            await poster.send_result(client, body, {"id": job_id}, is_stream=is_stream)

    asyncio.run(main())
    return job_id


def test_a_post_looks_as_the_sdks_own() -> None:
    with QueuePlane() as plane:
        job_id = posted(plane, {"output": {"text": "ä\ud800", "p": float("nan")}})
        (entry,) = plane.requests("job-done", job_id)
        assert entry["query"] == {"x": "1", "isStream": "false"} and entry["path"].endswith(f"/job-done/w1/{job_id}")
        assert entry["headers"]["Content-Type"] == "application/x-www-form-urlencoded"
        assert entry["headers"]["X-Request-ID"] == job_id
        assert plane.job(job_id).output == {"text": "ä?", "p": None}


@pytest.mark.parametrize("status", [500, 503, 429, 408, 0])
def test_passing_trouble_is_waited_out(status: int) -> None:
    with QueuePlane() as plane:
        if status:
            plane.faults.status("job-done", status)
        else:
            plane.faults.cut("job-done")
        job = plane.job(posted(plane, {"output": 1}))
        assert (job.status, job.output, len(plane.requests("job-done"))) == ("COMPLETED", 1, 2)


def test_the_time_that_the_process_has_left_ends_the_attempts() -> None:
    with QueuePlane() as plane:
        plane.faults.always("job-done", 503)
        began_s = time.monotonic()
        job_id = posted(plane, {"output": 1}, left_s=0.2)
        assert plane.job(job_id).status == "IN_PROGRESS" and time.monotonic() - began_s < 1.0


def test_a_refused_result_becomes_a_small_error() -> None:
    with QueuePlane(rules=PlaneRules(done_bytes=SUSPECT_BYTES)) as plane:
        fits = "x" * (SUSPECT_BYTES - len('{"output": ""}'))
        assert plane.job(posted(plane, {"output": fits})).output == fits
        job = plane.job(posted(plane, {"output": fits + "x"}))
        assert (job.status, job.output["error_code"], job.output["retryable"]) == ("FAILED", "result_too_large", False)
        plane.faults.status("job-done", 413)
        assert plane.job(posted(plane, {"output": 1})).output["error_code"] == "result_too_large"
        plane.faults.status("job-done", 422)
        job = plane.job(posted(plane, {"output": 1}))
        assert job.output["error_code"] == "result_refused" and "422" in job.error


def test_an_aggregate_over_the_limit_keeps_its_last_element() -> None:
    chunks = [{"segments": ["x" * 100]}, {"text": "x" * 100}]
    size = len(json.dumps({"output": chunks}))
    with QueuePlane() as plane:
        assert plane.job(posted(plane, {"output": chunks}, is_stream=True, limit=size)).output == chunks
        assert plane.job(posted(plane, {"output": chunks}, is_stream=True, limit=size - 1)).output == chunks[-1:]
        assert plane.job(posted(plane, {"output": chunks}, limit=size - 1)).output == chunks


def test_what_has_no_form_in_json_is_an_error_that_says_where() -> None:
    with QueuePlane() as plane:
        job = plane.job(posted(plane, {"output": {"text": b"bytes"}}))
        assert job.output["error_code"] == "result_not_json" and "$.output.text" in job.error
