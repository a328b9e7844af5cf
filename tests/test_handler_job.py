"""One job from input to answer, whatever goes wrong on the way: there is an answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from engine.decode import MediaDecoder
from engine.errors import EngineFailedError, SttError
from engine.settings import load_settings
from handler.fetch import Fetcher
from handler.job import DEADLINE_MARGIN_S, JobRunner
from handler.models import ModelPool, model_list
from handler.results import Delivery
from handler.upload import Uploader
from tests.fakes.engine import Habits, ScriptedEngine
from tests.serving import DEMO

HELLO = base64.b64encode((DEMO / "samples" / "hello_en.wav").read_bytes()).decode()
CANARY = "canary-of-a-transcript"


class Pool:
    """A model that is always loaded."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.models = model_list(load_settings({"host": "127.0.0.1", "model": "tones"}, env_file=None))
        self.n_users = 0
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


Body = Callable[[JobRunner, Pool], Coroutine[Any, Any, None]]


def drive(folder: Path, habits: Habits, body: Body) -> None:
    async def run() -> None:
        pool = Pool(ScriptedEngine(habits))
        with MediaDecoder() as decoder:
            runner = JobRunner(
                load_settings({"host": "127.0.0.1"}, env_file=None),
                cast(ModelPool, pool),
                decoder,
                Fetcher(folder=folder),
                Delivery(Uploader(), None, 10_000),
            )
            await asyncio.wait_for(body(runner, pool), 20.0)
        assert pool.n_users == 0

    asyncio.run(run())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("job", "limit_s"),
    [
        ({"input": {"audio_base64": HELLO, "deadline_s": 1}}, 1),
        ({"policy": {"executionTimeout": 1_200 + 1_000 * DEADLINE_MARGIN_S}}, 1.2),
        ({"policy": {"executionTimeout": 10}}, 1),
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
def test_errors_are_answers(tmp_path: Path, error: Exception, answer: dict[str, Any]) -> None:
    async def body(runner: JobRunner, pool: Pool) -> None:
        assert await runner.run({"input": {"audio_base64": HELLO, "language": "en"}}) == answer

    drive(tmp_path, Habits(fails=lambda call, job: cast(SttError, error)), body)


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
