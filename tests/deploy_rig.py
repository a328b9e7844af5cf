"""The fake RunPod and pods in it that answer as soon as they run; for tests of deploys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from tests.builder_harness import Cli, Outcome
from tests.fakes.runpod.clock import PlaneClock
from tests.fakes.runpod.control_plane import ControlPlane

__all__ = ["IMAGE", "TOKEN", "Rig", "rig"]

TOKEN = "t0ken-of-the-tests-1234"
IMAGE = "you/whisper:abc1234"


class Rig:
    """One plane; `start_over` gives each test its own pods, folder and clock."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.folder = Path()

    def start_over(self, folder: Path, clock: PlaneClock | None = None) -> None:
        """A newcomer's account and an empty folder."""
        self.folder = folder
        self.plane.reset(clock=clock or PlaneClock())

    def cli(self, **environ: str) -> Cli:
        """The command line with an image and a token in the environment."""
        own = {"WHISPER_AUTH_TOKEN": TOKEN, "DOCKER_IMAGE": IMAGE, "HOME": str(self.folder)}
        return Cli(self.plane.environ(**(own | environ)), self.folder, self.plane.clock)

    def deploy(self, *argv: str, answers: str | None = None, **environ: str) -> Outcome:
        """`deploy --json --yes ...`."""
        return self.cli(**environ).run("deploy", "--json", "--yes", *argv, answers=answers)

    @property
    def creates(self) -> int:
        """Creates that reached RunPod and had their effect."""
        return sum(
            entry.executed and 200 <= (entry.status or 200) < 300 for entry in self.plane.requests("POST /v2/pods")
        )

    @property
    def alive(self) -> list[str]:
        """Ids of all pods that are billed or could be."""
        return [pod.id for pod in self.plane.pods.alive()]

    def recorded(self) -> list[str]:
        """Files in `artifacts`."""
        return sorted(path.name for path in (self.folder / "artifacts").glob("*.json"))


@contextmanager
def rig() -> Iterator[Rig]:
    """A plane for a module's tests."""
    plane = ControlPlane()

    async def serve(request: web.Request) -> web.Response:
        pod = plane.pods.pods.get(request.match_info["pod"])
        is_up = pod is not None and plane.pods.get(pod.id).status == "RUNNING"
        return web.json_response({"status": "ok", "ready": True}, status=200 if is_up else 502)

    plane.add_routes([web.get("/proxy/{pod}/{port}/{tail:.*}", serve)])
    with plane:
        plane.log_hold_s = 0.0
        yield Rig(plane)
