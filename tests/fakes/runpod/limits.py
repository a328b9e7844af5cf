"""Rate limits as REST v2 tells of them: so many requests per window, on the plane's clock."""

from __future__ import annotations

import threading

from tests.fakes.runpod.clock import PlaneClock

__all__ = ["WINDOWS_S", "RateLimits"]

WINDOWS_S = {"minute": 60, "hour": 3600, "day": 86_400}
GENEROUS = {"minute": 100_000, "hour": 1_000_000}


class RateLimits:
    """Counts requests; `quotas` says how many a window takes (generous, unless a test sets them)."""

    def __init__(self, clock: PlaneClock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self.quotas: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        """Generous again, nothing used."""
        self.set(**GENEROUS)

    def set(self, **quotas: int) -> None:
        """For example minute=180, hour=7200; windows begin anew."""
        unknown = set(quotas) - set(WINDOWS_S)
        if unknown:
            raise ValueError(f"no such window: {sorted(unknown)}")
        with self._lock:
            self.quotas = dict(quotas)
            self._used: dict[str, tuple[int, int]] = {}

    def take(self) -> tuple[int | None, dict[str, str]]:
        """Count one request: seconds to wait if it is one too many (else None), and the headers for its answer."""
        with self._lock:
            now_s = self.clock.unix_s()
            left = {name: self._left(name, now_s) for name in self.quotas}
            waits_s = [resets_s for remaining, resets_s in left.values() if remaining < 1]
            if not waits_s:
                for name, (remaining, resets_s) in left.items():
                    number, used = self._used[name]
                    self._used[name] = (number, used + 1)
                    left[name] = (remaining - 1, resets_s)
            headers = {
                "RateLimit": ", ".join(f'"{name}";r={max(0, r)};t={t}' for name, (r, t) in left.items()),
                "RateLimit-Policy": ", ".join(f'"{name}";q={q};w={WINDOWS_S[name]}' for name, q in self.quotas.items()),
            }
            return (max(waits_s) if waits_s else None), headers

    def _left(self, name: str, now_s: float) -> tuple[int, int]:
        """Remaining requests of the current window, and whole seconds until it resets."""
        length_s = WINDOWS_S[name]
        number = int(now_s // length_s)
        used = self._used.get(name, (number, 0))
        if used[0] != number:
            used = (number, 0)
        self._used[name] = used
        # Rounded up: who waits that long is let in.
        resets_s = int(-((now_s - (number + 1) * length_s) // 1))
        return self.quotas[name] - used[1], max(1, resets_s)
