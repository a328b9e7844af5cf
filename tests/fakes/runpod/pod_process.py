"""The container of a pod as a process here: `python -m realtime` with the demo model, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["PodProcess", "pod_environ"]

ROOT = Path(__file__).resolve().parents[3]
TERM_LIMIT_S = 15.0
"""From SIGTERM to SIGKILL; the platform gives 10 s, but not on two cores that everybody uses."""
# What would configure the server, or lead it away from loopback, if it came from this machine.
_OURS = ("WHISPER", "RUNPOD", "MAX_", "LOG_", "HEALTH_", "IDLE_", "SSL_", "HF_", "POD_", "BUILDER_", "PYTEST_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy")


def pod_environ(pod_env: Mapping[str, str], platform: Mapping[str, str]) -> dict[str, str]:
    """The container's environment: the pod's, then what the platform sets, then what this machine demands.

    There is no GPU and no model hub here, so the model is the demo model whatever the pod says.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OURS) and name.lower() not in _PROXIES
    }
    here = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "WHISPERLIVE_HOST": "127.0.0.1",
        "WHISPER_MODEL": "demo",
        "WHISPER_COMPUTE_TYPE": "auto",
        "WHISPER_DEVICE": "cpu",
    }
    return {**kept, **pod_env, **platform, **here}


class PodProcess:
    """A running server on free ports; `on_line` gets each line it writes, from a thread.

    `ws_port` and `health_port` are local. `stop` leaves nothing of its process group behind.
    """

    def __init__(self, environ: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        self.ws_port, self.health_port = _free_ports()
        self._on_line = on_line
        # A folder of its own: the server reads `.env` where it stands.
        self._folder = tempfile.TemporaryDirectory(prefix="pod-")
        ports = {"WHISPERLIVE_PORT": str(self.ws_port), "HEALTH_CHECK_PORT": str(self.health_port)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "realtime"],
            env={**environ, **ports, "HOME": self._folder.name},
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"pod-log-{self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its number, which is also its group's."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end; `stop` waits."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is left of its group."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(TERM_LIMIT_S)
        self._reader.join(TERM_LIMIT_S)
        self._folder.cleanup()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._on_line(line.decode("utf-8", "replace").rstrip("\r\n"))


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]
