"""The network skin: sockets on one side, an ASGI application on the other.

`serve` listens and returns a `Listener`; it installs no signal handler, writes no request target to
any log and never ends a healthy connection by itself: on the way out the application sends what it
still has to send and closes its own sockets. uvicorn's `Server` does the opposite of all three,
therefore only its HTTP parser glue is used here (see `realtime.transport_http`).

ASGI lifespan events are not sent: who calls `serve` also starts and stops what the application needs.

Knows nothing of sessions, audio or models.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from realtime.transport_base import DEFAULT_LIMITS, RETRY_AFTER_S, ClientDisconnectedError, Connection, Limits
from realtime.transport_http import HttpProtocol
from realtime.transport_sockets import listening_sockets, tls_context

__all__ = ["DEFAULT_LIMITS", "RETRY_AFTER_S", "ClientDisconnectedError", "Limits", "Listener", "serve"]

logger = logging.getLogger("realtime.transport")

ACCEPT_BURST = 16
"""Accept at most this many per turn of the event loop, so that a flood does not stall live streams."""
ACCEPT_PAUSE_S = 0.5
"""How long to wait when the process is out of file descriptors; others free theirs meanwhile."""
OVERFLOW = 64
"""Refused connections that may still be on their way out (a TLS peer that says no goodbye); beyond
them a new socket is closed unanswered."""
CANCEL_WAIT_S = 1.0
"""What application tasks get to end after their connections are gone, and again after being cancelled."""


class Listener:
    """Listening sockets and the connections that came from them."""

    def __init__(
        self, app: ASGIApp, sockets: list[socket.socket], limits: Limits, context: ssl.SSLContext | None
    ) -> None:
        self.app = app
        self.limits = limits
        self.state = ServerState()
        self.draining = False
        self.port: int = sockets[0].getsockname()[1]
        """The TCP port in use, also when 0 was asked for."""
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._context = context
        self._config = _config(app, limits)
        self._connections: set[Connection] = set()
        self._established: set[Connection] = set()
        # Insertion order is order of arrival: who is first has been half open for longest.
        self._half_open: dict[Connection, None] = {}
        self._opening: dict[Connection, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        for sock in sockets:
            self._loop.add_reader(sock, self._acceptable, sock)

    @property
    def connections(self) -> int:
        """Connections at this moment, half-open ones included."""
        return len(self._connections) + len(self._opening)

    # The end

    def refuse_new(self) -> None:
        """Answer 503 to every new request, upgrades too; WebSockets that are open stay open. Idempotent."""
        self.draining = True

    def stop_accepting(self) -> None:
        """Refuse new connections at once, and answer 503 to new requests on open ones; idempotent.

        WebSockets that are open stay open.
        """
        self.draining = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets = []

    async def aclose(self, grace_s: float) -> None:
        """Stop accepting, wait up to `grace_s` for connections to end, then drop the rest; idempotent."""
        self.stop_accepting()
        for connection in list(self._connections):
            if isinstance(connection, HttpProtocol):
                connection.shutdown()
        await self._wait_until_empty(grace_s)
        for task in list(self._opening.values()):
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        await self._end_tasks()

    async def _wait_until_empty(self, grace_s: float) -> None:
        deadline_s = self._loop.time() + grace_s
        while self.connections:
            self._changed.clear()
            left_s = deadline_s - self._loop.time()
            if left_s <= 0:
                return
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except asyncio.TimeoutError:
                return

    async def _end_tasks(self) -> None:
        for cancel in (False, True):
            tasks = {*self._tasks, *self.state.tasks}
            if not tasks:
                return
            if cancel:
                for task in tasks:
                    task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_WAIT_S)

    # What connections call

    def attached(self, connection: Connection) -> None:
        """Count the connection from now on; one that is no HTTP connection has asked already."""
        self._connections.add(connection)
        self._opening.pop(connection, None)
        if not isinstance(connection, HttpProtocol):
            self._established.add(connection)

    def detached(self, connection: Connection) -> None:
        """Forget the connection; it is gone."""
        self._connections.discard(connection)
        self._established.discard(connection)
        self._half_open.pop(connection, None)
        self._changed.set()

    def may_ask(self, connection: Connection) -> bool:
        """A request head is complete: tell whether the application is to answer it, or 503.

        Only here does a connection take one of the places, so that half-open ones hold none.
        """
        self._half_open.pop(connection, None)
        if self.draining:
            return False
        if connection not in self._established and len(self._established) >= self.limits.connections:
            return False
        self._established.add(connection)
        return True

    def run(self, application: Coroutine[Any, Any, None]) -> None:
        """Run an application call as a task that `aclose` awaits."""
        self._spawn(application)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Accepting

    def _acceptable(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_BURST):
            try:
                sock, _address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("cannot accept connections for %.1f s: %s", ACCEPT_PAUSE_S, error.strerror)
                self._loop.remove_reader(listening)
                self._loop.call_later(ACCEPT_PAUSE_S, self._accept_again, listening)
                return
            sock.setblocking(False)
            self._admit(sock)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            self._loop.add_reader(listening, self._acceptable, listening)

    def _admit(self, sock: socket.socket) -> None:
        if self.connections >= self.limits.connections + self.limits.half_open + OVERFLOW:
            sock.close()
            return
        protocol = HttpProtocol(self, self._config)
        task = self._spawn(self._open(sock, protocol))
        self._half_open[protocol] = None
        self._opening[protocol] = task
        task.add_done_callback(partial(self._opened, sock, protocol))
        if len(self._half_open) > self.limits.half_open:
            self._drop_oldest_half_open()

    def _drop_oldest_half_open(self) -> None:
        # An honest peer completes its head within a round trip; the oldest is the likeliest to dawdle.
        oldest = next(iter(self._half_open))
        del self._half_open[oldest]
        opening = self._opening.get(oldest)
        if opening is not None:
            opening.cancel()
        else:
            oldest.abort()

    async def _open(self, sock: socket.socket, protocol: HttpProtocol) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=self._context,
                **self._tls_timeouts(),
            )
        except (OSError, asyncio.TimeoutError):
            # No TLS handshake, or none in time: nobody is there who could be answered.
            sock.close()

    def _tls_timeouts(self) -> dict[str, float]:
        if self._context is None:
            return {}
        timeouts = {"ssl_handshake_timeout": self.limits.header_timeout_s}
        if sys.version_info >= (3, 11):  # Python 3.10 does not wait for the peer's goodbye
            timeouts["ssl_shutdown_timeout"] = self.limits.close_timeout_s
        return timeouts

    def _opened(self, sock: socket.socket, protocol: HttpProtocol, task: asyncio.Task[None]) -> None:
        if self._opening.pop(protocol, None) is not None:
            # It never became a connection.
            self.detached(protocol)
        if task.cancelled():
            sock.close()
        elif task.exception() is not None:
            logger.error("a connection could not be opened", exc_info=task.exception())


def _config(app: ASGIApp, limits: Limits) -> Config:
    config = Config(
        app,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        interface="asgi3",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.keep_alive_s,
    )
    config.load()
    return config


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    limits: Limits = DEFAULT_LIMITS,
    ssl_certfile: str | Path | None = None,
    ssl_keyfile: str | Path | None = None,
) -> Listener:
    """Listen on every address of `host`; port 0 takes any free one. TLS if a certificate is given.

    Raises ConfigError if the address cannot be had or the certificate cannot be read.
    """
    context = tls_context(ssl_certfile, ssl_keyfile) if ssl_certfile is not None else None
    return Listener(app, await listening_sockets(host, port), limits, context)
