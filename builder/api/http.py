"""HTTP to RunPod and to pods: the only place that imports requests.

The key travels in the Authorization header and nowhere else: no redirect is followed, `~/.netrc` is not asked, plain
HTTP goes to this machine only and past any proxy. Every wait, answer and number of tries has a limit named here or in
`builder.api.retries`. Sockets and texts of exceptions stay inside: callers see errors of `builder.errors`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from builder.api.answers import Answer, Reply, judge, lost, parse_json, unreadable
from builder.api.deadline import within
from builder.api.retries import Failure, Retry, given_up, next_wait_s
from builder.api.sse import lines
from builder.clock import Clock, SystemClock
from builder.errors import BuilderError, NetworkError, NotFoundError, ServerFaultError, UsageError
from builder.redact import Redactor

__all__ = ["Answer", "Http", "Reply", "get_once", "is_loopback", "is_safe_for_keys", "post_file"]

CONNECT_S = 5.0
READ_S = 30.0
"""Longest silence inside one answer."""
ANSWER_S = 120.0
"""Longest time for one whole answer, however steadily it trickles."""
STREAM_SILENCE_S = 300.0
"""Longest silence of a stream whose caller sets no limit."""
MAX_ANSWER_BYTES = 16 * 2**20
MAX_UPLOAD_BYTES = 64 * 2**20
CHUNK_BYTES = 65_536
USER_AGENT = "whisper-runpod-builder/1 (python-requests)"
"""Cloudflare, in front of GraphQL, refuses the default ones of libraries."""
_REAL = SystemClock()
"""Sockets wait in real time, also where the rest lives in a test's."""
_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError)
_T = TypeVar("_T")


class _TooLongError(Exception):
    """An answer beyond a limit."""


class _Authorization(AuthBase):
    """Sets the header, or leaves the request as it is; its mere presence keeps requests from asking `~/.netrc`."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value is not None:
            request.headers["Authorization"] = self._value
        return request


@dataclass(frozen=True)
class _Call:
    """One request, as often as it is sent. `is_read`: it changes nothing."""

    method: str
    path: str
    what: str
    is_read: bool
    silence_s: float
    query: Mapping[str, Any] | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Http:
    """One API: its base address, its key, its manners. `note` hears of every wait before a new try."""

    def __init__(
        self,
        base: str,
        *,
        key: str,
        clock: Clock,
        redactor: Redactor,
        note: Callable[[str], None],
        draw: Callable[[], float] | None = None,
    ) -> None:
        if not is_safe_for_keys(base):
            raise UsageError(f"{base[:100]!r}: a key goes to https:// only, or to http:// of this machine", hint="")
        self._base = base.rstrip("/")
        self._authorization = f"Bearer {key}"
        self._clock = clock
        self._redactor = redactor
        self._note = note
        self._draw = draw or random.SystemRandom().random
        self._pooled = _session(self._base, self._authorization)
        redactor.add(key)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        retry: Retry,
        what: str = "",
    ) -> Reply:
        """Send, and again as `retry` allows (see `builder.api.retries`); `what` is the operation in words for messages.

        Raises the error for a refusal (`builder.api.problems`), NetworkError, BadAnswerError; AmbiguousError if
        something that changes things was sent and no answer, or none that can be read, came back.
        """
        is_read = method == "GET" or (method == "POST" and retry == "any")
        call = _Call(method, path, what or f"{method} {path}", is_read, READ_S, query, body)

        def attempt() -> Reply | Failure:
            if retry == "any":
                return self._send(self._pooled, call, self._finish)
            # A connection that idled may be dead without our knowing, which would look like a lost answer: a new one.
            with _session(self._base, self._authorization) as session:
                return self._send(session, call, self._finish)

        return self._retrying(attempt, retry)

    def stream_lines(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        idle_s: float | None = None,
        what: str = "",
    ) -> Iterator[str]:
        """Lines of one streamed answer, as they come; opening it is retried, the rest is not.

        Ends when the server ends it, or after `idle_s` real seconds without a line of data (comments and names of
        events do not count). Raises NetworkError when it breaks, or is silent for STREAM_SILENCE_S.
        """
        accept = {"Accept": "text/event-stream", **(headers or {})}
        # The beginning may take its time even where later silence means the end.
        silence_s = STREAM_SILENCE_S if idle_s is None else max(idle_s, CONNECT_S)
        call = _Call("GET", path, what or f"GET {path}", True, silence_s, query, headers=accept)
        with _session(self._base, self._authorization) as session:
            response = self._retrying(lambda: self._send(session, call, self._finish_opening), "any")
            with response:
                if idle_s is not None:
                    _set_silence(response, idle_s)
                yield from self._lines(response, call.what, idle_s)

    def pause(self, failures: int, why: str) -> None:
        """Wait as before another try, after `failures` of them; for callers that decide by themselves."""
        wait_s = next_wait_s(Failure(ServerFaultError(why)), failures, "any", self._draw)
        self._wait(wait_s or 0.0, why)

    def now_s(self) -> float:
        """Seconds of the clock that the waits here follow."""
        return self._clock.monotonic_s()

    def hide(self, secret: str) -> None:
        """Keep `secret`, which a body will hold, out of messages: an API may quote what it rejects."""
        self._redactor.add(secret)

    def _retrying(self, attempt: Callable[[], _T | Failure], retry: Retry) -> _T:
        failures = 0
        while True:
            outcome = attempt()
            if not isinstance(outcome, Failure):
                return outcome
            failures += 1
            wait_s = next_wait_s(outcome, failures, retry, self._draw)
            if wait_s is None:
                raise self.cleaned(given_up(outcome, failures))
            self._wait(wait_s, str(outcome.error))

    def _wait(self, wait_s: float, why: str) -> None:
        self._note(self._redactor.clean(f"{why}; trying again in {wait_s:.1f} s"))
        self._clock.sleep(wait_s)

    def cleaned(self, error: BuilderError) -> BuilderError:
        """`error` with all that is secret taken out of its message."""
        message = self._redactor.clean(str(error))
        return type(error)(message, hint=error.hint, status=error.status, request_id=error.request_id)

    def _send(
        self, session: requests.Session, call: _Call, finish: Callable[[_Call, requests.Response], _T | Failure]
    ) -> _T | Failure:
        def exchange() -> _T | Failure:
            response = session.request(
                call.method,
                self._base + call.path,
                params=dict(call.query or {}),
                json=call.body,
                headers=dict(call.headers),
                timeout=(CONNECT_S, call.silence_s),
                allow_redirects=False,
                stream=True,
            )
            return finish(call, response)

        try:
            return within(ANSWER_S, exchange)
        except _TooLongError as error:
            return unreadable(call.what, call.is_read, str(error))
        except _FAULTS as error:
            is_unsent, why = _reason(error)
            return lost(call.what, call.is_read, why, is_unsent=is_unsent)

    def _finish(self, call: _Call, response: requests.Response) -> Reply | Failure:
        with response:
            text = _read(response)
        headers = {name.lower(): value for name, value in response.headers.items()}
        now_s, clean = self._clock.unix_s(), self._redactor.clean
        return judge(call.what, call.is_read, response.status_code, headers, text, now_s, clean)

    def _finish_opening(self, call: _Call, response: requests.Response) -> requests.Response | Failure:
        if response.status_code == 200:
            return response
        outcome = self._finish(call, response)
        return outcome if isinstance(outcome, Failure) else unreadable(call.what, True, "no stream came")

    def _lines(self, response: requests.Response, what: str, idle_s: float | None) -> Iterator[str]:
        last_s = _REAL.monotonic_s()

        def is_idle() -> bool:
            return idle_s is not None and _REAL.monotonic_s() - last_s > idle_s

        for line in lines(_chunks(response, what, is_idle, ends_when_idle=idle_s is not None)):
            if line.startswith("data"):
                last_s = _REAL.monotonic_s()
            yield line


def get_once(url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Answer:
    """One GET of a pod's port, any status; no second try, no redirect. Raises NetworkError."""
    return _once("GET", url, timeout_s, headers)


def post_file(
    url: str,
    path: Path,
    fields: Mapping[str, str],
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One multipart upload of `path` as field `file`, beside `fields`; otherwise like `get_once`.

    Raises NetworkError, NotFoundError (no such file) and UsageError (larger than MAX_UPLOAD_BYTES).
    """
    try:
        if path.stat().st_size > MAX_UPLOAD_BYTES:
            raise UsageError(f"{path}: larger than {MAX_UPLOAD_BYTES // 2**20} MiB", hint="choose a smaller file")
        content = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror or 'cannot be read'}", hint="") from None
    return _once("POST", url, timeout_s, headers, data=dict(fields), files={"file": (path.name, content)})


def is_safe_for_keys(base: str) -> bool:
    """True for an address that a key may go to: https, or this machine; without user, query and fragment."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username or parts.password or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    """True for names and addresses of this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _once(method: str, url: str, timeout_s: float, headers: Mapping[str, str] | None, **content: Any) -> Answer:
    started_s = _REAL.monotonic_s()
    limits: dict[str, Any] = {
        "timeout": (min(CONNECT_S, timeout_s), timeout_s),
        "allow_redirects": False,
        "stream": True,
    }

    def exchange() -> tuple[int, str]:
        with (
            _session(url, None) as session,
            session.request(method, url, headers=dict(headers or {}), **limits, **content) as response,
        ):
            return response.status_code, _read(response)

    try:
        status, text = within(timeout_s, exchange)
    except _TooLongError as error:
        raise NetworkError(f"{url}: {error}") from None
    except _FAULTS as error:
        raise NetworkError(f"{url}: {_reason(error)[1]}") from None
    return Answer(status, parse_json(text)[1], text, _REAL.monotonic_s() - started_s)


def _session(url: str, authorization: str | None) -> requests.Session:
    session = requests.Session()
    # A proxy would see the key of a plain request, and has no business with this machine's own ports.
    session.trust_env = not is_loopback(urlsplit(url).hostname or "")
    session.auth = _Authorization(authorization)
    # Uncompressed, what is read is what was sent, and the limit holds for both.
    session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"})
    return session


def _read(response: requests.Response) -> str:
    content = bytearray()
    while chunk := response.raw.read1(CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise _TooLongError(f"the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB")
    return content.decode("utf-8", errors="replace")


def _chunks(
    response: requests.Response, what: str, is_idle: Callable[[], bool], *, ends_when_idle: bool
) -> Iterator[bytes]:
    while not is_idle():
        try:
            chunk = response.raw.read1(CHUNK_BYTES)
        except (urllib3.exceptions.ReadTimeoutError, TimeoutError):
            if ends_when_idle:
                return
            raise NetworkError(f"{what}: silent for {STREAM_SILENCE_S:.0f} s") from None
        except _FAULTS:
            raise NetworkError(f"{what}: the connection broke") from None
        if not chunk:
            return
        yield chunk


def _set_silence(response: requests.Response, seconds: float) -> None:
    # Absent where the server will close the connection; then the limit of the opening stays.
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    if sock is not None:
        sock.settimeout(seconds)


def _reason(error: Exception) -> tuple[bool, str]:
    """Whether certainly nothing arrived, and what happened in words of ours: exceptions quote requests."""
    cause = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True, f"no connection within {CONNECT_S:.0f} s"
    if isinstance(error, requests.exceptions.ProxyError):
        return True, "the proxy does not connect"
    if isinstance(cause, urllib3.exceptions.NameResolutionError):
        return True, "the host's name is not known"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return True, "no connection"
    if isinstance(error, requests.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return True, "the server's certificate is not trusted"
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError)):
        return True, "an address or a header that HTTP does not allow"
    if isinstance(error, (requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return False, "no answer in time"
    if isinstance(error, ValueError) and not isinstance(error, requests.RequestException):
        # A Location, say, that is no address.
        return False, "an answer that HTTP does not allow"
    return False, "the connection broke before the answer was complete"
