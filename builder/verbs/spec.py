"""The group `spec`: what RunPod's API says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.api.spec_diff import Difference


def register(app: typer.Typer) -> None:
    """Add it."""
    group = typer.Typer(help="RunPod's description of its API.", no_args_is_help=True)
    verb(group, "diff", "spec diff openapi.json", "spec diff https://host/openapi.json --against openapi.json")(diff)
    app.add_typer(group, name="spec")


def diff(
    run: Runtime,
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="OpenAPI document of REST v2, as JSON.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An older one (default: what this version knows).", show_default=False),
    ] = None,
) -> None:
    """Compare the API's description with the one this version was written for; exit 1 if anything used is gone."""
    from builder.api.spec_diff import diff as compare

    found = compare(run, source, against)
    run.console.result(found.document(), lambda: _show(run, found))
    if found.breaks:
        raise typer.Exit(1)


def _show(run: Runtime, found: Difference) -> None:
    line = run.console.line
    line(f"{found.before_version or '?'} -> {found.after_version or '?'}")
    if found.changes:
        rows = [
            ["BREAKS" if each.breaks else "", each.kind, each.where, each.before, each.after] for each in found.changes
        ]
        run.console.table(["", "is", "what", "before", "after"], rows)
    else:
        line("Nothing that is used here has changed.")
    line(
        f"Operations that are not used: {len(found.others_added)} added, {len(found.others_removed)} removed, "
        f"{len(found.others_moved)} moved."
    )
    if found.unlisted:
        line(f"New to this version: {', '.join(found.unlisted)}")
