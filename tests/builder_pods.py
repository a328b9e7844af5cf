"""A control plane, its proxy, and behind it a pod's health port that answers as a test says: no server is started."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.pod import Pod

__all__ = ["TOKEN", "Bench", "HealthPort", "pod_bench"]

TOKEN = "canary-token-0123456789"
IMAGE = "you/whisper:abc1234"
GPU = "NVIDIA GeForce RTX 4090"


@dataclass
class HealthPort:
    """What the pod says; `ready_after` times /ready says no first. `authorized`: /status calls with the token."""

    is_up: bool = True
    ready_after: int = 0
    reason: str = "loading: the engine is not ready"
    has_health: bool = True
    active: int = 2
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        self.asked.append(path)
        if not self.is_up:
            return 503, {}
        if path == "/health" and self.has_health:
            return 200, {"status": "healthy"}
        if path == "/ready":
            if self.ready_after > 0:
                self.ready_after -= 1
                return 503, {"status": "not_ready", "reason": self.reason}
            return 200, {"status": "ready", "reason": "the model is loaded and has decoded"}
        if path == "/status":
            knows = authorization == f"Bearer {TOKEN}"
            return 200, {"status": "healthy", **({"sessions": {"active": self.active, "max": 4}} if knows else {})}
        return 404, {"error": "Not found"}


@dataclass
class Bench:
    """Everything together; `cli` runs verbs, `add_pod` makes a pod that was deployed from here."""

    plane: ControlPlane
    health: HealthPort
    cli: Cli

    @property
    def clock(self) -> PlaneClock:
        """The plane's."""
        return self.plane.clock

    def add_pod(self, *, records: bool = True, image: str = IMAGE, **more: Any) -> Pod:
        """A pod as `deploy` leaves it, just created; `more` goes into the body of its creation."""
        env = {"BUILDER_ID": "b-1", "WHISPER_AUTH_TOKEN": TOKEN, "KEPT": "as it is", **more.pop("env", {})}
        body: dict[str, Any] = {
            "name": more.pop("name", "whisper-1124"),
            "image": image,
            "gpu": {"id": GPU, "count": 1},
            "cloud": "SECURE",
            "disk": 20,
            "ports": ["9090/http", "9999/http"],
            "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
            "env": env,
        }
        pod = self.plane.pods.create({**body, **more})
        if records:
            self.record(pod.id)
        return pod

    def add_running(self, **more: Any) -> Pod:
        """A pod that has been up for a minute."""
        pod = self.add_pod(**more)
        self.clock.advance(73)
        self.plane.pods.sweep()
        return pod

    def add_stopped(self, **more: Any) -> Pod:
        """A pod that ran and was stopped."""
        pod = self.add_running(**more)
        self.plane.pods.act(pod.id, "stop")
        return pod

    def record(self, pod_id: str, **more: Any) -> None:
        """Write artifacts/pod.json."""
        folder = self.cli.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        document = {"pod_id": pod_id, "status": "RUNNING", "is_spot": False, "deadline": None, **more}
        path = folder / "pod.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        path.chmod(0o600)

    @property
    def recorded(self) -> dict[str, Any] | None:
        """What artifacts/pod.json says."""
        path = self.cli.folder / "artifacts" / "pod.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def events(self) -> list[str]:
        """Actions in the diary."""
        path = self.cli.folder / "artifacts" / "events.jsonl"
        return [json.loads(line)["action"] for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def pod_bench(
    folder: Path, clock: PlaneClock | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Bench]:
    """A bench whose health port stands behind every pod that runs."""
    health = HealthPort()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = health.answer(self.path, self.headers.get("Authorization", ""))
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            return

    plane = ControlPlane(clock)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def on_change(pod: Pod, before: object, after: str) -> None:
        if after == "RUNNING" and health.is_up:
            plane.proxy.register(pod.id, 9999, server.server_port)
        else:
            plane.proxy.unregister(pod.id)

    plane.pods.on_change.append(on_change)
    try:
        with plane:
            extra = {"WHISPER_AUTH_TOKEN": TOKEN, **(environ or {})}
            yield Bench(plane, health, Cli(plane.environ(**extra), folder, plane.clock))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
