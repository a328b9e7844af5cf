"""Looks at everything a deploy needs and says what is amiss and what to do about it. Changes nothing, costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from builder.errors import BuilderError

if TYPE_CHECKING:
    from builder.runtime import Runtime

__all__ = ["Check", "examine", "guarded"]

State = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Check:
    """One finding: `fail` keeps a deploy from working, `warn` may, `skip` was not looked at."""

    name: str
    state: State
    says: str
    remedy: str = ""


def examine(run: Runtime) -> list[Check]:
    """Everything, in the order in which it depends on each other."""
    from builder.setup import doctor_local, doctor_remote

    checks: list[Check] = []
    with run.console.task("checking") as task:
        for name, look in doctor_local.CHECKS:
            task.update(name)
            checks.extend(guarded(name, look, run))
        is_usable = not any(check.state == "fail" and check.name in ("env file", "settings") for check in checks)
        for name, look in doctor_remote.CHECKS:
            task.update(name)
            if is_usable:
                checks.extend(guarded(name, look, run))
            else:
                checks.append(Check(name, "skip", "needs valid settings"))
    return checks


def guarded(name: str, look: Callable[[Runtime], Iterator[Check]], run: Runtime) -> list[Check]:
    """What `look` finds; an error ends it and is a finding itself."""
    found: list[Check] = []
    try:
        for check in look(run):
            found.append(check)
    except BuilderError as error:
        found.append(Check(name, "fail", str(error), error.hint))
    return found
