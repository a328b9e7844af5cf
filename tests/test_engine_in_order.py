"""Many items at once, results in order, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from engine.in_order import run_in_order


async def numbers(n: int, closed: list[bool] | None = None) -> AsyncGenerator[int, None]:
    try:
        for number in range(n):
            yield number
    finally:
        if closed is not None:
            closed.append(True)


def test_results_come_in_order_and_no_more_than_allowed_are_ahead() -> None:
    at_once = most = 0
    delivered: list[int] = []

    async def work(number: int) -> int:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001 * (number * 7 % 5))
        at_once -= 1
        return number

    asyncio.run(run_in_order(numbers(50), work, lambda item, result: delivered.append(result), 4))
    assert delivered == list(range(50)) and 2 <= most <= 4


@pytest.mark.parametrize("how", ["raises", "cancels itself"])
def test_the_first_failure_ends_everything(how: str) -> None:
    cancelled: list[int] = []
    closed: list[bool] = []

    async def work(number: int) -> int:
        if number == 2:
            raise (ValueError("two") if how == "raises" else asyncio.CancelledError)
        try:
            await asyncio.sleep(60 if number > 2 else 0)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async def body() -> None:
        with pytest.raises(ValueError if how == "raises" else RuntimeError):
            await asyncio.wait_for(run_in_order(numbers(50, closed), work, lambda item, result: None, 4), 5.0)

    asyncio.run(body())
    assert closed == [True] and cancelled and set(cancelled) <= {3, 4, 5, 6}
