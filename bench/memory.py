"""How much memory all living Python objects of this process hold.

Counted object by object, so it is exact and the same in every run, and costs nothing in between. What tracemalloc
counts is not: a table of the interpreter that was there before and is allocated anew would look like a leak. What
native libraries hold for themselves is not seen.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["live_bytes"]


def live_bytes() -> int:
    """Bytes of all objects that the garbage collector knows, and of what they refer to; after a collection."""
    gc.collect()
    tracked = gc.get_objects()
    total = sum(map(sys.getsizeof, tracked))
    seen: set[int] = set()
    found = _untracked(tracked, seen)
    while found:
        total += sum(map(sys.getsizeof, found))
        found = _untracked(found, seen)
    return total


def _untracked(holders: list[object], seen: set[int]) -> list[object]:
    """What the holders refer to that the collector does not know (numbers, texts, arrays) and nobody has seen."""
    found = []
    for held in gc.get_referents(*holders):
        if id(held) not in seen and not gc.is_tracked(held):
            seen.add(id(held))
            found.append(held)
    return found
