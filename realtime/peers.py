"""Who is at the other end, and how often each address has shown a wrong secret.

Pure: ASGI scopes and monotonic seconds in, decisions out. Knows no secret.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from starlette.types import Scope

__all__ = [
    "FAILURE_WINDOW_S",
    "MAX_FAILURES",
    "MAX_PEERS",
    "FailureLimiter",
    "peer_address",
    "peer_key",
]

MAX_FAILURES = 10
"""Wrong secrets per peer and window; a person who mistypes needs fewer, a guesser would need far more."""
FAILURE_WINDOW_S = 60.0
MAX_PEERS = 4096
"""Peers remembered at once, about 1 MiB; beyond it the peer that failed longest ago is forgotten."""
IPV6_SITE_BITS = 64
"""One IPv6 customer owns at least this network, so its addresses count as one peer."""


class FailureLimiter:
    """Counts wrong secrets per peer in a sliding window; pure, `now_s` is monotonic."""

    def __init__(
        self, max_failures: int = MAX_FAILURES, window_s: float = FAILURE_WINDOW_S, max_peers: int = MAX_PEERS
    ) -> None:
        self._max_failures = max_failures
        self._window_s = window_s
        self._max_peers = max_peers
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def record(self, peer: str, now_s: float) -> None:
        """Count one failure of `peer`."""
        times = self._failures.setdefault(peer, deque(maxlen=self._max_failures))
        times.append(now_s)
        self._failures.move_to_end(peer)
        while len(self._failures) > self._max_peers:
            self._failures.popitem(last=False)

    def retry_after_s(self, peer: str, now_s: float) -> float:
        """Return 0.0 if `peer` may try, else the seconds until it may."""
        times = self._failures.get(peer)
        if times is None or len(times) < self._max_failures:
            return 0.0
        left_s = times[0] + self._window_s - now_s
        return max(left_s, 0.0)


def peer_address(scope: Scope) -> str:
    """Return the address of who opened the connection, "" if it is unknown.

    X-Forwarded-For, which anybody can send, means nothing here.
    """
    client = scope.get("client")
    address = _address(str(client[0])) if client else None
    return "" if address is None else str(address)


def peer_key(peer: str) -> str:
    """Return what stands for an address in the failure table: itself, or its IPv6 /64."""
    address = _address(peer)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
    return peer if address is None else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address
