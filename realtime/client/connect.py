"""Opens the WebSocket of a client: headers, retries, and errors in plain words.

Knows nothing of the messages on the socket. Invariants: the token travels in the Authorization header
alone and never to another address than the one given (redirects are not followed); all waiting
is bounded by CONNECT_BUDGET_S; only what may pass by itself (connection refused, HTTP 503) is retried.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from engine.clock import Clock, MonotonicClock
from engine.errors import UnauthorizedError
from realtime.client.errors import ConnectError

__all__ = ["CONNECT_BUDGET_S", "is_loopback", "open_socket", "retry_delays_s"]

CONNECT_BUDGET_S = 10.0
"""How long attempts are repeated: a server that restarts is back within it; longer looks like a hang."""
FIRST_DELAY_S, LONGEST_DELAY_S, JITTER_S = 0.25, 4.0, 0.5
"""Back-off between attempts: doubling, with jitter so that many clients do not return at once."""
OPEN_TIMEOUT_S = 10.0
"""One attempt: TCP, TLS and the HTTP upgrade."""
PING_INTERVAL_S = 20.0
"""Keeps proxies from cutting a quiet connection (the usual limits are 60 to 100 s)."""
PING_TIMEOUT_S = 60.0
"""A pong queues behind audio that the server has not read yet, so it may take long on a busy one."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Messages are some KiB; this much has room for any honest server and bounds a false one."""
CLOSE_TIMEOUT_S = 5.0


class _Connect(connect):
    """Opens a WebSocket and follows no redirect: the token is meant for one address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def retry_delays_s(jitter_s: Callable[[], float]) -> Iterator[float]:
    """Endless delays: 0.25 s, doubling up to 4 s, plus `jitter_s()` each."""
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s + jitter_s()
        delay_s = min(2 * delay_s, LONGEST_DELAY_S)


def is_loopback(url: str) -> bool:
    """True if the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def open_socket(
    url: str,
    token: str | None,
    *,
    budget_s: float = CONNECT_BUDGET_S,
    on_retry: Callable[[str], None] | None = None,
    clock: Clock | None = None,
) -> ClientConnection:
    """Connect, retrying for `budget_s`; `on_retry` is told the reason of each failed attempt.

    Raises ConnectError, or UnauthorizedError if the server answers 401 or 403.
    """
    clock = clock or MonotonicClock()
    deadline_s = clock.now_s() + budget_s
    source = random.SystemRandom()
    for delay_s in retry_delays_s(lambda: source.uniform(0, JITTER_S)):
        try:
            return await _attempt(url, token)
        except (OSError, InvalidHandshake, InvalidURI, asyncio.TimeoutError) as error:
            reason = _explain(url, error)
            if not _may_pass(error) or clock.now_s() + delay_s > deadline_s:
                raise reason from None
            if on_retry is not None:
                on_retry(str(reason))
            await asyncio.sleep(delay_s)
    raise AssertionError("the delays never end")


async def _attempt(url: str, token: str | None) -> ClientConnection:
    return await _Connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        # A proxy from the environment cannot reach this machine's loopback.
        proxy=None if is_loopback(url) else True,
        # Audio hardly shrinks, and the attempt would cost both sides time.
        compression=None,
        open_timeout=OPEN_TIMEOUT_S,
        ping_interval=PING_INTERVAL_S,
        ping_timeout=PING_TIMEOUT_S,
        close_timeout=CLOSE_TIMEOUT_S,
        max_size=MAX_MESSAGE_BYTES,
    )


def _may_pass(error: Exception) -> bool:
    if isinstance(error, InvalidStatus):
        return error.response.status_code == 503
    return _is_refused(error)


def _is_refused(error: Exception) -> bool:
    # asyncio folds the failures of several addresses of one name into one OSError without errno.
    return isinstance(error, ConnectionRefusedError) or f"[Errno {errno.ECONNREFUSED}]" in str(error)


def _explain(url: str, error: Exception) -> ConnectError | UnauthorizedError:
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}"
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in (401, 403):
            return UnauthorizedError(f"{where} refuses the token (HTTP {status})")
        return ConnectError(f"cannot connect to {where}: the server answered HTTP {status}")
    if _is_refused(error):
        return ConnectError(f"cannot connect to {where}: connection refused; is the server running?")
    if isinstance(error, asyncio.TimeoutError | TimeoutError):
        return ConnectError(f"cannot connect to {where}: no answer within {OPEN_TIMEOUT_S:g} s")
    if isinstance(error, ssl.SSLError):
        return ConnectError(f"cannot connect to {where}: TLS failed ({error.reason or error})")
    if isinstance(error, OSError):
        return ConnectError(f"cannot connect to {where}: {error.strerror or error}")
    return ConnectError(f"cannot connect to {where}: this is no WebSocket server ({type(error).__name__})")
