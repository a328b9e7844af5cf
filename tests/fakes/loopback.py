"""A real server on loopback and byte-level clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

from starlette.types import ASGIApp

from realtime.transport import Limits, Listener, serve

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


def run(scenario: Callable[[], Awaitable[None]], timeout_s: float = 15.0) -> None:
    """Run a scenario; anything the event loop reports as unhandled fails the test."""
    problems: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
        try:
            await asyncio.wait_for(scenario(), timeout_s)
        finally:
            while RawClient.clients:
                await RawClient.clients.pop().close()

    asyncio.run(main())
    assert problems == []


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, limits: Limits | None = None, **options: Any) -> AsyncIterator[Listener]:
    """Serve `app` on a free port of 127.0.0.1."""
    listener = await serve(app, "127.0.0.1", 0, limits=limits or Limits(), **options)
    try:
        yield listener
    finally:
        await listener.aclose(0.0)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One WebSocket frame as a client sends it."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    mask_bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    # An all-zero mask is a legal one and leaves the payload readable.
    return head + (b"\0\0\0\0" if masked else b"") + payload


def close_payload(code: int, reason: str = "") -> bytes:
    return struct.pack("!H", code) + reason.encode()


def handshake(path: str = "/", *extra: str) -> bytes:
    """The head of an upgrade request."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class RawClient:
    """A TCP client that speaks bytes; `run` closes what a scenario leaves open."""

    clients: ClassVar[list[RawClient]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.clients.append(self)

    @classmethod
    async def connect(cls, port: int, **options: Any) -> RawClient:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    @classmethod
    async def upgraded(cls, port: int, path: str = "/", *extra: str, **options: Any) -> RawClient:
        client = await cls.connect(port, **options)
        await client.send(handshake(path, *extra))
        status, _headers = await client.head()
        assert status == 101
        return client

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in pairs}

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next response."""
        status, headers = await self.head()
        return status, headers, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the server's next frame, pings left out."""
        while True:
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(size)
            if first & 0xF != PING:
                return first & 0xF, payload

    async def close_code(self) -> int:
        """Read on to the server's close frame; 1005 if it carries no code, 1006 if there is none."""
        try:
            while True:
                opcode, payload = await self.read_frame()
                if opcode == CLOSE:
                    return int(struct.unpack("!H", payload[:2])[0]) if payload else 1005
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006

    async def rest(self) -> bytes:
        """Everything until the server has ended the connection, also by a reset: it does that to who still writes."""
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(65_536):
                received += piece
        return received

    async def ended(self) -> bool:
        """True once the server has ended the connection."""
        with contextlib.suppress(ConnectionError):
            await self.reader.read()
        return self.reader.at_eof() or self.reader.exception() is not None

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, OSError):
            await self.writer.wait_closed()


def noise(size: int) -> bytes:
    """Bytes without structure."""
    return os.urandom(size)
