"""Puts a result where it was asked for: to a presigned URL, or into a store.

A URL that came with a job is a stranger's: it is taken apart, looked up and checked as URLs to fetch are
(`handler.addresses`, `handler.resolver`), and the connection goes to an address that was checked. Invariants: no
redirect is followed (a signature is for one host); attempts and time are bounded; errors name the host at most;
what nobody gets a link to does not stay in the operator's store, if that can be helped.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import uuid
from dataclasses import dataclass, field

from engine.errors import ConfigError, FetchError, SttError, UploadError
from handler.addresses import Target, parse_url
from handler.attempts import RETRY_PAUSE_S, attempts, refusal
from handler.http_get import USER_AGENT, Answer, Pace, connect
from handler.resolver import Resolver, SystemResolver, checked_addresses, run_abandonable
from handler.s3 import S3Config, presigned_url, remove, upload_bytes
from handler.timeouts import within

__all__ = ["CONTENT_TYPE", "Uploader", "new_key"]

CONTENT_TYPE = "application/json"
UPLOAD_DEADLINE_S = 120.0
"""All attempts and waits together; a result has some 50 MB for ten hours with words."""
SEND_BYTES = 1 << 18
"""Handed to the connection at once."""
PUT_LINK_LIFE_S = 600
"""How long a link of our own making, used at once, is good."""
KEY_PREFIX = "whisper-results"

_log = logging.getLogger(__name__)


def new_key() -> str:
    """A key that nobody can guess and nothing of a job goes into."""
    return f"{KEY_PREFIX}/{uuid.uuid4().hex}.json"


@dataclass(frozen=True)
class Uploader:
    """Puts bytes to URLs and stores. `allow_private`: to addresses of our own network too."""

    allow_private: bool = False
    resolver: Resolver = field(default_factory=SystemResolver)
    tls: ssl.SSLContext | None = None
    pace: Pace = field(default_factory=Pace)
    deadline_s: float = UPLOAD_DEADLINE_S
    retry_pause_s: float = RETRY_PAUSE_S

    async def put(self, url: str, data: bytes) -> None:
        """PUT `data` to a presigned URL. Cancelling ends it at once. Raises UploadError."""
        try:
            target = parse_url(url, allow_private=self.allow_private)
            await within(self._attempts(target, data), self.deadline_s)
        except asyncio.TimeoutError:
            raise UploadError(f"{target.shown} did not take the result within {self.deadline_s:g} s") from None
        except FetchError as error:
            raise UploadError(f"upload: {error}") from None

    async def store(self, config: S3Config, data: bytes) -> str:
        """Put `data` into the store's bucket under a new key; return a link to it. Raises UploadError.

        If it is cancelled, or has no time left, nothing stays in the operator's store.
        """
        key = new_key()
        bucket = config.bucket
        if bucket is None:
            raise UploadError("the store has no bucket: set BUCKET_NAME, or bucketName in s3Config")
        try:
            if config.is_trusted:
                return await within(_kept(config, key, data), self.deadline_s)
            link, put_link = await run_abandonable(lambda: _links(config, bucket, key))
        except ConfigError as error:
            # Without the library there is no store, but the result is there, and may fit.
            raise UploadError(str(error)) from None
        except asyncio.TimeoutError:
            raise UploadError(f"the store did not take the result within {self.deadline_s:g} s") from None
        await self.put(put_link, data)
        return link

    async def _attempts(self, target: Target, data: bytes) -> None:
        tls = self.tls if self.tls is not None else await asyncio.to_thread(ssl.create_default_context)
        await attempts(lambda: self._once(target, data, tls), self.retry_pause_s)

    async def _once(self, target: Target, data: bytes, tls: ssl.SSLContext) -> None:
        addresses = await checked_addresses(self.resolver, target, allow_private=self.allow_private)
        reader, writer = await connect(target, addresses, tls, self.pace)
        try:
            try:
                writer.write(_head(target, len(data)))
                for at in range(0, len(data), SEND_BYTES):
                    writer.write(data[at : at + SEND_BYTES])
                    await writer.drain()
            except ConnectionError:
                # A server that refuses early closes while we send; its answer may be there all the same.
                pass
            answer = Answer(target, reader, self.pace)
            await answer.read_head()
        finally:
            writer.transport.abort()
        if not 200 <= answer.status <= 299:
            raise refusal(answer.status, target.shown)


async def _kept(config: S3Config, key: str, data: bytes) -> str:
    """Put `data` into the operator's store; whoever is cancelled meanwhile has it taken out again.

    The call that sends cannot be interrupted, but ends by itself.
    """
    has_ended = threading.Event()

    def send() -> str:
        try:
            return upload_bytes(config, key, data, CONTENT_TYPE)
        finally:
            has_ended.set()

    def take_back() -> None:
        has_ended.wait()
        try:
            remove(config, key)
        except SttError as error:
            _log.warning("a result that nobody waits for may have stayed in the store: %s", error)

    try:
        return await run_abandonable(send)
    except asyncio.CancelledError:
        threading.Thread(target=take_back, daemon=True, name="take-back").start()
        raise


def _links(config: S3Config, bucket: str, key: str) -> tuple[str, str]:
    """A link for whoever gets the answer, and one for us; loading the library that signs them takes a while."""
    put_link = presigned_url(config, bucket, key, method="put", life_s=PUT_LINK_LIFE_S)
    return presigned_url(config, bucket, key), put_link


def _head(target: Target, n_bytes: int) -> bytes:
    lines = (
        f"PUT {target.path} HTTP/1.1",
        f"Host: {target.host_header}",
        f"User-Agent: {USER_AGENT}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {n_bytes}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")
