"""Decoder children under observation: which one works, and whether it still lives (Linux /proc)."""

from __future__ import annotations

import time
from pathlib import Path

from engine.decode import BlockStream, MediaDecoder
from engine.decode_media import SOURCE_FRAMES
from tests.fakes.media import encoded, tone

__all__ = ["LONG", "LONG_SAMPLES", "SHORT", "is_running", "pid_of_next", "started", "wait_gone"]

LONG_SAMPLES = 60 * 16_000
LONG = encoded(tone(60.0), 16_000)
"""More than the pipe holds, so that its decoding waits for the reader."""
SHORT = encoded(tone(0.1), 16_000)


def started(decoder: MediaDecoder) -> tuple[BlockStream, int]:
    """A stream after its first block, and the child that decodes it."""
    blocks = decoder.iter_blocks(LONG)
    assert len(next(blocks)) == SOURCE_FRAMES
    assert blocks.child_pid is not None
    return blocks, blocks.child_pid


def pid_of_next(decoder: MediaDecoder) -> int:
    """Decode something; returns the child that did it."""
    blocks = decoder.iter_blocks(LONG)
    next(blocks)
    pid = blocks.child_pid
    assert pid is not None
    assert sum(map(len, blocks)) == LONG_SAMPLES - SOURCE_FRAMES
    assert blocks.summary is not None
    return pid


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_gone(pid: int, seconds: float = 5.0) -> bool:
    """Poll until a process, which may be nobody's child here, has ended."""
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_running(pid)
