"""The command line: collects the verbs, gives each the options all share, and turns errors into exit codes.

Verbs live in `builder.verbs`; their modules import nothing heavy at the top, so that `--help` is quick.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from builder.console import Console
from builder.deploy.signals import interrupts
from builder.errors import BuilderError, InterruptError, UsageError
from builder.runtime import Runtime, World

__all__ = ["main", "verb"]

HELP = """Build, deploy, watch and stop speech-to-text on RunPod.

Settings come from options, the environment and .env, in this order. Results go to stdout, the rest to stderr.
"""
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 key refused, 5 no GPU free, 6 over budget, "
    "7 not ready in time (it is kept), 8 rate limited, 9 no network, 10 no credit, 130 interrupted."
)
_JSON = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
_ENV_FILE = Annotated[Path | None, typer.Option("--env-file", help="Instead of .env.", show_default=False)]
_SHARED = (("as_json", _JSON, False), ("quiet", _QUIET, False), ("env_path", _ENV_FILE, None))


def verb(app: typer.Typer, name: str, *examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(run: Runtime, ...)` as a verb with the shared options and `examples` in its help."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in list(inspect.signature(function).parameters.values())[1:]
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        shared = [inspect.Parameter(n, keyword, default=value, annotation=kind) for n, kind, value in _SHARED]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

        def call(context: typer.Context, **options: Any) -> None:
            chosen = {each: options.pop(each) for each, _, _ in _SHARED}
            run = Runtime(context.find_root().obj, **chosen)
            try:
                function(run, **options)
            except BuilderError as error:
                run.console.error(error)
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                run.console.error(InterruptError("interrupted"))
                raise typer.Exit(InterruptError.exit_code) from None

        signature = inspect.Signature([context, *own, *shared])
        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
        call.__name__ = function.__name__
        call.__doc__ = function.__doc__
        shown = "\n\n".join(f"python -m builder {example}" for example in examples)
        app.command(name, epilog=f"Examples:\n\n{shown}" if examples else None)(call)
        return function

    return register


def _usage_line(error: Any, arguments: Sequence[str]) -> str:
    """What the parser says, the value it was given, and the legal range."""
    said = str(error.format_message())
    param = getattr(error, "param", None)
    for option in getattr(param, "opts", ()):
        if option in arguments[:-1]:
            said += f"; given: {arguments[list(arguments).index(option) + 1]!r}"
    # Where the bounds stand differs between versions of typer.
    bounds = param if hasattr(param, "max") else getattr(param, "type", None)
    low, high = getattr(bounds, "min", None), getattr(bounds, "max", None)
    return said if low is None or high is None else f"{said}; legal: {low:g} to {high:g}"


def build_app() -> typer.Typer:
    """The whole command line."""
    from builder.verbs import register_all

    app = typer.Typer(
        name="python -m builder",
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    register_all(app)
    return app


@functools.cache
def _command() -> Any:
    """The parser; it holds nothing of a run, and making it takes as long as many a verb."""
    return typer.main.get_command(build_app())


def main(argv: Sequence[str] | None = None, world: World | None = None) -> int:
    """Run a verb; returns the exit code. SIGTERM and SIGHUP end it as Ctrl-C does, so that it leaves nothing behind."""
    with interrupts(lambda text: None):
        return _main(argv, world)


def _main(argv: Sequence[str] | None, world: World | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    world = world or World(os.environ, Path.cwd())
    command = _command()
    try:
        result = command.main(arguments, prog_name="python -m builder", standalone_mode=False, obj=world)
    except typer.Abort:
        Console(world.redactor, stdout=world.stdout, stderr=world.stderr).error(InterruptError("interrupted"))
        return InterruptError.exit_code
    except Exception as error:
        # Wrong usage, as the parser sees it; it knows how to show itself.
        show, code = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or not isinstance(code, int):
            raise
        if "--json" in arguments:
            console = Console(world.redactor, as_json=True, stdout=world.stdout, stderr=world.stderr)
            console.error(UsageError(_usage_line(error, arguments)))
        else:
            show()
        return code
    return result if isinstance(result, int) else 0
