"""The group `hub`: the repository as a listing of RunPod's Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime

if TYPE_CHECKING:
    from builder.hub.lint import Lint


def register(app: typer.Typer) -> None:
    """Add it."""
    group = typer.Typer(help="The repository as a listing of RunPod's Hub.", no_args_is_help=True)
    verb(group, "lint", "hub lint", "hub lint ../my-worker --json")(lint)
    app.add_typer(group, name="hub")


def lint(
    run: Runtime,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The repository's root.", show_default="this folder")
    ] = Path(),
) -> None:
    """Check .runpod/hub.json, tests.json and what they say of the code; exit 1 if the Hub would not take them."""
    from builder.errors import CheckFailedError
    from builder.hub.lint import lint as check

    found = check(run, run.folder / folder)
    run.console.result(found.document(), lambda: _show(run, found))
    if found.n_errors:
        first = next(each for each in found.problems if each.level == "error")
        place = " ".join(part for part in (first.file, first.path) if part)
        more = f" (and {found.n_errors - 1} more)" if found.n_errors > 1 else ""
        raise CheckFailedError(
            f"{place}: {first.text}{more}", hint="correct what is listed, then: python -m builder hub lint"
        )


def _show(run: Runtime, found: Lint) -> None:
    if found.problems:
        rows = [(each.level, each.file, each.path, each.text) for each in found.problems]
        run.console.table(("level", "file", "path", "text"), rows)
    n_warnings = len(found.problems) - found.n_errors
    run.console.line(f"errors: {found.n_errors}, warnings: {n_warnings}")
