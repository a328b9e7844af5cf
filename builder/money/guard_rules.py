"""When a pod has run long enough: the guard's rules.

Pure: observations in, decisions out, each with the rule that made it. Rules, the first that applies decides:

    not_running   it has no machine                                            left alone
    foreign       it has no BUILDER_ID, and --all was not given                left alone
    deadline      its own POD_DEADLINE is past                                 ended
    protected     younger than --protect-min                                   left alone
    age           runs for longer than --max-hours                             ended
    boot          not running yet for 30 min (a warning after 15)              ended
    health        runs, and its health port is silent for 30 min               ended
    idle          GPU at 5 % at most, and nobody served, for --idle-min        ended
    none          nothing of this                                              left alone
    odd           what it says of itself cannot be read                        a warning, and exit code 1

A locked pod is never ended, and a spot pod only past its own deadline: what would end it becomes a warning. What is
not known is never taken for idle: a pod whose GPU or sessions nobody tells is left to its age.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from builder.instants import duration_text

__all__ = ["BOOT_STATUSES", "Decision", "Limits", "Observation", "Since", "decide", "remember", "unjudged"]

Verdict = Literal["kill", "warn", "keep"]
BOOT_STATUSES = ("PROVISIONING", "STARTING")
RUNNING = "RUNNING"
ENDED_STATUSES = ("EXITED", "TERMINATED")
"""Statuses without a machine; in any other, known or not, a pod may be paid for."""
BOOT_WARN_MIN = 15
BOOT_LIMIT_MIN = 30
"""A large image on a slow host takes 10 minutes; thrice that is a pull that hangs or a loop of crashes."""
DEAD_LIMIT_MIN = 30
FAR_S = 1e12
"""No instant is further from 1970."""
IDLE_GPU_PERCENT = 5
"""A model that only lies in memory shows 0; some drivers show a few percent."""


@dataclass(frozen=True)
class Limits:
    """The rules' figures; `every_pod`: also those that the builder did not make."""

    max_hours: float = 2.0
    idle_min: float = 30.0
    protect_min: float = 20.0
    every_pod: bool = False


@dataclass(frozen=True)
class Observation:
    """A pod as the guard sees it; times are seconds since 1970, None means not known.

    `up_since_s`: its last start. `boots_since_s`: its creation, if it never ran. `answers`: its health port does; None
    if it has none, or was not asked. `n_active`: streams, files and uploads served now. `busy_s`: when it last
    transcribed. `cost_per_hour` in $.
    """

    pod_id: str
    name: str
    status: str
    is_ours: bool = True
    is_locked: bool = False
    is_spot: bool = False
    up_since_s: float | None = None
    boots_since_s: float | None = None
    deadline_s: float | None = None
    cost_per_hour: float = 0.0
    answers: bool | None = None
    gpu_percent: float | None = None
    n_active: int | None = None
    busy_s: float | None = None

    @property
    def is_idle(self) -> bool:
        """True if it is known that it does nothing."""
        if self.status != RUNNING or self.gpu_percent is None or self.n_active is None:
            return False
        return self.gpu_percent <= IDLE_GPU_PERCENT and self.n_active == 0


@dataclass(frozen=True)
class Since:
    """Since when a pod is as it is: seconds since 1970 when it was first seen so, None if it is not so now."""

    seen_s: float
    boot_s: float | None = None
    dead_s: float | None = None
    idle_s: float | None = None

    def document(self) -> dict[str, float | None]:
        """For the file that remembers it between runs."""
        return {"seen_s": self.seen_s, "boot_s": self.boot_s, "dead_s": self.dead_s, "idle_s": self.idle_s}

    @classmethod
    def of(cls, document: Any) -> Since | None:
        """What `document` made; None for anything else."""
        if not isinstance(document, Mapping):
            return None
        values = [document.get(name) for name in ("seen_s", "boot_s", "dead_s", "idle_s")]
        seen_s, *others = [float(v) if isinstance(v, (int, float)) and abs(v) < FAR_S else None for v in values]
        return None if seen_s is None else cls(seen_s, *others)


@dataclass(frozen=True)
class Decision:
    """What to do with a pod, by which rule, and why in words."""

    pod_id: str
    name: str
    verdict: Verdict
    rule: str
    reason: str
    cost_per_hour: float

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "pod_id": self.pod_id,
            "name": self.name,
            "verdict": self.verdict,
            "rule": self.rule,
            "reason": self.reason,
            "cost_per_hour": self.cost_per_hour,
        }


def remember(before: Mapping[str, Since], observations: Iterable[Observation], now_s: float) -> dict[str, Since]:
    """Since when the pods are as they are now; pods that are not observed any more are forgotten."""
    return {each.pod_id: _since(before.get(each.pod_id), each, now_s) for each in observations}


def _since(before: Since | None, pod: Observation, now_s: float) -> Since:
    if before is not None and before.seen_s < (pod.up_since_s or 0.0):
        # It was started anew in between: what was seen before is no evidence any more.
        before = None
    first = before or Since(now_s)
    idle_s = _first(first.idle_s, now_s) if pod.is_idle else None
    if idle_s is not None and pod.busy_s is not None:
        # It may have worked between two looks, while nobody looked.
        idle_s = max(idle_s, pod.busy_s)
    boot_s = _first(pod.boots_since_s, first.boot_s, now_s) if pod.status in BOOT_STATUSES else None
    dead_s = _first(first.dead_s, now_s) if pod.answers is False else None
    return Since(first.seen_s, boot_s, dead_s, idle_s)


def _first(*times_s: float | None) -> float | None:
    return next((each for each in times_s if each is not None), None)


def decide(pod: Observation, since: Since, limits: Limits, now_s: float) -> Decision:
    """The decision for one pod; `since` from `remember` with the same observation."""
    if pod.status in ENDED_STATUSES:
        return _decision(pod, "keep", "not_running", f"is {pod.status}")
    if not pod.is_ours and not limits.every_pod:
        return _decision(pod, "keep", "foreign", "not made by the builder")
    verdict, rule, reason = _judge(pod, since, limits, now_s)
    if verdict == "kill" and pod.is_locked:
        return _decision(pod, "warn", rule, f"{reason}, but is locked")
    if verdict == "kill" and pod.is_spot and rule != "deadline":
        return _decision(pod, "warn", rule, f"{reason}, but is a spot pod")
    return _decision(pod, verdict, rule, reason)


def unjudged(pod_id: str, name: str, cost_per_hour: float, why: Exception) -> Decision:
    """The decision for a pod that cannot be observed or judged."""
    return Decision(pod_id, name, "warn", "odd", f"cannot be judged: {why}", cost_per_hour)


def _judge(pod: Observation, since: Since, limits: Limits, now_s: float) -> tuple[Verdict, str, str]:
    """Verdict, rule and reason, before locks and spot pods are considered."""
    if pod.deadline_s is not None and now_s > pod.deadline_s:
        return "kill", "deadline", f"is {duration_text(now_s - pod.deadline_s)} past its deadline"
    age_s = now_s - (since.seen_s if pod.up_since_s is None else pod.up_since_s)
    if age_s < limits.protect_min * 60:
        return "keep", "protected", f"runs for {duration_text(age_s)}, protected for {limits.protect_min:g} min"
    if age_s > limits.max_hours * 3600:
        return "kill", "age", f"runs for {duration_text(age_s)}, limit {limits.max_hours:g} h"
    if since.boot_s is not None:
        return _lasting("boot", f"is {pod.status}", now_s - since.boot_s, BOOT_WARN_MIN, BOOT_LIMIT_MIN)
    if since.dead_s is not None:
        return _lasting("health", "does not answer", now_s - since.dead_s, 0, DEAD_LIMIT_MIN)
    if since.idle_s is not None:
        return _lasting("idle", "idles", now_s - since.idle_s, limits.idle_min, limits.idle_min)
    return "keep", "none", f"runs for {duration_text(age_s)}"


def _lasting(rule: str, words: str, lasts_s: float, warn_min: float, limit_min: float) -> tuple[Verdict, str, str]:
    reason = f"{words} for {duration_text(lasts_s)}, limit {limit_min:g} min"
    if lasts_s >= limit_min * 60:
        return "kill", rule, reason
    return "warn" if lasts_s >= warn_min * 60 else "keep", rule, reason


def _decision(pod: Observation, verdict: Verdict, rule: str, reason: str) -> Decision:
    return Decision(pod.pod_id, pod.name, verdict, rule, reason, pod.cost_per_hour)
