"""Decoder children as the parent sees them: one process and its pipe, and a small pool of them.

Imports no media library, knows no audio. Invariants: after `dispose` neither process nor
descriptor is left; a pool never has more children than slots; each lease is given back once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.clock import Clock
from engine.decode_wire import FAILED, HEADER, JOB, MAX_FRAME_BYTES, READY, DecodeLimits, pack_frame
from engine.errors import AtCapacityError, DrainingError, EngineFailedError

__all__ = ["BUSY_WAIT_S", "MAX_JOBS_PER_CHILD", "START_S", "ChildPool", "ChildProcess", "DecodeTimeoutError"]

START_S = 60.0
"""A child loads its libraries in 0.3 s; a cold disk and a busy machine get 200 times that."""
_END_S = 10.0
"""The kernel buries a killed process in milliseconds; this only keeps the wait bounded."""
_DEATH_S = 1.0
"""As long, for one that ended by itself; if it has not ended by then, it broke the framing instead."""

BUSY_WAIT_S = 60.0
"""How long a file waits for a child when all are busy, before it is told to come back later."""
MAX_JOBS_PER_CHILD = 200
"""Then a child is replaced: what native libraries leak must never push an honest file over the memory cap."""

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
"""Whatever else the parent was given (tokens, keys) is not the child's business."""
_FIXED_ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    # One thread, one heap: the child is not allowed more, and each would take address space.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


class DecodeTimeoutError(Exception):
    """The child did not answer in the time that was given."""


class ChildProcess:
    """One decoder child; used by one thread at a time, except `kill`, which any thread may call."""

    def __init__(self, limits: DecodeLimits) -> None:
        """Start the process; raises EngineFailedError if it cannot be started."""
        self.jobs_done = 0
        self._pipe, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.decode_child", str(limits.memory_bytes)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # native libraries write there what they read in files
                cwd=_PACKAGE_ROOT,
                env={**environment, **_FIXED_ENVIRONMENT},
                start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
            )
        except OSError as error:
            self._pipe.close()
            raise EngineFailedError(f"the media decoder did not start: {error.strerror}") from None
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self._process.pid
        return pid

    def wait_ready(self, clock: Clock) -> None:
        """Wait until the child takes jobs; raises EngineFailedError if it does not come up."""
        try:
            kind, payload, _ = self.receive(START_S, clock)
        except DecodeTimeoutError:
            reason = f"no answer in {START_S:g} s"
        except EOFError:
            reason = self.death()
        else:
            if kind == READY:
                return
            reason = str(json.loads(payload)["message"]) if kind == FAILED else "it speaks another protocol"
        raise EngineFailedError(f"the media decoder did not start: {reason}")

    def send_job(self, fd: int, limits: DecodeLimits) -> None:
        """Hand over an open file; raises OSError if the child is gone."""
        job = json.dumps(dataclasses.asdict(limits)).encode()
        self._pipe.settimeout(START_S)
        socket.send_fds(self._pipe, [pack_frame(JOB, job)], [fd])

    def receive(self, timeout_s: float, clock: Clock) -> tuple[bytes, bytearray, float]:
        """Receive one frame: kind, payload and the seconds that were waited for it.

        Raises DecodeTimeoutError, and EOFError if the child is gone or breaks the framing.
        """
        began_s = clock.now_s()
        header = self._receive_exact(HEADER.size, began_s + timeout_s, clock)
        kind, size = HEADER.unpack(header)
        if size > MAX_FRAME_BYTES:
            raise EOFError
        payload = self._receive_exact(size, began_s + timeout_s, clock)
        return kind, payload, clock.now_s() - began_s

    def _receive_exact(self, size: int, deadline_s: float, clock: Clock) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while len(view):
            left_s = deadline_s - clock.now_s()
            if left_s <= 0:
                raise DecodeTimeoutError
            self._pipe.settimeout(left_s)
            try:
                got = self._pipe.recv_into(view)
            except TimeoutError:
                raise DecodeTimeoutError from None
            except OSError:
                raise EOFError from None
            if not got:
                raise EOFError
            view = view[got:]
        return data

    def kill(self) -> None:
        """End the process now; whoever waits for a frame gets EOFError."""
        self._process.kill()

    def death(self) -> str:
        """How the process ended, for a message."""
        try:
            code = self._process.wait(_DEATH_S)
        except subprocess.TimeoutExpired:
            return "it broke the framing"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def dispose(self) -> None:
        """Kill and bury the process, close the pipe."""
        self._process.kill()
        self._process.wait(_END_S)
        self._pipe.close()


class ChildPool:
    """At most `max_children` decoder children, started when needed; usable from any thread."""

    def __init__(self, limits: DecodeLimits, max_children: int, busy_wait_s: float, clock: Clock) -> None:
        self.clock = clock
        self._limits = limits
        self._busy_wait_s = busy_wait_s
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._free_slots = max_children
        self._idle: list[ChildProcess] = []
        self._leased: set[ChildProcess] = set()
        self._is_closed = False
        # A child dies with the *thread* that started it (prctl(2), PR_SET_PDEATHSIG), so one thread
        # that lives as long as the pool starts them all.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode-spawn")

    @property
    def is_closed(self) -> bool:
        """True after `close`."""
        return self._is_closed

    def lease(self, is_wanted: Callable[[], bool] = lambda: True) -> ChildProcess:
        """Take a child for one job; the caller must give it back.

        Gives up waiting when `is_wanted` turns false (see `wake`). Raises AtCapacityError if all
        stay busy, DrainingError after `close`, EngineFailedError if no child can be started.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._free_slots > 0 or self._is_closed or not is_wanted(), timeout=self._busy_wait_s
            )
            if self._is_closed or not is_wanted():
                raise DrainingError("decoding was stopped")
            if not self._free_slots:
                raise AtCapacityError(f"all media decoders have been busy for {self._busy_wait_s:g} s")
            self._free_slots -= 1
        try:
            return self._take_idle() or self._spawner.submit(self._start).result()
        except BaseException:
            self._free_slot()
            if self._is_closed:  # whatever it was, that is why
                raise DrainingError("the media decoder is closed") from None
            raise

    def give_back(self, child: ChildProcess, *, is_good: bool) -> None:
        """End a lease; the child is kept for the next job if `is_good`."""
        child.jobs_done += 1
        with self._lock:
            self._leased.discard(child)
            is_kept = is_good and child.jobs_done < MAX_JOBS_PER_CHILD and not self._is_closed
            if is_kept:
                self._idle.append(child)
        if not is_kept:
            child.dispose()
        self._free_slot()

    def wake(self) -> None:
        """Let those who wait for a child look again whether they still want one."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End all children; whoever waits for one gets EOFError. May be called again."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            for child in self._leased:
                child.kill()
            self._changed.notify_all()
        for child in idle:
            child.dispose()
        self._spawner.shutdown()

    def _free_slot(self) -> None:
        with self._changed:
            self._free_slots += 1
            self._changed.notify_all()

    def _take_idle(self) -> ChildProcess | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                child = self._idle.pop()
                if child.is_alive:
                    self._leased.add(child)
                    return child
            child.dispose()

    def _start(self) -> ChildProcess:
        child = ChildProcess(self._limits)
        with self._lock:
            self._leased.add(child)
            if self._is_closed:
                child.kill()
        try:
            child.wait_ready(self.clock)
        except BaseException:
            with self._lock:
                self._leased.discard(child)
            child.dispose()
            raise
        return child
