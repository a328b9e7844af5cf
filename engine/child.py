"""The engine child: `python -m engine.child FD PARENT_PID`, started by `engine.owner` alone.

Loads the model, proves that it works, then answers requests one by one until the parent closes
the socket pair. Holds nothing that would be missed: whatever goes wrong here, the parent starts
a new one and decodes again. Logs to stderr, never a text, a token or a sample.

Invariants: it outlives its parent by no more than a system call (parent-death signal, and end of
file); signals meant for the server (SIGINT, SIGTERM) do not end it, since the parent still needs
it to finish the last utterances.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from engine.child_wire import METHODS, START_ID, ChildOptions, Reply, Request
from engine.clock import MonotonicClock
from engine.cores import usable_cores
from engine.errors import EngineFailedError, EngineMemoryError, ModelUnavailableError, SttError
from engine.logs import configure_logging
from engine.start_times import StartTimes
from engine.window_decode import decode_batch

if TYPE_CHECKING:
    from engine.whisper import WhisperBackend

__all__ = ["EXIT_BROKEN_DEVICE", "answer", "is_device_broken", "is_out_of_memory", "main"]

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that the kernel sends when the thread that started us ends."""
EXIT_BROKEN_DEVICE = 71
"""Exit status when the GPU context is lost: only a new process gets a new one."""
MAX_REASON_CHARS = 200
MEMORY_MARKS = ("out of memory", "alloc_failed", "failed to allocate", "bad_alloc")
"""Words of the CUDA runtime, of cuBLAS, of CTranslate2's allocators and of C++ where memory ran out."""
DEMO_THREADS = 1
"""The demo model's matrices are too small to share: two threads take 1.5 times as long as one."""

_log = logging.getLogger("engine.child")  # __name__ is "__main__" here


def _bind_to_parent(parent_pid: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the kernel knew that we want to hear of it.
    if os.getppid() != parent_pid:
        os._exit(0)


def _set_up_logging(options: ChildOptions) -> None:
    # The child gets no secrets; what looks like one is hidden all the same.
    configure_logging(options.log_format, options.log_level)
    # Other people's debug lines may quote what they work on.
    for name in ("faster_whisper", "huggingface_hub", "urllib3", "httpx", "httpx2", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _load(options: ChildOptions) -> WhisperBackend:
    """Resolve, load and warm up; raises ConfigError or ModelUnavailableError."""
    times = StartTimes(os.environ)
    # Here and not above: these take a second, and the ties to the parent must stand before.
    from engine.hub import HuggingFaceHub
    from engine.models import resolve_model
    from engine.whisper import WhisperBackend

    times.mark("imports")
    resolved = resolve_model(options.model, environ=os.environ, hub=HuggingFaceHub())
    backend = WhisperBackend(
        resolved.path,
        name=resolved.name,
        is_demo=resolved.is_demo,
        device=options.device,
        compute_type=options.compute_type,
        cpu_threads=options.cpu_threads or (DEMO_THREADS if resolved.is_demo else usable_cores()),
        first_handle=options.first_handle,
        window_pad_s=options.window_pad_s,
        revision=resolved.revision,
    )
    times.mark("load")
    backend.warm_up()
    times.mark("warm_up")
    info = backend.info
    _log.info("model %s is ready on %s (%s, from %s)", info.name, info.device, info.compute_type, resolved.origin)
    _log.info("engine %s", times.as_json())
    return backend


def is_device_broken(error: Exception) -> bool:
    """True if a CUDA error leaves nothing to be done but to start again.

    After most CUDA errors every later call in the process fails too (CUDA runtime API, "sticky
    errors"); running out of memory is the exception: the next, smaller call may succeed.
    """
    if is_out_of_memory(error):
        return False
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("cuda" in text or "cublas" in text)


def is_out_of_memory(error: Exception) -> bool:
    """True if a smaller call may succeed: the device or this process had no room for this one."""
    if isinstance(error, RuntimeError):
        text = str(error).lower()
        return any(mark in text for mark in MEMORY_MARKS)
    return isinstance(error, MemoryError)


def _reason(error: Exception) -> tuple[str, str]:
    """The error's code and a message that holds none of the data."""
    if isinstance(error, SttError):
        return error.code, str(error)
    if is_out_of_memory(error):
        return EngineMemoryError.code, f"out of memory ({str(error)[:MAX_REASON_CHARS] or type(error).__name__})"
    if isinstance(error, RuntimeError):
        # CTranslate2's kind: the library's own words about shapes, memory and devices.
        return EngineFailedError.code, f"the model call failed: {str(error)[:MAX_REASON_CHARS]}"
    return EngineFailedError.code, f"the model call failed ({type(error).__name__})"


def _call(backend: WhisperBackend, method: str, argument: Any) -> object:
    if method not in METHODS:
        raise EngineFailedError(f"no such call: {method}")
    if method == "transcribe":
        return decode_batch(backend, backend.info, argument, MonotonicClock())
    if method == "open_file":
        samples, options = argument
        return backend.open_file(samples, options)
    result: object = getattr(backend, method)(argument)
    return result


def answer(backend: WhisperBackend, request: Request) -> Reply:
    """Make one call; whatever goes wrong becomes a reply, and nothing of the call is held afterwards."""
    message_id, method, argument = request
    try:
        return message_id, True, _call(backend, method, argument)
    except Exception as error:  # an edge: it goes to the caller, under this message's id
        if is_device_broken(error):
            _log.error("%s: the device is lost (%s)", method, str(error)[:MAX_REASON_CHARS])
            os._exit(EXIT_BROKEN_DEVICE)
        code, text = _reason(error)
        _log.warning("%s: %s", method, text)
        return message_id, False, (code, text)


def _start(connection: Connection) -> WhisperBackend | None:
    options: ChildOptions = connection.recv()
    _set_up_logging(options)
    try:
        backend = _load(options)
    except Exception as error:  # an edge: it goes to the parent, which ends the start with it
        code = error.code if isinstance(error, SttError) else ModelUnavailableError.code
        connection.send((START_ID, False, (code, str(error) or type(error).__name__)))
        return None
    connection.send((START_ID, True, backend.info))
    return backend


def main(argv: Sequence[str]) -> int:
    """Serve the parent at the other end of descriptor `argv[0]`; returns the exit status."""
    _bind_to_parent(int(argv[1]))
    connection = Connection(int(argv[0]))
    try:
        backend = _start(connection)
        while backend is not None:
            connection.send(answer(backend, connection.recv()))
    except (EOFError, OSError):
        pass  # the parent is gone, or wants us gone
    # Threads inside the libraries are not waited for: the process holds nothing to be saved.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
