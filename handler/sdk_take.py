"""Asking the platform for jobs and for stop signals: what the SDK's loop calls in place of its own functions.

The SDK's own `get_job` asks again at once after an error (hundreds of requests a second), lets an item without
an id end the worker, and drops what an answer brings while it is being cancelled; its loop sleeps for a second
whenever all slots are taken. Here a poll is a task of its own that outlives the SDK's time limit and is picked
up by the next call; errors and hasty empty answers are followed by a growing pause; items are looked at before
the SDK sees them; and it is here that a free slot is waited for.

Invariants: at most one take poll is open; every job that was read goes to the SDK or to `refuse`, once; a job
that is in hand already is not begun again; the SDK hears of a stop only once the job has begun, and one that came
sooner keeps the job from beginning. Knows nothing of a job but its id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from typing import Any

import aiohttp

from handler.sdk_shutdown import TAKE_GRACE_S, Shutdown, first_of

__all__ = [
    "BUSY_PAUSE_S",
    "ERROR_PAUSE_S",
    "IDLE_PAUSE_S",
    "MAX_ERROR_PAUSE_S",
    "MAX_IDLE_PAUSE_S",
    "MAX_STOPS",
    "POLL_LIMIT_S",
    "QUICK_S",
    "SLOT_PAUSE_S",
    "STOP_MEMORY_S",
    "JobTaker",
]

POLL_LIMIT_S = 120.0
"""The platform holds a poll for up to 90 s; a connection that is silent for longer is dead."""
QUICK_S = 0.5
"""An empty answer that comes sooner was no long poll."""
IDLE_PAUSE_S = 0.1
MAX_IDLE_PAUSE_S = 1.0
"""After hasty empty answers, doubling: a job waits for this at most."""
ERROR_PAUSE_S = 0.25
MAX_ERROR_PAUSE_S = 5.0
"""After errors, doubling, with jitter: an outage of the platform is not to be made worse."""
BUSY_PAUSE_S = 5.0
"""After 429, as the SDK does."""

SLOT_PAUSE_S = 0.05
"""How often we look for a free slot while there is none; and the least between two questions for stops."""
STOP_MEMORY_S = 30.0
"""How long the stop of a job that is still on its way is kept: an answer of 20 MB takes 16 s at 10 Mbit/s. A job
that its client has tried again after that begins as any other."""
MAX_STOPS = 256
"""Stops kept at a time; the oldest goes. Eight batches of 32, the largest concurrency."""

Job = dict[str, Any]
_log = logging.getLogger(__name__)


class JobTaker:
    """The SDK's `get_job` and `get_stop_signals`; use it on one loop."""

    def __init__(
        self,
        take_url: Callable[[int], str],
        stop_poll: Callable[[Any], Awaitable[list[str]]],
        refuse: Callable[[Any, Job], Awaitable[None]],
        in_hand: Callable[[], Collection[str]],
    ) -> None:
        """`take_url` and `stop_poll` are the SDK's; `refuse` ends a job with a retryable error.

        `in_hand` has the ids of the jobs that the SDK holds, begun or not.
        """
        self._take_url = take_url
        self._stop_poll = stop_poll
        self._refuse = refuse
        self._in_hand = in_hand
        self._shutdown = Shutdown(self.settle)
        self._session: Any = None
        self._poll: asyncio.Task[list[Job]] | None = None
        self._stops: asyncio.Future[list[str]] | None = None
        self._waiting: set[str] = set()
        self._stopped: OrderedDict[str, float] = OrderedDict()  # id -> when, the oldest first
        self._is_asking = False
        self._errors = 0
        self._hasty = 0

    @property
    def shutdown(self) -> Shutdown:
        """The end of the worker, which begins with the open poll."""
        return self._shutdown

    async def take(self, session: Any, num_jobs: int = 1) -> list[Job] | None:
        """As the SDK's `get_job`: jobs, or None; raises nothing but CancelledError.

        `num_jobs` is the number of slots; of these, some may be taken.
        """
        self._session = session
        shutdown = self._shutdown
        # The SDK's set of jobs tells nobody when it shrinks.
        while self._poll is None and len(self._in_hand()) >= num_jobs and not shutdown.is_draining.is_set():  # noqa: ASYNC110
            await asyncio.sleep(SLOT_PAUSE_S)
        if self._poll is None and not shutdown.is_draining.is_set():
            self._poll = asyncio.create_task(self._ask(num_jobs - len(self._in_hand())), name="job-take")
        if self._poll is not None:
            await first_of(self._poll, shutdown.is_draining)
        if shutdown.is_draining.is_set() or self._poll is None:
            await shutdown.is_told.wait()
            return None
        poll, self._poll = self._poll, None
        return poll.result() or None

    def begins(self, job_id: str) -> bool:
        """The SDK begins a job that it was given; False if that was stopped before, and must not begin."""
        self._waiting.discard(job_id)
        stopped_s = self._stopped.pop(job_id, None)
        return stopped_s is None or asyncio.get_running_loop().time() - stopped_s > STOP_MEMORY_S

    async def stop_signals(self, session: Any) -> list[str]:
        """As the SDK's `get_stop_signals`, but asking on after an empty long poll, and over when the worker ends.

        The SDK knows only jobs that it has begun, and would leave the slot of one that it is just beginning taken for
        ever; a stop of any other is remembered here. Raises what the SDK's raises, and TimeoutError at the end, which
        makes the SDK look whether it is alive.
        """
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            if self._stops is None:
                self._stops = asyncio.ensure_future(self._stop_poll(session))
            stops = self._stops
            await first_of(stops, self._shutdown.is_told)
            self._stops = None
            if not stops.done():
                stops.cancel()
                raise asyncio.TimeoutError
            begun = [job_id for job_id in stops.result() if self._has_begun(job_id)]
            if begun or (not stops.result() and loop.time() - began_s < QUICK_S):
                return begun
            await asyncio.sleep(SLOT_PAUSE_S)

    def _has_begun(self, job_id: str) -> bool:
        """If not, the stop is kept for the moment in which the job would begin."""
        if job_id in self._in_hand() and job_id not in self._waiting:
            return True
        self._stopped.pop(job_id, None)
        self._stopped[job_id] = asyncio.get_running_loop().time()
        if len(self._stopped) > MAX_STOPS:
            self._stopped.popitem(last=False)
        return False

    async def settle(self) -> None:
        """End the open poll; a job that it still brings is refused."""
        poll = self._poll
        if poll is None:
            return
        if self._is_asking:
            await asyncio.wait({poll}, timeout=TAKE_GRACE_S)
        poll.cancel()
        await asyncio.wait({poll})
        if not poll.cancelled() and not poll.exception():
            for job in poll.result():
                _log.info("job %s came too late and is given back", job["id"])
                await self._refuse(self._session, job)

    async def _ask(self, num_jobs: int) -> list[Job]:
        began_s = asyncio.get_running_loop().time()
        self._is_asking = True
        try:
            status, body = await self._request(num_jobs)
        finally:
            self._is_asking = False
        jobs = self._jobs_in(body) if status == 200 else []
        self._waiting.update(job["id"] for job in jobs)
        if not jobs:
            is_hasty = asyncio.get_running_loop().time() - began_s < QUICK_S
            await asyncio.sleep(self._pause_s(status, is_hasty))
        return jobs

    async def _request(self, num_jobs: int) -> tuple[int, bytes]:
        """Status and body; status 0 stands for no answer."""
        try:
            limit = aiohttp.ClientTimeout(total=POLL_LIMIT_S)
            async with self._session.get(self._take_url(num_jobs), timeout=limit) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            _log.warning("asking for jobs failed: %s", type(error).__name__)
            return 0, b""

    def _pause_s(self, status: int, is_hasty: bool) -> float:
        """What to wait after an answer without jobs."""
        if status == 429:
            return BUSY_PAUSE_S
        # 400 is what a worker with FlashBoot is told while it has nothing to do.
        if status in (200, 204, 400):
            self._errors = 0
            self._hasty = self._hasty + 1 if is_hasty else 0
            return _doubled(IDLE_PAUSE_S, self._hasty, MAX_IDLE_PAUSE_S) if is_hasty else 0.0
        self._errors += 1
        if status:
            _log.warning("asking for jobs: the platform answers %d", status)
        pause_s = _doubled(ERROR_PAUSE_S, self._errors, MAX_ERROR_PAUSE_S)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads workers, guards nothing

    def _jobs_in(self, body: bytes) -> list[Job]:
        try:
            answer = json.loads(body) if body else []
        except (ValueError, RecursionError):
            _log.warning("asking for jobs: the platform's answer is not JSON (%d bytes)", len(body))
            return []
        jobs: dict[str, Job] = {}
        in_hand = self._in_hand()
        for item in answer if isinstance(answer, list) else [answer]:
            job_id = item.get("id") if isinstance(item, dict) else None
            if not isinstance(job_id, str) or not job_id:
                _log.warning("asking for jobs: an item without an id is left out")
            elif job_id in in_hand or job_id in jobs:
                _log.warning("job %s came again while it is being done; once is enough", job_id)
            else:
                # Without input the job ends with an error of its own, instead of never.
                jobs[job_id] = {"input": None, **item}
        if jobs:
            self._errors = self._hasty = 0
        return list(jobs.values())


def _doubled(first_s: float, times: int, most_s: float) -> float:
    return min(most_s, first_s * float(2 ** min(times - 1, 10)))
