"""What happens to a pod after it was created or started: steps at set times, the good way and the bad ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Boot", "BootKind", "LogSource", "PodStatus", "Step", "Timing", "boot_kind", "boot_steps"]

PodStatus = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]
LogSource = Literal["container", "system"]
BootKind = Literal[
    "ok", "missing", "private", "pull_limit", "disk_full", "cuda", "stuck", "unplaced", "crash_loop", "exits"
]
CRASH_LINE = "RuntimeError: Library libcudnn_ops.so.9 is not found or cannot be loaded"
LONGEST_REPEAT_S = 300.0


@dataclass(frozen=True)
class Timing:
    """Seconds a pod spends on its way; `start_s` is for one that was there before (its image is cached)."""

    provisioning_s: float = 3.0
    starting_s: float = 10.0
    start_s: float = 5.0
    crash_s: float = 4.0


@dataclass(frozen=True)
class Boot:
    """The fate of one start. `line` replaces the usual text of a failure."""

    kind: BootKind = "ok"
    line: str | None = None


@dataclass(frozen=True)
class Step:
    """What happens at `at_s`; with `repeat_s` it happens again, after ever longer waits."""

    at_s: float
    status: PodStatus | None = None
    line: str | None = None
    source: LogSource = "system"
    container: Literal["starts", "dies"] | None = None
    repeat_s: float | None = None

    def again(self) -> Step | None:
        """The next time, if there is one."""
        if self.repeat_s is None:
            return None
        wait_s = min(2 * self.repeat_s, LONGEST_REPEAT_S)
        return Step(self.at_s + self.repeat_s, self.status, self.line, self.source, self.container, wait_s)


def boot_kind(image: str, has_registry: bool) -> BootKind:
    """What an image's name says of its fate."""
    if "missing" in image:
        return "missing"
    return "private" if "private" in image and not has_registry else "ok"


def boot_steps(boot: Boot, image: str, now_s: float, timing: Timing, *, is_new: bool) -> list[Step]:
    """All steps of a boot that begins now, in order; the pod is PROVISIONING (or STARTING, if not new)."""
    placed_s = now_s + (timing.provisioning_s if is_new else 0.0)
    up_s = placed_s + (timing.starting_s if is_new else timing.start_s)
    if boot.kind == "unplaced":
        return []
    steps = [Step(placed_s, "STARTING", f"create container {image}")]
    if boot.kind == "stuck":
        return steps
    failure = _pull_failure(boot, image)
    if failure is not None:
        return [*steps, Step(placed_s + (up_s - placed_s) / 2, "ERROR", failure)]
    if boot.kind == "cuda":
        return [*steps, Step(up_s, line=boot.line or _cuda_line(), repeat_s=10.0)]
    name, _colon, tag = image.rpartition(":")
    pulled = (placed_s + up_s) / 2
    steps += [
        Step(placed_s, line=f"{tag} Pulling from {name}"),
        Step(pulled, line=f"Status: Downloaded newer image for {image}"),
        Step(up_s, "RUNNING", f"start container for {image}: begin", container="starts"),
    ]
    return steps + _container_steps(boot, image, up_s, timing)


def _container_steps(boot: Boot, image: str, up_s: float, timing: Timing) -> list[Step]:
    line = boot.line or CRASH_LINE
    dead_s = up_s + timing.crash_s
    if boot.kind == "exits":
        return [
            Step(dead_s, line=line, source="container"),
            Step(dead_s, "EXITED", f"stop container for {image}", container="dies"),
        ]
    if boot.kind == "crash_loop":
        return [
            Step(dead_s, line=line, source="container", repeat_s=2 * timing.crash_s),
            Step(dead_s, line=f"start container for {image}: begin", container="starts", repeat_s=2 * timing.crash_s),
        ]
    return []


def _pull_failure(boot: Boot, image: str) -> str | None:
    texts: dict[str, str] = {
        "missing": f"error pulling image: Error response from daemon: manifest for {image} not found: "
        "manifest unknown: manifest unknown",
        "private": f"error pulling image: Error response from daemon: pull access denied for {image}, repository does "
        "not exist or may require 'docker login': denied: requested access to the resource is denied",
        "pull_limit": "error pulling image: Error response from daemon: toomanyrequests: You have reached your "
        "unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit",
        "disk_full": "failed to register layer: write /usr/lib/libcublas.so: no space left on device",
    }
    text = texts.get(boot.kind)
    return None if text is None else boot.line or text


def _cuda_line() -> str:
    return (
        "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8, please update your driver to a "
        "newer version, or use an earlier cuda container: unknown"
    )
