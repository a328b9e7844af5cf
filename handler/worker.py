"""The worker around the RunPod SDK's job loop: the only module that imports `runpod`.

    def serve(
        run: RunJob,                     # JobRunner.run; awaited on the engine's loop
        settings: Settings,
        *,
        loop: EngineLoop,                # started: `with EngineLoop() as loop:`
        check: Callable[[], Coroutine[Any, Any, None]],      # awaited on the engine's loop before the first job:
                                                             # the model is ready and has decoded a second of sound
        to_safe: Callable[[Any], Any],   # handler.safe_json.to_safe
        wait_fatal: Callable[[], Coroutine[Any, Any, str]] | None = None,  # returns when the engine is down for good
    ) -> int                             # exit status: 0, 1 (local run failed, or no model), 70 (engine is down)

Importing this module is cheap; `serve` imports the SDK (about 0.4 s), so whoever starts the model on the
engine's loop before calling `serve` has both at once. After `serve`, close the loop and end with
`handler.sdk_shutdown.leave(status)`.

Who does what: `sdk_take` asks for jobs, `sdk_jobs` runs them over `bridge`, `sdk_progress` and `sdk_post` hand
over what they say, `sdk_shutdown` ends it all, `sdk_seams` says where the SDK is taken over, `sdk_import` what
is needed before its import. Without RUNPOD_WEBHOOK_GET_JOB, or with `--test_input` or `--rp_serve_api`, the
SDK's local modes run as they are.

Knows no recording and no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from engine.errors import SttError
from engine.logs import Redactor
from engine.settings import Settings
from handler.bridge import EngineLoop
from handler.sdk_import import SECRET_VARIABLES, forked_children_die_with_us, prepare_environ, quick_cpuinfo
from handler.sdk_jobs import JobHandler, RunJob, draining_answer
from handler.sdk_post import ResultPoster, error_body
from handler.sdk_seams import Sdk, check_sdk
from handler.sdk_shutdown import leave
from handler.sdk_take import JobTaker

__all__ = ["EXIT_ENGINE_FATAL", "EXIT_FAILED", "load_sdk", "serve"]

EXIT_FAILED = 1
EXIT_ENGINE_FATAL = 70
"""EX_SOFTWARE of sysexits.h: the platform should restart the container."""
TALKATIVE_LEVELS = ("DEBUG", "TRACE")

_log = logging.getLogger(__name__)


def load_sdk() -> Sdk:
    """Import the SDK, quietly and quickly. Raises ConfigError for a version that the worker does not know."""
    prepare_environ(os.environ)
    with quick_cpuinfo():
        import runpod
        from runpod.serverless.modules import rp_http, rp_job, rp_logger, rp_scale, worker_state
    sdk = Sdk(runpod.__version__, runpod.serverless, rp_scale, rp_job, rp_http, rp_logger, worker_state)
    check_sdk(sdk)
    return sdk


def serve(
    run: RunJob,
    settings: Settings,
    *,
    loop: EngineLoop,
    check: Callable[[], Coroutine[Any, Any, None]],
    to_safe: Callable[[Any], Any],
    wait_fatal: Callable[[], Coroutine[Any, Any, str]] | None = None,
) -> int:
    """Take and do jobs until a signal ends the worker, or do the SDK's local run; returns the exit status.

    Call it in the main thread. `check` raises what keeps the worker from working: then the platform is told so,
    and the process ends with 1. Raises ConfigError for an SDK that the worker does not know.
    """
    sdk = load_sdk()
    arguments, _ = sdk.serverless.parser.parse_known_args()
    is_api = bool(arguments.rp_serve_api)
    is_worker = bool(os.environ.get("RUNPOD_WEBHOOK_GET_JOB")) and not arguments.test_input and not is_api
    worker = _Worker(sdk, run, settings, loop, to_safe, wait_fatal, is_worker=is_worker)
    if is_worker:
        # Nothing is lost before the first job; as process 1 we would otherwise not even hear the signal.
        signal.signal(signal.SIGTERM, lambda _signum, _frame: leave(0))
        forked_children_die_with_us()
        sdk.serverless.register_fitness_check(_fitness(loop, check))
    return worker.start(is_stream=settings.handler_stream and (is_worker or is_api))


def _fitness(
    loop: EngineLoop, check: Callable[[], Coroutine[Any, Any, None]]
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def engine_decodes() -> None:
        try:
            await loop.call(check())
        except SttError as error:
            _log.error("the worker cannot work: %s", error)
            raise

    return engine_decodes


class _Worker:
    """The SDK with our functions in its seams."""

    def __init__(
        self,
        sdk: Sdk,
        run: RunJob,
        settings: Settings,
        loop: EngineLoop,
        to_safe: Callable[[Any], Any],
        wait_fatal: Callable[[], Coroutine[Any, Any, str]] | None,
        *,
        is_worker: bool,
    ) -> None:
        self._sdk = sdk
        self._settings = settings
        self._loop = loop
        self._wait_fatal = wait_fatal
        self._watch: asyncio.Task[None] | None = None
        self._is_armed = False
        self._excepthook = sys.excepthook
        self._config: dict[str, Any] = {}
        self._taker = JobTaker(
            sdk.job._job_get_url,
            sdk.job.get_stop_signals,
            self._refuse,
            lambda: {str(job) for job in sdk.state.JobsProgress()},
        )
        self._shutdown = self._taker.shutdown
        self._poster = ResultPoster(
            sdk.http.JOB_DONE_URL,
            sdk.http.JOB_STREAM_URL,
            to_safe,
            lambda: self._shutdown.left_s,
            settings.max_result_bytes,
            lambda job_id: sdk.logger.RunPodLogger().info("Finished.", job_id),
        )
        self._handler = JobHandler(run, loop, self._shutdown, self._poster, shows_results=not is_worker)
        if is_worker:
            self._take_over()

    def _take_over(self) -> None:
        scale, job = self._sdk.scale, self._sdk.job
        handle = scale.handle_job

        async def handle_job(session: Any, config: dict[str, Any], job: dict[str, Any]) -> None:
            if not self._taker.begins(job["id"]):
                _log.info("job %s was stopped before it began", job["id"])
                return
            with self._handler.session_of(job["id"], session):
                await handle(session, config, job)

        # The SDK asks for as many jobs as there are slots, and the taker knows how many of them are free.
        scale.JobScaler.current_occupancy = lambda _self: 0
        scale.get_job = self._taker.take
        scale.get_stop_signals = self._taker.stop_signals
        scale.handle_job = handle_job
        job.send_result = self._poster.send_result
        job.stream_result = self._poster.stream_result
        _quieten(self._sdk.logger.RunPodLogger)

    async def _refuse(self, session: Any, job: dict[str, Any]) -> None:
        await self._poster.send_result(session, error_body(draining_answer()), job)

    def start(self, *, is_stream: bool) -> int:
        """Run the SDK to its end."""
        self._config = {
            "handler": self._handler.stream_job if is_stream else self._handler.run_job,
            "return_aggregate_stream": True,
            "concurrency_modifier": self._concurrency,
        }
        try:
            self._sdk.serverless.start(self._config)
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else EXIT_FAILED
        except json.JSONDecodeError as error:
            _log.error("the test input is not JSON: %s at character %d", error.msg, error.pos)
            return EXIT_FAILED
        return self._shutdown.exit_code

    def _concurrency(self, _current: int) -> int:
        """The SDK asks before each poll: the first time is the first moment inside its loop."""
        if not self._is_armed:
            self._is_armed = True
            self._shutdown.arm()
            sys.excepthook = self._excepthook  # the SDK's prints what ours would redact
            if self._config["rp_args"].get("rp_debugger"):
                _log.warning("--rp_debugger is left out: with it the SDK loses the results of failed jobs")
                self._config["rp_args"]["rp_debugger"] = None
            self._loop.when_ended(self._on_loop_ended(asyncio.get_running_loop()))
            if self._wait_fatal is not None:
                self._watch = asyncio.create_task(self._watch_engine(self._wait_fatal()), name="engine-watch")
        return self._settings.concurrency

    def _on_loop_ended(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        def begin() -> None:
            _log.critical("the engine's loop has ended")
            self._shutdown.begin("the engine's loop has ended", EXIT_ENGINE_FATAL)

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the SDK's loop has ended before: all is well
                loop.call_soon_threadsafe(begin)

        return tell

    async def _watch_engine(self, fatal: Coroutine[Any, Any, str]) -> None:
        reason = await self._loop.call(fatal)
        _log.critical("the engine is down: %s", reason)
        self._shutdown.begin("the engine is down", EXIT_ENGINE_FATAL)


def _quieten(logger: Any) -> None:
    """Leave out the SDK's debugging lines, which hold whole results, and the platform's key of all others."""
    redactor = Redactor(filter(None, map(os.environ.get, SECRET_VARIABLES)))
    log = logger.log

    def quiet(self: Any, message: object, message_level: str = "INFO", job_id: str | None = None) -> None:
        if message_level in TALKATIVE_LEVELS:
            return
        log(self, redactor.redact(str(message)), message_level, job_id)

    logger.log = quiet
