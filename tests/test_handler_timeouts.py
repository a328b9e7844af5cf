"""A time limit around work: results, errors, lateness, and cancellations at every moment."""

from __future__ import annotations

import asyncio

import pytest

from handler.timeouts import within


async def after(delay_s: float, result: str, ended: list[str]) -> str:
    try:
        await asyncio.sleep(delay_s)
    finally:
        ended.append(result)
    return result


def test_result_and_error_come_through() -> None:
    async def failing() -> None:
        raise KeyError("mine")

    ended: list[str] = []
    assert asyncio.run(within(after(0.0, "x", ended), 1.0)) == "x"
    assert ended == ["x"]
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(within(failing(), 1.0))


def test_late_work_is_ended_before_the_error_is_raised() -> None:
    async def main() -> None:
        ended: list[str] = []
        with pytest.raises(asyncio.TimeoutError):
            await within(after(5.0, "x", ended), 0.02)
        assert ended == ["x"]

    asyncio.run(main())


@pytest.mark.parametrize("moment", range(6))
def test_cancellation_is_never_lost_and_a_result_then_is_discarded(moment: int) -> None:
    """The work ends at the same turn of the loop as the cancellation, and one or two before and after."""

    async def main() -> None:
        release, discarded = asyncio.Event(), list[str]()

        async def work() -> str:
            await release.wait()
            return "x"

        async def user() -> str:
            return await within(work(), 5.0, discard=discarded.append)

        task = asyncio.create_task(user())
        await asyncio.sleep(0.01)
        for turn in range(6):
            if turn == 2:
                release.set()
            if turn == moment:
                task.cancel()
            await asyncio.sleep(0)
        if moment == 5:  # it was over by then
            assert await task == "x"
            return
        with pytest.raises(asyncio.CancelledError):
            await task
        assert discarded in ([], ["x"])

    asyncio.run(main())


def test_work_that_finishes_although_cancelled_is_discarded() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(5.0)
        except asyncio.CancelledError:
            return "late"
        return "never"

    async def main() -> None:
        discarded: list[str] = []
        with pytest.raises(asyncio.TimeoutError):
            await within(stubborn(), 0.01, discard=discarded.append)
        assert discarded == ["late"]

    asyncio.run(main())
