"""Figures of the first GPU, as nvidia-smi tells them; nulls where there is none.

Runs nvidia-smi as a process of its own with a time limit, never twice at once and at most once per
`CACHE_S`: after a driver fault it can hang for minutes, and a health answer must not hang with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from engine.clock import Clock

__all__ = ["CACHE_S", "GPU_KEYS", "TIMEOUT_S", "GpuProbe"]

QUERY = "name,memory.total,memory.used,memory.free,temperature.gpu,utilization.gpu"
GPU_KEYS = ("name", "memory_total_mb", "memory_used_mb", "memory_free_mb", "temperature_c", "utilization_percent")
CACHE_S = 5.0
"""nvidia-smi takes a tenth of a second of a core; a probe every second must not run it each time."""
TIMEOUT_S = 3.0
"""Thirty times what it usually takes, and less than the usual time-out of a health check."""
KILL_WAIT_S = 0.5
"""A killed process that hangs in the driver does not end; then its end is not awaited."""


class GpuProbe:
    """Reads the GPU's figures, cached."""

    def __init__(self, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._read_s: float | None = None
        self._values: dict[str, Any] = dict.fromkeys(GPU_KEYS)

    async def read(self) -> dict[str, Any]:
        """Return one value per GPU_KEYS: the name, numbers, or None for what is unknown.

        A caller that comes while nvidia-smi runs gets the previous figures.
        """
        now_s = self._clock.now_s()
        if self._read_s is None or now_s - self._read_s >= CACHE_S:
            self._read_s = now_s
            self._values = _parse(await _nvidia_smi(self._timeout_s))
        return dict(self._values)


async def _nvidia_smi(timeout_s: float) -> str:
    command = ("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits")
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return ""
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout_s)
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), KILL_WAIT_S)
        return ""
    return output.decode(errors="replace") if process.returncode == 0 else ""


def _parse(output: str) -> dict[str, Any]:
    fields = [text.strip() for text in output.split("\n")[0].split(",")]
    if len(fields) != len(GPU_KEYS):
        return dict.fromkeys(GPU_KEYS)
    # "[N/A]" and "[Not Supported]" stand for what a card or a container does not tell.
    numbers = [int(text) if text.isdecimal() else None for text in fields[1:]]
    return dict(zip(GPU_KEYS, [fields[0], *numbers], strict=True))
