"""Names to addresses, each checked; and work that cannot be interrupted but must not be waited for.

Knows nothing of HTTP. Invariant: what `checked_addresses` returns was all checked in one answer, and whoever
connects uses these addresses, so that a second, different answer has no effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol, TypeVar

from engine.errors import FetchError
from handler.addresses import Address, Target, is_public

__all__ = ["Resolver", "SystemResolver", "UnreachableError", "checked_addresses", "run_abandonable"]

_T = TypeVar("_T")


class UnreachableError(FetchError):
    """The other side is not there, or fails; a later try may do better."""

    retryable = True


class Resolver(Protocol):
    """What looks names up."""

    async def resolve(self, host: str) -> Sequence[str]:
        """All addresses of a host, as text. Raises OSError if it has none."""
        ...


class SystemResolver:
    """The operating system's resolver, hosts file and search list included."""

    async def resolve(self, host: str) -> Sequence[str]:
        """All addresses of a host. Raises OSError if it has none."""
        found = await run_abandonable(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def checked_addresses(resolver: Resolver, target: Target, *, allow_private: bool = False) -> list[Address]:
    """The addresses of a target, looked up once.

    Raises FetchError if there are none (UnreachableError if that may change), or if any is not public (unless
    `allow_private`): a name that has both kinds is no honest one.
    """
    if target.address is not None:
        return [target.address]  # parse_url has checked it
    try:
        found = await resolver.resolve(target.host)
        addresses = [ip_address(text) for text in found]
    except (OSError, UnicodeError, ValueError) as error:
        kind = FetchError if getattr(error, "errno", None) == socket.EAI_NONAME else UnreachableError
        raise kind(f"the host {target.shown} cannot be found") from None
    if not addresses:
        raise FetchError(f"the host {target.shown} cannot be found")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise FetchError(f"the host {target.shown} has an address that is not public")
    return addresses


async def run_abandonable(function: Callable[[], _T]) -> _T:
    """Run a blocking function in a thread of its own; when the caller is cancelled, nobody waits for the thread.

    For calls that nothing can interrupt but that end by themselves, such as a look-up of a name. The thread never
    keeps the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only if it is a _T

    def work() -> None:
        result, problem = None, None
        try:
            result = function()
        except BaseException as error:
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, problem)

    threading.Thread(target=work, daemon=True, name="abandonable").start()
    return await future
