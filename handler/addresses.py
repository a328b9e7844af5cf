"""Which URLs and addresses audio may be fetched from: pure, no socket, no name is looked up here.

A job's URL is a stranger's. It is taken apart once, and the connection is made from the parts, so that no second
parser can read something else in it. Host names that are numbers in disguise (`127.1`, `0x7f000001`) are refused
as such. An address passes if the public internet routes it to one machine, with IPv4 addresses that hide in IPv6
unwrapped first. A network with an IPv6-to-IPv4 prefix of its own cannot be recognised; such a network has to keep
its gateway from its inside.

Invariants: messages name the host at most, never user, path or query; repr shows neither path nor query.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from engine.errors import FetchError

__all__ = ["MAX_URL_CHARS", "Address", "Target", "is_public", "parse_url", "redirected"]

Address: TypeAlias = IPv4Address | IPv6Address

MAX_URL_CHARS = 8_192
"""Longest URL: a signed link with a session token has some 2,000 characters; servers take 8 KiB at most."""
MAX_HOST_CHARS = 253
"""Longest host name that DNS can carry."""
MIN_FREE_PORT = 1_024
"""80, 443 and the ports from here are used for files (8080, 9000); below are mail, shells and other services that
must not be handed a request of a stranger's making."""
_WEB_PORTS = {"http": 80, "https": 443}
_SHOWN_CHARS = 80
"""Characters of a host that are shown in messages."""

_REFUSED_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own; also some clouds' metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # looks public; within Azure it is the host of the virtual machine
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; also a cloud's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4, long gone
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast, which ipaddress calls global
        "240.0.0.0/4",
    )
)
_UNICAST_6 = IPv6Network("2000::/3")
"""All that is routed publicly; what lies outside is local, multicast, mapped or unassigned."""
_REFUSED_6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them: its clients serve no files
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")
"""How the public IPv4 internet is seen from a network without IPv4. Its sister for local use, 64:ff9b:1::/48,
leads to where its network likes; it lies outside of 2000::/3 and is refused."""
_ISATAP_IDS = (0x00005EFE, 0x02005EFE)
"""The upper half of an interface identifier whose lower half is the IPv4 address at the end of a tunnel."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AMBIGUOUS = re.compile("[\u00df\u03c2\u200c\u200d]")
"""Characters that the two standards for international names turn into different names."""
_ILLEGAL = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
_KEPT_IN_PATH = "/%:@!$&'()*+,;=~?[]"
"""Not quoted: what is quoted already, and what signatures may have been computed over as it is."""


@dataclass(frozen=True)
class Target:
    """Where to ask for what: `host` is ASCII in lower case, without brackets; `path` includes the query."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    path: str = field(repr=False)
    address: Address | None = None
    """The address, if the host is one."""

    @property
    def host_header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _WEB_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The host as messages show it."""
        return self.host if len(self.host) <= _SHOWN_CHARS else self.host[: _SHOWN_CHARS - 3] + "..."


def is_public(address: Address) -> bool:
    """True if the address belongs to one machine on the public internet."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _REFUSED_4)
    if address.scope_id is not None:
        return False
    mapped = address.ipv4_mapped
    if mapped is not None:
        return is_public(mapped)
    number = int(address)
    if address in _NAT64:
        return is_public(IPv4Address(number & 0xFFFFFFFF))
    if address in _SIX_TO_FOUR and not is_public(IPv4Address(number >> 80 & 0xFFFFFFFF)):
        return False
    if number >> 32 & 0xFFFFFFFF in _ISATAP_IDS and not is_public(IPv4Address(number & 0xFFFFFFFF)):
        return False
    return address.is_global and address in _UNICAST_6 and not any(address in network for network in _REFUSED_6)


def parse_url(url: str, *, allow_private: bool = False) -> Target:
    """Take an http(s) URL apart; white space around it is dropped, spaces and letters beyond ASCII are quoted.

    Raises FetchError: too long, another scheme, a user in it, a host that is no name and no canonical address, an
    address that is not public (unless `allow_private`), a port below 1024 other than 80 and 443.
    """
    url = url.strip(" \t\r\n")
    if not 1 <= len(url) <= MAX_URL_CHARS:
        raise FetchError(f"the URL has {len(url)} characters; legal: 1 to {MAX_URL_CHARS}")
    if _ILLEGAL.search(url):
        raise FetchError("the URL has a control character, a backslash or half a character in it")
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        raise FetchError("the URL cannot be read") from None
    if parts.scheme not in ("http", "https"):
        raise FetchError("the URL has a scheme that is not allowed; legal: https://, http://")
    if "@" in parts.netloc:
        raise FetchError("the URL has a user in it; legal: https://host/path")
    host, address = _host(name or "", is_bracketed="[" in parts.netloc)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    port = _WEB_PORTS[scheme] if port is None else port
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(scheme, host, port, quote(path, safe=_KEPT_IN_PATH), address)
    if port not in _WEB_PORTS.values() and port < MIN_FREE_PORT:
        raise FetchError(f"{target.shown}: port {port} is not allowed; legal: 80, 443, {MIN_FREE_PORT} to 65535")
    if address is not None and not allow_private and not is_public(address):
        raise FetchError(f"{target.shown} is not a public address")
    return target


def redirected(target: Target, location: str, *, allow_private: bool = False) -> Target:
    """The target of a redirect; raises FetchError as `parse_url`, and from https to http (unless `allow_private`)."""
    if len(location) > MAX_URL_CHARS or _ILLEGAL.search(location):
        raise FetchError(f"{target.shown} redirects to a URL that cannot be read")
    try:
        joined = urljoin(f"{target.scheme}://{target.host_header}{target.path}", location)
    except ValueError:
        raise FetchError(f"{target.shown} redirects to a URL that cannot be read") from None
    found = parse_url(joined, allow_private=allow_private)
    if target.scheme == "https" and found.scheme == "http" and not allow_private:
        raise FetchError(f"{target.shown} redirects from https to http, which is not followed")
    return found


def _host(name: str, *, is_bracketed: bool) -> tuple[str, Address | None]:
    """The host in its one form, and the address that it is, if it is one."""
    if is_bracketed:
        try:
            address = IPv6Address(name)
        except ValueError:
            raise FetchError("the URL's host is no IPv6 address") from None
        if address.scope_id is not None:
            raise FetchError("the URL's host has a scope, which no public address has")
        return str(address), address
    host = _ascii(name).removesuffix(".")
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise FetchError("the URL has no host, or one that is no host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return host, IPv4Address(host)
        except ValueError:
            raise FetchError("the URL's host is a number; legal: a name, or an address like 192.0.2.1") from None
    return host, None


def _ascii(name: str) -> str:
    """An international name in its ASCII form; digits and dots of other scripts become the usual ones."""
    if name.isascii():
        return name.lower()
    if _AMBIGUOUS.search(name):
        raise FetchError("the URL's host has a letter that is read in two ways; write it in its xn-- form")
    if len(name) > MAX_HOST_CHARS:
        raise FetchError("the URL has no host, or one that is no host name")
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise FetchError("the URL's host is no legal name") from None
