"""How many cores this process may really use: affinity mask and container quota.

`os.cpu_count()` counts the machine; a container limited to 2 of 64 cores that starts 64 threads
spends its quota on waiting. Reads cgroup v2's cpu.max; knows nothing of what the cores are for.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["quota_cores", "usable_cores"]

CPU_MAX_FILE = Path("/sys/fs/cgroup/cpu.max")
"""Linux, cgroup-v2.rst, "cpu.max": quota and period in microseconds, or "max" for no quota."""


def quota_cores(cpu_max: str) -> int | None:
    """Cores that a cpu.max line grants, rounded up; None without a quota or for text of another kind."""
    fields = cpu_max.split()
    if len(fields) != 2 or not all(field.isdecimal() for field in fields) or int(fields[1]) == 0:
        return None
    return max(1, math.ceil(int(fields[0]) / int(fields[1])))


def usable_cores() -> int:
    """Cores this process may run on, at least 1."""
    # macOS has no affinity mask.
    mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    allowed = len(mask)
    try:
        quota = quota_cores(CPU_MAX_FILE.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        quota = None
    return max(1, min(allowed, quota or allowed))
