"""The verb `doctor`."""

from __future__ import annotations

import typer

from builder.cli import verb
from builder.runtime import Runtime


def register(app: typer.Typer) -> None:
    """Add it."""
    verb(app, "doctor", "doctor", "doctor --json")(doctor)


def doctor(run: Runtime) -> None:
    """Check settings, key, account, docker and this machine; changes nothing. Exit 1 if something fails."""
    from builder.setup.doctor import examine

    checks = examine(run)
    count = {state: sum(check.state == state for check in checks) for state in ("ok", "warn", "fail", "skip")}

    def show() -> None:
        rows = [[check.state, check.name, check.says, check.remedy] for check in checks]
        run.console.table(["", "check", "finding", "remedy"], rows)
        run.console.line(f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed")

    run.console.result({"checks": [vars(check) for check in checks], "count": count}, show)
    if count["fail"]:
        raise typer.Exit(1)
