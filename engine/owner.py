"""The engine's owner: starts, feeds, watches and replaces the child that holds the model.

Runs on the event loop of the serving process, which must never load ctranslate2 or
faster_whisper: native code that crashes or hangs takes its process with it, and this one holds
sockets and audio. Knows no job and no stream; what to decode again after a restart is the
business of `engine.service`.

Invariants: every call ends, by its result, its own error, EngineRestartError, or the end of the
engine; at most one child is current, and nothing an older one says is heard; once FATAL or STOPPED, no
child is started any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from engine.child_process import EngineChild, child_environment, describe_exit
from engine.child_wire import GENERATION_BITS, START_ID, ChildOptions, Reply, error_from
from engine.clock import Clock
from engine.errors import (
    AtCapacityError,
    DrainingError,
    EngineFailedError,
    EngineRestartError,
    ModelUnavailableError,
    ServerError,
)
from engine.remote_backend import RemoteBackend
from engine.restarts import RestartPolicy
from engine.settings import Settings
from engine.types import Handle, ModelInfo

__all__ = ["FIRST_START_LIMIT_S", "MAX_OUTSTANDING", "RESTART_LIMIT_S", "EngineOwner", "EngineState"]

FIRST_START_LIMIT_S = 1_800.0
"""The first start may fetch 3 GB of weights at 2 MB/s, and compile kernels for a new GPU."""
RESTART_LIMIT_S = 180.0
"""A later start finds the weights on the disk and the kernels in the cache."""
MAX_OUTSTANDING = 16
"""Calls sent and not answered: one batch, and a step or a release of each of a few recordings; more is a mistake."""
STOP_LIMIT_S = 5.0
"""How long `stop` waits for a killed process; the kernel needs milliseconds."""

_log = logging.getLogger(__name__)


class EngineState(Enum):
    """Where the owner stands with its child."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FATAL = "fatal"
    STOPPED = "stopped"


@dataclass(frozen=True)
class _Call:
    method: str
    future: asyncio.Future[Any]


class EngineOwner(RemoteBackend):
    """`engine.types.Backend` in the serving process; use it on one event loop."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        policy: RestartPolicy | None = None,
        environ: Mapping[str, str] = os.environ,
        start_limits_s: tuple[float, float] = (FIRST_START_LIMIT_S, RESTART_LIMIT_S),
    ) -> None:
        """Nothing is started yet; `environ` is what the child inherits, less its secrets.

        `start_limits_s` bounds the first start and every later one.
        """
        self._settings = settings
        self._clock = clock
        self._policy = policy or RestartPolicy()
        self._first_start_limit_s, self._restart_limit_s = start_limits_s
        self._environment = child_environment(environ, settings.cpu_threads)
        self._state = EngineState.LOADING
        self._settled = asyncio.Event()
        self._fatal = asyncio.Event()
        self._info: ModelInfo | None = None
        self._failure: ServerError | None = None
        self._child: EngineChild | None = None
        self._generation = 0
        self._restarts = 0
        self._last_id = START_ID
        self._calls: OrderedDict[int, _Call] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> EngineState:
        """Where the owner stands with its child."""
        return self._state

    @property
    def is_ready(self) -> bool:
        """True if the current child has loaded the model and decoded with it."""
        return self._state is EngineState.READY

    @property
    def info(self) -> ModelInfo:
        """The model; raises ModelUnavailableError before the first child was ready."""
        if self._info is None:
            raise ModelUnavailableError("no model has been loaded yet")
        return self._info

    @property
    def pid(self) -> int | None:
        """The current child's process id."""
        return self._child.pid if self._child else None

    @property
    def restarts(self) -> int:
        """How many children have been replaced."""
        return self._restarts

    def start(self) -> None:
        """Start the first child; call it on the thread that runs the event loop for good."""
        self._spawn(self._first_start_limit_s)

    async def wait_ready(self) -> None:
        """Wait for the model; raises what ended the engine (at the start ConfigError, ModelUnavailableError)."""
        # Again and again: between the event and our turn the child may have died.
        while self._state is not EngineState.READY:
            if self._failure is not None:
                raise self._failure
            await self._settled.wait()

    async def wait_fatal(self) -> str:
        """Wait until the engine is down for good; returns the reason."""
        await self._fatal.wait()
        return str(self._failure)

    async def stop(self) -> None:
        """End the child and every waiting call; idempotent, bounded by STOP_LIMIT_S."""
        if self._state is not EngineState.STOPPED:
            self._finish(EngineState.STOPPED, DrainingError("the engine is stopped"))
        if self._child is not None and not await asyncio.to_thread(self._child.join, STOP_LIMIT_S):
            _log.error("engine process %d does not end", self._child.pid)

    def _spawn(self, limit_s: float) -> None:
        self._generation += 1
        generation, loop = self._generation, asyncio.get_running_loop()
        options = ChildOptions(
            model=self._settings.effective_model,
            device=self._settings.device,
            compute_type=self._settings.compute_type,
            cpu_threads=self._settings.cpu_threads,
            window_pad_s=self._settings.window_pad_s,
            first_handle=generation << GENERATION_BITS,
            log_level=self._settings.log_level,
            log_format=self._settings.log_format,
        )
        try:
            self._child = EngineChild(
                options,
                self._environment,
                on_reply=lambda reply: _post(loop, self._on_reply, generation, reply),
                on_exit=lambda code: _post(loop, self._on_exit, generation, code),
            )
        except OSError as error:
            self._finish(EngineState.FATAL, EngineFailedError(f"the engine process did not start: {error.strerror}"))
            return
        self._watch(limit_s, f"the engine process was not ready within {limit_s:g} s")

    def _watch(self, limit_s: float, reason: str) -> None:
        """Replace the child for `reason`, unless something happens within `limit_s`."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._replace, reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_head(self) -> None:
        """Time the call that the child works on: it answers in order, so that is the oldest."""
        self._stop_timer()
        if self._calls:
            limit_s = self._settings.engine_timeout_s
            head = next(iter(self._calls.values()))
            self._watch(limit_s, f"{head.method} took more than {limit_s:g} s")

    def _on_reply(self, generation: int, reply: Reply) -> None:
        if generation != self._generation or self._is_over:
            return
        message_id, is_ok, value = reply
        if message_id == START_ID:
            self._on_started(is_ok, value)
            return
        call = self._calls.pop(message_id)
        self._watch_head()
        if call.future.done():
            return  # whoever asked has gone
        if is_ok:
            call.future.set_result(value)
        else:
            call.future.set_exception(error_from(value))

    def _on_started(self, is_ok: bool, value: object) -> None:
        self._stop_timer()
        if not is_ok:
            self._on_start_failure(error_from(value))
            return
        assert isinstance(value, ModelInfo)
        self._info = value
        self._state = EngineState.READY
        self._settled.set()
        _log.info("engine process %s is ready", self.pid)

    def _on_start_failure(self, error: ServerError) -> None:
        if self._info is None:
            self._finish(EngineState.FATAL, error)
        else:
            self._replace(str(error))

    def _on_exit(self, generation: int, returncode: int) -> None:
        if generation != self._generation or self._is_over:
            return
        death = f"the engine process ended with {describe_exit(returncode)}"
        if self._state is EngineState.READY:
            self._replace(death)
        else:
            self._on_start_failure(ModelUnavailableError(f"{death} while loading {self._settings.effective_model!r}"))

    def _replace(self, reason: str) -> None:
        """Kill the child, whatever it does, and start another if the policy grants it."""
        if self._info is None:
            self._finish(EngineState.FATAL, ModelUnavailableError(reason))
        elif not self._policy.grant(self._clock.now_s()):
            self._finish(EngineState.FATAL, EngineFailedError(f"the engine keeps failing; last: {reason}"))
        else:
            _log.warning("replacing engine process %s: %s", self.pid, reason)
            self._kill_child(EngineRestartError(reason))
            self._restarts += 1
            self._state = EngineState.RESTARTING
            self._settled.clear()
            self._spawn(self._restart_limit_s)

    def _finish(self, state: EngineState, failure: ServerError) -> None:
        # A start that fails is told by whoever waits for it, in one line.
        is_news = state is EngineState.FATAL and self._info is not None
        _log.log(logging.ERROR if is_news else logging.DEBUG, "engine is %s: %s", state.value, failure)
        self._state, self._failure = state, failure
        self._kill_child(failure)
        self._settled.set()
        if state is EngineState.FATAL:
            self._fatal.set()

    def _kill_child(self, failure: ServerError) -> None:
        self._stop_timer()
        if self._child is not None:
            # Not waited for: a process stuck in a driver may take long to die, and its successor must not.
            self._child.kill()
        calls, self._calls = self._calls, OrderedDict()
        for call in calls.values():
            if not call.future.done():
                call.future.set_exception(failure)

    @property
    def _is_over(self) -> bool:
        return self._state in (EngineState.FATAL, EngineState.STOPPED)

    async def call(self, method: str, argument: object, handles: Sequence[Handle] = ()) -> Any:
        """As `RemoteBackend`; waits while a child is loading.

        Raises AtCapacityError beyond MAX_OUTSTANDING calls, and what ended the engine once it has ended.
        """
        await self.wait_ready()
        if any(handle >> GENERATION_BITS != self._generation for handle in handles):
            raise EngineRestartError("the engine process that held the recording is gone")
        if len(self._calls) >= MAX_OUTSTANDING:
            raise AtCapacityError(f"{MAX_OUTSTANDING} engine calls are waiting")
        assert self._child is not None
        self._last_id += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[self._last_id] = _Call(method, future)
        self._child.send((self._last_id, method, argument))
        if len(self._calls) == 1:
            self._watch_head()
        return await future


def _post(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    """Hand over to the event loop, unless that has ended before its child."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
