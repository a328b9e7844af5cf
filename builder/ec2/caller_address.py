"""Who may reach the machine: the caller's own public address, unless other networks are named."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from builder.api.http import get_once
from builder.errors import BadAnswerError, NetworkError, UsageError

__all__ = ["allowed_network", "caller_network"]

URL = "https://checkip.amazonaws.com"
TIMEOUT_S = 10.0
MAX_SHOWN = 60
EVERYONE_BITS = {4: 8, 6: 16}
"""A network with fewer fixed bits is as good as everyone."""
_HINT = "name your address: --allow-cidr ADDRESS/32"

Network = IPv4Network | IPv6Network


def allowed_network(given: str | None, *, allow_everyone: bool = False, url: str = URL) -> str:
    """The network that may reach the machine, like `203.0.113.7/32`: `given`, or the caller's own address.

    Raises UsageError for what is no network, or is everyone without `allow_everyone`; NetworkError, BadAnswerError if
    the own address cannot be learned.
    """
    if given is None:
        return "0.0.0.0/0" if allow_everyone else caller_network(url)
    try:
        network = ip_network(given.strip(), strict=False)
    except ValueError:
        raise UsageError(
            f"--allow-cidr: {given[:MAX_SHOWN]!r} is not allowed; legal: a network like 203.0.113.7/32", hint=_HINT
        ) from None
    if network.prefixlen < EVERYONE_BITS[network.version] and not allow_everyone:
        raise UsageError(
            f"--allow-cidr {network}: everyone could reach SSH and the server",
            hint="name your own network, or add --allow-everyone",
        )
    return str(network)


def caller_network(url: str = URL) -> str:
    """This machine's public address as a network of one. Raises NetworkError, BadAnswerError."""
    try:
        answer = get_once(url, timeout_s=TIMEOUT_S)
    except NetworkError as error:
        raise NetworkError(f"your public address is not known: {error}", hint=_HINT) from None
    try:
        address = ip_address(answer.text.strip())
    except ValueError:
        address = None
    if answer.status != 200 or address is None or not address.is_global:
        said = " ".join(answer.text.split())[:MAX_SHOWN]
        raise BadAnswerError(f"{url} told no public address: HTTP {answer.status}, {said!r}", hint=_HINT)
    return str(ip_network(address))
