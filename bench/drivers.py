"""Several driver processes for one run, where one event loop is not enough.

Knows processes and nothing of streams. Invariants: clients are dealt to the processes in turn; results come
back in the clients' order; no process outlives the call, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from bench.audio import SharedAudio
from bench.clients import ClientPlan, RawStream
from bench.drive import drive
from engine.errors import ServerError

__all__ = ["PRIORITY", "DriverError", "elevated", "run_clients"]

PRIORITY = -5
"""Niceness of the driver: on a machine that it shares with a busy server, a driver of equal rights would be late
and measure itself. In life clients have their own machines."""

AUTOGROUP = Path("/proc/self/autogroup")

Job: TypeAlias = tuple[str, str | None, tuple[ClientPlan, ...], SharedAudio]


class DriverError(ServerError):
    """A driver process ended without its results."""

    code = "driver_failed"


@contextlib.contextmanager
def elevated() -> Iterator[int]:
    """Go before the server where the system allows it; gives the niceness that holds meanwhile.

    Only meanwhile: a server started later would inherit it.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    _set_niceness(min(PRIORITY, before))
    try:
        yield os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        _set_niceness(before)


def _set_niceness(value: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, value)
    # Where the kernel groups processes by session (sched(7)), a niceness counts within its session only, and a
    # server has its own.
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(value), encoding="ascii")


async def run_clients(
    url: str, token: str | None, plans: Sequence[ClientPlan], audio: SharedAudio, drivers: int = 1
) -> list[RawStream]:
    """Run all clients in `drivers` processes (1: in this one). Raises DriverError."""
    if drivers <= 1:
        with elevated():
            return await drive(url, token, plans, audio)
    shares = [tuple(plans[first::drivers]) for first in range(min(drivers, len(plans)))]
    results = await asyncio.gather(*(_in_a_process((url, token, share, audio)) for share in shares))
    streams = {stream.name: stream for share in results for stream in share}
    return [streams[plan.playlist.name] for plan in plans]


async def _in_a_process(job: Job) -> list[RawStream]:
    # Not forked: this process has threads and an event loop.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        await asyncio.to_thread(ours.send, job)
        made: list[RawStream] = await asyncio.to_thread(ours.recv)
        return made
    except (EOFError, OSError):
        raise DriverError("a driver process ended without its results") from None
    finally:
        process.terminate()
        await asyncio.to_thread(process.join)
        ours.close()


def _work(connection: Connection) -> None:
    url, token, plans, audio = connection.recv()
    with elevated():
        streams = asyncio.run(drive(url, token, plans, audio))
    connection.send(streams)
