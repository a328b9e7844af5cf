"""Verb explain: from a failure's text to its cause and remedy."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    verb(
        app,
        "explain",
        "explain 'manifest unknown'",
        "logs --tail 1000 | python -m builder explain",
        "explain --pod 7h9k2m4n6p",
    )(explain)


def explain(
    run: Runtime,
    text: Annotated[
        str | None, typer.Argument(help="What failed says, a file of it, or - for standard input.", show_default=False)
    ] = None,
    pod: Annotated[str | None, typer.Option("--pod", help="Read this pod's logs.")] = None,
) -> None:
    """Turn a failure's text into its cause and what to do."""
    from builder.errors import UsageError
    from builder.pods.explain import explain as explained
    from builder.pods.explain import read_text

    if text is not None and pod is not None:
        raise UsageError("give a text or --pod, not both")
    # Cleaned as a whole: what is shown of it is cut to a length.
    document = explained(run.redactor.clean(read_text(run, text, pod)))

    def show() -> None:
        run.console.line(f"cause    {document['cause']} ({document['kind']}, confidence {document['confidence']})")
        run.console.line(f"remedy   {document['remedy']}")
        run.console.line(f"because  {document['line']}")

    run.console.result(document, show)
