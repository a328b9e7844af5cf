"""A worker as a process: its environment as the platform gives it, its group, its logs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.fakes.runpod.job_queue import JobQueue
from tests.fakes.runpod.queue_plane import QueuePlane

__all__ = ["LocalWorker", "platform_environ", "worker_environ"]

ROOT = Path(__file__).resolve().parents[3]


def worker_environ(plane: QueuePlane, worker: str = "w1", home: Path | None = None, **extra: str) -> dict[str, str]:
    """What the platform sets for `worker`, and nothing else of our own settings.

    HOME is an empty folder: a `config.toml` of the SDK's command line would win over the key.
    """
    ours = ("WHISPER", "RUNPOD", "MAX_", "LOG_", "HEALTH_", "SSL_", "HF_", "BUCKET_", "CONCURRENCY", "HANDLER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "HOME": str(home or tempfile.gettempdir()),
        "PYTHONUNBUFFERED": "1",
        **platform_environ(plane, plane.url, worker),
        **extra,
    }


def platform_environ(queue: JobQueue, url: str, worker: str) -> dict[str, str]:
    """What the platform sets for `worker` of the endpoint whose queue is at `url`."""
    query = "?gpu=FAKE"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID{query}",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID{query}",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID{query}",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID{query}",
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_AI_API_KEY": queue.worker_key,
        "RUNPOD_POD_ID": worker,
        "RUNPOD_ENDPOINT_ID": queue.endpoint,
        # There is no internet here, no GPU, and never 4 GB to spare.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


class LocalWorker:
    """A running worker; a context manager that leaves nothing of its process group behind."""

    def __init__(self, command: Sequence[str], environ: dict[str, str], folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="worker-")
        self._log_path = Path(self._folder.name) / "log"
        home = Path(self._folder.name) / "home"
        home.mkdir()
        # The log is a file: a pipe that nobody reads would stop the worker.
        with self._log_path.open("wb") as log:
            self.process = subprocess.Popen(
                list(command),
                env={"PYTHONPATH": str(ROOT), **environ, "HOME": str(home)},
                # Not in the repository's folder, where somebody may have made a `.env`.
                cwd=folder or home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._folder.cleanup()

    def log(self) -> str:
        """Both standard streams so far."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def terminate(self, limit_s: float = 15.0) -> tuple[int, float]:
        """SIGTERM to the worker itself; returns its exit status and the seconds it took."""
        began_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(limit_s), time.monotonic() - began_s

    def kill(self) -> None:
        """SIGKILL to the worker itself, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait(10)

    def catches(self, signum: int) -> bool:
        """Whether the worker has a handler of its own for a signal."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(mask, 16) >> (signum - 1) & 1)

    def group(self) -> list[int]:
        """Living processes of its group; zombies are dead."""
        alive = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                state, _parent, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    alive.append(int(entry.name))
        return alive
