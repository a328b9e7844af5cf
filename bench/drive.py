"""Drives many real-time streams from one event loop, as cheaply as it can.

Knows sockets and nothing of what the frames mean: they are kept with their times and read after the run
(`bench.collect`), and the audio is a shared buffer (`bench.audio`), so that the load generator takes
little of the cores that it shares with the server. Invariants: every chunk leaves when a microphone would
have finished recording it, counted from the stream's one start; a stream always ends, with what came until
then and the reason if it is not complete; all waits are bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from bench.audio import BYTES_PER_SAMPLE, SharedAudio
from bench.clients import ClientPlan, RawStream
from bench.collect import Frame
from engine.clock import MonotonicClock
from engine.errors import SttError
from realtime.client.connect import open_socket
from realtime.client.messages import END_OF_AUDIO, ClientOptions, ErrorReply, Ready, Wait, handshake, parse_message
from realtime.client.pacing import Pacer

__all__ = ["FINISH_TIMEOUT_S", "READY_TIMEOUT_S", "drive", "hello"]

READY_TIMEOUT_S = 120.0
"""SERVER_READY after the handshake; a server may load a model first."""
FINISH_TIMEOUT_S = 120.0
"""From END_OF_AUDIO to the close: an overloaded server may still decode what was queued."""
GOOD_CODES = (1000, 1005)
"""Closes of a server that is done: with a code, or with none (RFC 6455 section 7.4.1)."""


async def drive(url: str, token: str | None, plans: Sequence[ClientPlan], audio: SharedAudio) -> list[RawStream]:
    """Run all clients; returns once the last has ended."""
    with _no_collection():
        return list(await asyncio.gather(*(_client(url, token, plan, audio) for plan in plans)))


def hello(language: str | None, options: Mapping[str, object]) -> str:
    """The handshake: the keys of `realtime.client`, then those of `options`."""
    document = json.loads(handshake(ClientOptions(language=language), str(uuid.uuid4())))
    return json.dumps({**document, **options})


async def _client(url: str, token: str | None, plan: ClientPlan, audio: SharedAudio) -> RawStream:
    await asyncio.sleep(plan.delay_s)
    try:
        socket = await open_socket(url, token)
    except SttError as error:
        return RawStream(plan.playlist.name, error=str(error))
    return await _Stream(socket, plan).run(audio)


class _Stream:
    """One connection: a task reads, the caller's sends."""

    def __init__(self, socket: ClientConnection, plan: ClientPlan) -> None:
        self._socket = socket
        self._plan = plan
        self._clock = MonotonicClock()
        self._pacer = Pacer(1.0, self._clock)
        self._frames: list[Frame] = []
        self._decided = asyncio.Event()
        self._is_ready = False
        self._sent_bytes = 0
        self._blocked_s = 0.0
        self._finish_s = 0.0

    async def run(self, audio: SharedAudio) -> RawStream:
        """From the handshake to the close."""
        reader = asyncio.create_task(self._read())
        try:
            error = await self._converse(audio, reader)
        finally:
            await self._socket.close()
            await reader
        return RawStream(
            name=self._plan.playlist.name,
            frames=tuple(self._frames),
            start_s=self._clock.now_s() if self._pacer.start_s is None else self._pacer.start_s,
            sent_samples=self._sent_bytes // BYTES_PER_SAMPLE,
            blocked_s=self._blocked_s,
            own_lateness_s=self._pacer.own_lateness_s,
            finish_s=self._finish_s,
            error=error,
        )

    async def _converse(self, audio: SharedAudio, reader: asyncio.Task[None]) -> str | None:
        """The stream's way; what went wrong, or None."""
        try:
            await self._socket.send(hello(self._plan.playlist.language, self._plan.options))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._decided.wait(), READY_TIMEOUT_S)
            if not self._is_ready:
                return self._broken() if reader.done() else "the server did not say that it is ready"
            await self._send(audio)
            if self._plan.linger_s:
                await asyncio.wait({reader}, timeout=self._plan.linger_s)
            ended_s = self._clock.now_s()
            await self._socket.send(END_OF_AUDIO)
        except ConnectionClosed:
            return self._broken()
        await asyncio.wait({reader}, timeout=FINISH_TIMEOUT_S)
        self._finish_s = self._clock.now_s() - ended_s
        if not reader.done():
            return f"the server did not close within {FINISH_TIMEOUT_S:g} s after the end of the audio"
        return None if self._socket.close_code in GOOD_CODES else self._broken()

    async def _send(self, audio: SharedAudio) -> None:
        samples = 0
        for chunk in audio.chunks(self._plan.playlist, self._plan.chunk_samples):
            samples += len(chunk) // BYTES_PER_SAMPLE
            await self._pacer.wait(samples)
            asked_s = self._clock.now_s()
            await self._socket.send(chunk)
            self._blocked_s += self._clock.now_s() - asked_s
            self._sent_bytes += len(chunk)

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                data = await self._socket.recv(decode=False)
                self._frames.append((self._clock.now_s(), data))
                if not self._decided.is_set():
                    self._look(data)
        self._decided.set()

    def _look(self, data: str | bytes) -> None:
        """Before the stream begins, messages decide whether it does."""
        message = parse_message(data)
        self._is_ready = isinstance(message, Ready)
        if self._is_ready or isinstance(message, Wait | ErrorReply):
            self._decided.set()

    def _broken(self) -> str:
        reason = f", {self._socket.close_reason}" if self._socket.close_reason else ""
        return f"the connection ended early (code {self._socket.close_code}{reason})"


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection meanwhile: with all frames of a run in memory one takes longer than a chunk."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
