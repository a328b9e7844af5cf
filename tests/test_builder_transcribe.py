from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
import requests
import soundfile
from moto import mock_aws

from builder.aws.session import s3
from builder.cli import main
from builder.errors import DiskFullError, UsageError
from builder.runtime import Runtime, World
from builder.state import write_private
from builder.transcribe.plan import Wishes
from builder.transcribe.upload import Store
from builder.transcribe.work import transcribe
from tests import builder_endpoints
from tests.fakes.runpod.control_plane import ControlPlane

RATE = 16_000
LONG_S = 245
"""As WAV more than a job may hold."""


def tone(path: Path, hz: int, seconds: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(int(seconds * RATE)) / RATE
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * hz * times), RATE, subtype="PCM_16")
    return path


def long_tone(path: Path) -> Path:
    """One tone per minute, and pauses between them."""
    parts = []
    for number in range(-(-LONG_S // 60)):
        times = np.arange(58 * RATE) / RATE
        parts += [0.4 * np.sin(2 * np.pi * (300 + 100 * number) * times), np.zeros(2 * RATE)]
    soundfile.write(path, np.concatenate(parts)[: LONG_S * RATE], RATE, subtype="PCM_16")
    return path


def heard(job_input: dict[str, Any]) -> dict[str, Any]:
    """What a worker would say: a segment per tone, named by its pitch."""
    if "audio" in job_input:
        segments = [{"start": 0.0, "end": 1.0, "text": f" {job_input['audio'].partition('?')[0].rpartition('/')[2]}"}]
        return {"output": {"segments": segments, "detected_language": "en", "duration": 1.0, "warnings": []}}
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(job_input["audio_base64"])), dtype="float32")
    assert rate == RATE
    segments = []
    at = 0
    step = RATE // 2
    for start in range(0, len(samples) - step + 1, step):
        part = samples[start : start + step]
        pitch = round(np.argmax(np.abs(np.fft.rfft(part))) * 2 / 20) * 20 if np.abs(part).max() > 0.1 else 0
        if pitch and segments and segments[-1]["text"] == f" {pitch}" and segments[-1]["end"] == start / RATE:
            segments[-1]["end"] = (start + step) / RATE
        elif pitch:
            segments.append({"start": start / RATE, "end": (start + step) / RATE, "text": f" {pitch}"})
        at = start
    assert at >= 0
    return {"output": {"segments": segments, "detected_language": "en", "duration": len(samples) / rate, "model": "m"}}


class Bench(builder_endpoints.Bench):
    """`may_repeat`: the test lets jobs be sent twice."""

    may_repeat = False


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def bench(running: ControlPlane, tmp_path: Path) -> Iterator[Bench]:
    running.reset()
    found = Bench(running, tmp_path)
    running.endpoints.answer = heard
    yield found
    assert_nothing_was_sent_twice(found)


def assert_nothing_was_sent_twice(bench: Bench) -> None:
    if bench.may_repeat:
        return
    inputs = [json.dumps(job.request["input"], sort_keys=True) for job in bench.queue.store.jobs.values()]
    assert len(inputs) == len(set(inputs))


def urls(number: int) -> list[str]:
    """Recordings that nobody has to look into."""
    return [f"https://host.org/{each}.mp3" for each in range(number)]


def all_texts(number: int) -> dict[str, str]:
    return {f"{each}.txt": f"{each}.mp3" for each in range(number)}


def repeats(bench: Bench) -> None:
    bench.may_repeat = True


def texts(folder: Path) -> dict[str, str]:
    return {
        path.name: " ".join(line for line in path.read_text(encoding="utf-8").splitlines() if line)
        for path in sorted(folder.rglob("*.txt"))
    }


def ledger(bench: Bench) -> dict[str, Any]:
    (path,) = [
        each for each in (bench.cli.folder / "artifacts/transcribe").glob("*.json") if each.name != "written.json"
    ]
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_a_folder_becomes_transcripts(bench: Bench) -> None:
    for number in range(5):
        tone(bench.cli.folder / "talks" / f"{number}.wav", 300 + 100 * number, 2.0 + number)
    done = bench.cli.run("transcribe", "talks", "--format", "srt,json,vtt,txt", "--yes", "--json")
    assert done.code == 0, done.err
    assert texts(bench.cli.folder / "talks") == {f"{n}.txt": str(300 + 100 * n) for n in range(5)}
    assert (bench.cli.folder / "talks/0.srt").read_text() == "1\n00:00:00,000 --> 00:00:02,000\n300\n"
    assert (bench.cli.folder / "talks/0.vtt").read_text().startswith("WEBVTT\n")
    assert json.loads((bench.cli.folder / "talks/0.json").read_text())["duration"] == 2.0
    document = done.document
    assert (document["done"], document["failed"], document["lost_submissions"]) == (5, 0, 0)
    row = document["files"][1]
    assert (row["input"], row["status"], row["way"], row["audio_s"]) == ("talks/1.wav", "done", "inline", 3.0)
    assert len(row["outputs"]) == 4
    # Workers of the fake take 2 s for a job; their GPU has a price.
    assert document["cost"]["worker_s"] == 10.0
    assert 0 < document["cost"]["dollars"] < 0.01
    assert not document["cost"]["is_upper_bound"]
    assert max(len(bench.sent("run")), 5) == 5


def test_for_people_there_are_lines(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    done = bench.cli.run("transcribe", "a.wav", "--yes", "--model", "small")
    assert done.code == 0, done.err
    assert "1 of 1 recordings" in done.out
    assert "estimated before: less than $0.0001" in done.out
    assert "[################] 1 of 1 recordings, 2s of 2s of sound" in done.err


def test_again_nothing_is_asked_again(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    assert bench.cli.run("transcribe", "a.wav", "--yes").code == 0
    (bench.cli.folder / "a.srt").unlink()
    # Nothing is to be paid for: nobody has to agree.
    again = bench.cli.run("transcribe", "a.wav", "--json", "--max-cost", "0", "--format", "srt,txt")
    assert again.code == 0, again.err
    assert (bench.cli.folder / "a.srt").exists()
    assert again.document["cost"]["dollars"] == 0.0
    assert len(bench.sent("run")) == 1


def test_a_long_recording_goes_in_pieces(bench: Bench) -> None:
    long_tone(bench.cli.folder / "long.wav")
    done = bench.cli.run("transcribe", "long.wav", "--format", "txt,json", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.document["files"][0]["way"] == "pieces"
    assert len(bench.sent("run")) == 2
    assert texts(bench.cli.folder) == {"long.txt": "300 400 500 600 700"}
    segments = json.loads((bench.cli.folder / "long.json").read_text())["segments"]
    for number, each in enumerate(segments):
        assert abs(each["start"] - 60 * number) <= 0.6
        assert each["end"] - each["start"] == pytest.approx(58 if number < 4 else 5, abs=1.1)
    # The sound is removed, the results are kept.
    assert {path.suffix for path in (bench.cli.folder / "artifacts/transcribe").rglob("*.*")} == {".json"}


def test_pieces_that_were_removed_are_cut_again(bench: Bench) -> None:
    long_tone(bench.cli.folder / "long.wav")
    command = ("transcribe", "long.wav", "--format", "txt", "--yes", "--jobs", "1")
    interrupt_after(bench, 0)
    assert bench.cli.run(*command).code == 130
    pieces = list((bench.cli.folder / "artifacts/transcribe").rglob("*.flac"))
    assert len(pieces) == 2
    assert all(path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0 for path in pieces)
    for path in pieces:
        path.unlink()
    done = bench.cli.run(*command)
    assert done.code == 0, done.err
    assert texts(bench.cli.folder) == {"long.txt": "300 400 500 600 700"}
    assert len(bench.sent("run")) == 2


def test_a_dry_run_sends_nothing(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300, 3600 * 0.01)
    done = bench.cli.run("transcribe", "a.wav", "https://host.org/b.mp3?sig=abcdef", "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = done.document["plan"]
    assert [row["way"] for row in plan["files"]] == ["inline", "url"]
    assert (plan["jobs_at_a_time"], plan["estimate"]["dollars"], plan["estimate"]["unknown_lengths"]) == (6, None, 1)
    assert "estimate" in plan["estimate"]["basis"]
    assert bench.sent("run") == []
    shown = bench.cli.run("transcribe", "a.wav", "--dry-run", "--model", "small")
    assert "cost less than $0.0001 (estimate" in shown.out


def test_the_budget_is_looked_at_before(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300, 30)
    over = bench.cli.run("transcribe", "a.wav", "--yes", "--model", "large-v3", "--max-cost", "0.0000001")
    assert over.code == 6
    assert "estimate" in over.err
    unknown = bench.cli.run("transcribe", "https://host.org/b.mp3", "--yes", "--model", "small", "--max-cost", "5")
    assert unknown.code == 6
    assert bench.cli.run("transcribe", "a.wav", "--yes", "--model", "small", "--max-cost", "1").code == 0
    assert len(bench.sent("run")) == 1


def test_nobody_is_charged_unasked(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    assert bench.cli.run("transcribe", "a.wav").code == 2
    assert bench.cli.run("transcribe", "a.wav", answers="n\n").code == 2
    assert bench.sent("run") == []
    assert bench.cli.run("transcribe", "a.wav", answers="y\n").code == 0


def test_a_url_is_fetched_by_the_worker_and_hidden_here(bench: Bench) -> None:
    url = "https://host.org/talk.mp3?X-Amz-Signature=0123456789abcdef0123456789"
    done = bench.cli.run("transcribe", url, "--yes", "--json", "--format", "txt")
    assert done.code == 0, done.err
    assert texts(bench.cli.folder) == {"talk.txt": "talk.mp3"}
    assert done.document["files"][0]["audio_s"] == 1.0
    kept = "".join(
        path.read_text()
        for path in (bench.cli.folder / "artifacts").rglob("*")
        if path.is_file() and path.name != "lock"
    )
    assert "0123456789abcdef" not in done.out + done.err + kept


def test_one_bad_file_stops_no_other(bench: Bench) -> None:
    tone(bench.cli.folder / "talks/a.wav", 300)
    (bench.cli.folder / "talks/bad.mp3").write_bytes(b"no sound at all" * 100)
    tone(bench.cli.folder / "talks/c.wav", 500)
    done = bench.cli.run("transcribe", "talks", "--format", "txt", "--yes", "--json")
    assert done.code == 1
    assert [row["status"] for row in done.document["files"]] == ["done", "failed", "done"]
    assert "bad.mp3" in done.problem["error"]
    assert texts(bench.cli.folder) == {"a.txt": "300", "c.txt": "500"}


def failing(times: int, **more: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    left = [times]

    def answer(job_input: dict[str, Any]) -> dict[str, Any]:
        left[0] -= 1
        return {"error": "it broke", **more} if left[0] >= 0 else heard(job_input)

    return answer


def test_a_failed_job_is_tried_once_more(bench: Bench) -> None:
    bench.plane.endpoints.answer = failing(1)
    done = bench.cli.run("transcribe", *urls(1), "--format", "txt", "--yes", "--json")
    assert done.code == 0, done.err
    assert (len(bench.sent("run")), len(bench.sent("retry"))) == (1, 1)
    # The failed try is paid for too.
    assert done.document["cost"]["worker_s"] == 4.0


def test_and_reported_when_it_fails_again(bench: Bench) -> None:
    repeats(bench)
    bench.plane.endpoints.answer = failing(2)
    done = bench.cli.run("transcribe", *urls(1), "--format", "txt", "--yes", "--json")
    assert done.code == 1
    assert done.document["files"][0]["error"] == "it broke"
    assert (len(bench.sent("run")), len(bench.sent("retry"))) == (1, 1)
    # The next run begins that one again.
    assert bench.cli.run("transcribe", *urls(1), "--format", "txt", "--yes").code == 0
    assert len(bench.sent("run")) == 2


def test_what_the_worker_calls_hopeless_is_not_tried_again(bench: Bench) -> None:
    bench.plane.endpoints.answer = failing(1, output={"error_code": "bad_input", "retryable": False})
    done = bench.cli.run("transcribe", *urls(1), "--yes", "--json")
    assert done.code == 1
    assert bench.sent("retry") == []


def interrupt_after(bench: Bench, n_answers: int) -> None:
    """Ctrl-C, pressed while it sleeps once so many jobs were answered."""
    sleep = bench.clock.sleep

    def interrupted(seconds: float) -> None:
        done = sum(job.is_over for job in bench.queue.store.jobs.values())
        if done >= n_answers:
            bench.clock.sleep = sleep  # type: ignore[method-assign]
            raise KeyboardInterrupt
        sleep(seconds)

    bench.clock.sleep = interrupted  # type: ignore[method-assign]


@pytest.mark.parametrize("n_answers", [0, 1, 3])
def test_after_an_interrupt_it_goes_on(bench: Bench, n_answers: int) -> None:
    talks = urls(6)
    command = ("transcribe", *talks, "--format", "txt", "--yes", "--json")
    interrupt_after(bench, n_answers)
    first = bench.cli.run(*command)
    assert first.code == 130
    assert "picked up" in first.err
    assert len(texts(bench.cli.folder)) < 6
    second = bench.cli.run(*command)
    assert second.code == 0, second.err
    assert texts(bench.cli.folder) == all_texts(6)
    # None was sent twice: see the fixture.
    assert len(bench.sent("run")) == 6


def test_an_interrupt_may_cancel(bench: Bench) -> None:
    repeats(bench)
    interrupt_after(bench, 0)
    first = bench.cli.run("transcribe", *urls(1), "--yes", "--cancel-on-interrupt")
    assert first.code == 130
    assert "1 of 1 jobs were cancelled" in first.err
    assert [job.status for job in bench.queue.store.jobs.values()] == ["CANCELLED"]
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 0


def test_a_killed_process_leaves_its_job_to_the_next(bench: Bench) -> None:
    """As after kill -9: nothing is done at the end."""

    def killed(seconds: float) -> None:
        raise Killed

    sleep, bench.clock.sleep = bench.clock.sleep, killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        bench.cli.run("transcribe", *urls(1), "--yes")
    bench.clock.sleep = sleep  # type: ignore[method-assign]
    assert ledger(bench)["parts"][0]["state"] == "submitted"
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 0
    assert len(bench.sent("run")) == 1


def test_a_result_that_was_forgotten_is_asked_for_again(bench: Bench) -> None:
    repeats(bench)
    interrupt_after(bench, 0)
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 130
    # Half an hour after its end RunPod forgets a job.
    for _ in range(3):
        bench.clock.advance(1_801)
        bench.plane.pods.sweep()
    done = bench.cli.run("transcribe", *urls(1), "--yes")
    assert done.code == 0, done.err
    assert "has forgotten job" in done.err
    assert len(bench.sent("run")) == 2


def test_a_job_that_no_worker_takes_ends_by_its_time_to_live(bench: Bench) -> None:
    bench.plane.endpoints.throttle(100)
    done = bench.cli.run("transcribe", *urls(1), "--yes", "--json", "--timeout", "120")
    assert done.code == 1
    assert "not done within 120 s" in done.document["files"][0]["error"]
    assert len(bench.sent("run")) == 1
    assert json.loads(bench.sent("run")[0]["body"])["policy"] == {"executionTimeout": 120_000, "ttl": 120_000}


def test_many_jobs_at_a_time(bench: Bench) -> None:
    talks = urls(60)
    done = bench.cli.run("transcribe", *talks, "--format", "txt", "--yes", "--json", "--jobs", "40")
    assert done.code == 0, done.err
    assert texts(bench.cli.folder) == all_texts(60)
    assert len(bench.sent("run")) == 60
    assert len(bench.sent("status")) < 60 * 20


def test_who_waits_is_told_why(bench: Bench) -> None:
    bench.plane.endpoints.throttle(1)
    done = bench.cli.run("transcribe", *urls(1), "--yes", "--timeout", "300")
    assert done.code == 1
    assert "1 jobs wait, none runs; workers: 1 throttled" in done.err


def test_slow_down_is_heard(bench: Bench) -> None:
    talks = urls(3)
    bench.queue.faults.status("run", 429, 8)
    bench.queue.faults.status("status", 429, 12)
    done = bench.cli.run("transcribe", *talks, "--format", "txt", "--yes", "--json")
    assert done.code == 0, done.err
    assert len(texts(bench.cli.folder)) == 3
    assert len(bench.queue.store.jobs) == 3


def test_slow_down_for_ever_ends_with_nothing_lost(bench: Bench) -> None:
    talks = urls(2)
    bench.queue.faults.always("status", 429)
    done = bench.cli.run("transcribe", *talks, "--format", "txt", "--yes")
    assert done.code == 8
    assert "2 jobs run on" in done.err
    bench.queue.faults.clear()
    assert bench.cli.run("transcribe", *talks, "--format", "txt", "--yes").code == 0
    assert len(bench.sent("run")) == 2


def test_a_lost_answer_is_counted_and_told(bench: Bench) -> None:
    repeats(bench)
    bench.queue.faults.cut("run", after_commit=True)
    done = bench.cli.run("transcribe", *urls(1), "--format", "txt", "--yes", "--json")
    assert done.code == 0, done.err
    assert done.document["lost_submissions"] == 1
    assert "may run twice" in done.err
    assert len(bench.queue.store.jobs) == 2
    for job in bench.queue.store.jobs.values():
        assert job.request["policy"]["ttl"] == 3_600_000


def test_answers_that_are_always_lost_end_it(bench: Bench) -> None:
    repeats(bench)
    bench.queue.faults.cut("run", 50, after_commit=True)
    done = bench.cli.run("transcribe", *urls(1), "--yes", "--json")
    assert done.code == 1
    assert len(bench.queue.store.jobs) == 3
    assert "sent 3 times" in done.document["files"][0]["error"]


def test_a_job_that_was_being_sent_when_the_process_died_is_told(bench: Bench) -> None:
    interrupt_after(bench, 0)
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 130
    document = ledger(bench)
    document["parts"][0] |= {"state": "submitting", "job_id": None}
    repeats(bench)
    (bench.cli.folder / "artifacts/transcribe" / f"{document['key']}.json").write_text(json.dumps(document))
    done = bench.cli.run("transcribe", *urls(1), "--yes", "--json")
    assert done.code == 0, done.err
    assert "may run twice" in done.err
    assert done.document["lost_submissions"] == 1


def test_a_killed_worker_costs_no_transcript(bench: Bench) -> None:
    talks = urls(4)
    sleep = bench.clock.sleep
    killed: list[str] = []

    def killing(seconds: float) -> None:
        sleep(seconds)
        workers = [each for each in bench.plane.endpoints.get(bench.endpoint.id).workers if each.status == "RUNNING"]
        if workers and not killed:
            killed.append(workers[0].id)
            bench.plane.endpoints.kill_worker(bench.endpoint.id, workers[0].id)

    bench.clock.sleep = killing  # type: ignore[method-assign]
    done = bench.cli.run("transcribe", *talks, "--format", "txt", "--yes", "--json")
    bench.clock.sleep = sleep  # type: ignore[method-assign]
    assert killed
    assert done.code == 0, done.err
    assert texts(bench.cli.folder) == all_texts(4)
    assert len(bench.sent("run")) == 4


def test_a_signal_while_a_job_is_sent_waits_for_its_id(bench: Bench) -> None:
    bench.queue.faults.late("run", 0.6)

    def press() -> None:
        bench.queue.wait_until(lambda: bench.sent("run"), "a job sent")
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=press, daemon=True)
    watcher.start()
    first = bench.cli.run("transcribe", *urls(1), "--yes")
    watcher.join()
    assert first.code == 130
    assert "a job runs on" in first.err
    assert ledger(bench)["parts"][0]["state"] == "submitted"
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 0
    assert len(bench.sent("run")) == 1


class Killed(BaseException):
    """As kill -9: nobody cleans up."""


@pytest.mark.parametrize("is_before", [True, False])
def test_killed_at_every_step_nothing_is_lost(
    running: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_before: bool
) -> None:
    """Before and after each write of the memory; what may have run twice is told."""
    n_steps = 0
    while True:
        n_steps += 1
        running.reset()
        (tmp_path / str(n_steps)).mkdir()
        bench = Bench(running, tmp_path / str(n_steps))
        running.endpoints.answer = heard
        left = [n_steps]

        def killing(path: Path, text: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0 and is_before:
                raise Killed
            write_private(path, text)
            if left[0] == 0:
                raise Killed

        command = ("transcribe", *urls(2), "--format", "txt", "--yes", "--json")
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr("builder.transcribe.ledger.write_private", killing)
            assert bench.cli.run(*command).code == 0
        again = bench.cli.run(*command)
        assert again.code == 0, (n_steps, again.err)
        assert texts(bench.cli.folder) == all_texts(2)
        assert len(bench.queue.store.jobs) <= 2 + again.document["lost_submissions"]
        if left[0] > 0:
            break
    assert n_steps > 10


def test_files_of_others_are_not_replaced(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    (bench.cli.folder / "a.srt").write_text("by hand")
    refused = bench.cli.run("transcribe", "a.wav", "--yes")
    assert refused.code == 2
    assert "--force" in refused.err
    assert bench.sent("run") == []
    assert bench.cli.run("transcribe", "a.wav", "--yes", "--out", "out").code == 0
    assert (bench.cli.folder / "out/a.srt").exists()
    assert (bench.cli.folder / "a.srt").read_text() == "by hand"
    assert bench.cli.run("transcribe", "a.wav", "--yes", "--force").code == 0
    assert (bench.cli.folder / "a.srt").read_text() != "by hand"


def test_endpoints_that_cannot_do_it(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    balancer = bench.add(type="LOAD_BALANCER", ports=["80/http"])
    refused = bench.cli.run("transcribe", "a.wav", "--yes", "--endpoint", balancer.id)
    assert refused.code == 2
    bench.plane.endpoints.park(bench.endpoint.id)
    parked = bench.cli.run("transcribe", "a.wav", "--yes")
    assert parked.code == 1
    assert "no worker" in parked.err
    assert bench.cli.run("transcribe", "a.wav", "--yes", "--endpoint", "nosuchendpoint").code == 3


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "doc"],
        ["--format", ","],
        ["--task", "sing"],
        ["--set", "audio=x"],
        ["--set", "x"],
        ["--jobs", "0"],
        ["--jobs", "501"],
        ["--timeout", "29"],
        ["--timeout", "86401"],
        ["--max-cost", "-1"],
    ],
)
def test_wrong_options(bench: Bench, options: list[str]) -> None:
    tone(bench.cli.folder / "a.wav", 300, 0.2)
    assert bench.cli.run("transcribe", "a.wav", "--yes", *options).code == 2
    assert list(bench.plane.journal) == []


def test_options_reach_the_job(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    argv = ("--language", "de", "--words", "--set", "beam_size=2", "--model", "tiny", "--set", "enable_vad=true")
    assert bench.cli.run("transcribe", "a.wav", "--yes", *argv).code == 0
    sent = json.loads(bench.sent("run")[0]["body"])["input"]
    sent.pop("audio_base64")
    assert sent == {"language": "de", "word_timestamps": True, "beam_size": 2, "model": "tiny", "enable_vad": True}


class Bucket:
    """Storage as boto3 shows it."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.removed: list[str] = []

    def upload_file(self, path: str, bucket: str, key: str) -> None:
        self.objects[key] = Path(path).read_bytes()

    def generate_presigned_url(self, operation: str, *, Params: dict[str, str], ExpiresIn: int) -> str:
        assert (operation, ExpiresIn) == ("get_object", 86_400)
        return f"https://s3.host.org/{Params['Bucket']}/{Params['Key']}?X-Amz-Signature=5ecre75ecre75ecre7"

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        self.removed.append(Key)
        del self.objects[Key]


def test_a_large_file_goes_through_storage(bench: Bench) -> None:
    long_tone(bench.cli.folder / "long.wav")
    settings = {
        "BUCKET_ENDPOINT_URL": "https://s3.host.org",
        "BUCKET_NAME": "talks",
        "BUCKET_ACCESS_KEY_ID": "key-id-0123456789",
        "BUCKET_SECRET_ACCESS_KEY": "key-secret-0123456789",
    }
    out, err = io.StringIO(), io.StringIO()
    world = World(
        {**bench.cli.environ, **settings},
        bench.cli.folder,
        clock=bench.clock,
        stdin=io.StringIO(),
        stdout=out,
        stderr=err,
    )
    run, bucket = Runtime(world), Bucket()
    found = transcribe(run, ["long.wav"], Wishes(formats=("txt",), yes=True), Store(run, bucket))
    assert found.problem is None
    assert found.document["files"][0]["way"] == "upload"
    assert bucket.objects == {}
    assert len(bucket.removed) == 1
    sent = json.loads(bench.sent("run")[0]["body"])["input"]
    assert list(sent) == ["audio"]
    assert sent["audio"].startswith(f"https://s3.host.org/talks/{bucket.removed[0]}?")
    kept = "".join(path.read_text() for path in (bench.cli.folder / "artifacts/transcribe").rglob("*.json"))
    for secret in ("5ecre7", "key-secret", "key-id"):
        assert secret not in out.getvalue() + err.getvalue() + kept
    run.console.note(sent["audio"])
    assert "5ecre75ecre7" not in err.getvalue()


STORE = {
    "BUCKET_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com",
    "BUCKET_NAME": "talks",
    "BUCKET_ACCESS_KEY_ID": "key-id-0123456789",
    "BUCKET_SECRET_ACCESS_KEY": "key-secret-0123456789",
}


def test_storage_as_boto3_has_it(bench: Bench) -> None:
    """More than one part of an upload; the link is read without keys; the object is gone afterwards."""
    long_tone(bench.cli.folder / "long.wav")
    soundfile.write(bench.cli.folder / "longer.wav", np.zeros(RATE * 600, np.int16), RATE)
    read: dict[str, bytes] = {}

    def fetched(job_input: dict[str, Any]) -> dict[str, Any]:
        answer = requests.get(job_input["audio"], timeout=10)
        assert answer.status_code == 200
        assert "X-Amz-Expires=86400" in job_input["audio"]
        read[job_input["audio"]] = answer.content
        return {"output": {"segments": [], "duration": 1.0}}

    bench.plane.endpoints.answer = fetched
    bench.cli.environ.update(STORE)
    with mock_aws():
        client = boto3.client("s3", region_name="eu-west-1")
        client.create_bucket(Bucket="talks", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        done = bench.cli.run("transcribe", "long.wav", "longer.wav", "--yes", "--json")
        left = client.list_objects_v2(Bucket="talks").get("Contents", [])
        bench.cli.environ["BUCKET_NAME"] = "no-such-bucket"
        refused = bench.cli.run("transcribe", "long.wav", "--again", "--yes", "--json")
    assert done.code == 0, done.err
    assert sorted(read.values(), key=len) == [
        (bench.cli.folder / name).read_bytes() for name in ("long.wav", "longer.wav")
    ]
    assert left == []
    assert "storage at s3.eu-west-1.amazonaws.com: cannot upload" in refused.document["files"][0]["error"]
    kept = "".join(path.read_text() for path in (bench.cli.folder / "artifacts").rglob("*.json*"))
    for secret in ("key-secret", "key-id", "X-Amz-Signature"):
        assert secret not in done.out + done.err + refused.out + refused.err + kept


@pytest.mark.parametrize(
    ("address", "where", "region"),
    [
        ("https://talks.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://s3api-eu-ro-1.runpod.io/talks/", "https://s3api-eu-ro-1.runpod.io", "EU-RO-1"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000", "us-east-1"),
    ],
)
def test_a_client_for_storage(bench: Bench, address: str, where: str, region: str) -> None:
    environ = {**bench.cli.environ, **STORE, "BUCKET_ENDPOINT_URL": address}
    client = s3(Runtime(World(environ, bench.cli.folder)))
    assert (client.meta.endpoint_url, client.meta.region_name) == (where, region)
    assert client.meta.config.request_checksum_calculation == "when_required"
    link = client.generate_presigned_url("get_object", Params={"Bucket": "talks", "Key": "a"})
    assert link.startswith(f"{where}/talks/a?")


@pytest.mark.parametrize(
    "address", ["s3.host.org", "https://", "ftp://host", "https://user:pass-word@host", "https://h/x"]
)
def test_addresses_that_are_no_storage(bench: Bench, address: str) -> None:
    with pytest.raises(UsageError) as refused:
        s3(Runtime(World({**bench.cli.environ, **STORE, "BUCKET_ENDPOINT_URL": address}, bench.cli.folder)))
    assert "pass-word" not in str(refused.value)


def test_one_stem_one_transcript_each(bench: Bench) -> None:
    """One after the other, the second must not replace the first's."""
    tone(bench.cli.folder / "a.wav", 300)
    soundfile.write(bench.cli.folder / "a.flac", soundfile.read(tone(bench.cli.folder / "x.wav", 500))[0], RATE)
    assert bench.cli.run("transcribe", "a.wav", "--format", "txt", "--yes").code == 0
    refused = bench.cli.run("transcribe", "a.flac", "--format", "txt", "--yes")
    assert refused.code == 2
    assert (bench.cli.folder / "a.txt").read_text() == "300\n"
    assert bench.cli.run("transcribe", "a.wav", "a.flac", "--format", "txt", "--yes").code == 0
    assert texts(bench.cli.folder) == {"a.txt": "300", "a.wav.txt": "300", "a.flac.txt": "500"}


def test_where_nothing_can_be_written_nothing_is_paid_for(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    refused = bench.cli.run("transcribe", "a.wav", "--yes", "--out", "a.wav/there")
    assert refused.code == 2
    assert "a.wav is no folder" in refused.err
    assert bench.sent("run") == []


def test_a_full_disk_at_the_end_loses_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise DiskFullError(f"{path} cannot be written")

    command = ("transcribe", *urls(1), "--format", "txt", "--yes", "--json")
    with monkeypatch.context() as patch:
        patch.setattr("builder.transcribe.write._write", full)
        first = bench.cli.run(*command)
    assert first.code == 1
    assert first.document["files"][0]["status"] == "unfinished"
    again = bench.cli.run(*command)
    assert again.code == 0
    assert texts(bench.cli.folder) == all_texts(1)
    assert len(bench.sent("run")) == 1


def test_no_room_to_remember_a_job_that_was_sent_cancels_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        if '"submitted"' in text:
            raise DiskFullError(f"{path} cannot be written")
        write_private(path, text)

    with monkeypatch.context() as patch:
        patch.setattr("builder.transcribe.ledger.write_private", full)
        assert bench.cli.run("transcribe", *urls(1), "--yes").code == 1
    assert [job.status for job in bench.queue.store.jobs.values()] == ["CANCELLED"]
    repeats(bench)
    assert bench.cli.run("transcribe", *urls(1), "--yes").code == 0


def test_a_file_that_changes_meanwhile_is_not_mixed_up(bench: Bench) -> None:
    tone(bench.cli.folder / "a.wav", 300)
    path = tone(bench.cli.folder / "b.wav", 400)
    sleep = bench.clock.sleep

    def changing(seconds: float) -> None:
        bench.clock.sleep = sleep  # type: ignore[method-assign]
        tone(path, 500)
        sleep(seconds)

    bench.clock.sleep = changing  # type: ignore[method-assign]
    command = ("transcribe", "a.wav", "b.wav", "--format", "txt", "--yes", "--jobs", "1")
    done = bench.cli.run(*command)
    assert done.code == 1
    assert "was changed meanwhile" in done.err
    assert len(bench.sent("run")) == 1
    assert bench.cli.run(*command).code == 0
    assert texts(bench.cli.folder) == {"a.txt": "300", "b.txt": "500"}


def test_again_sends_what_is_remembered(bench: Bench) -> None:
    repeats(bench)
    command = ("transcribe", *urls(2), "--format", "txt", "--yes", "--json")
    assert bench.cli.run(*command).code == 0
    remembered = bench.cli.run(*command)
    assert [row["remembered"] for row in remembered.document["files"]] == [True, True]
    assert remembered.document["cost"]["audio_s_per_worker_s"] is None
    assert bench.cli.run("transcribe", *urls(2), "--format", "txt", "--again").code == 2
    assert bench.cli.run(*command, "--again").code == 0
    assert len(bench.sent("run")) == 4
    # A no, or nobody to ask, cost nothing that was paid for.
    assert bench.cli.run(*command).code == 0
    assert len(bench.sent("run")) == 4


def test_a_cancelled_job_that_is_done_is_kept(bench: Bench) -> None:
    interrupt_after(bench, 1)
    first = bench.cli.run("transcribe", *urls(2), "--format", "txt", "--yes", "--cancel-on-interrupt")
    assert first.code == 130
    repeats(bench)
    n_done = sum(job.status == "COMPLETED" for job in bench.queue.store.jobs.values())
    assert n_done
    assert bench.cli.run("transcribe", *urls(2), "--format", "txt", "--yes").code == 0
    assert texts(bench.cli.folder) == all_texts(2)
    assert len(bench.queue.store.jobs) == 4 - n_done


def test_old_memories_go(bench: Bench) -> None:
    assert bench.cli.run("transcribe", *urls(2), "--format", "txt", "--yes").code == 0
    folder = bench.cli.folder / "artifacts/transcribe"
    (folder / ".x.json.123").write_text("left by a killed process")
    old_s = bench.clock.unix_s() - 31 * 86_400
    for path in folder.iterdir():
        os.utime(path, (old_s, old_s))
    assert bench.cli.run("transcribe", *urls(1), "--format", "txt", "--yes").code == 0
    assert len(bench.sent("run")) == 2
    assert sorted(path.suffix for path in folder.iterdir()) == ["", "", ".json", ".json"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.rglob("*"))


def test_help_needs_no_endpoint(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    world = World({}, bench.cli.folder, clock=bench.clock)
    assert main(["transcribe", "--help"], world) == 0
    assert "--cancel-on-interrupt" in capsys.readouterr().out
