"""What a launch that failed leaves at AWS: nothing, or a message that names it, its price and the command to end it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from builder.deploy.cleanup import with_fate
from builder.ec2.resources import Ended
from builder.ec2.terminate import Target, end_command, end_name, forget
from builder.errors import BuilderError, InterruptError
from builder.state import Pending

if TYPE_CHECKING:
    from builder.aws.session import Aws
    from builder.ec2.make import Attempt
    from builder.ec2.plan import LaunchPlan
    from builder.runtime import Runtime

__all__ = ["PENDING", "clean_up"]

PENDING: Pending = "pending-ec2"
"""The document with names of launches whose end is not known."""


def clean_up(run: Runtime, aws: Aws, attempt: Attempt, error: BaseException, plan: LaunchPlan) -> BuilderError | None:
    """End what `attempt` made, and give the error to raise; None: raise the one there is (it is no BuilderError)."""
    is_interrupt = isinstance(error, KeyboardInterrupt)
    if attempt.has_sent:
        fate, hint = _end_all(run, aws, attempt, plan, is_patient=attempt.is_doubtful or is_interrupt)
    else:
        fate, hint = "nothing was made", ""
        with suppress(BuilderError):
            run.state.end_pending(attempt.name, PENDING)
    return with_fate(run, error, fate, hint or (InterruptError.default_hint if is_interrupt else ""))


def _end_all(run: Runtime, aws: Aws, attempt: Attempt, plan: LaunchPlan, *, is_patient: bool) -> tuple[str, str]:
    """What became of it all, and what the user has to do."""
    ended = Ended()
    target = _target_of(attempt)
    problem = ""
    try:
        end_name(run, aws, target, is_patient=is_patient, is_young=True, ended=ended)
    except KeyboardInterrupt:
        problem = "interrupted again"
    except Exception as failure:
        # Whatever it is, it must not hide what may be left.
        problem = str(failure) or type(failure).__name__
    if ended.left or problem:
        return _left(run, attempt, plan, ended, problem)
    what = ", ".join(str(each) for each in ended.gone) or "nothing"
    has_ended_machine = any(each.kind == "ec2 instance" for each in ended.gone)
    with suppress(BuilderError):
        # A disk that is full must not hide what became of it.
        forget(run, attempt.name)
        if not attempt.is_doubtful or has_ended_machine:
            run.state.end_pending(attempt.name, PENDING)
    if not attempt.is_doubtful or has_ended_machine:
        return f"ended {what}, nothing is left", ""
    _remember(run, attempt)
    late = (
        f"a machine named {attempt.name} may show late, and is billed then"
        if attempt.may_be_billed
        else f"a key pair or security group named {attempt.name} may show late; neither is billed"
    )
    return f"ended {what}, but {late}", f"in a minute: {end_command(attempt.name)}"


def _target_of(attempt: Attempt) -> Target:
    if attempt.machine is not None:
        return Target(attempt.name, attempt.region, attempt.machine.id, attempt.group_id, has_key=True)
    if attempt.is_doubtful:
        # A machine may use the group: only the lists can tell the order.
        return Target(attempt.name, attempt.region)
    return Target(
        attempt.name,
        attempt.region,
        None,
        attempt.group_id or None,
        has_key=attempt.has_key,
        is_group_young=not attempt.has_shown_group,
    )


def _left(run: Runtime, attempt: Attempt, plan: LaunchPlan, ended: Ended, problem: str) -> tuple[str, str]:
    _remember(run, attempt)
    command = f"end it: {end_command(attempt.name)}"
    reasons = "; ".join(filter(None, (*dict.fromkeys(str(each) for each in ended.left.values()), problem)))
    may_run = ", and a machine may be billed" if attempt.may_be_billed and attempt.machine is None else ""
    if not ended.left and (attempt.machine is None or attempt.machine in ended.gone):
        return f"it is not certain that nothing of {attempt.name} exists{may_run} ({reasons})", command
    names = [str(each) for each in ended.left]
    if attempt.machine is not None and attempt.machine not in ended.gone and str(attempt.machine) not in names:
        names.insert(0, str(attempt.machine))
    is_billed = any(name.startswith("ec2 instance") for name in names)
    cost = f" and is billed at ${plan.per_h:.2f}/h" if is_billed and plan.per_h else " and is billed" * is_billed
    return f"{', '.join(names)} could not be ended{cost or may_run} ({reasons})", command


def _remember(run: Runtime, attempt: Attempt) -> None:
    """Again in pending-ec2.json: what may be left must not be forgotten."""
    with suppress(BuilderError):
        # The message names it all the same.
        run.state.begin_pending(attempt.name, run.clock.unix_s(), PENDING)
