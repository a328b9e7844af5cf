"""One job from input to answer, whatever goes wrong on the way: there is an answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import soundfile

from engine.clock import Clock, MonotonicClock
from engine.decode import MediaDecoder
from engine.errors import EngineFailedError, SttError
from engine.settings import load_settings
from handler.fetch import Fetcher
from handler.job import DEADLINE_MARGIN_S, DEADLINE_MARGIN_SHARE, JobRunner, time_limit_s
from handler.models import ModelPool, model_list
from handler.results import Delivery
from handler.schema_types import JobRequest
from handler.sources import Source
from handler.upload import Uploader
from tests.fakes.engine import Habits, ScriptedEngine
from tests.fakes.tones import speak, word_text
from tests.serving import DEMO

HELLO = base64.b64encode((DEMO / "samples" / "hello_en.wav").read_bytes()).decode()
CANARY = "canary-of-a-transcript"


class Pool:
    """A model that is always loaded."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.models = model_list(load_settings({"host": "127.0.0.1", "model": "tones"}, env_file=None))
        self.n_users = 0
        self.n_uses = 0
        self.is_used = asyncio.Event()
        self._engine = engine

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[ScriptedEngine]:
        assert name == "tones"
        self.n_users += 1
        self.is_used.set()
        try:
            yield self._engine
        finally:
            self.n_users -= 1
            self.n_uses += 1


Body = Callable[[JobRunner, Pool], Coroutine[Any, Any, None]]


def drive(
    folder: Path, habits: Habits, body: Body, clock_of: Callable[[Pool], Clock] | None = None, **settings: Any
) -> None:
    async def run() -> None:
        pool = Pool(ScriptedEngine(habits))
        with MediaDecoder() as decoder:
            runner = JobRunner(
                load_settings({"host": "127.0.0.1", **settings}, env_file=None),
                cast(ModelPool, pool),
                decoder,
                Fetcher(folder=folder),
                Delivery(Uploader(allow_private="allow_private_urls" in settings), None, 10_000),
                clock_of(pool) if clock_of else None,
            )
            await asyncio.wait_for(body(runner, pool), 20.0)
        assert pool.n_users == 0

    asyncio.run(run())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "limit_s"),
    [
        ({"input": {"audio_base64": HELLO, "deadline_s": 1}}, 1),
        ({"policy": {"executionTimeout": 250}}, 0.2),
        ({"policy": {"executionTimeout": 10**9}, "input": {"audio_base64": HELLO, "deadline_s": 1}}, 1),
    ],
)
def test_the_smaller_limit_of_job_and_policy_ends_it(tmp_path: Path, job: dict[str, Any], limit_s: float) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        answer = await runner.run({"id": "1", "input": {"audio_base64": HELLO}, **job})
        assert answer == {
            "error": f"the job was not done within {limit_s:g} s",
            "error_code": "deadline",
            "retryable": True,
        }

    drive(tmp_path, Habits(cost_s=30.0), body)


def test_the_margin_is_a_share_of_short_policies() -> None:
    longest_s = DEADLINE_MARGIN_S / DEADLINE_MARGIN_SHARE
    request = JobRequest((Source("url", "https://example.org/a", "audio"),))
    for allowed_s, limit_s in ((5.0, 4.0), (longest_s, 0.8 * longest_s), (longest_s + 1, 0.8 * longest_s + 1)):
        assert time_limit_s(request, {"policy": {"executionTimeout": 1_000 * allowed_s}}) == pytest.approx(limit_s)


class LateClock(MonotonicClock):
    """A minute passes between the transcript and its delivery."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def now_s(self) -> float:
        return super().now_s() + 60.0 * self._pool.n_uses


def test_a_transcript_that_is_there_survives_a_deadline_during_its_upload(tmp_path: Path) -> None:
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def body(runner: JobRunner, pool: Pool) -> None:
        server = await asyncio.start_server(stay, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/put"
            job = {"input": {"audio_base64": HELLO, "language": "en", "deadline_s": 60, "upload_url": url}}
            answer = await runner.run(job)
        assert answer["model"] == "tones" and "error" not in answer
        assert answer["warnings"] == ["the result was not uploaded: the job's deadline left no time for it"]

    drive(tmp_path, Habits(), body, LateClock, allow_private_urls=True)


def test_a_deadline_leaves_the_items_that_are_done(tmp_path: Path) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        await runner.run({"input": {"audio_base64": HELLO, "language": "en"}})  # starts the decoder
        answer = await runner.run({"input": {"audio": [HELLO, HELLO, HELLO], "language": "en", "deadline_s": 1}})
        assert set(answer) == {"results"}
        errors = [item.get("error_code") for item in answer["results"]]
        assert sorted(errors, key=str) == [None, "deadline", "deadline"]

    drive(tmp_path, Habits(delays_s={2: 30.0}), body)


def test_news_of_a_list_tells_the_item(tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, speak([12, 345])[0], 16_000, format="WAV")
    said = base64.b64encode(file.getvalue()).decode()

    async def news_of(runner: JobRunner, audio: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        segments: list[dict[str, Any]] = []
        progress: list[dict[str, Any]] = []
        job = {"input": {"audio": audio, "language": "en", "word_timestamps": True}}
        answer = await runner.run(job, on_segment=segments.append, on_progress=progress.append)
        assert "error" not in answer
        return segments, progress

    async def listed(runner: JobRunner, pool: Pool) -> None:
        segments, progress = await news_of(runner, [said, said])
        assert sorted(segment["index"] for segment in segments) == [0, 1]
        assert {each["index"] for each in progress} == {0, 1}
        assert [word["word"] for word in segments[0]["words"]] == [word_text(12), word_text(345)]

    async def single_and_strict(runner: JobRunner, pool: Pool) -> None:
        segments, progress = await news_of(runner, said)
        assert "index" not in segments[0] and "words" not in segments[0]
        assert set(progress[0]) == {"progress_s"}

    drive(tmp_path, Habits(), listed)
    drive(tmp_path, Habits(), single_and_strict, strict_compat=True)


@pytest.mark.parametrize("policy", [None, 7, {}, {"executionTimeout": True}, {"executionTimeout": "soon"}])
def test_a_policy_that_says_nothing(tmp_path: Path, policy: object) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        told: list[dict[str, Any]] = []
        answer = await runner.run({"input": {"audio_base64": HELLO}, "policy": policy}, on_progress=told.append)
        assert answer["transcription"] == "" and answer["model"] == "tones"
        assert told[-1] == {"progress_s": 2.9}

    drive(tmp_path, Habits(), body)


def test_a_cancelled_job_lets_go_of_everything(tmp_path: Path) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        task = asyncio.create_task(runner.run({"input": {"audio": [HELLO, HELLO, HELLO]}}))
        await pool.is_used.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    drive(tmp_path, Habits(cost_s=30.0), body)


class DefectError(Exception):
    """What nobody expects."""


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (
            EngineFailedError("the model call failed"),
            {"error": "the model call failed", "error_code": "engine_failed", "retryable": True},
        ),
        (
            DefectError(CANARY),
            {"error": "internal error (DefectError)", "error_code": "internal", "retryable": False},
        ),
    ],
)
def test_errors_are_answers(
    tmp_path: Path, error: Exception, answer: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        assert await runner.run({"input": {"audio_base64": HELLO, "language": "en"}}) == answer

    drive(tmp_path, Habits(fails=lambda call, job: cast(SttError, error)), body)
    assert CANARY not in caplog.text
    assert ("DefectError" in caplog.text and "in hear" in caplog.text) is isinstance(error, DefectError)


@pytest.mark.parametrize("job", [{}, {"input": None}, {"input": []}, {"input": {"audio": {}}}, {"s3Config": 5}])
def test_what_is_no_job_is_answered(tmp_path: Path, job: dict[str, Any]) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        assert (await runner.run(job))["error_code"] == "bad_input"

    drive(tmp_path, Habits(), body)


def test_all_items_of_a_list_failed(tmp_path: Path) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        answer = await runner.run({"input": {"audio": ["https://127.0.0.1/a.wav", "https://[::1]/b.wav"]}})
        assert answer["error_code"] == "audio_fetch_failed"
        assert [item["error_code"] for item in answer["results"]] == ["audio_fetch_failed"] * 2

    drive(tmp_path, Habits(), body)
