"""A control plane with a serverless endpoint as `deploy endpoint` leaves it, and a command line beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.builder_harness import Cli
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane
from tests.fakes.runpod.endpoint import FakeEndpoint
from tests.fakes.runpod.endpoint_bodies import checked_template

__all__ = ["AUDIO", "Bench"]

AUDIO = {"audio": "https://host/talk.mp3"}


class Bench:
    """A plane with one endpoint that is recorded, and a command line."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.cli = Cli(plane.environ(), folder, plane.clock)
        self.endpoint = self.add()
        self.record(self.endpoint)

    def add(self, *, template: bool = False, **more: Any) -> FakeEndpoint:
        body: dict[str, Any] = {
            "name": "whisper-0101-abc123",
            "type": "QUEUE",
            "image": "you/whisper:1",
            "env": {"BUILDER_ID": "b-1"},
            "gpu": {"pools": ["AMPERE_24"], "count": 1},
            "workers": {"min": 0, "max": 3, "idleTimeout": 10},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "flashboot": "OFF",
            "timeout": 600_000,
        }
        body |= more
        if template:
            body["templateId"] = self.add_template(body["name"], body["env"], body["image"])
        return self.plane.endpoints.create(body)

    def add_template(self, name: str, env: dict[str, str], image: str = "you/whisper:1") -> str:
        """A stored template; its id."""
        body = {"name": name, "image": image, "env": env, "disk": 20, "serverless": True}
        return self.plane.endpoints.add_template(checked_template(body, self.plane.pods.account)).id

    def record(self, endpoint: FakeEndpoint, **more: Any) -> None:
        """Write artifacts/endpoint.json."""
        folder = self.cli.folder / "artifacts"
        folder.mkdir(exist_ok=True)
        document = {"endpoint_id": endpoint.id, "name": endpoint.name, "workers_max": 3, "builder_id": "b-1", **more}
        (folder / "endpoint.json").write_text(json.dumps(document), encoding="utf-8")

    @property
    def recorded(self) -> dict[str, Any] | None:
        """What artifacts/endpoint.json says."""
        path = self.cli.folder / "artifacts" / "endpoint.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    @property
    def clock(self) -> PlaneClock:
        """The plane's."""
        return self.plane.clock

    @property
    def queue(self) -> Any:
        return self.plane.endpoints.queues[self.endpoint.id]

    def sent(self, route: str = "run") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.queue.requests(route)
        return found

    def job(self, job_id: str) -> Any:
        return self.queue.job(job_id)

    def submit(self, **extra: Any) -> str:
        return str(self.queue.submit(AUDIO, **extra))

    def events(self) -> list[dict[str, Any]]:
        path = self.cli.folder / "artifacts" / "events.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
