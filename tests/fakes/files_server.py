"""An HTTP server on loopback that serves files as good and as bad servers do, and counts who comes.

It speaks bytes, so that it can lie. With it a resolver that answers what a test says.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

__all__ = ["FakeResolver", "FilesServer", "Reply", "answer", "chunked", "make_certificate", "serving_files"]

Reply: TypeAlias = bytes | Callable[["Visit"], Awaitable[None]]
"""What a path answers with: bytes to send before the connection is closed, or a behaviour."""

_GONE = (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError)
"""The peer has enough, or the test has."""


class Visit:
    """One connection with its request read."""

    def __init__(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.writer = writer
        self.was_closed = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, every_s: float) -> None:
        """Send bytes one by one, again and again, until the peer has gone."""
        try:
            while True:
                for byte in data:
                    await self.send(bytes([byte]))
                    await asyncio.sleep(every_s)
        except ConnectionError:
            self.was_closed = True


class FilesServer:
    """`replies` by path; what has been asked is in `visits`."""

    def __init__(self, port: int, replies: dict[str, Reply]) -> None:
        self.port = port
        self.replies = replies
        self.visits: list[Visit] = []
        self.connections = 0

    @property
    def paths(self) -> list[str]:
        return [visit.request.split(b" ")[1].decode() for visit in self.visits]

    def url(self, path: str = "/a.wav", host: str = "files.example", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError
            ):
                request = await reader.readuntil(b"\r\n\r\n")
                visit = Visit(request, writer)
                self.visits.append(visit)
                reply = self.replies.get(self.paths[-1].split("?")[0], answer(b"nothing here", "404 Not Found"))
                if isinstance(reply, bytes):
                    await visit.send(reply)
                else:
                    await reply(visit)
        finally:
            writer.close()


class FakeResolver:
    """`answers` are given one after the other, the last one for ever."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, OSError):
            raise found
        return found


@contextlib.asynccontextmanager
async def serving_files(
    replies: dict[str, Reply] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[FilesServer]:
    """A server on a free port of 127.0.0.1."""
    files = FilesServer(0, replies or {})
    listener = await asyncio.start_server(files.serve, "127.0.0.1", 0, ssl=tls)
    files.port = listener.sockets[0].getsockname()[1]
    before = asyncio.all_tasks()
    try:
        yield files
    finally:
        listener.close()
        visitors = asyncio.all_tasks() - before - {asyncio.current_task()}
        for task in visitors:
            task.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
        await asyncio.sleep(0)


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """A whole answer; `length` is what Content-Length claims (-1: there is none)."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}", *headers, *([f"Content-Length: {size}"] if size >= 0 else [])]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


def make_certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server with this name, and for a client that trusts it alone."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]  # noqa: RUF005
        + ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", f"/CN={name}"]
        + ["-addext", f"subjectAltName=DNS:{name}"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
