"""Start, stop and restart exactly as often as asked, also when answers get lost.

After a lost answer the pod itself is asked whether it happened; only if not is the action sent again. Starting or
stopping twice changes nothing more, so a doubtful case ends in a repeat rather than in an error.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.api.models import Pod, PodAction
from builder.errors import AmbiguousError, BuilderError, ConflictError, NetworkError, ServerFaultError

__all__ = ["MAX_SENDS", "act_surely", "has_happened"]

MAX_SENDS = 3
_COMING_UP = ("PROVISIONING", "STARTING", "RUNNING")


def has_happened(action: PodAction, pod: Pod, since_s: float) -> bool:
    """Whether `pod`, read `since_s` seconds after `action` was first sent, shows that it took place."""
    if action == "start":
        return pod.status in _COMING_UP
    if action == "stop":
        return pod.status in ("EXITED", "TERMINATED")
    if pod.status in ("PROVISIONING", "STARTING"):
        return True
    uptime_s = pod.runtime.uptime_s if pod.runtime else None
    return pod.status == "RUNNING" and uptime_s is not None and uptime_s <= since_s


def act_surely(
    action: PodAction,
    send: Callable[[], Pod],
    read: Callable[[], Pod],
    pause: Callable[[int, str], None],
    now_s: Callable[[], float],
) -> Pod:
    """The pod after `action`, sent at most MAX_SENDS times with `pause(failures, why)` between.

    Raises what `send` raises when it is clear that nothing happened, and else the last error.
    """
    started_s = now_s()
    for sends in range(1, MAX_SENDS + 1):
        try:
            return send()
        except (AmbiguousError, ServerFaultError) as error:
            failure: BuilderError = error
        except ConflictError as error:
            # Out of turn: natural if an earlier one, whose answer was lost, did happen.
            if sends == 1:
                raise
            failure = error
        try:
            pod = read()
        except NetworkError:
            # That it may have happened is the news, not that it cannot be looked up.
            raise failure from None
        if has_happened(action, pod, now_s() - started_s):
            return pod
        if isinstance(failure, ConflictError) or sends == MAX_SENDS:
            raise failure
        pause(sends, str(failure))
    raise AssertionError("the loop returns or raises")
