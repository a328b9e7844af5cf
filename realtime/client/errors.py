"""What can go wrong for a client, each with the exit code of the command line.

Knows nothing of sockets. The messages are made for people: one line, no secret.
"""

from __future__ import annotations

from engine.errors import AtCapacityError, ClientError, ServerError, SttError, UnauthorizedError

__all__ = [
    "ConnectError",
    "RefusedError",
    "ServerFullError",
    "SourceError",
    "StreamBrokenError",
    "UsageError",
    "exit_code",
]

EXIT_BROKEN, EXIT_USAGE, EXIT_CONNECT, EXIT_UNAUTHORIZED, EXIT_FULL = 1, 2, 3, 4, 5


class ConnectError(ServerError):
    """No server could be reached at the address."""

    code = "cannot_connect"


class StreamBrokenError(ServerError):
    """The connection ended before the text of all audio had arrived."""

    code = "stream_broken"


class RefusedError(ClientError):
    """The server did not accept what the stream asked for."""

    code = "refused"


class SourceError(ClientError):
    """A file or microphone cannot be read, or a document cannot be written."""

    code = "bad_source"


class UsageError(ClientError):
    """Options that do not go together."""

    code = "usage"


class ServerFullError(AtCapacityError):
    """The server is full; `minutes` is its guess of when a place is free, None if it gave none."""

    def __init__(self, minutes: float | None) -> None:
        guess = "" if minutes is None else f"; it expects a free place in {minutes:.1f} min"
        super().__init__(f"the server is full{guess}")
        self.minutes = minutes


def exit_code(error: SttError) -> int:
    """The exit code for an error that ends a stream."""
    if isinstance(error, ConnectError):
        return EXIT_CONNECT
    if isinstance(error, UnauthorizedError):
        return EXIT_UNAUTHORIZED
    if isinstance(error, AtCapacityError):
        return EXIT_FULL
    return EXIT_USAGE if isinstance(error, ClientError) else EXIT_BROKEN
