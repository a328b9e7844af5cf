"""Workers of endpoints that really run: while a worker of the plane is up, a process stands for it.

The plane's store says when workers come and go; here a worker of a queue is `python -m handler`, which takes jobs from
the plane's queue, and one of a load balancer is `python -m realtime`. Only for planes on real time: a process takes
seconds to start, and virtual time does not wait for it.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.fakes.runpod.boots import LogSource
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.endpoint import FakeEndpoint, FakeWorker, WorkerStatus
from tests.fakes.runpod.job_queue import JobQueue
from tests.fakes.runpod.pod import PodRefusedError
from tests.fakes.runpod.pod_process import TERM_LIMIT_S, LoggedProcess, free_port, pod_environ, with_secrets
from tests.fakes.runpod.process import platform_environ

__all__ = ["LocalWorkers"]

LOOK_EVERY_S = 0.05
PING_EVERY_S = 0.25
PING_LIMIT_S = 1.0
QUEUE_COMMAND = (sys.executable, "-m", "handler")
LB_COMMAND = (sys.executable, "-m", "realtime")
DEFAULT_LISTEN, DEFAULT_PORT = "9090", "80"
NOBODY = "127.0.0.1:1"
"""What a load balancer reaches if the ports do not agree."""


@dataclass
class _Local:
    """A worker's process; times are monotonic. `port` is where a load balancer's worker listens."""

    endpoint: FakeEndpoint
    worker: FakeWorker
    process: LoggedProcess
    port: int | None = None
    ending_s: float | None = None
    pinged_s: float = 0.0


class LocalWorkers:
    """Watches `plane`'s endpoints from a thread of its own; a context manager that leaves no process behind.

    `command` is a queue worker's, `extra` its environment beyond the endpoint's. At most `max_workers` of an endpoint
    run at a time. A job whose worker is lost goes back to the queue after `heartbeat_limit_s`. The plane must be
    entered before, and left after.
    """

    def __init__(
        self,
        plane: ControlPlane,
        command: Sequence[str] = QUEUE_COMMAND,
        extra: Mapping[str, str] | None = None,
        *,
        max_workers: int = 2,
        heartbeat_limit_s: float = 5.0,
    ) -> None:
        self._plane = plane
        self._command = command
        self._extra = dict(extra or {})
        self._max_workers = max_workers
        self._heartbeat_limit_s = heartbeat_limit_s
        self._locals: dict[str, _Local] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="local-workers", daemon=True)

    def __enter__(self) -> LocalWorkers:
        self._plane.endpoints.simulate = False
        self._plane.endpoints.on_worker.append(self._on_worker)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plane.endpoints.on_worker.remove(self._on_worker)
        self._stop.set()
        self._thread.join()
        for local in self._locals.values():
            local.process.terminate()
        for local in self._locals.values():
            local.process.stop()
        self._locals.clear()

    def pids(self) -> dict[str, int]:
        """Processes by worker; each is the leader of its group."""
        return {worker_id: local.process.pid for worker_id, local in list(self._locals.items())}

    def kill(self, worker_id: str) -> None:
        """SIGKILL to the worker's group, as if its machine had died. Raises KeyError if it has no process."""
        self._locals[worker_id].process.kill()

    # The thread

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            wanted = {
                worker.id: (endpoint, worker)
                for endpoint in self._plane.endpoints.alive()
                for worker in list(endpoint.workers)
                if worker.is_up and not worker.is_gone
            }
            for worker_id, local in list(self._locals.items()):
                self._look_after(worker_id, local, is_wanted=worker_id in wanted)
            for worker_id, (endpoint, worker) in wanted.items():
                running = sum(local.endpoint.id == endpoint.id for local in self._locals.values())
                if worker_id not in self._locals and running < self._max_workers:
                    self._start(endpoint, worker)

    def _look_after(self, worker_id: str, local: _Local, *, is_wanted: bool) -> None:
        code = local.process.exit_code
        if local.ending_s is not None:
            # A job in hand may be finished, or given back.
            if code is not None or time.monotonic() - local.ending_s > TERM_LIMIT_S:
                self._remove(worker_id, local)
        elif code is not None:
            self._log(local.worker, "system", f"worker exited with code {code}")
            self._remove(worker_id, local)
            with contextlib.suppress(PodRefusedError):
                self._plane.endpoints.kill_worker(local.endpoint.id, worker_id)
        elif not is_wanted:
            local.worker.address = None
            local.ending_s = time.monotonic()
            local.process.terminate()
        elif local.port is not None:
            self._ping(local, local.port)
        elif local.worker.is_draining:
            self._retire(local.endpoint.id, worker_id)

    def _start(self, endpoint: FakeEndpoint, worker: FakeWorker) -> None:
        def on_line(line: str) -> None:
            self._log(worker, "container", line)

        secrets = {name: each.value for name, each in self._plane.pods.account.secrets.items()}
        env = with_secrets(endpoint.env, secrets)
        if not endpoint.is_queue:
            self._locals[worker.id] = self._balanced(endpoint, worker, env, on_line)
            return
        queue = self._plane.endpoints.queue(endpoint.id)
        if not isinstance(queue, JobQueue):
            # Deleted since.
            return
        queue.rules.heartbeat_limit_s = self._heartbeat_limit_s
        platform = platform_environ(queue, f"{self._plane.url}/jobs/v2/{endpoint.id}", worker.id)
        environ = {**pod_environ(env, platform), **self._extra}
        self._locals[worker.id] = _Local(endpoint, worker, LoggedProcess(self._command, environ, on_line))

    def _balanced(
        self, endpoint: FakeEndpoint, worker: FakeWorker, env: dict[str, str], on_line: Callable[[str], None]
    ) -> _Local:
        """A server of its own. It reads no PORT, so its own variable leads it to the local port."""
        port = free_port()
        platform = {
            "RUNPOD_POD_ID": worker.id,
            "RUNPOD_ENDPOINT_ID": endpoint.id,
            "PORT": str(port),
            "PORT_HEALTH": str(port),
            "WHISPERLIVE_PORT": str(port),
            "HEALTH_CHECK_PORT": str(free_port()),
        }
        return _Local(endpoint, worker, LoggedProcess(LB_COMMAND, pod_environ(env, platform), on_line), port)

    def _ping(self, local: _Local, port: int) -> None:
        """Lead the balancer to the worker once it says that it is ready, and away from it when it does not."""
        now_s = time.monotonic()
        if now_s - local.pinged_s < PING_EVERY_S:
            return
        local.pinged_s = now_s
        if not _ports_agree(local.endpoint):
            local.worker.address = NOBODY
        else:
            local.worker.address = f"127.0.0.1:{port}" if _ping_status(port) == 200 else None

    def _on_worker(
        self, endpoint: FakeEndpoint, worker: FakeWorker, before: WorkerStatus | None, after: WorkerStatus | None
    ) -> None:
        # At once: until the watch looks again, its process would take jobs.
        if after is None:
            self._retire(endpoint.id, worker.id)

    def _retire(self, endpoint_id: str, worker_id: str) -> None:
        """No more jobs for it."""
        queue = self._plane.endpoints.queues.get(endpoint_id)
        if queue is not None:
            with queue.lock:
                queue.store.retired.add(worker_id)

    def _remove(self, worker_id: str, local: _Local) -> None:
        local.worker.address = None
        local.process.stop()
        del self._locals[worker_id]

    def _log(self, worker: FakeWorker, source: LogSource, line: str) -> None:
        with self._plane.pods.turn() as now_s:
            worker.log(now_s, source, line)


def _ports_agree(endpoint: FakeEndpoint) -> bool:
    """Whether the exposed port, PORT, PORT_HEALTH and the port that the server listens on are one, as RunPod asks."""
    port = endpoint.env.get("PORT", DEFAULT_PORT)
    same = {port, endpoint.env.get("PORT_HEALTH", port), endpoint.env.get("WHISPERLIVE_PORT", DEFAULT_LISTEN)}
    return len(same) == 1 and f"{port}/http" in endpoint.ports


def _ping_status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PING_LIMIT_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
