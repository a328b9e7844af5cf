"""How far a pod is on its way to serving, and when it is clear that it will never get there.

A pure state machine: observations in, rungs and a failure out; it reads no clock and asks nobody. The rungs, in order:

    placed   a machine was found                     API: past PROVISIONING
    image    the container image is there            API past STARTING, or the system log starts a container
    running  the container runs                      API: RUNNING with an uptime
    proxy    the health port answers                 GET /health 200 through RunPod's proxy
    ready    the model is loaded and has decoded     GET /ready 200 (or every place is taken)
    speaks   a clip comes back as text               a real transcription

A rung that is reached proves those below it. Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Literal

from builder.pods.causes import Cause, diagnose

__all__ = ["RUNGS", "TARGETS", "Failure", "Ladder", "Observation", "Rung", "Until", "delay_s"]

Rung = Literal["placed", "image", "running", "proxy", "ready", "speaks"]
Until = Literal["running", "health", "ready", "speaks"]
RUNGS: tuple[Rung, ...] = ("placed", "image", "running", "proxy", "ready", "speaks")
TARGETS: dict[Until, Rung] = {"running": "running", "health": "proxy", "ready": "ready", "speaks": "speaks"}
SILENT_LIMIT_S = 180.0
"""A running pod whose health port says nothing good for this long never will, whatever the proxy says instead."""
UNKNOWN_LIMIT_S = 30.0
"""RunPod's proxy may take this long to learn of a new pod."""
CRASHES = 2
QUICK_S, QUICK_DELAY_S, SLOW_DELAY_S, JITTER = 30.0, 2.0, 5.0, 0.2
_SYSTEM_KINDS = frozenset({"IMAGE", "HOST_CUDA", "HOST", "DISK"})
"""What a host's own log says of these, the next try will not heal."""
_SERVER_KINDS = _SYSTEM_KINDS | {"CUDNN", "GPU_MEMORY", "MEMORY", "MODULE", "MODEL", "PORT", "SPOT", "STOPPED"}
"""What ends a server; a log also holds words on others' requests."""
_STARTED_MARKS = ("start container", "started container", "container started")
_REDEPLOY = "see python -m builder logs --source system, then: python -m builder deploy --replace"


@dataclass(frozen=True)
class Observation:
    """What one look at a pod showed; None: not asked, or no answer."""

    now_s: float
    status: str | None
    """As the API names it; None: the API knows no such pod."""
    uptime_s: int | None = None
    trusts_status: bool = False
    """True if the API tells no uptime, so that its RUNNING has to do."""
    lines: tuple[tuple[str, str], ...] = ()
    """(container or system, line): what the logs said since the last look."""
    health: int | None = None
    """HTTP status of /health; None with `asked`: no answer at all."""
    asked: bool = False
    ready: int | None = None
    reason: str = ""
    """Why /ready says no."""
    has_spoken: bool = False
    port: int = 9999
    is_port_declared: bool = True


@dataclass(frozen=True)
class Failure:
    """Why a pod will never get ready."""

    what: str
    cause: Cause | None
    hint: str

    @property
    def text(self) -> str:
        """One line."""
        if self.cause is None:
            return self.what
        return f"{self.what}: {self.cause.cause} ({self.cause.line[:200]})"


@dataclass(frozen=True)
class Ladder:
    """The state; `see` gives the next one."""

    began_s: float
    reached: tuple[tuple[Rung, float], ...] = ()
    """Rungs with the seconds from the beginning to when each was first seen, in order."""
    failure: Failure | None = None
    suspicion: Cause | None = field(default=None)
    """The worst that the logs have said, until something proves it harmless."""
    last_uptime_s: int | None = None
    crashes: int = 0
    silent_since_s: float | None = None
    unknown_since_s: float | None = None
    reason: str = ""

    def has(self, rung: Rung) -> bool:
        """True once `rung` was reached."""
        return any(name == rung for name, _ in self.reached)

    @property
    def next_rung(self) -> Rung | None:
        """What it waits for; None at the top."""
        return next((rung for rung in RUNGS if not self.has(rung)), None)

    def see(self, seen: Observation) -> Ladder:
        """The state after `seen`; a failure is for good."""
        if self.failure is not None:
            return self
        after = self._with_lines(seen)._with_uptime(seen)
        after = after._with_rungs(seen)._with_proxy(seen)
        return replace(after, failure=after._failure(seen))

    def _with_lines(self, seen: Observation) -> Ladder:
        found = diagnose("\n".join(line for _, line in seen.lines))
        if found is None or not found.is_final or found.kind not in _SERVER_KINDS:
            return self
        return replace(self, suspicion=found)

    def _with_uptime(self, seen: Observation) -> Ladder:
        if seen.uptime_s is None:
            return self
        # Only falling counts: how often RunPod brings the figure up to date is not known, so standing still may be lag.
        has_fallen = self.last_uptime_s is not None and seen.uptime_s < self.last_uptime_s
        return replace(self, last_uptime_s=seen.uptime_s, crashes=self.crashes + has_fallen)

    def _with_rungs(self, seen: Observation) -> Ladder:
        top = _highest(seen)
        if top is None:
            return replace(self, reason=seen.reason)
        after = self.reached
        for rung in RUNGS[: RUNGS.index(top) + 1]:
            if not self.has(rung):
                after = (*after, (rung, seen.now_s - self.began_s))
        is_well = seen.ready == 200
        return replace(self, reached=after, reason=seen.reason, suspicion=None if is_well else self.suspicion)

    def _with_proxy(self, seen: Observation) -> Ladder:
        is_silent = seen.asked and seen.health != 200
        is_unknown = seen.asked and seen.health == 404
        return replace(
            self,
            silent_since_s=_since(self.silent_since_s, is_silent, seen.now_s),
            unknown_since_s=_since(self.unknown_since_s, is_unknown, seen.now_s),
        )

    def _failure(self, seen: Observation) -> Failure | None:
        return self._dead(seen) or self._refused(seen) or self._crashing(seen) or self._unreachable(seen)

    def _dead(self, seen: Observation) -> Failure | None:
        if seen.status is None:
            return Failure(
                "the pod is gone: it was terminated", self.suspicion, "deploy again: python -m builder deploy"
            )
        if seen.status == "TERMINATED":
            return Failure("the pod was terminated", self.suspicion, "deploy again: python -m builder deploy")
        if seen.status == "EXITED":
            return Failure("the pod is stopped", self.suspicion, self._remedy("start it: python -m builder start"))
        if seen.status == "ERROR":
            return Failure("RunPod reports ERROR for the pod", self.suspicion, self._remedy(_REDEPLOY))
        return None

    def _refused(self, seen: Observation) -> Failure | None:
        """The host cannot start the container; it would try for ever."""
        found = diagnose("\n".join(line for source, line in seen.lines if source == "system"))
        if found is None or found.kind not in _SYSTEM_KINDS or not found.is_final or seen.health == 200:
            return None
        return Failure("the host cannot start the pod", found, found.remedy)

    def _crashing(self, seen: Observation) -> Failure | None:
        kind = seen.reason.replace(":", " ").split()[:1]
        if seen.ready is not None and seen.ready != 200 and kind == ["failed"]:
            cause = self.suspicion or diagnose(seen.reason)
            hint = cause.remedy if cause else "see what it says: python -m builder logs"
            return Failure(f"the server says it has failed ({seen.reason})", cause, hint)
        if self.crashes >= CRASHES:
            return Failure(
                f"the container crashed {self.crashes} times and is started again and again",
                self.suspicion,
                self._remedy("see what it says last: python -m builder logs --tail 100"),
            )
        # While the server answers, a word of its log is not taken for its end.
        if self.suspicion is not None and seen.status == "RUNNING" and seen.health != 200:
            return Failure("the server does not start", self.suspicion, self.suspicion.remedy)
        return None

    def _unreachable(self, seen: Observation) -> Failure | None:
        redeploy = (
            "check HEALTH_CHECK_PORT, then deploy again with this project's image: python -m builder deploy --replace"
        )
        if seen.status != "RUNNING":
            return None
        if self.silent_since_s is not None and seen.now_s - self.silent_since_s > SILENT_LIMIT_S:
            last = "nothing" if seen.health is None else f"only HTTP {seen.health}"
            what = f"the pod runs, but for {SILENT_LIMIT_S:.0f} s {last} came from /health on port {seen.port}"
            return Failure(f"{what}: the server does not start, or listens elsewhere", None, redeploy)
        if self.has("proxy"):
            return None
        if not seen.is_port_declared:
            return Failure(f"the pod does not declare port {seen.port}/http to RunPod's proxy", None, redeploy)
        if self.unknown_since_s is not None and seen.now_s - self.unknown_since_s > UNKNOWN_LIMIT_S:
            what = f"port {seen.port} answers 404 for /health: it is not declared, or another program has it"
            return Failure(what, None, redeploy)
        return None

    def _remedy(self, otherwise: str) -> str:
        return otherwise if self.suspicion is None else self.suspicion.remedy


def _highest(seen: Observation) -> Rung | None:
    if seen.has_spoken:
        return "speaks"
    if seen.ready == 200 or seen.reason.startswith("full"):
        return "ready"
    if seen.health == 200:
        return "proxy"
    if seen.status == "RUNNING":
        return "running" if seen.trusts_status or (seen.uptime_s or 0) > 0 else "image"
    if any(source == "system" and _starts_container(line) for source, line in seen.lines):
        return "image"
    return "placed" if seen.status == "STARTING" else None


def _starts_container(line: str) -> bool:
    return any(mark in line.lower() for mark in _STARTED_MARKS)


def _since(before_s: float | None, is_so: bool, now_s: float) -> float | None:
    if not is_so:
        return None
    return now_s if before_s is None else before_s


def delay_s(elapsed_s: float, source: random.Random) -> float:
    """Seconds to the next look: 2 in the first half minute, then 5, each +-20 %."""
    base_s = QUICK_DELAY_S if elapsed_s < QUICK_S else SLOW_DELAY_S
    return base_s * source.uniform(1 - JITTER, 1 + JITTER)
