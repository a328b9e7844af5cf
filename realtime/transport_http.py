"""One HTTP/1.1 connection: uvicorn's httptools protocol with the deadlines that it lacks.

Deriving from `HttpToolsProtocol` keeps what it does well (keep-alive, pipelining, chunked bodies,
back-pressure). The price is that the class is no documented interface: the names used here are
listed in `RELIED_UPON`, a test fails if one of them disappears, and `pyproject.toml` bounds the
version. What is overridden, and why: heads, bodies and responses may otherwise take for ever; heads
may be of any size; a connection that ends in the middle of a body takes the answer with it; request targets,
which may carry secrets, are logged; upgraded connections go to uvicorn's own WebSocket class, which
drops what a peer sent behind its handshake.

Knows nothing of what requests mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from realtime.transport_base import MAX_HEAD_BYTES, RETRY_AFTER_S, Connection, Hub, plain_app, render_response
from realtime.transport_parts import Deadline
from realtime.transport_ws import WebSocketProtocol

__all__ = ["RELIED_UPON", "HttpHub", "HttpProtocol"]

logger = logging.getLogger("realtime.transport")

RELIED_UPON = (
    "_should_upgrade",
    "_should_upgrade_to_ws",
    "_unset_keepalive_if_required",
    "access_log",
    "app",
    "client",
    "connection_lost",
    "connection_made",
    "connections",
    "cycle",
    "data_received",
    "flow",
    "headers",
    "loop",
    "on_headers_complete",
    "on_message_begin",
    "on_message_complete",
    "on_response_complete",
    "parser",
    "pause_writing",
    "resume_writing",
    "scheme",
    "scope",
    "server",
    "shutdown",
    "transport",
)
"""Attributes of uvicorn's class that are used, called or overridden here (and `url`, which it sets late)."""

RETRY_LATER = [(b"retry-after", str(RETRY_AFTER_S).encode())]
_unavailable = plain_app(503, "Service Unavailable", RETRY_AFTER_S)
_head_too_large = plain_app(431, "Request Header Fields Too Large")


class HttpHub(Hub, Protocol):
    """What an HTTP connection needs of the listener beyond what every connection needs."""

    state: ServerState

    def may_ask(self, connection: Connection) -> bool:
        """A request head is complete: tell whether the application is to answer it, or 503."""
        ...


class _CloseLater:
    """A transport whose `close` is the connection's own to decide about."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class HttpProtocol(HttpToolsProtocol):
    """An accepted connection until it ends or becomes a WebSocket."""

    def __init__(self, hub: HttpHub, config: Config) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(config=config, server_state=hub.state, app_state={}, _loop=loop)
        self.access_log = False  # its lines hold the request target
        self._hub = hub
        self._accepted_s = loop.time()
        self._head_bytes = 0
        self._in_body = False
        self._is_discarding = False
        self._is_last = False
        self._discard_left_bytes = 0
        self._discard_deadline = Deadline(loop, self.abort)
        self._head_deadline = Deadline(loop, self._head_overdue)
        self._body_deadline = Deadline(loop, self._body_overdue)
        self._write_deadline = Deadline(loop, self.abort)

    # Callbacks of the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is ready (after the TLS handshake, if there is one)."""
        super().connection_made(transport)
        self._hub.attached(self)
        # What is unsent counts as a pause, so that the write deadline sees it. Not 0: asyncio's TLS
        # transports pause at a mark, not above it, and would never resume.
        transport.set_write_buffer_limits(high=1, low=0)
        spent_s = self.loop.time() - self._accepted_s
        self._head_deadline.start(max(self._hub.limits.header_timeout_s - spent_s, 0.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason."""
        self._stop_deadlines()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.transport.close()
        self._hub.detached(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; every way it can fail ends in one short response."""
        self._unset_keepalive_if_required()
        self._before_feed(len(data))
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(400, "Invalid HTTP request received.")
            return
        if not self._in_body and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Request Header Fields Too Large")

    def _should_upgrade_to_ws(self) -> bool:
        return True

    def pause_writing(self) -> None:
        """Response bytes wait for the peer."""
        super().pause_writing()
        self._write_deadline.start(self._hub.limits.write_stall_s)

    def resume_writing(self) -> None:
        """The peer has taken all of them."""
        super().resume_writing()
        self._write_deadline.stop()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """A request head begins, which may be in the middle of pipelined input."""
        self._hub.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """A request head is complete: choose who answers."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._head_deadline.stop()
        self._head_bytes = 0
        self._in_body = True
        self.app = cast(Any, self._refusal(size) or self._hub.app)
        self._body_deadline.start(self._hub.limits.body_idle_s)
        self._is_last = False
        super().on_headers_complete()
        if self.app is self._hub.app and self.cycle is not None:
            self.cycle.transport = cast(Any, _CloseLater(self.transport, self._close))

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._in_body = False
        self._body_deadline.stop()
        super().on_message_complete()
        if self._is_discarding:
            self._is_discarding = False
            self._discard_deadline.stop()
            self._head_deadline.start(self._hub.limits.header_timeout_s)
            if self._is_last:
                self.transport.close()

    def on_response_complete(self) -> None:
        """A response is complete; its request may not be (an early refusal of an upload).

        What is left of the body is read and forgotten, within bounds: to close with unread input would
        reset the connection, and a peer that still sends would never see its answer.
        """
        super().on_response_complete()
        if self._in_body and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._is_discarding = True
            self._discard_left_bytes = self._hub.limits.discard_bytes
            self._discard_deadline.start(self._hub.limits.discard_s)

    def abort(self) -> None:
        """Drop the connection at once, unsent output included."""
        self.transport.abort()

    def _close(self) -> None:
        if self._in_body and self.cycle.response_complete:
            self._is_last = True
        else:
            self.transport.close()

    # Deadlines

    def _before_feed(self, size_bytes: int) -> None:
        if not self._in_body:
            self._head_bytes += size_bytes
            self._expect_head()
            return
        if self._body_deadline.running:
            self._body_deadline.start(self._hub.limits.body_idle_s)
        if self._is_discarding:
            self._discard_left_bytes -= size_bytes
            if self._discard_left_bytes < 0:
                self.abort()

    def _expect_head(self) -> None:
        if not self._head_deadline.running:
            self._head_deadline.start(self._hub.limits.header_timeout_s)

    def _head_overdue(self) -> None:
        if self._head_bytes and not self._in_body:
            self._refuse(408, "Request Timeout")
        else:
            self.abort()

    def _body_overdue(self) -> None:
        if self.flow.read_paused:
            self._body_deadline.start(self._hub.limits.body_idle_s)
        else:
            self.abort()

    def _stop_deadlines(self) -> None:
        for deadline in (
            self._head_deadline,
            self._body_deadline,
            self._discard_deadline,
            self._write_deadline,
        ):
            deadline.close()

    # Refusals and the upgrade

    def _refusal(self, head_size_bytes: int) -> ASGIApp | None:
        if head_size_bytes > MAX_HEAD_BYTES:
            return _head_too_large
        return None if self._hub.may_ask(self) else _unavailable

    def _refuse(self, status: int, text: str) -> None:
        if self.transport.is_closing():
            return
        logger.info("refused an HTTP request: %d %s", status, text)
        headers = RETRY_LATER if status == 503 else []
        self.transport.write(render_response(status, headers, text.encode()))
        self.transport.close()

    def _upgrade(self, early: bytes) -> None:
        if self.app is _unavailable:
            self._refuse(503, "Service Unavailable")
        elif self.app is _head_too_large:
            self._refuse(431, "Request Header Fields Too Large")
        elif self.scope["method"] != "GET" or (self.cycle is not None and not self.cycle.response_complete):
            self._refuse(400, "Invalid WebSocket upgrade request.")
        else:
            try:
                scope = self._websocket_scope()
            except (httptools.HttpParserError, UnicodeDecodeError):
                self._refuse(400, "Invalid WebSocket upgrade request.")
                return
            self._hand_over(scope, early)

    def _hand_over(self, scope: Scope, early: bytes) -> None:
        head = [b"GET ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            head += [name, b": ", value, b"\r\n"]
        head.append(b"\r\n")
        self._stop_deadlines()
        self.connections.discard(self)
        self._hub.detached(self)
        connection = WebSocketProtocol(self._hub, self.transport, scope)
        self.transport.set_protocol(connection)
        connection.start(b"".join(head), early)

    def _websocket_scope(self) -> Scope:
        target = httptools.parse_url(self.url)
        raw_path = target.path or b"/"
        offered = [value for name, value in self.headers if name == b"sec-websocket-protocol"]
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "server": self.server,
            "client": self.client,
            "root_path": "",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": target.query or b"",
            "headers": self.headers,
            "subprotocols": [item.strip() for value in offered for item in value.decode("latin-1").split(",")],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
