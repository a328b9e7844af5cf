"""The container of a pod as a process here: `python -m realtime` with the demo model, on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["LoggedProcess", "PodProcess", "free_port", "pod_environ", "with_secrets"]

ROOT = Path(__file__).resolve().parents[3]
TERM_LIMIT_S = 15.0
"""From SIGTERM to SIGKILL; the platform gives 10 s, but not on two cores that everybody uses."""
# What would configure the server, or lead it away from loopback, if it came from this machine.
_OURS = (
    *("WHISPER", "RUNPOD", "MAX_", "LOG_", "HEALTH_", "IDLE_", "SSL_", "HF_", "POD_", "BUILDER_", "PYTEST_"),
    *("BUCKET_", "CONCURRENCY", "HANDLER_", "AWS_", "PORT", "EC2_"),
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ws_proxy", "wss_proxy")

SECRET = re.compile(r"\{\{\s*RUNPOD_SECRET_([A-Za-z0-9_.-]+)\s*\}\}")


def with_secrets(env: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """References to the account's secrets replaced; one that is not there becomes nothing."""
    return {name: SECRET.sub(lambda match: secrets.get(match[1], ""), text) for name, text in env.items()}


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


class LoggedProcess:
    """A running command with a group and a folder of its own; `on_line` gets each line it writes, from a thread.

    `stop` leaves nothing of its process group behind.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        # A folder of its own: the server reads `.env` where it stands.
        self._folder = tempfile.TemporaryDirectory(prefix="pod-")
        self._process = subprocess.Popen(
            list(command),
            env={**environ, "HOME": self._folder.name},
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

    def kill(self) -> None:
        """SIGKILL for whatever is left of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whatever is left of its group."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_LIMIT_S)
        self.kill()
        self._process.wait(TERM_LIMIT_S)
        self._reader.join(TERM_LIMIT_S)
        self._folder.cleanup()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            for line in pipe:
                self._on_line(line.decode("utf-8", "replace").rstrip("\r\n"))


class PodProcess(LoggedProcess):
    """A running server on free ports; `ws_port` and `health_port` are local."""

    def __init__(self, environ: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        self.ws_port, self.health_port = _free_ports(2)
        ports = {"WHISPERLIVE_PORT": str(self.ws_port), "HEALTH_CHECK_PORT": str(self.health_port)}
        super().__init__([sys.executable, "-m", "realtime"], {**environ, **ports}, on_line)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    return _free_ports(1)[0]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in probes:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in probes]
