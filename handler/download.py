"""A URL -> bytes in a file: redirects, retries, caps.

Each hop's host is looked up once, all its addresses are checked, and the connection goes to one of them
(`handler.http_get`). Nothing follows from what a server says about itself: length, compression and type are
claims. Invariants: never more than `max_bytes` are written, unpacked bytes counted; everything ends by
`deadline_s`; errors name the host at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from engine.errors import FetchError
from engine.settings_table import Settings
from handler.addresses import Target, parse_url, redirected
from handler.attempts import RETRY_PAUSE_S, attempts, refusal
from handler.http_get import Answer, Pace, get
from handler.resolver import Resolver, UnreachableError, checked_addresses
from handler.sniff import HEAD_BYTES, document_kind
from handler.timeouts import within

__all__ = ["FetchLimits", "OutFile", "download_url"]

MAX_REDIRECTS = 3
"""Share links take one or two."""
UNPACKED_BYTES = 1 << 18
"""Unpacked at once, however well packed the bytes are."""

_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class FetchLimits:
    """What fetching one recording may cost. `allow_private`: from any address, and from https to http."""

    max_bytes: int = 1 << 30
    """Four hours of 16-bit mono at 32 kHz; settings: MAX_DOWNLOAD_BYTES."""
    deadline_s: float = 300.0
    """All hops, attempts and waits together; settings: DOWNLOAD_TIMEOUT_S."""
    allow_private: bool = False
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def from_settings(cls, settings: Settings) -> FetchLimits:
        """The operator's limits."""
        return cls(settings.max_download_bytes, settings.download_timeout_s, settings.allow_private_urls)


class OutFile(Protocol):
    """A binary file that can be written from its start again."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""
        ...

    def seek(self, at: int, /) -> int:
        """Go to a position."""
        ...

    def truncate(self) -> int:
        """Forget what is behind the position."""
        ...


async def download_url(url: str, file: OutFile, limits: FetchLimits, resolver: Resolver, tls: ssl.SSLContext) -> int:
    """Write what `url` leads to into `file` and return the number of bytes.

    Cancelling closes the connection at once. Raises FetchError, as UnreachableError if a later job may do better,
    and OSError if the file cannot be written.
    """
    target = parse_url(url, allow_private=limits.allow_private)
    fetch = _Fetch(file, limits, resolver, tls)
    try:
        return await within(fetch.attempts(target), limits.deadline_s)
    except asyncio.TimeoutError:
        raise UnreachableError(f"{target.shown} did not deliver within {limits.deadline_s:g} s") from None


class _Fetch:
    """The attempts at one URL."""

    def __init__(self, file: OutFile, limits: FetchLimits, resolver: Resolver, tls: ssl.SSLContext) -> None:
        self._file = file
        self._limits = limits
        self._resolver = resolver
        self._tls = tls

    async def attempts(self, target: Target) -> int:
        """Attempts until one succeeds or a refusal ends it."""
        return await attempts(lambda: self._follow(target), RETRY_PAUSE_S)

    async def _follow(self, target: Target) -> int:
        allow_private = self._limits.allow_private
        for _ in range(MAX_REDIRECTS + 1):
            addresses = await checked_addresses(self._resolver, target, allow_private=allow_private)
            async with get(target, addresses, self._tls, self._limits.pace) as answer:
                location = answer.headers.get("location")
                if answer.status not in _REDIRECTS or location is None:
                    return await self._save(target, answer)
            target = redirected(target, location, allow_private=allow_private)
        raise FetchError(f"{target.shown}: more than {MAX_REDIRECTS} redirects")

    async def _save(self, target: Target, answer: Answer) -> int:
        _check_status(target, answer.status)
        unpacker = _unpacker(target, answer.headers.get("content-encoding", ""))
        length = answer.content_length
        if unpacker is None and length is not None and length > self._limits.max_bytes:
            raise self._too_large(target)
        self._file.seek(0)
        self._file.truncate()
        async with contextlib.aclosing(answer.body()) as pieces:
            n_bytes = await self._write(target, pieces, unpacker)
        if unpacker is not None and not unpacker.is_complete:
            raise UnreachableError(f"{target.shown}: the compressed file breaks off")
        if n_bytes == 0:
            raise FetchError(f"{target.shown} answered without content (HTTP status {answer.status})")
        return n_bytes

    async def _write(self, target: Target, pieces: AsyncIterator[bytes], unpacker: _Unpacker | None) -> int:
        n_bytes, head = 0, b""
        async for piece in pieces:
            for data in (piece,) if unpacker is None else unpacker.pieces(piece):
                n_bytes += len(data)
                if n_bytes > self._limits.max_bytes:
                    raise self._too_large(target)
                if len(head) < HEAD_BYTES:
                    head += data[: HEAD_BYTES - len(head)]
                    if len(head) == HEAD_BYTES:
                        _check_kind(target, head)  # early: nobody waits for a whole page
                self._file.write(data)
        _check_kind(target, head)
        return n_bytes

    def _too_large(self, target: Target) -> FetchError:
        return FetchError(f"the file at {target.shown} is over the limit of {self._limits.max_bytes} bytes")


def _check_status(target: Target, status: int) -> None:
    if 200 <= status <= 299 and status != 206:  # nobody asked for a part
        return
    raise refusal(status, target.shown)


def _check_kind(target: Target, head: bytes) -> None:
    kind = document_kind(head)
    if kind is not None:
        raise FetchError(f"what {target.shown} answers is {kind}, not audio")


def _unpacker(target: Target, coding: str) -> _Unpacker | None:
    """None for a body that is sent as it is; gzip was not asked for, but some stores send it all the same."""
    if coding.lower() in ("", "identity"):
        return None
    if coding.lower() in ("gzip", "x-gzip"):
        return _Unpacker(target)
    raise FetchError(f"{target.shown} sends the file in a content coding that was not asked for; legal: none, gzip")


class _Unpacker:
    """gzip, in pieces of bounded size."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def is_complete(self) -> bool:
        """True if the packed bytes ended where they said that they would."""
        return self._zlib.eof

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """The unpacked bytes, at most UNPACKED_BYTES at once. Raises FetchError if they are no gzip."""
        while packed and not self._zlib.eof:
            try:
                data = self._zlib.decompress(packed, UNPACKED_BYTES)
            except zlib.error:
                raise FetchError(f"{self._target.shown}: the file is said to be gzip, and is not") from None
            if data:
                yield data
            packed = self._zlib.unconsumed_tail
