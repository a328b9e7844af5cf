"""What both halves of the network skin share: its limits, and how a refusal is spelled.

Knows nothing of sessions, audio or models, and reads no socket. Every figure has its reason beside
it; all of them can be replaced through `Limits`, which is how tests avoid waiting for seconds.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "DEFAULT_LIMITS",
    "MAX_HEAD_BYTES",
    "RETRY_AFTER_S",
    "ClientDisconnectedError",
    "Connection",
    "Hub",
    "Limits",
    "plain_app",
    "render_response",
]

KIB = 1024
MAX_HEAD_BYTES = 16 * KIB
"""Request line and headers together: a 512-character secret, cookies and a long query fit several times."""
RETRY_AFTER_S = 5
"""What a refused peer is told to wait: one engine restart, or the time to send a reader elsewhere."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the network skin; seconds, bytes and counts."""

    connections: int = 256
    """Peers served at once, of every kind; each may pin one message in assembly and one in its queue."""
    half_open: int = 100
    """Further sockets whose request head is not complete; beyond it the oldest gives way to the newest."""
    header_timeout_s: float = 5.0
    """From accept to the end of the request head, TLS handshake included (against slow-loris)."""
    keep_alive_s: int = 5
    """An idle HTTP connection between two requests; health checkers reconnect cheaply."""
    body_idle_s: float = 20.0
    """A request body that has stopped arriving; the length of a ping period."""
    discard_s: float = 60.0
    """For the rest of a body that was answered early: many clients read nothing before all of theirs is sent."""
    discard_bytes: int = 1_024 * KIB * KIB
    """Bound of the same rest, which is read and forgotten: twice the largest file that is taken by default."""
    write_stall_s: float = 20.0
    """An HTTP peer that takes no byte of its response; the length of a ping period."""
    message_timeout_s: float = 10.0
    """From the first byte of a message to its last, not counting time in which we did not read."""
    ping_interval_s: float = 20.0
    """Below the 100 s after which public proxies cut an idle connection, as peers' servers do."""
    ping_timeout_s: float = 20.0
    """How long nothing at all may arrive after a ping while we read."""
    close_timeout_s: float = 5.0
    """From our close frame to the end of the connection; a drain has 8 s in all."""
    max_message_bytes: int = 4 * KIB * KIB
    """65 s of float32 audio at 16 kHz in one message: more than any known client sends."""
    queue_messages: int = 32
    """Messages that wait for the application; 8 s of audio in WhisperLive's usual 4096-sample frames."""
    queue_bytes: int = 512 * KIB
    """Bytes that wait for the application: 32 frames of 4096 float32 samples, the two bounds agree."""
    write_high_bytes: int = 64 * KIB
    """`send` waits above this much unsent output: several hundred messages, so only a slow reader meets it."""


DEFAULT_LIMITS = Limits()


class ClientDisconnectedError(OSError):
    """`send` after the peer has gone; an OSError, as the ASGI specification 2.4 asks."""


def render_response(status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"") -> bytes:
    """Serialise one complete HTTP/1.1 response that ends its connection.

    Raises ValueError for a header that would break out of its line.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    given = [(name.lower(), value) for name, value in headers]
    fields = {
        b"date": formatdate(usegmt=True).encode(),
        b"content-type": b"text/plain; charset=utf-8",
        b"content-length": str(len(body)).encode(),
    }
    for name, _ in given:
        fields.pop(name, None)
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    for name, value in [*fields.items(), *given, (b"connection", b"close")]:
        line = name + b": " + value
        if b"\r" in line or b"\n" in line:
            raise ValueError("a response header must not hold a line break")
        lines.append(line)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def plain_app(status: int, text: str, retry_after_s: int | None = None) -> ASGIApp:
    """An application that gives every HTTP request one short answer and ends its connection."""
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after_s).encode()))

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


class Connection(Protocol):
    """What the listener may do to any connection."""

    def abort(self) -> None:
        """Drop the connection at once, unsent output included."""
        ...


class Hub(Protocol):
    """What a connection needs of the listener that owns it."""

    app: ASGIApp
    limits: Limits

    def attached(self, connection: Connection) -> None:
        """Count the connection from now on."""
        ...

    def detached(self, connection: Connection) -> None:
        """Forget the connection; it is gone."""
        ...

    def run(self, application: Coroutine[Any, Any, None]) -> None:
        """Run an application call as a task that the listener awaits when it closes."""
        ...
