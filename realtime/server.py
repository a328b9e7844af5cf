"""The realtime process: start, serve, drain, exit code.

Puts the engine, two listeners (WebSocket and health) and the connections together, answers
readiness truthfully, and ends in the right order on SIGTERM: nobody new, finals out, close, exit 0.

Knows nothing of messages, forms or words.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from engine.clock import Clock, MonotonicClock
from engine.cores import usable_cores
from engine.errors import ConfigError, DrainingError, SttError, UnauthorizedError
from engine.metrics import Metrics
from engine.owner import EngineOwner, EngineState
from engine.service import EngineService
from engine.settings import Settings
from engine.start_times import StartTimes
from engine.types import FRAMES_PER_SECOND
from realtime.admission import Admission
from realtime.audio_errors import LoadingError
from realtime.audio_files import FileDesk
from realtime.auth import Authenticator, Gate
from realtime.connection import Connection, new_uid
from realtime.features import FeaturePool, feature_threads
from realtime.health import Snapshot, health_app, ping_route
from realtime.load import Load
from realtime.pod_api import PodApi
from realtime.protocol import TASKS, HandshakeRules
from realtime.self_stop import Activity, SelfStop, StopRule
from realtime.session import SessionLimits
from realtime.status import engine_details, limit_details, serving_details, session_details
from realtime.stream import Services
from realtime.transport import Limits, Listener, serve

__all__ = ["EXIT_ENGINE_FATAL", "EXIT_START_FAILED", "RealtimeServer"]

logger = logging.getLogger("realtime.server")

DRAIN_S = 7.0
"""Docker sends SIGKILL 10 s after SIGTERM; 8 s in all leave room for the kernel."""
ABORT_S = 0.5
"""What the last messages get after the drain."""
EXIT_START_FAILED = 1
EXIT_ENGINE_FATAL = 70
"""EX_SOFTWARE of sysexits.h: the platform should restart the container."""
DEMO_NOTE = (
    "the demo model only knows about 700 English and 420 Spanish words, spoken by speech synthesizers; "
    "it does not understand people. Set WHISPER_MODEL (small.en, turbo, large-v3, ...) for real speech"
)
CLOSE_S = 0.2
"""What connections get to end on their own once there is nothing more to say."""
WAITING_ROOM = 64
"""Sockets beyond the clients: peers told to wait, health checks, handshakes under way."""
LOAD_EVERY_S = 1.0
"""How often the load is looked at while nobody comes: a tenth of the time over which it is averaged."""


class RealtimeServer:
    """Everything of one realtime process; `run` serves until a signal or a fatal engine."""

    def __init__(self, settings: Settings, clock: Clock | None = None, started: StartTimes | None = None) -> None:
        """Make it in the thread that will run the event loop; `started` is told of the start's parts.

        Raises ConfigError.
        """
        self.clock = clock or MonotonicClock()
        self._settings = settings
        self._metrics = Metrics()
        self._features = FeaturePool(feature_threads(settings.feature_threads, usable_cores()), self.clock)
        parts = {"loop": time.thread_time}
        if self._features.n_threads:
            parts["features"] = lambda: self._features.busy_s
        self._load = Load(parts, self.clock.now_s())
        secret = settings.auth_token.get_secret_value() if settings.auth_token else None
        self._gate = Gate(Authenticator(secret), clock=self.clock)
        self._owner = EngineOwner(settings, self.clock)
        self._engine = EngineService(self._owner, self.clock, on_batch=self._metrics.batch)
        self._admission = Admission(
            settings.max_clients, settings.max_connection_time_s, lambda: self._engine.max_streams, self._load
        )
        self._services = Services(
            engine=self._engine,
            admission=self._admission,
            metrics=self._metrics,
            clock=self.clock,
            limits=SessionLimits(
                max_backlog_s=settings.max_backlog_s,
                idle_timeout_s=settings.idle_timeout_s,
                max_connection_time_s=settings.max_connection_time_s,
            ),
            result_key=settings.result_key,
            rules=self._rules,
            features=self._features,
        )
        self._connections: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._stop = asyncio.Event()
        self._is_draining = False
        self._started_unix_s = time.time()
        self._started_s = self.clock.now_s()
        self._port = 0
        self._files = FileDesk(settings, self._engine, self._gate, self.clock, self._rules, self._unready)
        self._started = started
        self._ready_s: float | None = None
        rule = StopRule.make(settings.idle_stop_min, settings.deadline)
        self._self_stop = SelfStop(rule, PodApi.from_environ(os.environ), self.clock, self._activity)

    # Life

    async def run(self) -> int:
        """Serve; returns the process's exit code. Raises ConfigError if a port cannot be had."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop.set)
        settings = self._settings
        health = health_app(self, self._gate, trusted=settings.is_loopback)
        health_listener = await serve(health, settings.effective_host, settings.health_port)
        listener: Listener | None = None
        try:
            listener = await self._listen()
            self._announce(listener.port, health_listener.port)
            self._mark("listening")
            return await self._serve(listener)
        finally:
            await self._engine.stop()
            await self._owner.stop()
            self._files.close()
            for open_listener in (listener, health_listener):
                if open_listener is not None:
                    await open_listener.aclose(grace_s=CLOSE_S)
            self._features.close()

    async def _listen(self) -> Listener:
        settings = self._settings
        sockets, files = WebSocketRoute("/{path:path}", self._accept), Route("/{path:path}", self._files.api)
        app = Starlette(routes=[ping_route(self), Route("/", _index), sockets, files])
        listener = await serve(
            app,
            settings.effective_host,
            settings.port,
            limits=Limits(connections=self._admission.ceiling + WAITING_ROOM),
            ssl_certfile=settings.ssl_certfile,
            ssl_keyfile=settings.ssl_keyfile,
        )
        self._port = listener.port
        return listener

    def _announce(self, port: int, health_port: int) -> None:
        settings = self._settings
        scheme = "wss" if settings.ssl_certfile else "ws"
        secret = "with a secret" if self._gate.authenticator.required else "without a secret"
        where = f"{scheme}://{settings.effective_host}:{port} ({secret}), health on port {health_port}"
        logger.info("listening on %s; loading model %s", where, settings.effective_model)

    async def _serve(self, listener: Listener) -> int:
        self._owner.start()
        self._engine.start()
        stopped = asyncio.create_task(self._stop.wait())
        ready = asyncio.create_task(self._owner.wait_ready())
        fatal = asyncio.create_task(self._owner.wait_fatal())
        beside = (self._watch_load(), self._watch_self_stop())
        tasks: list[asyncio.Task[Any]] = [stopped, ready, fatal, *map(asyncio.create_task, beside)]
        try:
            await asyncio.wait({stopped, ready}, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
                self._welcome()
                await asyncio.wait({stopped, fatal}, return_when=asyncio.FIRST_COMPLETED)
        except SttError as error:
            logger.error("%s", error)
            return EXIT_START_FAILED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._owner.state is EngineState.FATAL:
            logger.error("the engine is down for good; exit %d lets the platform start anew", EXIT_ENGINE_FATAL)
        code = EXIT_ENGINE_FATAL if self._owner.state is EngineState.FATAL else 0
        await self._drain(listener)
        return code

    async def _watch_load(self) -> None:
        while True:
            due_s = self.clock.now_s() + LOAD_EVERY_S
            await asyncio.sleep(LOAD_EVERY_S)
            now_s = self.clock.now_s()
            self._load.timer_fired(now_s, now_s - due_s)
            self._admission.sample(now_s)

    async def _watch_self_stop(self) -> None:
        await self._self_stop.watch()
        self._stop.set()

    def _activity(self) -> Activity:
        began_s = self._started_s if self._ready_s is None else self._ready_s
        ends_s = (self._admission.last_left_s, self._files.api.last_done_s)
        last_s = max([began_s, *(end_s for end_s in ends_s if end_s is not None)])
        is_used = self._admission.n_active > 0 or self._files.api.n_active > 0
        return Activity(0.0 if is_used else self.clock.now_s() - last_s, is_loading=self._ready_s is None)

    def _welcome(self) -> None:
        """The model is loaded. Raises ConfigError if the settings ask what it cannot do."""
        self._ready_s = self.clock.now_s()
        info = self._owner.info
        language = self._settings.language
        if language is not None and language not in info.languages:
            raise ConfigError(f"--language: {language!r} is not allowed; legal: {', '.join(info.languages)}")
        logger.info("ready: model %s on %s (%s)", info.name, info.device, info.compute_type)
        self._mark("engine")
        if self._started is not None:
            logger.info("start %s", self._started.as_json())
        if info.is_demo:
            logger.warning("%s", DEMO_NOTE)

    def _mark(self, part: str) -> None:
        if self._started is not None:
            self._started.mark(part)

    async def _drain(self, listener: Listener) -> None:
        """Nobody new, finals out, close; whoever is left at DRAIN_S is told what was not decoded."""
        self._is_draining = True
        self._admission.close()
        # An answer, not a closed port: a load balancer that asks /ping here is to hear 503.
        listener.refuse_new()
        logger.info("draining %d streams, %d files", len(self._connections), self._files.api.n_active)
        for connection in list(self._connections):
            connection.drain()
        if not all(await asyncio.gather(self._wait_empty(DRAIN_S), self._files.api.drain(DRAIN_S))):
            n_streams, n_files = len(self._connections), self._files.api.n_active
            logger.warning("%d streams and %d files were not finished within %g s", n_streams, n_files, DRAIN_S)
            for connection in list(self._connections):
                connection.abort()
            await asyncio.gather(self._wait_empty(ABORT_S), self._files.api.abort(ABORT_S))
        logger.info("drained")

    async def _wait_empty(self, timeout_s: float) -> bool:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._is_empty.wait(), timeout_s)
        return self._is_empty.is_set()

    # Connections and files

    def _unready(self) -> SttError | None:
        """Why no file would be taken now; a server whose places for streams are all taken does take files."""
        state = self._owner.state
        if self._is_draining or self._stop.is_set():
            return DrainingError("draining: the server is shutting down")
        return None if state is EngineState.READY else LoadingError(f"{state.value}: the engine is not ready")

    def _rules(self) -> HandshakeRules:
        info = self._owner.info
        # English-only models know no translation, and the demo model has hardly been trained in it.
        translates = info.is_multilingual and not info.is_demo
        return HandshakeRules(
            model=info.name,
            languages=info.languages,
            new_uid=new_uid,
            default_language=self._settings.language,
            tasks=TASKS if translates else TASKS[:1],
        )

    async def _accept(self, websocket: WebSocket) -> None:
        entry = self._gate.admit(websocket.scope)
        if not entry.ok:
            self._metrics.session_refused(UnauthorizedError.code)
            if websocket.client is not None:
                logger.warning("refused %s: %s", websocket.client.host, entry.reason)
            refusal = PlainTextResponse(entry.reason + "\n", status_code=entry.status, headers=entry.headers)
            await websocket.send_denial_response(refusal)
            return
        await websocket.accept(subprotocol=entry.subprotocol)
        connection = Connection(websocket, self._services)
        self._connections.add(connection)
        self._is_empty.clear()
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._is_empty.set()

    # What health answers need

    def readiness(self) -> tuple[bool, str]:
        """True if a new stream would be served now; else why not."""
        state = self._owner.state
        if self._is_draining or self._stop.is_set():
            return False, "draining: the server is shutting down"
        if state is not EngineState.READY:
            return False, f"{state.value}: the engine is not ready"
        capacity = self._admission.capacity
        if self._admission.n_active >= capacity.streams:
            return False, f"full: {capacity.reason}"
        return True, "the model is loaded and has decoded"

    def snapshot(self) -> Snapshot:
        """Facts for /status."""
        now_s = self.clock.now_s()
        state, model = self._owner.state.value, self._settings.effective_model
        return Snapshot(
            started_unix_s=self._started_unix_s,
            uptime_s=now_s - self._started_s,
            port=self._port,
            details={
                "sessions": session_details(self._admission),
                "files": self._files.details(),
                "serving": serving_details(self._load, self._features.n_threads),
                "engine": engine_details(state, model, self._engine.stats(), now_s, self._window_pad_s()),
                "samples": self._metrics.sample_counts(),
                "limits": limit_details(self._settings),
                **self._self_stop.details(),
            },
        )

    def _window_pad_s(self) -> float | None:
        return None if self._ready_s is None else self._owner.info.pad_frames / FRAMES_PER_SECOND

    def render_metrics(self) -> tuple[bytes, str]:
        """Prometheus text and its content type."""
        stats = self._engine.stats()
        waiting = {job.name.lower(): counts.waiting for job, counts in stats.classes.items()}
        self._metrics.engine(stats.restarts, waiting, stats.coalesced, stats.partial_interval_s, stats.max_streams)
        return self._metrics.render()


async def _index(request: Request) -> PlainTextResponse:
    return PlainTextResponse(
        "Speech-to-text: live over WebSocket, files at /v1/audio/transcriptions. /ping tells whether it is ready.\n"
    )
