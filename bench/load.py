"""One load run: clients against a server, and all that can be measured of both.

Joins the parts: plans, drivers, measures, the server's processes and metrics. Invariant: whatever a server
does not tell (no metrics, no process of this machine) is absent from the result, and nothing else changes.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.clients import make_plans
from bench.corpus import Corpus
from bench.drivers import run_clients
from bench.expect import OfflineWords, expected
from bench.measure import StreamFigures, Summary, measure_stream, summarise
from bench.resources import ResourceUse, watch_tree
from bench.server_metrics import Ledger, QueueFigures, fetch_metrics, ledger, queue_figures
from bench.servers import ServerUnderTest
from engine.clock import MonotonicClock

__all__ = ["LoadOptions", "LoadResult", "run_load"]


@dataclass(frozen=True)
class LoadOptions:
    """How clients come and speak. `chunk_ms` None: mixed. `seconds`: least audio of each."""

    clients: int
    seconds: float
    chunk_ms: int | None = None
    spread_s: float = 2.0
    seed: int = 1
    drivers: int = 1
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LoadResult:
    """A run. `driver_cores`: CPU seconds per second that the load generator itself took."""

    summary: Summary
    streams: tuple[StreamFigures, ...]
    wall_s: float
    driver_cores: float
    resources: ResourceUse | None
    queue: QueueFigures | None
    ledger: Ledger | None

    @property
    def cpu_per_audio_s(self) -> float | None:
        """CPU seconds of the server's processes per second of audio."""
        if self.resources is None or not self.summary.audio_s:
            return None
        return self.resources.cpu_s / self.summary.audio_s


async def run_load(
    server: ServerUnderTest, corpus: Corpus, offline: Mapping[str, OfflineWords], options: LoadOptions
) -> LoadResult:
    """Run all clients against a server that is started. Raises DriverError."""
    plans = make_plans(
        corpus.pools,
        options.clients,
        seconds=options.seconds,
        seed=options.seed,
        chunk_ms=options.chunk_ms,
        spread_s=options.spread_s,
        linger_s=server.linger_s,
        options=server.options,
    )
    clock = MonotonicClock()
    before = await fetch_metrics(server.health_url, options.token)
    begin_s, begin_cpu_s = clock.now_s(), _own_cpu_s()
    audio_end_s = max(plan.delay_s + plan.playlist.audio_s for plan in plans)
    async with watch_tree(server.pids, limit_s=audio_end_s) as watch:
        raw = await run_clients(server.url, options.token, plans, corpus.shared, options.drivers)
    wall_s = clock.now_s() - begin_s
    driver_cores = (_own_cpu_s() - begin_cpu_s) / wall_s
    after = await fetch_metrics(server.health_url, options.token)
    figures = tuple(
        measure_stream(plan, stream, expected(plan.playlist, offline)) for plan, stream in zip(plans, raw, strict=True)
    )
    summary = summarise(figures)
    return LoadResult(
        summary=summary,
        streams=figures,
        wall_s=wall_s,
        driver_cores=driver_cores,
        resources=watch.use,
        queue=queue_figures(before, after, wall_s) if after else None,
        ledger=ledger(before, after, summary.sent_samples),
    )


def _own_cpu_s() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)
