"""The verb `doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    verb(app, "doctor", "doctor", "doctor --json", "doctor --image whisper:slim --gpus")(doctor)


def doctor(
    run: Runtime,
    image: Annotated[
        str | None, typer.Option(help="Check inside this image, with its own doctor.", show_default=False)
    ] = None,
    gpus: Annotated[bool, typer.Option("--gpus", help="With --image: give the container all GPUs.")] = False,
) -> None:
    """Check settings, key, account, docker and this machine; changes nothing. Exit 1 if something fails."""
    from builder.errors import UsageError

    if gpus and image is None:
        raise UsageError("--gpus needs --image", hint="python -m builder doctor --image IMAGE --gpus")
    if image is None:
        from builder.setup.doctor import examine

        checks = examine(run)
    else:
        from builder.setup.doctor_image import examine_image

        checks = examine_image(run, image, gpus=gpus)
    count = {state: sum(check.state == state for check in checks) for state in ("ok", "warn", "fail", "skip")}

    def show() -> None:
        rows = [[check.state, check.name, check.says, check.remedy] for check in checks]
        run.console.table(["", "check", "finding", "remedy"], rows)
        run.console.line(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed")

    run.console.result({"checks": [vars(check) for check in checks], "count": count}, show)
    if count["fail"]:
        raise typer.Exit(1)
