"""Who may connect: one shared secret, shown in any of the ways that clients can show one.

    Authorization: Bearer X          everything but browsers
    ?token=X                         WhisperLive's own clients, curl
    /t/X/...                         clients that take nothing but an address
    Sec-WebSocket-Protocol:          browsers, which cannot set headers; `new WebSocket(url, [...])`
        bearer, X                    the form to prefer: the server answers "bearer", never the secret
        token.X                      one item, for client libraries that allow no more
        token64.<base64url of X>     a secret with characters that a subprotocol may not hold
        X                            the bare secret

A browser fails the connection if it offers subprotocols and none is chosen, so one of the offered
items is always echoed when a secret may be among them: the marker `bearer`, else an item that holds
no secret, else, unavoidably, the item itself.

The secret is compared as bytes, in constant time, with every candidate (CWE-208); nothing here logs.
Time is an argument. Knows nothing of sockets and of what a session is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from starlette.types import Scope

from engine.clock import Clock, MonotonicClock
from realtime.peers import FailureLimiter, peer_address, peer_key

__all__ = [
    "MAX_CANDIDATES",
    "AuthResult",
    "Authenticator",
    "Entry",
    "Gate",
]

MARKER = "bearer"
PATH_PREFIX = "/t/"
MAX_CANDIDATES = 32
"""Secrets looked at per request; an honest client shows one or two, a head has room for thousands."""


@dataclass(frozen=True)
class AuthResult:
    """What one request shows.

    `presented` is True if it shows any secret, right or wrong. `subprotocol` is what to accept a
    WebSocket with. `path` is the request's, percent-decoded, without its token segment.
    """

    ok: bool
    presented: bool
    subprotocol: str | None
    path: str


@dataclass(frozen=True)
class Entry:
    """The decision about one request.

    `status` is 200, 401 (no secret, or a wrong one) or 429 (too many wrong ones; try again after
    `retry_after_s`). `reason` is for the peer.
    """

    status: int
    reason: str
    retry_after_s: int
    subprotocol: str | None
    path: str

    @property
    def ok(self) -> bool:
        """True if the request may go on."""
        return self.status == 200

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to a refusal (RFC 9110 sections 10.2.3 and 11.6.1)."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": str(self.retry_after_s)} if self.status == 429 else {}


class Authenticator:
    """Looks for the one secret in ASGI scopes (`http` and `websocket`); None lets everybody in."""

    def __init__(self, token: str | None) -> None:
        self._digest = None if token is None else _digest(token.encode())

    @property
    def required(self) -> bool:
        """True if there is a secret."""
        return self._digest is not None

    def check(self, scope: Scope) -> AuthResult:
        """Look at every place that can hold a secret; never raises, whatever the peer has sent."""
        segment, path = _split_path(scope)
        offered = [str(item) for item in scope.get("subprotocols") or ()]
        candidates = [*_from_headers(scope), *_from_query(scope), *segment, *_from_subprotocols(offered)]
        # All of them are compared: how long that takes does not tell which one was right.
        matches = [self._matches(candidate) for candidate in candidates[:MAX_CANDIDATES]]
        return AuthResult(
            ok=not self.required or any(matches),
            presented=bool(candidates),
            subprotocol=self._echo(offered),
            path=path,
        )

    def _matches(self, candidate: bytes) -> bool:
        # Digests are of equal length, so not even the secret's length shows in the timing.
        return self._digest is not None and hmac.compare_digest(_digest(candidate), self._digest)

    def _echo(self, offered: Sequence[str]) -> str | None:
        if MARKER in offered:
            return MARKER
        secret = [item for item in offered if any(self._matches(value) for value in _forms(item))]
        if not secret:
            return None
        return next((item for item in offered if item not in secret), secret[0])


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()


def _from_headers(scope: Scope) -> Iterator[bytes]:
    for name, value in scope.get("headers") or ():
        scheme, _, rest = bytes(value).strip().partition(b" ")
        if name == b"authorization" and scheme.lower() == b"bearer":
            yield rest.strip()


def _from_query(scope: Scope) -> Iterator[bytes]:
    for pair in bytes(scope.get("query_string") or b"").split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"token":
            yield unquote_to_bytes(value.replace(b"+", b" "))
            # An unencoded "+" is what people paste; a form encoder writes it as %2B.
            if b"+" in value:
                yield unquote_to_bytes(value)


def _from_subprotocols(offered: Sequence[str]) -> Iterator[bytes]:
    for item in offered:
        if item != MARKER:
            yield from _forms(item)


def _forms(item: str) -> Iterator[bytes]:
    raw = item.encode("latin-1", errors="replace")
    yield raw
    if raw.startswith(b"token."):
        yield raw[len(b"token.") :]
    if raw.startswith(b"token64."):
        encoded = raw[len(b"token64.") :]
        try:
            yield base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            return


def _split_path(scope: Scope) -> tuple[list[bytes], str]:
    # The raw path, because a secret may hold an encoded slash.
    raw = scope.get("raw_path")
    path = str(scope.get("path") or "/")
    text = raw.decode("latin-1") if isinstance(raw, bytes) else path
    if not text.startswith(PATH_PREFIX):
        return [], path
    segment, _, rest = text[len(PATH_PREFIX) :].partition("/")
    if not segment:
        return [], path
    return [unquote_to_bytes(segment)], "/" + unquote(rest)


class Gate:
    """Authenticator and failure limiter together: what servers ask about each request."""

    def __init__(
        self, authenticator: Authenticator, limiter: FailureLimiter | None = None, clock: Clock | None = None
    ) -> None:
        self.authenticator = authenticator
        self._limiter = limiter or FailureLimiter()
        self._clock = clock or MonotonicClock()

    def admit(self, scope: Scope) -> Entry:
        """Decide about a request.

        The right secret always passes: behind a pod's proxy all peers share one address, and a
        guesser must not be able to lock the others out. What keeps guessing hopeless is the length
        of the secret (`engine.settings.MIN_TOKEN_CHARS`); the limit keeps it cheap and visible.
        A request that shows no secret is refused but not counted: it guesses nothing.
        """
        result = self.authenticator.check(scope)
        if result.ok:
            return _entry(200, "", result)
        if not result.presented:
            return _entry(401, "a secret is required", result)
        now_s = self._clock.now_s()
        peer = peer_key(peer_address(scope))
        wait_s = math.ceil(self._limiter.retry_after_s(peer, now_s))
        if wait_s > 0:
            return _entry(429, f"too many wrong secrets; wait {wait_s} s", result, wait_s)
        self._limiter.record(peer, now_s)
        return _entry(401, "the secret is wrong", result)


def _entry(status: int, reason: str, result: AuthResult, retry_after_s: int = 0) -> Entry:
    return Entry(status, reason, retry_after_s, result.subprotocol, result.path)
