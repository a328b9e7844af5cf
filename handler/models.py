"""Which engine serves a job: the allow-list of models, and the few that are loaded at a time.

`ModelList` is the pure half: names a job may use and what each stands for. `ModelPool` loads them, each in an
engine process of its own, and unloads the least recently used one to make room. It lives on one event loop and
knows no job.

Invariants: a model that is in use is never unloaded; one that is unloaded ends, even if whoever waits for that
leaves, and it has ended before another is loaded in its place; whoever asks is served in the order of asking, so a
stream of jobs for one model cannot keep a job for another waiting for ever; a job never gets another model than it
named.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from engine.clock import Clock, MonotonicClock
from engine.errors import BadInputError, ConfigError, DrainingError, ModelUnavailableError
from engine.mel import LogMelStream
from engine.models import DEMO_NAME
from engine.owner import EngineOwner, EngineState
from engine.service import EngineService
from engine.settings import Settings
from engine.types import SAMPLE_RATE_HZ, JobClass, WindowJob

__all__ = ["WORKER_DEFAULT", "ModelList", "ModelPool", "model_list"]

WORKER_DEFAULT = "base"
"""What worker-faster_whisper runs when a job names no model."""
MAX_MODELS = 64
"""Names on the list: every size of Whisper in every precision, several times over."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelList:
    """The models of this worker: name -> what `engine.models.resolve_model` takes; `default` is one of them."""

    places: Mapping[str, str]
    default: str

    def choose(self, asked: str | None) -> str:
        """The name that serves a job; raises BadInputError with the list for one that is not on it."""
        if asked is None:
            return self.default
        wanted = asked.strip()
        if wanted not in self.places:
            raise BadInputError("model", asked, ", ".join(self.places))
        return wanted


def model_list(settings: Settings) -> ModelList:
    """The list that WHISPER_MODELS and WHISPER_MODEL make; raises ConfigError."""
    places = _parse(settings.models or "")
    default = settings.model
    if default is None and places:
        default = WORKER_DEFAULT if WORKER_DEFAULT in places else next(iter(places))
    if default is None:
        default = WORKER_DEFAULT if settings.in_pod else DEMO_NAME
    places.setdefault(default, default)
    return ModelList(places, default)


def _parse(text: str) -> dict[str, str]:
    places: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, is_mapped, place = (part.strip() for part in entry.partition("="))
        if not name or (is_mapped and not place) or name in places:
            raise ConfigError(
                f"WHISPER_MODELS: {entry!r} is not allowed; legal: name or name=directory, each name once"
            )
        places[name] = place or name
    if len(places) > MAX_MODELS:
        raise ConfigError(f"WHISPER_MODELS: {len(places)} names are not allowed; legal: up to {MAX_MODELS}")
    return places


@dataclass
class _Loaded:
    owner: EngineOwner
    engine: EngineService
    watch: asyncio.Task[None]
    n_users: int = 0
    is_free: asyncio.Event = field(default_factory=asyncio.Event)

    async def stop(self) -> None:
        self.watch.cancel()
        try:
            await self.engine.stop()
        finally:
            await self.owner.stop()


class ModelPool:
    """Loaded models; use it on one event loop, and on the thread that runs this loop to its end."""

    def __init__(
        self,
        settings: Settings,
        models: ModelList,
        clock: Clock | None = None,
        make_owner: Callable[[Settings, Clock], EngineOwner] = EngineOwner,
    ) -> None:
        """Nothing is loaded yet; `make_owner` starts no process by itself either."""
        self.models = models
        self._settings = settings
        self._clock = clock or MonotonicClock()
        self._make_owner = make_owner
        self._loaded: dict[str, _Loaded] = {}  # the least recently used first
        self._turnstile = asyncio.Lock()
        self._fatal: asyncio.Queue[str] = asyncio.Queue()
        self._stopping: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def preload(self) -> None:
        """Begin to load the default model, and return at once."""
        self._load(self.models.default)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[EngineService]:
        """The engine of a model on the list, ready; it stays loaded at least as long as the context.

        Raises what keeps the model from being loaded: ConfigError, ModelUnavailableError, DrainingError.
        """
        async with self._turnstile:
            held = await self._hold(name)
        try:
            await held.owner.wait_ready()
            yield held.engine
        finally:
            held.n_users -= 1
            if held.n_users == 0:
                held.is_free.set()

    async def _hold(self, name: str) -> _Loaded:
        found = self._loaded.get(name)
        if found is not None and found.owner.state is EngineState.FATAL and found.n_users == 0:
            self._unload(name)
            found = None
        if found is None:
            await self._make_room()
            found = self._load(name)
        self._loaded[name] = self._loaded.pop(name)
        found.n_users += 1
        found.is_free.clear()
        return found

    async def _make_room(self) -> None:
        """Wait until one more model may be loaded. Raises DrainingError once the pool is stopped."""
        while len(self._loaded) + len(self._stopping) >= self._settings.max_loaded_models and not self._is_stopped:
            if self._stopping:
                await asyncio.wait(set(self._stopping), return_when=asyncio.FIRST_COMPLETED)
            else:
                await self._unload_one()
        if self._is_stopped:
            raise DrainingError("the worker unloads its models")

    async def _unload_one(self) -> None:
        waits = [asyncio.ensure_future(each.is_free.wait()) for each in self._loaded.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        free = [name for name, each in self._loaded.items() if each.n_users == 0]
        if free:  # none is left once the pool is stopped
            _log.info("unloading model %s", free[0])
            self._unload(free[0])

    def _unload(self, name: str) -> None:
        """Begin to end a model, in a task of the pool: a job that is cancelled meanwhile must not leave a child."""
        task = asyncio.create_task(self._loaded.pop(name).stop(), name="model-stop")
        self._stopping.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._stopping.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a model did not end well: %s", type(error).__name__)

    def _load(self, name: str) -> _Loaded:
        settings = self._settings.model_copy(update={"model": self.models.places[name]})
        owner = self._make_owner(settings, self._clock)
        watch = asyncio.create_task(self._watch(owner), name="model-watch")
        loaded = _Loaded(owner, EngineService(owner, self._clock), watch)
        loaded.is_free.set()
        self._loaded[name] = loaded
        _log.info("loading model %s", name)
        owner.start()
        loaded.engine.start()
        return loaded

    async def check(self) -> None:
        """Decode a second of noise with the default model; raises what keeps it from working."""
        async with self.use(self.models.default) as engine:
            noise = np.random.default_rng(0).normal(0.0, 0.05, SAMPLE_RATE_HZ).astype(np.float32)
            stream = LogMelStream(engine.info.n_mels)
            mel = np.concatenate([stream.push(noise), stream.tail()], axis=1)
            await engine.transcribe_window(WindowJob("self-test", JobClass.FINAL, mel, engine.info.languages[0]))

    async def wait_fatal(self) -> str:
        """Wait until an engine that has worked is down for good; returns the reason."""
        return await self._fatal.get()

    async def _watch(self, owner: EngineOwner) -> None:
        reason = await owner.wait_fatal()
        with contextlib.suppress(ModelUnavailableError):  # it never worked: its jobs are told why
            _ = owner.info
            self._fatal.put_nowait(reason)

    async def stop(self) -> None:
        """Unload everything; waiting jobs get DrainingError."""
        self._is_stopped = True
        for name, each in list(self._loaded.items()):
            each.is_free.set()
            self._unload(name)
        while self._stopping:
            await asyncio.wait(set(self._stopping))
