"""Servers as the benchmark sees them: something that starts, has an address and processes, and stops.

Knows the product's server as a command on loopback. Invariants: a server under test may be started again
after it was stopped, and each start is fresh; what is measured of its processes covers all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from realtime.client.local_server import LocalServer, local_server

__all__ = ["ADMITTED_CLIENTS", "GivenServer", "OwnServer", "ServerUnderTest"]

ADMITTED_CLIENTS = 1_000
"""Servers under test admit as many streams as one driver can make: how many a server bears is the
question, so its own limit must not be the answer."""


class ServerUnderTest(Protocol):
    """A server of the protocol. `url` and the process ids hold between `start` and `stop`."""

    @property
    def name(self) -> str:
        """What tables call it; the same for each start."""
        ...

    @property
    def url(self) -> str:
        """`ws://` or `wss://`."""
        ...

    @property
    def health_url(self) -> str | None:
        """`http://host:port` that answers `/metrics`; None if there is none."""
        ...

    @property
    def pids(self) -> Sequence[int]:
        """Processes of this machine whose trees are the server; empty if it runs elsewhere."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """Keys of the handshake besides those of every client."""
        ...

    @property
    def about(self) -> Mapping[str, object]:
        """Versions and settings, for documents; complete once it was started."""
        ...

    @property
    def linger_s(self) -> float:
        """How long clients keep the connection open after the audio, before END_OF_AUDIO.

        For servers that do not complete the rest of the text at END_OF_AUDIO.
        """
        ...

    async def start(self) -> None:
        """Start afresh; returns once streams can begin. Raises SttError if it cannot start."""
        ...

    async def stop(self) -> None:
        """End all processes. May be called when it is not running."""
        ...


class OwnServer:
    """`python -m realtime` with the demo model and `settings` (environment variables) on loopback."""

    def __init__(self, settings: Mapping[str, str] | None = None, name: str = "realtime") -> None:
        self.name = name
        self.options: Mapping[str, object] = {}
        self.linger_s = 0.0
        self.about: Mapping[str, object] = {"settings": {"MAX_CLIENTS": str(ADMITTED_CLIENTS), **(settings or {})}}
        self._settings = {"MAX_CLIENTS": str(ADMITTED_CLIENTS), **(settings or {})}
        self._server: LocalServer | None = None
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._running.url

    @property
    def health_url(self) -> str:
        """Where it tells its health."""
        return f"http://127.0.0.1:{self._running.health_port}"

    @property
    def pids(self) -> Sequence[int]:
        """The serving process; the engine is its child."""
        return (self._running.pid,)

    async def start(self) -> None:
        """Start and wait until `/ready`. Raises ServerFailedError."""
        self._server = await self._stack.enter_async_context(local_server(self._settings))
        await self._server.wait_ready()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        self._server = None
        await self._stack.aclose()

    @property
    def _running(self) -> LocalServer:
        assert self._server is not None, "start() first"
        return self._server


class GivenServer:
    """A server that somebody else runs; starting and stopping it does nothing."""

    def __init__(
        self,
        url: str,
        *,
        health_url: str | None = None,
        pids: Sequence[int] = (),
        options: Mapping[str, object] | None = None,
        linger_s: float = 0.0,
        name: str = "given",
    ) -> None:
        self.name = name
        self.url = url
        self.health_url = health_url
        self.pids = tuple(pids)
        self.options: Mapping[str, object] = options or {}
        self.about: Mapping[str, object] = {}
        self.linger_s = linger_s

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It is not ours to stop."""
