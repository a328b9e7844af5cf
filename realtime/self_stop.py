"""Stops the pod this server runs in when nobody has used it for a while, or at a given time.

A forgotten pod costs money by the hour; this works with every laptop closed. `StopRule` and `Retries` decide and are
pure; `SelfStop` asks the platform, which then sends SIGTERM. A container whose process merely ended would be
started anew and billed on, so inside a pod the process serves on until the platform ends it; outside one the
process ends by itself.

Knows nothing of streams and files but when the last of them ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from engine.clock import Clock
from realtime.pod_api import PodApi, PodApiError

__all__ = ["Activity", "Retries", "SelfStop", "StopApi", "StopRule", "stop_if_overdue"]

logger = logging.getLogger("realtime.self_stop")

LOADING_EXTRA_S = 1_800.0
"""While the model loads nobody can use it: a large one may have to be downloaded first."""
FIRST_RETRY_S, LONGEST_RETRY_S = 60.0, 900.0
"""Between attempts that the API refuses: doubling."""
FAREWELL_S = 300.0
"""From the API's yes to SIGTERM it is seconds; after this long the stop has failed."""
ANSWER_LIMIT_S = 60.0
"""For both interfaces together; the limits of their sockets count from one piece of an answer to the next."""
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Activity:
    """`idle_s`: seconds since the last stream or file ended, or the model was ready; 0 while there is one."""

    idle_s: float
    is_loading: bool


class StopApi(Protocol):
    """What can stop the pod."""

    @property
    def key(self) -> str | None:
        """The pod's own key; None: the platform gave none."""
        ...

    async def stop(self) -> str:
        """Returns the interface that agreed. Raises PodApiError."""
        ...


@dataclass(frozen=True)
class StopRule:
    """Limits; None: there is none. `deadline_unix_s` in seconds since 1970."""

    idle_limit_s: float | None
    deadline_unix_s: float | None

    @classmethod
    def make(cls, idle_stop_min: float | None, deadline: datetime | None) -> StopRule:
        """From the settings."""
        idle_limit_s = None if idle_stop_min is None else idle_stop_min * 60
        return cls(idle_limit_s, None if deadline is None else deadline.timestamp())

    @property
    def is_set(self) -> bool:
        """True if there is any limit."""
        return self.idle_limit_s is not None or self.deadline_unix_s is not None

    def reason(self, activity: Activity, unix_s: float) -> str | None:
        """Why to stop now; None: go on."""
        if self.deadline_unix_s is not None and unix_s >= self.deadline_unix_s:
            return f"its deadline, {_iso(self.deadline_unix_s)}, has come"
        if self.idle_limit_s is None:
            return None
        limit_s = self.idle_limit_s + (LOADING_EXTRA_S if activity.is_loading else 0.0)
        if activity.idle_s < limit_s:
            return None
        minutes = f"{limit_s / 60:g} min"
        return f"the model was not loaded within {minutes}" if activity.is_loading else f"nobody used it for {minutes}"


class Retries:
    """When the next attempt may be made. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._next_s = float("-inf")
        self._wait_s = FIRST_RETRY_S

    def may_try(self, now_s: float) -> bool:
        """True if an attempt is due."""
        return now_s >= self._next_s

    def refused(self, now_s: float) -> float:
        """An attempt was refused; returns the seconds until the next."""
        wait_s = self._wait_s
        self._next_s = now_s + wait_s
        self._wait_s = min(2 * wait_s, LONGEST_RETRY_S)
        return wait_s

    def agreed(self, now_s: float) -> None:
        """The platform will end this process."""
        self._next_s = now_s + FAREWELL_S


class SelfStop:
    """`watch` runs beside the server; `details` tells /status."""

    def __init__(
        self,
        rule: StopRule,
        pod: StopApi | None,
        clock: Clock,
        activity: Callable[[], Activity],
        *,
        unix_s: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`pod` None: this is no pod, and the process is to end instead."""
        self.rule = rule
        self._pod = pod
        self._clock = clock
        self._activity = activity
        self._unix_s = unix_s
        self._sleep = sleep
        self._retries = Retries()
        self._has_agreed = False

    async def watch(self) -> None:
        """Stop the pod when it is time, again and again until the platform does; outside a pod return then."""
        if not self.rule.is_set:
            await asyncio.Event().wait()
        self._announce()
        while True:
            reason = self.rule.reason(self._activity(), self._unix_s())
            if reason is None:
                self._retries, self._has_agreed = Retries(), False
            elif self._pod is None:
                logger.warning("this server ends: %s", reason)
                return
            elif self._retries.may_try(self._clock.now_s()):
                await self._stop(self._pod, reason)
            await self._sleep(LOOK_EVERY_S)

    def _announce(self) -> None:
        if self._pod is None:
            logger.warning("this is no RunPod pod: at the idle limit or the deadline the server ends, nothing else")
        elif self._pod.key is None:
            logger.error("RUNPOD_API_KEY is not set: this pod cannot stop itself; stop it from outside")

    async def _stop(self, pod: StopApi, reason: str) -> None:
        if self._has_agreed:
            logger.error("RunPod agreed to stop this pod %g s ago, and it still runs", FAREWELL_S)
        logger.warning("stopping this pod: %s", reason)
        try:
            interface = await asyncio.wait_for(pod.stop(), ANSWER_LIMIT_S)
        except (PodApiError, asyncio.TimeoutError) as error:
            self._has_agreed = False
            wait_s = self._retries.refused(self._clock.now_s())
            said = str(error) or f"no answer within {ANSWER_LIMIT_S:g} s"
            logger.error("this pod runs on and is billed: %s; trying again in %g s", said, wait_s)
            return
        self._has_agreed = True
        self._retries.agreed(self._clock.now_s())
        logger.info("RunPod stops this pod (%s)", interface)

    def details(self) -> dict[str, Any]:
        """For /status: the limits, for how long nobody has been here, and since when."""
        rule, idle_s = self.rule, self._activity().idle_s
        return {
            "self_stop": {
                "idle_limit_min": None if rule.idle_limit_s is None else rule.idle_limit_s / 60,
                "idle_s": round(idle_s, 1),
                "deadline": None if rule.deadline_unix_s is None else _iso(rule.deadline_unix_s),
            },
            "last_activity": _iso(self._unix_s() - idle_s),
        }


async def stop_if_overdue(environ: Mapping[str, str]) -> None:
    """For a server that never got as far as `SelfStop`: stop its pod if POD_DEADLINE is past.

    A pod's container is started again whenever it ends, and billed all the while.
    """
    pod = PodApi.from_environ(environ)
    try:
        deadline = datetime.fromisoformat(environ.get("POD_DEADLINE", "").strip().replace("Z", "+00:00"))
        is_over = pod is not None and deadline.timestamp() <= time.time()
    except ValueError:
        return
    if pod is None or not is_over:
        return
    try:
        await asyncio.wait_for(pod.stop(), ANSWER_LIMIT_S)
        logger.warning("stopping this pod: its deadline has come, and the server does not start")
    except (PodApiError, asyncio.TimeoutError) as error:
        logger.error("this pod's deadline has come, and it runs on and is billed: %s", error or "no answer")


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
