"""Pods that really run: while a pod of the plane is RUNNING, a live server stands behind its proxy addresses.

Only for planes on real time: a process takes seconds to start, and virtual time does not wait for it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.pod import Pod
from tests.fakes.runpod.pod_process import PodProcess, pod_environ, with_secrets

__all__ = ["LocalPods"]

LOOK_EVERY_S = 0.05
RESTART_AFTER_S = 1.0
"""Between the end of a container that nobody stopped and its next start."""
DEFAULT_PORTS = {"WHISPERLIVE_PORT": 9090, "HEALTH_CHECK_PORT": 9999}


@dataclass
class _Local:
    """A pod's process. `starts` counts the pod's boots, so that a restart is noticed; `ended_s` is monotonic."""

    process: PodProcess
    starts: int
    ended_s: float | None = None


class LocalPods:
    """Watches `plane`'s pods from a thread of its own; a context manager that leaves no process behind.

    The plane must be entered before, and left after.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._locals: dict[str, _Local] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="local-pods", daemon=True)

    def __enter__(self) -> LocalPods:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        for local in self._locals.values():
            local.process.terminate()
        for pod_id in list(self._locals):
            self._end(pod_id)

    def pids(self) -> dict[str, int]:
        """Processes by pod."""
        return {pod_id: local.process.pid for pod_id, local in list(self._locals.items())}

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            running = {pod.id: pod for pod in self._plane.pods.alive() if pod.status == "RUNNING"}
            for pod_id, local in list(self._locals.items()):
                if pod_id not in running or running[pod_id].starts != local.starts:
                    self._end(pod_id)
            for pod in running.values():
                self._look_after(pod)

    def _look_after(self, pod: Pod) -> None:
        """Start the pod's process, or start it again if it has ended: a container is restarted for ever."""
        local = self._locals.get(pod.id)
        if local is None:
            self._start(pod)
        elif local.process.exit_code is not None and local.ended_s is None:
            local.ended_s = time.monotonic()
            self._plane.proxy.unregister(pod.id)
            self._plane.pods.log(pod.id, "system", f"container exited with code {local.process.exit_code}")
        elif local.ended_s is not None and time.monotonic() - local.ended_s > RESTART_AFTER_S:
            self._end(pod.id)
            self._plane.pods.log(pod.id, "system", f"start container for {pod.image}: begin")
            self._start(pod)

    def _start(self, pod: Pod) -> None:
        secrets = {name: each.value for name, each in self._plane.pods.account.secrets.items()}
        environ = pod_environ(with_secrets(pod.env, secrets), self._platform(pod))
        process = PodProcess(environ, lambda line: self._plane.pods.log(pod.id, "container", line))
        self._locals[pod.id] = _Local(process, pod.starts)
        for name, local_port in (("WHISPERLIVE_PORT", process.ws_port), ("HEALTH_CHECK_PORT", process.health_port)):
            port = pod.env.get(name, "")
            self._plane.proxy.register(pod.id, int(port) if port.isdigit() else DEFAULT_PORTS[name], local_port)

    def _end(self, pod_id: str) -> None:
        self._plane.proxy.unregister(pod_id)
        self._locals.pop(pod_id).process.stop()

    def _platform(self, pod: Pod) -> dict[str, str]:
        """What RunPod sets in every pod; the addresses are this plane's."""
        ours = self._plane.environ()
        return {
            "RUNPOD_POD_ID": pod.id,
            "RUNPOD_API_KEY": self._plane.pod_key(pod.id),
            "RUNPOD_API_BASE": ours["RUNPOD_API_BASE"],
            "RUNPOD_GRAPHQL_URL": ours["RUNPOD_GRAPHQL_URL"],
            "RUNPOD_GPU_COUNT": str(pod.gpu_count),
            "RUNPOD_DC_ID": pod.data_center_id or "",
        }
