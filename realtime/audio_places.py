"""Places for work that is done by a few at a time; who comes later waits for a turn.

Knows no work. Invariants: never more places are taken than there are; turns come in the order of arrival; who
gives up or is cancelled while waiting takes no place.
"""

from __future__ import annotations

import asyncio
from collections import deque

from engine.errors import AtCapacityError

__all__ = ["Places"]


class Places:
    """`n_places` of them; each `take` that returns is followed by one `give_back`."""

    def __init__(self, n_places: int) -> None:
        self.n_places = n_places
        self.n_taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, timeout_s: float) -> None:
        """Return with a place, after up to `timeout_s`. Raises AtCapacityError if none became free in that time."""
        if self.n_taken < self.n_places:
            self.n_taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait({turn}, timeout=timeout_s)
        except asyncio.CancelledError:
            if turn.done():
                self.give_back()
            raise
        finally:
            if not turn.done():
                self._waiting.remove(turn)
        if not turn.done():
            raise AtCapacityError(f"full: {self.n_places} files are in work, none ended in {timeout_s:g} s; come later")

    def give_back(self) -> None:
        """The place goes to who has waited for longest, or becomes free."""
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self.n_taken -= 1
