"""From the start of a container to `/ready`, part by part, and beside WhisperLive's server on the same machine.

Both serve the demo model, rounds interleaved. The comparison is up to the first text of the same recording, since
the other one loads its model with the first client; ours, in its container, is ready before.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.whisperlive import PeerMissingError, WhisperLiveServer
from engine.types import FloatArray
from realtime.client.api import LiveClient
from realtime.client.messages import ClientOptions, Update
from tools.image_checks.commands import CheckFailedError, check
from tools.image_checks.served import SAMPLE, SAMPLES, Target, served

__all__ = ["Start", "Starts", "check_start", "measure_starts", "start_parts"]

TEXT_LIMIT_S = 180.0
ROUNDS = 5
SHORT_ROUNDS = 2
LEFT_OUT = "left out"
LINE = re.compile(r"\b(entrypoint|start) (\{[^{}]*\})")
WAV_HEADER_BYTES = 44


@dataclass(frozen=True)
class Start:
    """One start of the container, in seconds from when we asked for it; `parts_ms` is what its log says."""

    ready_s: float
    text_s: float
    parts_ms: Mapping[str, int]


@dataclass(frozen=True)
class Starts:
    """All rounds; `peer_text_s` is empty, and `peer_note` says why, if the other server is not there."""

    ours: Sequence[Start]
    peer_text_s: Sequence[float]
    peer_note: str

    @property
    def ready_s(self) -> float:
        """The median."""
        return statistics.median(each.ready_s for each in self.ours)

    @property
    def text_s(self) -> float:
        """The median."""
        return statistics.median(each.text_s for each in self.ours)

    def median_parts_ms(self) -> dict[str, float]:
        """By the names in the log, in its order; first what the container's engine took before our process."""
        found: dict[str, float] = {}
        for name in self.ours[0].parts_ms:
            found[name] = statistics.median(each.parts_ms[name] for each in self.ours if name in each.parts_ms)
        return found


def start_parts(log: str, ready_s: float) -> dict[str, int]:
    """Milliseconds of the parts of a start as the log has them; what is missing up to `ready_s` is the container's."""
    found: dict[str, Any] = {name: json.loads(text) for name, text in LINE.findall(log)}
    check("start" in found, "the log has no line `start {...}` with the parts of the start")
    times = {name.removesuffix("_ms"): int(value) for name, value in found["start"].items()}
    total_ms = times.pop("total", sum(times.values()))
    return {"container": max(0, round(ready_s * 1_000) - total_ms), **times}


def measure_starts(target: Target, *, is_short: bool) -> Starts:
    """Start both several times, one after the other."""
    ours: list[Start] = []
    peer_text_s: list[float] = []
    note = LEFT_OUT if is_short else ""
    for _ in range(SHORT_ROUNDS if is_short else ROUNDS):
        ours.append(_start(target))
        if not note:
            try:
                peer_text_s.append(asyncio.run(_peer()))
            except PeerMissingError as error:
                note = str(error)
    return Starts(ours, peer_text_s, note)


def _start(target: Target) -> Start:
    with served(target) as server:
        server.wait_ready()
        ready_s = time.time() - server.container.began_unix_s
        asyncio.run(asyncio.wait_for(_first_text(server.url), TEXT_LIMIT_S))
        text_s = time.time() - server.container.began_unix_s
        return Start(ready_s, text_s, start_parts(server.container.log(), ready_s))


async def _first_text(url: str) -> None:
    audio = (SAMPLES / SAMPLE).read_bytes()[WAV_HEADER_BYTES:]
    async with await LiveClient.connect(url, ClientOptions(language="en")) as live:
        await live.send_audio(_floats(audio))
        async for event in live:
            if isinstance(event, Update):
                return
    raise CheckFailedError("the stream ended without any text")


def _floats(pcm: bytes) -> FloatArray:
    samples: FloatArray = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2").astype(np.float32) / np.float32(32_768)
    return samples


async def _peer() -> float:
    server = WhisperLiveServer()
    began_s = time.monotonic()
    try:
        # Returns when it has answered a stream of the same recording with text.
        await server.start()
        return time.monotonic() - began_s
    finally:
        await server.stop()


def check_start(starts: Starts) -> str:
    """Raises CheckFailedError if the other server is sooner, or is not there although it is to be compared."""
    parts = ", ".join(f"{name} {amount:.0f}" for name, amount in starts.median_parts_ms().items())
    shown = f"/ready {starts.ready_s:.2f} s, first text {starts.text_s:.2f} s (ms: {parts})"
    if not starts.peer_text_s:
        check(starts.peer_note == LEFT_OUT, f"{shown}; WhisperLive is not compared: {starts.peer_note}")
        return f"{shown}; WhisperLive not compared: {starts.peer_note}"
    peer_s = statistics.median(starts.peer_text_s)
    check(starts.text_s <= peer_s, f"{shown}; WhisperLive's first text comes sooner: {peer_s:.2f} s")
    return f"{shown}; WhisperLive, without a container: first text {peer_s:.2f} s"
