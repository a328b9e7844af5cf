"""The engine child as its parent sees it: one process, its socket pair and three threads.

Reading, writing and waiting for the end each block, so each has a thread; the event loop never
does. What they learn goes to two callbacks, which are called on those threads. Knows no asyncio
and no meaning of the messages.

Invariants: `on_exit` is called exactly once, after the last `on_reply`, when the process is gone
and reaped; the child holds the only other end of the socket pair.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from engine.child_wire import ChildOptions, Reply, Request
from engine.cores import usable_cores

__all__ = ["EngineChild", "child_environment", "describe_exit"]

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
SECRET_VARIABLE = re.compile(r"(?i)(TOKEN|KEY|KEY_ID|SECRET|PASSWORD|PASSWD|CREDENTIALS|TOKEN_FILE)$")
"""The child serves nobody and calls nothing but a model hub."""
HUB_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Models that are not public need these."""


def child_environment(environ: Mapping[str, str], cpu_threads: int) -> dict[str, str]:
    """The child's environment: ours without secrets, with bounded thread pools.

    These variables are read when the libraries load, so the child cannot set them itself.
    """
    kept = {name: value for name, value in environ.items() if name in HUB_VARIABLES or not SECRET_VARIABLE.search(name)}
    search = [str(_PACKAGE_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(search),
        # The working directory may hold modules with any name.
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": str(cpu_threads or usable_cores()),
        # A small matrix product on two OpenBLAS threads costs ten times the work of one.
        "OPENBLAS_NUM_THREADS": "1",
        # onnxruntime reports its use to its maker unless told not to; what is spoken here is nobody's business.
        "ORT_DISABLE_TELEMETRY": "1",
    }


def describe_exit(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"signal {signal.Signals(-returncode).name}"
    except ValueError:
        return f"signal {-returncode}"


class EngineChild:
    """One running child."""

    def __init__(
        self,
        options: ChildOptions,
        environment: Mapping[str, str],
        on_reply: Callable[[Reply], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Start the process; raises OSError.

        Call it on a thread that lives as long as the child shall: the kernel ties the
        parent-death signal to the thread, not to the process (prctl(2)).
        """
        self._on_reply = on_reply
        self._on_exit = on_exit
        self._outbox: queue.SimpleQueue[Request | ChildOptions | None] = queue.SimpleQueue()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = self._spawn(theirs, environment)
        self._connection = Connection(os.dup(self._socket.fileno()))
        self._outbox.put(options)
        self._reader = threading.Thread(target=self._read, name="engine-read", daemon=True)
        self._writer = threading.Thread(target=self._write, name="engine-write", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="engine-watch", daemon=True)
        for thread in (self._reader, self._writer, self._watcher):
            thread.start()

    def _spawn(self, theirs: socket.socket, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "engine.child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
            )
        except OSError:
            self._socket.close()
            raise

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, request: Request) -> None:
        """Queue a request; never blocks. How many may be queued is the caller's business."""
        self._outbox.put(request)

    def kill(self) -> None:
        """End the process now; `on_exit` follows."""
        self._process.kill()

    def join(self, limit_s: float) -> bool:
        """Wait for the process and the threads to end; False if they did not within `limit_s`."""
        self._watcher.join(limit_s)
        return not self._watcher.is_alive()

    def _read(self) -> None:
        try:
            while True:
                self._on_reply(self._connection.recv())
        except (EOFError, OSError):
            # A child that closes its end is of no use any more.
            self._process.kill()

    def _write(self) -> None:
        while (request := self._outbox.get()) is not None:
            try:
                self._connection.send(request)
            except OSError:
                return  # the reader sees the same end

    def _watch(self) -> None:
        returncode = self._process.wait()
        # Whoever may have inherited a copy of the other end, this ends both blocking calls.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._outbox.put(None)
        self._reader.join()
        self._writer.join()
        self._connection.close()
        self._socket.close()
        self._on_exit(returncode)
