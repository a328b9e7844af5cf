"""The decoder child: `python -m engine.decode_child MEMORY_BYTES`, with its pipe as descriptor 0.

Decodes files that strangers sent, so it gives up its powers before the first of them: no further
descriptor can be opened (thus no file and no socket), nothing can be written, memory and processor
time are capped, no core is dumped, it cannot gain privileges, and it dies with its parent. It
receives each file as an open descriptor and answers with frames (see `engine.decode_wire`).

Invariants: one job at a time; each job is answered by END or FAILED, or by the end of the process.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.decode_wire import (
    BLOCK,
    END,
    FAILED,
    HEADER,
    JOB,
    READY,
    DecodeLimitError,
    DecodeLimits,
    Notes,
    pack_frame,
    recv_exact,
)
from engine.errors import BadAudioError

__all__ = ["enter_sandbox", "main"]

MAX_JOB_BYTES = 4_096
"""A job's JSON is some 200 bytes; the rest is room for new limits."""
JOB_DESCRIPTOR = 3
"""Descriptors 0 to 2 are the pipe and two ends of nowhere; the file of a job becomes the next one."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


def enter_sandbox(memory_bytes: int) -> None:
    """Give up for good what decoding does not need; call it when everything is loaded.

    `memory_bytes` is the address space beyond what the process has now.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        memory_cap = memory_bytes + _address_space_bytes()
        resource.setrlimit(resource.RLIMIT_AS, (memory_cap, memory_cap))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # The one free slot is filled by the job's file while decoders run: open() and socket() fail then.
    resource.setrlimit(resource.RLIMIT_NOFILE, (JOB_DESCRIPTOR + 1, JOB_DESCRIPTOR + 1))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    return pages * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _limit_cpu(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(usage.ru_utime + usage.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _warm_up() -> None:
    """Decode a tenth of a second with every library, so that nothing is left to be loaded later.

    In stereo, because mixing channels takes the linear algebra library's own work space: were it
    asked for under the memory cap, its refusal would end the process instead of raising MemoryError.
    """
    from engine.decode_ffmpeg import Window, ffmpeg_frames, load_all
    from engine.decode_media import decode_media

    load_all()
    pcm = bytes(3_200)
    wav = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 2, 8_000, 32_000, 4, 16)
    wav += struct.pack("<4sI", b"data", len(pcm)) + pcm
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(wav)
        list(decode_media(file.fileno(), DecodeLimits(), Notes()))
        list(ffmpeg_frames(Window(file.fileno(), 0, len(wav)), DecodeLimits(), Notes()))


def _receive_job(pipe: socket.socket) -> tuple[int, DecodeLimits]:
    """Wait for a job; returns its file and limits. Raises EOFError when the parent is gone."""
    data, descriptors, _flags, _address = socket.recv_fds(pipe, HEADER.size + MAX_JOB_BYTES, 1)
    if len(data) < HEADER.size or not descriptors:
        raise EOFError
    kind, size = HEADER.unpack(data[: HEADER.size])
    if kind != JOB or size > MAX_JOB_BYTES:
        raise EOFError
    body = data[HEADER.size :]
    body += recv_exact(pipe, size - len(body))
    return descriptors[0], DecodeLimits(**json.loads(body))


def _serve(pipe: socket.socket, fd: int, limits: DecodeLimits) -> None:
    from engine.decode_media import decode_media

    _limit_cpu(limits.work_s(limits.max_duration_s))
    notes = Notes()
    try:
        for block in decode_media(fd, limits, notes):
            payload = np.ascontiguousarray(block, dtype=np.float32)
            _send(pipe, BLOCK, payload.tobytes())
    except _ParentGoneError:
        raise
    except DecodeLimitError as error:
        _fail(pipe, str(error), is_limit=True)
    except BadAudioError as error:
        _fail(pipe, str(error))
    except MemoryError:
        _fail(pipe, f"decoding needs more than the limit of {limits.memory_bytes >> 20} MiB of memory", is_limit=True)
    except Exception as error:
        # The edge of two native libraries: whatever they raise about a file is told to its sender.
        _fail(pipe, f"the file cannot be decoded ({type(error).__name__})")
    else:
        summary = {
            "container": notes.container,
            "codec": notes.codec,
            "duration_s": notes.decoded_s,
            "warnings": notes.warnings,
        }
        _send(pipe, END, json.dumps(summary).encode())


def _fail(pipe: socket.socket, message: str, *, is_limit: bool = False) -> None:
    _send(pipe, FAILED, json.dumps({"message": message, "is_limit": is_limit}).encode())


class _ParentGoneError(Exception):
    """The pipe is broken: there is nobody to decode for."""


def _send(pipe: socket.socket, kind: bytes, payload: bytes = b"") -> None:
    try:
        pipe.sendall(pack_frame(kind, payload))
    except OSError:
        raise _ParentGoneError from None


def main(argv: Sequence[str]) -> int:
    """Serve jobs until the parent closes the pipe; `argv` is the memory limit in bytes."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to end
    pipe = socket.socket(fileno=0)
    try:
        _warm_up()
        enter_sandbox(int(argv[0]))
    except Exception as error:
        # The edge of the process: told to the parent, which reports that decoding is not available.
        _fail(pipe, f"{type(error).__name__}: {error}")
        return 1
    try:
        _send(pipe, READY)
        while True:
            fd, limits = _receive_job(pipe)
            try:
                _serve(pipe, fd, limits)
            finally:
                os.close(fd)
    except (EOFError, OSError, _ParentGoneError):
        return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
