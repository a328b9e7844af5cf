"""The verb that shows what can be rented."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    verb(app, "gpus", "gpus", "gpus --cloud secure --min-vram 24 --max-price 0.5", "gpus --pick --write")(gpus)


def gpus(
    run: Runtime,
    cloud: Annotated[str | None, typer.Option("--cloud", help="any, secure or community.")] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Only these, by commas.")] = None,
    min_vram: Annotated[
        int | None, typer.Option("--min-vram", min=1, max=1000, help="GB (default: what the model wants).")
    ] = None,
    max_price: Annotated[
        float | None, typer.Option("--max-price", min=0.01, max=100, help="At most this, $/h.")
    ] = None,
    data_center: Annotated[str | None, typer.Option("--data-center", help="Stock in these, by commas.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="For memory and speed (default: WHISPER_MODEL).")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=8, help="GPUs of one pod.")] = 1,
    pick: Annotated[bool, typer.Option("--pick", help="Only the cheapest in stock that does.")] = False,
    write: Annotated[bool, typer.Option("--write", help="With --pick: into .env as RUNPOD_GPU_TYPE.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Also what is out of stock or too small.")] = False,
) -> None:
    """Show GPUs with price, stock, memory and price per hour of audio, the cheapest first. Rents nothing."""
    from builder.deploy.gpu_list import GpuQuery, list_gpus, remember
    from builder.deploy.gpu_list import show as show_list

    query = GpuQuery(cloud, gpu, min_vram, max_price, data_center, model, count, show_all)
    found = list_gpus(run, query, is_pick=pick, is_write=write)
    if write:
        remember(run, found.candidates[0])
    run.console.result(found.document(), lambda: show_list(run.console, found))
