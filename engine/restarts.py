"""How often a child may be replaced before the whole process gives up.

Pure: the caller says what time it is.
"""

from __future__ import annotations

from collections import deque

__all__ = ["MAX_RESTARTS", "RESTART_WINDOW_S", "RestartPolicy"]

MAX_RESTARTS = 3
"""A damaged recording kills at most two children; more in a short time is the machine's fault."""
RESTART_WINDOW_S = 300.0


class RestartPolicy:
    """Grants restarts, at most `max_restarts` in any `window_s` seconds."""

    def __init__(self, max_restarts: int = MAX_RESTARTS, window_s: float = RESTART_WINDOW_S) -> None:
        self._window_s = window_s
        self._granted_s: deque[float] = deque(maxlen=max_restarts)

    def grant(self, now_s: float) -> bool:
        """True if a child that died at `now_s` may be replaced; the restart is counted then."""
        is_full = len(self._granted_s) == self._granted_s.maxlen
        if is_full and (self._granted_s.maxlen == 0 or now_s - self._granted_s[0] < self._window_s):
            return False
        self._granted_s.append(now_s)
        return True
