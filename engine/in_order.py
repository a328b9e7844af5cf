"""Work on many items at once, with the results in the order of the items.

Knows nothing of what is done. Invariants: at most `max_ahead` items are between their coming and the delivery
of their result; when `run_in_order` returns or raises, nothing that it started runs any more, and its items'
generator is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

__all__ = ["run_in_order"]

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def run_in_order(
    items: AsyncGenerator[ItemT, None],
    work: Callable[[ItemT], Awaitable[ResultT]],
    deliver: Callable[[ItemT, ResultT], None],
    max_ahead: int,
) -> None:
    """Await `work(item)` for each item, and call `deliver(item, result)` in the items' order.

    The first error, of whatever item, ends everything and is raised.
    """
    room = asyncio.Semaphore(max_ahead)
    queue: asyncio.Queue[tuple[ItemT, asyncio.Task[ResultT]] | None] = asyncio.Queue()
    running: set[asyncio.Task[ResultT]] = set()
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def one(item: ItemT) -> ResultT:
        try:
            return await work(item)
        except Exception as error:
            if not failure.done():
                failure.set_exception(error)
            raise

    async def produce() -> None:
        async with aclosing(items):
            async for item in items:
                await room.acquire()
                task = asyncio.create_task(one(item))
                running.add(task)
                queue.put_nowait((item, task))
        queue.put_nowait(None)

    async def consume() -> None:
        while (entry := await queue.get()) is not None:
            item, task = entry
            await asyncio.wait((task, failure), return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
            if task.cancelled():
                raise RuntimeError("a piece of work was cancelled from within")
            deliver(item, task.result())
            running.discard(task)
            room.release()

    both = (asyncio.create_task(produce()), asyncio.create_task(consume()))
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
        for side in both:
            if side.done():
                side.result()
    finally:
        for task in (*both, *running):
            task.cancel()
        await asyncio.gather(*both, *running, return_exceptions=True)
        if not failure.cancel():
            failure.exception()  # somebody has to look at it
