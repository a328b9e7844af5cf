"""Listening sockets and TLS contexts, with errors that name what was asked for."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from pathlib import Path
from typing import Any

from engine.errors import ConfigError

__all__ = ["BACKLOG", "listening_sockets", "tls_context"]

BACKLOG = 512
"""Connections the kernel keeps for us; twice the cap, so that a reconnect storm is answered, not dropped."""

FIRST_OPEN_PORT = 1024
"""Below it most systems want a privilege; containers often do not."""


def tls_context(certfile: str | Path, keyfile: str | Path | None) -> ssl.SSLContext:
    """Load a certificate chain and its key for TLS 1.2 or later. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"ssl_certfile {certfile}, ssl_keyfile {keyfile}: {reason}; legal: a PEM certificate and its key"
        ) from None
    return context


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of `host`, all on one port; 0 takes any free one. Raises ConfigError."""
    loop = asyncio.get_running_loop()
    sockets: list[socket.socket] = []
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, *_, address in dict.fromkeys(found):
            bound_port = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bind(family, (address[0], bound_port, *address[2:])))
            except OSError as error:
                # A host name may have an IPv6 address that this machine does not use.
                if not sockets or error.errno != errno.EADDRNOTAVAIL:
                    raise
    except OSError as error:
        for sock in sockets:
            sock.close()
        legal = "a free address"
        if error.errno == errno.EACCES and port < FIRST_OPEN_PORT:
            legal = f"{FIRST_OPEN_PORT} to 65535 for whoever is not root"
        raise ConfigError(f"host {host}, port {port}: {error.strerror or error}; legal: {legal}") from None
    return sockets


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
