"""Which models a worker serves, and how they are loaded and unloaded under its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from engine.clock import Clock
from engine.errors import BadInputError, ConfigError, DrainingError, ModelUnavailableError
from engine.models import DEMO_MODEL_DIR
from engine.owner import EngineOwner, EngineState
from engine.settings import Settings, load_settings
from handler.__main__ import stop_models
from handler.bridge import EngineLoop
from handler.models import MAX_MODELS, ModelPool, model_list
from tests.fakes.backend import FakeBackend


def settings(**options: Any) -> Settings:
    return load_settings({"host": "127.0.0.1", **options}, env_file=None)


@pytest.mark.parametrize(
    ("models", "model", "default", "names"),
    [
        (None, None, "demo", ["demo"]),
        (None, "turbo", "turbo", ["turbo"]),
        ("base, turbo=/m/turbo", None, "base", ["base", "turbo"]),
        ("tiny,turbo", None, "tiny", ["tiny", "turbo"]),
        ("tiny,turbo,", "small", "small", ["tiny", "turbo", "small"]),
    ],
)
def test_the_list(models: str | None, model: str | None, default: str, names: list[str]) -> None:
    found = model_list(settings(models=models, model=model))
    assert (found.default, list(found.places)) == (default, names)
    assert found.choose(None) == default
    assert found.choose(f" {names[-1]} ") == names[-1]
    with pytest.raises(BadInputError, match=f"model: 'nope' is not allowed; legal: {', '.join(names)}"):
        found.choose("nope")


def test_a_worker_without_settings_runs_what_its_predecessor_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_POD_ID", "w1")
    assert model_list(settings()).default == "base"
    assert model_list(settings(models=f"base={DEMO_MODEL_DIR}")).places == {"base": str(DEMO_MODEL_DIR)}


@pytest.mark.parametrize("wrong", ["=x", "a=", "a,a", "a=1,a=2"])
def test_a_wrong_list_stops_the_start(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"WHISPER_MODELS: .* is not allowed; legal: name or name=directory"):
        model_list(settings(models=wrong))


def test_the_list_has_a_limit() -> None:
    names = [f"m{number}" for number in range(MAX_MODELS + 1)]
    assert len(model_list(settings(models=",".join(names[:-1]))).places) == MAX_MODELS
    with pytest.raises(ConfigError, match=f"legal: up to {MAX_MODELS}"):
        model_list(settings(models=",".join(names)))


class FakeOwner(FakeBackend):
    """An owner whose model is loaded when `is_loaded` is set, or never is (a name that begins with "bad").

    Its child takes `STOP_TURNS` turns of the loop to end, or as long as `is_stuck`.
    """

    STOP_TURNS = 3

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__()
        self.name = settings.effective_model
        self.state = EngineState.LOADING
        self.is_loaded = asyncio.Event()
        self.has_died = asyncio.Event()
        self.is_stuck = False

    def start(self) -> None:
        if self.name.startswith("bad"):
            self.state = EngineState.FATAL

    async def wait_ready(self) -> None:
        if self.state is EngineState.FATAL:
            raise ModelUnavailableError(f"model {self.name!r} cannot be loaded")
        await self.is_loaded.wait()
        self.state = EngineState.READY

    async def wait_fatal(self) -> str:
        await self.has_died.wait()
        return "the engine keeps failing"

    async def stop(self) -> None:
        turns = 0
        while self.is_stuck or turns < self.STOP_TURNS:
            await asyncio.sleep(0.001 if self.is_stuck else 0)
            turns += 1
        self.state = EngineState.STOPPED


class Bench:
    """A pool over fake owners, with a list of all that were ever made; never are too many of them alive."""

    def __init__(self, max_loaded: int, models: str = "a,b,c,bad") -> None:
        chosen = settings(models=models, max_loaded_models=max_loaded)
        self.owners: list[FakeOwner] = []
        self.max_loaded = max_loaded
        self.pool = ModelPool(chosen, model_list(chosen), make_owner=self._make)
        self.release = asyncio.Event()
        self.served: list[str] = []

    @property
    def alive(self) -> list[str]:
        return [owner.name for owner in self.owners if owner.state is not EngineState.STOPPED]

    def _make(self, settings: Settings, clock: Clock) -> EngineOwner:
        assert len(self.alive) < self.max_loaded
        self.owners.append(FakeOwner(settings, clock))
        self.owners[-1].is_loaded.set()
        return cast(EngineOwner, self.owners[-1])

    async def job(self, name: str) -> None:
        async with self.pool.use(name):
            self.served.append(name)
            await self.release.wait()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


def drive(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 10.0))


def test_jobs_of_one_model_share_it() -> None:
    async def body() -> None:
        bench = Bench(1)
        bench.pool.preload()
        jobs = [asyncio.create_task(bench.job("a")) for _ in range(3)]
        await bench.settle()
        assert (bench.served, len(bench.owners), bench.alive) == (["a"] * 3, 1, ["a"])
        bench.release.set()
        await asyncio.gather(*jobs)
        await bench.pool.stop()
        assert bench.owners[0].state is EngineState.STOPPED

    drive(body())


def test_another_model_waits_for_the_one_in_use_and_is_not_overtaken() -> None:
    async def body() -> None:
        bench = Bench(1)
        jobs = [asyncio.create_task(bench.job(name)) for name in ("a", "b", "a")]
        await bench.settle()
        assert bench.served == ["a"]
        bench.release.set()
        await asyncio.gather(*jobs)
        assert bench.served == ["a", "b", "a"]
        assert [owner.name for owner in bench.owners] == ["a", "b", "a"]
        assert [owner.state for owner in bench.owners[:2]] == [EngineState.STOPPED] * 2
        await bench.pool.stop()

    drive(body())


def test_the_least_recently_used_goes() -> None:
    async def body() -> None:
        bench = Bench(2)
        bench.release.set()
        for name in ("a", "b", "a", "c"):
            await bench.job(name)
        assert bench.alive == ["a", "c"]
        watches = [task for task in asyncio.all_tasks() if task.get_name() == "model-watch"]
        assert len(watches) == 2  # nothing is left of the one that went
        await bench.pool.stop()

    drive(body())


def test_a_model_that_cannot_be_loaded_fails_its_job_and_is_tried_anew() -> None:
    async def body() -> None:
        bench = Bench(1)
        bench.release.set()
        for _ in range(2):
            with pytest.raises(ModelUnavailableError, match="'bad' cannot be loaded"):
                await bench.job("bad")
        await bench.job("a")
        assert [owner.name for owner in bench.owners] == ["bad", "bad", "a"]
        await bench.pool.stop()

    drive(body())


def test_who_gives_up_waiting_blocks_nobody() -> None:
    async def body() -> None:
        bench = Bench(1)
        first = asyncio.create_task(bench.job("a"))
        await bench.settle()
        waiting = asyncio.create_task(bench.job("b"))
        await bench.settle()
        waiting.cancel()
        last = asyncio.create_task(bench.job("a"))
        await bench.settle()
        assert bench.served == ["a", "a"]
        bench.release.set()
        await asyncio.gather(first, last)
        await bench.pool.stop()

    drive(body())


@pytest.mark.parametrize("first", ["a", "bad"])
def test_a_job_cancelled_while_the_model_is_switched_leaves_no_engine_behind(first: str) -> None:
    async def body(turns: int) -> None:
        bench = Bench(1)
        bench.release.set()
        with contextlib.suppress(ModelUnavailableError):
            await bench.job(first)
        switching = asyncio.create_task(bench.job("b"))
        for _ in range(turns):
            await asyncio.sleep(0)
        switching.cancel()
        await bench.job("c")  # the assertion of the bench: what was loaded before has ended by now
        await bench.settle()
        assert bench.alive == ["c"]
        await bench.pool.stop()
        assert bench.alive == []

    for turns in range(20):
        drive(body(turns))


def test_the_end_of_the_pool_waits_for_models_that_are_ending_and_tells_who_waits() -> None:
    async def body() -> None:
        bench = Bench(1)
        running = asyncio.create_task(bench.job("a"))
        await bench.settle()
        waiting = asyncio.create_task(bench.job("b"))
        await bench.settle()
        await bench.pool.stop()
        assert bench.alive == []
        with pytest.raises(DrainingError):
            await waiting
        with pytest.raises(DrainingError):
            await bench.job("c")
        bench.release.set()
        await running

    drive(body())


def test_a_model_that_does_not_end_changes_no_exit_status() -> None:
    async def loading() -> Bench:
        bench = Bench(1)
        bench.pool.preload()
        bench.owners[0].is_stuck = True
        return bench

    with EngineLoop() as loop:
        bench = loop.run(loading())
        began_s = time.monotonic()
        stop_models(bench.pool, loop, 0.05)
        assert time.monotonic() - began_s < 1.0 and bench.alive == ["a"]
    stop_models(bench.pool, loop, 0.05)  # nor does a loop that has ended


def test_the_check_decodes() -> None:
    async def body() -> None:
        bench = Bench(1)
        bench.pool.preload()
        await bench.pool.check()
        assert [method for method, _ in bench.owners[0].calls] == ["transcribe"]
        await bench.pool.stop()

    drive(body())


def test_the_end_of_an_engine_that_worked_is_told() -> None:
    async def body() -> None:
        bench = Bench(1)
        bench.release.set()
        await bench.job("a")
        fatal = asyncio.create_task(bench.pool.wait_fatal())
        await bench.settle()
        assert not fatal.done()
        bench.owners[0].has_died.set()
        assert await fatal == "the engine keeps failing"
        await bench.pool.stop()

    drive(body())
