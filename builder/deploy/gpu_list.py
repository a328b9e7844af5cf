"""What `gpus` lists: the catalog of the clouds asked for, filtered and ordered by price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.deploy.gpus import Candidate, Wanted, architecture, clouds_of, list_candidates, pick
from builder.deploy.options import comma_list
from builder.deploy.prepare import read_catalogs
from builder.deploy.throughput import LABEL, memory_needed_gb
from builder.errors import CapacityError, UsageError

if TYPE_CHECKING:
    from builder.console import Console
    from builder.runtime import Runtime

__all__ = ["GpuList", "GpuQuery", "list_gpus", "remember", "show"]


@dataclass(frozen=True)
class GpuQuery:
    """The options of `gpus`; None: as the settings say."""

    cloud: str | None = None
    gpu: str | None = None
    min_memory_gb: int | None = None
    max_price: float | None = None
    data_center: str | None = None
    model: str | None = None
    count: int = 1
    is_all: bool = False


@dataclass(frozen=True)
class GpuList:
    """What was found for which model and memory."""

    model: str
    min_memory_gb: int
    candidates: tuple[Candidate, ...]

    def document(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "model": self.model,
            "min_memory_gb": self.min_memory_gb,
            "price_per_audio_h": LABEL,
            "gpus": [each.document() for each in self.candidates],
        }


def list_gpus(run: Runtime, query: GpuQuery, *, is_pick: bool = False, is_write: bool = False) -> GpuList:
    """Read and filter; `is_pick`: only the best. Raises UsageError, CapacityError if nothing can be picked."""
    if is_write and not is_pick:
        raise UsageError("--write goes with --pick")
    settings = run.settings
    model = query.model or settings.model
    needed_gb = query.min_memory_gb or memory_needed_gb(model, settings.compute_type) or 0
    wanted = Wanted(
        clouds=clouds_of(query.cloud or settings.cloud),
        gpu_names=comma_list(query.gpu),
        count=query.count,
        data_centers=comma_list(query.data_center) or settings.data_centers,
        min_memory_gb=needed_gb,
        model=model,
    )
    with run.console.task("reading prices and stock"):
        catalogs = read_catalogs(run, wanted.clouds, wanted.count)
    limit = settings.max_price if query.max_price is None else query.max_price
    found = [
        each
        for each in list_candidates(catalogs, wanted)
        if limit is None or (each.price_per_h is not None and each.price_per_h <= limit)
    ]
    if is_pick:
        best = pick(found, needed_gb)
        if best is None:
            raise CapacityError(
                f"nothing in stock has {needed_gb} GB" + ("" if limit is None else f" for at most ${limit:g}/h"),
                hint="see what there is: python -m builder gpus --all",
            )
        return GpuList(model, needed_gb, (best,))
    if not query.is_all:
        found = [c for c in found if c.is_in_stock and c.memory_gb >= needed_gb and architecture(c.gpu_id) is not None]
    return GpuList(model, needed_gb, tuple(found))


def remember(run: Runtime, candidate: Candidate) -> None:
    """Write the choice into `.env`: RUNPOD_GPU_TYPE and RUNPOD_CLOUD_TYPE."""
    from builder.env_file import update_env_file

    update_env_file(run.env_path, {"RUNPOD_GPU_TYPE": candidate.gpu_id, "RUNPOD_CLOUD_TYPE": candidate.cloud})
    run.console.note(f"{run.env_path.name}: RUNPOD_GPU_TYPE={candidate.gpu_id}, RUNPOD_CLOUD_TYPE={candidate.cloud}")


def show(console: Console, found: GpuList) -> None:
    """The list, for people."""
    from builder.deploy.view import COLUMNS, candidate_rows

    if not found.candidates:
        console.line("Nothing in stock fits; see all: python -m builder gpus --all")
        return
    console.table(COLUMNS, candidate_rows(found.candidates))
    console.line(f"* for {found.model}: {LABEL}, GPU busy all the time; memory wanted: {found.min_memory_gb} GB")
