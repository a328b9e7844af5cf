"""One HTTP/1.1 GET over one connection to an address that was checked before.

The connection goes to the given address; Host header, SNI and certificate check stay on the name. No proxy, no
cookie, no name look-up, no reuse of connections, no redirect is followed. Knows no file and no cap on the body.
Invariants: heads are bounded; every wait is bounded; the connection is gone when the context ends, by cancellation
too; errors name the host at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

import httptools

from engine.errors import FetchError
from handler.addresses import Address, Target
from handler.resolver import UnreachableError
from handler.timeouts import within

__all__ = ["USER_AGENT", "Answer", "Pace", "connect", "get"]

MAX_HEAD_BYTES = 65_536
"""Status line and headers, interim answers included; also what may stand between two pieces of a body (extensions
of chunks, trailers). Big servers send 8 KiB at most."""
MAX_TRIED_ADDRESSES = 4
"""Of one name, one after the other: one dead machine of several must not be the end of a job."""
READ_BYTES = 262_144
"""What is read at once, and half of what the connection may hold for us."""
MIN_WAIT_S = 0.1
"""Shortest wait for bytes, so that those that are here already are seen on a busy machine."""
USER_AGENT = "whisper-runpod (speech-to-text worker)"


@dataclass(frozen=True)
class Pace:
    """How long a server may take; a server that drips is as good as none."""

    connect_s: float = 10.0
    """One connection, TLS included."""
    head_s: float = 30.0
    """From the request to the end of the answer's head: files may be made on demand."""
    slow_start_s: float = 10.0
    """From then on the mean rate since the head counts."""
    min_bytes_per_s: float = 50_000.0
    """Speech at 400 kbit/s in real time; slower than that, the worker is better used otherwise."""


class Answer:
    """The answer to a GET: `status`, headers in lower case, and the body piece by piece."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, pace: Pace) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._target = target
        self._reader = reader
        self._pace = pace
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._has_head = False
        self._is_complete = False
        self._body_bytes = 0
        self._body_began_s = 0.0

    @property
    def content_length(self) -> int | None:
        """Bytes of body that the server announces, if it does."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None

    async def read_head(self) -> None:
        """Wait for status and headers. Raises UnreachableError, FetchError."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._pace.head_s
        left = MAX_HEAD_BYTES
        while not self._has_head:
            if left == 0:
                raise self._too_much_framing()
            if loop.time() >= end_s:
                raise self._no_answer()
            data = await self._receive(end_s - loop.time(), left)
            left -= len(data)
            if not data:
                raise UnreachableError(f"{self._target.shown} closed the connection without an answer")
            self._feed(data)
        self._body_began_s = loop.time()

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body's pieces as they were sent, at most READ_BYTES long.

        Raises UnreachableError if it breaks off, FetchError if the server is slower than the pace demands.
        """
        loop, pace = asyncio.get_running_loop(), self._pace
        framing = 0
        while True:
            framing = 0 if self._pieces else framing
            for piece in self._taken():
                yield piece
            if self._is_complete:
                return
            slow_at_s = self._body_began_s + max(pace.slow_start_s, self._body_bytes / pace.min_bytes_per_s)
            data = await self._receive(slow_at_s - loop.time(), READ_BYTES)
            self._body_bytes += len(data)
            elapsed_s = loop.time() - self._body_began_s
            if data and elapsed_s > pace.slow_start_s and self._body_bytes < pace.min_bytes_per_s * elapsed_s:
                raise self._too_slow()
            if data:
                self._feed(data)
                framing += len(data)
                if framing > MAX_HEAD_BYTES and not (self._pieces or self._is_complete):
                    raise self._too_much_framing()
            elif self._ends_with_connection():
                return
            else:
                raise UnreachableError(f"{self._target.shown} closed the connection before the end of the file")

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; the first of a name counts, trailers do not."""
        if not self._has_head:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("utf-8", "replace").strip())

    def on_headers_complete(self) -> None:
        """The end of a head; an interim one (100 to 199) is not what is waited for."""
        self.status = self._parser.get_status_code()
        self._has_head = self.status >= 200

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without the framing of chunks."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The end of the body; of an interim answer: forget it."""
        self._is_complete = self._has_head
        if not self._has_head:
            self.headers.clear()

    def _taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._is_complete:  # bytes behind the end are nobody's business
                raise FetchError(f"{self._target.shown} does not answer in HTTP") from None

    def _ends_with_connection(self) -> bool:
        coding = self.headers.get("transfer-encoding", "").lower()
        return "content-length" not in self.headers and "chunked" not in coding

    def _too_slow(self) -> FetchError:
        rate = f"{self._pace.min_bytes_per_s / 1_000:g} kB/s"
        return FetchError(f"{self._target.shown} sends less than {rate}, the slowest that is waited for")

    def _no_answer(self) -> UnreachableError:
        return UnreachableError(f"{self._target.shown} did not answer in {self._pace.head_s:g} s")

    def _too_much_framing(self) -> FetchError:
        return FetchError(f"{self._target.shown}: the answer's head is over the limit of {MAX_HEAD_BYTES} bytes")

    async def _receive(self, timeout_s: float, max_bytes: int) -> bytes:
        try:
            return await within(self._reader.read(max_bytes), max(timeout_s, MIN_WAIT_S))
        except asyncio.TimeoutError:
            if self._has_head:
                raise self._too_slow() from None
            raise self._no_answer() from None
        except (OSError, ssl.SSLError):
            raise UnreachableError(f"the connection to {self._target.shown} broke") from None


@contextlib.asynccontextmanager
async def get(
    target: Target, addresses: Sequence[Address], tls: ssl.SSLContext, pace: Pace | None = None
) -> AsyncIterator[Answer]:
    """Connect to one of the addresses and ask; gives the answer when its head is there.

    Raises UnreachableError if a later try may do better, FetchError else.
    """
    pace = pace or Pace()
    reader, writer = await connect(target, addresses, tls, pace)
    try:
        writer.write(_request(target))
        answer = Answer(target, reader, pace)
        await answer.read_head()
        yield answer
    finally:
        writer.transport.abort()


def _request(target: Target) -> bytes:
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {USER_AGENT}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


async def connect(
    target: Target, addresses: Sequence[Address], tls: ssl.SSLContext, pace: Pace
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to one of the addresses, in their order. Raises UnreachableError, FetchError."""
    is_tls = target.scheme == "https"
    for address in addresses[:MAX_TRIED_ADDRESSES]:
        opening = asyncio.open_connection(
            str(address),
            target.port,
            ssl=tls if is_tls else None,
            server_hostname=target.host if is_tls else None,
            limit=READ_BYTES,
        )
        try:
            return await within(opening, pace.connect_s, discard=lambda streams: streams[1].transport.abort())
        except ssl.SSLCertVerificationError:
            raise FetchError(f"the certificate of {target.shown} is not valid") from None
        except (OSError, asyncio.TimeoutError):
            continue  # TLS that fails otherwise is an OSError too: another machine may be in order
    raise UnreachableError(f"no connection to {target.shown}, port {target.port}")
