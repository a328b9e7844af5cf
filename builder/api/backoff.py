"""How long to wait before another try: exponential, with full jitter. Pure: the caller brings the chance.

Full jitter draws from the whole span, so that clients that failed together do not come back together.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["BASE_S", "CAP_S", "full_jitter_s"]

BASE_S = 0.5
"""Longest wait before the second try; it doubles with each try."""
CAP_S = 20.0
"""Longest wait at all."""
_MAX_DOUBLINGS = 30


def full_jitter_s(failures: int, draw: Callable[[], float], *, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Seconds to wait after `failures` (1, 2, ...) failed tries; `draw` gives a number from 0 to below 1."""
    doublings = min(max(failures - 1, 0), _MAX_DOUBLINGS)
    return draw() * min(cap_s, base_s * 2.0**doublings)
