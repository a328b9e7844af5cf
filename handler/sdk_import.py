"""What has to be in place before and around the SDK's import: environment, speed, and its child's death.

Knows the SDK by its variables and its habits only; importing it is the business of `handler.worker`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from types import ModuleType

__all__ = [
    "MIN_PING_INTERVAL_MS",
    "SECRET_VARIABLES",
    "forked_children_die_with_us",
    "prepare_environ",
    "quick_cpuinfo",
]

SECRET_VARIABLES = ("RUNPOD_AI_API_KEY", "RUNPOD_API_KEY")
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that the kernel sends when the thread that started us ends."""
LEVELS = ("NOTSET", "TRACE", "DEBUG", "INFO", "WARN", "ERROR")
"""The SDK's log levels; any other text ends its import."""
MIN_PING_INTERVAL_MS = 1_000
"""Below this the SDK's interval, in whole seconds, is 0: a busy loop."""
DEFAULT_PING_INTERVAL_MS = 10_000


def prepare_environ(environ: MutableMapping[str, str]) -> None:
    """Give the SDK's variables values that it can live with; what is good stays as it is.

    Its own default log level, DEBUG, prints whole results.
    """
    given = environ.get("RUNPOD_LOG_LEVEL", environ.get("RUNPOD_DEBUG_LEVEL", "")).strip().upper()
    level = "WARN" if given == "WARNING" else given
    environ["RUNPOD_LOG_LEVEL"] = level if level in LEVELS else "INFO"
    interval = environ.get("RUNPOD_PING_INTERVAL", "").strip()
    if interval:
        known = interval.isascii() and interval.isdigit()
        asked_ms = int(interval) if known else DEFAULT_PING_INTERVAL_MS
        environ["RUNPOD_PING_INTERVAL"] = str(max(MIN_PING_INTERVAL_MS, asked_ms))


@contextlib.contextmanager
def quick_cpuinfo() -> Iterator[None]:
    """Inside, `import cpuinfo` finds a stand-in: the SDK asks it for the processor's name, which takes a second."""
    before = sys.modules.get("cpuinfo")
    stand_in = ModuleType("cpuinfo")
    stand_in.get_cpu_info = lambda: {"brand_raw": _processor()}  # type: ignore[attr-defined]
    sys.modules["cpuinfo"] = stand_in
    try:
        yield
    finally:
        if before is None:
            del sys.modules["cpuinfo"]
        else:
            sys.modules["cpuinfo"] = before


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown"


def forked_children_die_with_us() -> None:
    """From now on a child forked by Python ends when the thread that forked it does; call it once.

    The SDK's heartbeat is such a child. If it outlived a killed worker, the platform would go on believing in
    the worker, and its jobs would never be done by another.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the kernel knew that we want to hear of it.
        if os.getppid() != parent:
            os._exit(0)

    os.register_at_fork(before=before, after_in_child=in_child)
