"""Verbs for settings: setup, config."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from builder.cli import verb
from builder.runtime import Runtime


class ConfigAction(str, Enum):
    """What `config` can do."""

    show = "show"
    check = "check"
    get = "get"
    set = "set"


def register(app: typer.Typer) -> None:
    """Add them."""
    verb(
        app,
        "setup",
        "setup",
        "setup --non-interactive --set WHISPER_MODEL=small.en",
        "setup --non-interactive --api-key-file key.txt",
        "setup --from ../whisperlive-runpod/.env",
    )(setup)
    verb(
        app,
        "config",
        "config",
        "config check",
        "config get WHISPER_MODEL",
        "config set RUNPOD_IDLE_TIMEOUT=900 BUILDER_MAX_PRICE=0.5",
        "config set DOCKER_PASSWORD < token.txt",
    )(config)


def setup(
    run: Runtime,
    non_interactive: Annotated[
        bool, typer.Option("--non-interactive", help="Ask nothing: options, environment and files tell all.")
    ] = False,
    pairs: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; again for more.")
    ] = None,
    old_file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Import the shell project's .env.", show_default=False)
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help="File with the API key.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Change an existing .env without asking.")] = False,
) -> None:
    """Write .env: asks for the API key and the rest, makes the pods' token."""
    from builder.setup.config import parse_pairs
    from builder.setup.wizard import Wishes, set_up

    wishes = Wishes(not non_interactive, parse_pairs(pairs or []), old_file, key_file, yes)
    done = set_up(run, wishes)
    run.console.result(done, lambda: _show_setup(run, done))


def config(
    run: Runtime,
    action: Annotated[ConfigAction, typer.Argument(help="What to do.")] = ConfigAction.show,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME | NAME=VALUE]...", help="For get and set.", show_default=False)
    ] = None,
) -> None:
    """Show, check, get or set settings; secrets stay hidden, and are set by their name alone: from stdin."""
    from builder.errors import UsageError
    from builder.setup.config import get_setting, set_settings, show

    names = arguments or []
    if action is ConfigAction.set:
        changed = set_settings(run, names)
        run.console.result({"set": changed}, lambda: run.console.line(f"Set {', '.join(changed)} in {run.env_path}."))
    elif action is ConfigAction.get:
        if len(names) != 1:
            raise UsageError("config get takes one name", hint="like: python -m builder config get WHISPER_MODEL")
        row = get_setting(names[0], run.environ, run.env_file)
        run.console.result(row, lambda: run.console.line("" if row["value"] is None else str(row["value"])))
    elif names:
        raise UsageError(f"config {action.value} takes no names")
    elif action is ConfigAction.check:
        _check(run)
    else:
        rows = show(run.environ, run.env_file)
        cells = [[row["variable"], row["value"], row["source"], row["help"]] for row in rows]
        columns = ["variable", "value", "from", "what for"]
        run.console.result({"settings": rows}, lambda: run.console.table(columns, cells))


def _check(run: Runtime) -> None:
    from builder.setup.config import check_settings

    problems = check_settings(run.environ, run.env_file)
    is_valid = not any(problem.is_error for problem in problems)

    def show() -> None:
        for problem in problems:
            run.console.line(f"{'wrong' if problem.is_error else 'note '}  {problem.variable}: {problem.says}")
        run.console.line("The settings are valid." if is_valid else "The settings are not valid.")

    run.console.result({"valid": is_valid, "problems": [vars(problem) for problem in problems]}, show)
    if not is_valid:
        raise typer.Exit(2)


def _show_setup(run: Runtime, done: dict[str, Any]) -> None:
    line = run.console.line
    if done["imported"]:
        cells = [[each["variable"], each["verdict"], each["why"]] for each in done["imported"]]
        run.console.table(["imported", "is", "because"], cells)
    line(f"Wrote {done['env_file']} (readable by you alone).")
    if done["backup"]:
        line(f"The file before is in {done['backup']}.")
    if done["token_is_new"]:
        line("Made WHISPER_AUTH_TOKEN: clients of your pods must show it.")
    line("Next:")
    for step in done["next"]:
        line(f"  {step}")
